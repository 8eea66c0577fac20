//! Functions of one element, as a table.

use lepton_tensor::Tensor;

use super::walk::require_float;
use crate::attribute::{Attribute, AttributeValue};
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::ops::binary::{Binary, BinaryFunction};
use crate::{attributes, words};

words! {
    /// Which function.
    pub enum UnaryFunction {
        /// x
        Identity = "identity",
        /// −x
        Neg = "neg",
        /// |x|
        Abs = "abs",
        /// √x
        Sqrt = "sqrt",
        /// 1/x
        Reciprocal = "reciprocal",
        /// eˣ
        Exp = "exp",
        /// ln x
        Log = "log",
        /// 1/(1+e⁻ˣ)
        Sigmoid = "sigmoid",
        /// tanh x
        Tanh = "tanh",
        /// max(x, 0)
        Relu = "relu",
        /// x for x ≥ 0, else alpha·x
        LeakyRelu = "leaky_relu",
        /// x for x > 0, else alpha·(eˣ−1)
        Elu = "elu",
        /// beta·(x for x > 0, else alpha·(eˣ−1))
        Selu = "selu",
        /// min(max(x, alpha), beta)
        Clip = "clip",
        /// x·Φ(x), the exact form
        Gelu = "gelu",
        /// x·Φ(x), the tanh approximation
        GeluTanh = "gelu_tanh",
        /// x·sigmoid(alpha·x)
        Silu = "silu",
        /// min(max(alpha·x+beta, 0), 1)
        HardSigmoid = "hard_sigmoid",
        /// x·min(max(x/6+½, 0), 1)
        HardSwish = "hard_swish",
        /// x·tanh(ln(1+eˣ))
        Mish = "mish",
        /// ln(1+eˣ)
        Softplus = "softplus",
        /// x/(1+|x|)
        Softsign = "softsign",
        /// The error function
        Erf = "erf",
        /// Rounded toward −∞
        Floor = "floor",
        /// Rounded toward +∞
        Ceil = "ceil",
        /// Rounded to the nearest, halves to even
        Round = "round",
        /// −1, 0 or 1
        Sign = "sign",
        /// sin x
        Sin = "sin",
        /// cos x
        Cos = "cos",
        /// tan x
        Tan = "tan",
        /// arcsin x
        Asin = "asin",
        /// arccos x
        Acos = "acos",
        /// arctan x
        Atan = "atan",
        /// sinh x
        Sinh = "sinh",
        /// cosh x
        Cosh = "cosh",
        /// arsinh x
        Asinh = "asinh",
        /// arcosh x
        Acosh = "acosh",
        /// artanh x
        Atanh = "atanh",
        /// x for x > alpha, else 0
        ThresholdedRelu = "thresholded_relu",
        /// x−beta for x > alpha, x+beta for x < −alpha, else 0
        Shrink = "shrink",
    }
}

attributes! {
    /// One function applied to every element of one tensor of any shape.
    pub struct Unary {
        /// Which function.
        pub function: UnaryFunction = UnaryFunction::Identity,
        /// First parameter, for the functions that have one.
        pub alpha: f32 = 0.0,
        /// Second parameter, for the functions that have two.
        pub beta: f32 = 0.0,
    }
}

impl Unary {
    /// A function without parameters.
    pub fn new(function: UnaryFunction) -> Self {
        Unary { function, ..Unary::default() }
    }

    /// A function with parameters.
    pub fn with(function: UnaryFunction, alpha: f32, beta: f32) -> Self {
        Unary { function, alpha, beta }
    }

    /// Its value at `x`.
    pub fn apply(&self, x: f64) -> f64 {
        use UnaryFunction as F;
        let (a, b) = (self.alpha as f64, self.beta as f64);
        let elu = |x: f64| if x > 0.0 { x } else { a * x.exp_m1() };
        match self.function {
            F::Identity => x,
            F::Neg => -x,
            F::Abs => x.abs(),
            F::Sqrt => x.sqrt(),
            F::Reciprocal => 1.0 / x,
            F::Exp => x.exp(),
            F::Log => x.ln(),
            F::Sigmoid => sigmoid(x),
            F::Tanh => x.tanh(),
            F::Relu => relu(x),
            F::LeakyRelu => leaky_relu(x, a),
            F::Elu => elu(x),
            F::Selu => b * elu(x),
            F::Clip => clip(x, a, b),
            F::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            F::GeluTanh => {
                let c = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * x * (1.0 + (c * (x + 0.044715 * x * x * x)).tanh())
            }
            F::Silu => x * sigmoid(a * x),
            F::HardSigmoid => (a * x + b).clamp(0.0, 1.0),
            F::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            F::Mish => x * softplus(x).tanh(),
            F::Softplus => softplus(x),
            F::Softsign => x / (1.0 + x.abs()),
            F::Erf => erf(x),
            F::Floor => x.floor(),
            F::Ceil => x.ceil(),
            F::Round => x.round_ties_even(),
            F::Sign => {
                if x == 0.0 || x.is_nan() {
                    x
                } else {
                    x.signum()
                }
            }
            F::Sin => x.sin(),
            F::Cos => x.cos(),
            F::Tan => x.tan(),
            F::Asin => x.asin(),
            F::Acos => x.acos(),
            F::Atan => x.atan(),
            F::Sinh => x.sinh(),
            F::Cosh => x.cosh(),
            F::Asinh => x.asinh(),
            F::Acosh => x.acosh(),
            F::Atanh => x.atanh(),
            F::ThresholdedRelu => {
                if x > a {
                    x
                } else {
                    0.0
                }
            }
            F::Shrink => shrink(x, a, b),
        }
    }

    /// True if it is only a lower and an upper bound, which a quantised epilogue gets for free.
    pub fn bounds(&self) -> Option<(f32, f32)> {
        match self.function {
            UnaryFunction::Identity => Some((f32::NEG_INFINITY, f32::INFINITY)),
            UnaryFunction::Relu => Some((0.0, f32::INFINITY)),
            UnaryFunction::Clip => Some((self.alpha, self.beta)),
            _ => None,
        }
    }

    /// Functions that also take integers.
    fn takes_integers(&self) -> bool {
        use UnaryFunction as F;
        matches!(self.function, F::Identity | F::Neg | F::Abs | F::Sign | F::Relu | F::Clip)
    }
}

/// As an attribute of another operator (its activation): `relu`, `clip(0,6)`.
impl AttributeValue for Unary {
    fn to_attribute(&self) -> Attribute {
        let word = self.function.word();
        Attribute::Text(if self.alpha == 0.0 && self.beta == 0.0 {
            word.to_string()
        } else {
            format!("{word}({},{})", self.alpha, self.beta)
        })
    }

    fn from_attribute(attribute: &Attribute) -> Result<Self, String> {
        let text = String::from_attribute(attribute)?;
        let (word, parameters) = match text.strip_suffix(')').and_then(|t| t.split_once('(')) {
            Some((word, parameters)) => (word, Some(parameters)),
            None => (text.as_str(), None),
        };
        let function =
            UnaryFunction::from_word(word).ok_or_else(|| format!("unknown function `{word}`"))?;
        let Some((alpha, beta)) = parameters.map(|p| p.split_once(',').unwrap_or((p, "0"))) else {
            return Ok(Unary::new(function));
        };
        let number = |t: &str| t.trim().parse().map_err(|_| format!("`{t}` is not a number"));
        Ok(Unary::with(function, number(alpha)?, number(beta)?))
    }
}

fn leaky_relu(x: f64, slope: f64) -> f64 {
    if x >= 0.0 { x } else { slope * x }
}

/// NaN stays NaN.
fn clip(x: f64, low: f64, high: f64) -> f64 {
    if x.is_nan() { x } else { x.max(low).min(high) }
}

fn shrink(x: f64, threshold: f64, bias: f64) -> f64 {
    if x > threshold {
        x - bias
    } else if x < -threshold {
        x + bias
    } else {
        0.0
    }
}

fn relu(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { x.exp().ln_1p() }
}

/// The error function: its Maclaurin series near zero, a continued fraction (Abramowitz and
/// Stegun 7.1.14) beyond 3. Accurate to about 1e-15.
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let magnitude = x.abs();
    if magnitude < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 * sum.abs().max(1e-300) && n < 200.0 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    if magnitude > 6.0 {
        return x.signum();
    }
    let mut fraction = magnitude;
    for k in (1..=60).rev() {
        fraction = magnitude + (k as f64 / 2.0) / fraction;
    }
    let complement = (-x * x).exp() / (fraction * std::f64::consts::PI.sqrt());
    x.signum() * (1.0 - complement)
}

impl Operator for Unary {
    fn arity(&self) -> Arity {
        Arity::exactly(1)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if self.function != UnaryFunction::Identity && !self.takes_integers() {
            require_float("x", x.dtype)?;
        }
        let integers = x.integers.clone().filter(|_| self.function == UnaryFunction::Identity);
        Ok(vec![Fact::new(x.dtype, x.dims.clone()).with_integers(integers)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        if self.function == UnaryFunction::Identity {
            return Ok(vec![x.clone()]);
        }
        let values: Vec<f64> = x.to_f64_vec().into_iter().map(|v| self.apply(v)).collect();
        Ok(vec![Tensor::from_f64_slice(x.dtype(), x.shape(), &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::unary_grad::grad(self, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let rank = inputs.optional(0).map_or(0, Fact::rank);
        same_axes(rank)
    }

    fn quant(&self) -> Quant {
        if self.function == UnaryFunction::Identity { Quant::SameAsInput } else { Quant::Table }
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        if self.function == UnaryFunction::Identity {
            return Cost::free();
        }
        Cost::element_ops(outputs[0].count())
    }
}

/// Every axis of input 0 is the same axis of output 0.
pub(crate) fn same_axes(rank: usize) -> Vec<AxisLink> {
    let link = |axis| AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis };
    (0..rank).map(link).collect()
}

/// `x·y` as a gradient node.
pub(crate) fn multiply(g: &mut Backward<'_>, x: ValueId, y: ValueId) -> Result<ValueId, Stops> {
    g.op(Binary::new(BinaryFunction::Mul), &[x, y])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_matches_known_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, y) in [(0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (0.0, 0.0)] {
            assert!((erf(x) - y).abs() < 1e-9, "erf({x})");
            assert!((erf(-x) + y).abs() < 1e-9, "erf(-{x})");
        }
        // The two branches meet.
        assert!((erf(3.0 - 1e-9) - erf(3.0 + 1e-9)).abs() < 1e-10);
    }

    #[test]
    fn words_are_unique() {
        for &f in UnaryFunction::ALL {
            assert_eq!(UnaryFunction::from_word(f.word()), Some(f));
        }
    }
}
