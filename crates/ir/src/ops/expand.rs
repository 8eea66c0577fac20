//! Repeating a tensor: broadcast to a shape, or in tiles.

use lepton_tensor::{Tensor, row_major_strides};

use super::facets::facets;
use super::moves::{Move, MoveBack, MoveFunction, Sources, eval_move, grad_of_move};
use super::sum_to::sum_to_like;
use super::walk::{
    broadcast_all, broadcast_dims, broadcast_positions, for_each_index, pick, unknown_dims,
};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};

attributes! {
    /// x broadcast against `shape` (both ways, as ONNX defines it).
    pub struct Expand {}
}

attributes! {
    /// x repeated `repeats[i]` times along axis `i`.
    pub struct Tile {}
}

/// The followed integers of a fact, or those of its constant.
fn followed(fact: &Fact) -> Option<Vec<Dim>> {
    let known = || fact.known_integers().map(|v| v.into_iter().map(Dim::known).collect());
    fact.integers.clone().or_else(known)
}

/// Counts given as data.
fn counts(tensor: &Tensor, what: &str) -> Result<Vec<usize>, Problem> {
    let count = |v: i64| {
        usize::try_from(v).map_err(|_| Problem::value(format!("{what} has the negative {v}")))
    };
    tensor.to_i64_vec().into_iter().map(count).collect()
}

impl Operator for Expand {
    facets! {
        arity = Arity::exactly(2),
        quant = Quant::SameAsInput,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, shape) = (inputs.required(0, "x")?, inputs.required(1, "shape")?);
        let Some(wanted) = followed(shape) else {
            let mut dims = unknown_dims(shape, "shape")?;
            dims.resize(dims.len().max(x.rank()), Dim::unknown());
            return Ok(vec![Fact::new(x.dtype, dims)]);
        };
        if let Some(negative) = wanted.iter().find(|d| d.as_known().is_some_and(|d| d < 0)) {
            return Err(Problem::value(format!("shape has the negative {negative}")));
        }
        let dims = broadcast_dims(&x.dims, &wanted)?;
        let repeated = match (&x.integers, dims.as_slice()) {
            (Some(values), [count]) if values.len() == 1 => {
                count.as_usize().filter(|&n| n <= 64).map(|n| vec![values[0].clone(); n])
            }
            (values, dims) if *dims == x.dims => values.clone(),
            _ => None,
        };
        Ok(vec![Fact::new(x.dtype, dims).with_integers(repeated)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, shape) = (inputs.required(0, "x")?, inputs.required(1, "shape")?);
        let target = broadcast_all(&[x.shape(), &counts(shape, "shape")?])?;
        let positions = broadcast_positions(x.shape(), &target);
        Ok(vec![pick(x, target, &positions)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, x) = (g.output_grad()?, g.input(0));
        Ok(vec![Some(sum_to_like(g, dy, x)?), None])
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let Some(x) = inputs.optional(0) else { return Vec::new() };
        let lead = outputs[0].rank().saturating_sub(x.rank());
        (0..x.rank())
            .filter(|&axis| outputs[0].dims[axis + lead] == x.dims[axis])
            .map(|input_axis| AxisLink::Same {
                output: 0,
                output_axis: input_axis + lead,
                input: 0,
                input_axis,
            })
            .collect()
    }
}

impl Move for Tile {
    fn sources(&self, inputs: Operands<'_, Tensor>) -> Result<Sources, Problem> {
        let (x, repeats) = (inputs.required(0, "x")?, inputs.required(1, "repeats")?);
        let repeats = counts(repeats, "repeats")?;
        if repeats.len() != x.rank() {
            return Err(Problem::shape(format!("{} repeats for {:?}", repeats.len(), x.shape())));
        }
        let shape =
            x.shape().iter().zip(repeats).map(|(&extent, n)| extent * n).collect::<Vec<_>>();
        let strides = row_major_strides(x.shape());
        let mut from = Vec::new();
        for_each_index(&shape, |index| {
            let at = index.iter().zip(x.shape()).zip(&strides);
            from.push(Some(at.map(|((i, extent), stride)| i % extent * stride).sum()));
        });
        Ok(Sources { shape, from })
    }
}

impl Operator for Tile {
    facets! {
        arity = Arity::exactly(2),
        quant = Quant::SameAsInput,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, repeats) = (inputs.required(0, "x")?, inputs.required(1, "repeats")?);
        let Some(repeats) = followed(repeats) else {
            return Ok(vec![Fact::new(x.dtype, vec![Dim::unknown(); x.rank()])]);
        };
        if repeats.len() != x.rank() {
            return Err(Problem::shape(format!("{} repeats for {x}", repeats.len())));
        }
        let dims = x.dims.iter().zip(repeats).map(|(dim, n)| dim.clone() * n).collect();
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        eval_move(self, inputs, None)
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        grad_of_move(MoveBack { function: MoveFunction::Tile, ..MoveBack::default() }, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let Some(x) = inputs.optional(0) else { return Vec::new() };
        (0..x.rank())
            .filter(|&axis| outputs[0].dims[axis] == x.dims[axis])
            .map(|axis| AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis })
            .collect()
    }
}
