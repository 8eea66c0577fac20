//! `GroupQueryAttention` of ONNX Runtime's domain: queries that share keys (Ainslie et al. 2023), with
//! rotary positions, a window, and a cache of keys and values whose rows may differ in length.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::generate::ConstantOfShape;
use lepton_ir::ops::scatter::ScatterElements;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_tensor::{DType, Tensor};

use super::attention::{capped, shared};
use super::call::Call;
use super::sequence::{Waves, turned};
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

const ATTRIBUTES: &[&str] = &[
    "num_heads",
    "kv_num_heads",
    "scale",
    "softcap",
    "local_window_size",
    "do_rotary",
    "rotary_interleaved",
    "smooth_softmax",
    "qk_output",
    "k_quant_type",
    "v_quant_type",
    "kv_cache_bit_width",
];

/// Queries, keys and values `[batch,length,heads,size]`; where keys are absent all are packed.
fn projected(call: &mut Call<'_>) -> Result<[ValueId; 3], FormatError> {
    let (heads, shared) = (call.int("num_heads", 0), call.int("kv_num_heads", 0));
    if heads <= 0 || shared <= 0 || heads % shared != 0 {
        return Err(call.error("the numbers of heads must be given and divide"));
    }
    let x = call.required(0)?;
    let parts = match (call.input(1), call.input(2)) {
        (Some(key), Some(value)) => [x, key, value],
        _ => {
            let width = call.fact(0)?.dims.last().and_then(|d| d.as_known());
            let width =
                width.ok_or_else(|| call.error("the width of its operand must be known"))?;
            let size = width / (heads + 2 * shared);
            let (query, each) = (heads * size, shared * size);
            let bounds = [(0, query), (query, query + each), (query + each, query + 2 * each)];
            let mut parts = [x; 3];
            for (part, (start, end)) in parts.iter_mut().zip(bounds) {
                *part = call.slice(x, 2, start, end)?;
            }
            parts
        }
    };
    let mut made = parts;
    for (part, heads) in made.iter_mut().zip([heads, shared, shared]) {
        *part = call.reshape(*part, &[0, 0, heads, -1])?;
    }
    Ok(made)
}

/// The position of the first of `length` new keys in each row of the batch: i64 `[batch]`.
fn starts(call: &mut Call<'_>, length: ValueId) -> Made {
    let last = call.required(5)?;
    let last = call.cast(last, DType::I64)?;
    let last = call.reshape(last, &[-1])?;
    let count = call.shifted(last, 1.0)?;
    let start = call.pair(B::Sub, count, length)?;
    let zero = call.scalar(DType::I64, 0.0)?;
    call.pair(B::Max, start, zero)
}

/// The cache in operand `past` with `x` `[batch,heads,length,size]` written at the positions
/// `[batch,length]`: as long as the whole sequence, or as the cache if that is longer.
fn remembered(call: &mut Call<'_>, past: usize, x: ValueId, positions: ValueId) -> Made {
    let Some(past) = call.input(past) else { return call.map(U::Identity, x) };
    let [total, before] = [call.required(6)?, call.extent_of(past, 2)?];
    let total = call.cast(total, DType::I64)?;
    let total = call.reshape(total, &[])?;
    let missing = call.pair(B::Sub, total, before)?;
    let zero = call.scalar(DType::I64, 0.0)?;
    let missing = call.pair(B::Max, missing, zero)?;
    let missing = call.reshape(missing, &[1])?;
    let shape = call.shape_of(past)?;
    let (front, back) = (call.slice(shape, 0, 0, 2)?, call.slice(shape, 0, 3, 4)?);
    let shape = call.concat(&[front, missing, back], 0)?;
    let value = Tensor::from_f64_slice(call.dtype(past), [1], &[0.0]);
    let value = value.map_err(|error| call.error(error.to_string()))?;
    let rest = call.emit_one(ConstantOfShape { value }, &[Some(shape)])?;
    let room = call.concat(&[past, rest], 2)?;
    // What lies beyond the end of a row is nothing.
    let count = call.extent_of(room, 2)?;
    let places = call.counting(count)?;
    let places = call.reshape(places, &[-1, 1])?;
    let at = call.unsqueeze(positions, &[1, 3])?;
    let start = call.slice(at, 2, 0, 1)?;
    let used = call.pair(B::Less, places, start)?;
    let nothing = call.scalar(call.dtype(past), 0.0)?;
    let room = call.select(used, room, nothing)?;
    let shape = call.shape_of(x)?;
    let at = call.expand(at, shape)?;
    let op = ScatterElements { axis: 2, ..ScatterElements::default() };
    call.emit_one(op, &[Some(room), Some(at), Some(x)])
}

/// Scores whose keys come after their query, or before its window, are as low as they can be.
fn windowed(call: &mut Call<'_>, scores: ValueId, keys: ValueId, positions: ValueId) -> Made {
    let count = call.extent_of(keys, 2)?;
    let columns = call.counting(count)?;
    let rows = call.unsqueeze(positions, &[1, 3])?;
    let mut seen = call.pair(B::LessOrEqual, columns, rows)?;
    let window = call.int("local_window_size", -1);
    if window > 0 {
        let before = call.shifted(rows, -window as f64)?;
        let inside = call.pair(B::Greater, columns, before)?;
        seen = call.pair(B::And, seen, inside)?;
    }
    let never = call.scalar(call.dtype(scores), f64::NEG_INFINITY)?;
    call.select(seen, scores, never)
}

/// The softmax of each row; with a sink, a further score of each head takes its share.
fn weighed(call: &mut Call<'_>, scores: ValueId) -> Made {
    let softmax = Softmax { axis: -1, log: false };
    let dtype = call.dtype(scores);
    let sink = match call.input(11) {
        Some(sink) => call.reshape(sink, &[1, -1, 1, 1])?,
        None if call.int("smooth_softmax", 0) > 0 => call.table(dtype, &[1, 1, 1, 1], &[0.0])?,
        None => return call.emit_one(softmax, &[Some(scores)]),
    };
    let shape = call.shape_of(scores)?;
    let (front, one) = (call.slice(shape, 0, 0, 3)?, call.integers(&[1]));
    let shape = call.concat(&[front, one], 0)?;
    let column = call.expand(sink, shape)?;
    let all = call.concat(&[scores, column], 3)?;
    let weights = call.emit_one(softmax, &[Some(all)])?;
    call.slice(weights, 3, 0, -1)
}

/// The operator; results are the outcome and the cache.
pub fn attention(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], ATTRIBUTES)?;
    if call.int("qk_output", 0) != 0 || call.input(12).is_some() || call.input(13).is_some() {
        return Err(call.error("scores as a result and quantised caches are not supported"));
    }
    let [mut query, mut key, value] = projected(call)?;
    let length = call.extent_of(query, 1)?;
    let start = starts(call, length)?;
    let steps = call.counting(length)?;
    let start = call.unsqueeze(start, &[1])?;
    let positions = call.pair(B::Add, start, steps)?;
    if call.int("do_rotary", 0) != 0 {
        let waves = Waves {
            cosine: call.required(7)?,
            sine: call.required(8)?,
            positions: Some(call.input(9).unwrap_or(positions)),
            interleaved: call.int("rotary_interleaved", 0) != 0,
        };
        let width = call.fact(7)?.dims.last().and_then(|d| d.as_known());
        let width = 2 * width.ok_or_else(|| call.error("the width of its waves must be known"))?;
        query = turned(call, query, width, &waves)?;
        key = turned(call, key, width, &waves)?;
    }
    let [query, key, value] = [query, key, value].map(|x| call.transpose(x, &[0, 2, 1, 3]));
    let (query, key, value) = (query?, key?, value?);
    let key = remembered(call, 3, key, positions)?;
    let value = remembered(call, 4, value, positions)?;
    let size = call.graph.fact(query).dims[3].as_known();
    let size = size.ok_or_else(|| call.error("the size of a head must be known"))?;
    let scale = match call.float("scale", 0.0) {
        0.0 => 1.0 / (size as f64).sqrt(),
        scale => f64::from(scale),
    };
    let keys = shared(call, query, key)?;
    let turned_keys = call.transpose(keys, &[0, 1, 3, 2])?;
    let product = call.product(query, turned_keys)?;
    let scaled = call.scaled(product, scale)?;
    let mut scores = capped(call, scaled)?;
    if let Some(bias) = call.input(10) {
        scores = call.pair(B::Add, scores, bias)?;
    }
    let scores = windowed(call, scores, keys, positions)?;
    let weights = weighed(call, scores)?;
    let values = shared(call, query, value)?;
    let y = call.product(weights, values)?;
    let y = call.transpose(y, &[0, 2, 1, 3])?;
    Ok(vec![call.reshape(y, &[0, 0, -1])?, key, value])
}
