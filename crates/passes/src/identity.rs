//! Nodes that change nothing.

use lepton_ir::ops::unary::UnaryFunction;
use lepton_ir::{Graph, GraphError, Node, Op};

/// Removes identities, reshapes to the same shape and transposes that move nothing.
pub fn remove(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.node(id).clone();
        let (Some(Some(input)), Some(Some(output))) = (node.inputs.first(), node.outputs.first())
        else {
            continue;
        };
        let unwanted = node.outputs[1..].iter().any(Option::is_some);
        let interface = graph.outputs().contains(output)
            && (graph.inputs().contains(input)
                || graph.outputs().contains(input)
                || graph.constant(*input).is_some());
        if unwanted || interface || !is_identity(graph, &node) {
            continue;
        }
        graph.replace_uses(*output, *input);
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

fn is_identity(graph: &Graph, node: &Node) -> bool {
    let (Some(input), Some(output)) = (node.inputs[0], node.outputs[0]) else { return false };
    let same = graph.fact(input).dims == graph.fact(output).dims;
    match &node.op {
        Op::Unary(op) => op.function == UnaryFunction::Identity,
        Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => same,
        Op::Transpose(op) => op
            .resolved(graph.fact(input).rank())
            .is_ok_and(|p| p.iter().enumerate().all(|(i, &axis)| i == axis)),
        Op::Concat(_) => node.inputs.len() == 1,
        _ => false,
    }
}
