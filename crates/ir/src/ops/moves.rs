//! What the operators that only move elements share: each says where every element of its result
//! comes from, and evaluation and gradient follow from that.

use lepton_tensor::{Shape, Tensor};

use super::expand::Tile;
use super::facets::facets;
use super::gather::{Gather, GatherElements};
use super::pad::{Pad, PadMode};
use super::slice::Slice;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, Operands, Operator, Quant};
use crate::{attributes, words};

/// Where the elements of a result come from.
pub(crate) struct Sources {
    /// Shape of the result.
    pub(crate) shape: Shape,
    /// For each element of the result, the element of x; `None` is not from x.
    pub(crate) from: Vec<Option<usize>>,
}

/// An operator that moves elements of its first operand.
pub(crate) trait Move {
    /// Where each element of the result comes from.
    fn sources(&self, inputs: Operands<'_, Tensor>) -> Result<Sources, Problem>;
}

/// The result of a move; elements that are not from x are `fill` (zero where absent).
pub(crate) fn eval_move(
    op: &dyn Move,
    inputs: Operands<'_, Tensor>,
    fill: Option<&Tensor>,
) -> Result<Vec<Tensor>, Problem> {
    let x = inputs.required(0, "x")?;
    let sources = op.sources(inputs)?;
    let mut made = Tensor::zeros(x.dtype(), sources.shape)?;
    let (bytes, size) = (x.bytes(), x.dtype().size());
    for (to, from) in made.bytes_mut().chunks_exact_mut(size).zip(&sources.from) {
        match (from, fill) {
            (Some(from), _) => to.copy_from_slice(&bytes[from * size..(from + 1) * size]),
            (None, Some(fill)) => to.copy_from_slice(fill.bytes()),
            (None, None) => {}
        }
    }
    Ok(vec![made])
}

/// The gradient of a move: x gets it, the operands that steer the move do not.
pub(crate) fn grad_of_move(
    back: MoveBack,
    g: &mut Backward<'_>,
) -> Result<Vec<Option<ValueId>>, Stops> {
    let mut inputs = vec![Some(g.output_grad()?)];
    inputs.extend_from_slice(g.inputs);
    let dx = g.op_with(back, &inputs)?[0];
    let mut grads = vec![None; g.inputs.len()];
    grads[0] = Some(dx);
    Ok(grads)
}

words! {
    /// Which move is reversed.
    pub enum MoveFunction {
        /// [`Slice`]
        Slice = "slice",
        /// [`Gather`]
        Gather = "gather",
        /// [`GatherElements`]
        GatherElements = "gather_elements",
        /// [`Pad`]
        Pad = "pad",
        /// [`Tile`]
        Tile = "tile",
    }
}

attributes! {
    /// The gradient of an operator that moves elements: inputs dy, then the operands of the
    /// forward node. Each element of dy is added where its value came from in x.
    pub struct MoveBack {
        /// Which move.
        pub function: MoveFunction = MoveFunction::Slice,
        /// Its axis, for a gather.
        pub axis: i64 = 0,
        /// Its mode, for a pad.
        pub mode: PadMode = PadMode::Constant,
    }
}

impl MoveBack {
    fn forward(&self) -> Box<dyn Move> {
        match self.function {
            MoveFunction::Slice => Box::new(Slice {}),
            MoveFunction::Gather => Box::new(Gather { axis: self.axis }),
            MoveFunction::GatherElements => Box::new(GatherElements { axis: self.axis }),
            MoveFunction::Pad => Box::new(Pad { mode: self.mode }),
            MoveFunction::Tile => Box::new(Tile {}),
        }
    }
}

impl Operator for MoveBack {
    facets! {
        arity = Arity::between(2, 6),
        stops = "it only occurs in gradients",
        frozen = "elements of one axis may land anywhere on it",
        quant = Quant::FloatOnly("it only occurs in gradients"),
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (dy, x) = (inputs.required(0, "dy")?, inputs.required(1, "x")?);
        Ok(vec![Fact::new(dy.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (dy, x) = (inputs.required(0, "dy")?, inputs.required(1, "x")?);
        let sources = self.forward().sources(Operands(&inputs.0[1..]))?;
        if dy.shape() != sources.shape {
            let found = dy.shape();
            return Err(Problem::shape(format!("dy must be {:?}, is {found:?}", sources.shape)));
        }
        let mut sums = vec![0.0; x.len()];
        for (value, from) in dy.to_f64_vec().into_iter().zip(sources.from) {
            if let Some(from) = from {
                sums[from] += value;
            }
        }
        Ok(vec![Tensor::from_f64_slice(dy.dtype(), x.shape(), &sums)?])
    }
}
