//! Linear layers whose weights are codes of 8 bits or fewer in groups.

use std::sync::Arc;

use lepton_ir::ops::matmul::Linear;
use lepton_ir::{Graph, Node};
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, Residual};
use lepton_kernels::gemm::Input;
use lepton_kernels::groups::{GROUP_COLUMNS, GroupOrder, PackedGroups, gemm_groups};
use lepton_tensor::{DType, Tensor};

use super::product::{activation, operand};
use super::{Choice, Chosen, is_f32};
use crate::place::{Memory, Place};
use crate::plan::{Builder, Demands};
use crate::threads::share;
use crate::workers::PARALLEL_WORK;

/// True for a linear layer whose weights are codes.
pub(crate) fn serves(node: &Node) -> bool {
    operand(node, 4).is_some()
}

/// What a code of each type is when it stands for the middle of its range.
fn middle(dtype: DType) -> Option<i64> {
    Some(match dtype {
        DType::U2 => 2,
        DType::U4 => 8,
        DType::U8 => 128,
        DType::I2 | DType::I4 | DType::I8 => 0,
        _ => return None,
    })
}

/// Sizes of constant weights in groups, where kernels take them.
fn order(graph: &Graph, node: &Node) -> Option<GroupOrder> {
    let codes = graph.constant(operand(node, 1)?)?;
    let scale = graph.constant(operand(node, 4)?)?;
    let (&[depth, columns], &[groups, _]) = (codes.shape(), scale.shape()) else { return None };
    let bits = if matches!(codes.dtype(), DType::U8 | DType::I8) { 8 } else { 4 };
    let whole = groups > 0 && depth.is_multiple_of(groups);
    let shifted = zeros(graph, node)?.iter().any(|&zero| zero != 0);
    let order = GroupOrder { depth, columns, group: depth / groups.max(1), bits, shifted };
    (whole && order.is_served()).then_some(order)
}

/// Zero points, counted from the middle; one where they are absent.
fn zeros(graph: &Graph, node: &Node) -> Option<Vec<i8>> {
    let middle = middle(graph.constant(operand(node, 1)?)?.dtype())?;
    let given = match operand(node, 5) {
        Some(zero) => graph.constant(zero)?.to_i64_vec(),
        None => vec![0],
    };
    Some(given.iter().map(|zero| (zero - middle) as i8).collect())
}

fn pack(order: &GroupOrder, codes: &Tensor, scales: &[f32], mut zeros: Vec<i8>) -> PackedGroups {
    let middle = middle(codes.dtype()).expect("checked with the order");
    let codes: Vec<i8> = codes.to_i64_vec().iter().map(|code| (code - middle) as i8).collect();
    if zeros.len() != scales.len() {
        zeros = vec![zeros.first().copied().unwrap_or(0); scales.len()];
    }
    PackedGroups::pack(order, &codes, scales, if order.shifted { &zeros } else { &[] })
}

/// Threads that share the columns of a product.
fn parts(order: &GroupOrder, rows: usize, threads: usize) -> usize {
    let work = rows * order.depth * order.columns;
    threads.min(work / PARALLEL_WORK + 1).min(order.columns.div_ceil(GROUP_COLUMNS))
}

/// Bytes of scratch: a block for each thread.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node, demands: Demands) -> Vec<usize> {
    let columns = |order: &GroupOrder| {
        let count: usize = graph.fact(node.outputs[0]?).shape()?.iter().product();
        Some(count / order.columns)
    };
    let Some(order) = order(graph, node) else { return Vec::new() };
    let Some(rows) = columns(&order) else { return Vec::new() };
    vec![4 * order.scratch(rows) * parts(&order, rows, demands.threads)]
}

/// Everything the step needs at run time.
struct Product {
    weights: Arc<PackedGroups>,
    geometry: Indirection,
    x: Place,
    bias: Option<Place>,
    residual: Option<Place>,
    y: Place,
    scratch: Place,
    rows: usize,
    parts: usize,
    activation: Activation,
}

impl Product {
    fn run(&self, memory: &Memory<'_>) {
        let blocks = self.weights.order().columns.div_ceil(GROUP_COLUMNS);
        let order = self.weights.order();
        let work = self.rows * order.depth * order.columns / self.parts;
        memory.threads.run(self.parts, &|part| {
            memory.watch.in_pieces(share(blocks, part, self.parts), work, 1, |blocks| {
                let columns = blocks.start * GROUP_COLUMNS..blocks.end * GROUP_COLUMNS;
                self.columns(memory, part, columns);
            });
        });
    }

    /// The columns of one part.
    fn columns(&self, memory: &Memory<'_>, part: usize, columns: std::ops::Range<usize>) {
        let order = self.weights.order();
        let (n, each) = (order.columns, order.scratch(self.rows));
        let columns = columns.start..columns.end.min(n);
        // SAFETY: the plan holds these counts at the places; parts write columns and scratch of
        // their own.
        unsafe {
            let scratch = memory.slice_mut::<f32>(self.scratch, part * each, each);
            let base = memory.read::<f32>(self.x);
            let input = Input { base, rows: &self.geometry, padding: base };
            let row = |place: Place| Residual { pointer: memory.read(place), row_stride: n };
            let epilogue = EpilogueF32 {
                alpha: 1.0,
                bias: self.bias.map(|place| memory.slice::<f32>(place, n)),
                residual: self.residual.map(row),
                activation: self.activation,
            };
            let output = Output { pointer: memory.write::<f32>(self.y), row_stride: n };
            let (isa, weights, rows) = (memory.isa, &self.weights, 0..self.rows);
            gemm_groups(isa, &input, weights, &epilogue, &output, rows, columns, scratch);
        }
    }
}

/// A linear layer whose weights are codes.
pub(crate) fn linear(builder: &mut Builder<'_>, node: &Node, op: &Linear) -> Choice {
    let (Some(x), Some(w), Some(y)) = (operand(node, 0), operand(node, 1), node.outputs[0]) else {
        return Ok(None);
    };
    let Some(activation) = activation(&op.activation) else { return Ok(None) };
    let Some(order) = order(builder.graph, node) else { return Ok(None) };
    if !is_f32(builder, node, 0) || builder.count(y) == 0 {
        return Ok(None);
    }
    let constant = |index: usize| builder.graph.constant(operand(node, index)?).cloned();
    let (Some(codes), Some(scale)) = (constant(1), constant(4)) else { return Ok(None) };
    let (Some(zeros), Ok(scales)) = (zeros(builder.graph, node), scale.as_slice::<f32>()) else {
        return Ok(None);
    };
    let kernel = if order.bits == 4 { "linear-4-bit" } else { "linear-8-bit" };
    let make = || pack(&order, &codes, scales, zeros);
    let rows = builder.count(y) / order.columns;
    let place = |id| builder.place(id);
    let product = Product {
        weights: builder.packs.get_or_load(w, kernel, &order, make),
        geometry: Indirection::strided(order.depth),
        x: place(x),
        bias: operand(node, 2).map(place),
        residual: operand(node, 3).map(place),
        y: place(y),
        scratch: builder.scratch(0),
        rows,
        parts: parts(&order, rows, builder.demands.threads),
        activation,
    };
    let run = Box::new(move |memory: &Memory<'_>| {
        product.run(memory);
        Ok(())
    });
    Ok(Some(Chosen::divided(kernel, run)))
}
