//! Writing elements at indices, and picking slices at tuples of indices.

use lepton_tensor::{Tensor, row_major_strides};

use super::facets::facets;
use super::walk::{for_each_index, offset, pick, require_rank, require_same, resolve_axis};
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, Operands, Operator, Quant};
use crate::ops::gather::GatherElements;
use crate::{attributes, words};

words! {
    /// What becomes of an element that is written, and of one written twice.
    pub enum ScatterReduction {
        /// It is replaced; the last one stays
        Replace = "replace",
        /// The sum
        Add = "add",
        /// The product
        Mul = "mul",
        /// The larger
        Max = "max",
        /// The smaller
        Min = "min",
    }
}

attributes! {
    /// x with element `[i, indices[i,j,k], k]` (for `axis` 1, likewise for others) changed by
    /// `updates[i,j,k]`: inputs x, indices and updates, the latter two of one shape. Negative
    /// indices count from the back.
    pub struct ScatterElements {
        /// Axis of x; negative counts from the back.
        pub axis: i64 = 0,
        /// How elements change.
        pub reduction: ScatterReduction = ScatterReduction::Replace,
    }
}

attributes! {
    /// x with the slices at the tuples of indices along the last axis of `indices` changed by
    /// those of `updates`: inputs x, indices `[…,K]`, updates `[…, x.shape[K..]]`.
    pub struct ScatterND {
        /// How elements change.
        pub reduction: ScatterReduction = ScatterReduction::Replace,
    }
}

attributes! {
    /// The slices of x at the tuples of indices along the last axis of `indices` `[B…,…,K]`: the
    /// result is `[B…,…, x.shape[batch_dims + K..]]`.
    pub struct GatherND {
        /// Leading axes that x and indices share.
        pub batch_dims: usize = 0,
    }
}

fn from_front(index: i64, extent: usize) -> Result<usize, Problem> {
    let index_from_front = if index < 0 { index.saturating_add(extent as i64) } else { index };
    usize::try_from(index_from_front)
        .ok()
        .filter(|&i| i < extent)
        .ok_or_else(|| Problem::value(format!("index {index} is outside an axis of {extent}")))
}

/// x with `updates[i]` written at `places[i]`.
fn written(
    x: &Tensor,
    places: &[usize],
    updates: &Tensor,
    reduction: ScatterReduction,
) -> Result<Vec<Tensor>, Problem> {
    if places.len() != updates.len() {
        return Err(Problem::shape("there must be one update for each index"));
    }
    if reduction == ScatterReduction::Replace {
        let mut made = x.clone();
        let size = x.dtype().size();
        let bytes = made.bytes_mut();
        for (&at, update) in places.iter().zip(updates.bytes().chunks_exact(size)) {
            bytes[at * size..(at + 1) * size].copy_from_slice(update);
        }
        return Ok(vec![made]);
    }
    macro_rules! reduce {
        ($read:ident, $write:ident, $add:expr, $mul:expr) => {{
            let mut values = x.$read();
            for (&at, update) in places.iter().zip(updates.$read()) {
                let old = values[at];
                values[at] = match reduction {
                    ScatterReduction::Replace => update,
                    ScatterReduction::Add => $add(old, update),
                    ScatterReduction::Mul => $mul(old, update),
                    ScatterReduction::Max => old.max(update),
                    ScatterReduction::Min => old.min(update),
                };
            }
            Ok(vec![Tensor::$write(x.dtype(), x.shape(), &values)?])
        }};
    }
    if x.dtype().is_integer() {
        return reduce!(to_i64_vec, from_i64_slice, i64::wrapping_add, i64::wrapping_mul);
    }
    reduce!(to_f64_vec, from_f64_slice, |a: f64, b: f64| a + b, |a: f64, b: f64| a * b)
}

/// Checks what both scatters share, and gives the fact of the result.
fn scattered(inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
    let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
    require_same("updates", x.dtype, inputs.required(2, "updates")?.dtype)?;
    if !indices.dtype.is_integer() {
        return Err(Problem::dtype("indices", "an integer", indices.dtype));
    }
    Ok(vec![Fact::new(x.dtype, x.dims.clone())])
}

impl Operator for ScatterElements {
    facets! {
        arity = Arity::exactly(3),
        frozen = "indices point into the axis, and the others may be shorter than those of x",
        quant = Quant::FloatOnly("x and the updates would need one scale"),
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        if x.rank() == 0 {
            return Err(Problem::shape("a scalar has no axis to scatter along"));
        }
        resolve_axis(self.axis, x.rank())?;
        require_rank("indices", indices, x.rank())?;
        require_rank("updates", inputs.required(2, "updates")?, x.rank())?;
        scattered(inputs)
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        let updates = inputs.required(2, "updates")?;
        self.infer(Operands(&[x, indices, updates].map(Fact::of).each_ref().map(Some)))?;
        let axis = resolve_axis(self.axis, x.rank())?;
        let fits = |i: usize| i == axis || indices.shape()[i] <= x.shape()[i];
        if updates.shape() != indices.shape() || !(0..x.rank()).all(fits) {
            let (indices, updates) = (indices.shape(), updates.shape());
            return Err(Problem::shape(format!("indices {indices:?}, updates {updates:?}")));
        }
        let strides = row_major_strides(x.shape());
        let mut given = indices.to_i64_vec().into_iter();
        let mut places = Vec::with_capacity(indices.len());
        let mut wrong = None;
        for_each_index(indices.shape(), |index| {
            let mut at = index.to_vec();
            match from_front(given.next().unwrap_or(0), x.shape()[axis]) {
                Ok(own) => at[axis] = own,
                Err(problem) => wrong = Some(problem),
            }
            places.push(offset(&at, &strides));
        });
        wrong.map_or_else(|| written(x, &places, updates, self.reduction), Err)
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, indices) = (g.output_grad()?, g.input(1));
        let updates = g.op(GatherElements { axis: self.axis }, &[dy, indices])?;
        match self.reduction {
            // Of two updates of one element only the last counts; which one is not asked here.
            ScatterReduction::Add => Ok(vec![Some(dy), None, Some(updates)]),
            _ => Err(Stops::Because("only sums are trained through")),
        }
    }
}

/// Number of indices of a tuple.
fn tuple(indices: &Fact) -> Result<usize, Problem> {
    let last = indices.dims.last().and_then(Dim::as_usize);
    last.ok_or(Problem::NotConstant("the last extent of indices"))
}

/// For each tuple of indices, where its slice of x starts, and the number of elements of a slice.
fn slices(x: &Tensor, indices: &Tensor, batch_dims: usize) -> Result<(Vec<usize>, usize), Problem> {
    let count = *indices.shape().last().ok_or_else(|| Problem::shape("indices is a scalar"))?;
    let used = batch_dims + count;
    if used > x.rank() || batch_dims >= indices.rank() {
        return Err(Problem::shape(format!("tuples of {count} for a tensor of {}", x.rank())));
    }
    let strides = row_major_strides(x.shape());
    let slice: usize = x.shape()[used..].iter().product();
    let batches: usize = x.shape()[..batch_dims].iter().product();
    let tuples: usize = indices.shape()[..indices.rank() - 1].iter().product();
    let of_batch: usize = x.shape()[batch_dims..].iter().product();
    let given = indices.to_i64_vec();
    let start = |i: usize| {
        let batch = i / (tuples / batches.max(1)).max(1);
        (0..count).try_fold(batch * of_batch, |sum, k| {
            let axis = batch_dims + k;
            Ok(sum + from_front(given[i * count + k], x.shape()[axis])? * strides[axis])
        })
    };
    let starts: Result<Vec<usize>, Problem> = (0..tuples).map(start).collect();
    Ok((starts?, slice))
}

impl Operator for ScatterND {
    facets! {
        arity = Arity::exactly(3),
        frozen = "indices point into the leading axes",
        quant = Quant::FloatOnly("x and the updates would need one scale"),
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        if inputs.required(1, "indices")?.rank() == 0 {
            return Err(Problem::shape("indices must have an axis"));
        }
        scattered(inputs)
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        let (starts, slice) = slices(x, indices, 0)?;
        let places: Vec<usize> = starts.iter().flat_map(|start| *start..*start + slice).collect();
        written(x, &places, inputs.required(2, "updates")?, self.reduction)
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, indices) = (g.output_grad()?, g.input(1));
        match self.reduction {
            ScatterReduction::Add => {
                let updates = g.op(GatherND::default(), &[dy, indices])?;
                Ok(vec![Some(dy), None, Some(updates)])
            }
            _ => Err(Stops::Because("only sums are trained through")),
        }
    }
}

impl Operator for GatherND {
    facets! {
        arity = Arity::exactly(2),
        frozen = "indices point into the leading axes",
        quant = Quant::SameAsInput,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        if !indices.dtype.is_integer() {
            return Err(Problem::dtype("indices", "an integer", indices.dtype));
        }
        let used = self.batch_dims.saturating_add(tuple(indices)?);
        if used > x.rank() || self.batch_dims >= indices.rank() {
            return Err(Problem::shape(format!("{indices} do not point into {x}")));
        }
        let lead = &indices.dims[..indices.rank() - 1];
        Ok(vec![Fact::new(x.dtype, [lead, &x.dims[used..]].concat())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        let made = self.infer(Operands(&[Some(&Fact::of(x)), Some(&Fact::of(indices))]))?;
        let (starts, slice) = slices(x, indices, self.batch_dims)?;
        let shape = made[0].shape().ok_or_else(|| Problem::shape("a negative extent"))?;
        let places: Vec<usize> = starts.iter().flat_map(|start| *start..*start + slice).collect();
        Ok(vec![pick(x, shape, &places)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        if self.batch_dims != 0 {
            return Err(Stops::Because("batches of slices are not trained through"));
        }
        let (dy, x, indices) = (g.output_grad()?, g.input(0), g.input(1));
        let nothing = g.op(
            crate::ops::binary::Binary::new(crate::ops::binary::BinaryFunction::Sub),
            &[x, x],
        )?;
        let op = ScatterND { reduction: ScatterReduction::Add };
        Ok(vec![Some(g.op(op, &[nothing, indices, dy])?), None])
    }
}
