//! Change of element type.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::unary::same_axes;
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};

attributes! {
    /// x as elements of type `to`: floats become integers by truncation toward zero (saturating,
    /// but wrapping into those below 8 bits), integers wrap into shorter ones, anything but zero is true. What is larger than a float type
    /// has becomes its infinity, else not-a-number, else (4 bits) its largest.
    pub struct Cast {
        /// Type of the result.
        pub to: DType = DType::F32,
    }
}

impl Operator for Cast {
    facets! {
        arity = Arity::exactly(1),
        quant = Quant::NotApplicable,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        // Extents fit 32 and 64 bits; shorter types could wrap, and reals are not followed.
        let follows = matches!(self.to, DType::I64 | DType::U64 | DType::I32 | DType::U32);
        let integers = x.integers.clone().filter(|values| {
            let fits = |value: i64| value >= 0 && value <= i32::MAX as i64;
            let known = values.iter().filter_map(|v| v.as_known());
            follows && (self.to == DType::I64 || known.clone().all(fits)) || self.to == x.dtype
        });
        Ok(vec![Fact::new(self.to, x.dims.clone()).with_integers(integers)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.dtype().is_integer() && self.to.is_integer() {
            return Ok(vec![Tensor::from_i64_slice(self.to, x.shape(), &x.to_i64_vec())?]);
        }
        if self.to.bits() < 8 && self.to.is_integer() {
            return Ok(vec![Tensor::from_i64_slice(self.to, x.shape(), &x.to_i64_vec())?]);
        }
        Ok(vec![Tensor::from_f64_slice(self.to, x.shape(), &x.to_f64_vec())?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let x = g.input(0);
        if !self.to.is_float() {
            return Err(Stops::Because("rounding to integers is flat"));
        }
        if !g.differentiable(x) {
            return Ok(vec![None]);
        }
        let (dy, to) = (g.output_grad()?, g.fact(x).dtype);
        Ok(vec![Some(g.op(Cast { to }, &[dy])?)])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        same_axes(outputs[0].rank())
    }
}
