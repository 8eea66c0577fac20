//! One node of a file while it is translated: its attributes, its operands, and the graph.

use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Attribute, Fact, Graph, Op, ValueId};
use lepton_tensor::{DType, Tensor};

use super::proto::{AttributeProto, NodeProto};
use crate::error::FormatError;

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
}

/// The results of a translated node.
pub type Results = Result<Vec<ValueId>, FormatError>;

impl Call<'_> {
    /// An error that names the node.
    pub fn error(&self, why: impl Into<String>) -> FormatError {
        let operator = self.proto.op_type.clone().unwrap_or_default();
        FormatError::Node { node: label(self.proto), operator, why: why.into() }
    }

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

    /// Number of results that somebody may want.
    pub fn result_count(&self) -> usize {
        self.proto.output.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)
    }

    /// A constant without a name.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_constant("", tensor)
    }

    /// A constant list of integers.
    pub fn integers(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::vector(values))
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

    /// Adds a node with the file's node name.
    pub fn emit(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Results {
        let name = self.proto.name.clone().unwrap_or_default();
        Ok(self.graph.add_node(name, op, inputs)?)
    }

    /// Adds a node with one result and gives that result.
    pub fn emit_one(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
    ) -> Result<ValueId, FormatError> {
        let made = self.emit(op, inputs)?;
        made.first().copied().ok_or_else(|| self.error("it has no result"))
    }

    /// A constant scalar of a type.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> Result<ValueId, FormatError> {
        let tensor = Tensor::from_f64_slice(dtype, Vec::new(), &[value]);
        let tensor = tensor.map_err(|error| self.error(error.to_string()))?;
        Ok(self.constant(tensor))
    }

    /// A function of one element as a node.
    pub fn map(&mut self, f: UnaryFunction, x: ValueId) -> Result<ValueId, FormatError> {
        self.emit_one(Unary::new(f), &[Some(x)])
    }

    /// A function of two elements as a node.
    pub fn pair(
        &mut self,
        f: BinaryFunction,
        a: ValueId,
        b: ValueId,
    ) -> Result<ValueId, FormatError> {
        self.emit_one(Binary::new(f), &[Some(a), Some(b)])
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

    /// The operator of that name, by attributes.
    pub fn op(&self, name: &str, attributes: &[(&str, Attribute)]) -> Result<Op, FormatError> {
        let given: Vec<_> = attributes.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
        Op::from_parts(name, &given).map_err(|problem| self.error(problem.to_string()))
    }
}

/// The node's name, or one made from its first result.
pub fn label(node: &NodeProto) -> String {
    let name = node.name.as_ref().filter(|name| !name.is_empty());
    name.or(node.output.first()).cloned().unwrap_or_default()
}
