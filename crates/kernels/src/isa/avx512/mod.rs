//! Kernels for AVX-512 F, BW, DQ, VL and VNNI.

pub(crate) mod map;
pub(crate) mod transpose;
pub(crate) mod vector;
