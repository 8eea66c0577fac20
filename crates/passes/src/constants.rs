//! Constant folding: nodes whose results follow from constants and extents.

use lepton_ir::{Graph, GraphError, Node, Op, Operands, ValueId};
use lepton_tensor::Tensor;

/// Results larger than this stay computed, unless they are no larger than their operands.
const MAX_FOLDED_BYTES: usize = 1 << 20;

/// Replaces results that are known before the model runs by constants. Constants that are stored
/// quantised stay so: products read them as bytes.
pub fn fold(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    let mut users = None;
    for id in graph.order() {
        let node = graph.shared_node(id);
        if matches!(node.op, Op::DequantizeLinear(_)) {
            continue;
        }
        let Some(results) = known_results(graph, &node) else { continue };
        for (output, tensor) in node.outputs.iter().zip(results) {
            let (Some(output), Some(tensor)) = (*output, tensor) else { continue };
            if graph.outputs().contains(&output) {
                continue;
            }
            let constant = graph.add_constant("", tensor);
            let users = users.get_or_insert_with(|| graph.users());
            graph.replace_known_uses(users, output, constant);
            changes += 1;
        }
    }
    if changes > 0 {
        graph.sort()?;
        graph.remove_dead();
        graph.refresh()?;
    }
    Ok(changes)
}

/// The results as tensors, where they are known: by following extents, or by evaluation.
fn known_results(graph: &Graph, node: &Node) -> Option<Vec<Option<Tensor>>> {
    let used = |id: &ValueId| !graph.outputs().contains(id);
    if !node.outputs.iter().flatten().any(used) {
        return None;
    }
    let followed: Vec<Option<Tensor>> = node
        .outputs
        .iter()
        .map(|id| {
            let fact = graph.fact((*id)?);
            let values = fact.integers.as_ref().filter(|_| fact.constant.is_none())?;
            let known: Option<Vec<i64>> = values.iter().map(|d| d.as_known()).collect();
            Tensor::from_i64_slice(fact.dtype, fact.shape()?, &known?).ok()
        })
        .collect();
    if followed.iter().any(Option::is_some) {
        return Some(followed);
    }
    let operands: Option<Vec<Option<&Tensor>>> = node
        .inputs
        .iter()
        .map(|id| id.map_or(Some(None), |id| graph.constant(id).map(Some)))
        .collect();
    let operands = operands?;
    let given: usize = operands.iter().flatten().map(|t| t.bytes().len()).sum();
    let made: usize = graph
        .output_facts(node)
        .iter()
        .map(|fact| fact.byte_size().unwrap_or(usize::MAX))
        .fold(0, usize::saturating_add);
    if made > MAX_FOLDED_BYTES.max(given) {
        return None;
    }
    let results = node.op.eval(Operands(&operands)).ok()?;
    Some(results.into_iter().map(Some).collect())
}
