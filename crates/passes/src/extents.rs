//! Shapes that are put together from extents, as exported transformers do for every layer.

use lepton_ir::ops::reshape::Reshape;
use lepton_ir::{Dim, Graph, GraphError, Node, Op};
use lepton_tensor::Tensor;

/// Gives reshapes whose open extents are those of the operand at the same places a constant shape that
/// copies them: what computes the shape then has no reader.
pub fn copy(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some(shape) = copying(graph, &node) else { continue };
        let shape = graph.add_constant("", shape);
        graph.rewrite_node(id, Reshape { allow_zero: false }, &[node.inputs[0], Some(shape)])?;
        changes += 1;
    }
    Ok(changes)
}

/// The shape of a reshape with zeros for extents that are copied.
fn copying(graph: &Graph, node: &Node) -> Option<Tensor> {
    let (Op::Reshape(op), [Some(x), Some(shape)]) = (&node.op, &node.inputs[..]) else {
        return None;
    };
    if graph.constant(*shape).is_some() {
        return None;
    }
    let (from, wanted) = (&graph.fact(*x).dims, graph.fact(*shape).integers.as_ref()?);
    let entry = |(position, dim): (usize, &Dim)| match dim.as_known() {
        Some(0) if op.allow_zero => None,
        Some(known) => Some(known),
        None => (from.get(position) == Some(dim)).then_some(0),
    };
    let entries: Option<Vec<i64>> = wanted.iter().enumerate().map(entry).collect();
    Some(Tensor::vector(&entries?))
}
