//! Operators on the bits of elements.

use lepton_tensor::{DType, Storage, Tensor, broadcast_shapes};

use super::facets::facets;
use super::unary::same_axes;
use super::walk::{broadcast_dims, broadcast_positions, require_same};
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};
use crate::{attributes, words};

words! {
    /// Which function of the bits.
    pub enum BitFunction {
        /// Bits that both have
        And = "and",
        /// Bits that either has
        Or = "or",
        /// Bits that one of them has
        Xor = "xor",
        /// a · 2ᵇ, what does not fit is lost; 0 for b outside the width of the type
        Left = "left",
        /// a / 2ᵇ rounded down; 0, or −1 for a negative a, for b outside the width of the type
        Right = "right",
    }
}

attributes! {
    /// One function of the bits of two tensors of one integer type, which broadcast.
    pub struct Bitwise {
        /// Which function.
        pub function: BitFunction = BitFunction::And,
    }
}

attributes! {
    /// The bits of x as elements of a type of the same size.
    pub struct BitCast {
        /// Type of the result.
        pub to: DType = DType::I32,
    }
}

impl BitFunction {
    /// The function of two elements of `width` bits; what the caller keeps are the low ones.
    fn apply(self, a: i64, b: i64, width: u32, signed: bool) -> i64 {
        let shift = u32::try_from(b).ok().filter(|&b| b < width);
        match (self, shift) {
            (BitFunction::And, _) => a & b,
            (BitFunction::Or, _) => a | b,
            (BitFunction::Xor, _) => a ^ b,
            (BitFunction::Left, Some(shift)) => a << shift,
            (BitFunction::Left, None) => 0,
            (BitFunction::Right, Some(shift)) if signed => a >> shift,
            (BitFunction::Right, Some(shift)) => (a as u64 >> shift) as i64,
            (BitFunction::Right, None) => -i64::from(signed && a < 0),
        }
    }
}

impl Operator for Bitwise {
    facets! {
        arity = Arity::exactly(2),
        stops = "bits are flat",
        quant = Quant::NotApplicable,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        require_same("b", a.dtype, b.dtype)?;
        if !a.dtype.is_integer() {
            return Err(Problem::dtype("a", "an integer", a.dtype));
        }
        Ok(vec![Fact::new(a.dtype, broadcast_dims(&a.dims, &b.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        let shape = broadcast_shapes(a.shape(), b.shape())
            .ok_or_else(|| Problem::shape("the operands do not broadcast"))?;
        let width = a.dtype().bits() as u32;
        let (left, right) = (a.to_i64_vec(), b.to_i64_vec());
        let places = [a, b].map(|t| broadcast_positions(t.shape(), &shape));
        let pairs = places[0].iter().zip(&places[1]);
        let one = |(&i, &j): (&usize, &usize)| {
            self.function.apply(left[i], right[j], width, a.dtype().is_signed_integer())
        };
        let values: Vec<i64> = pairs.map(one).collect();
        Ok(vec![Tensor::from_i64_slice(a.dtype(), shape, &values)?])
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let same_rank = inputs.0.iter().flatten().all(|f| f.dims == outputs[0].dims);
        if same_rank { same_axes(outputs[0].rank()) } else { Vec::new() }
    }
}

impl Operator for BitCast {
    facets! {
        arity = Arity::exactly(1),
        stops = "bits are flat",
        quant = Quant::NotApplicable,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.dtype.bits() != self.to.bits() {
            let why = format!("{} and {} have different sizes", x.dtype, self.to);
            return Err(Problem::attribute("to", why));
        }
        Ok(vec![Fact::new(self.to, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        self.infer(Operands(&[Some(&Fact::of(x))]))?;
        Ok(vec![Tensor::new(self.to, x.shape(), Storage::copied(x.bytes()))?])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        same_axes(outputs[0].rank())
    }
}
