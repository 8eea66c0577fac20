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
    PackedI16, RecurrentMatrix, RecurrentStep, gru_step, gru_step_reset_first, lstm_step,
    recurrent_order,
};
use lepton_kernels::stored::Pack;
use lepton_tensor::{DType, Storage, Tensor};

use super::product::{f32_values, operand};
use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::{Memory, Place};
use crate::plan::{Builder, Demands};

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
    I16(PackedI16),
}

/// How a matrix is to be packed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    F32,
    Bf16,
    /// In fixed point, or as f32 where that would change a unit's weights too much.
    I16,
}

impl Form {
    /// What an f32 matrix needs to exceed for fixed point: smaller ones stay in L1.
    const NEAR_BYTES: usize = 32 << 10;
    /// So many sequences share what f32 reads.
    const SHARING_ROWS: usize = 4;

    /// The form of a matrix of type `dtype`.
    fn of(dtype: DType) -> Self {
        if dtype == DType::BF16 { Form::Bf16 } else { Form::F32 }
    }

    /// The form of the recurrent matrix of a layer.
    fn of_recurrent(dtype: DType, cell: Cell, sizes: &Sizes, demands: Demands<'_>) -> Self {
        let whole = Form::of(dtype);
        let bytes = 4 * cell.gates() * sizes.hidden * sizes.hidden;
        let waits = bytes > Self::NEAR_BYTES && sizes.batch < Self::SHARING_ROWS;
        match whole {
            Form::Bf16 if sizes.hidden % 2 == 1 => Form::F32,
            // Twice the instructions, half the bytes: not worth it for narrower vectors.
            Form::F32 if waits && !demands.exact && demands.isa.has_avx512() => Form::I16,
            _ => whole,
        }
    }

    /// The name under which a recurrent matrix is kept.
    fn name(self) -> &'static str {
        if self == Form::I16 { "recurrent-i16" } else { "recurrent" }
    }
}

impl Matrix {
    fn pack(values: &[f32], form: Form, order: &WeightOrder) -> Self {
        let wide = || Matrix::F32(PackedF32::pack(values, order));
        match form {
            Form::F32 => wide(),
            Form::Bf16 => Matrix::Bf16(PackedBf16::pack(values, order)),
            Form::I16 => PackedI16::pack(values, order).map_or_else(wide, Matrix::I16),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Matrix::F32(weights) => weights.bytes(),
            Matrix::Bf16(weights) => weights.bytes(),
            Matrix::I16(weights) => weights.bytes(),
        }
    }

    fn recurrent(&self) -> RecurrentMatrix<'_> {
        match self {
            Matrix::F32(weights) => RecurrentMatrix::F32(weights),
            Matrix::Bf16(weights) => RecurrentMatrix::Bf16(weights),
            Matrix::I16(weights) => RecurrentMatrix::I16(weights),
        }
    }
}

impl Pack for Matrix {
    type Order = (Form, WeightOrder);

    fn stored(&self) -> Vec<Storage> {
        match self {
            Matrix::F32(weights) => weights.stored(),
            Matrix::Bf16(weights) => weights.stored(),
            Matrix::I16(weights) => weights.stored(),
        }
    }

    fn load((form, order): &Self::Order, stored: &[Storage]) -> Option<Self> {
        let wide = || Some(Matrix::F32(PackedF32::load(order, stored)?));
        match form {
            Form::F32 => wide(),
            Form::Bf16 => Some(Matrix::Bf16(PackedBf16::load(order, stored)?)),
            // Their lengths tell which of the two it is.
            Form::I16 => PackedI16::load(order, stored).map(Matrix::I16).or_else(wide),
        }
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
            memory.watch.in_pieces(0..steps, steps * count * columns, 1, |piece| {
                for step in piece {
                    let t = if self.backward[d] { steps - 1 - step } else { step };
                    let product = &products[t * batch * columns..][..batch * columns];
                    self.step(memory.isa, weights, product, &mut state);
                    if let Some(y) = self.y {
                        // SAFETY: y has every step of every direction.
                        unsafe { memory.slice_mut(y, (t * directions + d) * count, count) }
                            .copy_from_slice(state.h);
                    }
                }
            });
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
                    Matrix::I16(_) => unreachable!("only recurrent matrices"),
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
        matches!(tensor.dtype(), DType::F32 | DType::BF16).then_some(tensor)
    };
    let (w, r) = (matrix(w_id)?, matrix(r_id)?);
    let columns = cell.gates() * sizes.hidden;
    let zeros = vec![0.0; 2 * columns * sizes.directions];
    let b = match operand(node, 3) {
        Some(id) => constant(id)?,
        None => &zeros,
    };
    let (hidden, width) = (sizes.hidden, sizes.width);
    let packs = builder.packs;
    let packed = |id, name, tensor: &Tensor, form, order: WeightOrder, each: usize| {
        packs.get_or_load(id, name, &(sizes.directions, (form, order)), || {
            let parts = f32_values(tensor);
            let parts = parts.chunks_exact(each);
            parts.map(|part| Matrix::pack(part, form, &order)).collect()
        })
    };
    let from_x = WeightOrder::transposed(columns, width);
    let from_h = recurrent_order(cell.gates(), hidden);
    let w_form = Form::of(w.dtype());
    let r_form = Form::of_recurrent(r.dtype(), cell, &sizes, builder.demands);
    let recurrent: Arc<Vec<Matrix>> =
        packed(r_id, r_form.name(), r, r_form, from_h, columns * hidden);
    let kernel = kernel_name(cell, r.dtype(), &recurrent);
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
        inputs: packed(w_id, "recurrent-input", w, w_form, from_x, columns * width),
        recurrent,
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
    Some(Chosen { kernel, run })
}

fn kernel_name(cell: Cell, dtype: DType, recurrent: &[Matrix]) -> &'static str {
    let fixed = recurrent.iter().all(|matrix| matches!(matrix, Matrix::I16(_)));
    match (cell, dtype) {
        (Cell::Lstm, DType::BF16) => "lstm-bf16",
        (Cell::Lstm, _) if fixed => "lstm-i16-f32",
        (Cell::Lstm, _) => "lstm-f32",
        (_, DType::BF16) => "gru-bf16",
        _ if fixed => "gru-i16-f32",
        _ => "gru-f32",
    }
}
