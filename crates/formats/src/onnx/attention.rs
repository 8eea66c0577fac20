//! `Attention` as matrix products and a softmax (Vaswani et al. 2017; groups of queries that share
//! a key: Ainslie et al. 2023).

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::concat::Concat;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::generate::Range;
use lepton_ir::ops::matmul::MatMul;
use lepton_ir::ops::pad::Pad;
use lepton_ir::ops::reduce::{Reduce, ReduceFunction};
use lepton_ir::ops::reshape::{Reshape, Squeeze, Unsqueeze};
use lepton_ir::ops::select::Where;
use lepton_ir::ops::shape_of::Shape;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_tensor::{DType, Tensor};

use super::call::Call;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

const ATTRIBUTES: &[&str] = &[
    "is_causal",
    "kv_num_heads",
    "q_num_heads",
    "qk_matmul_output_mode",
    "scale",
    "softcap",
    "softmax_precision",
    "left_window_size",
    "right_window_size",
];

/// Scaled products of queries and keys, masked, through a softmax, times values. Operands are
/// `[batch,heads,length,size]` or `[batch,length,heads·size]`.
pub fn attention(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], ATTRIBUTES)?;
    let flat = call.fact(0)?.rank() == 3;
    let q = split_heads(call, 0, "q_num_heads")?;
    let k = split_heads(call, 1, "kv_num_heads")?;
    let v = split_heads(call, 2, "kv_num_heads")?;
    let (k, v) = (with_past(call, k, 4)?, with_past(call, v, 5)?);
    let (keys, values) = (shared(call, q, k)?, shared(call, q, v)?);
    let products = products(call, q, keys)?;
    let capped = capped(call, products)?;
    let (biased, masked) = biased(call, q, keys, capped)?;
    let weights = normalised(call, biased, masked)?;
    let mut y = call.emit_one(MatMul {}, &[Some(weights), Some(values)])?;
    if flat {
        y = transposed(call, y, &[0, 2, 1, 3])?;
        let shape = call.integers(&[0, 0, -1]);
        y = call.emit_one(Reshape::default(), &[Some(y), Some(shape)])?;
    }
    let seen = match call.int("qk_matmul_output_mode", 0) {
        0 => products,
        1 => capped,
        2 => biased,
        3 => weights,
        other => return Err(call.error(format!("unknown qk_matmul_output_mode {other}"))),
    };
    let mut results = vec![y, k, v, seen];
    results.truncate(call.result_count().max(1));
    // A result must be a value of its own: it gets a name.
    for result in results.iter_mut().skip(1) {
        *result = call.emit_one(Unary::default(), &[Some(*result)])?;
    }
    Ok(results)
}

fn transposed(call: &mut Call<'_>, x: ValueId, order: &[usize]) -> Made {
    call.emit_one(Transpose { permutation: order.to_vec() }, &[Some(x)])
}

/// Operand `index` as `[batch,heads,length,size]`.
fn split_heads(call: &mut Call<'_>, index: usize, heads: &str) -> Made {
    let x = call.required(index)?;
    match call.fact(index)?.rank() {
        4 => Ok(x),
        3 => {
            let heads = call.int(heads, 0);
            if heads <= 0 {
                return Err(call.error("the number of heads must be given"));
            }
            let shape = call.integers(&[0, 0, heads, -1]);
            let split = call.emit_one(Reshape::default(), &[Some(x), Some(shape)])?;
            transposed(call, split, &[0, 2, 1, 3])
        }
        rank => Err(call.error(format!("operands of rank {rank}"))),
    }
}

/// What operand `past` remembers, then `x`.
fn with_past(call: &mut Call<'_>, x: ValueId, past: usize) -> Made {
    match call.input(past) {
        None => Ok(x),
        Some(past) => call.emit_one(Concat { axis: 2 }, &[Some(past), Some(x)]),
    }
}

/// `x` with each head as often as queries share it.
pub fn shared(call: &mut Call<'_>, q: ValueId, x: ValueId) -> Made {
    let heads = |id: ValueId| call.graph.fact(id).dims[1].as_known();
    match (heads(q), heads(x)) {
        (Some(own), Some(others)) if own == others => Ok(x),
        (Some(own), Some(others)) if others > 0 && own % others == 0 && own < 1 << 16 => {
            let repeated: Vec<i64> = (0..own).map(|head| head / (own / others)).collect();
            let indices = call.integers(&repeated);
            call.emit_one(Gather { axis: 1 }, &[Some(x), Some(indices)])
        }
        _ => Err(call.error("the numbers of heads must be known and divide")),
    }
}

/// `scale·q·kᵀ`.
fn products(call: &mut Call<'_>, q: ValueId, k: ValueId) -> Made {
    let fact = call.graph.fact(q).clone();
    let size = fact.dims[3].as_known();
    let scale = match (call.attribute("scale").and_then(|a| a.f), size) {
        (Some(scale), _) => scale as f64,
        (None, Some(size)) if size > 0 => 1.0 / (size as f64).sqrt(),
        _ => return Err(call.error("the size of a head must be known, or the scale given")),
    };
    let scale = call.scalar(fact.dtype, scale)?;
    let q = call.pair(B::Mul, q, scale)?;
    let k = transposed(call, k, &[0, 1, 3, 2])?;
    call.emit_one(MatMul {}, &[Some(q), Some(k)])
}

/// `cap·tanh(x/cap)`, where there is a cap.
pub fn capped(call: &mut Call<'_>, x: ValueId) -> Made {
    let cap = call.float("softcap", 0.0);
    if cap <= 0.0 {
        return Ok(x);
    }
    let dtype = call.graph.fact(x).dtype;
    let cap = call.scalar(dtype, cap as f64)?;
    let small = call.pair(B::Div, x, cap)?;
    let bent = call.map(U::Tanh, small)?;
    call.pair(B::Mul, bent, cap)
}

/// 0 where `allowed`, else −∞.
fn as_bias(call: &mut Call<'_>, allowed: ValueId, dtype: DType) -> Made {
    let (zero, never) = (call.scalar(dtype, 0.0)?, call.scalar(dtype, f64::NEG_INFINITY)?);
    call.emit_one(Where {}, &[Some(allowed), Some(zero), Some(never)])
}

/// The scores with the mask and the causal bias, and whether there is either.
fn biased(
    call: &mut Call<'_>,
    q: ValueId,
    k: ValueId,
    mut scores: ValueId,
) -> Result<(ValueId, bool), FormatError> {
    let dtype = call.graph.fact(scores).dtype;
    let mut any = false;
    if let Some(mask) = call.input(3) {
        let mask = lengthened(call, mask, k)?;
        let bias = match call.graph.fact(mask).dtype {
            DType::Bool => as_bias(call, mask, dtype)?,
            _ => mask,
        };
        scores = call.pair(B::Add, scores, bias)?;
        any = true;
    }
    if let Some(lengths) = lengths(call)? {
        let (columns, _) = positions(call, k, 2)?;
        let allowed = call.pair(B::Less, columns, lengths)?;
        let bias = as_bias(call, allowed, dtype)?;
        scores = call.pair(B::Add, scores, bias)?;
        any = true;
    }
    // Furthest keys that a query sees before and after its own position; −1 is no limit.
    let (before, mut after) = (call.int("left_window_size", -1), call.int("right_window_size", -1));
    if call.int("is_causal", 0) != 0 {
        after = 0;
    }
    for (distance, function) in [(after, B::LessOrEqual), (before, B::GreaterOrEqual)] {
        if distance >= 0 {
            let limit = if function == B::LessOrEqual { distance } else { -distance };
            let allowed = within(call, q, k, limit, function)?;
            let bias = as_bias(call, allowed, dtype)?;
            scores = call.pair(B::Add, scores, bias)?;
            any = true;
        }
    }
    Ok((scores, any))
}

/// A mask over fewer keys than there are hides the others.
fn lengthened(call: &mut Call<'_>, mask: ValueId, k: ValueId) -> Made {
    let (fact, keys) = (call.graph.fact(mask).clone(), call.graph.fact(k).dims[2].as_known());
    let own = fact.dims.last().and_then(|dim| dim.as_known());
    let missing = keys.zip(own).map_or(0, |(keys, own)| keys.saturating_sub(own));
    if missing <= 0 {
        return Ok(mask);
    }
    let value = match fact.dtype {
        DType::Bool => call.constant(
            Tensor::from_bools(Vec::new(), [false])
                .map_err(|error| FormatError::tensor("attn_mask", error.to_string()))?,
        ),
        dtype => call.scalar(dtype, f64::NEG_INFINITY)?,
    };
    let mut pads = vec![0; 2 * fact.rank()];
    pads[2 * fact.rank() - 1] = missing;
    let pads = call.integers(&pads);
    call.emit_one(Pad::default(), &[Some(mask), Some(pads), Some(value)])
}

/// 0, 1, … to before the extent of an axis of `x`, and that extent as a scalar.
fn positions(
    call: &mut Call<'_>,
    x: ValueId,
    axis: i64,
) -> Result<(ValueId, ValueId), FormatError> {
    let extent = call.emit_one(Shape { start: axis, end: axis + 1 }, &[Some(x)])?;
    let extent = call.emit_one(Squeeze {}, &[Some(extent)])?;
    let (zero, one) = (call.constant(Tensor::scalar(0i64)), call.constant(Tensor::scalar(1i64)));
    let range = call.emit_one(Range {}, &[Some(zero), Some(extent), Some(one)])?;
    Ok((range, extent))
}

/// The number of keys of each batch that are not padding, `[batch,1,1,1]`.
fn lengths(call: &mut Call<'_>) -> Result<Option<ValueId>, FormatError> {
    let Some(lengths) = call.input(6) else { return Ok(None) };
    let shape = call.integers(&[-1, 1, 1, 1]);
    call.emit_one(Reshape::default(), &[Some(lengths), Some(shape)]).map(Some)
}

/// Where key j compares to query i so: `j ≤ p + limit` or `j ≥ p + limit`, p being i and the number
/// of keys before the queries.
fn within(call: &mut Call<'_>, q: ValueId, k: ValueId, limit: i64, function: B) -> Made {
    let (rows, count) = positions(call, q, 2)?;
    let (columns, _) = positions(call, k, 2)?;
    let last = call.integers(&[1]);
    let mut rows = call.emit_one(Unsqueeze {}, &[Some(rows), Some(last)])?;
    if let Some(past) = call.input(4) {
        let (_, remembered) = positions(call, past, 2)?;
        rows = call.pair(B::Add, rows, remembered)?;
    } else if let Some(lengths) = lengths(call)? {
        let before = call.pair(B::Sub, lengths, count)?;
        rows = call.pair(B::Add, rows, before)?;
    }
    if limit != 0 {
        let limit = call.constant(Tensor::scalar(limit));
        rows = call.pair(B::Add, rows, limit)?;
    }
    call.pair(function, columns, rows)
}

/// The softmax of each row; zeros where everything is hidden.
fn normalised(call: &mut Call<'_>, scores: ValueId, masked: bool) -> Made {
    let weights = call.emit_one(Softmax::default(), &[Some(scores)])?;
    if !masked {
        return Ok(weights);
    }
    let dtype = call.graph.fact(scores).dtype;
    let axes = call.integers(&[-1]);
    let most = Reduce::new(ReduceFunction::Max);
    let most = call.emit_one(most, &[Some(scores), Some(axes)])?;
    let (zero, never) = (call.scalar(dtype, 0.0)?, call.scalar(dtype, f64::NEG_INFINITY)?);
    let hidden = call.pair(B::Equal, most, never)?;
    call.emit_one(Where {}, &[Some(hidden), Some(zero), Some(weights)])
}

/// `q·kᵀ·scale`, in f32 or wider: the scores of attention whose softmax comes later.
pub fn flexible_scores(call: &mut Call<'_>, q: ValueId, k: ValueId) -> Made {
    call.check_attributes(&[], &["scale", "score_mod", "prob_mod", "softmax_precision"])?;
    let wide = match super::rows::given_type(call.int("softmax_precision", 0)) {
        Some(wide) => wide,
        None if call.dtype(q) == DType::F64 => DType::F64,
        None => DType::F32,
    };
    let size = call.graph.fact(q).dims.get(3).and_then(|d| d.as_known());
    let size = size.ok_or_else(|| call.error("the size of a head must be known"))?;
    let k = shared(call, q, k)?;
    let k = transposed(call, k, &[0, 1, 3, 2])?;
    let product = call.product(q, k)?;
    let scale = match call.attribute("scale").and_then(|a| a.f) {
        Some(scale) => f64::from(scale),
        None => 1.0 / (size as f64).sqrt(),
    };
    let scores = call.scaled(product, scale)?;
    call.cast(scores, wide)
}

/// Weights times values, in the type of the queries.
pub fn flexible_result(call: &mut Call<'_>, q: ValueId, weights: ValueId, v: ValueId) -> Made {
    let dtype = call.dtype(q);
    let (weights, v) = (call.cast(weights, dtype)?, shared(call, q, v)?);
    call.product(weights, v)
}
