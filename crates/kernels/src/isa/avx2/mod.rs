//! Kernels for AVX2 with FMA, two ymm registers to a panel line.

// Arrays of registers are walked by index, so that they unroll into registers.
#![allow(clippy::needless_range_loop)]

pub(crate) mod depthwise_f32;
pub(crate) mod depthwise_u8s8;
pub(crate) mod epilogue;
pub(crate) mod gemm_f32;
pub(crate) mod gemm_u8s8;

pub(crate) mod map;
pub(crate) mod transpose;
pub(crate) mod trees;
pub(crate) mod vector;
