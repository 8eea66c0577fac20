//! Arithmetic over constants and known extents is done while reading, because shapes and branches
//! of later nodes depend on it.

use lepton_ir::{Graph, ValueId, interpret};
use lepton_tensor::{DType, Tensor};

use crate::steps::{MOST_KNOWN, known};

use super::call::Call;
use super::ops;
use super::proto::NodeProto;
use super::read::Reader;

/// The results of a node, if all its operands are known and all is small, and the results are
/// integers or truths. Where anything goes wrong there are none: reading the node says why.
pub fn results(reader: &Reader<'_>, node: &NodeProto) -> Option<Vec<Tensor>> {
    if ops::is_structural(&ops::qualified(node)) || node.input.is_empty() {
        return None;
    }
    let mut graph = Graph::new("");
    let mut inputs = Vec::with_capacity(node.input.len());
    for name in &node.input {
        let id = reader.names.get(name)?;
        inputs.push(Some(graph.add_constant("", known(&reader.graph, *id)?)));
    }
    let (version, budget) = (reader.version, reader.budget);
    let mut call = Call { proto: node, version, inputs, graph: &mut graph, budget };
    let results = ops::translate(&mut call).ok()?;
    let short = |id: &ValueId| {
        let fact = graph.fact(*id);
        let whole = fact.dtype.is_integer() || fact.dtype == DType::Bool;
        whole && fact.count().as_usize().is_some_and(|count| count <= MOST_KNOWN)
    };
    if results.len() < node.output.len() || !results.iter().all(short) {
        return None;
    }
    graph.set_outputs(results);
    interpret::run(&graph, &[]).ok()
}
