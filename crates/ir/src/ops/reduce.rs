//! Reductions over axes, as a table.

use lepton_tensor::{DType, Tensor, row_major_strides};

use super::binary::{Binary, BinaryFunction};
use super::softmax::Softmax;
use super::unary::{Unary, UnaryFunction, multiply};
use super::walk::{for_each_index, known_integers, offset, resolve_axes};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};
use crate::{attributes, words};

words! {
    /// What the elements along the reduced axes become.
    pub enum ReduceFunction {
        /// Σx
        Sum = "sum",
        /// Σx/n
        Mean = "mean",
        /// The largest
        Max = "max",
        /// The smallest
        Min = "min",
        /// Πx
        Prod = "prod",
        /// Σ|x|
        L1 = "l1",
        /// √Σx²
        L2 = "l2",
        /// Σx²
        SumSquare = "sum_square",
        /// ln Σx
        LogSum = "log_sum",
        /// ln Σeˣ
        LogSumExp = "log_sum_exp",
    }
}

attributes! {
    /// One function over the axes in `axes` (second input; absent or empty means all of them, or
    /// none where `noop_if_empty`).
    pub struct Reduce {
        /// Which function.
        pub function: ReduceFunction = ReduceFunction::Sum,
        /// True to keep reduced axes with extent 1.
        pub keep_dims: bool = true,
        /// True if no axes means no reduction.
        pub noop_if_empty: bool = false,
    }
}

impl Reduce {
    /// The operator for one function that keeps the rank.
    pub fn new(function: ReduceFunction) -> Self {
        Reduce { function, ..Reduce::default() }
    }

    /// The axes it reduces, counted from the front.
    pub fn axes_of(&self, axes: Option<&Fact>, rank: usize) -> Result<Vec<usize>, Problem> {
        let axes = match axes {
            Some(axes) => known_integers(axes, "axes")?,
            None => Vec::new(),
        };
        if axes.is_empty() {
            return Ok(if self.noop_if_empty { Vec::new() } else { (0..rank).collect() });
        }
        resolve_axes(&axes, rank)
    }

    fn apply(&self, lane: &[f64]) -> f64 {
        let sum = |f: fn(f64) -> f64| lane.iter().map(|&x| f(x)).sum::<f64>();
        let nan_aware = |pick: fn(f64, f64) -> f64, start: f64| {
            lane.iter()
                .fold(start, |a, &b| if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) })
        };
        match self.function {
            ReduceFunction::Sum => sum(|x| x),
            ReduceFunction::Mean => sum(|x| x) / lane.len() as f64,
            ReduceFunction::Max => nan_aware(f64::max, f64::NEG_INFINITY),
            ReduceFunction::Min => nan_aware(f64::min, f64::INFINITY),
            ReduceFunction::Prod => lane.iter().product(),
            ReduceFunction::L1 => sum(f64::abs),
            ReduceFunction::L2 => sum(|x| x * x).sqrt(),
            ReduceFunction::SumSquare => sum(|x| x * x),
            ReduceFunction::LogSum => sum(|x| x).ln(),
            ReduceFunction::LogSumExp => {
                let max = lane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if max.is_infinite() {
                    max
                } else {
                    lane.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max
                }
            }
        }
    }
}

/// `x·(dy − Σ dy·x)` for softmax, `dy − eˣ·Σ dy` for its logarithm (x being the result).
pub(crate) fn grad_of_softmax(
    op: &Softmax,
    g: &mut Backward<'_>,
) -> Result<Vec<Option<ValueId>>, Stops> {
    let (dy, y) = (g.output_grad()?, g.output());
    let axes = g.integers(&[op.axis]);
    let weighted = if op.log { dy } else { multiply(g, dy, y)? };
    let total = g.op(Reduce::new(ReduceFunction::Sum), &[weighted, axes])?;
    let sub = |g: &mut Backward<'_>, a, b| g.op(Binary::new(BinaryFunction::Sub), &[a, b]);
    let dx = if op.log {
        let probabilities = g.op(Unary::new(UnaryFunction::Exp), &[y])?;
        let spread = multiply(g, probabilities, total)?;
        sub(g, dy, spread)?
    } else {
        let centred = sub(g, dy, total)?;
        multiply(g, y, centred)?
    };
    Ok(vec![Some(dx)])
}

impl Operator for Reduce {
    fn arity(&self) -> Arity {
        Arity::between(1, 2)
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let axes = self.axes_of(inputs.optional(1), x.rank())?;
        let mut dims = Vec::with_capacity(x.rank());
        for (axis, dim) in x.dims.iter().enumerate() {
            if !axes.contains(&axis) {
                dims.push(dim.clone());
            } else if self.keep_dims {
                dims.push(Dim::known(1));
            }
        }
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let axes_fact = inputs.optional(1).map(Fact::of);
        let axes = self.axes_of(axes_fact.as_ref(), x.rank())?;
        if axes.is_empty() && self.noop_if_empty && x.rank() > 0 {
            return Ok(vec![x.clone()]);
        }
        let extent = |axis: usize, reduced: bool| {
            if axes.contains(&axis) == reduced { x.shape()[axis] } else { 1 }
        };
        let kept: Vec<usize> = (0..x.rank()).map(|axis| extent(axis, false)).collect();
        let lane_shape: Vec<usize> = (0..x.rank()).map(|axis| extent(axis, true)).collect();
        let strides = row_major_strides(x.shape());
        let source = x.to_f64_vec();
        let mut values = Vec::new();
        for_each_index(&kept, |index| {
            let base = offset(index, &strides);
            let mut lane = Vec::new();
            for_each_index(&lane_shape, |inner| lane.push(source[base + offset(inner, &strides)]));
            values.push(self.apply(&lane));
        });
        if x.dtype() == DType::Bool {
            // The largest of no truths is false.
            values.iter_mut().for_each(|v| *v = v.max(0.0));
        }
        let shape: Vec<usize> = (0..x.rank())
            .filter(|axis| self.keep_dims || !axes.contains(axis))
            .map(|axis| kept[axis])
            .collect();
        Ok(vec![Tensor::from_f64_slice(x.dtype(), shape, &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        super::reduce_grad::grad(self, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let Some(x) = inputs.optional(0) else { return Vec::new() };
        let Ok(axes) = self.axes_of(inputs.optional(1), x.rank()) else { return Vec::new() };
        let mut links = Vec::new();
        let mut output_axis = 0;
        for axis in 0..x.rank() {
            if axes.contains(&axis) {
                let why = "a reduction mixes its axis";
                links.push(AxisLink::Frozen { input: 0, input_axis: axis, why });
                output_axis += self.keep_dims as usize;
            } else {
                links.push(AxisLink::Same { output: 0, output_axis, input: 0, input_axis: axis });
                output_axis += 1;
            }
        }
        links
    }

    fn quant(&self) -> Quant {
        match self.function {
            ReduceFunction::Mean => Quant::Requantise,
            ReduceFunction::Max | ReduceFunction::Min => Quant::SameAsInput,
            _ => Quant::FloatOnly("sums and norms need more range than 8 bits have"),
        }
    }

    fn cost(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        inputs.optional(0).map_or_else(Cost::free, |x| Cost::element_ops(x.count()))
    }
}
