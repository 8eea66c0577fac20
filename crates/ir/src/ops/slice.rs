//! Cutting a box with steps out of a tensor.

use lepton_tensor::{Shape, Tensor, row_major_strides};

use super::facets::facets;
use super::moves::{Move, MoveBack, MoveFunction, Sources, eval_move, grad_of_move};
use super::walk::{for_each_index, known_integers, resolve_axis, strided};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};

/// Bounds at least this large mean "to the end", whatever the extent (exporters write the
/// greatest i32 or i64).
const TO_THE_END: i64 = i32::MAX as i64;

attributes! {
    /// x from `starts` to before `ends` along `axes` (absent: the leading ones) in `steps` (absent:
    /// 1). Negative bounds count from the back; bounds outside are clamped; a negative step walks
    /// backward.
    ///
    /// A symbolic extent is taken to hold the bounds given against it, and a symbolic bound to lie
    /// within its axis; binding the symbols decides exactly.
    pub struct Slice {}
}

/// What happens along one axis.
struct Cut {
    axis: usize,
    start: Dim,
    end: Dim,
    step: i64,
}

/// First index and number of indices along an axis of `extent`.
fn resolve_known(start: i64, end: i64, step: i64, extent: i64) -> (i64, i64) {
    let (low, high) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
    let clamp = |bound: i64| {
        let from_front = if bound < 0 { bound.saturating_add(extent) } else { bound };
        from_front.clamp(low, high)
    };
    let (start, end) = (clamp(start), clamp(end));
    let start = if step < 0 { start.max(-1) } else { start };
    let distance = if step > 0 { end - start } else { start - end };
    let stride = step.unsigned_abs().min(i64::MAX as u64) as i64;
    (start, if distance <= 0 { 0 } else { (distance - 1) / stride + 1 })
}

/// A bound of a symbolic extent, or a symbolic bound.
fn resolve_symbolic(bound: &Dim, extent: &Dim, backward: bool) -> Dim {
    let Some(value) = bound.as_known() else { return bound.clone() };
    let last = extent.clone() - Dim::known(1);
    if value >= TO_THE_END {
        return if backward { last } else { extent.clone() };
    }
    if value <= -TO_THE_END {
        return Dim::known(if backward { -1 } else { 0 });
    }
    match (value < 0, value > 1) {
        (true, _) => extent.clone() + bound.clone(),
        (false, true) => bound.smaller(if backward { &last } else { extent }),
        (false, false) => bound.clone(),
    }
}

impl Cut {
    /// First index and number of indices.
    fn resolve(&self, extent: &Dim) -> (Dim, Dim) {
        if let (Some(start), Some(end), Some(extent)) =
            (self.start.as_known(), self.end.as_known(), extent.as_known())
        {
            let (first, count) = resolve_known(start, end, self.step, extent);
            return (Dim::known(first), Dim::known(count));
        }
        let backward = self.step < 0;
        let start = resolve_symbolic(&self.start, extent, backward);
        let end = resolve_symbolic(&self.end, extent, backward);
        let distance = if backward { start.clone() - end } else { end - start.clone() };
        (start, distance.ceil_div(&Dim::known(self.step.saturating_abs())))
    }
}

impl Slice {
    /// The cuts, or `None` where the bounds are not known before the model runs.
    fn cuts(&self, inputs: Operands<'_, Fact>) -> Result<Option<Vec<Cut>>, Problem> {
        let rank = inputs.required(0, "x")?.rank();
        let followed = |fact: &Fact| {
            let known = || fact.known_integers().map(|v| v.into_iter().map(Dim::known).collect());
            fact.integers.clone().or_else(known)
        };
        let starts: Option<Vec<Dim>> = followed(inputs.required(1, "starts")?);
        let ends: Option<Vec<Dim>> = followed(inputs.required(2, "ends")?);
        let (Some(starts), Some(ends)) = (starts, ends) else { return Ok(None) };
        let axes = match inputs.optional(3) {
            Some(axes) => known_integers(axes, "axes")?,
            None => (0..starts.len() as i64).collect(),
        };
        let steps = match inputs.optional(4) {
            Some(steps) => known_integers(steps, "steps")?,
            None => vec![1; starts.len()],
        };
        if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
            return Err(Problem::shape("starts, ends, axes and steps must have one length"));
        }
        let mut cuts: Vec<Cut> = Vec::with_capacity(starts.len());
        for (i, (start, end)) in starts.into_iter().zip(ends).enumerate() {
            let axis = resolve_axis(axes[i], rank)?;
            if axis >= rank || cuts.iter().any(|cut| cut.axis == axis) {
                return Err(Problem::value(format!("axes {axes:?} do not fit rank {rank}")));
            }
            if steps[i] == 0 {
                return Err(Problem::value("a step of 0"));
            }
            cuts.push(Cut { axis, start, end, step: steps[i] });
        }
        Ok(Some(cuts))
    }

    /// The first index and the step along every axis of x, where all are known.
    pub fn first_and_step(
        &self,
        inputs: Operands<'_, Fact>,
    ) -> Result<Option<Vec<(i64, i64)>>, Problem> {
        let x = inputs.required(0, "x")?;
        let mut places = vec![(0, 1); x.rank()];
        let Some(cuts) = self.cuts(inputs)? else { return Ok(None) };
        for cut in &cuts {
            let Some(first) = cut.resolve(&x.dims[cut.axis]).0.as_known() else { return Ok(None) };
            places[cut.axis] = (first, cut.step);
        }
        Ok(Some(places))
    }

    /// Where unknown bounds may change the extent.
    fn unknown_axes(&self, inputs: Operands<'_, Fact>, rank: usize) -> Vec<usize> {
        let axes = inputs.optional(3).map(Fact::known_integers);
        let leading = || inputs.optional(1).and_then(|s| s.dims.first().and_then(Dim::as_usize));
        match axes {
            // Of a scalar the first axis resolves, but there is none.
            Some(Some(axes)) => {
                let resolved = axes.iter().filter_map(|&axis| resolve_axis(axis, rank).ok());
                resolved.filter(|&axis| axis < rank).collect()
            }
            Some(None) => (0..rank).collect(),
            None => (0..leading().unwrap_or(rank).min(rank)).collect(),
        }
    }
}

fn follow(x: &Fact, cuts: &[Cut]) -> Option<Vec<Dim>> {
    let values = x.integers.as_ref()?;
    let [cut] = cuts else { return None };
    let (first, count) = cut.resolve(x.dims.first()?);
    let (first, count) = (first.as_known()?, count.as_known()?);
    (0..count).map(|i| values.get(usize::try_from(first + i * cut.step).ok()?).cloned()).collect()
}

/// What a slice of a tensor is: its shape, and the first index and the step along every axis.
type Places = (Shape, Vec<(i64, i64)>);

impl Slice {
    fn places(&self, inputs: Operands<'_, Tensor>) -> Result<Places, Problem> {
        let facts: Vec<Option<Fact>> = inputs.0.iter().map(|t| t.map(Fact::of)).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        let cuts = self.cuts(Operands(&facts))?.ok_or(Problem::NotConstant("starts"))?;
        let x = inputs.required(0, "x")?;
        let mut shape = x.shape().to_vec();
        let mut first_and_step: Vec<(i64, i64)> = vec![(0, 1); shape.len()];
        for cut in &cuts {
            let (first, count) = cut.resolve(&Dim::from(x.shape()[cut.axis]));
            let bound = || Problem::value("a bound is not a number");
            shape[cut.axis] = count.as_usize().ok_or_else(bound)?;
            first_and_step[cut.axis] = (first.as_known().ok_or_else(bound)?, cut.step);
        }
        Ok((shape, first_and_step))
    }
}

impl Move for Slice {
    fn sources(&self, inputs: Operands<'_, Tensor>) -> Result<Sources, Problem> {
        let (shape, first_and_step) = self.places(inputs)?;
        let strides = row_major_strides(inputs.required(0, "x")?.shape());
        let mut from = Vec::new();
        for_each_index(&shape, |index| {
            let along = index.iter().zip(&first_and_step).zip(&strides);
            let at = |((&i, &(first, step)), &stride): ((&usize, &(i64, i64)), &usize)| {
                (first + i as i64 * step) as usize * stride
            };
            from.push(Some(along.map(at).sum()));
        });
        Ok(Sources { shape, from })
    }
}

impl Operator for Slice {
    facets! {
        arity = Arity::between(3, 5),
        quant = Quant::SameAsInput,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        let mut dims = x.dims.clone();
        let Some(cuts) = self.cuts(inputs)? else {
            for axis in self.unknown_axes(inputs, x.rank()) {
                dims[axis] = Dim::unknown();
            }
            return Ok(vec![Fact::new(x.dtype, dims)]);
        };
        for cut in &cuts {
            dims[cut.axis] = cut.resolve(&x.dims[cut.axis]).1;
            if dims[cut.axis].as_known().is_some_and(|d| d < 0) {
                dims[cut.axis] = Dim::known(0);
            }
        }
        Ok(vec![Fact::new(x.dtype, dims).with_integers(follow(x, &cuts))])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let (shape, first_and_step) = self.places(inputs)?;
        if shape.contains(&0) || first_and_step.iter().any(|&(first, step)| first < 0 || step < 0) {
            return eval_move(self, inputs, None);
        }
        let own = row_major_strides(x.shape());
        let along = first_and_step.iter().zip(&own);
        let start = along.clone().map(|(&(first, _), stride)| first as usize * stride).sum();
        // The step of one index goes nowhere, however large it is.
        let steps = along.zip(&shape).map(|((&(_, step), stride), &count)| match count {
            1 => *stride,
            _ => step as usize * stride,
        });
        let strides: Vec<usize> = steps.collect();
        Ok(vec![strided(x, start, shape, &strides)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        grad_of_move(MoveBack { function: MoveFunction::Slice, ..MoveBack::default() }, g)
    }

    fn axes(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let Some(x) = inputs.optional(0) else { return Vec::new() };
        let Ok(Some(cuts)) = self.cuts(inputs) else { return Vec::new() };
        let link = |axis: usize| {
            let same = AxisLink::Same { output: 0, output_axis: axis, input: 0, input_axis: axis };
            let Some(cut) = cuts.iter().find(|cut| cut.axis == axis) else { return Some(same) };
            let first = cut.resolve(&x.dims[axis]).0.as_known()?;
            (cut.step == 1).then_some(AxisLink::Offset {
                output: 0,
                output_axis: axis,
                input: 0,
                input_axis: axis,
                offset: -first,
            })
        };
        (0..x.rank()).filter_map(link).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_cut_in_lines_is_what_is_moved_one_by_one(
            shape in prop::collection::vec(1_usize..6, 3),
            bounds in prop::collection::vec((-7_i64..8, -7_i64..8, -4_i64..5), 3),
        ) {
            let values: Vec<i32> = (0..shape.iter().product::<usize>() as i32).collect();
            let x = Tensor::from_slice(shape, &values).unwrap();
            let of = |what: fn(&(i64, i64, i64)) -> i64| {
                Tensor::vector(&bounds.iter().map(what).collect::<Vec<i64>>())
            };
            let starts = of(|bound| bound.0);
            let ends = of(|bound| bound.1);
            let axes = Tensor::vector(&[2_i64, 0, 1]);
            let steps = of(|bound| if bound.2 == 0 { i64::MAX } else { bound.2 });
            let operands = [&x, &starts, &ends, &axes, &steps].map(Some);
            let found = Slice {}.eval(Operands(&operands)).unwrap();
            prop_assert_eq!(found, eval_move(&Slice {}, Operands(&operands), None).unwrap());
        }
    }
}
