//! Kernels for AVX2 with FMA and F16C.

pub(crate) mod map;
pub(crate) mod transpose;
pub(crate) mod vector;
