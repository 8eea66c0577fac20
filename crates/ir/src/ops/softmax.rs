//! Normalised exponentials along one axis.

use lepton_tensor::Tensor;

use super::walk::{require_float, resolve_axis};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// `e^(x−max) / Σ e^(x−max)` along `axis`, or its logarithm.
    pub struct Softmax {
        /// Axis; negative counts from the back.
        pub axis: i64 = -1,
        /// True for the logarithm.
        pub log: bool = false,
    }
}

impl Operator for Softmax {
    fn arity(&self) -> Arity {
        Arity::exactly(1)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_float("x", x.dtype)?;
        resolve_axis(self.axis, x.rank())?;
        Ok(vec![Fact::new(x.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.rank() == 0 {
            let value = if self.log { 0.0 } else { 1.0 };
            return Ok(vec![Tensor::from_f64_slice(x.dtype(), Vec::new(), &[value])?]);
        }
        let axis = resolve_axis(self.axis, x.rank())?;
        let extent = x.shape()[axis];
        let inner: usize = x.shape()[axis + 1..].iter().product();
        let mut values = x.to_f64_vec();
        let lanes = values.len().checked_div(extent).unwrap_or(0);
        for lane in 0..lanes {
            let first = lane / inner * inner * extent + lane % inner;
            let at = |i: usize| first + i * inner;
            let max = (0..extent).map(|i| values[at(i)]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..extent).map(|i| (values[at(i)] - max).exp()).sum();
            for i in 0..extent {
                let shifted = values[at(i)] - max;
                values[at(i)] = if self.log { shifted - sum.ln() } else { shifted.exp() / sum };
            }
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), x.shape(), &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::reduce::grad_of_softmax(self, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let rank = inputs.optional(0).map_or(0, Fact::rank);
        let mixed = resolve_axis(self.axis, rank).unwrap_or(0);
        let mut links: Vec<AxisLink> = (0..rank)
            .filter(|&axis| axis != mixed)
            .map(|axis| AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis })
            .collect();
        links.push(AxisLink::Frozen { input: 0, input_axis: mixed, why: "softmax mixes its axis" });
        links
    }

    fn quant(&self) -> Quant {
        Quant::FloatOnly("the exponential needs more range than 8 bits have")
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        Cost::element_ops(outputs[0].count() * Dim::known(3))
    }
}
