//! Kernels for AVX-512 (F, BW, DQ, VL, VNNI), one zmm register to a panel line.

// Arrays of registers are walked by index, so that they unroll into registers.
#![allow(clippy::needless_range_loop)]

pub(crate) mod addresses;
mod columns;
pub(crate) mod depthwise_bytes;
pub(crate) mod depthwise_f32;
pub(crate) mod depthwise_halves;
pub(crate) mod depthwise_lines;
pub(crate) mod depthwise_shared;
pub(crate) mod depthwise_u8s8;
pub(crate) mod epilogue;
pub(crate) mod gemm_bf16;
pub(crate) mod gemm_f32;
pub(crate) mod gemm_u8s8;
pub(crate) mod groups;
pub(crate) mod halves;
pub(crate) mod packing;
pub(crate) mod pairs;
mod panels;
pub(crate) mod single;
pub(crate) mod sparse;

pub(crate) mod map;
pub(crate) mod transpose;
pub(crate) mod trees;
pub(crate) mod vector;
