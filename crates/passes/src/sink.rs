//! Transposes move from the operands of a node to its results, until they meet others and cancel
//! or reach the border of the graph.

use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::pad::Pad;
use lepton_ir::ops::reduce::Reduce;
use lepton_ir::ops::slice::Slice;
use lepton_ir::ops::walk::resolve_axis;
use lepton_ir::{Graph, GraphError, Node, NodeId, Op, Operands, Operator, ValueId};
use lepton_tensor::Tensor;

use crate::layout::{Sunk, added, transpose_of, transposed, untransposed};

/// A node whose operands are not transposed, and the permutation of each of its results.
struct Sinking {
    op: Op,
    inputs: Vec<Sunk>,
    permutation: Vec<usize>,
}

/// Moves transposes from the operands of nodes that work alike on every axis, or whose axes can
/// be renamed, to their results.
pub fn sink(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some(sinking) = sinking(graph, &node) else { continue };
        move_below(graph, id, &node, sinking)?;
        changes += 1;
    }
    Ok(changes)
}

fn move_below(
    graph: &mut Graph,
    id: NodeId,
    node: &Node,
    sinking: Sinking,
) -> Result<(), GraphError> {
    let operands = added(graph, sinking.inputs);
    let made = graph.add_node(node.name.clone(), sinking.op, &operands)?;
    for (old, new) in node.outputs.iter().zip(made) {
        let Some(old) = *old else { continue };
        let moves = sinking.permutation.iter().enumerate().any(|(i, &axis)| i != axis);
        let new = if moves { transposed(graph, new, sinking.permutation.clone())? } else { new };
        graph.replace_uses(old, new);
    }
    graph.remove_node(id);
    Ok(())
}

fn sinking(graph: &Graph, node: &Node) -> Option<Sinking> {
    match &node.op {
        Op::Unary(_) | Op::Binary(_) | Op::IntegerBinary(_) | Op::Where(_) => {
            broadcast(graph, node)
        }
        Op::Concat(concat) => {
            let mut sinking = broadcast(graph, node)?;
            let mut concat = concat.clone();
            let axis = resolve_axis(concat.axis, sinking.permutation.len()).ok()?;
            concat.axis = sinking.permutation[axis] as i64;
            sinking.op = concat.into();
            Some(sinking)
        }
        Op::Lookup(_) | Op::Clip(_) | Op::Cast(_) | Op::Not(_) => first(graph, node),
        // Scales of blocks have the axes of x.
        Op::QuantizeLinear(_) | Op::DequantizeLinear(_) if in_blocks(graph, node) => None,
        Op::QuantizeLinear(op) => {
            let (mut op, mut sinking) = (op.clone(), first(graph, node)?);
            op.axis = renamed(&sinking, op.axis)?;
            sinking.op = op.into();
            Some(sinking)
        }
        Op::DequantizeLinear(op) => {
            let (mut op, mut sinking) = (op.clone(), first(graph, node)?);
            op.axis = renamed(&sinking, op.axis)?;
            sinking.op = op.into();
            Some(sinking)
        }
        Op::Split(op) => {
            let (mut op, mut sinking) = (op.clone(), first(graph, node)?);
            op.axis = renamed(&sinking, op.axis)?;
            sinking.op = op.into();
            Some(sinking)
        }
        Op::Slice(Slice {}) => with_axes(graph, node, 3, false),
        Op::Pad(Pad { .. }) => with_axes(graph, node, 3, true),
        Op::Reduce(op) => reduced(graph, node, op),
        Op::Resize(_) => resized(graph, node),
        Op::Squeeze(_) => squeezed(graph, node),
        Op::Unsqueeze(_) => unsqueezed(graph, node),
        _ => None,
    }
}

/// True if the scales of a quantisation have more axes than one.
fn in_blocks(graph: &Graph, node: &Node) -> bool {
    node.inputs.get(1).copied().flatten().is_some_and(|scale| graph.fact(scale).rank() > 1)
}

/// The axis of the operand that is not transposed; axes that do not exist stay what they are.
fn renamed(sinking: &Sinking, axis: i64) -> Option<i64> {
    match resolve_axis(axis, sinking.permutation.len()) {
        Ok(axis) => Some(sinking.permutation[axis] as i64),
        Err(_) => Some(axis),
    }
}

fn value(input: Option<ValueId>) -> Sunk {
    input.map_or(Sunk::Absent, Sunk::Value)
}

/// Operands after the first have no axes in common with it.
fn first(graph: &Graph, node: &Node) -> Option<Sinking> {
    let (permutation, source) = transpose_of(graph, node.inputs[0]?)?;
    let rest = node.inputs[1..].iter().copied().map(value);
    let inputs = std::iter::once(Sunk::Value(source)).chain(rest).collect();
    Some(Sinking { op: node.op.clone(), inputs, permutation })
}

/// All operands that have axes share one transpose; the others are constants.
fn broadcast(graph: &Graph, node: &Node) -> Option<Sinking> {
    let values: Vec<ValueId> = node.inputs.iter().copied().collect::<Option<_>>()?;
    let mut shared: Option<Vec<usize>> = None;
    for &value in &values {
        if let Some((permutation, _)) = transpose_of(graph, value) {
            if shared.as_ref().is_some_and(|p| *p != permutation) {
                return None;
            }
            shared = Some(permutation);
        }
    }
    let permutation = shared?;
    let rank = permutation.len();
    let mut inputs = Vec::with_capacity(values.len());
    for &value in &values {
        inputs.push(if let Some((_, source)) = transpose_of(graph, value) {
            Sunk::Value(source)
        } else if graph.fact(value).rank() == 0 {
            Sunk::Value(value)
        } else {
            Sunk::Constant(untransposed(graph.constant(value)?, &permutation, rank)?)
        });
    }
    Some(Sinking { op: node.op.clone(), inputs, permutation })
}

/// The known axes in operand `position`, in the operand that is not transposed. Where they are
/// absent they are the leading ones, as many as bounds are given, or all.
fn axes(graph: &Graph, node: &Node, position: usize, rank: usize, all: bool) -> Option<Vec<usize>> {
    let given = node.inputs.get(position).copied().flatten();
    let list: Vec<i64> = match given {
        Some(id) => graph.fact(id).known_integers()?,
        None if all => (0..rank as i64).collect(),
        None => (0..graph.fact(node.inputs[1]?).dims.first()?.as_known()?).collect(),
    };
    list.into_iter().map(|axis| resolve_axis(axis, rank).ok()).collect()
}

/// A node whose axes are the operand in `position`.
fn with_axes(graph: &Graph, node: &Node, position: usize, all: bool) -> Option<Sinking> {
    let mut sinking = first(graph, node)?;
    let axes = axes(graph, node, position, sinking.permutation.len(), all)?;
    let axes: Vec<i64> = axes.iter().map(|&axis| sinking.permutation[axis] as i64).collect();
    while sinking.inputs.len() <= position {
        sinking.inputs.push(Sunk::Absent);
    }
    sinking.inputs[position] = Sunk::Constant(Tensor::vector(&axes));
    Some(sinking)
}

/// A reduction; without the reduced axes, the others are permuted among themselves.
fn reduced(graph: &Graph, node: &Node, op: &Reduce) -> Option<Sinking> {
    let mut sinking = first(graph, node)?;
    let permutation = &sinking.permutation;
    let axes = node.inputs.get(1).copied().flatten().map(|id| graph.fact(id));
    let axes = op.axes_of(axes, permutation.len()).ok()?;
    let sources: Vec<usize> = axes.iter().map(|&axis| permutation[axis]).collect();
    if !op.keep_dims {
        sinking.permutation = without(permutation, &sources);
    }
    let list: Vec<i64> = sources.iter().map(|&axis| axis as i64).collect();
    if !list.is_empty() {
        sinking.inputs.truncate(1);
        sinking.inputs.push(Sunk::Constant(Tensor::vector(&list)));
    }
    Some(sinking)
}

/// A resampling to known factors or extents of each axis, without a region to cut out.
fn resized(graph: &Graph, node: &Node) -> Option<Sinking> {
    let mut sinking = first(graph, node)?;
    let rank = sinking.permutation.len();
    for (position, input) in node.inputs.iter().enumerate().skip(1) {
        let Some(id) = *input else { continue };
        let list = graph.constant(id)?;
        if list.is_empty() {
            continue;
        }
        if position == 1 || list.shape() != [rank] {
            return None;
        }
        // The factor of an axis of the result is that of the axis it came from.
        let mut sources = vec![0; rank];
        sinking.permutation.iter().enumerate().for_each(|(i, &axis)| sources[axis] = i as i64);
        let sources = Tensor::vector(&sources);
        let picked = Gather { axis: 0 }.eval(Operands(&[Some(list), Some(&sources)])).ok()?;
        sinking.inputs[position] = Sunk::Constant(picked.into_iter().next()?);
    }
    Some(sinking)
}

/// The permutation of the axes that remain without some of the operand.
fn without(permutation: &[usize], removed: &[usize]) -> Vec<usize> {
    let order: Vec<usize> =
        permutation.iter().copied().filter(|axis| !removed.contains(axis)).collect();
    let rank_of = |axis: &usize| order.iter().filter(|other| *other < axis).count();
    order.iter().map(rank_of).collect()
}

/// The removal of given axes.
fn squeezed(graph: &Graph, node: &Node) -> Option<Sinking> {
    let mut sinking = first(graph, node)?;
    let list = graph.fact(node.inputs.get(1).copied().flatten()?).known_integers()?;
    let rank = sinking.permutation.len();
    let sources: Option<Vec<usize>> = list
        .into_iter()
        .map(|axis| Some(sinking.permutation[resolve_axis(axis, rank).ok()?]))
        .collect();
    let sources = sources?;
    sinking.permutation = without(&sinking.permutation, &sources);
    let list: Vec<i64> = sources.iter().map(|&axis| axis as i64).collect();
    sinking.inputs[1] = Sunk::Constant(Tensor::vector(&list));
    Some(sinking)
}

/// The insertion of axes, which are inserted at the same places of the operand.
fn unsqueezed(graph: &Graph, node: &Node) -> Option<Sinking> {
    let mut sinking = first(graph, node)?;
    let list = graph.fact(node.inputs.get(1).copied().flatten()?).known_integers()?;
    let rank = sinking.permutation.len() + list.len();
    let inserted: Option<Vec<usize>> =
        list.into_iter().map(|axis| resolve_axis(axis, rank).ok()).collect();
    let inserted = inserted?;
    let others: Vec<usize> = (0..rank).filter(|axis| !inserted.contains(axis)).collect();
    let mut permutation: Vec<usize> = (0..rank).collect();
    for (i, &axis) in others.iter().enumerate() {
        permutation[axis] = others[sinking.permutation[i]];
    }
    sinking.permutation = permutation;
    Some(sinking)
}
