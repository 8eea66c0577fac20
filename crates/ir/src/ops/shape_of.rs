//! Extents as data.

use lepton_tensor::{DType, Tensor};

use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// The extents of x from axis `start` to before `end`, as `i64`; bounds clamp to the rank
    /// and may be negative.
    pub struct Shape {
        /// First axis.
        pub start: i64 = 0,
        /// Axis after the last.
        pub end: i64 = i64::MAX,
    }
}

impl Shape {
    fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let clamp = |bound: i64| {
            let from_front = if bound < 0 { bound.saturating_add(rank as i64) } else { bound };
            from_front.clamp(0, rank as i64) as usize
        };
        let (start, end) = (clamp(self.start), clamp(self.end));
        start..end.max(start)
    }
}

impl Operator for Shape {
    fn arity(&self) -> Arity {
        Arity::exactly(1)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let extents = x.dims[self.range(x.rank())].to_vec();
        let count = Dim::from(extents.len());
        Ok(vec![Fact::new(DType::I64, vec![count]).with_integers(Some(extents))])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let extents: Vec<i64> =
            x.shape()[self.range(x.rank())].iter().map(|&extent| extent as i64).collect();
        Ok(vec![Tensor::vector(&extents)])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("extents do not depend on the elements"))
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        Vec::new()
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        Cost::free()
    }
}
