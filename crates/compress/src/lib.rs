//! Compression: graph to graph, f32 in, a smaller or faster graph out, whose numbers may change.
//!
//! [`METHODS`] is the list of methods; a [`Recipe`] says which were applied, with which
//! parameters, and can be replayed. Every method is a function of its operands: the same graph,
//! samples and parameters give the same bytes.
#![forbid(unsafe_code)]
// Errors carry the node, its operands and the problem; they are rare and made once.
#![allow(clippy::result_large_err)]

mod context;
mod error;
mod methods;
mod parameters;
pub mod quantize;
mod recipe;

pub use context::{Batches, Context, Sensitivities, fingerprint};
pub use error::CompressError;
pub use methods::{METHODS, Method, Needs, method};
pub use parameters::{Kind, Parameter, ParameterValue, Parameters};
pub use quantize::{
    Calibration, Observations, QuantizeOptions, Ranges, bias_correction, calibrate, equalize,
    observe, quantisable_nodes, quantize_dynamic, quantize_static, sensitivity, simplified,
    to_bf16,
};
pub use recipe::{Recipe, Step};
