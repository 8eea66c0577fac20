//! Between reals and the integers that stand for them, as ONNX defines it.

use lepton_tensor::{DType, Tensor};

use super::walk::{require_float, resolve_axis};
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::ops::unary::same_axes;

attributes! {
    /// `saturate(round_half_even(x / scale) + zero_point)`: x float, scale a scalar or one per
    /// slice along `axis`, zero point of the integer type of the result (u8 where absent).
    pub struct QuantizeLinear {
        /// Axis of per-slice parameters; negative counts from the back.
        pub axis: i64 = 1,
        /// Type of the result where there is no zero point.
        pub dtype: DType = DType::U8,
    }
}

attributes! {
    /// `(x − zero_point) · scale`, a scalar scale or one per slice along `axis`.
    pub struct DequantizeLinear {
        /// Axis of per-slice parameters; negative counts from the back.
        pub axis: i64 = 1,
    }
}

/// The range of an integer type, as floats.
pub fn integer_range(dtype: DType) -> Result<(f64, f64), Problem> {
    match dtype {
        DType::U8 => Ok((0.0, 255.0)),
        DType::I8 => Ok((-128.0, 127.0)),
        DType::U16 => Ok((0.0, 65535.0)),
        DType::I16 => Ok((-32768.0, 32767.0)),
        DType::I32 => Ok((i32::MIN as f64, i32::MAX as f64)),
        _ => Err(Problem::dtype("zero_point", "u8, i8, u16, i16 or i32", dtype)),
    }
}

/// For each element of `shape`, the index of its scale.
fn parameter_index(shape: &[usize], scales: usize, axis: i64) -> Result<Vec<usize>, Problem> {
    let count: usize = shape.iter().product();
    if scales == 1 {
        return Ok(vec![0; count]);
    }
    let axis = resolve_axis(axis, shape.len())?;
    if shape.get(axis) != Some(&scales) {
        return Err(Problem::shape(format!("{scales} scales for axis {axis} of {shape:?}")));
    }
    let inner: usize = shape[axis + 1..].iter().product();
    Ok((0..count).map(|i| i / inner % scales).collect())
}

fn check_parameters(x: &Fact, inputs: Operands<'_, Fact>, axis: i64) -> Result<(), Problem> {
    let scale = inputs.required(1, "scale")?;
    require_float("scale", scale.dtype)?;
    if scale.rank() > 1 {
        return Err(Problem::Unsupported("blocks of quantisation parameters".into()));
    }
    let count = scale.count();
    if let Some(zero_point) = inputs.optional(2)
        && zero_point.count() != count
    {
        return Err(Problem::shape(format!("{scale} and {zero_point} must have one shape")));
    }
    if count.as_known().is_some_and(|c| c != 1) {
        let axis = resolve_axis(axis, x.rank())?;
        if x.dims[axis].as_known().is_some() && x.dims[axis] != count {
            return Err(Problem::shape(format!("{count} scales for axis {axis} of {x}")));
        }
    }
    Ok(())
}

fn axis_links(inputs: Operands<'_, Fact>, outputs: &[Fact], axis: i64) -> Vec<AxisLink> {
    let rank = outputs[0].rank();
    let mut links = same_axes(rank);
    let Ok(axis) = resolve_axis(axis, rank) else { return links };
    for input in 1..inputs.len() {
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
        let at = parameter_index(x.shape(), scale.len(), self.axis)?;
        let scale = scale.to_f64_vec();
        let zero = inputs.optional(2).map_or(vec![0.0; scale.len()], Tensor::to_f64_vec);
        // The quotient is defined in f32; NaN becomes the zero point.
        let quantise = |(i, v): (usize, f64)| {
            let ratio = v as f32 / scale[at[i]] as f32;
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
        let at = parameter_index(x.shape(), scale.len(), self.axis)?;
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
