//! Compute kernels: they know slices and strides, never graphs.
//!
//! Every kernel has one entry point that takes an [`Isa`] and dispatches to the sibling written
//! for that instruction set in `isa/`. Integer kernels give the same bits on every set.

pub mod isa;

pub use isa::Isa;

pub mod binary;
pub mod broadcast;
mod functions;
pub mod map;
pub mod normalize;
pub mod pool;
pub mod quantize;
pub mod reduce;
pub mod softmax;
pub mod transpose;
mod vector;
