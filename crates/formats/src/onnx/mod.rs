//! ONNX: reading operator sets 7 and newer, writing operator set 21.

mod attention;
mod branches;
mod call;
mod decomposed;
mod emit;
mod folded;
mod functions;
mod fused;
mod link;
mod normalised;
mod ops;
mod proto;
mod quantised;
mod read;
mod rows;
mod tensor;
mod values;
mod wire;
mod write;

pub use ops::operator_names;
pub use read::{Fixed, read, read_fixed};
pub use write::{OPSET, WriteOptions, write};

use bytes::Bytes;
use lepton_tensor::Tensor;
use prost::Message;

use crate::error::FormatError;

/// The names of a model's inputs, in order, whether or not the model can be read.
pub fn input_names(bytes: Bytes) -> Result<Vec<String>, FormatError> {
    let graph = read::decode(bytes)?.graph.unwrap_or_default();
    let constants: Vec<_> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
    let names = graph.input.iter().filter_map(|input| input.name.clone());
    Ok(names.filter(|name| !constants.contains(&name.as_str())).collect())
}

/// Reads one `TensorProto`, as in the data sets beside ONNX's test models. It must hold its data.
pub fn read_tensor(bytes: Bytes) -> Result<Tensor, FormatError> {
    let proto = proto::TensorProto::decode(bytes).map_err(|error| FormatError::Damaged {
        format: "ONNX",
        offset: 0,
        why: error.to_string(),
    })?;
    tensor::read(&proto, &NoExternalData)
}

/// Where the tensors are that a model keeps outside its own file.
pub trait ExternalData {
    /// `length` bytes (all to the end where `None`) at `offset` of the file `location`, which has
    /// passed [`check_external_path`]. The error says what could not be read.
    fn load(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, String>;
}

/// For models that must be whole in themselves: refuses every request.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoExternalData;

impl ExternalData for NoExternalData {
    fn load(&self, location: &str, _: u64, _: Option<u64>) -> Result<Bytes, String> {
        Err(format!("the model keeps data in `{location}`, but only its own bytes were given"))
    }
}

/// Accepts a relative path below the model's folder and nothing else: no absolute path, no
/// drive, no `..`, no empty part, no NUL, no backslash. The error says why not.
pub fn check_external_path(location: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("external data path `{location}` {why}"));
    if location.is_empty() || location.len() > crate::limits::NAME_BYTES {
        return refuse("is empty or too long");
    }
    if location.starts_with('/') || location.contains([':', '\\', '\0']) {
        return refuse("must be relative, without `:`, `\\` or NUL");
    }
    if location.split('/').any(|part| part == ".." || part.is_empty()) {
        return refuse("must not contain `..` or empty parts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_paths_stay_below_the_model() {
        for good in ["weights.bin", "data/weights.bin", "./weights", "a..b"] {
            assert_eq!(check_external_path(good), Ok(()));
        }
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "C:x", "a\\b", "a//b", "a\0b"] {
            assert!(check_external_path(bad).is_err(), "{bad:?}");
        }
    }
}
