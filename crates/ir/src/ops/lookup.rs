//! Any function of one byte, as a table; and sums and products of bytes.

use lepton_tensor::{DType, Tensor, broadcast_shapes};

use super::binary::BinaryFunction;
use super::unary::same_axes;
use super::walk::{broadcast_dims, broadcast_positions};
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::ops::binary::Binary;

attributes! {
    /// `table[x]`: x u8, or i8 by its bits, of any shape; table u8 `[256]`.
    pub struct Lookup {}
}

attributes! {
    /// `a ∘ b` of two u8 tensors that stand for reals, as a u8 tensor: with
    /// `f = (a − a_zero)·a_scale` and `g = (b − b_zero)·b_scale` in f32 (steps relative to the
    /// result's for sums; for products `b_scale` carries the step of the result), the result is
    /// `round_half_even(clamp(f ∘ g, low − zero, high − zero)) + zero`.
    pub struct IntegerBinary {
        /// `add` or `mul`.
        pub function: BinaryFunction = BinaryFunction::Add,
        /// Factor of a.
        pub a_scale: f32 = 1.0,
        /// Zero point of a.
        pub a_zero: i64 = 0,
        /// Factor of b.
        pub b_scale: f32 = 1.0,
        /// Zero point of b.
        pub b_zero: i64 = 0,
        /// Zero point of the result.
        pub zero: i64 = 0,
        /// Least result.
        pub low: i64 = 0,
        /// Greatest result.
        pub high: i64 = 255,
    }
}

impl Operator for Lookup {
    fn arity(&self) -> Arity {
        Arity::exactly(2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, table) = (inputs.required(0, "x")?, inputs.required(1, "table")?);
        if !matches!(x.dtype, DType::U8 | DType::I8) {
            return Err(Problem::dtype("x", "u8 or i8", x.dtype));
        }
        if table.dtype != DType::U8 {
            return Err(Problem::dtype("table", "u8", table.dtype));
        }
        if !table.count().is(256) {
            return Err(Problem::shape(format!("a table has 256 entries, found {table}")));
        }
        Ok(vec![Fact::new(DType::U8, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, table) = (inputs.required(0, "x")?, inputs.required(1, "table")?);
        let entries = table.as_slice::<u8>()?;
        let entry = |byte: u8| entries[usize::from(byte)];
        let values: Vec<u8> = match x.dtype() {
            DType::I8 => x.as_slice::<i8>()?.iter().map(|&byte| entry(byte as u8)).collect(),
            _ => x.as_slice::<u8>()?.iter().map(|&byte| entry(byte)).collect(),
        };
        Ok(vec![Tensor::from_slice(x.shape(), &values)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("integers have no gradient"))
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        same_axes(outputs[0].rank())
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        Cost::element_ops(outputs[0].count())
    }
}

impl Operator for IntegerBinary {
    fn arity(&self) -> Arity {
        Arity::exactly(2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        if !matches!(self.function, BinaryFunction::Add | BinaryFunction::Mul) {
            return Err(Problem::attribute("function", "must be add or mul"));
        }
        for fact in [a, b] {
            if fact.dtype != DType::U8 {
                return Err(Problem::dtype("operands", "u8", fact.dtype));
            }
        }
        Ok(vec![Fact::new(DType::U8, broadcast_dims(&a.dims, &b.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        let shape = broadcast_shapes(a.shape(), b.shape()).ok_or_else(|| {
            Problem::shape(format!("{:?} and {:?} do not broadcast", a.shape(), b.shape()))
        })?;
        let (at_a, at_b) =
            (broadcast_positions(a.shape(), &shape), broadcast_positions(b.shape(), &shape));
        let (x, y) = (a.as_slice::<u8>()?, b.as_slice::<u8>()?);
        let (low, high) = ((self.low - self.zero) as f32, (self.high - self.zero) as f32);
        let combine = |(i, j): (usize, usize)| {
            let f = (x[i] as i64 - self.a_zero) as f32 * self.a_scale;
            let g = (y[j] as i64 - self.b_zero) as f32 * self.b_scale;
            let h = if self.function == BinaryFunction::Add { f + g } else { f * g };
            (h.max(low).min(high).round_ties_even() as i64 + self.zero) as u8
        };
        let values: Vec<u8> = at_a.into_iter().zip(at_b).map(combine).collect();
        Ok(vec![Tensor::from_slice(shape, &values)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("integers have no gradient"))
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        Binary::new(self.function).axes(inputs, outputs)
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        Cost::element_ops(outputs[0].count())
    }
}
