//! Matrix product and convolution with int8 weights whose activations are quantised as they
//! arrive.
//!
//! x is quantised to u8 over the whole tensor as ONNX's `DynamicQuantizeLinear` defines it, the
//! sums are exact int32, and the result is `activation(acc·(x_scale·w_scale[n]) + b[n] +
//! residual)` in f32.

use lepton_tensor::{DType, Layout, Tensor};

use super::conv::{Conv, conv_axes, conv_cost, convolve_values, epilogue};
use super::matmul::{multiply, product_dims};
use super::unary::Unary;
use super::window::AutoPad;
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// x f32, w i8 laid out as for [`Conv`], w_scale f32 `[M]`, optional b f32 `[M]`, optional
    /// residual.
    pub struct DynamicConv {
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
        /// Order of the axes of x, w and the result.
        pub layout: Layout = Layout::Nchw,
        /// Applied to the sum.
        pub activation: Unary = Unary::default(),
    }
}

attributes! {
    /// x f32 `[…,K]`, w i8 `[K,N]`, w_scale f32 `[N]`, optional b f32 `[N]`, optional residual.
    pub struct DynamicLinear {
        /// Applied to the sum.
        pub activation: Unary = Unary::default(),
    }
}

/// Scale and zero point that `DynamicQuantizeLinear` gives these values (ONNX, opset 11).
pub fn dynamic_parameters(values: impl Iterator<Item = f32>) -> (f32, u8) {
    let (low, high) = values.fold((0.0f32, 0.0f32), |(l, h), v| (l.min(v), h.max(v)));
    let scale = (high - low) / 255.0;
    if scale == 0.0 || !scale.is_finite() {
        return (1.0, 0);
    }
    (scale, (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8)
}

/// x as the centred integers it is quantised to, and the scale.
fn quantised(x: &Tensor) -> Result<(Vec<f64>, f32), Problem> {
    let x = x.as_slice::<f32>()?;
    let (scale, zero) = dynamic_parameters(x.iter().copied());
    let zero = zero as f32;
    let quantise = |v: &f32| {
        let q = (v / scale).round_ties_even() + zero;
        (if q.is_nan() { zero } else { q.clamp(0.0, 255.0) } - zero) as f64
    };
    Ok((x.iter().map(quantise).collect(), scale))
}

/// `acc·(x_scale·w_scale[n])` as f32 operations.
fn dequantised(
    sums: &[f64],
    shape: &[usize],
    channel: usize,
    x_scale: f32,
    w_scale: &[f32],
) -> Vec<f64> {
    let inner: usize = shape[channel + 1..].iter().product();
    let real = |(i, &sum): (usize, &f64)| {
        let scale = x_scale * w_scale[i / inner.max(1) % w_scale.len().max(1)];
        (sum as i64 as i32 as f32 * scale) as f64
    };
    sums.iter().enumerate().map(real).collect()
}

fn check_types(inputs: Operands<'_, Fact>) -> Result<(), Problem> {
    let wanted = [(0, "x", DType::F32), (1, "w", DType::I8), (2, "w_scale", DType::F32)];
    for (index, name, dtype) in wanted {
        let found = inputs.required(index, name)?.dtype;
        if found != dtype {
            return Err(Problem::dtype(name, dtype.name(), found));
        }
    }
    let scale = inputs.required(2, "w_scale")?;
    super::walk::require_rank("w_scale", scale, 1)
}

impl DynamicConv {
    /// The convolution without its epilogue.
    pub fn conv(&self) -> Conv {
        Conv {
            strides: self.strides.clone(),
            pads: self.pads.clone(),
            dilations: self.dilations.clone(),
            group: self.group,
            auto_pad: self.auto_pad,
            layout: self.layout,
            activation: Unary::default(),
        }
    }
}

impl Operator for DynamicConv {
    fn arity(&self) -> Arity {
        Arity::between(3, 5)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        check_types(inputs)?;
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        let w = Fact::new(DType::F32, w.dims.clone());
        self.conv().infer(Operands(&[Some(x), Some(&w)]))
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        let (values, x_scale) = quantised(x)?;
        let sums = convolve_values(&self.conv(), x.shape(), &values, w.shape(), &w.to_f64_vec())?;
        let channel = self.layout.channel_axis(x.rank());
        let w_scale = inputs.required(2, "w_scale")?.as_slice::<f32>()?;
        let real = dequantised(&sums.values, &sums.shape, channel, x_scale, w_scale);
        let (bias, residual) = (inputs.optional(3), inputs.optional(4));
        let done = epilogue(real, &sums.shape, channel, bias, residual, &self.activation)?;
        Ok(vec![Tensor::from_f64_slice(DType::F32, sums.shape, &done)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("integers have no gradient"))
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let plain = [inputs.optional(0), inputs.optional(1)];
        conv_axes(self.layout, self.group, Operands(&plain), outputs)
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        conv_cost(inputs, outputs)
    }
}

impl Operator for DynamicLinear {
    fn arity(&self) -> Arity {
        Arity::between(3, 5)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        check_types(inputs)?;
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        super::walk::require_rank("w", w, 2)?;
        Ok(vec![Fact::new(DType::F32, product_dims(&x.dims, &w.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        let (values, x_scale) = quantised(x)?;
        let (shape, sums) = multiply(x.shape(), &values, w.shape(), &w.to_f64_vec())?;
        let channel = shape.len() - 1;
        let w_scale = inputs.required(2, "w_scale")?.as_slice::<f32>()?;
        let real = dequantised(&sums, &shape, channel, x_scale, w_scale);
        let (bias, residual) = (inputs.optional(3), inputs.optional(4));
        let done = epilogue(real, &shape, channel, bias, residual, &self.activation)?;
        Ok(vec![Tensor::from_f64_slice(DType::F32, shape, &done)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("integers have no gradient"))
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let last = outputs[0].rank() - 1;
        vec![
            AxisLink::Same { output: 0, output_axis: last, input: 1, input_axis: 1 },
            AxisLink::Contracted { input: 0, input_axis: last, other: 1, other_axis: 0 },
        ]
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        let k = inputs.optional(0).and_then(|x| x.dims.last().cloned());
        Cost::multiply_adds(outputs[0].count() * k.unwrap_or_else(|| Dim::known(0)))
    }
}
