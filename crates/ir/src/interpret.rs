//! The reference interpreter: every node by its `eval`, in order.

use lepton_tensor::Tensor;

use crate::error::GraphError;
use crate::graph::{Graph, Node, ValueId};
use crate::operator::Operands;

/// Runs the graph on `inputs` (one tensor per graph input, in order).
pub fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, GraphError> {
    run_observed(graph, inputs, |_, _| {})
}

/// Runs the graph and shows every value to `observe`: inputs first, then each node's results.
pub fn run_observed(
    graph: &Graph,
    inputs: &[Tensor],
    observe: impl FnMut(ValueId, &Tensor),
) -> Result<Vec<Tensor>, GraphError> {
    run_all(graph, inputs, observe, |_, _| None)
}

/// What runs a node in place of its `eval`, with its operands; `None` where nothing does.
pub type Made = Option<Result<Vec<Tensor>, GraphError>>;

/// Runs the graph, asking `run_node` first for the results of each node.
pub fn run_with(
    graph: &Graph,
    inputs: &[Tensor],
    run_node: impl FnMut(&Node, Operands<'_, Tensor>) -> Made,
) -> Result<Vec<Tensor>, GraphError> {
    run_all(graph, inputs, |_, _| {}, run_node)
}

fn run_all(
    graph: &Graph,
    inputs: &[Tensor],
    mut observe: impl FnMut(ValueId, &Tensor),
    mut run_node: impl FnMut(&Node, Operands<'_, Tensor>) -> Made,
) -> Result<Vec<Tensor>, GraphError> {
    graph.check_inputs(inputs)?;
    let mut last_use = vec![usize::MAX; graph.value_count()];
    for (position, (_, node)) in graph.nodes().enumerate() {
        for input in node.inputs.iter().flatten() {
            last_use[input.index()] = position;
        }
    }
    for output in graph.outputs() {
        last_use[output.index()] = usize::MAX;
    }
    let mut values: Vec<Option<Tensor>> = vec![None; graph.value_count()];
    for (&id, tensor) in graph.inputs().iter().zip(inputs) {
        observe(id, tensor);
        values[id.index()] = Some(tensor.clone());
    }
    for (position, (_, node)) in graph.nodes().enumerate() {
        let results = eval_node(graph, node, &values, &mut run_node)?;
        for (output, tensor) in node.outputs.iter().zip(results) {
            if let Some(output) = output {
                observe(*output, &tensor);
                values[output.index()] = Some(tensor);
            }
        }
        for input in node.inputs.iter().flatten() {
            if last_use[input.index()] == position {
                values[input.index()] = None;
            }
        }
    }
    let output = |id: &ValueId| lookup(graph, &values, *id).cloned();
    let found: Option<Vec<Tensor>> = graph.outputs().iter().map(output).collect();
    found.ok_or_else(|| GraphError::Structure("an output is not made by any node".into()))
}

fn lookup<'a>(graph: &'a Graph, values: &'a [Option<Tensor>], id: ValueId) -> Option<&'a Tensor> {
    values[id.index()].as_ref().or_else(|| graph.constant(id))
}

fn eval_node(
    graph: &Graph,
    node: &Node,
    values: &[Option<Tensor>],
    run_node: &mut impl FnMut(&Node, Operands<'_, Tensor>) -> Made,
) -> Result<Vec<Tensor>, GraphError> {
    let mut operands = Vec::with_capacity(node.inputs.len());
    for input in &node.inputs {
        operands.push(match input {
            None => None,
            Some(id) => Some(lookup(graph, values, *id).ok_or_else(|| {
                GraphError::Structure(format!(
                    "`{}` is used before it is made",
                    graph.value_label(*id)
                ))
            })?),
        });
    }
    if let Some(made) = run_node(node, Operands(&operands)) {
        return made;
    }
    node.op.eval(Operands(&operands)).map_err(|problem| graph.node_error(node, problem))
}
