//! How much memory the structures of an ONNX message will need, counted before it is decoded.
//!
//! A field of a few bytes can become a structure of hundreds. A file made of nothing else would
//! need hundreds of times its own size; real ones (two dozen measured) need at most 16 times the
//! bytes they have besides weights. Elements of tensors are not counted: they are read where they
//! lie. Nor are the lists of `ai.onnx.ml`, of which forests consist.

use std::mem::size_of;

use super::proto::{
    AttributeProto, DimensionProto, FunctionProto, GraphProto, InnerTypeProto, ModelProto,
    NodeProto, OperatorSetIdProto, SparseTensorProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::limits;

/// Bytes of structures that every file may need, whatever its size.
const ALLOWANCE: usize = 1 << 16;
/// Bytes of structures per byte of the file.
const RATIO: usize = 48;
/// Deepest message within messages.
const DEPTH: usize = 64;
/// Bytes of a text besides its own: where it is, how long, and what the allocator adds.
const TEXT: usize = 40;
/// Bytes of an element of a list of integers or floats.
const NUMBER: usize = 8;
/// Nodes below so many bytes are not asked for their domain.
const LARGE_NODE: usize = 1 << 16;

/// A kind of message.
struct Kind {
    /// Bytes of its structure.
    size: usize,
    /// The fields that hold messages, each with the index of their kind.
    messages: &'static [(u64, usize)],
    /// The fields that hold texts or bytes.
    texts: &'static [u64],
    /// The fields that hold lists of numbers.
    numbers: &'static [u64],
}

const fn kind<T>(
    messages: &'static [(u64, usize)],
    texts: &'static [u64],
    numbers: &'static [u64],
) -> Kind {
    Kind { size: size_of::<T>(), messages, texts, numbers }
}

const MODEL: usize = 0;
const GRAPH: usize = 1;
const NODE: usize = 2;
const ATTRIBUTE: usize = 3;
const TENSOR: usize = 4;
const ENTRY: usize = 5;
const VALUE: usize = 6;
const TYPE: usize = 7;
const TENSOR_TYPE: usize = 8;
const SHAPE: usize = 9;
const DIMENSION: usize = 10;
const SPARSE: usize = 11;
const OPSET: usize = 12;
const INNER: usize = 13;
const FUNCTION: usize = 14;
/// The attributes of a node of `ai.onnx.ml`.
const CLASSICAL: usize = 15;

/// Field numbers as in `proto.rs`; in the order of the constants above.
const KINDS: &[Kind] = &[
    kind::<ModelProto>(&[(7, GRAPH), (8, OPSET), (14, ENTRY), (25, FUNCTION)], &[2, 3], &[]),
    kind::<GraphProto>(
        &[(1, NODE), (5, TENSOR), (11, VALUE), (12, VALUE), (13, VALUE), (15, SPARSE)],
        &[2],
        &[],
    ),
    kind::<NodeProto>(&[(5, ATTRIBUTE)], &[1, 2, 3, 4, 7, 8], &[]),
    kind::<AttributeProto>(&[(5, TENSOR), (6, GRAPH)], &[1, 9, 21], &[7, 8]),
    kind::<TensorProto>(&[(13, ENTRY)], &[6, 8], &[1]),
    kind::<StringStringEntryProto>(&[], &[1, 2], &[]),
    kind::<ValueInfoProto>(&[(2, TYPE)], &[1], &[]),
    kind::<TypeProto>(&[(1, TENSOR_TYPE), (4, INNER), (9, INNER)], &[], &[]),
    kind::<TensorTypeProto>(&[(2, SHAPE)], &[], &[]),
    kind::<TensorShapeProto>(&[(1, DIMENSION)], &[], &[]),
    kind::<DimensionProto>(&[], &[2], &[]),
    kind::<SparseTensorProto>(&[(1, TENSOR)], &[], &[]),
    kind::<OperatorSetIdProto>(&[], &[1], &[]),
    kind::<InnerTypeProto>(&[(1, TYPE)], &[], &[]),
    kind::<FunctionProto>(&[(7, NODE), (9, OPSET), (11, ATTRIBUTE)], &[1, 4, 5, 10, 13], &[]),
    kind::<AttributeProto>(&[(5, TENSOR), (6, GRAPH)], &[1, 21], &[]),
];

/// An error if the message is cut, too deep, or would need far more memory than it has bytes.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let left = bytes.len().saturating_mul(RATIO).saturating_add(ALLOWANCE);
    walk(bytes, MODEL, 0, &mut left.min(limits::STRUCTURE_BYTES))
}

fn walk(mut bytes: &[u8], of: usize, depth: usize, left: &mut usize) -> Result<(), String> {
    let Kind { size, messages, texts, numbers } = KINDS[of];
    spend(left, size)?;
    if depth > DEPTH {
        return Err("messages are nested too deeply".into());
    }
    let classical = of == NODE && bytes.len() >= LARGE_NODE && is_classical(bytes)?;
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = tag >> 3;
        let Some(inner) = content(tag, &mut bytes)? else {
            spend(left, if numbers.contains(&field) { NUMBER } else { 0 })?;
            continue;
        };
        if let Some(&(_, kind)) = messages.iter().find(|(number, _)| *number == field) {
            walk(inner, if classical { CLASSICAL } else { kind }, depth + 1, left)?;
        } else if texts.contains(&field) {
            spend(left, inner.len().saturating_add(TEXT))?;
        } else if numbers.contains(&field) {
            spend(left, inner.len().saturating_mul(NUMBER))?;
        } else if of == TENSOR {
            // A run of elements.
            spend(left, TEXT)?;
        }
    }
    Ok(())
}

/// Takes off what follows a tag; the bytes of a field with a length.
fn content<'a>(tag: u64, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, String> {
    match tag & 7 {
        0 => drop(varint(bytes)?),
        1 => drop(take(bytes, 8)?),
        5 => drop(take(bytes, 4)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).unwrap_or(usize::MAX);
            return take(bytes, length).map(Some);
        }
        other => return Err(format!("field of unknown kind {other}")),
    }
    Ok(None)
}

fn spend(left: &mut usize, bytes: usize) -> Result<(), String> {
    let rest = left.checked_sub(bytes);
    *left =
        rest.ok_or("its structures would need far more memory than those of any known model")?;
    Ok(())
}

/// True for the fields of a node of `ai.onnx.ml`.
fn is_classical(mut node: &[u8]) -> Result<bool, String> {
    while !node.is_empty() {
        let tag = varint(&mut node)?;
        let inner = content(tag, &mut node)?;
        if tag >> 3 == 7 {
            return Ok(inner == Some(b"ai.onnx.ml"));
        }
    }
    Ok(false)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("it ends too early")?;
    *bytes = rest;
    Ok(taken)
}

/// The integer at the front, which is taken off.
pub fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_empty_messages_is_refused() {
        // A graph of empty nodes: field 1, length 0, over and over.
        let nodes = [0x0a, 0x00].repeat(100_000);
        let mut file = vec![0x3a, 0xc0, 0x9a, 0x0c];
        file.extend(&nodes);
        assert!(check(&file).unwrap_err().contains("memory"));
    }

    #[test]
    fn cut_and_deep_messages_are_refused() {
        assert!(check(&[0x3a, 0x05, 0x00]).is_err());
        let mut deep = Vec::new();
        for _ in 0..40 {
            // Graph 6 in attribute 5 of node 1.
            for field in [0x32u8, 0x2a, 0x0a] {
                let mut length = Vec::new();
                prost::encoding::encode_varint(deep.len() as u64, &mut length);
                deep = [&[field][..], &length, &deep].concat();
            }
        }
        let mut length = Vec::new();
        prost::encoding::encode_varint(deep.len() as u64, &mut length);
        let file = [&[0x3a][..], &length, &deep].concat();
        assert!(check(&file).unwrap_err().contains("deep"));
    }
}
