//! One node of a file while it is translated: its attributes, its operands, and the graph.

use lepton_ir::{Fact, Graph, ValueId};
use lepton_tensor::Tensor;

use super::proto::{AttributeProto, NodeProto};
use crate::error::FormatError;
use crate::steps::{Budget, Steps};

/// A node of a file, ready to be translated.
pub struct Call<'a> {
    /// The node.
    pub proto: &'a NodeProto,
    /// Version of the operator set it belongs to.
    pub version: i64,
    /// Its operands; `None` where absent.
    pub inputs: Vec<Option<ValueId>>,
    /// The graph that grows.
    pub graph: &'a mut Graph,
    /// What constants may still be made.
    pub budget: &'a Budget,
}

impl Call<'_> {
    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|a| a.name.as_deref() == Some(name))
    }

    /// True if the attribute is given.
    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    /// A float attribute.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    /// A list of integers; empty where absent.
    pub fn ints(&self, name: &str) -> Vec<i64> {
        self.attribute(name).map(|a| a.ints.clone()).unwrap_or_default()
    }

    /// A word.
    pub fn text(&self, name: &str, default: &str) -> String {
        let found = self.attribute(name).and_then(|a| a.s.as_ref());
        found.map_or(default.to_string(), |s| String::from_utf8_lossy(s).into_owned())
    }

    /// A list of words; empty where absent.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let text = |s: &bytes::Bytes| String::from_utf8_lossy(s).into_owned();
        self.attribute(name).map(|a| a.strings.iter().map(text).collect()).unwrap_or_default()
    }

    /// Operand `index` as a truth value, if it is a known one.
    pub fn known_truth(&self, index: usize) -> Option<bool> {
        let tensor = self.graph.constant(self.input(index)?)?;
        tensor.to_i64_vec().first().map(|&value| value != 0)
    }

    /// Operand `index`, if connected.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Operand `index`, which the operator needs.
    pub fn required(&self, index: usize) -> Result<ValueId, FormatError> {
        self.input(index).ok_or_else(|| self.error(format!("input {index} is missing")))
    }

    /// What is known about operand `index`, which the operator needs.
    pub fn fact(&self, index: usize) -> Result<&Fact, FormatError> {
        Ok(self.graph.fact(self.required(index)?))
    }

    /// The integers of operand `index`, which must be known.
    pub fn known(&self, index: usize) -> Result<Vec<i64>, FormatError> {
        let id = self.required(index)?;
        let tensor = crate::steps::known(self.graph, id).map(|tensor| tensor.to_i64_vec());
        tensor.ok_or_else(|| self.error(format!("input {index} must be a constant")))
    }

    /// The numbers of operand `index`, which must be a constant.
    pub fn known_reals(&self, index: usize) -> Result<Vec<f64>, FormatError> {
        let tensor = self.graph.constant(self.required(index)?).map(Tensor::to_f64_vec);
        tensor.ok_or_else(|| self.error(format!("input {index} must be a constant")))
    }

    /// Number of results that somebody may want.
    pub fn result_count(&self) -> usize {
        self.proto.output.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)
    }

    /// The integers of attribute `name` as a constant, or operand `index` where it is absent:
    /// what older versions give as an attribute, newer ones give as an operand.
    pub fn list(&mut self, name: &str, index: usize) -> Option<ValueId> {
        if self.has(name) {
            let values = self.ints(name);
            return Some(self.integers(&values));
        }
        self.input(index)
    }

    /// Attribute `name`, or `default`, as an axis counted from the front.
    pub fn axis(&self, name: &str, default: i64) -> Result<usize, FormatError> {
        let (axis, rank) = (self.int(name, default), self.fact(0)?.rank() as i64);
        let axis_from_front = if axis < 0 { axis.saturating_add(rank) } else { axis };
        usize::try_from(axis_from_front)
            .ok()
            .filter(|_| axis_from_front < rank)
            .ok_or_else(|| self.error(format!("axis {axis} of a tensor of rank {rank}")))
    }
}

impl Steps for Call<'_> {
    fn graph_ref(&self) -> &Graph {
        self.graph
    }

    fn graph_mut(&mut self) -> &mut Graph {
        self.graph
    }

    fn budget(&self) -> &Budget {
        self.budget
    }

    fn node_name(&self) -> String {
        self.proto.name.clone().unwrap_or_default()
    }

    fn error(&self, why: impl Into<String>) -> FormatError {
        let operator = self.proto.op_type.clone().unwrap_or_default();
        FormatError::Node { node: label(self.proto), operator, why: why.into() }
    }
}

/// The node's name, or one made from its first result.
pub fn label(node: &NodeProto) -> String {
    let name = node.name.as_ref().filter(|name| !name.is_empty());
    name.or(node.output.first()).cloned().unwrap_or_default()
}
