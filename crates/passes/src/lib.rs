//! Passes: the same answer from a better graph. What may change numbers lives in `compress`.
#![forbid(unsafe_code)]
#![allow(clippy::result_large_err)]

mod attention;
mod bodies;
mod constants;
mod epilogue;
mod extents;
mod identity;
mod integers;
mod layout;
mod linear;
mod pass;
mod patterns;
pub mod pipelines;
mod scale;
mod sequences;
mod sink;
mod transposed;
mod windows;

pub use pass::{Pass, PassError, run_pipeline};
