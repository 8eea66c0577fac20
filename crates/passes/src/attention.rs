//! Attention, which exporters write as products, sums and a softmax between transposes, becomes
//! one operator that reads and writes heads where they lie.

use lepton_ir::ops::attention::Attention;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::{Graph, GraphError, Op, Users, ValueId};
use lepton_tensor::DType;

use crate::pass::sole_producer;

/// The operand of a transpose of four axes and where its axes go; through two of them if need be.
fn transposed(graph: &Graph, value: ValueId) -> Option<(ValueId, Vec<usize>)> {
    let one = |value: ValueId| {
        let (_, node) = graph.producer(value)?;
        let Op::Transpose(op) = &node.op else { return None };
        let x = node.inputs[0]?;
        (op.permutation.len() == 4).then(|| (x, op.permutation.clone()))
    };
    let (x, outer) = one(value)?;
    Some(match one(x) {
        Some((inner_x, inner)) => (inner_x, outer.iter().map(|&axis| inner[axis]).collect()),
        None => (x, outer),
    })
}

/// The operand whose heads are brought before its rows by `permutation`.
fn heads(graph: &Graph, value: ValueId, permutation: [usize; 4]) -> Option<ValueId> {
    let (x, found) = transposed(graph, value)?;
    (found == permutation && graph.fact(x).dtype == DType::F32).then_some(x)
}

/// The operands of an inner node of the pattern.
fn inner<'a>(
    graph: &'a Graph,
    users: &Users,
    value: ValueId,
    fits: impl Fn(&Op) -> bool,
) -> Option<&'a [Option<ValueId>]> {
    let (_, node) = sole_producer(graph, users, value)?;
    fits(&node.op).then_some(node.inputs.as_slice())
}

fn scalar(graph: &Graph, value: ValueId) -> Option<f64> {
    let tensor = graph.constant(value)?;
    (tensor.len() == 1).then(|| tensor.to_f64_vec()[0])
}

/// Takes a factor or divisor off scores: what is left, and the factor.
fn scaled(graph: &Graph, users: &Users, value: ValueId) -> (ValueId, f64) {
    let taken = |function: B| {
        let is = |op: &Op| matches!(op, Op::Binary(binary) if binary.function == function);
        let operands = inner(graph, users, value, is)?;
        let (a, b) = (operands[0]?, operands[1]?);
        match (function, scalar(graph, a), scalar(graph, b)) {
            (B::Div, _, Some(k)) => Some((a, 1.0 / k)),
            (B::Mul, _, Some(k)) => Some((a, k)),
            (B::Mul, Some(k), None) => Some((b, k)),
            _ => None,
        }
    };
    taken(B::Mul).or_else(|| taken(B::Div)).unwrap_or((value, 1.0))
}

/// The operator and operands of the attention whose result, heads before rows, is `value`.
fn found(
    graph: &Graph,
    users: &Users,
    value: ValueId,
) -> Option<(Attention, Vec<Option<ValueId>>)> {
    let is_product = |op: &Op| matches!(op, Op::MatMul(_));
    let product = inner(graph, users, value, is_product)?;
    let (weights, v) = (product[0]?, heads(graph, product[1]?, [0, 2, 1, 3])?);
    let last = |op: &Op| matches!(op, Op::Softmax(s) if !s.log && (s.axis == -1 || s.axis == 3));
    let scores = inner(graph, users, weights, last)?[0]?;
    let is_sum = |op: &Op| matches!(op, Op::Binary(binary) if binary.function == B::Add);
    let sum = inner(graph, users, scores, is_sum).and_then(|sum| Some([sum[0]?, sum[1]?]));
    let masked = sum.map_or(vec![(scores, None)], |[a, b]| vec![(a, Some(b)), (b, Some(a))]);
    masked.into_iter().find_map(|(scores, mask)| {
        let (scores, scale) = scaled(graph, users, scores);
        let product = inner(graph, users, scores, is_product)?;
        let q = heads(graph, product[0]?, [0, 2, 1, 3])?;
        let k = heads(graph, product[1]?, [0, 2, 3, 1])?;
        let fits = mask.is_none_or(|mask| {
            graph.fact(mask).dtype == DType::F32 && graph.fact(mask).rank() <= 4
        });
        let op = Attention { scale: scale as f32 };
        fits.then(|| (op, [Some(q), Some(k), Some(v)].into_iter().chain(mask.map(Some)).collect()))
    })
}

/// A transpose of the products of softmax and values becomes `Attention`.
pub fn form(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        if !graph.contains(id) {
            continue;
        }
        let users = graph.users();
        let node = graph.node(id);
        let (Op::Transpose(op), Some(x)) = (&node.op, node.inputs[0]) else { continue };
        if op.permutation != [0, 2, 1, 3] {
            continue;
        }
        let Some((op, inputs)) = found(graph, &users, x) else { continue };
        graph.rewrite_node(id, op, &inputs)?;
        graph.remove_dead();
        changes += 1;
    }
    if changes > 0 {
        graph.refresh()?;
    }
    Ok(changes)
}
