//! Picking elements by index.

use lepton_tensor::{Shape, Tensor, row_major_strides};

use super::facets::facets;
use super::moves::{Move, MoveBack, MoveFunction, Sources, eval_move, grad_of_move};
use super::walk::{for_each_index, offset, resolve_axis};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};

attributes! {
    /// Slices of x at `indices` along `axis`; that axis becomes the axes of `indices`. Negative
    /// indices count from the back.
    pub struct Gather {
        /// Axis of x; negative counts from the back.
        pub axis: i64 = 0,
    }
}

attributes! {
    /// Element `[i, indices[i,j,k], k]` of x for `axis` 1 and likewise for others: the result has
    /// the shape of `indices`, which has the rank of x.
    pub struct GatherElements {
        /// Axis of x; negative counts from the back.
        pub axis: i64 = 0,
    }
}

/// Indices counted from the front.
fn resolve_indices(indices: &Tensor, extent: usize) -> Result<Vec<usize>, Problem> {
    let resolve = |index: i64| {
        let from_front = if index < 0 { index.saturating_add(extent as i64) } else { index };
        usize::try_from(from_front)
            .ok()
            .filter(|&i| i < extent)
            .ok_or_else(|| Problem::value(format!("index {index} is outside an axis of {extent}")))
    };
    indices.to_i64_vec().into_iter().map(resolve).collect()
}

fn check(x: &Fact, indices: &Fact, axis: i64) -> Result<usize, Problem> {
    if !indices.dtype.is_integer() {
        return Err(Problem::dtype("indices", "an integer", indices.dtype));
    }
    if x.rank() == 0 {
        return Err(Problem::shape("a scalar has nothing to gather"));
    }
    resolve_axis(axis, x.rank())
}

fn follow(x: &Fact, indices: &Fact) -> Option<Vec<Dim>> {
    let (values, indices) = (x.integers.as_ref()?, indices.integers.as_ref()?);
    let pick = |index: &Dim| {
        let index = index.as_known()?;
        let index = if index < 0 { index + values.len() as i64 } else { index };
        values.get(usize::try_from(index).ok()?).cloned()
    };
    indices.iter().map(pick).collect()
}

/// Rows of `inner` elements that a gather takes: shape of the result, and each row's number in x.
struct Rows {
    shape: Shape,
    inner: usize,
    from: Vec<usize>,
}

impl Gather {
    fn rows(&self, inputs: Operands<'_, Tensor>) -> Result<Rows, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        let axis = check(&Fact::of(x), &Fact::of(indices), self.axis)?;
        let extent = x.shape()[axis];
        let rows = resolve_indices(indices, extent)?;
        let outer: usize = x.shape()[..axis].iter().product();
        let inner = x.shape()[axis + 1..].iter().product();
        let shape = [&x.shape()[..axis], indices.shape(), &x.shape()[axis + 1..]].concat();
        let of = |o: usize| rows.iter().map(move |row| o * extent + row);
        Ok(Rows { shape, inner, from: (0..outer).flat_map(of).collect() })
    }
}

impl Move for Gather {
    fn sources(&self, inputs: Operands<'_, Tensor>) -> Result<Sources, Problem> {
        let Rows { shape, inner, from } = self.rows(inputs)?;
        let elements = |row: usize| (0..inner).map(move |i| Some(row * inner + i));
        Ok(Sources { shape, from: from.into_iter().flat_map(elements).collect() })
    }
}

impl Operator for Gather {
    facets! {
        arity = Arity::exactly(2),
        quant = Quant::SameAsInput,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        let axis = check(x, indices, self.axis)?;
        let dims = [&x.dims[..axis], &indices.dims, &x.dims[axis + 1..]].concat();
        Ok(vec![Fact::new(x.dtype, dims).with_integers(follow(x, indices))])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let Rows { shape, inner, from } = self.rows(inputs)?;
        // Rows that lie one behind the other are shared.
        if from.windows(2).all(|pair| pair[1] == pair[0] + 1) {
            let start = from.first().map_or(0, |row| row * inner);
            return Ok(vec![x.part(start, shape)?]);
        }
        let mut made = Tensor::zeros(x.dtype(), shape)?;
        let (bytes, size) = (x.bytes(), inner * x.dtype().size());
        for (to, from) in made.bytes_mut().chunks_exact_mut(size.max(1)).zip(from) {
            to.copy_from_slice(&bytes[from * size..(from + 1) * size]);
        }
        Ok(vec![made])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let function = MoveFunction::Gather;
        grad_of_move(MoveBack { function, axis: self.axis, ..MoveBack::default() }, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let (Some(x), Some(indices)) = (inputs.optional(0), inputs.optional(1)) else {
            return Vec::new();
        };
        let Ok(axis) = resolve_axis(self.axis, x.rank()) else { return Vec::new() };
        let same = |output_axis, input, input_axis| AxisLink::Same {
            output: 0,
            output_axis,
            input,
            input_axis,
        };
        let mut links: Vec<AxisLink> = (0..axis).map(|i| same(i, 0, i)).collect();
        links.extend((0..indices.rank()).map(|i| same(axis + i, 1, i)));
        links.extend((axis + 1..x.rank()).map(|i| same(i + indices.rank() - 1, 0, i)));
        links.push(AxisLink::Frozen { input: 0, input_axis: axis, why: "indices point into it" });
        links
    }
}

impl Move for GatherElements {
    fn sources(&self, inputs: Operands<'_, Tensor>) -> Result<Sources, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        self.infer(Operands(&[Some(&Fact::of(x)), Some(&Fact::of(indices))]))?;
        let axis = resolve_axis(self.axis, x.rank())?;
        let rows = resolve_indices(indices, x.shape()[axis])?;
        let strides = row_major_strides(x.shape());
        let mut rows = rows.into_iter();
        let mut from = Vec::with_capacity(indices.len());
        for_each_index(indices.shape(), |index| {
            let mut at = index.to_vec();
            at[axis] = rows.next().unwrap_or(0);
            from.push(Some(offset(&at, &strides)));
        });
        Ok(Sources { shape: indices.shape().to_vec(), from })
    }
}

impl Operator for GatherElements {
    facets! {
        arity = Arity::exactly(2),
        frozen = "the result may be shorter than x on every axis",
        quant = Quant::SameAsInput,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (x, indices) = (inputs.required(0, "x")?, inputs.required(1, "indices")?);
        let axis = check(x, indices, self.axis)?;
        super::walk::require_rank("indices", indices, x.rank())?;
        for (i, (have, want)) in x.dims.iter().zip(&indices.dims).enumerate() {
            if let (Some(have), Some(want)) = (have.as_known(), want.as_known())
                && i != axis
                && want > have
            {
                return Err(Problem::shape(format!("{indices} is longer than {x} on axis {i}")));
            }
        }
        Ok(vec![Fact::new(x.dtype, indices.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        eval_move(self, inputs, None)
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let function = MoveFunction::GatherElements;
        grad_of_move(MoveBack { function, axis: self.axis, ..MoveBack::default() }, g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_shared_or_copied_are_those_that_are_moved() {
        let x = Tensor::from_slice([2, 4, 3], &(0..24).collect::<Vec<i32>>()).unwrap();
        for axis in 0..3 {
            for indices in [&[0_i64, 1, 2][..], &[-1], &[1, 0, 1], &[]] {
                let operands = [Some(&x), Some(&Tensor::vector(indices))];
                let gather = Gather { axis };
                let Ok(moved) = eval_move(&gather, Operands(&operands), None) else {
                    assert!(gather.eval(Operands(&operands)).is_err());
                    continue;
                };
                assert_eq!(gather.eval(Operands(&operands)).unwrap(), moved, "{axis} {indices:?}");
            }
        }
    }
}
