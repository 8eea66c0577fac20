//! Tensors made from shapes and numbers alone.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::walk::{pick, unknown_dims};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};

/// Most elements of a range whose values are followed.
const MAX_FOLLOWED: i64 = 64;
/// Most elements a generated tensor may have: beyond that the operands are broken.
const MAX_COUNT: usize = 1 << 40;

attributes! {
    /// A tensor of the extents in `shape`, every element the one in `value`.
    pub struct ConstantOfShape {
        /// One element of the type of the result.
        pub value: Tensor = Tensor::vector(&[0f32]),
    }
}

attributes! {
    /// `start, start + delta, …` to before `limit`: three scalars of one type.
    pub struct Range {}
}

attributes! {
    /// The number of elements of x, as an i64 scalar.
    pub struct Size {}
}

impl Operator for ConstantOfShape {
    facets! {
        arity = Arity::exactly(1),
        stops = "the result does not depend on real numbers",
        frozen = "the operand is a shape",
        quant = Quant::NotApplicable,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let shape = inputs.required(0, "shape")?;
        if self.value.len() != 1 {
            return Err(Problem::attribute("value", "must be one element"));
        }
        let known = || shape.known_integers().map(|v| v.into_iter().map(Dim::known).collect());
        let dims: Option<Vec<Dim>> = shape.integers.clone().or_else(known);
        let Some(dims) = dims else {
            return Ok(vec![Fact::new(self.value.dtype(), unknown_dims(shape, "shape")?)]);
        };
        let value = self.value.dtype().is_integer().then(|| Dim::known(self.value.to_i64_vec()[0]));
        let count = match dims.as_slice() {
            [] => Some(1),
            [count] => count.as_usize().filter(|&n| n as i64 <= MAX_FOLLOWED),
            _ => None,
        };
        let integers = value.zip(count).map(|(value, count)| vec![value; count]);
        Ok(vec![Fact::new(self.value.dtype(), dims).with_integers(integers)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let wanted = inputs.required(0, "shape")?.to_i64_vec();
        let extents: Option<Vec<usize>> = wanted.iter().map(|&v| usize::try_from(v).ok()).collect();
        let shape = extents.ok_or_else(|| Problem::value(format!("negative in {wanted:?}")))?;
        let count = lepton_tensor::checked_product(&shape).filter(|&n| n <= MAX_COUNT);
        let count = count.ok_or_else(|| Problem::value(format!("{shape:?} is too large")))?;
        if self.value.len() != 1 {
            return Err(Problem::attribute("value", "must be one element"));
        }
        Ok(vec![pick(&self.value, shape, &vec![0; count])?])
    }
}

/// Number of elements of a range of reals.
fn range_count(start: f64, limit: f64, delta: f64) -> Result<usize, Problem> {
    let count = ((limit - start) / delta).ceil().max(0.0);
    if delta == 0.0 || !count.is_finite() || count > MAX_COUNT as f64 {
        return Err(Problem::value(format!("no range from {start} to {limit} by {delta}")));
    }
    Ok(count as usize)
}

impl Range {
    fn follow(start: &Fact, limit: &Fact, delta: &Fact) -> Option<(Dim, Option<Vec<Dim>>)> {
        let first = |fact: &Fact| fact.integers.as_ref().and_then(|v| v.first().cloned());
        let (start, limit) = (first(start)?, first(limit)?);
        let delta = first(delta)?.as_known().filter(|&d| d != 0)?;
        let distance = limit - start.clone();
        let count = if delta > 0 {
            distance.ceil_div(&Dim::known(delta))
        } else {
            (-distance).ceil_div(&Dim::known(delta.saturating_neg()))
        };
        let count = match count.as_known() {
            Some(known) => Dim::known(known.max(0)),
            None => count,
        };
        let values = count
            .as_known()
            .filter(|&n| n <= MAX_FOLLOWED)
            .map(|n| (0..n).map(|i| start.clone() + Dim::known(i.saturating_mul(delta))).collect());
        Some((count, values))
    }
}

impl Operator for Range {
    facets! {
        arity = Arity::exactly(3),
        stops = "the number of elements depends on the operands",
        frozen = "the operands are scalars",
        quant = Quant::NotApplicable,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (start, limit) = (inputs.required(0, "start")?, inputs.required(1, "limit")?);
        let delta = inputs.required(2, "delta")?;
        for fact in [start, limit, delta] {
            super::walk::require_same("an operand", start.dtype, fact.dtype)?;
            if fact.count().as_known().is_some_and(|n| n != 1) {
                return Err(Problem::shape(format!("the operands are scalars, found {fact}")));
            }
        }
        if let Some((count, values)) = Range::follow(start, limit, delta) {
            return Ok(vec![Fact::new(start.dtype, vec![count]).with_integers(values)]);
        }
        let real = |fact: &Fact| fact.constant.as_ref().map(|t| t.to_f64_vec()[0]);
        let count = match (real(start), real(limit), real(delta)) {
            (Some(start), Some(limit), Some(delta)) => Dim::from(range_count(start, limit, delta)?),
            _ => Dim::unknown(),
        };
        Ok(vec![Fact::new(start.dtype, vec![count])])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let start = inputs.required(0, "start")?;
        let operands = [start, inputs.required(1, "limit")?, inputs.required(2, "delta")?];
        if operands.iter().any(|t| t.len() != 1) {
            return Err(Problem::shape("the operands are scalars"));
        }
        let [first, limit, delta] = operands.map(|t| t.to_f64_vec()[0]);
        let count = range_count(first, limit, delta)?;
        if start.dtype().is_integer() {
            let (first, delta) = (start.to_i64_vec()[0], operands[2].to_i64_vec()[0]);
            let at = |i: usize| first.wrapping_add((i as i64).wrapping_mul(delta));
            let values: Vec<i64> = (0..count).map(at).collect();
            return Ok(vec![Tensor::from_i64_slice(start.dtype(), [count], &values)?]);
        }
        let values: Vec<f64> = (0..count).map(|i| first + i as f64 * delta).collect();
        Ok(vec![Tensor::from_f64_slice(start.dtype(), [count], &values)?])
    }
}

impl Operator for Size {
    facets! {
        arity = Arity::exactly(1),
        stops = "the number of elements does not depend on them",
        frozen = "the result counts every axis",
        quant = Quant::NotApplicable,
        element_ops = 0,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let count = inputs.required(0, "x")?.count();
        Ok(vec![Fact::new(DType::I64, Vec::new()).with_integers(Some(vec![count]))])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        Ok(vec![Tensor::scalar(inputs.required(0, "x")?.len() as i64)])
    }
}
