//! Operators of ONNX Runtime's domain `com.microsoft`: layers of transformers, as several of
//! Lepton's operators.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::cast::Cast;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::normalize::LayerNormalization;
use lepton_ir::ops::order::Trilu;
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_tensor::DType;

use super::call::Call;
use super::{rows, sequence};
use crate::steps::{Made, Results, Steps};

/// A function of `x + bias`, or of x where there is no bias.
fn after_bias(call: &mut Call<'_>, op: Unary) -> Results {
    let mut x = call.required(0)?;
    if let Some(bias) = call.input(1) {
        x = call.pair(B::Add, x, bias)?;
    }
    call.emit(op, &[Some(x)])
}

/// `Gelu` and `BiasGelu`.
pub fn gelu(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &[])?;
    after_bias(call, Unary::new(U::Gelu))
}

/// Gelu by tanh.
pub fn fast_gelu(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &[])?;
    after_bias(call, Unary::new(U::GeluTanh))
}

/// `x·sigmoid(alpha·x)`.
pub fn quick_gelu(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha"])?;
    let op = Unary::with(U::Silu, call.float("alpha", 1.702), 0.0);
    let x = call.input(0);
    call.emit(op, &[x])
}

/// The activation named in an attribute, applied to x.
fn activated(call: &mut Call<'_>, x: ValueId) -> Made {
    let given = call.attribute("activation_params").map(|a| a.floats.clone()).unwrap_or_default();
    let parameter = |index: usize, default: f32| given.get(index).copied().unwrap_or(default);
    let op = match call.text("activation", "").as_str() {
        "" => return Ok(x),
        "Relu" => Unary::new(U::Relu),
        "Tanh" => Unary::new(U::Tanh),
        "Sigmoid" => Unary::new(U::Sigmoid),
        "LeakyRelu" => Unary::with(U::LeakyRelu, parameter(0, 0.01), 0.0),
        "Clip" => Unary::with(U::Clip, parameter(0, f32::MIN), parameter(1, f32::MAX)),
        "HardSigmoid" => Unary::with(U::HardSigmoid, parameter(0, 0.2), parameter(1, 0.5)),
        other => return Err(call.error(format!("activation `{other}` is not supported"))),
    };
    call.emit_one(op, &[Some(x)])
}

/// Convolution, an optional sum with the fourth operand, and an activation.
pub fn fused_conv(call: &mut Call<'_>) -> Results {
    let known = ["kernel_shape", "activation", "activation_params"];
    call.check_attributes(super::ops::WINDOW, &known)?;
    let row = super::ops::ROWS.iter().find(|row| row.name == "Conv").expect("it is in the table");
    let op = call.built(row)?;
    let inputs = [call.input(0), call.input(1), call.input(2)];
    let used = if inputs[2].is_some() { 3 } else { 2 };
    let mut y = call.emit_one(op, &inputs[..used])?;
    if let Some(sum) = call.input(3) {
        y = call.pair(B::Add, y, sum)?;
    }
    Ok(vec![activated(call, y)?])
}

/// `alpha·a·b`, each transposed where asked.
pub fn fused_matmul(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["alpha", "transA", "transB", "transBatchA", "transBatchB"])?;
    if call.int("transBatchA", 0) != 0 || call.int("transBatchB", 0) != 0 {
        return Err(call.error("transposed batches are not supported"));
    }
    let mut sides = [call.required(0)?, call.required(1)?];
    for (side, name) in sides.iter_mut().zip(["transA", "transB"]) {
        let rank = call.graph.fact(*side).rank();
        if call.int(name, 0) != 0 && rank > 1 {
            let mut order: Vec<usize> = (0..rank).collect();
            order.swap(rank - 1, rank - 2);
            *side = call.transpose(*side, &order)?;
        }
    }
    let product = call.product(sides[0], sides[1])?;
    match call.float("alpha", 1.0) {
        1.0 => Ok(vec![product]),
        alpha => Ok(vec![call.scaled(product, f64::from(alpha))?]),
    }
}

/// `x/√(mean of squares + epsilon)·scale` over the last axis.
fn by_root(call: &mut Call<'_>, x: ValueId, scale: ValueId, epsilon: f32) -> Made {
    let square = call.pair(B::Mul, x, x)?;
    let mean = call.reduced(R::Mean, square, &[-1], true)?;
    let mean = call.shifted(mean, f64::from(epsilon))?;
    let root = call.map(U::Sqrt, mean)?;
    let normal = call.pair(B::Div, x, root)?;
    call.pair(B::Mul, normal, scale)
}

/// Normalisation by the root mean square.
pub fn simplified_norm(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis", "epsilon", "stash_type"])?;
    let (x, scale) = (call.required(0)?, call.required(1)?);
    if call.axis("axis", -1)? + 1 != call.fact(0)?.rank() {
        return Err(call.error("only the last axis is supported"));
    }
    Ok(vec![by_root(call, x, scale, call.float("epsilon", 1e-5))?])
}

/// Places the last result, the sum, where the operator has it; those between are not made.
fn with_sum(call: &Call<'_>, y: ValueId, sum: ValueId) -> Results {
    let wanted = |index: usize| call.proto.output.get(index).is_some_and(|name| !name.is_empty());
    if wanted(1) || wanted(2) {
        return Err(call.error("mean and deviation are not supported as results"));
    }
    Ok(vec![y, y, y, sum])
}

/// The sum of two tensors and a bias, and its normalisation: gamma, beta and bias follow.
pub fn skip_norm(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["epsilon"])?;
    let mut sum = call.pair(B::Add, call.required(0)?, call.required(1)?)?;
    if let Some(bias) = call.input(4) {
        sum = call.pair(B::Add, sum, bias)?;
    }
    let op = LayerNormalization { axis: -1, epsilon: call.float("epsilon", 1e-12) };
    let inputs = [Some(sum), call.input(2), call.input(3)];
    let used = if inputs[2].is_some() { 3 } else { 2 };
    let y = call.emit_one(op, &inputs[..used])?;
    with_sum(call, y, sum)
}

/// The same with the root mean square.
pub fn skip_simplified_norm(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["epsilon"])?;
    let mut sum = call.pair(B::Add, call.required(0)?, call.required(1)?)?;
    if let Some(bias) = call.input(3) {
        sum = call.pair(B::Add, sum, bias)?;
    }
    let gamma = call.required(2)?;
    let y = by_root(call, sum, gamma, call.float("epsilon", 1e-12))?;
    with_sum(call, y, sum)
}

/// Sums of embeddings of words, positions and segments, normalised.
pub fn embed_norm(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["epsilon", "mask_index_type"])?;
    let words = call.required(0)?;
    let rows_of = |call: &mut Call<'_>, table: usize, indices: ValueId| -> Made {
        let table = call.required(table)?;
        call.emit_one(Gather { axis: 0 }, &[Some(table), Some(indices)])
    };
    let positions = match call.input(8) {
        Some(positions) => positions,
        None => {
            let length = call.extent_of(words, 1)?;
            call.counting(length)?
        }
    };
    let (word, position) = (rows_of(call, 2, words)?, rows_of(call, 3, positions)?);
    let mut sum = call.pair(B::Add, word, position)?;
    if let (Some(segments), Some(_)) = (call.input(1), call.input(4)) {
        let segment = rows_of(call, 4, segments)?;
        sum = call.pair(B::Add, sum, segment)?;
    }
    let op = LayerNormalization { axis: -1, epsilon: call.float("epsilon", 1e-12) };
    let (gamma, beta) = (call.input(5), call.input(6));
    let y = call.emit_one(op, &[Some(sum), gamma, beta])?;
    let mask = match call.input(7) {
        Some(mask) => {
            let count = call.reduced(R::Sum, mask, &[1], false)?;
            call.cast(count, DType::I32)?
        }
        None => {
            let zero = call.scalar(call.dtype(words), 0.0)?;
            let none = call.pair(B::Mul, words, zero)?;
            let none = call.reduced(R::Sum, none, &[1], false)?;
            call.cast(none, DType::I32)?
        }
    };
    Ok(vec![y, mask, sum])
}

/// Rotary positions, whose operands come in another order.
pub fn rotary_embedding(call: &mut Call<'_>) -> Results {
    let known = ["interleaved", "num_heads", "rotary_embedding_dim", "scale", "is_packed_batching"];
    call.check_attributes(&[], &known)?;
    if call.float("scale", 1.0) != 1.0 || call.int("is_packed_batching", 0) != 0 {
        return Err(call.error("scaled and packed embeddings are not supported"));
    }
    let (x, mut positions) = (call.required(0)?, call.required(1)?);
    if call.fact(1)?.rank() == 1 {
        let axis = if call.fact(0)?.rank() == 3 { 1 } else { 2 };
        let length = call.extent_of(x, axis)?;
        let steps = call.counting(length)?;
        let all = call.pair(B::Add, steps, positions)?;
        positions = call.unsqueeze(all, &[0])?;
    }
    call.inputs = vec![Some(x), call.input(2), call.input(3), Some(positions)];
    sequence::rotary(call)
}

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

/// Attention of projected queries, keys and values.
pub fn multi_head(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], ATTENTION)?;
    let mut projected = Vec::with_capacity(3);
    let mut start = 0;
    for index in 0..3 {
        let mut x = call.required(index)?;
        if call.fact(index)?.rank() != 3 {
            return Err(call.error("packed queries, keys and values are not supported"));
        }
        let width = call.fact(index)?.dims[2].as_known();
        if let Some(bias) = call.input(3) {
            let width =
                width.ok_or_else(|| call.error("the width of its operands must be known"))?;
            let own = call.slice(bias, 0, start, start + width)?;
            x = call.pair(B::Add, x, own)?;
            start += width;
        }
        projected.push(heads(call, x)?);
    }
    let key = with_past(call, call.input(6), projected[1])?;
    let value = with_past(call, call.input(7), projected[2])?;
    let heads = Heads { query: projected[0], key, value };
    Ok(vec![attended(call, &heads, 4, 5)?, heads.key, heads.value])
}

/// The same after one product that projects all three.
pub fn attention(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], ATTENTION)?;
    if call.input(4).is_some() || call.result_count() > 1 || call.int("do_rotary", 0) != 0 {
        return Err(call.error("a past and rotary positions are not supported"));
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
    let heads = Heads { query: parts[0], key: parts[1], value: parts[2] };
    Ok(vec![attended(call, &heads, 3, 5)?])
}

/// `Gemm` and an activation.
pub fn fused_gemm(call: &mut Call<'_>) -> Results {
    let row = super::ops::ROWS.iter().find(|row| row.name == "Gemm").expect("it is in the table");
    call.check_attributes(row.links, &["activation", "activation_alpha", "activation_beta"])?;
    let y = rows::direct(call, row)?[0];
    Ok(vec![activated(call, y)?])
}
