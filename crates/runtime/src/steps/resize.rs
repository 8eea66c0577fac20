//! Steps that resample images, one axis after the other.

use lepton_ir::ops::resize::Resize;
use lepton_ir::{Graph, Node, Operands};
use lepton_kernels::resample::{Taps, resample_f32};
use lepton_tensor::DType;

use super::product::operand;
use super::{Choice, Chosen, by_size, over_rows};
use crate::place::{Memory, Place};
use crate::plan::{Builder, Run};

/// One axis of `[outer, extent, inner]`.
struct Axis {
    outer: usize,
    extent: usize,
    inner: usize,
    taps: Taps,
}

impl Axis {
    fn count_after(&self) -> usize {
        self.outer * self.taps.len() * self.inner
    }
}

/// The axes that change, the one that makes the least first; each reads what the one before made.
fn axes(graph: &Graph, node: &Node, op: &Resize) -> Option<Vec<Axis>> {
    let facts = graph.input_facts(node);
    let x = graph.fact(operand(node, 0)?).shape()?;
    let y = graph.fact(node.outputs[0]?).shape()?;
    if x.contains(&0) || y.contains(&0) {
        return None;
    }
    let tables = op.tables(Operands(&facts), &x, &y)?;
    let same = |axis: usize| {
        let kept = |(i, taps): (usize, &Vec<(usize, f64)>)| taps[..] == [(i, 1.0)];
        x[axis] == y[axis] && tables[axis].iter().enumerate().all(kept)
    };
    let mut order: Vec<usize> = (0..x.len()).filter(|&axis| !same(axis)).collect();
    order.sort_by(|&a, &b| (y[a] * x[b]).cmp(&(y[b] * x[a])));
    let mut shape = x;
    let made = order.into_iter().map(|axis| {
        let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        let taps = Taps::new(tables[axis].iter().map(Vec::as_slice));
        let made = Axis { outer, extent: shape[axis], inner, taps };
        shape[axis] = y[axis];
        made
    });
    Some(made.collect())
}

/// Room for what lies between two axes: two blocks that take turns.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node, op: &Resize) -> Vec<usize> {
    let size = operand(node, 0).map_or(0, |x| graph.fact(x).dtype.size());
    let axes = axes(graph, node, op).unwrap_or_default();
    let between = axes.iter().rev().skip(1).map(Axis::count_after).max().unwrap_or(0);
    vec![between * size; axes.len().saturating_sub(1).min(2)]
}

/// Resampling whose positions are known when it is planned.
pub(crate) fn resize(builder: &mut Builder<'_>, node: &Node, op: &Resize) -> Choice {
    let Some(axes) = axes(builder.graph, node, op).filter(|axes| !axes.is_empty()) else {
        return Ok(None);
    };
    let x = operand(node, 0).expect("checked");
    let dtype = builder.graph.fact(x).dtype;
    let last = axes.len() - 1;
    let places: Vec<[Place; 2]> = (0..axes.len())
        .map(|i| {
            let from = if i == 0 { builder.place(x) } else { builder.scratch((i - 1) % 2) };
            let y = node.outputs[0].expect("checked");
            [from, if i == last { builder.place(y) } else { builder.scratch(i % 2) }]
        })
        .collect();
    if axes.iter().all(|axis| axis.taps.copies().is_some()) {
        let run: Run = by_size!(dtype.size(), T => Box::new(move |memory: &Memory<'_>| {
            for (axis, [from, to]) in axes.iter().zip(&places) {
                // SAFETY: the plan holds these extents at the places, which are apart.
                let (from, to) = unsafe {
                    (memory.slice::<T>(*from, axis.outer * axis.extent * axis.inner),
                     memory.slice_mut::<T>(*to, 0, axis.count_after()))
                };
                pick_rows(axis, from, to);
            }
            Ok(())
        }));
        return Ok(Some(Chosen::new("resize-nearest", run)));
    }
    if dtype != DType::F32 {
        return Ok(None);
    }
    let run = Box::new(move |memory: &Memory<'_>| {
        for (axis, [from, to]) in axes.iter().zip(&places) {
            let each = axis.taps.len() * axis.inner;
            over_rows(memory, axis.outer, 4 * axis.count_after(), |range| {
                let image = axis.extent * axis.inner;
                // SAFETY: the plan holds these extents at the places, which are apart; ranges are
                // disjoint.
                let (x, y) = unsafe {
                    (
                        memory.slice::<f32>(*from, axis.outer * image),
                        memory.slice_mut::<f32>(*to, range.start * each, range.len() * each),
                    )
                };
                let x = &x[range.start * image..range.end * image];
                resample_f32(memory.isa, x, axis.extent, axis.inner, &axis.taps, y);
            });
        }
        Ok(())
    });
    Ok(Some(Chosen::divided("resize-f32", run)))
}

/// Rows of `inner` elements, each a copy of one.
fn pick_rows<T: Copy>(axis: &Axis, from: &[T], to: &mut [T]) {
    let Axis { extent, inner, taps, .. } = axis;
    let rows = taps.copies().expect("checked");
    let images = from.chunks_exact(extent * inner);
    for (x, y) in images.zip(to.chunks_exact_mut(rows.len() * inner)) {
        for (&k, row) in rows.iter().zip(y.chunks_exact_mut(*inner)) {
            row.copy_from_slice(&x[k * inner..(k + 1) * inner]);
        }
    }
}
