//! The weights of a graph as a file.

use lepton_ir::Graph;
use safetensors::tensor::TensorView;

use super::read::TYPES;
use super::replace::weights_of;
use crate::error::FormatError;

/// The bytes of a file with the named weights of a graph: its constants in floating point and of
/// 8 bits. [`super::replace`] takes them back.
///
/// # Errors
/// A constant whose elements safetensors does not have.
pub fn write(graph: &Graph) -> Result<Vec<u8>, FormatError> {
    let mut views = Vec::new();
    for weight in weights_of(graph) {
        let tensor = graph.constant(weight).expect("weights are constants");
        let name = graph.value(weight).name.as_str();
        let dtype = TYPES.iter().find(|(_, own)| *own == tensor.dtype()).map(|(dtype, _)| *dtype);
        let dtype = dtype.ok_or_else(|| {
            FormatError::tensor(name, format!("safetensors has no {}", tensor.dtype()))
        })?;
        let view = TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes());
        let view = view.map_err(|error| FormatError::tensor(name, error.to_string()))?;
        views.push((name, view));
    }
    let written = safetensors::serialize(views, None);
    written.map_err(|error| FormatError::Unsupported(format!("as safetensors: {error}")))
}
