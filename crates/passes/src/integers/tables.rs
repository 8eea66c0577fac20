//! A chain of functions of one element between bytes and bytes is a table of 256 entries.

use lepton_ir::ops::lookup::Lookup;
use lepton_ir::{Graph, GraphError, Node, NodeId, Op, Operands, Users, ValueId};
use lepton_tensor::{DType, Tensor};

use super::{dequantised, operand, quantiser};
use crate::pass::sole_producer;

/// The operand that varies, if every element of the result depends on one element of it and on
/// scalars.
fn varying(graph: &Graph, node: &Node) -> Option<usize> {
    if !matches!(node.op, Op::Unary(_) | Op::Binary(_) | Op::Clip(_)) {
        return None;
    }
    let scalar = |id: &Option<ValueId>| {
        id.is_none_or(|id| graph.constant(id).is_some_and(|c| c.len() == 1 && c.rank() <= 1))
    };
    let open: Vec<usize> = (0..node.inputs.len()).filter(|&i| !scalar(&node.inputs[i])).collect();
    if open.len() == 1 { Some(open[0]) } else { None }
}

/// Replaces the chains.
pub fn form(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        if let Some((bytes, table)) = gathered(graph, &node) {
            graph.rewrite_node(id, Lookup {}, &[Some(bytes), Some(table)])?;
            changes += 1;
            continue;
        }
        let Some(y) = quantiser(graph, &node).filter(|p| p.dtype == DType::U8) else { continue };
        let users = graph.users();
        let Some((chain, source)) = chain(graph, &users, &node) else { continue };
        let Some((bytes, p)) = dequantised(graph, source) else { continue };
        if chain.is_empty() && p == y {
            continue;
        }
        let value = |byte: u8| match p.dtype {
            DType::I8 => i64::from(byte as i8),
            _ => i64::from(byte),
        };
        let reals: Vec<f32> =
            (0..=255).map(|byte| (value(byte) - p.zero) as f32 * p.scale).collect();
        let Some(table) = evaluated(graph, &chain, &node, Tensor::vector(&reals)) else {
            continue;
        };
        let table = graph.add_constant("", table);
        graph.rewrite_node(id, Lookup {}, &[Some(bytes), Some(table)])?;
        changes += 1;
    }
    Ok(changes)
}

/// The bytes and the table of a `Gather` that takes an entry for every byte.
fn gathered(graph: &Graph, node: &Node) -> Option<(ValueId, ValueId)> {
    let Op::Gather(_) = &node.op else { return None };
    let (table, places) = (operand(node, 0)?, operand(node, 1)?);
    let entries = graph.constant(table).filter(|t| t.dtype() == DType::U8)?;
    let (_, cast) = graph.producer(places)?;
    let bytes = operand(cast, 0).filter(|_| matches!(cast.op, Op::Cast(_)))?;
    let fits = entries.shape() == [256] && graph.fact(bytes).dtype == DType::U8;
    fits.then_some((bytes, table))
}

/// Tables of tables, and sums and products of bytes that both follow from one byte (a value times
/// its sigmoid), become one table.
pub fn compose(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        if !graph.contains(id) {
            continue;
        }
        let node = graph.shared_node(id);
        let inner = |index: usize| Some(through_table(graph, operand(&node, index)?));
        let operands = match &node.op {
            Op::IntegerBinary(_) => inner(0).zip(inner(1)).map(|(a, b)| [Some(a), Some(b)]),
            Op::Lookup(_) => inner(0).filter(|(_, table)| table.is_some()).map(|a| [Some(a), None]),
            _ => None,
        };
        let Some([Some((source, a)), other]) = operands else { continue };
        if other.as_ref().is_some_and(|(from, b)| *from != source || a.is_none() && b.is_none()) {
            continue;
        }
        let every: Vec<u8> = (0..=255).collect();
        let bytes = |table: Option<Tensor>| table.unwrap_or_else(|| Tensor::vector(&every));
        let first = bytes(a);
        let second = match other {
            Some((_, b)) => Some(bytes(b)),
            None => operand(&node, 1).and_then(|table| graph.constant(table)).cloned(),
        };
        let operands = [Some(&first), second.as_ref()];
        let Ok(mut made) = node.op.operator().eval(Operands(&operands)) else { continue };
        let Some(table) = made.pop() else { continue };
        let table = graph.add_constant("", table);
        graph.rewrite_node(id, Lookup {}, &[Some(source), Some(table)])?;
        graph.remove_dead();
        changes += 1;
    }
    Ok(changes)
}

/// The bytes a table of bytes is looked up with, and the table; other bytes are their own.
fn through_table(graph: &Graph, value: ValueId) -> (ValueId, Option<Tensor>) {
    let looked_up = || {
        let (_, node) = graph.producer(value)?;
        let Op::Lookup(_) = &node.op else { return None };
        Some((operand(node, 0)?, Some(graph.constant(operand(node, 1)?)?.clone())))
    };
    looked_up().unwrap_or((value, None))
}

/// The nodes above a quantisation that compute element by element, first to run last, and the
/// value the chain begins with.
fn chain(graph: &Graph, users: &Users, quantise: &Node) -> Option<(Vec<NodeId>, ValueId)> {
    let mut nodes = Vec::new();
    let mut value = operand(quantise, 0)?;
    while dequantised(graph, value).is_none() {
        let (id, node) = sole_producer(graph, users, value)?;
        value = node.inputs[varying(graph, node)?]?;
        nodes.push(id);
    }
    Some((nodes, value))
}

fn evaluated(
    graph: &Graph,
    chain: &[NodeId],
    quantise: &Node,
    mut values: Tensor,
) -> Option<Tensor> {
    for &id in chain.iter().rev() {
        let node = graph.node(id);
        let open = varying(graph, node)?;
        values = apply(graph, node, open, &values)?;
    }
    apply(graph, quantise, 0, &values)
}

fn apply(graph: &Graph, node: &Node, open: usize, values: &Tensor) -> Option<Tensor> {
    let mut operands = Vec::with_capacity(node.inputs.len());
    for (position, input) in node.inputs.iter().enumerate() {
        operands.push(match input {
            _ if position == open => Some(values),
            None => None,
            Some(id) => Some(graph.constant(*id)?),
        });
    }
    node.op.operator().eval(Operands(&operands)).ok()?.pop()
}
