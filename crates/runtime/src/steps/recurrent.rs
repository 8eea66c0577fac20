//! Steps of recurrent layers with constant weights: one product for all inputs of a sequence, then
//! one small product and the gates for each of its elements.

use std::sync::Arc;

use lepton_ir::ops::rnn::Direction;
use lepton_ir::{Graph, Node, Op, ValueId};
use lepton_kernels::Isa;
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{EpilogueF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_f32};
use lepton_kernels::map::{Unary, map_f32, map_f32_in_place};
use lepton_kernels::pack::{PackedF32, WeightOrder};

use super::product::operand;
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

/// The recurrent matrix of one direction.
struct Recurrent {
    /// All gates, or those before the last.
    gates: PackedF32,
    /// The last gate, where it waits for the reset gate.
    last: Option<PackedF32>,
}

impl Recurrent {
    /// From `[G·H,H]`.
    fn pack(cell: Cell, hidden: usize, r: &[f32]) -> Self {
        let pack = |values: &[f32]| {
            let columns = values.len() / hidden;
            PackedF32::pack(values, &WeightOrder::transposed(columns, hidden))
        };
        let split = cell == Cell::Gru(false);
        let (before, after) = r.split_at(if split { 2 * hidden * hidden } else { r.len() });
        Recurrent { gates: pack(before), last: split.then(|| pack(after)) }
    }

    fn form(cell: Cell) -> &'static str {
        if cell == Cell::Gru(false) { "recurrent-split" } else { "recurrent" }
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
    input: &'a PackedF32,
    recurrent: &'a Recurrent,
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
    inputs: Arc<Vec<PackedF32>>,
    recurrent: Arc<Vec<Recurrent>>,
    biases: Vec<[Vec<f32>; 2]>,
    x: Place,
    /// h, and c of an LSTM, before the first element.
    initial: [Option<Place>; 2],
    y: Option<Place>,
    last: [Option<Place>; 2],
    /// Products with x, gates, h, c, and a copy of either.
    scratch: [Place; 5],
    from_x: Indirection,
    from_h: Indirection,
}

/// The memory of one direction.
struct State<'a> {
    gates: &'a mut [f32],
    h: &'a mut [f32],
    c: &'a mut [f32],
    other: &'a mut [f32],
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
                let (gates, h) = (part(1, batch * columns), part(2, count));
                (products, State { gates, h, c: part(3, count), other: part(4, count) })
            };
            for (values, place) in [&mut *state.h, &mut *state.c].into_iter().zip(self.initial) {
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
            for (values, place) in [&*state.h, &*state.c].into_iter().zip(self.last) {
                if let Some(place) = place {
                    // SAFETY: a last state has every direction.
                    unsafe { memory.slice_mut(place, d * count, count) }.copy_from_slice(values);
                }
            }
        }
    }

    /// `x·wᵀ + b` of every element of every sequence.
    fn project(&self, memory: &Memory<'_>, weights: &Weights<'_>) {
        let columns = weights.input.columns();
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
                gemm_f32(memory.isa, &input, weights.input, &epilogue, &output, range, all);
            }
        });
    }

    /// `h·rᵀ + residual`, with rows of the result `G·H` apart.
    fn recur(
        &self,
        isa: Isa,
        (h, weights): (&[f32], &PackedF32),
        residual: Option<&[f32]>,
        bias: Option<&[f32]>,
        to: &mut [f32],
    ) {
        let (stride, columns) = (self.cell.gates() * self.sizes.hidden, weights.columns());
        let rows = self.sizes.batch;
        let reach = (rows - 1) * stride + columns;
        assert!(to.len() >= reach && residual.is_none_or(|r| r.len() >= reach), "rows of gates");
        let input = Input { base: h.as_ptr(), rows: &self.from_h, padding: h.as_ptr() };
        let residual = residual.map(|r| Residual { pointer: r.as_ptr(), row_stride: stride });
        let epilogue = EpilogueF32 { bias, residual, ..EpilogueF32::default() };
        let output = Output { pointer: to.as_mut_ptr(), row_stride: stride };
        // SAFETY: h has `rows` rows; the rows of gates were just checked.
        unsafe { gemm_f32(isa, &input, weights, &epilogue, &output, 0..rows, 0..columns) };
    }

    fn step(&self, isa: Isa, weights: &Weights<'_>, product: &[f32], state: &mut State<'_>) {
        let hidden = self.sizes.hidden;
        let from_h = (&*state.h, &weights.recurrent.gates);
        match self.cell {
            Cell::Lstm => {
                self.recur(isa, from_h, Some(product), None, state.gates);
                for n in 0..self.sizes.batch {
                    let gates = &mut state.gates[n * 4 * hidden..][..4 * hidden];
                    let own = n * hidden..(n + 1) * hidden;
                    let (h, c) = (&mut state.h[own.clone()], &mut state.c[own]);
                    lstm(isa, gates, h, c, self.cell_bound);
                }
            }
            Cell::Gru(true) => {
                let bias = Some(weights.recurrent_bias);
                self.recur(isa, from_h, None, bias, state.gates);
                for n in 0..self.sizes.batch {
                    let own = n * 3 * hidden..(n + 1) * 3 * hidden;
                    let h = &mut state.h[n * hidden..][..hidden];
                    gru_after(isa, &product[own.clone()], &mut state.gates[own], h);
                }
            }
            Cell::Gru(false) => {
                self.recur(isa, from_h, Some(product), None, state.gates);
                self.gru_before(isa, weights, product, state);
            }
        }
    }

    /// The reset gate scales h before the last product.
    fn gru_before(&self, isa: Isa, weights: &Weights<'_>, product: &[f32], state: &mut State<'_>) {
        let (batch, hidden) = (self.sizes.batch, self.sizes.hidden);
        for n in 0..batch {
            let gates = &mut state.gates[n * 3 * hidden..][..2 * hidden];
            map_f32_in_place(isa, Unary::Sigmoid, gates);
            let own = n * hidden..(n + 1) * hidden;
            let parts = state.other[own.clone()].iter_mut().zip(&state.h[own]);
            for ((to, h), reset) in parts.zip(&gates[hidden..]) {
                *to = reset * h;
            }
        }
        let last = weights.recurrent.last.as_ref().expect("packed for this cell");
        let scaled = (&*state.other, last);
        let residual = Some(&product[2 * hidden..]);
        self.recur(isa, scaled, residual, None, &mut state.gates[2 * hidden..]);
        for n in 0..batch {
            let gates = &mut state.gates[n * 3 * hidden..][..3 * hidden];
            let (update, next) = gates.split_at_mut(2 * hidden);
            map_f32_in_place(isa, Unary::Tanh, next);
            blend(&mut state.h[n * hidden..][..hidden], update, next);
        }
    }
}

/// `h = (1 − update)·next + update·h`.
fn blend(h: &mut [f32], update: &[f32], next: &[f32]) {
    for ((h, update), next) in h.iter_mut().zip(update).zip(next) {
        *h = (1.0 - update) * next + update * *h;
    }
}

/// One element of one sequence; gates i, o, f, c.
fn lstm(isa: Isa, gates: &mut [f32], h: &mut [f32], c: &mut [f32], bound: f32) {
    let hidden = h.len();
    map_f32_in_place(isa, Unary::Sigmoid, &mut gates[..3 * hidden]);
    map_f32_in_place(isa, Unary::Tanh, &mut gates[3 * hidden..]);
    for j in 0..hidden {
        let next = gates[2 * hidden + j] * c[j] + gates[j] * gates[3 * hidden + j];
        c[j] = next.clamp(-bound, bound);
    }
    map_f32(isa, Unary::Tanh, c, h);
    for (h, open) in h.iter_mut().zip(&gates[hidden..]) {
        *h *= open;
    }
}

/// One element of one sequence; gates z, r, h, the reset gate on the product.
fn gru_after(isa: Isa, product: &[f32], gates: &mut [f32], h: &mut [f32]) {
    let hidden = h.len();
    for (gate, product) in gates[..2 * hidden].iter_mut().zip(product) {
        *gate += product;
    }
    let (both, next) = gates.split_at_mut(2 * hidden);
    map_f32_in_place(isa, Unary::Sigmoid, both);
    for ((next, reset), product) in next.iter_mut().zip(&both[hidden..]).zip(&product[2 * hidden..])
    {
        *next = product + reset * *next;
    }
    map_f32_in_place(isa, Unary::Tanh, next);
    blend(h, both, next);
}

/// Bytes of the products with x, the gates, h, c, and a copy of either.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node) -> Vec<usize> {
    let (Some((cell, _)), Some(sizes)) = (Cell::of(&node.op), Sizes::of(graph, node)) else {
        return Vec::new();
    };
    let gates = 4 * sizes.state() * cell.gates();
    let state = 4 * sizes.state();
    vec![sizes.steps * gates, gates, state, state, state]
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
    let (w, r) = (constant(w_id)?, constant(r_id)?);
    let columns = cell.gates() * sizes.hidden;
    let zeros = vec![0.0; 2 * columns * sizes.directions];
    let b = match operand(node, 3) {
        Some(id) => constant(id)?,
        None => &zeros,
    };
    let (hidden, width) = (sizes.hidden, sizes.width);
    let pack_input = || {
        let order = WeightOrder::transposed(columns, width);
        w.chunks_exact(columns * width).map(|part| PackedF32::pack(part, &order)).collect()
    };
    let pack_recurrent = || {
        r.chunks_exact(columns * hidden).map(|part| Recurrent::pack(cell, hidden, part)).collect()
    };
    let packs = builder.packs;
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
        inputs: packs.get_or_pack(w_id, "recurrent-input", pack_input),
        recurrent: packs.get_or_pack(r_id, Recurrent::form(cell), pack_recurrent),
        biases: b.chunks_exact(2 * columns).map(|part| biases(cell, hidden, part)).collect(),
        x: place(operand(node, 0)?),
        initial: [operand(node, 5).map(place), operand(node, 6).map(place)],
        y: result(0),
        last: [result(1), result(2)],
        scratch: [0, 1, 2, 3, 4].map(|i| builder.scratch(i)),
        from_x: Indirection::strided(sizes.width),
        from_h: Indirection::strided(sizes.hidden),
    };
    let run = Box::new(move |memory: &Memory<'_>| {
        layer.run(memory);
        Ok(())
    });
    Some(Chosen { kernel: if cell == Cell::Lstm { "lstm-f32" } else { "gru-f32" }, run })
}
