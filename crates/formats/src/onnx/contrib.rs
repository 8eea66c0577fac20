//! Operators of ONNX Runtime's domain `com.microsoft`: layers of transformers, as several of
//! Lepton's operators.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::normalize::LayerNormalization;
use lepton_ir::ops::reduce::ReduceFunction as R;
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

/// `Gemm` and an activation.
pub fn fused_gemm(call: &mut Call<'_>) -> Results {
    let row = super::ops::ROWS.iter().find(|row| row.name == "Gemm").expect("it is in the table");
    call.check_attributes(row.links, &["activation", "activation_alpha", "activation_beta"])?;
    let y = rows::direct(call, row)?[0];
    Ok(vec![activated(call, y)?])
}
