//! The reverse of broadcasting: sums back to the shape a tensor had before.

use lepton_tensor::{Tensor, row_major_strides};

use super::walk::{broadcast_strides, for_each_index, offset};
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::ops::unary::same_axes;

attributes! {
    /// Sums input 0 over the axes along which input 1 would be broadcast to it; the result has
    /// the shape of input 1.
    pub struct SumTo {}
}

/// `value` summed to the shape of `like`; nothing is added where the shapes agree already.
pub(crate) fn sum_to_like(
    g: &mut Backward<'_>,
    value: ValueId,
    like: ValueId,
) -> Result<ValueId, Stops> {
    if g.fact(value).dims == g.fact(like).dims {
        return Ok(value);
    }
    g.op(SumTo {}, &[value, like])
}

impl Operator for SumTo {
    fn arity(&self) -> Arity {
        Arity::exactly(2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, like) = (inputs.required(0, "x")?, inputs.required(1, "like")?);
        if like.rank() > x.rank() {
            return Err(Problem::shape(format!("{x} cannot be summed to the larger {like}")));
        }
        Ok(vec![Fact::new(x.dtype, like.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, like) = (inputs.required(0, "x")?, inputs.required(1, "like")?);
        let target = broadcast_strides(like.shape(), x.shape());
        let source = row_major_strides(x.shape());
        let values = x.to_f64_vec();
        let mut sums = vec![0.0; like.len()];
        for_each_index(x.shape(), |index| {
            sums[offset(index, &target)] += values[offset(index, &source)];
        });
        Ok(vec![Tensor::from_f64_slice(x.dtype(), like.shape(), &sums)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("it only occurs in gradients"))
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let aligned = inputs.optional(0).is_some_and(|x| x.dims == outputs[0].dims);
        if aligned { same_axes(outputs[0].rank()) } else { Vec::new() }
    }

    fn quant(&self) -> Quant {
        Quant::FloatOnly("it only occurs in gradients")
    }

    fn cost(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        inputs.optional(0).map_or_else(Cost::free, |x| Cost::element_ops(x.count()))
    }
}
