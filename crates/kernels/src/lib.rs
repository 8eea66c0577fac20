//! Compute kernels: they know slices and strides, never graphs.
//!
//! Every kernel has one entry point that takes an [`Isa`] and dispatches to the sibling written
//! for that instruction set in `isa/`. Integer kernels give the same bits on every set.

pub mod isa;

pub use isa::Isa;

pub mod conv;
pub mod depthwise;
pub mod epilogue;
pub mod gemm;
pub mod grouped;
pub mod pack;
mod tile;
