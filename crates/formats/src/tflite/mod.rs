//! TensorFlow Lite: reading `.tflite` files.
//!
//! Quantised tensors become the standard form, `DequantizeLinear → operator → QuantizeLinear`, with
//! the file's scales and zero points; inputs and outputs keep their types. Images stay as they
//! are, channels last.

mod blocks;
mod call;
mod centred;
mod control;
mod detection;
mod elements;
mod fixed;
mod flat;
mod flexible;
mod integer_lstm;
mod names;
mod ops;
mod products;
mod read;
mod recurrent;
mod reductions;
mod rounded;
mod schema;
mod select;
mod shapes;
mod slices;
mod tensor;
mod windows;

pub use ops::operator_names;
pub use read::{operators, read};
pub use schema::IDENTIFIER;
