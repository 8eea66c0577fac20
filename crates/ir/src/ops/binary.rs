//! Functions of two elements with NumPy broadcasting, as a table.

use lepton_tensor::{DType, Tensor, broadcast_shapes};

use super::unary::multiply;
use super::walk::{broadcast_dims, broadcast_positions, require_same};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::ops::unary::{Unary, UnaryFunction};
use crate::{attributes, words};

words! {
    /// Which function.
    pub enum BinaryFunction {
        /// a + b
        Add = "add",
        /// a − b
        Sub = "sub",
        /// a · b
        Mul = "mul",
        /// a / b; integers round toward zero
        Div = "div",
        /// aᵇ; the result has the type of a
        Pow = "pow",
        /// The larger
        Max = "max",
        /// The smaller
        Min = "min",
        /// Remainder with the sign of the divisor (Python's)
        Mod = "mod",
        /// Remainder with the sign of the dividend (C's `fmod`)
        Fmod = "fmod",
        /// a for a ≥ 0, else a·b: the parametric rectifier
        Prelu = "prelu",
        /// a = b, as bool
        Equal = "equal",
        /// a < b, as bool
        Less = "less",
        /// a ≤ b, as bool
        LessOrEqual = "less_or_equal",
        /// a > b, as bool
        Greater = "greater",
        /// a ≥ b, as bool
        GreaterOrEqual = "greater_or_equal",
        /// a ∧ b
        And = "and",
        /// a ∨ b
        Or = "or",
        /// a ⊕ b
        Xor = "xor",
    }
}

attributes! {
    /// One function of two tensors, which broadcast against each other.
    pub struct Binary {
        /// Which function.
        pub function: BinaryFunction = BinaryFunction::Add,
    }
}

impl BinaryFunction {
    /// True if the result is `bool`.
    pub fn is_comparison(self) -> bool {
        use BinaryFunction as F;
        matches!(
            self,
            F::Equal
                | F::Less
                | F::LessOrEqual
                | F::Greater
                | F::GreaterOrEqual
                | F::And
                | F::Or
                | F::Xor
        )
    }

    /// True for those that ask which operand is larger, or whether one is.
    pub fn compares_order(self) -> bool {
        use BinaryFunction as F;
        matches!(self, F::Equal | F::Less | F::LessOrEqual | F::Greater | F::GreaterOrEqual)
    }

    /// True if the operands may be exchanged.
    pub fn is_commutative(self) -> bool {
        use BinaryFunction as F;
        matches!(self, F::Add | F::Mul | F::Max | F::Min | F::Equal | F::And | F::Or | F::Xor)
    }

    fn float(self, a: f64, b: f64) -> f64 {
        use BinaryFunction as F;
        let truth = |t: bool| t as u8 as f64;
        match self {
            F::Add => a + b,
            F::Sub => a - b,
            F::Mul => a * b,
            F::Div => a / b,
            F::Pow => a.powf(b),
            F::Max => {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.max(b)
                }
            }
            F::Min => {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.min(b)
                }
            }
            F::Mod => {
                let r = a % b;
                if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
            }
            F::Fmod => a % b,
            F::Prelu => {
                if a >= 0.0 {
                    a
                } else {
                    a * b
                }
            }
            F::Equal => truth(a == b),
            F::Less => truth(a < b),
            F::LessOrEqual => truth(a <= b),
            F::Greater => truth(a > b),
            F::GreaterOrEqual => truth(a >= b),
            F::And => truth(a != 0.0 && b != 0.0),
            F::Or => truth(a != 0.0 || b != 0.0),
            F::Xor => truth((a != 0.0) != (b != 0.0)),
        }
    }

    fn integer(self, a: i64, b: i64) -> Result<i64, Problem> {
        use BinaryFunction as F;
        let zero = || Problem::value("integer division by zero");
        Ok(match self {
            F::Add => a.wrapping_add(b),
            F::Sub => a.wrapping_sub(b),
            F::Mul => a.wrapping_mul(b),
            F::Div => {
                if b == 0 {
                    return Err(zero());
                } else {
                    a.wrapping_div(b)
                }
            }
            F::Mod if b == 0 => return Err(zero()),
            F::Mod => {
                let r = a.wrapping_rem(b);
                if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
            }
            F::Fmod => {
                if b == 0 {
                    return Err(zero());
                } else {
                    a.wrapping_rem(b)
                }
            }
            F::Pow => match u32::try_from(b) {
                Ok(power) => a.wrapping_pow(power),
                Err(_) => (a as f64).powf(b as f64) as i64,
            },
            F::Max => a.max(b),
            F::Min => a.min(b),
            F::Prelu => {
                if a >= 0 {
                    a
                } else {
                    a.wrapping_mul(b)
                }
            }
            F::Equal => (a == b) as i64,
            F::Less => (a < b) as i64,
            F::LessOrEqual => (a <= b) as i64,
            F::Greater => (a > b) as i64,
            F::GreaterOrEqual => (a >= b) as i64,
            F::And => (a != 0 && b != 0) as i64,
            F::Or => (a != 0 || b != 0) as i64,
            F::Xor => ((a != 0) != (b != 0)) as i64,
        })
    }

    /// The function on integers that follow from extents, where it stays a polynomial.
    fn symbolic(self, a: &Dim, b: &Dim) -> Dim {
        use BinaryFunction as F;
        match self {
            F::Add => a.clone() + b.clone(),
            F::Sub => a.clone() - b.clone(),
            F::Mul => a.clone() * b.clone(),
            F::Div => a.floor_div(b),
            F::Max => a.larger(b),
            F::Min => a.smaller(b),
            F::Mod => a.clone() - b.clone() * a.floor_div(b),
            F::Equal => match (a.as_known(), b.as_known()) {
                (Some(x), Some(y)) => Dim::known((x == y) as i64),
                _ if a == b => Dim::known(1),
                _ => Dim::unknown(),
            },
            _ => match (a.as_known(), b.as_known()) {
                (Some(x), Some(y)) => self.integer(x, y).map_or(Dim::unknown(), Dim::known),
                _ => Dim::unknown(),
            },
        }
    }
}

impl Binary {
    /// The operator for one function.
    pub fn new(function: BinaryFunction) -> Self {
        Binary { function }
    }

    fn follow(&self, a: &Fact, b: &Fact) -> Option<Vec<Dim>> {
        let (x, y) = (a.integers.as_ref()?, b.integers.as_ref()?);
        let count = x.len().max(y.len());
        if (x.len() != count && x.len() != 1) || (y.len() != count && y.len() != 1) {
            return None;
        }
        let at = |v: &[Dim], i: usize| v[if v.len() == 1 { 0 } else { i }].clone();
        Some((0..count).map(|i| self.function.symbolic(&at(x, i), &at(y, i))).collect())
    }
}

/// A function of every two elements that meet in the shape that two tensors broadcast to; `x` and
/// `y` are their elements. Tensors of that shape, and single elements, need no positions.
fn each_pair<'a, T: Copy + 'a, R: 'a>(
    [a, b]: [&Tensor; 2],
    shape: &[usize],
    x: &'a [T],
    y: &'a [T],
    function: impl Fn(T, T) -> R + 'a,
) -> Box<dyn Iterator<Item = R> + 'a> {
    let whole = |tensor: &Tensor| tensor.shape() == shape;
    match (x, y) {
        _ if whole(a) && whole(b) => Box::new(x.iter().zip(y).map(move |(&x, &y)| function(x, y))),
        (_, &[y]) if whole(a) => Box::new(x.iter().map(move |&x| function(x, y))),
        (&[x], _) if whole(b) => Box::new(y.iter().map(move |&y| function(x, y))),
        _ => {
            let at = [a, b].map(|tensor| broadcast_positions(tensor.shape(), shape));
            let [at_a, at_b] = at;
            let pairs = at_a.into_iter().zip(at_b);
            Box::new(pairs.map(move |(i, j)| function(x[i], y[j])))
        }
    }
}

impl Operator for Binary {
    fn arity(&self) -> Arity {
        Arity::exactly(2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        if self.function != BinaryFunction::Pow {
            require_same("b", a.dtype, b.dtype)?;
        }
        let dims = broadcast_dims(&a.dims, &b.dims)?;
        let dtype = if self.function.is_comparison() { DType::Bool } else { a.dtype };
        let integers = self.follow(a, b);
        Ok(vec![Fact::new(dtype, dims).with_integers(integers)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        let shape = broadcast_shapes(a.shape(), b.shape()).ok_or_else(|| {
            Problem::shape(format!("{:?} and {:?} do not broadcast", a.shape(), b.shape()))
        })?;
        let dtype = if self.function.is_comparison() { DType::Bool } else { a.dtype() };
        if let (Ok(x), Ok(y)) = (a.as_slice::<f32>(), b.as_slice::<f32>()) {
            let function = |x: f32, y: f32| self.function.float(f64::from(x), f64::from(y));
            let values: Vec<f64> = each_pair([a, b], &shape, x, y, function).collect();
            return Ok(vec![Tensor::from_f64_slice(dtype, shape, &values)?]);
        }
        if a.dtype().is_float() || b.dtype().is_float() {
            let (x, y) = (a.to_f64_vec(), b.to_f64_vec());
            let function = |x, y| self.function.float(x, y);
            let values: Vec<f64> = each_pair([a, b], &shape, &x, &y, function).collect();
            return Ok(vec![Tensor::from_f64_slice(dtype, shape, &values)?]);
        }
        let (x, y) = (a.to_i64_vec(), b.to_i64_vec());
        let function = |x, y| self.function.integer(x, y);
        let values: Result<Vec<i64>, Problem> =
            each_pair([a, b], &shape, &x, &y, function).collect();
        Ok(vec![Tensor::from_i64_slice(dtype, shape, &values?)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        use BinaryFunction as F;
        let dy = g.output_grad()?;
        let (a, b) = (g.input(0), g.input(1));
        let neg = |g: &mut Backward<'_>, x| g.op(Unary::new(UnaryFunction::Neg), &[x]);
        let op = |g: &mut Backward<'_>, f, x, y| g.op(Binary::new(f), &[x, y]);
        let (da, db) = match self.function {
            F::Add => (dy, dy),
            F::Sub => (dy, neg(g, dy)?),
            F::Mul => (multiply(g, dy, b)?, multiply(g, dy, a)?),
            F::Div => {
                let da = op(g, F::Div, dy, b)?;
                let y = g.output();
                let scaled = multiply(g, da, y)?;
                (da, neg(g, scaled)?)
            }
            F::Max | F::Min => {
                let (x, y) = if self.function == F::Max { (a, b) } else { (b, a) };
                let difference = op(g, F::Sub, x, y)?;
                let positive = g.op(Unary::new(UnaryFunction::Relu), &[difference])?;
                let first = g.op(Unary::new(UnaryFunction::Sign), &[positive])?;
                let da = multiply(g, dy, first)?;
                (da, op(g, F::Sub, dy, da)?)
            }
            F::Pow => {
                let one = g.scalar_like(b, 1.0);
                let lower = op(g, F::Sub, b, one)?;
                let power = op(g, F::Pow, a, lower)?;
                let slope = multiply(g, power, b)?;
                let da = multiply(g, dy, slope)?;
                let (da, a_fact) = (da, a);
                let da = super::sum_to::sum_to_like(g, da, a_fact)?;
                return Ok(vec![Some(da), None]);
            }
            F::Prelu => return Err(Stops::Because("the slope of a PReLU is not trained yet")),
            _ => return Err(Stops::Because("a comparison is flat almost everywhere")),
        };
        let da = super::sum_to::sum_to_like(g, da, a)?;
        let db = super::sum_to::sum_to_like(g, db, b)?;
        Ok(vec![Some(da), Some(db)])
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let rank = outputs[0].rank();
        let mut links = Vec::new();
        for (input, fact) in [(0, inputs.optional(0)), (1, inputs.optional(1))] {
            let Some(fact) = fact else { continue };
            let lead = rank - fact.rank();
            for (axis, dim) in fact.dims.iter().enumerate().filter(|(_, dim)| !dim.is(1)) {
                debug_assert!(!dim.is(1));
                let output_axis = axis + lead;
                links.push(AxisLink::Same { output: 0, output_axis, input, input_axis: axis });
            }
        }
        links
    }

    fn quant(&self) -> Quant {
        match self.function {
            BinaryFunction::Add | BinaryFunction::Mul | BinaryFunction::Sub => Quant::Requantise,
            _ => Quant::FloatOnly("no integer kernel for this function"),
        }
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        Cost::element_ops(outputs[0].count())
    }
}
