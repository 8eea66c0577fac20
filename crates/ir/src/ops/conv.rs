//! Convolution, with the epilogue that fusion gives it.

use lepton_tensor::{DType, Layout, Tensor, bf16, row_major_strides};

use super::unary::Unary;
use super::walk::{for_each_index, offset, require_float, require_same};
use super::window::{AutoPad, Window, tap_index};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// `activation(conv(x, w) + b + residual)` over any number of spatial axes.
    ///
    /// Inputs: x `[N,C,spatial…]`, w `[M,C/group,kernel…]`, optional b `[M]`, optional residual
    /// shaped like the result. In layout `nhwc`: x `[N,spatial…,C]`, w `[M,kernel…,C/group]`.
    /// Without residual, activation and layout it is ONNX's `Conv`. Weights may be bf16 while x is
    /// f32: x and the residual are then rounded to bf16 before they are used, sums stay f32.
    pub struct Conv {
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

/// The extents a convolution works with.
pub struct ConvShape {
    /// Window over the spatial axes.
    pub window: Window,
    /// Channels of the input.
    pub input_channels: Dim,
    /// Channels of the result.
    pub output_channels: Dim,
}

impl Conv {
    /// Window and channels for operands of these extents, checked against each other.
    pub fn shape_for(&self, x: &[Dim], w: &[Dim]) -> Result<ConvShape, Problem> {
        conv_shape(self, x, w)
    }

    /// Extents of the result for operands of these extents.
    pub(crate) fn dims_for(&self, x: &[Dim], w: &[Dim]) -> Result<Vec<Dim>, Problem> {
        let shape = self.shape_for(x, w)?;
        let mut dims = x.to_vec();
        let spatial = self.layout.spatial_axis();
        for axis in 0..x.len() - 2 {
            dims[spatial + axis] = shape.window.output_dim(axis, &x[spatial + axis])?;
        }
        dims[self.layout.channel_axis(x.len())] = shape.output_channels;
        Ok(dims)
    }

    /// The window for a weight of this shape.
    pub fn window(&self, w: &[usize]) -> Result<Window, Problem> {
        let start = self.layout.spatial_axis();
        let kernel = w[start..start + w.len() - 2].to_vec();
        Window::new(kernel, &self.strides, &self.dilations, &self.pads, self.auto_pad, false)
    }
}

fn conv_shape(conv: &Conv, x: &[Dim], w: &[Dim]) -> Result<ConvShape, Problem> {
    if x.len() < 3 || w.len() != x.len() {
        return Err(Problem::shape(format!(
            "x and w must have the same rank of at least 3, found {} and {}",
            x.len(),
            w.len()
        )));
    }
    if conv.group == 0 {
        return Err(Problem::attribute("group", "must be positive"));
    }
    let rank = x.len();
    let channel = conv.layout.channel_axis(rank);
    let spatial = conv.layout.spatial_axis();
    let kernel: Option<Vec<usize>> =
        w[spatial..spatial + rank - 2].iter().map(Dim::as_usize).collect();
    let kernel = kernel.ok_or(Problem::NotConstant("kernel extents of w"))?;
    let window =
        Window::new(kernel, &conv.strides, &conv.dilations, &conv.pads, conv.auto_pad, false)?;
    let expected = w[channel].clone() * Dim::from(conv.group);
    if let (Some(have), Some(want)) = (x[channel].as_known(), expected.as_known())
        && have != want
    {
        return Err(Problem::shape(format!(
            "x has {have} channels, but w with {} groups takes {want}",
            conv.group
        )));
    }
    if w[0].as_usize().is_some_and(|m| m % conv.group != 0) {
        return Err(Problem::shape(format!(
            "{} output channels do not divide into {} groups",
            w[0], conv.group
        )));
    }
    Ok(ConvShape { window, input_channels: x[channel].clone(), output_channels: w[0].clone() })
}

impl Operator for Conv {
    fn arity(&self) -> Arity {
        Arity::between(2, 4)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        require_float("x", x.dtype)?;
        require_weight(x.dtype, w.dtype)?;
        let dims = self.dims_for(&x.dims, &w.dims)?;
        if let Some(b) = inputs.optional(2) {
            require_same("b", x.dtype, b.dtype)?;
            if b.rank() != 1 || (b.dims[0] != w.dims[0] && b.dims[0].as_known().is_some()) {
                return Err(Problem::shape(format!("b must be [{}], found {b}", w.dims[0])));
            }
        }
        if let Some(residual) = inputs.optional(3)
            && residual.rank() != x.rank()
        {
            return Err(Problem::shape(format!(
                "residual must have the result's shape, found {residual}"
            )));
        }
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        let sums = convolve(self, x, w)?;
        let channel = self.layout.channel_axis(x.rank());
        let values = epilogue(
            sums.values,
            &sums.shape,
            channel,
            inputs.optional(2),
            rounded_like(inputs.optional(3), w.dtype())?.as_ref(),
            &self.activation,
        )?;
        Ok(vec![Tensor::from_f64_slice(x.dtype(), sums.shape, &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::conv_grad::grad(self, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        conv_axes(self.layout, self.group, inputs, outputs)
    }

    fn quant(&self) -> Quant {
        Quant::Weighted { weight: 1, channel_axis: 0, bias: 2 }
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        conv_cost(inputs, outputs)
    }
}

/// An error unless weights of that type go with activations of that type: the same, or bf16
/// weights with f32 activations, which are then rounded to bf16 before the product.
pub(crate) fn require_weight(x: DType, w: DType) -> Result<(), Problem> {
    if (x, w) == (DType::F32, DType::BF16) { Ok(()) } else { require_same("w", x, w) }
}

/// The elements of x as the product sees them.
pub(crate) fn product_operand(x: &Tensor, w: DType) -> Vec<f64> {
    let mut values = x.to_f64_vec();
    if (x.dtype(), w) == (DType::F32, DType::BF16) {
        for value in &mut values {
            *value = bf16::from_f32(*value as f32).to_f64();
        }
    }
    values
}

/// The residual as the sum sees it: rounded as x is.
pub(crate) fn rounded_like(residual: Option<&Tensor>, w: DType) -> Result<Option<Tensor>, Problem> {
    let Some(residual) = residual else { return Ok(None) };
    let values = product_operand(residual, w);
    Ok(Some(Tensor::from_f64_slice(residual.dtype(), residual.shape(), &values)?))
}

/// Axis links of a convolution-like operator.
pub(crate) fn conv_axes(
    layout: Layout,
    group: usize,
    inputs: Operands<'_, Fact>,
    outputs: &[Fact],
) -> Vec<AxisLink> {
    let rank = outputs[0].rank();
    let channel = layout.channel_axis(rank);
    let same = |output_axis, input, input_axis| AxisLink::Same {
        output: 0,
        output_axis,
        input,
        input_axis,
    };
    let mut links = vec![same(0, 0, 0), same(channel, 1, 0)];
    let depthwise = inputs.optional(1).is_some_and(|w| w.dims[channel].is(1)) && group > 1;
    if depthwise && inputs.optional(0).is_some_and(|x| x.dims[channel].is(group as i64)) {
        links.push(same(channel, 0, channel));
    } else if group == 1 {
        links.push(AxisLink::Contracted {
            input: 0,
            input_axis: channel,
            other: 1,
            other_axis: channel,
        });
    } else {
        links.push(AxisLink::Frozen { input: 0, input_axis: channel, why: "grouped convolution" });
    }
    if inputs.optional(2).is_some() {
        links.push(same(channel, 2, 0));
    }
    if inputs.optional(3).is_some() {
        links.extend((0..rank).map(|axis| same(axis, 3, axis)));
    }
    links
}

/// Multiply–adds of a convolution-like operator: result elements × weights per result channel.
pub(crate) fn conv_cost(inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
    let Some(w) = inputs.optional(1) else { return Cost::free() };
    let taps = w.dims[1..].iter().cloned().fold(Dim::known(1), |a, b| a * b);
    Cost::multiply_adds(outputs[0].count() * taps)
}

/// Bare sums of a convolution, before its epilogue.
pub(crate) struct Sums {
    pub(crate) values: Vec<f64>,
    pub(crate) shape: Vec<usize>,
}

/// The sums `Σ x·w` of a convolution over any element types, padding counted as zero.
pub(crate) fn convolve(conv: &Conv, x: &Tensor, w: &Tensor) -> Result<Sums, Problem> {
    let values = product_operand(x, w.dtype());
    convolve_values(conv, x.shape(), &values, w.shape(), &w.to_f64_vec())
}

/// [`convolve`] over values; integers below 2⁵³ are exact.
pub(crate) fn convolve_values(
    conv: &Conv,
    x_shape: &[usize],
    x: &[f64],
    w_shape: &[usize],
    w: &[f64],
) -> Result<Sums, Problem> {
    let dims = |shape: &[usize]| shape.iter().map(|&d| Dim::from(d)).collect::<Vec<_>>();
    let window = conv.shape_for(&dims(x_shape), &dims(w_shape))?.window;
    let rank = x_shape.len();
    let (channel, start) = (conv.layout.channel_axis(rank), conv.layout.spatial_axis());
    let (positions, before) = window.resolve(&x_shape[start..start + rank - 2])?;
    let mut shape = x_shape.to_vec();
    shape[start..start + rank - 2].copy_from_slice(&positions);
    shape[channel] = w_shape[0];
    let (xs, ws) = (row_major_strides(x_shape), row_major_strides(w_shape));
    let group_inputs = w_shape[channel];
    let group_outputs = (w_shape[0] / conv.group).max(1);
    let mut values = Vec::with_capacity(shape.iter().product());
    for_each_index(&shape, |index| {
        let m = index[channel];
        let first_input = m / group_outputs * group_inputs;
        let base = index[0] * xs[0] + first_input * xs[channel];
        let mut sum = 0.0;
        for_each_index(&window.kernel, |tap| {
            let mut at_x = base;
            for axis in 0..tap.len() {
                let read = tap_index(
                    index[start + axis],
                    window.strides[axis],
                    tap[axis],
                    window.dilations[axis],
                    before[axis],
                    x_shape[start + axis],
                );
                let Some(i) = read else { return };
                at_x += i * xs[start + axis];
            }
            let at_w = m * ws[0] + offset(tap, &ws[start..start + tap.len()]);
            for c in 0..group_inputs {
                sum += x[at_x + c * xs[channel]] * w[at_w + c * ws[channel]];
            }
        });
        values.push(sum);
    });
    Ok(Sums { values, shape })
}

/// Adds bias (along `channel`) and residual, then applies the activation.
pub(crate) fn epilogue(
    mut values: Vec<f64>,
    shape: &[usize],
    channel: usize,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    activation: &Unary,
) -> Result<Vec<f64>, Problem> {
    if let Some(bias) = bias {
        let bias = bias.to_f64_vec();
        let inner: usize = shape[channel + 1..].iter().product();
        for (i, value) in values.iter_mut().enumerate() {
            *value += bias[i / inner.max(1) % shape[channel].max(1)];
        }
    }
    if let Some(residual) = residual {
        if residual.shape() != shape {
            let found = residual.shape();
            return Err(Problem::shape(format!("residual must be {shape:?}, found {found:?}")));
        }
        for (value, add) in values.iter_mut().zip(residual.to_f64_vec()) {
            *value += add;
        }
    }
    Ok(values.into_iter().map(|v| activation.apply(v)).collect())
}
