//! Attention of ONNX Runtime's domain `com.microsoft`, as several of Lepton's operators.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::cast::Cast;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::order::Trilu;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_tensor::DType;

use super::call::Call;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

/// Queries, keys and values of attention, `[batch,heads,length,size]`.
struct Heads {
    query: ValueId,
    key: ValueId,
    value: ValueId,
}

/// `x` `[batch,length,heads·size]` as heads.
fn heads(call: &mut Call<'_>, x: ValueId) -> Made {
    let split = call.reshape(x, &[0, 0, call.int("num_heads", 1), -1])?;
    call.transpose(split, &[0, 2, 1, 3])
}

/// Attention from its heads: operand `mask` says which keys count, operand `bias` is added.
fn attended(call: &mut Call<'_>, heads: &Heads, mask: usize, bias: usize) -> Made {
    let size = call.graph.fact(heads.query).dims[3].as_known();
    let size = size.ok_or_else(|| call.error("the size of a head must be known"))?;
    let scale = match call.float("scale", 0.0) {
        0.0 => 1.0 / (size as f64).sqrt(),
        scale => f64::from(scale),
    };
    let keys = call.transpose(heads.key, &[0, 1, 3, 2])?;
    let product = call.product(heads.query, keys)?;
    let mut scores = call.scaled(product, scale)?;
    let lowest = f64::from(call.float("mask_filter_value", -10000.0));
    if call.int("unidirectional", 0) != 0 {
        scores = causal(call, heads, scores)?;
    }
    if let Some(mask) = call.input(mask) {
        let length = call.extent_of(heads.key, 2)?;
        let counts = masked(call, mask, length)?;
        let lowest = call.scalar(call.dtype(scores), lowest)?;
        let zero = call.scalar(call.dtype(scores), 0.0)?;
        let added = call.select(counts, zero, lowest)?;
        scores = call.pair(B::Add, scores, added)?;
    }
    if let Some(bias) = call.input(bias) {
        scores = call.pair(B::Add, scores, bias)?;
    }
    let weights = call.emit_one(Softmax { axis: -1, log: false }, &[Some(scores)])?;
    let y = call.product(weights, heads.value)?;
    let y = call.transpose(y, &[0, 2, 1, 3])?;
    call.reshape(y, &[0, 0, -1])
}

/// Which keys count: bool `[batch,1,1 or queries,keys]`, from lengths or from zeros and ones.
fn masked(call: &mut Call<'_>, mask: ValueId, length: ValueId) -> Made {
    match call.graph.fact(mask).rank() {
        1 => {
            let at = call.counting(length)?;
            let at = call.cast(at, call.dtype(mask))?;
            let mask = call.reshape(mask, &[-1, 1, 1, 1])?;
            call.pair(B::Less, at, mask)
        }
        2 => {
            let mask = call.unsqueeze(mask, &[1, 2])?;
            call.emit_one(Cast { to: DType::Bool }, &[Some(mask)])
        }
        3 => {
            let mask = call.unsqueeze(mask, &[1])?;
            call.emit_one(Cast { to: DType::Bool }, &[Some(mask)])
        }
        rank => Err(call.error(format!("a mask of {rank} axes is not supported"))),
    }
}

/// Scores whose keys come after their query are as low as they can be.
fn causal(call: &mut Call<'_>, heads: &Heads, scores: ValueId) -> Made {
    let one = call.scalar(DType::I64, 1.0)?;
    let shape = call.shape_of(scores)?;
    let last = call.slice(shape, 0, 2, 4)?;
    let ones = call.expand(one, last)?;
    let (keys, queries) = (call.extent_of(heads.key, 2)?, call.extent_of(heads.query, 2)?);
    let past = call.pair(B::Sub, keys, queries)?;
    let seen = call.emit_one(Trilu { upper: false }, &[Some(ones), Some(past)])?;
    let seen = call.cast(seen, DType::Bool)?;
    let lowest = call.scalar(call.dtype(scores), f64::from(f32::MIN))?;
    call.select(seen, scores, lowest)
}

/// What was there before, then `x`.
fn with_past(call: &mut Call<'_>, past: Option<ValueId>, x: ValueId) -> Made {
    match past {
        Some(past) => call.concat(&[past, x], 2),
        None => call.map(U::Identity, x),
    }
}

const ATTENTION: &[&str] = &[
    "num_heads",
    "scale",
    "mask_filter_value",
    "unidirectional",
    "qkv_hidden_sizes",
    "past_present_share_buffer",
    "do_rotary",
];

/// The parts of `x` `[batch,length,heads,parts,size]`, each `[batch,length,heads·size]`.
fn unpacked(call: &mut Call<'_>, x: ValueId, parts: i64) -> Result<Vec<ValueId>, FormatError> {
    let mut made = Vec::new();
    for part in 0..parts {
        let at = call.scalar(DType::I64, part as f64)?;
        let own = call.emit_one(Gather { axis: 3 }, &[Some(x), Some(at)])?;
        made.push(call.reshape(own, &[0, 0, -1])?);
    }
    Ok(made)
}

/// Attention of projected queries, keys and values, which may be packed: all three in the first
/// operand, or keys and values in the second.
pub fn multi_head(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], ATTENTION)?;
    let mut given = Vec::with_capacity(3);
    for index in 0..3 {
        match call.input(index) {
            Some(x) if call.fact(index)?.rank() == 5 => {
                given.extend(unpacked(call, x, if index == 0 { 3 } else { 2 })?);
            }
            Some(x) => given.push(x),
            None => {}
        }
    }
    let &[query, key, value] = given.as_slice() else {
        return Err(call.error("queries, keys and values do not go together"));
    };
    let mut projected = Vec::with_capacity(3);
    let mut start = 0;
    for x in [query, key, value] {
        projected.push(match call.graph.fact(x).rank() {
            // Keys and values that went through their heads before.
            4 => x,
            _ => biased_heads(call, x, &mut start)?,
        });
    }
    let key = with_past(call, call.input(6), projected[1])?;
    let value = with_past(call, call.input(7), projected[2])?;
    let heads = Heads { query: projected[0], key, value };
    Ok(vec![attended(call, &heads, 4, 5)?, heads.key, heads.value])
}

/// `x` as heads, with its part of the bias (operand 3) from `start` on.
fn biased_heads(call: &mut Call<'_>, mut x: ValueId, start: &mut i64) -> Made {
    if let Some(bias) = call.input(3) {
        let width = call.graph.fact(x).dims[2].as_known();
        let width = width.ok_or_else(|| call.error("the width of its operands must be known"))?;
        let own = call.slice(bias, 0, *start, *start + width)?;
        x = call.pair(B::Add, x, own)?;
        *start += width;
    }
    heads(call, x)
}

/// The same after one product that projects all three; keys and values of before (operand 4) come
/// first, and all are given on.
pub fn attention(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], ATTENTION)?;
    if call.int("past_present_share_buffer", 0) != 0 || call.int("do_rotary", 0) != 0 {
        return Err(call.error("shared buffers and rotary positions are not supported"));
    }
    let mut product = call.product(call.required(0)?, call.required(1)?)?;
    if let Some(bias) = call.input(2) {
        product = call.pair(B::Add, product, bias)?;
    }
    let width = call.graph.fact(product).dims[2].as_known();
    let width = width.ok_or_else(|| call.error("the width of its weights must be known"))?;
    let sizes = match call.ints("qkv_hidden_sizes").as_slice() {
        [] => vec![width / 3; 3],
        sizes => sizes.to_vec(),
    };
    if sizes.len() != 3 || sizes.iter().sum::<i64>() != width {
        return Err(call.error("the sizes of queries, keys and values do not go with the weights"));
    }
    let (mut parts, mut start) = (Vec::with_capacity(3), 0);
    for size in sizes {
        let part = call.slice(product, 2, start, start + size)?;
        parts.push(heads(call, part)?);
        start += size;
    }
    let mut present = Vec::with_capacity(2);
    for (index, part) in parts[1..].iter_mut().enumerate() {
        if let Some(past) = call.input(4) {
            let at = call.scalar(DType::I64, index as f64)?;
            let own = call.emit_one(Gather { axis: 0 }, &[Some(past), Some(at)])?;
            *part = call.concat(&[own, *part], 2)?;
        }
        present.push(call.unsqueeze(*part, &[0])?);
    }
    let heads = Heads { query: parts[0], key: parts[1], value: parts[2] };
    let y = attended(call, &heads, 3, 5)?;
    Ok(match call.result_count() {
        2 => vec![y, call.concat(&present, 0)?],
        _ => vec![y],
    })
}
