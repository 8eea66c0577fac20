//! What moves or selects elements works on bytes.

use lepton_ir::ops::pad::PadMode;
use lepton_ir::ops::pool::PoolFunction;
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::{Dim, Graph, GraphError, Node, NodeId, Op, Users, ValueId};
use lepton_tensor::{DType, Tensor};

use super::products::Bytes;
use super::{Parameters, add_dequantiser, add_quantiser, dequantised, operand, quantiser};
use crate::pass::sole_producer;

/// `QuantizeLinear` of `DequantizeLinear` with the same parameters is the bytes themselves.
pub fn cancel(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some(p) = quantiser(graph, &node) else { continue };
        let Some((bytes, q)) = operand(&node, 0).and_then(|x| dequantised(graph, x)) else {
            continue;
        };
        let made = node.outputs[0].expect("a used result");
        let interface = graph.outputs().contains(&made)
            && (graph.producer(bytes).is_none() || graph.outputs().contains(&bytes));
        if p == q && !interface {
            graph.replace_uses(made, bytes);
            graph.remove_node(id);
            changes += 1;
        }
    }
    Ok(changes)
}

/// True if the operator only moves or selects elements of its first operand.
fn moves(op: &Op) -> bool {
    match op {
        Op::Transpose(_) | Op::Slice(_) | Op::Gather(_) | Op::Expand(_) | Op::Tile(_) => true,
        Op::Pool(pool) => pool.function == PoolFunction::Max,
        Op::Pad(_) => true,
        op => renames(op),
    }
}

/// True if the operator leaves the bytes where they are.
fn renames(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_))
}

/// Moves dequantisations below nodes that only move elements: below reshapes always, below others
/// where a quantisation follows.
pub fn lower(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    if !graph.nodes().any(|(_, node)| matches!(node.op, Op::DequantizeLinear(_))) {
        return Ok(0);
    }
    for id in graph.order() {
        if !graph.contains(id) {
            continue;
        }
        let users = graph.users();
        let node = graph.shared_node(id);
        if matches!(node.op, Op::Split(_)) {
            changes += split(graph, id, &node)?;
            continue;
        }
        let Some(made) = node.outputs.first().copied().flatten() else { continue };
        if node.outputs.len() != 1 || !(renames(&node.op) || is_quantised(graph, &users, made)) {
            continue;
        }
        if matches!(node.op, Op::Concat(_)) {
            changes += join(graph, id, &node)?;
            continue;
        }
        let source = operand(&node, 0).filter(|_| moves(&node.op));
        let behind = |x| match matches!(node.op, Op::Transpose(_)) {
            true => Bytes::directly_behind(graph, x),
            false => Bytes::behind(graph, x),
        };
        let Some(source) = source.and_then(behind) else { continue };
        if names_extents(graph, made, source.value) {
            continue;
        }
        let p = source.parameters;
        let bytes = source.reordered(graph)?;
        let Some(inputs) = byte_operands(graph, &node, bytes, p) else { continue };
        let moved = graph.add_node(node.name.clone(), node.op.clone(), &inputs)?[0];
        let real = add_dequantiser(graph, moved, p)?;
        graph.replace_uses(made, real);
        graph.remove_node(id);
        graph.sort()?;
        changes += 1;
    }
    Ok(changes)
}

/// True if extents of `made` that only a run tells are not those of its operand: they are named
/// after the node, and another in its place would name them anew.
fn names_extents(graph: &Graph, made: ValueId, operand: ValueId) -> bool {
    let told = |id| graph.fact(id).dims.iter().flat_map(Dim::symbols).collect::<Vec<_>>();
    let known = told(operand);
    told(made).iter().any(|name| name.starts_with('?') && !known.contains(name))
}

/// True if every use of the value is a quantisation.
fn is_quantised(graph: &Graph, users: &Users, value: ValueId) -> bool {
    let of = &users[value.index()];
    let quantises = |(user, _): &(NodeId, usize)| quantiser(graph, graph.node(*user)).is_some();
    !of.is_empty() && !graph.outputs().contains(&value) && of.iter().all(quantises)
}

/// The operands of a moving node over bytes; padding with zero becomes padding with the integer
/// that stands for zero.
fn byte_operands(
    graph: &mut Graph,
    node: &Node,
    bytes: ValueId,
    p: Parameters,
) -> Option<Vec<Option<ValueId>>> {
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(bytes);
    if let Op::Pad(pad) = &node.op
        && pad.mode == PadMode::Constant
    {
        let value = match operand(node, 2) {
            None => 0.0,
            Some(id) => *graph.constant(id)?.to_f64_vec().first()?,
        };
        if value != 0.0 {
            return None;
        }
        let zero = Tensor::from_i64_slice(p.dtype, Vec::new(), &[p.zero]).ok()?;
        inputs.resize(inputs.len().max(3), None);
        inputs[2] = Some(graph.add_constant("", zero));
    }
    Some(inputs)
}

/// `Concat` of dequantised tensors that is quantised: each operand is quantised by itself. Where
/// all are transposed alike, the result is transposed instead.
fn join(graph: &mut Graph, id: NodeId, node: &Node) -> Result<usize, GraphError> {
    let Op::Concat(op) = &node.op else { return Ok(0) };
    let made = node.outputs[0].expect("a used result");
    let users = graph.users();
    let [(user, 0)] = users[made.index()][..] else { return Ok(0) };
    let quantise = graph.node(user).clone();
    let Some(p) = quantiser(graph, &quantise) else { return Ok(0) };
    let behind = |x: &Option<ValueId>| Bytes::behind(graph, (*x)?);
    let operands: Option<Vec<Bytes>> = node.inputs.iter().map(behind).collect();
    let Some(operands) = operands.filter(|all| !all.is_empty()) else { return Ok(0) };
    let rank = graph.fact(made).rank();
    let axis = usize::try_from(if op.axis < 0 { op.axis + rank as i64 } else { op.axis });
    let shared = operands[0].permutation.clone();
    let shared = shared.filter(|p| operands.iter().all(|o| o.permutation.as_ref() == Some(p)));
    let mut bytes = Vec::with_capacity(operands.len());
    for operand in &operands {
        let value = match &shared {
            Some(_) => operand.value,
            None => operand.reordered(graph)?,
        };
        bytes.push(Some(requantised(graph, value, operand.parameters, p)?));
    }
    let mut op = op.clone();
    if let (Some(permutation), Ok(axis)) = (&shared, axis) {
        op.axis = permutation[axis] as i64;
    }
    let mut joined = graph.add_node(node.name.clone(), op, &bytes)?[0];
    if let Some(permutation) = shared {
        joined = graph.add_node("", Transpose { permutation }, &[Some(joined)])?[0];
    }
    graph.replace_uses(quantise.outputs[0].expect("a used result"), joined);
    graph.remove_node(user);
    graph.remove_node(id);
    graph.sort()?;
    Ok(1)
}

/// Bytes with other parameters.
fn requantised(
    graph: &mut Graph,
    bytes: ValueId,
    from: Parameters,
    to: Parameters,
) -> Result<ValueId, GraphError> {
    if from == to {
        return Ok(bytes);
    }
    let real = add_dequantiser(graph, bytes, from)?;
    add_quantiser(graph, real, to)
}

/// `Split` of a dequantised tensor some part of which is quantised: the bytes are split.
fn split(graph: &mut Graph, id: NodeId, node: &Node) -> Result<usize, GraphError> {
    let users = graph.users();
    let any = node.outputs.iter().flatten().any(|&part| is_quantised(graph, &users, part));
    let source = operand(node, 0).and_then(|x| Bytes::behind(graph, x)).filter(|_| any);
    let Some(source) = source else { return Ok(0) };
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(source.reordered(graph)?);
    let parts = graph.add_node(node.name.clone(), node.op.clone(), &inputs)?;
    for (old, part) in node.outputs.iter().zip(parts) {
        if let Some(old) = *old {
            let real = add_dequantiser(graph, part, source.parameters)?;
            graph.replace_uses(old, real);
        }
    }
    graph.remove_node(id);
    graph.sort()?;
    Ok(1)
}

/// Sums and products of dequantised bytes that are quantised, with a clamp between.
pub fn pairs(graph: &mut Graph) -> Result<usize, GraphError> {
    use lepton_ir::ops::binary::BinaryFunction as F;
    use lepton_ir::ops::lookup::IntegerBinary;
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some(y) = quantiser(graph, &node).filter(|p| p.dtype == DType::U8) else { continue };
        let users = graph.users();
        let Some(mut x) = operand(&node, 0) else { continue };
        let Some((_, mut inner)) = sole_producer(graph, &users, x) else { continue };
        let mut bounds = Some((0, 255));
        if let Op::Unary(activation) = &inner.op {
            bounds = super::products::clamps(activation, y);
            let Some(below) = operand(inner, 0) else { continue };
            x = below;
            let Some((_, next)) = sole_producer(graph, &users, x) else { continue };
            inner = next;
        }
        let (Op::Binary(op), Some((low, high))) = (&inner.op, bounds) else { continue };
        let function = op.function;
        let read = |index: usize| {
            let found = dequantised(graph, operand(inner, index)?)?;
            (found.1.dtype == DType::U8).then_some(found)
        };
        let (Some((a, p)), Some((b, q))) = (read(0), read(1)) else { continue };
        let (f, a_scale, b_scale) = match function {
            F::Add => (F::Add, p.scale / y.scale, q.scale / y.scale),
            F::Sub => (F::Add, p.scale / y.scale, -q.scale / y.scale),
            F::Mul => (F::Mul, p.scale, q.scale / y.scale),
            _ => continue,
        };
        let (a_zero, b_zero, zero) = (p.zero, q.zero, y.zero);
        let op = IntegerBinary { function: f, a_scale, a_zero, b_scale, b_zero, zero, low, high };
        graph.rewrite_node(id, op, &[Some(a), Some(b)])?;
        changes += 1;
    }
    if changes > 0 {
        // Extents that nobody knows have new names now.
        graph.refresh()?;
    }
    Ok(changes)
}
