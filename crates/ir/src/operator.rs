//! The facets of an operator. None has a default: what is missing does not compile, and what is
//! not supported says why.

use lepton_tensor::Tensor;

use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;

/// How many inputs and outputs an operator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    /// Fewest inputs.
    pub min_inputs: usize,
    /// Most inputs.
    pub max_inputs: usize,
    /// Fewest outputs.
    pub min_outputs: usize,
    /// Most outputs.
    pub max_outputs: usize,
}

impl Arity {
    /// Exactly `inputs`, one output.
    pub const fn exactly(inputs: usize) -> Self {
        Arity::between(inputs, inputs)
    }

    /// From `min` to `max` inputs, one output.
    pub const fn between(min: usize, max: usize) -> Self {
        Arity { min_inputs: min, max_inputs: max, min_outputs: 1, max_outputs: 1 }
    }

    /// The same with another range of outputs.
    pub const fn outputs(mut self, min: usize, max: usize) -> Self {
        self.min_outputs = min;
        self.max_outputs = max;
        self
    }
}

/// The operands of a node, some of which may be absent.
#[derive(Debug)]
pub struct Operands<'a, T>(pub &'a [Option<&'a T>]);

impl<T> Clone for Operands<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Operands<'_, T> {}

impl<'a, T> Operands<'a, T> {
    /// Operand `index`, which the operator needs; `name` is what its documentation calls it.
    pub fn required(&self, index: usize, name: &'static str) -> Result<&'a T, Problem> {
        self.optional(index).ok_or(Problem::MissingInput { index, name })
    }

    /// Operand `index`, if it is connected.
    pub fn optional(&self, index: usize) -> Option<&'a T> {
        self.0.get(index).copied().flatten()
    }

    /// Number of operands, absent ones counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How an output axis comes from an input axis.
#[derive(Clone, Debug, PartialEq)]
pub enum AxisLink {
    /// Index `i` of the output axis depends on index `i` of the input axis and no other.
    Same {
        /// Which output.
        output: usize,
        /// Its axis.
        output_axis: usize,
        /// Which input.
        input: usize,
        /// Its axis.
        input_axis: usize,
    },
    /// Index `i` of the input appears as `i + offset` of the output (concat, split, slice, pad).
    Offset {
        /// Which output.
        output: usize,
        /// Its axis.
        output_axis: usize,
        /// Which input.
        input: usize,
        /// Its axis.
        input_axis: usize,
        /// Where the input's first index lands; may be negative.
        offset: i64,
    },
    /// Index `i` of the input axis becomes indices `i·block .. (i+1)·block` of the output axis
    /// (flatten with channels outermost), or the reverse where `merges` is false.
    Block {
        /// Which output.
        output: usize,
        /// Its axis.
        output_axis: usize,
        /// Which input.
        input: usize,
        /// Its axis.
        input_axis: usize,
        /// Length of a block.
        block: Dim,
        /// True if the input axis is the coarse one.
        merges: bool,
    },
    /// The input axis is summed away (the contraction of a matrix product, the input channels
    /// of a convolution); it must match the named axis of the other operand.
    Contracted {
        /// Which input.
        input: usize,
        /// Its axis.
        input_axis: usize,
        /// The other operand.
        other: usize,
        /// Its axis.
        other_axis: usize,
    },
    /// The axis is mixed in a way that cannot be followed; nothing on it may be removed.
    Frozen {
        /// Which input.
        input: usize,
        /// Its axis.
        input_axis: usize,
        /// Why.
        why: &'static str,
    },
}

/// How an operator behaves under integer quantisation.
#[derive(Clone, Debug, PartialEq)]
pub enum Quant {
    /// Has weights: int8 weights per slice of `channel_axis`, u8 activations, int32 accumulators.
    Weighted {
        /// Input that holds the weights.
        weight: usize,
        /// Axis of the weights that gets a scale per slice.
        channel_axis: usize,
        /// Input that holds the bias, quantised to `activation scale · weight scale`.
        bias: usize,
    },
    /// Moves or selects elements: output has the parameters of the input.
    SameAsInput,
    /// Works on dequantised operands and requantises: worthwhile between quantised neighbours.
    Requantise,
    /// A function of one element: a 256-entry table.
    Table,
    /// Stays in floating point, for the reason given.
    FloatOnly(&'static str),
    /// Works on integers or on quantised data itself; quantisation does not apply.
    NotApplicable,
}

/// Work of one evaluation; `None` fields depend on data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// Multiply–adds.
    pub multiply_adds: Dim,
    /// Element-wise operations that are not multiply–adds (comparisons, exponentials …).
    pub element_ops: Dim,
}

impl Cost {
    /// An operator that only moves bytes.
    pub fn free() -> Self {
        Cost::default()
    }

    /// `count` multiply–adds.
    pub fn multiply_adds(count: Dim) -> Self {
        Cost { multiply_adds: count, element_ops: Dim::known(0) }
    }

    /// `count` element-wise operations.
    pub fn element_ops(count: Dim) -> Self {
        Cost { multiply_adds: Dim::known(0), element_ops: count }
    }
}

/// An operator: what it means and everything the rest of Lepton asks about it.
///
/// Operands are as in the newest ONNX operator of the same name, where there is one; readers
/// upgrade older forms.
pub trait Operator {
    /// How many operands it takes and gives.
    fn arity(&self) -> Arity;

    /// Types and extents of the outputs.
    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem>;

    /// The meaning, slow and obvious: test oracle and constant folder.
    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem>;

    /// Emits the nodes that compute the gradient with respect to each input (`None` where it is
    /// zero or the input is not differentiable), or says why there is none.
    fn grad(&self, backward: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops>;

    /// Which output axis is which input axis. Axes that are not mentioned are frozen.
    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink>;

    /// How it behaves under quantisation.
    fn quant(&self) -> Quant;

    /// Work of one evaluation.
    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost;
}
