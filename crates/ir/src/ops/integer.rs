//! The integer forms of convolution and matrix product that lowering makes: u8 activations, s8
//! weights, int32 sums, and one epilogue defined to the last bit.
//!
//! The sum of a result is `acc = Σ x·w + bias` in wrapping int32; the zero point of x is folded
//! into the bias. Each step of an epilogue is a separately rounded f32 operation, so the result
//! has the same bits on every machine.

use lepton_tensor::{DType, Layout, Tensor};

use super::conv::{Conv, conv_axes, conv_cost, convolve_values};
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
    /// Integer convolution in layout `nhwc`.
    ///
    /// Inputs: x u8 `[N,spatial…,C]`, w i8 `[M,kernel…,C/group]`, bias i32 `[M]`, multiplier f32
    /// `[M]`, optional residual shaped like the result, optional table u8 `[256]`.
    ///
    /// To u8: `q = clamp(acc·multiplier + (residual − residual_zero)·residual_scale,
    /// low − zero, high − zero)`, rounded half to even, plus `zero`; then `table[q]`.
    /// To f32: `activation(acc·multiplier + residual)`. To u8 with another activation than the identity:
    /// that of `acc·multiplier`, divided by `step`, rounded half to even, plus `zero`, from `low` to
    /// `high`; such an activation may differ by a rounding from machine to machine.
    pub struct IntegerConv {
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
        /// The integer that padding reads: the zero point of x.
        pub x_zero: i64 = 0,
        /// Type of the result: u8 or f32.
        pub output: DType = DType::U8,
        /// Zero point of a u8 result.
        pub zero: i64 = 0,
        /// Least u8 result before the table.
        pub low: i64 = 0,
        /// Greatest u8 result before the table.
        pub high: i64 = 255,
        /// Step of a u8 residual relative to the step of the result.
        pub residual_scale: f32 = 1.0,
        /// Zero point of a u8 residual.
        pub residual_zero: i64 = 0,
        /// Applied to an f32 result, and to a u8 one before it is rounded.
        pub activation: Unary = Unary::default(),
        /// What a u8 result of an activation counts in.
        pub step: f32 = 1.0,
    }
}

attributes! {
    /// Integer matrix product: x u8 `[…,K]`, w i8 `[K,N]`, bias i32 `[N]`, multiplier f32 `[N]`,
    /// optional residual shaped like the result, optional table u8 `[256]`. Epilogue as in
    /// [`IntegerConv`].
    pub struct IntegerLinear {
        /// Type of the result: u8 or f32.
        pub output: DType = DType::U8,
        /// Zero point of a u8 result.
        pub zero: i64 = 0,
        /// Least u8 result before the table.
        pub low: i64 = 0,
        /// Greatest u8 result before the table.
        pub high: i64 = 255,
        /// Step of a u8 residual relative to the step of the result.
        pub residual_scale: f32 = 1.0,
        /// Zero point of a u8 residual.
        pub residual_zero: i64 = 0,
        /// Applied to an f32 result, and to a u8 one before it is rounded.
        pub activation: Unary = Unary::default(),
        /// What a u8 result of an activation counts in.
        pub step: f32 = 1.0,
    }
}

/// How int32 sums become a result; the common part of the two operators.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegerEpilogue {
    /// Type of the result: u8 or f32.
    pub output: DType,
    /// Zero point of a u8 result.
    pub zero: i32,
    /// Least u8 result before the table.
    pub low: i32,
    /// Greatest u8 result before the table.
    pub high: i32,
    /// Step of a u8 residual relative to the step of the result.
    pub residual_scale: f32,
    /// Zero point of a u8 residual.
    pub residual_zero: i32,
    /// Applied to an f32 result, and to a u8 one before it is rounded.
    pub activation: Unary,
    /// What a u8 result of an activation counts in.
    pub step: f32,
}

macro_rules! epilogue_of {
    ($op:ident) => {
        impl $op {
            /// The epilogue, checked.
            pub fn epilogue(&self) -> Result<IntegerEpilogue, Problem> {
                let byte = |name: &str, value: i64| {
                    u8::try_from(value)
                        .map(i32::from)
                        .map_err(|_| Problem::attribute(name, format!("{value} is not 0 to 255")))
                };
                if !matches!(self.output, DType::U8 | DType::F32) {
                    return Err(Problem::attribute("output", "must be u8 or f32"));
                }
                let (low, high) = (byte("low", self.low)?, byte("high", self.high)?);
                if low > high {
                    return Err(Problem::attribute("low", format!("{low} is above high {high}")));
                }
                Ok(IntegerEpilogue {
                    output: self.output,
                    zero: byte("zero", self.zero)?,
                    low,
                    high,
                    residual_scale: self.residual_scale,
                    residual_zero: byte("residual_zero", self.residual_zero)?,
                    activation: self.activation.clone(),
                    step: self.step,
                })
            }
        }
    };
}

epilogue_of!(IntegerConv);
epilogue_of!(IntegerLinear);

impl IntegerEpilogue {
    fn apply(
        &self,
        sums: &[i32],
        shape: Vec<usize>,
        inputs: Operands<'_, Tensor>,
    ) -> Result<Tensor, Problem> {
        let multiplier = inputs.required(3, "multiplier")?.as_slice::<f32>()?;
        let channels = multiplier.len().max(1);
        let scaled = |i: usize| sums[i] as f32 * multiplier[i % channels];
        let residual = inputs.optional(4);
        if residual.is_some_and(|r| r.shape() != shape) {
            return Err(Problem::shape(format!("residual must be {shape:?}")));
        }
        if self.output == DType::F32 {
            let residual = residual.map(Tensor::as_slice::<f32>).transpose()?;
            let add = |i: usize| residual.map_or(scaled(i), |r| scaled(i) + r[i]);
            let finish = |i| self.activation.apply(add(i) as f64) as f32;
            let values: Vec<f32> = (0..sums.len()).map(finish).collect();
            return Ok(Tensor::from_slice(shape, &values)?);
        }
        let real = self.activation != Unary::default();
        if real && (residual.is_some() || inputs.optional(5).is_some()) {
            return Err(Problem::attribute(
                "activation",
                "of a u8 result takes no residual or table",
            ));
        }
        let residual = residual.map(Tensor::as_slice::<u8>).transpose()?;
        let table = inputs.optional(5).map(Tensor::as_slice::<u8>).transpose()?;
        let finish = |i: usize| {
            let mut value = scaled(i);
            if real {
                value = self.activation.apply(value as f64) as f32 / self.step;
            }
            if let Some(residual) = residual {
                let centred = (residual[i] as i32 - self.residual_zero) as f32;
                value += centred * self.residual_scale;
            }
            let (low, high) = ((self.low - self.zero) as f32, (self.high - self.zero) as f32);
            let byte = (value.max(low).min(high).round_ties_even() as i32 + self.zero) as u8;
            table.map_or(byte, |t| t[byte as usize])
        };
        let values: Vec<u8> = (0..sums.len()).map(finish).collect();
        Ok(Tensor::from_slice(shape, &values)?)
    }
}

/// Types of the operands of both operators.
fn check_types(inputs: Operands<'_, Fact>, output: DType) -> Result<(), Problem> {
    let expect = |index: usize, name: &'static str, dtype: DType| {
        let found = inputs.required(index, name)?.dtype;
        let wrong = || Problem::dtype(name, dtype.name(), found);
        if found == dtype { Ok(()) } else { Err(wrong()) }
    };
    expect(0, "x", DType::U8)?;
    expect(1, "w", DType::I8)?;
    expect(2, "bias", DType::I32)?;
    expect(3, "multiplier", DType::F32)?;
    if inputs.optional(4).is_some() {
        expect(4, "residual", output)?;
    }
    if inputs.optional(5).is_some() {
        expect(5, "table", DType::U8)?;
        let table = inputs.required(5, "table")?;
        if !table.count().is(256) || output != DType::U8 {
            return Err(Problem::shape(format!("a table has 256 entries for u8, found {table}")));
        }
    }
    let w = inputs.required(1, "w")?;
    for (index, name) in [(2, "bias"), (3, "multiplier")] {
        let vector = inputs.required(index, name)?;
        if vector.rank() != 1 {
            return Err(Problem::shape(format!(
                "{name} must have one axis, found {vector} for {w}"
            )));
        }
    }
    Ok(())
}

/// Adds the bias to exact sums and wraps them to int32.
fn with_bias(sums: &[f64], bias: &[i32]) -> Vec<i32> {
    let channels = bias.len().max(1);
    let wrap = |(i, &sum): (usize, &f64)| (sum as i64 as i32).wrapping_add(bias[i % channels]);
    sums.iter().enumerate().map(wrap).collect()
}

impl IntegerConv {
    /// The convolution without its epilogue.
    pub fn conv(&self) -> Conv {
        Conv {
            strides: self.strides.clone(),
            pads: self.pads.clone(),
            dilations: self.dilations.clone(),
            group: self.group,
            auto_pad: self.auto_pad,
            layout: Layout::Nhwc,
            activation: Unary::default(),
        }
    }
}

impl Operator for IntegerConv {
    fn arity(&self) -> Arity {
        Arity::between(4, 6)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        self.epilogue()?;
        check_types(inputs, self.output)?;
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        Ok(vec![Fact::new(self.output, self.conv().dims_for(&x.dims, &w.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        // Padding reads the zero point: convolve x − zero, then add zero·Σw back.
        let shift = self.x_zero as f64;
        let centred: Vec<f64> = x.to_f64_vec().iter().map(|v| v - shift).collect();
        let weights = w.to_f64_vec();
        let sums = convolve_values(&self.conv(), x.shape(), &centred, w.shape(), &weights)?;
        let per_channel = weights.len() / w.shape()[0].max(1);
        let column = |m: usize| weights[m * per_channel..(m + 1) * per_channel].iter().sum::<f64>();
        let columns: Vec<f64> = (0..w.shape()[0]).map(column).collect();
        let channels = columns.len().max(1);
        let full: Vec<f64> = sums
            .values
            .iter()
            .enumerate()
            .map(|(i, sum)| sum + shift * columns[i % channels])
            .collect();
        let bias = inputs.required(2, "bias")?.as_slice::<i32>()?;
        let result = self.epilogue()?.apply(&with_bias(&full, bias), sums.shape, inputs)?;
        Ok(vec![result])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("integers have no gradient"))
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let plain = [0, 1, 2].map(|input| inputs.optional(input));
        let mut links = conv_axes(Layout::Nhwc, self.group, Operands(&plain), outputs);
        let same = |axis: usize, input: usize, input_axis: usize| AxisLink::Same {
            output: 0,
            output_axis: axis,
            input,
            input_axis,
        };
        let rank = outputs[0].rank();
        links.push(same(Layout::Nhwc.channel_axis(rank), 3, 0));
        if inputs.optional(4).is_some() {
            links.extend((0..rank).map(|axis| same(axis, 4, axis)));
        }
        links
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        conv_cost(inputs, outputs)
    }
}

impl Operator for IntegerLinear {
    fn arity(&self) -> Arity {
        Arity::between(4, 6)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        self.epilogue()?;
        check_types(inputs, self.output)?;
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        super::walk::require_rank("w", w, 2)?;
        Ok(vec![Fact::new(self.output, product_dims(&x.dims, &w.dims)?)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, w) = (inputs.required(0, "x")?, inputs.required(1, "w")?);
        let (shape, sums) = multiply(x.shape(), &x.to_f64_vec(), w.shape(), &w.to_f64_vec())?;
        let bias = inputs.required(2, "bias")?.as_slice::<i32>()?;
        Ok(vec![self.epilogue()?.apply(&with_bias(&sums, bias), shape, inputs)?])
    }

    fn grad(&self, _g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        Err(Stops::Because("integers have no gradient"))
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let last = outputs[0].rank().saturating_sub(1);
        let rank = inputs.optional(0).map_or(0, Fact::rank);
        let mut links: Vec<AxisLink> = (0..rank.saturating_sub(1))
            .map(|axis| AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis })
            .collect();
        links.push(AxisLink::Same { output: 0, output_axis: last, input: 1, input_axis: 1 });
        let input_axis = rank.saturating_sub(1);
        links.push(AxisLink::Contracted { input: 0, input_axis, other: 1, other_axis: 0 });
        links
    }

    fn quant(&self) -> Quant {
        Quant::NotApplicable
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        let k = inputs.optional(0).and_then(|x| x.dims.last().cloned());
        Cost::multiply_adds(outputs[0].count() * k.unwrap_or_else(|| Dim::known(0)))
    }
}
