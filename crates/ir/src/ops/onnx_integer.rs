//! ONNX's integer products and its quantisation with parameters found from the data.

use lepton_tensor::{DType, Layout, Tensor};

use super::conv::{Conv, conv_axes, conv_cost, convolve_values};
use super::dynamic::dynamic_parameters;
use super::facets::facets;
use super::matmul::{MatMul, multiply, product_dims};
use super::unary::{Unary, same_axes};
use super::window::AutoPad;
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// x f32 as u8 with one scale and zero point found from its range: results y u8, scale f32
    /// scalar, zero point u8 scalar.
    pub struct DynamicQuantizeLinear {}
}

attributes! {
    /// `(a − a_zero)·(b − b_zero)` in int32: a `[…,M,K]` and b `[…,K,N]` u8 or i8; zero points
    /// are optional, scalars or one per row of a and per column of b.
    pub struct MatMulInteger {}
}

attributes! {
    /// `conv(x − x_zero, w − w_zero)` in int32: x `[N,C,spatial…]` and w `[M,C/group,kernel…]` u8
    /// or i8; x_zero an optional scalar, w_zero optional, a scalar or `[M]`.
    pub struct ConvInteger {
        /// Step along each spatial axis; empty means 1.
        pub strides: Vec<usize> = Vec::new(),
        /// Padding before each axis, then after each; empty means 0.
        pub pads: Vec<usize> = Vec::new(),
        /// Distance between taps; empty means 1.
        pub dilations: Vec<usize> = Vec::new(),
        /// Number of groups of channels that do not see each other.
        pub group: usize = 1,
        /// How padding is given.
        pub auto_pad: AutoPad = AutoPad::Explicit,
    }
}

fn check_types(inputs: Operands<'_, Fact>, names: [&'static str; 2]) -> Result<(), Problem> {
    for (index, name) in names.into_iter().enumerate() {
        let operand = inputs.required(index, name)?;
        if !matches!(operand.dtype, DType::U8 | DType::I8) {
            return Err(Problem::dtype(name, "u8 or i8", operand.dtype));
        }
        if let Some(zero) = inputs.optional(index + 2) {
            super::walk::require_same("a zero point", operand.dtype, zero.dtype)?;
            if zero.rank() > 1 {
                return Err(Problem::Unsupported(format!("a zero point of {zero}")));
            }
        }
    }
    Ok(())
}

/// The elements minus the zero point of their slice; slices are `inner` elements long.
fn centred(x: &Tensor, zero: Option<&Tensor>, inner: usize) -> Result<Vec<f64>, Problem> {
    let mut values = x.to_f64_vec();
    let Some(zero) = zero.map(Tensor::to_f64_vec) else { return Ok(values) };
    if zero.is_empty()
        || (zero.len() > 1 && !values.len().is_multiple_of(zero.len() * inner.max(1)))
    {
        return Err(Problem::shape(format!("{} zero points for {:?}", zero.len(), x.shape())));
    }
    for (i, value) in values.iter_mut().enumerate() {
        *value -= zero[i / inner.max(1) % zero.len()];
    }
    Ok(values)
}

fn wrapped(shape: Vec<usize>, sums: &[f64]) -> Result<Tensor, Problem> {
    let values: Vec<i32> = sums.iter().map(|&sum| sum as i64 as i32).collect();
    Ok(Tensor::from_slice(shape, &values)?)
}

impl Operator for DynamicQuantizeLinear {
    facets! {
        arity = Arity::exactly(1).outputs(3, 3),
        stops = "rounding is flat; training uses a straight-through estimate",
        quant = Quant::NotApplicable,
        element_ops = 3,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.dtype != DType::F32 {
            return Err(Problem::dtype("x", "f32", x.dtype));
        }
        let scalar = |dtype| Fact::new(dtype, Vec::new());
        Ok(vec![Fact::new(DType::U8, x.dims.clone()), scalar(DType::F32), scalar(DType::U8)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let values = x.as_slice::<f32>()?;
        let (scale, zero) = dynamic_parameters(values.iter().copied());
        let quantise = |v: &f32| {
            let q = (v / scale).round_ties_even() + zero as f32;
            if q.is_nan() { zero } else { q.clamp(0.0, 255.0) as u8 }
        };
        let bytes: Vec<u8> = values.iter().map(quantise).collect();
        let y = Tensor::from_slice(x.shape(), &bytes)?;
        Ok(vec![y, Tensor::scalar(scale), Tensor::scalar(zero)])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        same_axes(outputs[0].rank())
    }
}

impl Operator for MatMulInteger {
    facets! {
        arity = Arity::between(2, 4),
        stops = "integers have no gradient",
        quant = Quant::NotApplicable,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        check_types(inputs, ["a", "b"])?;
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        Ok(vec![Fact::new(DType::I32, product_dims(&a.dims, &b.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (a, b) = (inputs.required(0, "a")?, inputs.required(1, "b")?);
        let left = centred(a, inputs.optional(2), a.shape().last().copied().unwrap_or(1))?;
        let right = centred(b, inputs.optional(3), 1)?;
        let (shape, sums) = multiply(a.shape(), &left, b.shape(), &right)?;
        Ok(vec![wrapped(shape, &sums)?])
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        MatMul {}.axes(Operands(&inputs.0[..inputs.len().min(2)]), outputs)
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        let k = inputs.optional(0).and_then(|a| a.dims.last().cloned());
        Cost::multiply_adds(outputs[0].count() * k.unwrap_or_else(|| Dim::known(0)))
    }
}

impl ConvInteger {
    fn conv(&self) -> Conv {
        Conv {
            strides: self.strides.clone(),
            pads: self.pads.clone(),
            dilations: self.dilations.clone(),
            group: self.group,
            auto_pad: self.auto_pad,
            layout: Layout::Nchw,
            activation: Unary::default(),
        }
    }
}

impl Operator for ConvInteger {
    facets! {
        arity = Arity::between(2, 4),
        stops = "integers have no gradient",
        quant = Quant::NotApplicable,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        check_types(inputs, ["x", "w"])?;
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        if inputs.optional(2).is_some_and(|z| z.count().as_known().is_some_and(|n| n != 1)) {
            return Err(Problem::shape("the zero point of x must be one number"));
        }
        let as_float = |fact: &Fact| Fact::new(DType::F32, fact.dims.clone());
        let made = self.conv().infer(Operands(&[Some(&as_float(x)), Some(&as_float(w))]))?;
        Ok(vec![Fact::new(DType::I32, made[0].dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        let activations = centred(x, inputs.optional(2), 1)?;
        let weights = centred(w, inputs.optional(3), w.shape()[1..].iter().product())?;
        let sums = convolve_values(&self.conv(), x.shape(), &activations, w.shape(), &weights)?;
        Ok(vec![wrapped(sums.shape, &sums.values)?])
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let operands = Operands(&inputs.0[..inputs.len().min(2)]);
        conv_axes(Layout::Nchw, self.group, operands, outputs)
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        conv_cost(inputs, outputs)
    }
}
