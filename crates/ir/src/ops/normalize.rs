//! Normalisation: over trailing axes, over stored statistics, over each image.

use lepton_tensor::{Layout, Tensor};

use super::binary::{Binary, BinaryFunction as B};
use super::facets::facets;
use super::reduce::{Reduce, ReduceFunction};
use super::reshape::Reshape;
use super::sum_to::sum_to_like;
use super::unary::{Unary, UnaryFunction};
use super::walk::{broadcast_dims, broadcast_positions, require_float, require_same, resolve_axis};
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};

attributes! {
    /// `(x − mean)/√(variance + epsilon)·scale + bias` over all axes from `axis` on: inputs x,
    /// scale, optional bias, which broadcast to x. (Ba, Kiros and Hinton 2016.)
    pub struct LayerNormalization {
        /// First axis that is normalised over; negative counts from the back.
        pub axis: i64 = -1,
        /// Added to the variance.
        pub epsilon: f32 = 1e-5,
    }
}

attributes! {
    /// `(x − mean)/√(variance + epsilon)·scale + bias` per channel with stored statistics: inputs
    /// x, scale, bias, mean, variance, the last four `[C]`. (Ioffe and Szegedy 2015, inference.)
    pub struct BatchNormalization {
        /// Added to the variance.
        pub epsilon: f32 = 1e-5,
        /// Order of the axes of x and the result.
        pub layout: Layout = Layout::Nchw,
    }
}

attributes! {
    /// `(x − mean)/√(variance + epsilon)·scale + bias` over the spatial axes of each channel of
    /// each image: x `[N,C,spatial…]`, scale and bias `[C]`. (Ulyanov, Vedaldi and Lempitsky 2016.)
    pub struct InstanceNormalization {
        /// Added to the variance.
        pub epsilon: f32 = 1e-5,
    }
}

/// Every run of `length` consecutive values, centred and brought to unit variance.
fn standardise(values: &mut [f64], length: usize, epsilon: f32) {
    for run in values.chunks_mut(length.max(1)) {
        let count = run.len() as f64;
        let mean = run.iter().sum::<f64>() / count;
        let variance = run.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
        let divisor = (variance + epsilon as f64).sqrt();
        run.iter_mut().for_each(|v| *v = (*v - mean) / divisor);
    }
}

/// The channel of every element.
fn channels(shape: &[usize], channel: usize) -> impl Fn(usize) -> usize {
    let inner: usize = shape[channel + 1..].iter().product();
    let count = shape[channel].max(1);
    move |i| i / inner.max(1) % count
}

fn check_parameters(
    inputs: Operands<'_, Fact>,
    names: &[&'static str],
    channel: usize,
) -> Result<(), Problem> {
    let x = inputs.required(0, "x")?;
    require_float("x", x.dtype)?;
    let channels = x.dims.get(channel).ok_or_else(|| Problem::shape(format!("{x} is too flat")))?;
    for (i, &name) in names.iter().enumerate() {
        let parameter = inputs.required(i + 1, name)?;
        require_same(name, x.dtype, parameter.dtype)?;
        let fits = match (channels.as_known(), parameter.count().as_known()) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        if parameter.rank() != 1 || !fits {
            return Err(Problem::shape(format!("{name} must be [{channels}], found {parameter}")));
        }
    }
    Ok(())
}

/// What a gradient of a normalisation is made of.
struct Pieces {
    /// `(x − mean)/√(variance + epsilon)`.
    standard: ValueId,
    /// `1/√(variance + epsilon)`.
    inverse: ValueId,
}

fn binary(g: &mut Backward<'_>, f: B, a: ValueId, b: ValueId) -> Result<ValueId, Stops> {
    g.op(Binary::new(f), &[a, b])
}

fn inverse_root(g: &mut Backward<'_>, variance: ValueId, epsilon: f32) -> Result<ValueId, Stops> {
    let epsilon = g.scalar_like(variance, epsilon as f64);
    let sum = binary(g, B::Add, variance, epsilon)?;
    let root = g.op(Unary::new(UnaryFunction::Sqrt), &[sum])?;
    g.op(Unary::new(UnaryFunction::Reciprocal), &[root])
}

fn mean(g: &mut Backward<'_>, x: ValueId, axes: ValueId) -> Result<ValueId, Stops> {
    g.op(Reduce::new(ReduceFunction::Mean), &[x, axes])
}

fn pieces(g: &mut Backward<'_>, axes: ValueId, epsilon: f32) -> Result<Pieces, Stops> {
    let x = g.input(0);
    let centre = mean(g, x, axes)?;
    let centred = binary(g, B::Sub, x, centre)?;
    let squared = binary(g, B::Mul, centred, centred)?;
    let variance = mean(g, squared, axes)?;
    let inverse = inverse_root(g, variance, epsilon)?;
    Ok(Pieces { standard: binary(g, B::Mul, centred, inverse)?, inverse })
}

/// `inverse·(d − mean(d) − standard·mean(d·standard))`, the gradient of x where d is that of the
/// standardised x.
fn through(
    g: &mut Backward<'_>,
    pieces: &Pieces,
    d: ValueId,
    axes: ValueId,
) -> Result<ValueId, Stops> {
    let level = mean(g, d, axes)?;
    let product = binary(g, B::Mul, d, pieces.standard)?;
    let slope = mean(g, product, axes)?;
    let spread = binary(g, B::Mul, pieces.standard, slope)?;
    let centred = binary(g, B::Sub, d, level)?;
    let rest = binary(g, B::Sub, centred, spread)?;
    binary(g, B::Mul, rest, pieces.inverse)
}

/// A `[C]` parameter with axes of extent 1 after the channel.
fn per_channel(g: &mut Backward<'_>, parameter: ValueId, after: usize) -> Result<ValueId, Stops> {
    let mut shape = vec![-1i64];
    shape.resize(after + 1, 1);
    let shape = g.integers(&shape);
    g.op(Reshape::default(), &[parameter, shape])
}

/// The gradient of a `[C]` parameter from that of its use.
fn to_channel(
    g: &mut Backward<'_>,
    d: ValueId,
    like: ValueId,
    parameter: ValueId,
) -> Result<ValueId, Stops> {
    let summed = sum_to_like(g, d, like)?;
    let shape = g.op(super::shape_of::Shape::default(), &[parameter])?;
    g.op(Reshape { allow_zero: true }, &[summed, shape])
}

/// Axes that a normalisation mixes are frozen, the others follow.
fn mixed_axes(rank: usize, mixed: impl Fn(usize) -> bool) -> Vec<AxisLink> {
    let link = |axis| {
        if mixed(axis) {
            AxisLink::Frozen { input: 0, input_axis: axis, why: "normalisation mixes its axis" }
        } else {
            AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis }
        }
    };
    (0..rank).map(link).collect()
}

impl Operator for LayerNormalization {
    facets! {
        arity = Arity::between(2, 3),
        quant = Quant::FloatOnly("means and variances need more range than 8 bits have"),
        element_ops = 8,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_float("x", x.dtype)?;
        resolve_axis(self.axis, x.rank())?;
        inputs.required(1, "scale")?;
        for (index, name) in [(1, "scale"), (2, "bias")] {
            let Some(parameter) = inputs.optional(index) else { continue };
            require_same(name, x.dtype, parameter.dtype)?;
            if parameter.rank() > x.rank() {
                return Err(Problem::shape(format!("{name} {parameter} is larger than {x}")));
            }
            broadcast_dims(&x.dims, &parameter.dims)?;
        }
        Ok(vec![Fact::new(x.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, scale) = (inputs.required(0, "x")?, inputs.required(1, "scale")?);
        let axis = resolve_axis(self.axis, x.rank())?;
        let mut values = x.to_f64_vec();
        standardise(&mut values, x.shape()[axis..].iter().product(), self.epsilon);
        let at = broadcast_positions(scale.shape(), x.shape());
        let scale = scale.to_f64_vec();
        values.iter_mut().zip(at).for_each(|(v, i)| *v *= scale[i]);
        if let Some(bias) = inputs.optional(2) {
            let at = broadcast_positions(bias.shape(), x.shape());
            let bias = bias.to_f64_vec();
            values.iter_mut().zip(at).for_each(|(v, i)| *v += bias[i]);
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), x.shape(), &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, x, scale) = (g.output_grad()?, g.input(0), g.input(1));
        let rank = g.fact(x).rank();
        let axis = resolve_axis(self.axis, rank).map_err(|_| Stops::Because("no such axis"))?;
        let axes: Vec<i64> = (axis as i64..rank as i64).collect();
        let axes = g.integers(&axes);
        let pieces = pieces(g, axes, self.epsilon)?;
        let d = binary(g, B::Mul, dy, scale)?;
        let dx = through(g, &pieces, d, axes)?;
        let product = binary(g, B::Mul, dy, pieces.standard)?;
        let mut grads = vec![Some(dx), Some(sum_to_like(g, product, scale)?)];
        if let Some(bias) = g.inputs.get(2) {
            grads.push(bias.map(|bias| sum_to_like(g, dy, bias)).transpose()?);
        }
        Ok(grads)
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let rank = outputs[0].rank();
        let Ok(first) = resolve_axis(self.axis, rank) else { return Vec::new() };
        mixed_axes(rank, |axis| axis >= first)
    }
}

impl Operator for BatchNormalization {
    facets! {
        arity = Arity::exactly(5),
        quant = Quant::Requantise,
        element_ops = 2,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.rank() < 2 {
            return Err(Problem::shape(format!("x must have rank 2 or more, found {x}")));
        }
        let names = ["scale", "bias", "mean", "variance"];
        check_parameters(inputs, &names, self.layout.channel_axis(x.rank()))?;
        Ok(vec![Fact::new(x.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let channel = channels(x.shape(), self.layout.channel_axis(x.rank()));
        let scale = inputs.required(1, "scale")?.to_f64_vec();
        let bias = inputs.required(2, "bias")?.to_f64_vec();
        let mean = inputs.required(3, "mean")?.to_f64_vec();
        let variance = inputs.required(4, "variance")?.to_f64_vec();
        let mut values = x.to_f64_vec();
        for (i, value) in values.iter_mut().enumerate() {
            let c = channel(i);
            let divisor = (variance[c] + self.epsilon as f64).sqrt();
            *value = (*value - mean[c]) / divisor * scale[c] + bias[c];
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), x.shape(), &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, x) = (g.output_grad()?, g.input(0));
        let rank = g.fact(x).rank();
        let after = rank - 1 - self.layout.channel_axis(rank);
        let parameters = [1, 2, 3, 4].map(|i| g.input(i));
        let mut wide = Vec::with_capacity(4);
        for parameter in parameters {
            wide.push(per_channel(g, parameter, after)?);
        }
        let inverse = inverse_root(g, wide[3], self.epsilon)?;
        let centred = binary(g, B::Sub, x, wide[2])?;
        let standard = binary(g, B::Mul, centred, inverse)?;
        let factor = binary(g, B::Mul, wide[0], inverse)?;
        let dx = binary(g, B::Mul, dy, factor)?;
        let d_scale = binary(g, B::Mul, dy, standard)?;
        let d_mean = g.op(Unary::new(UnaryFunction::Neg), &[dx])?;
        // d/dv of (v + epsilon)^−½ is −½ (v + epsilon)^−3/2.
        let slope = binary(g, B::Mul, standard, inverse)?;
        let slope = binary(g, B::Mul, slope, dx)?;
        let half = g.scalar_like(x, -0.5);
        let d_variance = binary(g, B::Mul, slope, half)?;
        let mut grads = vec![Some(dx)];
        for (i, d) in [d_scale, dy, d_mean, d_variance].into_iter().enumerate() {
            grads.push(Some(to_channel(g, d, wide[i], parameters[i])?));
        }
        Ok(grads)
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let rank = outputs[0].rank();
        let channel = self.layout.channel_axis(rank);
        let mut links = mixed_axes(rank, |_| false);
        links.extend((1..5).map(|input| AxisLink::Same {
            output: 0,
            output_axis: channel,
            input,
            input_axis: 0,
        }));
        links
    }
}

impl Operator for InstanceNormalization {
    facets! {
        arity = Arity::exactly(3),
        quant = Quant::FloatOnly("means and variances need more range than 8 bits have"),
        element_ops = 8,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.rank() < 3 {
            return Err(Problem::shape(format!("x must have rank 3 or more, found {x}")));
        }
        check_parameters(inputs, &["scale", "bias"], 1)?;
        Ok(vec![Fact::new(x.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let channel = channels(x.shape(), 1);
        let scale = inputs.required(1, "scale")?.to_f64_vec();
        let bias = inputs.required(2, "bias")?.to_f64_vec();
        let mut values = x.to_f64_vec();
        standardise(&mut values, x.shape()[2..].iter().product(), self.epsilon);
        for (i, value) in values.iter_mut().enumerate() {
            *value = *value * scale[channel(i)] + bias[channel(i)];
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), x.shape(), &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, x, scale, bias) = (g.output_grad()?, g.input(0), g.input(1), g.input(2));
        let rank = g.fact(x).rank();
        let axes: Vec<i64> = (2..rank as i64).collect();
        let axes = g.integers(&axes);
        let pieces = pieces(g, axes, self.epsilon)?;
        let wide = per_channel(g, scale, rank - 2)?;
        let d = binary(g, B::Mul, dy, wide)?;
        let dx = through(g, &pieces, d, axes)?;
        let product = binary(g, B::Mul, dy, pieces.standard)?;
        let d_scale = to_channel(g, product, wide, scale)?;
        let d_bias = to_channel(g, dy, wide, bias)?;
        Ok(vec![Some(dx), Some(d_scale), Some(d_bias)])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let mut links = mixed_axes(outputs[0].rank(), |axis| axis >= 2);
        links.extend([1, 2].map(|input| AxisLink::Same {
            output: 0,
            output_axis: 1,
            input,
            input_axis: 0,
        }));
        links
    }
}
