//! What is left out of a graph for a problem, and where a problem was found.

use std::collections::HashMap;

use super::branches;
use super::call::label;
use super::ops;
use super::proto::{GraphProto, NodeProto, ValueInfoProto};
use super::read::{Reader, input_fact, plain_domain};
use crate::error::FormatError;

/// True if Lepton does not have the operator, or one of a graph inside the node.
fn is_unknown(node: &NodeProto) -> bool {
    let inside = || branches::graphs(node).flat_map(|graph| &graph.node).any(is_unknown);
    !ops::is_known(&ops::qualified(node)) || inside()
}

/// What a graph declares about its values, by name; the first declaration counts.
pub type Hints<'a> = HashMap<&'a str, &'a ValueInfoProto>;

/// The hints of a graph.
pub fn hints(proto: &GraphProto) -> Hints<'_> {
    proto.value_info.iter().rev().filter_map(|info| Some((info.name.as_deref()?, info))).collect()
}

impl Reader<'_> {
    /// True if the node cannot be read for a problem that was found before.
    pub fn is_concerned(&self, node: &NodeProto) -> bool {
        self.problems.concern(branches::names_used(node))
            || (!self.problems.is_empty() && is_unknown(node))
    }

    /// The problem with the node it was found at.
    pub fn located(&self, node: &NodeProto, problem: FormatError) -> FormatError {
        let domain = plain_domain(node.domain.as_deref());
        let operator = node.op_type.as_deref().unwrap_or_default();
        let operator = match domain {
            "" => format!("{operator} of operator set {}", self.version),
            domain => format!("{operator} of {domain}"),
        };
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            inputs.push(match self.names.get(name) {
                Some(&id) => format!("`{name}` {}", self.graph.fact(id)),
                None => format!("`{name}`"),
            });
        }
        problem.of_node(&label(node), &operator, &inputs.join(", "))
    }

    /// Makes values of the node's results as the file declares them, so that what uses them can be
    /// read; those it does not declare are lost.
    pub fn leave_out(&mut self, hints: &Hints<'_>, node: &NodeProto) -> Result<(), FormatError> {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if self.names.contains_key(name) || self.lists.contains_key(name) {
                continue;
            }
            match hints.get(name.as_str()).map(|info| input_fact(name, info)) {
                Some(Ok(fact)) => {
                    let id = self.graph.add_input(name, fact);
                    self.define(name, id)?;
                }
                _ => self.problems.lose(name.clone()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{
        DimensionProto, ModelProto, OperatorSetIdProto, TensorShapeProto, TensorTypeProto,
        TypeProto, ValueInfoProto,
    };
    use super::*;
    use crate::NoExternalData;
    use prost::Message;

    fn value(name: &str, extents: &[i64]) -> ValueInfoProto {
        let dim = |&extent: &i64| DimensionProto { dim_value: Some(extent), ..Default::default() };
        let shape = Some(TensorShapeProto { dim: extents.iter().map(dim).collect() });
        let tensor_type = Some(TensorTypeProto { elem_type: Some(1), shape });
        let r#type = Some(TypeProto { tensor_type, ..Default::default() });
        ValueInfoProto { name: Some(name.into()), r#type }
    }

    fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: Some(operator.into()),
            name: Some(format!("make_{output}")),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            ..Default::default()
        }
    }

    #[test]
    fn every_problem_of_a_file_is_told_at_once() {
        let graph = GraphProto {
            input: vec![value("x", &[2, 3])],
            value_info: vec![value("declared", &[4, 5])],
            output: vec![value("y", &[])],
            node: vec![
                node("Frobnicate", &["x"], "declared"),
                node("Add", &["x", "nothing"], "lost"),
                // Of a value the file declares: checked. Of one it does not: cannot be.
                node("MatMul", &["x", "declared"], "product"),
                node("MatMul", &["lost", "lost"], "unchecked"),
                node("Add", &["product", "unchecked"], "y"),
            ],
            ..Default::default()
        };
        let version = OperatorSetIdProto { version: Some(17), ..Default::default() };
        let model =
            ModelProto { graph: Some(graph), opset_import: vec![version], ..Default::default() };
        let error = crate::onnx::read(model.encode_to_vec().into(), &NoExternalData).unwrap_err();
        let told: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(told[0].contains("Frobnicate (ai.onnx 17, node `make_declared`)"), "{}", told[0]);
        assert!(told[1].contains("nothing makes its input `nothing`"), "{}", told[1]);
        for part in ["make_product", "operator set 17", "`x` f32[2,3], `declared` f32[4,5]"] {
            assert!(told[2].contains(part), "{}", told[2]);
        }
        assert!(!error.is_unsupported(), "parts of the file are wrong");
    }
}
