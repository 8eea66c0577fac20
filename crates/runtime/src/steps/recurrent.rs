//! Steps of recurrent layers with constant weights: one product for all inputs of a sequence, then
//! one step of the kernel for each of its elements.

use std::sync::Arc;

use lepton_ir::ops::rnn::Direction;
use lepton_ir::{Graph, Node, Op, ValueId};
use lepton_kernels::Isa;
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{EpilogueF32, Output};
use lepton_kernels::gemm::{Input, gemm_bf16, gemm_f32_before};
use lepton_kernels::pack::{PackedBf16, PackedF32, WeightOrder};
use lepton_kernels::recurrent::{
    RecurrentMatrix, RecurrentStep, gru_step, gru_step_reset_first, lstm_step, recurrent_order,
};
use lepton_kernels::stored::Pack;
use lepton_tensor::{DType, Storage, Tensor};

use super::product::{f32_values, operand};
use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::{Memory, Place};
use crate::plan::Builder;

/// What a layer does with its gates.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Lstm,
    /// With the reset gate on the product (true) or on h.
    Gru(bool),
}

impl Cell {
    fn of(op: &Op) -> Option<(Self, Direction)> {
        match op {
            Op::LSTM(op) => Some((Cell::Lstm, op.direction)),
            Op::GRU(op) => Some((Cell::Gru(op.linear_before_reset), op.direction)),
            _ => None,
        }
    }

    fn gates(self) -> usize {
        if self == Cell::Lstm { 4 } else { 3 }
    }
}

/// Extents of a layer.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    width: usize,
    hidden: usize,
    directions: usize,
}

impl Sizes {
    fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let shape = |index: usize| graph.fact(operand(node, index)?).shape();
        let (x, r) = (shape(0)?, shape(2)?);
        let [steps, batch, width] = x[..] else { return None };
        Some(Sizes { steps, batch, width, hidden: r[2], directions: r[0] })
    }

    fn state(&self) -> usize {
        self.batch * self.hidden
    }
}

/// A packed matrix of weights.
enum Matrix {
    F32(PackedF32),
    Bf16(PackedBf16),
}

impl Matrix {
    fn pack(values: &[f32], half: bool, order: &WeightOrder) -> Self {
        match half {
            true => Matrix::Bf16(PackedBf16::pack(values, order)),
            false => Matrix::F32(PackedF32::pack(values, order)),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Matrix::F32(weights) => weights.bytes(),
            Matrix::Bf16(weights) => weights.bytes(),
        }
    }

    fn recurrent(&self) -> RecurrentMatrix<'_> {
        match self {
            Matrix::F32(weights) => RecurrentMatrix::F32(weights),
            Matrix::Bf16(weights) => RecurrentMatrix::Bf16(weights),
        }
    }
}

impl Pack for Matrix {
    /// True for bf16; the order.
    type Order = (bool, WeightOrder);

    fn stored(&self) -> Vec<Storage> {
        match self {
            Matrix::F32(weights) => weights.stored(),
            Matrix::Bf16(weights) => weights.stored(),
        }
    }

    fn load((half, order): &Self::Order, stored: &[Storage]) -> Option<Self> {
        Some(match half {
            true => Matrix::Bf16(PackedBf16::load(order, stored)?),
            false => Matrix::F32(PackedF32::load(order, stored)?),
        })
    }
}

/// What is added to the products with x and with h, from `[2·G·H]`.
fn biases(cell: Cell, hidden: usize, b: &[f32]) -> [Vec<f32>; 2] {
    let (own, recurrent) = b.split_at(cell.gates() * hidden);
    let mut bias: Vec<f32> = own.iter().zip(recurrent).map(|(a, b)| a + b).collect();
    let mut recurrent_bias = vec![0.0; own.len()];
    if cell == Cell::Gru(true) {
        // The reset gate scales the bias of the last gate too.
        bias[2 * hidden..].copy_from_slice(&own[2 * hidden..]);
        recurrent_bias[2 * hidden..].copy_from_slice(&recurrent[2 * hidden..]);
    }
    [bias, recurrent_bias]
}

/// Weights of one direction.
struct Weights<'a> {
    input: &'a Matrix,
    recurrent: &'a Matrix,
    bias: &'a [f32],
    recurrent_bias: &'a [f32],
}

/// Everything a recurrent layer needs at run time.
struct Layer {
    cell: Cell,
    /// What c of an LSTM is clamped to on both sides of zero.
    cell_bound: f32,
    sizes: Sizes,
    backward: Vec<bool>,
    inputs: Arc<Vec<Matrix>>,
    recurrent: Arc<Vec<Matrix>>,
    biases: Vec<[Vec<f32>; 2]>,
    x: Place,
    /// h, and c of an LSTM, before the first element.
    initial: [Option<Place>; 2],
    y: Option<Place>,
    last: [Option<Place>; 2],
    /// Products with x; h before and after a step; c, or the update gates; h times reset gates.
    scratch: [Place; 5],
    from_x: Indirection,
}

/// The memory of one direction.
struct State<'a> {
    h: &'a mut [f32],
    next: &'a mut [f32],
    cell: &'a mut [f32],
    scaled: &'a mut [f32],
}

impl Layer {
    fn run(&self, memory: &Memory<'_>) {
        let Sizes { steps, batch, hidden, directions, .. } = self.sizes;
        let count = self.sizes.state();
        let columns = self.cell.gates() * hidden;
        for d in 0..directions {
            let [bias, recurrent_bias] = &self.biases[d];
            let (input, recurrent) = (&self.inputs[d], &self.recurrent[d]);
            let weights = &Weights { input, recurrent, bias, recurrent_bias };
            self.project(memory, weights);
            // SAFETY: the plan holds these counts in scratch blocks that are apart.
            let (products, state) = unsafe {
                let part = |i: usize, count: usize| memory.slice_mut(self.scratch[i], 0, count);
                let products = memory.slice::<f32>(self.scratch[0], steps * batch * columns);
                let (h, next) = (part(1, count), part(2, count));
                (products, State { h, next, cell: part(3, count), scaled: part(4, count) })
            };
            for (values, place) in [&mut *state.h, &mut *state.cell].into_iter().zip(self.initial) {
                match place {
                    // SAFETY: an initial state has every direction.
                    Some(place) => values.copy_from_slice(unsafe {
                        &memory.slice(place, directions * count)[d * count..][..count]
                    }),
                    None => values.fill(0.0),
                }
            }
            let mut state = state;
            for step in 0..steps {
                let t = if self.backward[d] { steps - 1 - step } else { step };
                let product = &products[t * batch * columns..][..batch * columns];
                self.step(memory.isa, weights, product, &mut state);
                if let Some(y) = self.y {
                    // SAFETY: y has every step of every direction.
                    unsafe { memory.slice_mut(y, (t * directions + d) * count, count) }
                        .copy_from_slice(state.h);
                }
            }
            for (values, place) in [&*state.h, &*state.cell].into_iter().zip(self.last) {
                if let Some(place) = place {
                    // SAFETY: a last state has every direction.
                    unsafe { memory.slice_mut(place, d * count, count) }.copy_from_slice(values);
                }
            }
        }
    }

    /// `x·wᵀ + b` of every element of every sequence.
    fn project(&self, memory: &Memory<'_>, weights: &Weights<'_>) {
        let columns = self.cell.gates() * self.sizes.hidden;
        let rows = self.sizes.steps * self.sizes.batch;
        over_rows(memory, rows, rows * columns * self.sizes.width, |range| {
            let base = memory.read::<f32>(self.x);
            let input = Input { base, rows: &self.from_x, padding: base };
            let epilogue = EpilogueF32 { bias: Some(weights.bias), ..EpilogueF32::default() };
            let pointer = memory.write::<f32>(self.scratch[0]);
            let output = Output { pointer, row_stride: columns };
            // SAFETY: the plan holds `rows` rows of x and of products; ranges are disjoint.
            unsafe {
                let all = 0..columns;
                // The recurrent matrix is read next, by every step.
                let next = weights.recurrent.bytes();
                match weights.input {
                    Matrix::F32(w) => {
                        gemm_f32_before(
                            memory.isa, &input, w, &epilogue, &output, range, all, next,
                        );
                    }
                    Matrix::Bf16(w) => {
                        gemm_bf16(
                            memory.isa, &input, w, &epilogue, None, &output, range, all, next,
                        );
                    }
                }
            }
        });
    }

    fn step(&self, isa: Isa, weights: &Weights<'_>, product: &[f32], state: &mut State<'_>) {
        let step = RecurrentStep {
            isa,
            weights: weights.recurrent.recurrent(),
            product,
            recurrent_bias: weights.recurrent_bias,
            h: state.h,
            next: state.next,
            cell: state.cell,
            scaled: state.scaled,
            cell_bound: self.cell_bound,
        };
        match self.cell {
            Cell::Lstm => lstm_step(isa, step),
            Cell::Gru(true) => gru_step(isa, step),
            Cell::Gru(false) => gru_step_reset_first(isa, step),
        }
        std::mem::swap(&mut state.h, &mut state.next);
    }
}

/// Bytes of the products with x, and of four states.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node) -> Vec<usize> {
    let (Some((cell, _)), Some(sizes)) = (Cell::of(&node.op), Sizes::of(graph, node)) else {
        return Vec::new();
    };
    let gates = 4 * sizes.state() * cell.gates();
    let state = 4 * sizes.state();
    vec![sizes.steps * gates, state, state, state, state]
}

/// An LSTM or GRU with constant weights.
pub(crate) fn layer(builder: &mut Builder<'_>, node: &Node) -> Choice {
    Ok(built(builder, node))
}

fn built(builder: &mut Builder<'_>, node: &Node) -> Option<Chosen> {
    let ((cell, direction), sizes) = (Cell::of(&node.op)?, Sizes::of(builder.graph, node)?);
    let whole = sizes.steps * sizes.state() * sizes.width > 0;
    // Sequences of several lengths and peepholes are left to the reference.
    let plain = operand(node, 4).is_none() && operand(node, 7).is_none();
    if !is_f32(builder, node, 0) || !whole || !plain {
        return None;
    }
    let constant = |id: ValueId| builder.graph.constant(id)?.as_slice::<f32>().ok();
    let (w_id, r_id) = (operand(node, 1)?, operand(node, 2)?);
    let matrix = |id: ValueId| {
        let tensor = builder.graph.constant(id)?;
        let served = matches!(tensor.dtype(), DType::F32 | DType::BF16);
        served.then_some((tensor.dtype() == DType::BF16, tensor))
    };
    let ((w_half, w), (r_half, r)) = (matrix(w_id)?, matrix(r_id)?);
    let columns = cell.gates() * sizes.hidden;
    let zeros = vec![0.0; 2 * columns * sizes.directions];
    let b = match operand(node, 3) {
        Some(id) => constant(id)?,
        None => &zeros,
    };
    let (hidden, width) = (sizes.hidden, sizes.width);
    let packs = builder.packs;
    let packed = |id, form, tensor: &Tensor, half, order: WeightOrder, each: usize| {
        packs.get_or_load(id, form, &(sizes.directions, (half, order)), || {
            let parts = f32_values(tensor);
            let parts = parts.chunks_exact(each);
            parts.map(|part| Matrix::pack(part, half, &order)).collect()
        })
    };
    let from_x = WeightOrder::transposed(columns, width);
    let from_h = recurrent_order(cell.gates(), hidden);
    let h_half = r_half && hidden % 2 == 0;
    let place = |id: ValueId| builder.place(id);
    let result = |i: usize| node.outputs.get(i).copied().flatten().map(place);
    let cell_bound = match &node.op {
        Op::LSTM(op) if op.cell_clip > 0.0 => op.cell_clip,
        _ => f32::INFINITY,
    };
    let layer = Layer {
        cell,
        cell_bound,
        sizes,
        backward: vec![direction == Direction::Reverse, true],
        inputs: packed(w_id, "recurrent-input", w, w_half, from_x, columns * width),
        recurrent: packed(r_id, "recurrent", r, h_half, from_h, columns * hidden),
        biases: b.chunks_exact(2 * columns).map(|part| biases(cell, hidden, part)).collect(),
        x: place(operand(node, 0)?),
        initial: [operand(node, 5).map(place), operand(node, 6).map(place)],
        y: result(0),
        last: [result(1), result(2)],
        scratch: [0, 1, 2, 3, 4].map(|i| builder.scratch(i)),
        from_x: Indirection::strided(sizes.width),
    };
    let run = Box::new(move |memory: &Memory<'_>| {
        layer.run(memory);
        Ok(())
    });
    let kernel = match (cell, r_half) {
        (Cell::Lstm, false) => "lstm-f32",
        (Cell::Lstm, true) => "lstm-bf16",
        (_, false) => "gru-f32",
        (_, true) => "gru-bf16",
    };
    Some(Chosen { kernel, run })
}
