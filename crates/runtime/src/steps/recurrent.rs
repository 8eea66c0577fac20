//! Steps of recurrent layers with constant weights: one product for all inputs of a sequence, then
//! one step of the kernel for each of its elements. Threads share both directions, or the units: each
//! keeps its own, whose weights its core's cache holds.

use std::ops::Range;
use std::sync::Arc;

use lepton_ir::ops::rnn::Direction;
use lepton_ir::{Graph, Node, Op, ValueId};
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{EpilogueF32, Output};
use lepton_kernels::gemm::{Input, gemm_bf16, gemm_f32_before};
use lepton_kernels::pack::{PackedBf16, PackedF32, WeightOrder};
use lepton_kernels::recurrent::{
    BLOCK_UNITS, PackedI16, RecurrentMatrix, RecurrentStep, SharedState, gru_blend, gru_reset,
    gru_step, lstm_step, recurrent_order,
};
use lepton_kernels::stored::Pack;
use lepton_tensor::{DType, Storage, Tensor};

use super::product::{f32_values, operand};
use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::{Memory, Place};
use crate::plan::{Builder, Demands};
use crate::team::Member;
use crate::workers::PARALLEL_WORK;

/// Steps after which a team gathers anew, so that members who were late can join.
const ROUND: usize = 32;

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

/// How threads share a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Division {
    /// Directions that run at the same time, each on one thread: all, or one.
    at_once: usize,
    /// Threads that share the units of a direction.
    members: usize,
}

impl Division {
    /// Multiply-adds of a step that are worth a member and its meetings.
    const MEMBER_WORK: usize = 48 << 10;
    /// Multiply-adds of a direction that are worth waking anybody.
    const SHARED_WORK: usize = 4 * PARALLEL_WORK;

    fn of(sizes: &Sizes, cell: Cell, threads: usize) -> Self {
        let Sizes { steps, hidden, directions, .. } = *sizes;
        let work = cell.gates() * sizes.state() * hidden;
        if threads == 1 || steps.saturating_mul(work) < Self::SHARED_WORK {
            return Division { at_once: 1, members: 1 };
        }
        // Directions need not meet, but leave threads idle where there are many.
        if directions > 1 && threads < 2 * directions {
            return Division { at_once: directions, members: 1 };
        }
        let most = hidden.div_ceil(BLOCK_UNITS).min(work / Self::MEMBER_WORK);
        Division { at_once: 1, members: threads.min(most).max(1) }
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
    /// Bytes of a member's part that two copies in turn make faster: Zen 5 reads a line of L2 in 1.05 cycles
    /// if about 400 KB of others were read since it was last, else in 1.35. Two such parts fit L2.
    const IN_TURN: Range<usize> = 224 << 10..384 << 10;

    /// A copy for every second step of a team, where that pays.
    fn in_turn(&self, members: usize) -> Option<Self> {
        let Matrix::I16(weights) = self else { return None };
        let pays = members > 1 && Self::IN_TURN.contains(&(weights.bytes().len() / members));
        pays.then(|| Matrix::I16(weights.copied()))
    }

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
    division: Division,
    backward: Vec<bool>,
    inputs: Arc<Vec<Matrix>>,
    recurrent: Arc<Vec<Matrix>>,
    /// Copies of some: odd steps of a team read these.
    in_turn: Vec<Option<Matrix>>,
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

impl Layer {
    fn run(&self, memory: &Memory<'_>) {
        let directions = self.sizes.directions;
        for first in (0..directions).step_by(self.division.at_once) {
            let group = first..first + self.division.at_once;
            group.clone().for_each(|d| self.project(memory, d));
            memory.threads.run(group.len(), &|i| self.sequences(memory, first + i));
        }
    }

    /// The weights of a direction.
    fn weights(&self, d: usize) -> Weights<'_> {
        let [bias, recurrent_bias] = &self.biases[d];
        Weights { input: &self.inputs[d], recurrent: &self.recurrent[d], bias, recurrent_bias }
    }

    /// Where a direction's part of a scratch block begins: blocks have one for every direction at once.
    fn scratch(&self, memory: &Memory<'_>, block: usize, d: usize) -> *mut f32 {
        let each = if block == 0 { self.sizes.steps * self.columns() } else { self.sizes.state() };
        memory.write::<f32>(self.scratch[block]).wrapping_add(d % self.division.at_once * each)
    }

    /// All sequences of the batch in direction `d`.
    fn sequences(&self, memory: &Memory<'_>, d: usize) {
        let Sizes { steps, directions, .. } = self.sizes;
        let count = self.sizes.state();
        // SAFETY: the plan holds them, apart; no other thread works at this direction yet.
        let states = [1, 3].map(|block| unsafe {
            std::slice::from_raw_parts_mut(self.scratch(memory, block, d), count)
        });
        for (values, place) in states.into_iter().zip(self.initial) {
            match place {
                // SAFETY: an initial state has every direction.
                Some(place) => values.copy_from_slice(unsafe {
                    &memory.slice(place, directions * count)[d * count..][..count]
                }),
                None => values.fill(0.0),
            }
        }
        let mut members = self.division.members;
        memory.watch.in_pieces(0..steps, steps * count * self.columns(), 1, |piece| {
            let mut at = piece.start;
            while at < piece.end {
                let end = if members > 1 { piece.end.min(at + ROUND) } else { piece.end };
                let steps = |member: &Member<'_>| self.steps(memory, d, at..end, member);
                if !memory.threads.together(members, &steps) {
                    members = 1;
                }
                at = end;
            }
        });
        for (block, place) in [1 + steps % 2, 3].into_iter().zip(self.last) {
            if let Some(place) = place {
                // SAFETY: a last state has every direction; all members are done.
                unsafe {
                    let values = self.scratch(memory, block, d);
                    memory
                        .write::<f32>(place)
                        .add(d * count)
                        .copy_from_nonoverlapping(values, count);
                }
            }
        }
    }

    /// Some steps in direction `d`, as one of a team.
    fn steps(&self, memory: &Memory<'_>, d: usize, steps: Range<usize>, member: &Member<'_>) {
        let Sizes { hidden, directions, .. } = self.sizes;
        let (weights, count) = (self.weights(d), self.sizes.state());
        let matrix = weights.recurrent.recurrent();
        let blocks = member.part(matrix.blocks());
        // Who is alone reads all of a matrix: two do not fit L2.
        let copy = self.in_turn[d].as_ref().filter(|_| blocks.len() < matrix.blocks());
        let matrices = [matrix, copy.map_or(matrix, Matrix::recurrent)];
        let units = blocks.start * BLOCK_UNITS..hidden.min(blocks.end * BLOCK_UNITS);
        for step in steps {
            let t = if self.backward[d] { self.sizes.steps - 1 - step } else { step };
            let [h, next] = [1 + step % 2, 2 - step % 2];
            // SAFETY: products were made before, h and next are apart, and members write their own
            // units between meetings.
            unsafe {
                let values = |block, from, count| {
                    let first = self.scratch(memory, block, d).add(from);
                    std::slice::from_raw_parts(first, count)
                };
                let shared = |block| SharedState::at(self.scratch(memory, block, d), count);
                let operands = RecurrentStep {
                    isa: memory.isa,
                    weights: matrices[step % 2],
                    blocks: blocks.clone(),
                    product: values(0, t * self.columns(), self.columns()),
                    recurrent_bias: weights.recurrent_bias,
                    h: values(h, 0, count),
                    next: shared(next),
                    cell: shared(3),
                    scaled: shared(4),
                    cell_bound: self.cell_bound,
                };
                self.step(operands, member);
                if let Some(y) = self.y {
                    for row in (0..count).step_by(hidden) {
                        let (first, own) = (row + units.start, units.len());
                        let y = memory.slice_mut(y, (t * directions + d) * count + first, own);
                        y.copy_from_slice(values(next, first, own));
                    }
                }
            }
            member.meet();
        }
    }

    /// One step, as one of a team.
    fn step(&self, step: RecurrentStep<'_>, member: &Member<'_>) {
        match self.cell {
            Cell::Lstm => lstm_step(step.isa, step),
            Cell::Gru(true) => gru_step(step.isa, step),
            Cell::Gru(false) => {
                gru_reset(step.isa, step.clone());
                member.meet();
                gru_blend(step.isa, step);
            }
        }
    }

    /// Products of one element of every sequence.
    fn columns(&self) -> usize {
        self.cell.gates() * self.sizes.state()
    }

    /// `x·wᵀ + b` of every element of every sequence.
    fn project(&self, memory: &Memory<'_>, d: usize) {
        let (weights, columns) = (self.weights(d), self.cell.gates() * self.sizes.hidden);
        let rows = self.sizes.steps * self.sizes.batch;
        over_rows(memory, rows, rows * columns * self.sizes.width, |range| {
            let base = memory.read::<f32>(self.x);
            let input = Input { base, rows: &self.from_x, padding: base };
            let epilogue = EpilogueF32 { bias: Some(weights.bias), ..EpilogueF32::default() };
            // SAFETY: the plan holds `rows` rows of x and of products for each direction at once; ranges
            // are disjoint.
            unsafe {
                let output = Output { pointer: self.scratch(memory, 0, d), row_stride: columns };
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
}

/// Bytes of the products with x, and of four states, of all directions that run at once.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node, threads: usize) -> Vec<usize> {
    let (Some((cell, _)), Some(sizes)) = (Cell::of(&node.op), Sizes::of(graph, node)) else {
        return Vec::new();
    };
    let state = 4 * sizes.state() * Division::of(&sizes, cell, threads).at_once;
    vec![sizes.steps * cell.gates() * state, state, state, state, state]
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
    let division = Division::of(&sizes, cell, builder.demands.threads);
    let layer = Layer {
        cell,
        cell_bound,
        sizes,
        division,
        backward: vec![direction == Direction::Reverse, true],
        inputs: packed(w_id, "recurrent-input", w, w_form, from_x, columns * width),
        in_turn: recurrent.iter().map(|matrix| matrix.in_turn(division.members)).collect(),
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
    Some(Chosen::new(kernel, run))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_directions_or_units_of_what_is_large() {
        let of = |[steps, batch, hidden, directions]: [usize; 4], threads| {
            let sizes = Sizes { steps, batch, width: 8, hidden, directions };
            let Division { at_once, members } = Division::of(&sizes, Cell::Lstm, threads);
            (at_once, members)
        };
        assert_eq!(of([200, 1, 256, 1], 1), (1, 1));
        assert_eq!(of([200, 1, 256, 1], 2), (1, 2));
        assert_eq!(of([200, 1, 256, 2], 2), (2, 1));
        assert_eq!(of([200, 1, 256, 2], 3), (2, 1));
        assert_eq!(of([200, 1, 256, 2], 4), (1, 4));
        // A step of a stream, small steps, and fewer blocks than threads.
        assert_eq!(of([1, 1, 128, 1], 2), (1, 1));
        assert_eq!(of([1000, 1, 128, 1], 2), (1, 1));
        assert_eq!(of([200, 64, 48, 1], 4), (1, 3));
    }

    #[test]
    fn halves_that_fit_l2_twice_are_read_in_turn() {
        let of = |hidden: usize, members: usize| {
            let order = recurrent_order(4, hidden);
            let values: Vec<f32> = (0..4 * hidden * hidden).map(|i| (i % 97) as f32).collect();
            let matrix = Matrix::pack(&values, Form::I16, &order);
            matrix.in_turn(members).map(|copy| copy.bytes() == matrix.bytes())
        };
        assert_eq!(of(256, 2), Some(true));
        assert_eq!([of(256, 1), of(256, 4), of(128, 2)], [None; 3]);
    }
}
