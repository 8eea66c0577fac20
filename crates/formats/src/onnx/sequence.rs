//! Layers over sequences: rotary positions, causal convolutions, linear attention.

use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::concat::Concat;
use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::generate::ConstantOfShape;
use lepton_ir::ops::pad::Pad;
use lepton_ir::ops::repeat::Scan;
use lepton_ir::ops::unary::{Unary, UnaryFunction as U};
use lepton_ir::{Graph, ValueId};
use lepton_tensor::{DType, Tensor};

use super::branches::opened;
use super::call::Call;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

/// Pairs of elements turned by an angle that grows with the position (Su et al. 2021).
pub fn rotary_embedding(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["interleaved", "num_heads", "rotary_embedding_dim"])?;
    rotary(call)
}

/// The same, after its attributes are checked.
pub fn rotary(call: &mut Call<'_>) -> Results {
    let given = call.required(0)?;
    let flat = call.fact(0)?.rank() == 3;
    // [batch, length, heads, size]
    let x = if flat {
        let of_cache = call.fact(1)?.dims.last().and_then(|d| d.as_known()).unwrap_or(0);
        match (call.int("num_heads", 0), 2 * of_cache) {
            (heads @ 1.., _) => call.reshape(given, &[0, 0, heads, -1])?,
            (_, size @ 1..) => call.reshape(given, &[0, 0, -1, size])?,
            _ => return Err(call.error("the number of heads must be given")),
        }
    } else {
        call.transpose(given, &[0, 2, 1, 3])?
    };
    let size = call.graph.fact(x).dims[3].as_known();
    let size = size.ok_or_else(|| call.error("the size of a head must be known"))?;
    let turned = match call.int("rotary_embedding_dim", 0) {
        0 => size,
        part => part.clamp(2, size),
    };
    let waves = Waves {
        cosine: call.required(1)?,
        sine: call.required(2)?,
        positions: call.input(3),
        interleaved: call.int("interleaved", 0) != 0,
    };
    let made = self::turned(call, x, turned, &waves)?;
    if flat {
        return Ok(vec![call.reshape(made, &[0, 0, -1])?]);
    }
    Ok(vec![call.transpose(made, &[0, 2, 1, 3])?])
}

/// The angles by which pairs of elements are turned.
pub struct Waves {
    /// Their cosines.
    pub cosine: ValueId,
    /// Their sines.
    pub sine: ValueId,
    /// Which rows of both are used `[batch,length]`; each where absent.
    pub positions: Option<ValueId>,
    /// True if a pair are neighbours, false if they are a half apart.
    pub interleaved: bool,
}

/// `x` `[batch,length,heads,size]` with the first `part` elements of each head turned.
pub fn turned(call: &mut Call<'_>, x: ValueId, part: i64, waves: &Waves) -> Made {
    let size = call.graph.fact(x).dims[3].as_known();
    let size = size.ok_or_else(|| call.error("the size of a head must be known"))?;
    if part >= size {
        return rotated(call, x, size, waves);
    }
    let head = call.slice(x, 3, 0, part)?;
    let made = rotated(call, head, part, waves)?;
    let rest = call.slice(x, 3, part, size)?;
    call.concat(&[made, rest], 3)
}

fn rotated(call: &mut Call<'_>, x: ValueId, size: i64, given: &Waves) -> Made {
    call.check_size(&[usize::try_from(size).unwrap_or(usize::MAX)])?;
    let half = size / 2;
    let mut waves = [given.cosine, given.sine];
    for wave in &mut waves {
        if let Some(positions) = given.positions {
            *wave = call.emit_one(Gather { axis: 0 }, &[Some(*wave), Some(positions)])?;
        }
        if call.graph.fact(*wave).dims.last().and_then(|d| d.as_known()) != Some(half) {
            *wave = call.slice(*wave, 2, 0, half)?;
        }
        *wave = call.unsqueeze(*wave, &[2])?;
    }
    let [cosine, sine] = waves;
    let interleaved = given.interleaved;
    let (first, second) = if interleaved {
        let even: Vec<i64> = (0..half).map(|i| 2 * i).collect();
        let odd: Vec<i64> = (0..half).map(|i| 2 * i + 1).collect();
        (call.picked(x, 3, &even)?, call.picked(x, 3, &odd)?)
    } else {
        (call.slice(x, 3, 0, half)?, call.slice(x, 3, half, size)?)
    };
    let (a, b) = (call.pair(B::Mul, cosine, first)?, call.pair(B::Mul, sine, second)?);
    let real = call.pair(B::Sub, a, b)?;
    let (a, b) = (call.pair(B::Mul, sine, first)?, call.pair(B::Mul, cosine, second)?);
    let imaginary = call.pair(B::Add, a, b)?;
    if !interleaved {
        return call.concat(&[real, imaginary], 3);
    }
    let (real, imaginary) = (call.unsqueeze(real, &[4])?, call.unsqueeze(imaginary, &[4])?);
    let pairs = call.concat(&[real, imaginary], 4)?;
    call.reshape(pairs, &[0, 0, 0, size])
}

/// A convolution of each channel over its present and past, which it gives on.
pub fn causal_conv(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["activation"])?;
    let (x, weights) = (call.required(0)?, call.required(1)?);
    let shape = call.extents(weights)?;
    let &[channels, 1, taps] = shape.as_slice() else {
        return Err(call.error("the weights must be [channels, 1, taps]"));
    };
    let past = taps as i64 - 1;
    let seen = match call.input(3) {
        Some(before) => call.emit_one(Concat { axis: 2 }, &[Some(before), Some(x)])?,
        None => {
            let pads = call.integers(&[0, 0, past, 0, 0, 0]);
            call.emit_one(Pad::default(), &[Some(x), Some(pads)])?
        }
    };
    let conv = Conv { group: channels, ..Conv::default() };
    let inputs = [Some(seen), Some(weights), call.input(2)];
    let used = if inputs[2].is_some() { 3 } else { 2 };
    let mut y = call.emit_one(conv, &inputs[..used])?;
    match call.text("activation", "none").as_str() {
        "none" | "" => {}
        "silu" | "swish" => y = call.emit_one(Unary::with(U::Silu, 1.0, 0.0), &[Some(y)])?,
        other => return Err(call.error(format!("unknown activation `{other}`"))),
    }
    let present = match past {
        0 => call.slice(seen, 2, 0, 0)?,
        _ => call.slice(seen, 2, -past, i64::MAX)?,
    };
    Ok(vec![y, present])
}

/// What a rule of linear attention does with its state.
#[derive(Clone, Copy)]
struct Rule {
    gated: bool,
    delta: bool,
    groups: i64,
    scale: f64,
}

/// Attention whose state is a matrix for each head, updated at every step (Katharopoulos et al.
/// 2020; Yang et al. 2024).
pub fn linear_attention(call: &mut Call<'_>) -> Results {
    let known = ["chunk_size", "kv_num_heads", "q_num_heads", "scale", "update_rule"];
    call.check_attributes(&[], &known)?;
    let (heads, queries) = (call.int("kv_num_heads", 0), call.int("q_num_heads", 0));
    if heads <= 0 || queries <= 0 || queries % heads != 0 {
        return Err(call.error("the numbers of heads must be given and divide"));
    }
    let (gated, delta) = match call.text("update_rule", "gated_delta").as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return Err(call.error(format!("unknown update_rule `{other}`"))),
    };
    let dtype = call.fact(0)?.dtype;
    // Sums over many steps are kept in f32, as the definition of the operator does.
    let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
    let wanted = [(0, queries, true), (1, heads, true), (2, heads, true), (4, heads, gated)];
    let mut sequences = Vec::new();
    for (index, heads, used) in wanted.into_iter().chain([(5, heads, delta)]) {
        if used {
            sequences.push(by_step(call, index, heads, wide)?);
        }
    }
    let sizes = |call: &Call<'_>, id: ValueId| call.graph.fact(id).dims[3].as_known();
    let (key, value) = (sizes(call, sequences[1]), sizes(call, sequences[2]));
    let (Some(key), Some(value)) = (key, value) else {
        return Err(call.error("the sizes of the heads must be known"));
    };
    let scale = match call.float("scale", 0.0) {
        0.0 => 1.0 / (key as f64).sqrt(),
        scale => f64::from(scale),
    };
    let rule = Rule { gated, delta, groups: queries / heads, scale };
    let state = match call.input(3) {
        Some(past) => call.cast(past, wide)?,
        None => {
            let batch = call.extent_of(sequences[0], 1)?;
            let batch = call.reshape(batch, &[1])?;
            let rest = call.integers(&[heads, key, value]);
            let shape = call.concat(&[batch, rest], 0)?;
            let value = Tensor::from_f64_slice(wide, [1], &[0.0]);
            let value = value.map_err(|error| call.error(error.to_string()))?;
            call.emit_one(ConstantOfShape { value }, &[Some(shape)])?
        }
    };
    let operands: Vec<ValueId> = [vec![state], sequences].concat();
    let body = step_graph(call, &operands, rule)?;
    let op = Scan { body, states: 1, sequences: operands.len() - 1, ..Scan::default() };
    let operands: Vec<Option<ValueId>> = operands.into_iter().map(Some).collect();
    let made = call.emit(op, &operands)?;
    let y = call.transpose(made[1], &[1, 0, 2])?;
    Ok(vec![call.cast(y, dtype)?, call.cast(made[0], dtype)?])
}

/// Operand `index` `[batch,length,heads·size]` as `[length,batch,heads,size]`.
fn by_step(call: &mut Call<'_>, index: usize, heads: i64, to: DType) -> Made {
    let x = call.required(index)?;
    let x = call.cast(x, to)?;
    let last = call.graph.fact(x).dims.last().and_then(|d| d.as_known());
    // One number for all heads stands for one head.
    let heads = if last == Some(1) { 1 } else { heads };
    let split = call.reshape(x, &[0, 0, heads, -1])?;
    call.transpose(split, &[1, 0, 2, 3])
}

/// The body of the scan: state, query, key, value, then decay and rate where the rule has them.
fn step_graph(call: &Call<'_>, operands: &[ValueId], rule: Rule) -> Result<Graph, FormatError> {
    let mut graph = Graph::new("step");
    let mut inputs = Vec::new();
    for (i, &id) in operands.iter().enumerate() {
        let mut fact = opened(&format!("operand{i}"), call.graph.fact(id));
        if i > 0 {
            fact.dims.remove(0);
        }
        inputs.push(graph.add_input(format!("operand{i}"), fact));
    }
    let wrapped = inputs.iter().copied().map(Some).collect();
    let mut step = Call {
        proto: call.proto,
        version: call.version,
        inputs: wrapped,
        graph: &mut graph,
        budget: call.budget,
    };
    let (next, y) = one_step(&mut step, &inputs, rule)?;
    graph.set_value_name(next, "next");
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![next, y]);
    Ok(graph)
}

/// The next state `[batch,heads,key,value]` and the result `[batch,queries·value]`.
fn one_step(
    call: &mut Call<'_>,
    inputs: &[ValueId],
    rule: Rule,
) -> Result<(ValueId, ValueId), FormatError> {
    let (mut state, query) = (inputs[0], inputs[1]);
    let key_column = call.unsqueeze(inputs[2], &[3])?;
    let mut value = call.unsqueeze(inputs[3], &[2])?;
    if rule.gated {
        let decay = call.map(U::Exp, inputs[4])?;
        let decay = call.unsqueeze(decay, &[3])?;
        state = call.pair(B::Mul, decay, state)?;
    }
    if rule.delta {
        let key_row = call.unsqueeze(inputs[2], &[2])?;
        let expected = call.product(key_row, state)?;
        let missing = call.pair(B::Sub, value, expected)?;
        let rate = call.unsqueeze(inputs[inputs.len() - 1], &[3])?;
        value = call.pair(B::Mul, rate, missing)?;
    }
    let update = call.product(key_column, value)?;
    let next = call.pair(B::Add, state, update)?;
    let heads = call.graph.fact(inputs[2]).dims[1].as_known().unwrap_or(-1);
    let query = call.reshape(query, &[0, heads, rule.groups, -1])?;
    let y = call.product(query, next)?;
    let y = call.scaled(y, rule.scale)?;
    Ok((next, call.reshape(y, &[0, -1])?))
}
