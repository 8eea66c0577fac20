//! Permutation of axes.

use lepton_tensor::{Tensor, row_major_strides};

use super::walk::strided;
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// x with its axes in another order: axis `i` of the result is axis `permutation[i]` of x.
    pub struct Transpose {
        /// The order; empty reverses the axes.
        pub permutation: Vec<usize> = Vec::new(),
    }
}

impl Transpose {
    /// The full permutation for a tensor of `rank` axes.
    pub fn resolved(&self, rank: usize) -> Result<Vec<usize>, Problem> {
        if self.permutation.is_empty() {
            return Ok((0..rank).rev().collect());
        }
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        if sorted.iter().copied().eq(0..rank) {
            return Ok(self.permutation.clone());
        }
        let why = format!("{:?} is not a permutation of {rank} axes", self.permutation);
        Err(Problem::attribute("permutation", why))
    }
}

/// The permutation that undoes another.
pub fn inverse(permutation: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; permutation.len()];
    for (to, &from) in permutation.iter().enumerate() {
        inverse[from] = to;
    }
    inverse
}

impl Operator for Transpose {
    fn arity(&self) -> Arity {
        Arity::exactly(1)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let permutation = self.resolved(x.rank())?;
        let dims = permutation.iter().map(|&axis| x.dims[axis].clone()).collect();
        Ok(vec![Fact::new(x.dtype, dims).with_integers(x.integers.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let permutation = self.resolved(x.rank())?;
        let shape: Vec<usize> = permutation.iter().map(|&axis| x.shape()[axis]).collect();
        let own = row_major_strides(x.shape());
        let strides: Vec<usize> = permutation.iter().map(|&axis| own[axis]).collect();
        Ok(vec![strided(x, 0, shape, &strides)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let dy = g.output_grad()?;
        let rank = g.fact(dy).rank();
        let permutation = self.resolved(rank).map_err(|_| Stops::Because("not a permutation"))?;
        Ok(vec![Some(g.op(Transpose { permutation: inverse(&permutation) }, &[dy])?)])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let permutation = self.resolved(outputs[0].rank()).unwrap_or_default();
        let link = |(output_axis, &input_axis): (usize, &usize)| AxisLink::Same {
            output: 0,
            output_axis,
            input: 0,
            input_axis,
        };
        permutation.iter().enumerate().map(link).collect()
    }

    fn quant(&self) -> Quant {
        Quant::SameAsInput
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        Cost::free()
    }
}
