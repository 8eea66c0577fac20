//! safetensors: weights by their names, without a graph (huggingface.co/docs/safetensors). They are
//! read, given to a graph in place of its own ([`replace`]), and written.

mod names;
mod read;
mod replace;
mod write;

pub use read::{Weights, read};
pub use replace::replace;
pub use write::write;

/// The extension of the files, without the dot.
pub const EXTENSION: &str = "safetensors";
