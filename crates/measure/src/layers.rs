//! Two graphs of the same model layer by layer: which layer of the second adds how much error, and
//! how much has gathered there.

use std::collections::{BTreeMap, BTreeSet};

use lepton_ir::{Graph, ValueId};
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Comparison, Difference, MeasureError};

/// A tensor that both graphs have, and how it differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerDifference {
    /// Name of the tensor.
    pub value: String,
    /// The node of the second graph that makes it.
    pub node: String,
    /// That node's operator.
    pub op: String,
    /// Difference when both graphs run from their inputs: what has gathered so far.
    pub accumulated: Comparison,
    /// Difference when the second graph's layer gets the first graph's tensors: what it adds.
    pub local: Comparison,
}

/// A tensor that both graphs make.
struct Pair {
    name: String,
    first: ValueId,
    /// As its users see it: behind a pair of quantisation and dequantisation.
    second: ValueId,
    node: String,
    op: String,
}

/// Compares `second` with `first` on `samples`, one tensor per input each, in execution order.
/// Tensors are matched by name; integer tensors are left out.
///
/// # Errors
/// Graphs with different inputs or without a common tensor; samples that do not run.
pub fn compare_layers(
    first: &Graph,
    second: &Graph,
    samples: impl Iterator<Item = Vec<Tensor>>,
) -> Result<Vec<LayerDifference>, MeasureError> {
    let names = |graph: &Graph| -> Vec<String> {
        graph.input_specs().into_iter().map(|(name, _)| name).collect()
    };
    if names(first) != names(second) {
        return Err(MeasureError::Run(format!(
            "the models have different inputs: {:?} and {:?}",
            names(first),
            names(second)
        )));
    }
    let pairs = pairs(first, second);
    if pairs.is_empty() {
        return Err(MeasureError::Run("the models have no tensor name in common".into()));
    }
    let reference = session(first, pairs.iter().map(|pair| pair.first).collect())?;
    let whole = session(second, pairs.iter().map(|pair| pair.second).collect())?;
    let (cut, fed) = cut(second, &pairs);
    let cut = session(&cut, pairs.iter().map(|pair| pair.second).collect())?;
    let mut sums = vec![(Difference::default(), Difference::default()); pairs.len()];
    let failed = |error: lepton_runtime::RuntimeError| MeasureError::Run(error.to_string());
    for inputs in samples {
        let expected = reference.run(&inputs).map_err(failed)?;
        let gathered = whole.run(&inputs).map_err(failed)?;
        let mut with = inputs;
        with.extend(fed.iter().map(|&at| expected[at].clone()));
        let local = cut.run(&with).map_err(failed)?;
        for (at, (accumulated, alone)) in sums.iter_mut().enumerate() {
            accumulated.update(&expected[at], &gathered[at])?;
            alone.update(&expected[at], &local[at])?;
        }
    }
    let row = |(pair, (accumulated, alone)): (Pair, (Difference, Difference))| LayerDifference {
        value: pair.name,
        node: pair.node,
        op: pair.op,
        accumulated: accumulated.result(),
        local: alone.result(),
    };
    Ok(pairs.into_iter().zip(sums).map(row).collect())
}

fn session(graph: &Graph, outputs: Vec<ValueId>) -> Result<Session, MeasureError> {
    let mut graph = graph.clone();
    for (at, &id) in outputs.iter().enumerate() {
        if graph.value(id).name.is_empty() {
            graph.set_value_name(id, format!("compared {at}"));
        }
    }
    graph.set_outputs(outputs);
    Session::new(&graph, SessionOptions::default())
        .map_err(|error| MeasureError::Run(error.to_string()))
}

/// The floating-point tensors that nodes of both graphs make under the same name.
fn pairs(first: &Graph, second: &Graph) -> Vec<Pair> {
    let made = |graph: &Graph| -> BTreeMap<String, ValueId> {
        let all = graph.nodes().flat_map(|(_, node)| node.outputs.iter().flatten().copied());
        let named = all
            .filter(|&id| !graph.value(id).name.is_empty() && graph.fact(id).dtype == DType::F32);
        named.map(|id| (graph.value(id).name.clone(), id)).collect()
    };
    let known = made(first);
    let users = second.users();
    let mut pairs = Vec::new();
    for (_, node) in second.nodes() {
        for &id in node.outputs.iter().flatten() {
            let name = &second.value(id).name;
            let found = known.get(name).filter(|_| second.fact(id).dtype == DType::F32);
            let Some(&first) = found else { continue };
            pairs.push(Pair {
                name: name.clone(),
                first,
                second: behind_quantisation(second, &users, id),
                node: second.node_label(node),
                op: node.op.to_string(),
            });
        }
    }
    pairs
}

/// The tensor as its only users see it.
fn behind_quantisation(graph: &Graph, users: &lepton_ir::Users, id: ValueId) -> ValueId {
    let only = |id: ValueId, name: &str| match &users[id.index()][..] {
        [(user, 0)] if graph.node(*user).op.name() == name => graph.node(*user).outputs[0],
        _ => None,
    };
    let quantised = only(id, "QuantizeLinear").filter(|_| !graph.outputs().contains(&id));
    quantised.and_then(|q| only(q, "DequantizeLinear")).unwrap_or(id)
}

/// The graph with every pair's tensor replaced by a new input where it is used, and which pair
/// each new input belongs to.
fn cut(graph: &Graph, pairs: &[Pair]) -> (Graph, Vec<usize>) {
    let mut cut = graph.clone();
    let mut fed = Vec::new();
    let used: BTreeSet<usize> = graph
        .nodes()
        .flat_map(|(_, node)| node.inputs.iter().flatten().map(|id| id.index()))
        .collect();
    for (at, pair) in pairs.iter().enumerate() {
        if used.contains(&pair.second.index()) {
            let fact = graph.fact(pair.second).clone();
            let input = cut.add_input(format!("{} as given", pair.name), fact);
            cut.replace_uses(pair.second, input);
            fed.push(at);
        }
    }
    (cut, fed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lepton_ir::Fact;
    use lepton_ir::ops::binary::{Binary, BinaryFunction};

    /// x → ·a → b → ·c → d, with the factor of the first step and of the second.
    fn chain(factors: [f32; 2]) -> Graph {
        let mut graph = Graph::new("chain");
        let mut value = graph.add_input("x", Fact::of(&Tensor::vector(&[0f32; 4])));
        for (factor, name) in factors.into_iter().zip(["b", "d"]) {
            let factor = graph.add_constant("", Tensor::vector(&[factor; 4]));
            let op = Binary { function: BinaryFunction::Mul };
            value = graph.add_node(name, op, &[Some(value), Some(factor)]).unwrap()[0];
            graph.set_value_name(value, name);
        }
        graph.set_outputs(vec![value]);
        graph
    }

    #[test]
    fn local_and_accumulated_errors_are_told_apart() {
        let samples = || std::iter::once(vec![Tensor::vector(&[1f32, 2.0, 3.0, 4.0])]);
        let (first, second) = (chain([2.0, 3.0]), chain([2.5, 3.0]));
        let rows = compare_layers(&first, &second, samples()).unwrap();
        assert_eq!(rows.iter().map(|row| row.value.as_str()).collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!(rows[0].local.max_abs, 2.0);
        assert_eq!(rows[0].accumulated.max_abs, 2.0);
        assert_eq!(rows[1].local.max_abs, 0.0);
        assert_eq!(rows[1].accumulated.max_abs, 6.0);
        let mut other = chain([1.0, 1.0]);
        for id in other.value_ids() {
            other.set_value_name(id, "");
        }
        assert!(compare_layers(&first, &other, samples()).is_err());
    }
}
