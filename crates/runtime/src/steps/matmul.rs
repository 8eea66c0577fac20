//! Steps of matrix products of two activations.

use lepton_ir::{Graph, Node};
use lepton_kernels::activations::{gemm_f32_scratch, pack_f32, scratch_f32};
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{EpilogueF32, Output};
use lepton_kernels::gemm::Input;

use super::parts::PIECE_ROWS;
use super::product::operand;
use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::Memory;
use crate::plan::Builder;

/// Extents of a batched product of two activations with equal leading axes.
struct Batched {
    count: usize,
    m: usize,
    k: usize,
    n: usize,
}

fn batched(graph: &Graph, node: &Node) -> Option<Batched> {
    let shape = |index: usize| graph.fact(operand(node, index)?).shape();
    let (a, b) = (shape(0)?, shape(1)?);
    let rank = a.len();
    if rank < 2 || b.len() != rank || a[..rank - 2] != b[..rank - 2] {
        return None;
    }
    let count = a[..rank - 2].iter().product();
    Some(Batched { count, m: a[rank - 2], k: a[rank - 1], n: b[rank - 1] })
}

/// Room for one packed right operand per matrix of the batch.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node) -> Vec<usize> {
    batched(graph, node).map_or_else(Vec::new, |b| vec![4 * b.count * scratch_f32(b.k, b.n)])
}

/// A batched product of two activations.
pub(crate) fn matmul(builder: &mut Builder<'_>, node: &Node) -> Choice {
    let (Some(a), Some(b), Some(y)) = (node.inputs[0], node.inputs[1], node.outputs[0]) else {
        return Ok(None);
    };
    let Some(sizes) = batched(builder.graph, node) else { return Ok(None) };
    let float = is_f32(builder, node, 0) && is_f32(builder, node, 1);
    if !float || builder.count(y) == 0 || sizes.k == 0 {
        return Ok(None);
    }
    let Batched { count, m, k, n } = sizes;
    let places = [builder.place(a), builder.place(b), builder.place(y), builder.scratch(0)];
    let rows = Indirection::strided(k);
    let each = scratch_f32(k, n);
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, count, count * m * n * k, |range| {
            for i in range {
                // SAFETY: the plan holds these extents at the places; matrices of the batch are
                // disjoint.
                unsafe {
                    let scratch = memory.slice_mut::<f32>(places[3], i * each, each);
                    let right = memory.read::<f32>(places[1]).add(i * k * n);
                    pack_f32(memory.isa, right, n, false, k, n, scratch);
                    let base = memory.read::<f32>(places[0]).add(i * m * k);
                    let input = Input { base, rows: &rows, padding: base };
                    let pointer = memory.write::<f32>(places[2]).add(i * m * n);
                    let output = Output { pointer, row_stride: n };
                    let epilogue = EpilogueF32::default();
                    let (isa, all) = (memory.isa, 0..n);
                    memory.watch.in_pieces(0..m, m * n * k, PIECE_ROWS, |rows| {
                        let (input, all) = (&input, all.clone());
                        gemm_f32_scratch(isa, input, scratch, k, n, &epilogue, &output, rows, all);
                    });
                }
            }
        });
        Ok(())
    });
    Ok(Some(Chosen::divided("matmul-f32", run)))
}
