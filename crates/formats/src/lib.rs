//! Model files, ONNX, TensorFlow Lite, Lepton's artefact, and weights in safetensors: bytes in and bytes out. No `unsafe`, no files.
#![forbid(unsafe_code)]

pub mod artefact;
pub mod error;
pub mod limits;
pub mod onnx;
mod problems;
pub mod safetensors;
mod steps;
pub mod tflite;

pub use artefact::{Artefact, Golden};
pub use error::{FormatError, UnknownOperator};
pub use onnx::{ExternalData, NoExternalData, check_external_path};

/// A kind of model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Open Neural Network Exchange, a protobuf message.
    Onnx,
    /// TensorFlow Lite, a FlatBuffer.
    Tflite,
    /// Lepton's own file.
    Lepton,
}

impl Format {
    /// Every format, in order.
    pub const ALL: &'static [Format] = &[Format::Onnx, Format::Tflite, Format::Lepton];

    /// The extension of its files, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Onnx => "onnx",
            Format::Tflite => "tflite",
            Format::Lepton => "lepton",
        }
    }

    /// True if files of this format can be written.
    pub fn is_written(self) -> bool {
        match self {
            Format::Onnx | Format::Lepton => true,
            Format::Tflite => false,
        }
    }
}

/// What kind of file these are the first bytes of (64 are enough), if it can be told.
pub fn sniff(bytes: &[u8]) -> Option<Format> {
    if bytes.starts_with(artefact::MAGIC) {
        return Some(Format::Lepton);
    }
    if bytes.get(4..8) == Some(tflite::IDENTIFIER) {
        return Some(Format::Tflite);
    }
    // A model starts with field 1, `ir_version`, a small number; then a field up to 8 or 14, 20.
    match bytes {
        [0x08, 1..=32, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => Some(Format::Onnx),
        _ => None,
    }
}
