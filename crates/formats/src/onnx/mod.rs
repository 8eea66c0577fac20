//! ONNX: reading operator sets 6 and newer, writing operator set 21.

mod attention;
mod branches;
mod call;
mod classical;
mod contrib;
mod contrib_attention;
mod contrib_integer;
mod decomposed;
mod einsum;
mod emit;
mod expand;
mod families;
mod folded;
mod functions;
mod fused;
mod gradient;
mod group_query;
mod labels;
mod link;
mod lists;
mod losses;
mod normalised;
mod ops;
mod problems;
mod proto;
mod quantised;
mod random;
mod read;
mod repeats;
mod rows;
mod sequence;
mod shaped;
mod spectral;
mod tensor;
mod trees;
mod values;
mod vectors;
mod wire;
mod write;

pub use ops::operator_names;
pub use read::{Fixed, read, read_fixed};
pub use write::{OPSET, WriteOptions, write};

use bytes::Bytes;
use lepton_tensor::Tensor;
use prost::Message;

use crate::error::FormatError;

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// True for a sequence of tensors, false for a tensor.
    pub is_list: bool,
    /// True if it may be absent.
    pub is_optional: bool,
}

/// The inputs and the outputs of a model, in order, whether or not the model can be read.
pub fn slots(bytes: Bytes) -> Result<[Vec<Slot>; 2], FormatError> {
    let graph = read::decode(bytes)?.graph.unwrap_or_default();
    let constants: Vec<_> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
    let slot = |declared: &proto::ValueInfoProto| {
        let (kind, is_optional) = lists::kind(declared);
        let name = declared.name.clone().unwrap_or_default();
        Slot { name, is_list: kind == lists::Kind::List, is_optional }
    };
    let mut slots = [&graph.input, &graph.output].map(|list| list.iter().map(slot).collect());
    let [inputs, _]: &mut [Vec<Slot>; 2] = &mut slots;
    inputs.retain(|slot| !constants.contains(&slot.name.as_str()));
    Ok(slots)
}

/// Reads what is given for a slot, as in the data sets beside ONNX's test models: a `TensorProto`,
/// a `SequenceProto` or an `OptionalProto`. `None` where an optional value is absent.
pub fn read_slot(slot: &Slot, bytes: Bytes) -> Result<Option<Vec<Tensor>>, FormatError> {
    let one = |proto: &proto::TensorProto| tensor::read(proto, &NoExternalData);
    let all = |list: &proto::SequenceProto| {
        list.tensor_values.iter().map(one).collect::<Result<Vec<Tensor>, FormatError>>()
    };
    if slot.is_optional {
        let value: proto::OptionalProto = message(bytes)?;
        return match (&value.tensor_value, &value.sequence_value) {
            (Some(tensor), _) => Ok(Some(vec![one(tensor)?])),
            (None, Some(list)) => all(list).map(Some),
            (None, None) => Ok(None),
        };
    }
    if slot.is_list {
        return all(&message(bytes)?).map(Some);
    }
    Ok(Some(vec![read_tensor(bytes)?]))
}

fn message<M: Message + Default>(bytes: Bytes) -> Result<M, FormatError> {
    M::decode(bytes).map_err(|error| FormatError::Damaged {
        format: "ONNX",
        offset: 0,
        why: error.to_string(),
    })
}

/// The operators of a model's own graph in order, those outside ONNX's domain after their domain
/// and a dot, and the newest operator set it imports; whether or not the model can be read.
pub fn operators(bytes: Bytes) -> Result<(Vec<String>, i64), FormatError> {
    let model = read::decode(bytes)?;
    let version = model.opset_import.iter().filter_map(|import| import.version).max();
    let name = |node: &proto::NodeProto| {
        let operator = node.op_type.as_deref().unwrap_or_default();
        match node.domain.as_deref() {
            None | Some("" | "ai.onnx") => operator.to_string(),
            Some(domain) => format!("{domain}.{operator}"),
        }
    };
    let graph = model.graph.unwrap_or_default();
    Ok((graph.node.iter().map(name).collect(), version.unwrap_or(0)))
}

/// Reads one `TensorProto`, as in the data sets beside ONNX's test models. It must hold its data.
pub fn read_tensor(bytes: Bytes) -> Result<Tensor, FormatError> {
    tensor::read(&message(bytes)?, &NoExternalData)
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
