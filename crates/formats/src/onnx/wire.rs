//! What decoding a message will allocate, counted before it is decoded.
//!
//! A field of a few bytes can become a structure of hundreds. A file made of nothing else would
//! need hundreds of times its own size; real ones (two dozen measured) need at most 16 times the
//! bytes they have besides weights.

use std::mem::size_of;

use super::proto::{
    AttributeProto, DimensionProto, FunctionProto, GraphProto, InnerTypeProto, ModelProto,
    NodeProto, OperatorSetIdProto, SparseTensorProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// Bytes of structures that every file may need, whatever its size.
const ALLOWANCE: usize = 1 << 16;
/// Bytes of structures per byte of the file.
const RATIO: usize = 48;
/// Deepest message within messages.
const DEPTH: usize = 64;

/// A kind of message: the size of its structure, and the fields that hold messages, each with the
/// index of their kind.
struct Kind {
    size: usize,
    messages: &'static [(u64, usize)],
}

const fn kind(size: usize, messages: &'static [(u64, usize)]) -> Kind {
    Kind { size, messages }
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

/// Field numbers as in `proto.rs`; in the order of the constants above.
const KINDS: &[Kind] = &[
    kind(size_of::<ModelProto>(), &[(7, GRAPH), (8, OPSET), (14, ENTRY), (25, FUNCTION)]),
    kind(
        size_of::<GraphProto>(),
        &[(1, NODE), (5, TENSOR), (11, VALUE), (12, VALUE), (15, SPARSE)],
    ),
    kind(size_of::<NodeProto>(), &[(5, ATTRIBUTE)]),
    kind(size_of::<AttributeProto>(), &[(5, TENSOR), (6, GRAPH)]),
    kind(size_of::<TensorProto>(), &[(13, ENTRY)]),
    kind(size_of::<StringStringEntryProto>(), &[]),
    kind(size_of::<ValueInfoProto>(), &[(2, TYPE)]),
    kind(size_of::<TypeProto>(), &[(1, TENSOR_TYPE), (4, INNER), (9, INNER)]),
    kind(size_of::<TensorTypeProto>(), &[(2, SHAPE)]),
    kind(size_of::<TensorShapeProto>(), &[(1, DIMENSION)]),
    kind(size_of::<DimensionProto>(), &[]),
    kind(size_of::<SparseTensorProto>(), &[(1, TENSOR)]),
    kind(size_of::<OperatorSetIdProto>(), &[]),
    kind(size_of::<InnerTypeProto>(), &[(1, TYPE)]),
    kind(size_of::<FunctionProto>(), &[(7, NODE), (9, OPSET), (11, ATTRIBUTE)]),
];

/// An error if the message is cut, too deep, or would need far more memory than it has bytes.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut left = bytes.len().saturating_mul(RATIO).saturating_add(ALLOWANCE);
    walk(bytes, MODEL, 0, &mut left)
}

fn walk(mut bytes: &[u8], of: usize, depth: usize, left: &mut usize) -> Result<(), String> {
    let out_of = "it would need far more memory than it has bytes";
    *left = left.checked_sub(KINDS[of].size).ok_or(out_of)?;
    if depth > DEPTH {
        return Err("messages are nested too deeply".into());
    }
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => drop(take(&mut bytes, 8)?),
            5 => drop(take(&mut bytes, 4)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX);
                let inner = take(&mut bytes, length)?;
                let found = KINDS[of].messages.iter().find(|(field, _)| *field == tag >> 3);
                match found {
                    Some(&(_, kind)) => walk(inner, kind, depth + 1, left)?,
                    // A list of words or bytes grows by one string.
                    None => *left = left.checked_sub(size_of::<String>()).ok_or(out_of)?,
                }
            }
            other => return Err(format!("field of unknown kind {other}")),
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("it ends too early")?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
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
