//! Steps that copy parts: slices, padding, concatenation, splitting, repetition, gathering.

use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::pad::{Pad, PadMode};
use lepton_ir::ops::slice::Slice;
use lepton_ir::ops::walk::resolve_axis;
use lepton_ir::{Node, Operands, ValueId};
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::transpose::{copy_between, gather_rows, rearrange};
use lepton_tensor::{DType, row_major_strides};

use super::product::operand;
use super::{Choice, Chosen, ELEMENT_WORK, by_size, over_rows};
use crate::place::{Memory, Place};
use crate::plan::{Builder, Run};

/// Elements copied from strided places of one value to strided places of another.
struct Copy {
    walk: Broadcast<2>,
    from: (Place, usize),
    to: (Place, usize),
}

fn signed_strides(shape: &[usize]) -> Vec<isize> {
    row_major_strides(shape).into_iter().map(|stride| stride as isize).collect()
}

/// A copy of `shape` elements from `first` elements into `x` on to `second` elements into `y`.
fn copy(
    builder: &Builder<'_>,
    (x, y): (ValueId, ValueId),
    shape: &[usize],
    starts: [usize; 2],
) -> Option<Copy> {
    let strides = [x, y].map(|id| signed_strides(&builder.shape(id)));
    let walk = Broadcast::strided(shape, starts, [&strides[0], &strides[1]])?;
    let whole = |id| (builder.place(id), builder.count(id));
    Some(Copy { walk, from: whole(x), to: whole(y) })
}

fn copies(size: usize, copies: Vec<Copy>) -> Run {
    by_size!(size, T => Box::new(move |memory: &Memory<'_>| {
        for part in &copies {
            // SAFETY: the plan holds these counts of elements of this size at both places, which
            // are apart.
            let (input, output) = unsafe {
                (memory.slice::<T>(part.from.0, part.from.1),
                 memory.slice_mut::<T>(part.to.0, 0, part.to.1))
            };
            copy_between(&part.walk, input, output);
        }
        Ok(())
    }))
}

/// A step that reads one operand in another order.
fn rearranged(builder: &Builder<'_>, node: &Node, walk: Broadcast<1>) -> Option<Run> {
    let (x, y) = (node.inputs[0]?, node.outputs[0]?);
    let (from, to) = (builder.place(x), builder.place(y));
    let (read, count) = (builder.count(x), builder.count(y));
    Some(by_size!(builder.graph.fact(x).dtype.size(), T => Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, count, count * ELEMENT_WORK, |range| {
            // SAFETY: the plan holds these counts of elements of this size at both places, which
            // are apart; ranges are disjoint.
            let (input, output) = unsafe {
                (memory.slice::<T>(from, read),
                 memory.slice_mut::<T>(to, range.start, range.len()))
            };
            rearrange(memory.isa, &walk, range, input, output);
        });
        Ok(())
    })))
}

fn chosen(kernel: &'static str, run: Option<Run>) -> Choice {
    Ok(run.map(|run| Chosen::new(kernel, run)))
}

/// Part of a tensor, with steps and backwards.
pub(crate) fn slice(builder: &mut Builder<'_>, node: &Node, op: &Slice) -> Choice {
    let run = || {
        let facts = builder.graph.input_facts(node);
        let places = op.first_and_step(Operands(&facts)).ok()??;
        let strides = signed_strides(&builder.shape(node.inputs[0]?));
        let shape = builder.shape(node.outputs[0]?);
        let steps: Vec<isize> =
            places.iter().zip(&strides).map(|(place, s)| place.1 as isize * s).collect();
        let at = |(place, s): (&(i64, i64), &isize)| place.0 as isize * s;
        let start: isize = places.iter().zip(&strides).map(at).sum();
        let start = if shape.contains(&0) { 0 } else { usize::try_from(start).ok()? };
        rearranged(builder, node, Broadcast::strided(&shape, [start], [&steps])?)
    };
    chosen("slice", run())
}

/// A tensor repeated along new axes or axes of extent 1.
pub(crate) fn expand(builder: &mut Builder<'_>, node: &Node) -> Choice {
    let run = || {
        let (from, to) = (builder.shape(node.inputs[0]?), builder.shape(node.outputs[0]?));
        rearranged(builder, node, Broadcast::dense(&to, [&from])?)
    };
    chosen("expand", run())
}

/// A tensor repeated as a whole along each axis.
pub(crate) fn tile(builder: &mut Builder<'_>, node: &Node) -> Choice {
    let run = || {
        let (from, to) = (builder.shape(node.inputs[0]?), builder.shape(node.outputs[0]?));
        let mut shape = Vec::new();
        let mut strides = Vec::new();
        for (axis, stride) in signed_strides(&from).into_iter().enumerate() {
            shape.extend([to[axis].checked_div(from[axis])?, from[axis]]);
            strides.extend([0, stride]);
        }
        rearranged(builder, node, Broadcast::strided(&shape, [0], [&strides])?)
    };
    chosen("tile", run())
}

/// Several tensors one after the other.
pub(crate) fn concat(builder: &mut Builder<'_>, node: &Node, axis: i64) -> Choice {
    let Some(y) = node.outputs[0] else { return Ok(None) };
    let shape = builder.shape(y);
    let Ok(axis) = resolve_axis(axis, shape.len()) else { return Ok(None) };
    let inner: usize = shape[axis + 1..].iter().product();
    let mut parts = Vec::new();
    let mut at = 0;
    for x in node.inputs.iter().copied().flatten() {
        let part = builder.shape(x);
        let Some(copy) = copy(builder, (x, y), &part, [0, at * inner]) else { return Ok(None) };
        parts.push(copy);
        at += part[axis];
    }
    chosen("concat", Some(copies(builder.graph.fact(y).dtype.size(), parts)))
}

/// Parts of a tensor along one axis.
pub(crate) fn split(builder: &mut Builder<'_>, node: &Node, axis: i64) -> Choice {
    let Some(x) = node.inputs[0] else { return Ok(None) };
    let shape = builder.shape(x);
    let Ok(axis) = resolve_axis(axis, shape.len()) else { return Ok(None) };
    // The place of a part follows from the parts before it, so all must be wanted.
    let Some(outputs) = node.outputs.iter().copied().collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let inner: usize = shape[axis + 1..].iter().product();
    let mut parts = Vec::new();
    let mut at = 0;
    for y in outputs {
        let part = builder.shape(y);
        let Some(copy) = copy(builder, (x, y), &part, [at * inner, 0]) else { return Ok(None) };
        parts.push(copy);
        at += part[axis];
    }
    chosen("split", Some(copies(builder.graph.fact(x).dtype.size(), parts)))
}

/// A tensor with a border of one value, or without some of its border.
pub(crate) fn pad(builder: &mut Builder<'_>, node: &Node, op: &Pad) -> Choice {
    if op.mode != PadMode::Constant {
        let run = super::borders::pad(builder, node, op);
        return Ok(run.map(|run| Chosen::divided("pad-borders", run)));
    }
    chosen("pad", pad_run(builder, node, op))
}

fn pad_run(builder: &Builder<'_>, node: &Node, op: &Pad) -> Option<Run> {
    let (x, y) = (node.inputs[0]?, node.outputs[0]?);
    let facts = builder.graph.input_facts(node);
    let before = op.added_before(Operands(&facts)).ok()??;
    let (from, to) = (builder.shape(x), builder.shape(y));
    let (from_strides, to_strides) = (row_major_strides(&from), row_major_strides(&to));
    let (mut inside, mut starts) = (Vec::new(), [0, 0]);
    for (axis, &before) in before.iter().enumerate() {
        let (removed, added) = ((-before).max(0) as usize, before.max(0) as usize);
        let kept = from[axis].saturating_sub(removed);
        inside.push(kept.min(to[axis].saturating_sub(added)));
        starts[0] += removed * from_strides[axis];
        starts[1] += added * to_strides[axis];
    }
    let copy = copy(builder, (x, y), &inside, starts)?;
    let value = operand(node, 2).map(|id| builder.place(id));
    Some(by_size!(builder.graph.fact(x).dtype.size(), T => Box::new(move |memory: &Memory<'_>| {
        // SAFETY: the plan holds these counts of elements of this size at the places, which are
        // apart, and one element of padding.
        let (input, output, value) = unsafe {
            (memory.slice::<T>(copy.from.0, copy.from.1),
             memory.slice_mut::<T>(copy.to.0, 0, copy.to.1),
             value.map_or(0, |place| memory.slice::<T>(place, 1)[0]))
        };
        output.fill(value);
        copy_between(&copy.walk, input, output);
        Ok(())
    })))
}

/// Slices at positions that are data.
pub(crate) fn gather(builder: &mut Builder<'_>, node: &Node, op: &Gather) -> Choice {
    let (Some(x), Some(indices), Some(y)) = (node.inputs[0], node.inputs[1], node.outputs[0])
    else {
        return Ok(None);
    };
    let shape = builder.shape(x);
    let Ok(axis) = resolve_axis(op.axis, shape.len()) else { return Ok(None) };
    let kind = builder.graph.fact(indices).dtype;
    if !matches!(kind, DType::I64 | DType::I32) || builder.count(y) == 0 {
        return Ok(None);
    }
    let size = builder.graph.fact(x).dtype.size();
    let length = shape[axis + 1..].iter().product::<usize>() * size;
    let (extent, picked) = (shape[axis], builder.count(indices));
    let outer: usize = shape[..axis].iter().product();
    if picked == 1
        && length == size
        && let Some(run) = super::indexed::column(builder, node, [outer, extent])
    {
        return Ok(Some(Chosen::new("gather", run)));
    }
    let places = [builder.place(x), builder.place(indices), builder.place(y)];
    let label = builder.graph.node_label(node);
    let run = Box::new(move |memory: &Memory<'_>| {
        for o in 0..outer {
            // SAFETY: the plan holds `outer` tables, the indices and `outer` results there.
            let done = unsafe {
                let table = memory.slice::<u8>(places[0], outer * extent * length);
                let table = &table[o * extent * length..][..extent * length];
                let output = memory.slice_mut(places[2], o * picked * length, picked * length);
                if kind == DType::I64 {
                    gather_rows(length, memory.slice::<i64>(places[1], picked), table, output)
                } else {
                    gather_rows(length, memory.slice::<i32>(places[1], picked), table, output)
                }
            };
            done.map_err(|position| crate::RuntimeError::Data {
                node: label.clone(),
                why: format!("index number {position} is outside an axis of {extent}"),
            })?;
        }
        Ok(())
    });
    Ok(Some(Chosen::new("gather", run)))
}
