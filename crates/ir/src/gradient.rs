//! What an operator needs to write its gradient as graph nodes.

use crate::error::GraphError;
use crate::fact::Fact;
use crate::graph::{Graph, ValueId};
use crate::ops::Op;
use lepton_tensor::{DType, Tensor};

/// Why a gradient ends here.
#[derive(Clone, Debug, PartialEq)]
pub enum Stops {
    /// The operator has no useful gradient.
    Because(&'static str),
    /// A gradient node could not be built; a defect of the operator.
    Broken(GraphError),
}

impl From<GraphError> for Stops {
    fn from(error: GraphError) -> Self {
        Stops::Broken(error)
    }
}

/// The node whose gradient is written, and the graph it is written into.
pub struct Backward<'a> {
    /// The graph that holds the forward nodes and receives the backward ones.
    pub graph: &'a mut Graph,
    /// Operands of the forward node.
    pub inputs: &'a [Option<ValueId>],
    /// Results of the forward node.
    pub outputs: &'a [Option<ValueId>],
    /// Gradient of the loss with respect to each result; `None` where it is zero.
    pub output_grads: &'a [Option<ValueId>],
}

impl Backward<'_> {
    /// Input `index`, which the forward node has.
    pub fn input(&self, index: usize) -> ValueId {
        self.inputs[index].expect("a required operand of a verified node")
    }

    /// Result 0.
    pub fn output(&self) -> ValueId {
        self.outputs[0].expect("the first result of a verified node")
    }

    /// Gradient of result 0.
    pub fn output_grad(&self) -> Result<ValueId, Stops> {
        self.output_grads[0].ok_or(Stops::Because("no gradient reaches its first result"))
    }

    /// What is known about a value.
    pub fn fact(&self, value: ValueId) -> &Fact {
        self.graph.fact(value)
    }

    /// Adds a node with one result.
    pub fn op(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, Stops> {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        Ok(self.graph.add_node("", op.into(), &inputs)?[0])
    }

    /// Adds a node, some of whose operands may be absent, with all its results.
    pub fn op_with(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<ValueId>, Stops> {
        Ok(self.graph.add_node("", op.into(), inputs)?)
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_constant("", tensor)
    }

    /// Adds a scalar constant of the type that `like` has.
    pub fn scalar_like(&mut self, like: ValueId, value: f64) -> ValueId {
        let dtype = self.fact(like).dtype;
        let tensor =
            Tensor::from_f64_slice(dtype, Vec::new(), &[value]).expect("one element fits no axes");
        self.constant(tensor)
    }

    /// Adds a one-axis constant of `i64`.
    pub fn integers(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::vector(values))
    }

    /// True if gradients flow through values of this type.
    pub fn differentiable(&self, value: ValueId) -> bool {
        matches!(self.fact(value).dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }
}
