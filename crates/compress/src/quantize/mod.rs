//! Integers and short floats for weights and activations, after training.

mod bf16;
mod calibrate;
mod correct;
mod domain;
mod dynamic;
mod equalize;
mod histogram;
mod insert;
mod observe;
mod place;
mod products;
mod sensitivity;
mod weights;

pub use bf16::to_bf16;
pub use calibrate::{Calibration, Ranges};
pub use correct::bias_correction;
pub use dynamic::quantize_dynamic;
pub use equalize::equalize;
pub use histogram::{BINS, Histogram};
pub use insert::{QuantizeOptions, quantisable_nodes, quantize_static};
pub use observe::{Observations, calibrate, observe, simplified};
pub use sensitivity::sensitivity;
pub use weights::quantize_weights;
