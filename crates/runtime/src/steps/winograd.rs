//! Steps of 3×3 convolutions of stride 1 that multiply transformed tiles, where that is expected
//! to be faster than the direct sum. They change the last digits of the answer.

use std::ops::Range;

use lepton_ir::ops::conv::Conv;
use lepton_ir::{Graph, Node, Op, ValueId};
use lepton_kernels::conv::Window;
use lepton_kernels::epilogue::Output;
use lepton_kernels::winograd::{Alone, Member, PackedWinograd, Tile, Tiling, winograd_f32};
use lepton_tensor::{DType, Layout};

use super::product::{Product, activation, image_window, operand};
use super::{Choice, Chosen};
use crate::choices::Algorithm;
use crate::place::{Memory, Place};
use crate::plan::{Builder, Demands};
use crate::team;
use crate::threads::share;

/// What transforming an element of a tile costs, in multiply-adds of a product: what a channel of
/// its input and a column of its output take on an AVX-512 machine with 2 MiB of L2.
const CHANNEL_COST: usize = 17;
const COLUMN_COST: usize = 21;
/// Multiply-adds in the time it takes to read a weight from memory, and from a cache beyond L2.
const FAR_WEIGHT_COST: usize = 42;
const NEAR_WEIGHT_COST: usize = 14;
/// A model with fewer bytes of weights finds them in a cache at every run.
const NEAR_BYTES: usize = 2 << 20;

/// The window of a convolution that tiles can serve, and the extents of its input and weights.
fn served(graph: &Graph, node: &Node, op: &Conv) -> Option<(Window, Vec<usize>, Vec<usize>)> {
    let fact = |index: usize| operand(node, index).map(|id| graph.fact(id));
    let (x, w) = (fact(0)?, fact(1)?);
    let (xs, ws) = (x.shape()?, w.shape()?);
    let floats = x.dtype == DType::F32 && w.dtype == DType::F32;
    let served = floats && op.group == 1 && op.layout == Layout::Nhwc && xs.len() == 4;
    graph.constant(operand(node, 1)?)?;
    if !served || xs.contains(&0) || ws.contains(&0) {
        return None;
    }
    activation(&op.activation)?;
    Some((image_window(op, &ws, &xs)?, xs, ws))
}

/// The weights of a convolution that tiles can serve.
pub(crate) fn serves(graph: &Graph, node: &Node) -> Option<ValueId> {
    let Op::Conv(op) = &node.op else { return None };
    let (window, xs, ws) = served(graph, node, op)?;
    Tiling::of(&window, xs[0], xs[3], ws[0], Tile::Two, 1)?;
    operand(node, 1)
}

/// The tiling of a convolution for which tiles were chosen, or are expected to be at least a tenth
/// faster.
fn tiling(graph: &Graph, node: &Node, op: &Conv, demands: Demands<'_>) -> Option<Tiling> {
    let Demands { choices, threads, .. } = demands;
    let (window, xs, ws) = served(graph, node, op)?;
    let (images, channels, columns) = (xs[0], xs[3], ws[0]);
    match choices.of(operand(node, 1)?) {
        Some(Algorithm::Direct) => return None,
        Some(Algorithm::Tiles(tile)) => {
            return Tiling::of(&window, images, channels, columns, tile, threads);
        }
        None => {}
    }
    let [height, width] = window.output()?;
    let whole = columns.next_multiple_of(16);
    // What is read and what is computed overlap.
    let near = graph.constant_bytes() < NEAR_BYTES;
    let weight_cost = if near { NEAR_WEIGHT_COST } else { FAR_WEIGHT_COST };
    let bound = |multiply_adds: usize, weights: usize| multiply_adds.max(weights * weight_cost);
    let weights = 9 * channels * whole;
    let direct = bound(images * height * width * weights, weights);
    let cost = |tiling: &Tiling, tile: Tile| {
        let products = tiling.total() * tile.matrices();
        let transforms = channels * CHANNEL_COST + columns * COLUMN_COST;
        let weights = tile.matrices() * channels * whole;
        bound(tiling.total() * weights, weights) + products * transforms
    };
    let tilings = [Tile::Two, Tile::Four].map(|tile| {
        let tiling = Tiling::of(&window, images, channels, columns, tile, threads)?;
        Some((cost(&tiling, tile), tiling))
    });
    let (cost, best) = tilings.into_iter().flatten().min_by_key(|(cost, _)| *cost)?;
    (cost < direct / 10 * 9).then_some(best)
}

/// Bytes of scratch for all threads, where tiles serve the convolution.
pub(crate) fn scratch_bytes(
    graph: &Graph,
    node: &Node,
    demands: Demands<'_>,
) -> Option<Vec<usize>> {
    let Op::Conv(op) = &node.op else { return None };
    if demands.exact {
        return None;
    }
    let tiling = tiling(graph, node, op, demands)?;
    let apart = if tiling.is_shared() { 1 } else { demands.threads.min(tiling.blocks()) };
    Some(vec![4 * tiling.scratch_floats() * apart])
}

/// A convolution by tiles; `None` where the direct sum is expected to be as fast.
pub(crate) fn conv(builder: &mut Builder<'_>, node: &Node, op: &Conv) -> Choice {
    let demands = builder.demands;
    let tiling = if demands.exact { None } else { tiling(builder.graph, node, op, demands) };
    let Some(tiling) = tiling else { return Ok(None) };
    let id = operand(node, 1).expect("checked");
    let weights = builder.graph.constant(id).expect("checked").clone();
    let (tile, depth) = (tiling.tile(), builder.shape(operand(node, 0).expect("checked"))[3]);
    let kernel = match tile {
        Tile::Two => "conv-winograd-2x2-f32",
        Tile::Four => "conv-winograd-4x4-f32",
    };
    let Ok(values) = weights.as_slice::<f32>() else { return Ok(None) };
    let pack = || PackedWinograd::pack(values, weights.shape()[0], depth, tile);
    let (form, order) = (Algorithm::Tiles(tile).form(), (weights.shape()[0], depth, tile));
    let packed = builder.packs.get_or_load(id, form, &order, pack);
    let mut product = super::product::of_tiles(builder, node, op, packed.clone());
    product.work = tiling.total() * tile.matrices() * depth * product.columns;
    let scratch = builder.scratch(0);
    let run = Box::new(move |memory: &Memory<'_>| {
        tiles(memory, &product, &packed, &tiling, scratch);
        Ok(())
    });
    Ok(Some(Chosen::divided(kernel, run)))
}

fn tiles(
    memory: &Memory<'_>,
    product: &Product,
    weights: &PackedWinograd,
    tiling: &Tiling,
    scratch: Place,
) {
    let (blocks, each) = (tiling.blocks(), tiling.scratch_floats());
    let compute = |part: usize, range: Range<usize>, member: &dyn Member| {
        let epilogue = product.epilogue(memory);
        let pointer = memory.write::<f32>(product.y);
        let output = Output { pointer, row_stride: product.columns };
        // SAFETY: the tiling was made of the planned shapes; every part has its own scratch and
        // its own blocks.
        unsafe {
            winograd_f32(
                memory.isa,
                tiling,
                memory.read::<f32>(product.x),
                product.padding.as_ptr(),
                weights,
                &epilogue,
                &output,
                memory.write::<f32>(scratch).wrapping_add(part * each),
                range,
                product.next_bytes(),
                member,
            );
        }
    };
    if tiling.is_shared() {
        memory.watch.in_pieces(0..blocks, product.work, 1, |range| {
            let threads = memory.threads;
            threads.together(threads.count(), &|member| compute(0, range.clone(), member));
        });
        return;
    }
    let parts = memory.threads.count().min(blocks);
    memory.threads.run(parts, &|part| {
        let each = |range| compute(part, range, &Alone);
        memory.watch.in_pieces(share(blocks, part, parts), product.work / parts, 1, each);
    });
}

impl Member for team::Member<'_> {
    fn part(&self, end: usize) -> Range<usize> {
        team::Member::part(self, end)
    }

    fn meet(&self) {
        team::Member::meet(self);
    }
}
