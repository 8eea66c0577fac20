//! One node of Lepton's graph while it is written: its operands, its results, and the file.

use lepton_ir::{Fact, Graph, Node, Op};
use lepton_tensor::{DType, Tensor};

use super::link::{matches, unlinked};
use super::ops::{ROWS, Row};
use super::proto::{AttributeProto, NodeProto};
use super::write::Writer;
use crate::error::FormatError;

/// The outcome of writing a node.
pub type Written = Result<(), FormatError>;

/// A node, ready to be written.
pub struct Emit<'a> {
    /// The graph it belongs to.
    pub graph: &'a Graph,
    /// The node.
    pub node: &'a Node,
    /// Names of its operands; empty where absent.
    pub inputs: Vec<String>,
    /// Names of its results; empty where nobody wants one.
    pub outputs: Vec<String>,
    /// The file.
    pub writer: &'a mut Writer,
}

impl Emit<'_> {
    /// An error that names the node.
    pub fn error(&self, why: impl Into<String>) -> FormatError {
        FormatError::Node {
            node: self.graph.node_label(self.node),
            operator: self.node.op.to_string(),
            why: why.into(),
        }
    }

    /// What is known about operand `index`.
    pub fn fact(&self, index: usize) -> Result<&Fact, FormatError> {
        let id = self.node.inputs.get(index).copied().flatten();
        id.map(|id| self.graph.fact(id))
            .ok_or_else(|| self.error(format!("input {index} is missing")))
    }

    /// True if operand `index` is connected.
    pub fn has(&self, index: usize) -> bool {
        self.inputs.get(index).is_some_and(|name| !name.is_empty())
    }

    /// Adds a node of ONNX with one result, which nobody else sees, and gives its name.
    pub fn step(&mut self, name: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let result = self.writer.fresh();
        self.push("", name, inputs, vec![result.clone()], attributes);
        result
    }

    /// Adds the node of ONNX that makes the results.
    pub fn last(
        &mut self,
        name: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Written {
        let mut outputs = self.outputs.clone();
        while outputs.last().is_some_and(String::is_empty) {
            outputs.pop();
        }
        let label = self.node.name.clone();
        self.push(&label, name, inputs, outputs, attributes);
        Ok(())
    }

    fn push(
        &mut self,
        label: &str,
        operator: &str,
        inputs: &[&str],
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        let mut input: Vec<String> = inputs.iter().map(|name| name.to_string()).collect();
        while input.last().is_some_and(String::is_empty) {
            input.pop();
        }
        self.writer.proto.node.push(NodeProto {
            input,
            output,
            name: Some(label.to_string()).filter(|label| !label.is_empty()),
            op_type: Some(operator.to_string()),
            attribute,
            overload: None,
            domain: None,
        });
    }

    /// A constant of the file.
    pub fn constant(&mut self, tensor: &Tensor) -> String {
        let name = self.writer.fresh();
        self.writer.add_constant(&name, tensor);
        name
    }

    /// A constant scalar of a type.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> Result<String, FormatError> {
        let tensor = Tensor::from_f64_slice(dtype, Vec::new(), &[value]);
        let tensor = tensor.map_err(|error| self.error(error.to_string()))?;
        Ok(self.constant(&tensor))
    }

    /// Attributes of `op` as those of `row`; an error if it has one that ONNX does not.
    pub fn attributes(&self, row: &Row, op: &Op) -> Result<Vec<AttributeProto>, FormatError> {
        match unlinked(row, op) {
            (list, None) => Ok(list),
            (_, Some(name)) => Err(self.error(format!("ONNX has no attribute like `{name}`"))),
        }
    }

    /// Writes the node by the row of its operator.
    pub fn by_row(&mut self) -> Written {
        let node = self.node;
        match ROWS.iter().find(|row| matches(row, &node.op)) {
            Some(row) => (row.write)(self, row),
            None => Err(self.error(
                "ONNX has no such operator; write the model before it is lowered for the engine",
            )),
        }
    }
}
