//! Kernels in plain Rust, written so that compilers vectorise them.

pub(crate) mod depthwise;
pub(crate) mod epilogue;
pub(crate) mod gemm;
pub(crate) mod groups;
pub(crate) mod single;
pub(crate) mod sparse;
pub(crate) mod trees;

pub(crate) mod vector;
