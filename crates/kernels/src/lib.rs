//! Compute kernels: they know slices and strides, never graphs.
//!
//! Every kernel has one entry point that takes an [`Isa`] and dispatches to the sibling written
//! for that instruction set in `isa/`. Integer kernels give the same bits on every set.

pub mod isa;

pub use isa::Isa;

pub mod activations;
pub mod attention;
pub mod binary;
mod blocking;
pub mod broadcast;
pub mod conv;
pub mod couple;
pub mod depthwise;
mod depthwise_columns;
mod depthwise_lines;
mod depthwise_shared;
pub mod epilogue;
mod finish;
mod functions;
pub mod gate;
pub mod gemm;
pub mod grouped;
pub mod groups;
pub mod map;
pub mod normalize;
mod offsets;
pub mod pack;
mod panel;
pub mod peak;
pub mod pixels;
pub mod pool;
pub mod quantize;
pub mod ranks;
pub mod real;
pub mod recurrent;
pub mod reduce;
pub mod regions;
pub mod resample;
pub mod single;
pub mod softmax;
pub mod sparse;
pub mod stem;
pub mod stored;
pub mod suppress;
mod tile;
pub mod transpose;
pub mod trees;
pub mod tuples;
mod vector;
mod walk;
pub mod winograd;
