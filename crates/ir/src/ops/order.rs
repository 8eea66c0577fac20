//! Operators that look along an axis: running sums, positions of extremes, the largest elements,
//! and triangles.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::moves::{MoveBack, MoveFunction};
use super::walk::{for_each_index, known_integers, resolve_axis};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};
use crate::ops::unary::same_axes;
use crate::{attributes, words};

attributes! {
    /// x `[…,rows,columns]` with everything below (or above) a diagonal set to zero; the optional
    /// second input is the number of the diagonal, 0 the main one, positive ones above it.
    pub struct Trilu {
        /// True to keep the upper triangle.
        pub upper: bool = true,
    }
}

attributes! {
    /// Running sums, or products, of x along the axis in the second input.
    pub struct CumSum {
        /// True if an element is not part of its own sum.
        pub exclusive: bool = false,
        /// True to sum from the end.
        pub reverse: bool = false,
        /// True for products.
        pub product: bool = false,
    }
}

words! {
    /// Which extreme.
    pub enum ArgFunction {
        /// The largest
        Max = "max",
        /// The smallest
        Min = "min",
    }
}

attributes! {
    /// The position of an extreme along `axis`, as i64.
    pub struct Arg {
        /// Which extreme.
        pub function: ArgFunction = ArgFunction::Max,
        /// Axis; negative counts from the back.
        pub axis: i64 = 0,
        /// True to keep the axis with extent 1.
        pub keep_dims: bool = true,
        /// True for the last of equal extremes.
        pub last: bool = false,
    }
}

attributes! {
    /// The k largest (or smallest) elements along `axis`, in order, and their positions as i64:
    /// inputs x and k `[1]`. Of equal elements the first comes first.
    pub struct TopK {
        /// Axis; negative counts from the back.
        pub axis: i64 = -1,
        /// True for the largest.
        pub largest: bool = true,
    }
}

/// The positions of every lane along `axis`, lanes in row-major order of the other axes.
fn lanes(shape: &[usize], axis: usize) -> Vec<Vec<usize>> {
    let inner: usize = shape[axis + 1..].iter().product();
    let mut others = shape.to_vec();
    others[axis] = 1;
    let strides = lepton_tensor::row_major_strides(shape);
    let mut lanes = Vec::new();
    for_each_index(&others, |index| {
        let first = super::walk::offset(index, &strides);
        lanes.push((0..shape[axis]).map(|i| first + i * inner).collect());
    });
    lanes
}

/// Same links except for one mixed axis.
fn all_but(rank: usize, mixed: Option<usize>) -> Vec<AxisLink> {
    (0..rank)
        .map(|axis| match mixed {
            Some(mixed) if mixed == axis => {
                AxisLink::Frozen { input: 0, input_axis: axis, why: "its order matters" }
            }
            _ => AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis },
        })
        .collect()
}

impl Operator for Trilu {
    facets! {
        arity = Arity::between(1, 2),
        quant = Quant::Requantise,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.rank() < 2 {
            return Err(Problem::shape(format!("x must have rank 2 or more, found {x}")));
        }
        Ok(vec![Fact::new(x.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let diagonal = inputs.optional(1).map_or(0, |k| k.to_i64_vec()[0]);
        let (columns, rank) = (*x.shape().last().unwrap_or(&1), x.rank());
        if rank < 2 {
            return Err(Problem::shape("x must have rank 2 or more"));
        }
        let rows = x.shape()[rank - 2];
        let size = x.dtype().size();
        let mut made = x.clone();
        for (i, element) in made.bytes_mut().chunks_exact_mut(size).enumerate() {
            let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
            let distance = column - row;
            let keep = if self.upper { distance >= diagonal } else { distance <= diagonal };
            if !keep {
                element.fill(0);
            }
        }
        Ok(vec![made])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let mut inputs = g.inputs.to_vec();
        inputs[0] = Some(g.output_grad()?);
        let dx = g.op_with(self.clone(), &inputs)?[0];
        let mut grads = vec![None; g.inputs.len()];
        grads[0] = Some(dx);
        Ok(grads)
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        same_axes(outputs[0].rank().saturating_sub(2))
    }
}

impl Operator for CumSum {
    facets! {
        arity = Arity::exactly(2),
        quant = Quant::FloatOnly("sums need more range than 8 bits have"),
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, axis) = (inputs.required(0, "x")?, inputs.required(1, "axis")?);
        if let Some(axis) = axis.known_integers() {
            let axis = axis.first().copied().ok_or_else(|| Problem::shape("no axis"))?;
            resolve_axis(axis, x.rank())?;
        }
        if x.rank() == 0 {
            return Err(Problem::shape("a scalar has no running sum"));
        }
        Ok(vec![Fact::new(x.dtype, x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, axis) = (inputs.required(0, "x")?, inputs.required(1, "axis")?);
        let axis = axis.to_i64_vec().first().copied().ok_or_else(|| Problem::shape("no axis"))?;
        let axis = resolve_axis(axis, x.rank())?;
        if x.rank() == 0 {
            return Err(Problem::shape("a scalar has no running sum"));
        }
        let mut values = x.to_f64_vec();
        for mut lane in lanes(x.shape(), axis) {
            if self.reverse {
                lane.reverse();
            }
            let mut sum = if self.product { 1.0 } else { 0.0 };
            for at in lane {
                let before = sum;
                sum = if self.product { sum * values[at] } else { sum + values[at] };
                values[at] = if self.exclusive { before } else { sum };
            }
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), x.shape(), &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, axis) = (g.output_grad()?, g.input(1));
        if self.product {
            return Err(Stops::Because("running products are not trained through"));
        }
        let back = CumSum { exclusive: self.exclusive, reverse: !self.reverse, product: false };
        Ok(vec![Some(g.op(back, &[dy, axis])?), None])
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let rank = outputs[0].rank();
        let axis = inputs.optional(1).and_then(Fact::known_integers);
        let axis = axis.and_then(|a| resolve_axis(*a.first()?, rank).ok());
        if axis.is_none() { Vec::new() } else { all_but(rank, axis) }
    }
}

impl Operator for Arg {
    facets! {
        arity = Arity::exactly(1),
        stops = "a position is flat",
        frozen = "the removed axis shifts the others",
        quant = Quant::NotApplicable,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let axis = resolve_axis(self.axis, x.rank())?;
        let mut dims = x.dims.clone();
        if dims.get(axis).is_none_or(|d| d.is(0)) {
            return Err(Problem::shape(format!("{x} has no elements along axis {axis}")));
        }
        if self.keep_dims {
            dims[axis] = Dim::known(1);
        } else {
            dims.remove(axis);
        }
        Ok(vec![Fact::new(DType::I64, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let made = self.infer(Operands(&[Some(&Fact::of(x))]))?;
        let shape = made[0].shape().ok_or_else(|| Problem::shape("a negative extent"))?;
        let values = x.to_f64_vec();
        let better = |a: f64, b: f64| match self.function {
            ArgFunction::Max => a > b || (self.last && a == b),
            ArgFunction::Min => a < b || (self.last && a == b),
        };
        let extreme = |lane: Vec<usize>| {
            let pick = |best: usize, i: usize| {
                if better(values[lane[i]], values[lane[best]]) { i } else { best }
            };
            (1..lane.len()).fold(0, pick) as i64
        };
        let axis = resolve_axis(self.axis, x.rank())?;
        let found: Vec<i64> = lanes(x.shape(), axis).into_iter().map(extreme).collect();
        Ok(vec![Tensor::from_slice(shape, &found)?])
    }
}

impl Operator for TopK {
    facets! {
        arity = Arity::exactly(2).outputs(2, 2),
        quant = Quant::SameAsInput,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, k) = (inputs.required(0, "x")?, inputs.required(1, "k")?);
        let axis = resolve_axis(self.axis, x.rank())?;
        let k = match (&k.integers, known_integers(k, "k")) {
            (Some(values), _) => values.first().cloned(),
            (None, Ok(values)) => values.first().map(|&v| Dim::known(v)),
            (None, Err(_)) => Some(Dim::unknown()),
        };
        let k = k.ok_or_else(|| Problem::shape("k is empty"))?;
        let mut dims = x.dims.clone();
        let extent = dims.get_mut(axis).ok_or_else(|| Problem::shape("x is a scalar"))?;
        if let (Some(have), Some(want)) = (extent.as_known(), k.as_known())
            && !(0..=have).contains(&want)
        {
            return Err(Problem::value(format!("{want} of {have} elements")));
        }
        *extent = k;
        Ok(vec![Fact::new(x.dtype, dims.clone()), Fact::new(DType::I64, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, k) = (inputs.required(0, "x")?, inputs.required(1, "k")?);
        let made = self.infer(Operands(&[Some(&Fact::of(x)), Some(&Fact::of(k))]))?;
        let shape = made[0].shape().ok_or_else(|| Problem::shape("a negative extent"))?;
        let axis = resolve_axis(self.axis, x.rank())?;
        let inner: usize = shape[axis + 1..].iter().product();
        let values = x.to_f64_vec();
        let count: usize = shape.iter().product();
        let (mut best, mut positions) = (vec![0.0; count], vec![0i64; count]);
        let (extent, wanted) = (x.shape()[axis], shape[axis]);
        let mut order: Vec<(f64, usize)> = Vec::with_capacity(extent);
        let by_value = |a: &(f64, usize), b: &(f64, usize)| {
            let values = if self.largest { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) };
            values.then(a.1.cmp(&b.1))
        };
        for lane in 0..values.len() / extent.max(1) {
            let start = lane / inner * extent * inner + lane % inner;
            order.clear();
            order.extend((0..extent).map(|i| (values[start + i * inner], i)));
            // Only those that are wanted are put in order.
            if wanted > 0 && wanted < extent {
                order.select_nth_unstable_by(wanted - 1, by_value);
            }
            order.truncate(wanted);
            order.sort_unstable_by(by_value);
            for (rank, &(value, i)) in order.iter().enumerate() {
                let to = (lane / inner * wanted + rank) * inner + lane % inner;
                (best[to], positions[to]) = (value, i as i64);
            }
        }
        let best = Tensor::from_f64_slice(x.dtype(), shape.clone(), &best)?;
        Ok(vec![best, Tensor::from_slice(shape, &positions)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, x) = (g.output_grad()?, g.input(0));
        let positions = g.outputs.get(1).copied().flatten();
        let positions = positions.ok_or(Stops::Because("the positions were removed as unused"))?;
        let function = MoveFunction::GatherElements;
        let back = MoveBack { function, axis: self.axis, ..MoveBack::default() };
        Ok(vec![Some(g.op(back, &[dy, x, positions])?), None])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        let rank = outputs[0].rank();
        resolve_axis(self.axis, rank).map_or(Vec::new(), |axis| all_but(rank, Some(axis)))
    }
}
