//! Recurrent layers.
//!
//! A whole sequence starts from zero in every run. Layers that see one element per run get their
//! state as an input of the graph and give the next one as an output.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::matmul::Gemm;
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::rnn::{LSTM, RNN, RecurrentActivation};
use lepton_tensor::Tensor;

use super::call::{Call, Results};
use super::integer_lstm;
use super::shapes::without;
use crate::error::FormatError;
use crate::steps::{Made, Steps};

/// Operands of a long short-term memory, by gate in Lepton's order (input, output, forget, cell).
pub(super) const FROM_X: [usize; 4] = [1, 4, 2, 3];
pub(super) const FROM_H: [usize; 4] = [5, 8, 6, 7];
pub(super) const BIAS: [usize; 4] = [12, 15, 13, 14];
/// Weights of the cell into the gates input, output and forget.
pub(super) const PEEPHOLES: [usize; 3] = [9, 11, 10];
/// Most units of a layer.
const MAX_UNITS: usize = 1 << 20;
/// The forget gate among the operands, which stands for the input gate where that is absent.
const FORGET: usize = 2;

/// The reals of an operand as f32, which must be a constant.
fn numbers(call: &mut Call<'_, '_>, operand: usize) -> Result<Vec<f32>, FormatError> {
    let value = call.real(operand)?;
    let graph = call.graph_ref();
    let constant = |id: Option<ValueId>| id.and_then(|id| graph.constant(id));
    let made = match graph.producer(value) {
        None => graph.constant(value).cloned(),
        Some((_, node)) => {
            let operands: Vec<_> = node.inputs.iter().map(|id| constant(*id)).collect();
            let whole = operands.iter().all(Option::is_some);
            let eval = || node.op.operator().eval(lepton_ir::Operands(&operands)).ok()?.pop();
            whole.then(eval).flatten()
        }
    };
    let made = made.ok_or_else(|| call.error(format!("input {operand} must be a constant")))?;
    Ok(made.to_f64_vec().into_iter().map(|x| x as f32).collect())
}

/// The rows of all gates. Where there is no input gate it is what the forget gate is not:
/// `σ(−x) = 1 − σ(x)`.
fn gates(
    call: &mut Call<'_, '_>,
    operands: &[usize],
    coupled: bool,
) -> Result<Vec<f32>, FormatError> {
    let mut all = Vec::new();
    for (gate, &operand) in operands.iter().enumerate() {
        if gate == 0 && coupled {
            let negative = numbers(call, operands[FORGET])?;
            all.extend(negative.into_iter().map(|x| -x));
        } else {
            all.extend(numbers(call, operand)?);
        }
    }
    Ok(all)
}

pub(super) fn table(call: &mut Call<'_, '_>, shape: &[usize], values: &[f32]) -> Made {
    let tensor = Tensor::from_slice(shape, values);
    let tensor = tensor.map_err(|error| call.error(error.to_string()))?;
    Ok(call.constant(tensor))
}

/// `x` with its sequence first, and what brings the result back.
pub(super) fn time_first(call: &mut Call<'_, '_>, x: ValueId, time_major: bool) -> Made {
    if call.rank(x) != 3 {
        return Err(call.error("its operand must have three axes"));
    }
    if time_major { Ok(x) } else { call.transpose(x, &[1, 0, 2]) }
}

fn hidden_units(call: &mut Call<'_, '_>, operand: usize) -> Result<usize, FormatError> {
    let r = call.stored(operand)?;
    let units = call.fact(r).dims.first().and_then(|dim| dim.as_usize());
    units
        .filter(|n| (1..=MAX_UNITS).contains(n))
        .ok_or_else(|| call.error("the number of its units must be known"))
}

/// A long short-term memory over a sequence.
pub fn lstm(call: &mut Call<'_, '_>) -> Results {
    if call.word(0)? != 4 {
        return Err(call.error("an activation other than tanh"));
    }
    if integer_lstm::serves(call)? {
        return integer_lstm::layer(call);
    }
    if call.has(16) || (20..24).any(|operand| call.has(operand)) {
        return Err(call.error("projections and normalised gates are not supported"));
    }
    let hidden = hidden_units(call, 6)?;
    let coupled = !call.has(1);
    let x = call.real(0)?;
    let width = call.fact(x).dims.last().and_then(|dim| dim.as_usize());
    let width = width.ok_or_else(|| call.error("the width of its operand must be known"))?;
    let (w, r) = (gates(call, &FROM_X, coupled)?, gates(call, &FROM_H, coupled)?);
    let mut b = gates(call, &BIAS, coupled)?;
    b.resize(8 * hidden, 0.0);
    let w = table(call, &[1, 4 * hidden, width], &w)?;
    let r = table(call, &[1, 4 * hidden, hidden], &r)?;
    let b = table(call, &[1, 8 * hidden], &b)?;
    let mut inputs = vec![None, Some(w), Some(r), Some(b)];
    if call.has(PEEPHOLES[1]) {
        let weights = gates(call, &PEEPHOLES, coupled)?;
        inputs.resize(7, None);
        inputs.push(Some(table(call, &[1, 3 * hidden], &weights)?));
    }
    let time_major = call.flag(3)?;
    inputs[0] = Some(time_first(call, x, time_major)?);
    let op = LSTM { cell_clip: call.float(1, 0.0)?, ..LSTM::default() };
    let y = call.emit_one(op, &inputs)?;
    let y = without(call, y, 1)?;
    Ok(vec![time_first(call, y, time_major)?])
}

fn recurrent_activation(
    call: &Call<'_, '_>,
    field: usize,
) -> Result<RecurrentActivation, FormatError> {
    match call.word(field)? {
        1 => Ok(RecurrentActivation::Relu),
        4 => Ok(RecurrentActivation::Tanh),
        other => Err(call.error(format!("activation number {other}; known: relu and tanh"))),
    }
}

/// A plain recurrent layer over a sequence: operands x, w, r, b and the state.
pub fn rnn(call: &mut Call<'_, '_>) -> Results {
    let hidden = hidden_units(call, 2)?;
    let activation = recurrent_activation(call, 1)?;
    let [w, r] = [call.real(1)?, call.real(2)?].map(|value| call.unsqueeze(value, &[0]));
    let mut bias = numbers(call, 3)?;
    bias.resize(2 * hidden, 0.0);
    let bias = table(call, &[1, 2 * hidden], &bias)?;
    let time_major = call.flag(0)?;
    let x = call.real(0)?;
    let x = time_first(call, x, time_major)?;
    let op = RNN { activation, ..RNN::default() };
    let y = call.emit_one(op, &[Some(x), Some(w?), Some(r?), Some(bias)])?;
    let y = without(call, y, 1)?;
    Ok(vec![time_first(call, y, time_major)?])
}

/// One step of a plain recurrent layer: `activation(x·wᵀ + h·rᵀ + b)`, which is also the next h.
pub fn rnn_cell(call: &mut Call<'_, '_>) -> Results {
    let (x, w, r, b) = (call.real(0)?, call.real(1)?, call.real(2)?, call.real(3)?);
    let h = call.state(4)?;
    let op = Gemm { trans_b: true, ..Gemm::default() };
    let from_x = call.emit_one(op.clone(), &[Some(x), Some(w), Some(b)])?;
    let from_h = call.emit_one(op, &[Some(h), Some(r)])?;
    let sum = call.pair(B::Add, from_x, from_h)?;
    let next = call.activated(sum, 0)?;
    call.keep(4, next)?;
    Ok(vec![next])
}

/// A filter over features and time (`SVDF`): operands x `[N,I]`, feature weights `[F,I]`, time
/// weights `[F,T]`, b `[F/rank]` and the last features `[N,F·T]`, the oldest first.
pub fn filter(call: &mut Call<'_, '_>) -> Results {
    let rank = call.extent(0, 0)?;
    let (x, features, times) = (call.real(0)?, call.real(1)?, call.real(2)?);
    let extents = call.extents(times)?;
    let &[count, length] = extents.as_slice() else {
        return Err(call.error("its time weights must have two axes"));
    };
    if count % rank != 0 || length == 0 {
        return Err(call.error(format!("{count} filters of rank {rank} over {length} steps")));
    }
    let (count, length, units) = (count as i64, length as i64, (count / rank) as i64);
    let state = call.state(4)?;
    let before = call.reshape(state, &[-1, count, length])?;
    let op = Gemm { trans_b: true, ..Gemm::default() };
    let now = call.emit_one(op, &[Some(x), Some(features)])?;
    let now = call.unsqueeze(now, &[2])?;
    let before = call.slice(before, 2, 1, i64::MAX)?;
    let next = call.concat(&[before, now], 2)?;
    let kept = call.reshape(next, &[-1, count * length])?;
    call.keep(4, kept)?;
    let weighed = call.pair(B::Mul, next, times)?;
    let filtered = call.reduced(R::Sum, weighed, &[2], false)?;
    let split = call.reshape(filtered, &[-1, units, rank as i64])?;
    let mut y = call.reduced(R::Sum, split, &[2], false)?;
    if let Some(bias) = call.optional(3)? {
        y = call.pair(B::Add, y, bias)?;
    }
    Ok(vec![call.activated(y, 1)?])
}
