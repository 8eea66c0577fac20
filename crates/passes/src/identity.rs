//! Nodes that change nothing, alone or with the one before.

use lepton_ir::ops::unary::UnaryFunction;
use lepton_ir::{Graph, GraphError, Node, Op, ValueId};

/// Removes identities, reshapes to the same shape and transposes that move nothing, and
/// pairs of changes of shape that cancel.
pub fn remove(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let (Some(Some(input)), Some(Some(output))) = (node.inputs.first(), node.outputs.first())
        else {
            continue;
        };
        let input = &source(graph, &node, *output).unwrap_or(*input);
        let unwanted = node.outputs[1..].iter().any(Option::is_some);
        let interface = graph.outputs().contains(output)
            && (graph.inputs().contains(input)
                || graph.outputs().contains(input)
                || graph.constant(*input).is_some());
        let undone = Some(*input) != node.inputs[0];
        if unwanted || interface || !(undone || is_identity(graph, &node)) {
            continue;
        }
        graph.replace_uses(*output, *input);
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

/// True for operators that keep the order of elements and change only their shape.
fn reshapes(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_))
}

/// The value two changes of shape begin with, if the second undoes the first.
fn source(graph: &Graph, node: &Node, output: ValueId) -> Option<ValueId> {
    let (_, first) = graph.producer(node.inputs[0]?)?;
    let x = first.inputs.first().copied().flatten()?;
    let undone = reshapes(&node.op) && reshapes(&first.op);
    (undone && graph.fact(x).dims == graph.fact(output).dims).then_some(x)
}

fn is_identity(graph: &Graph, node: &Node) -> bool {
    let (Some(input), Some(output)) = (node.inputs[0], node.outputs[0]) else { return false };
    let same = graph.fact(input).dims == graph.fact(output).dims;
    match &node.op {
        Op::Unary(op) => op.function == UnaryFunction::Identity,
        op if reshapes(op) => same,
        Op::Transpose(op) => op
            .resolved(graph.fact(input).rank())
            .is_ok_and(|p| p.iter().enumerate().all(|(i, &axis)| i == axis)),
        Op::Concat(_) => node.inputs.len() == 1,
        _ => false,
    }
}
