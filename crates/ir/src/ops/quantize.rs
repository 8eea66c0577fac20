//! Between reals and the integers that stand for them, as ONNX defines it.

use lepton_tensor::{DType, Tensor};

use super::walk::{require_float, resolve_axis};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::ops::unary::same_axes;

attributes! {
    /// `saturate(round_half_even(x / scale) + zero_point)`: x float, scale a scalar, one per slice
    /// along `axis`, or of the rank of x and shorter along `axis`: one per block of as many
    /// elements as it is shorter. The zero point has the type of the result (u8 where absent), an
    /// integer or a float of 8 bits or fewer, which is rounded as its format says.
    pub struct QuantizeLinear {
        /// Axis of per-slice parameters; negative counts from the back.
        pub axis: i64 = 1,
        /// Type of the result where there is no zero point.
        pub dtype: DType = DType::U8,
    }
}

attributes! {
    /// `(x − zero_point) · scale`, a scalar scale, one per slice along `axis`, or one per block.
    pub struct DequantizeLinear {
        /// Axis of per-slice parameters; negative counts from the back.
        pub axis: i64 = 1,
    }
}

/// The range of a type that stands for reals, as floats.
pub fn integer_range(dtype: DType) -> Result<(f64, f64), Problem> {
    match dtype {
        DType::U8 => Ok((0.0, 255.0)),
        DType::I8 => Ok((-128.0, 127.0)),
        DType::U16 => Ok((0.0, 65535.0)),
        DType::I16 => Ok((-32768.0, 32767.0)),
        DType::I32 => Ok((i32::MIN as f64, i32::MAX as f64)),
        DType::U4 => Ok((0.0, 15.0)),
        DType::I4 => Ok((-8.0, 7.0)),
        DType::U2 => Ok((0.0, 3.0)),
        DType::I2 => Ok((-2.0, 1.0)),
        DType::F8E4M3FN => Ok((-448.0, 448.0)),
        DType::F8E4M3FNUZ => Ok((-240.0, 240.0)),
        DType::F8E5M2 | DType::F8E5M2FNUZ => Ok((-57344.0, 57344.0)),
        DType::F4E2M1 => Ok((-6.0, 6.0)),
        _ => Err(Problem::dtype("zero_point", "an integer or short float", dtype)),
    }
}

/// Elements that share a parameter along an axis of `extent`, of `parameters`.
fn block_of(extent: usize, parameters: usize) -> usize {
    extent.div_ceil(parameters.max(1)).max(1)
}

/// For each element of `shape`, the index of its scale in a tensor of shape `scales`.
fn parameter_index(shape: &[usize], scales: &[usize], axis: i64) -> Result<Vec<usize>, Problem> {
    let count: usize = shape.iter().product();
    if scales.iter().product::<usize>() == 1 {
        return Ok(vec![0; count]);
    }
    let axis = resolve_axis(axis, shape.len())?;
    let inner: usize = shape[axis + 1..].iter().product();
    if let [one] = scales
        && shape.get(axis) == Some(one)
    {
        return Ok((0..count).map(|i| i / inner % one).collect());
    }
    let agree = |i: usize| i == axis || shape[i] == scales[i];
    if shape.len() != scales.len() || !(0..shape.len()).all(agree) {
        return Err(Problem::shape(format!("scales {scales:?} for axis {axis} of {shape:?}")));
    }
    let block = block_of(shape[axis], scales[axis]);
    let at = |i: usize| {
        let (before, along, after) = (i / inner / shape[axis], i / inner % shape[axis], i % inner);
        (before * scales[axis] + along / block) * inner + after
    };
    Ok((0..count).map(at).collect())
}

fn check_parameters(x: &Fact, inputs: Operands<'_, Fact>, axis: i64) -> Result<(), Problem> {
    let scale = inputs.required(1, "scale")?;
    require_float("scale", scale.dtype)?;
    let count = scale.count();
    if let Some(zero_point) = inputs.optional(2)
        && zero_point.count() != count
    {
        return Err(Problem::shape(format!("{scale} and {zero_point} must have one shape")));
    }
    if count.as_known().is_none_or(|c| c == 1) {
        return Ok(());
    }
    let axis = resolve_axis(axis, x.rank())?;
    let differ = |a: &Dim, b: &Dim| a.as_known().is_some() && b.as_known().is_some() && a != b;
    let wrong = if scale.rank() == 1 && x.rank() != 1 {
        x.dims.get(axis).is_none_or(|extent| differ(extent, &count))
    } else {
        let mut pairs = x.dims.iter().zip(&scale.dims).enumerate();
        scale.rank() != x.rank() || pairs.any(|(i, (a, b))| i != axis && differ(a, b))
    };
    if wrong {
        return Err(Problem::shape(format!("scales {scale} for axis {axis} of {x}")));
    }
    Ok(())
}

fn axis_links(inputs: Operands<'_, Fact>, outputs: &[Fact], axis: i64) -> Vec<AxisLink> {
    let rank = outputs[0].rank();
    let mut links = same_axes(rank);
    let Ok(axis) = resolve_axis(axis, rank) else { return links };
    for input in 1..inputs.len() {
        if inputs.optional(input).is_some_and(|p| p.rank() > 1) {
            // A block that loses an element no longer has its extent.
            return Vec::new();
        }
        if inputs.optional(input).is_some_and(|p| p.rank() == 1 && !p.dims[0].is(1)) {
            links.push(AxisLink::Same { output: 0, output_axis: axis, input, input_axis: 0 });
        }
    }
    links
}

impl Operator for QuantizeLinear {
    fn arity(&self) -> Arity {
        Arity::between(2, 3)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        check_parameters(x, inputs, self.axis)?;
        let dtype = inputs.optional(2).map_or(self.dtype, |z| z.dtype);
        integer_range(dtype)?;
        Ok(vec![Fact::new(dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, scale) = (inputs.required(0, "x")?, inputs.required(1, "scale")?);
        let dtype = inputs.optional(2).map_or(self.dtype, Tensor::dtype);
        let (low, high) = integer_range(dtype)?;
        let at = parameter_index(x.shape(), scale.shape(), self.axis)?;
        let scale = scale.to_f64_vec();
        let zero = inputs.optional(2).map_or(vec![0.0; scale.len()], Tensor::to_f64_vec);
        // The quotient is defined in f32; NaN becomes the zero point.
        let quantise = |(i, v): (usize, f64)| {
            let ratio = v as f32 / scale[at[i]] as f32;
            if dtype.is_float() {
                return (ratio as f64 + zero[at[i]]).clamp(low, high);
            }
            let ratio = if ratio.is_nan() { 0.0 } else { ratio };
            (ratio.round_ties_even() as f64 + zero[at[i]]).clamp(low, high)
        };
        let values: Vec<f64> = x.to_f64_vec().into_iter().enumerate().map(quantise).collect();
        Ok(vec![Tensor::from_f64_slice(dtype, x.shape(), &values)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("rounding is flat; training uses a straight-through estimate"))
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        axis_links(inputs, outputs, self.axis)
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        Cost::element_ops(outputs[0].count())
    }
}

impl Operator for DequantizeLinear {
    fn arity(&self) -> Arity {
        Arity::between(2, 3)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        integer_range(x.dtype)?;
        check_parameters(x, inputs, self.axis)?;
        let scale = inputs.required(1, "scale")?;
        Ok(vec![Fact::new(scale.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, scale) = (inputs.required(0, "x")?, inputs.required(1, "scale")?);
        let dtype = scale.dtype();
        let at = parameter_index(x.shape(), scale.shape(), self.axis)?;
        let scale = scale.to_f64_vec();
        let zero = inputs.optional(2).map_or(vec![0.0; scale.len()], Tensor::to_f64_vec);
        let real = |(i, v): (usize, f64)| (v - zero[at[i]]) * scale[at[i]];
        let values: Vec<f64> = x.to_f64_vec().into_iter().enumerate().map(real).collect();
        Ok(vec![Tensor::from_f64_slice(dtype, x.shape(), &values)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("integers have no gradient"))
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        axis_links(inputs, outputs, self.axis)
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        Cost::element_ops(outputs[0].count())
    }
}
