//! Choosing between elements, and bounds given as operands.

use lepton_tensor::{DType, Tensor};

use super::binary::{Binary, BinaryFunction};
use super::facets::facets;
use super::sum_to::sum_to_like;
use super::unary::{Unary, UnaryFunction, multiply, same_axes};
use super::walk::{broadcast_all, broadcast_dims, broadcast_positions, require_same};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::operator::{Arity, AxisLink, Operands, Operator, Quant};

attributes! {
    /// `a` where `condition` (bool), else `b`; all three broadcast.
    pub struct Where {}
}

attributes! {
    /// `¬x` of a bool tensor.
    pub struct Not {}
}

attributes! {
    /// `min(max(x, low), high)`: inputs x, low (scalar, absent: none), high (scalar, absent: none).
    pub struct Clip {}
}

/// Links of operands that broadcast to the result.
fn broadcast_axes(inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
    let mut links = Vec::new();
    for input in 0..inputs.len() {
        let Some(fact) = inputs.optional(input) else { continue };
        let lead = outputs[0].rank().saturating_sub(fact.rank());
        for (input_axis, _) in fact.dims.iter().enumerate().filter(|(_, dim)| !dim.is(1)) {
            let output_axis = input_axis + lead;
            links.push(AxisLink::Same { output: 0, output_axis, input, input_axis });
        }
    }
    links
}

fn follow(condition: &Fact, a: &Fact, b: &Fact) -> Option<Vec<Dim>> {
    let (condition, a, b) =
        (condition.integers.as_ref()?, a.integers.as_ref()?, b.integers.as_ref()?);
    let count = condition.len().max(a.len()).max(b.len());
    let at = |list: &[Dim], i: usize| list.get(if list.len() == 1 { 0 } else { i }).cloned();
    (0..count)
        .map(|i| match at(condition, i)?.as_known()? {
            0 => at(b, i),
            _ => at(a, i),
        })
        .collect()
}

impl Operator for Where {
    facets! {
        arity = Arity::exactly(3),
        quant = Quant::Requantise,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let condition = inputs.required(0, "condition")?;
        let (a, b) = (inputs.required(1, "a")?, inputs.required(2, "b")?);
        if condition.dtype != DType::Bool {
            return Err(Problem::dtype("condition", "bool", condition.dtype));
        }
        require_same("b", a.dtype, b.dtype)?;
        let dims = broadcast_dims(&broadcast_dims(&condition.dims, &a.dims)?, &b.dims)?;
        Ok(vec![Fact::new(a.dtype, dims).with_integers(follow(condition, a, b))])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let condition = inputs.required(0, "condition")?;
        let (a, b) = (inputs.required(1, "a")?, inputs.required(2, "b")?);
        let shape = broadcast_all(&[condition.shape(), a.shape(), b.shape()])?;
        let at = |tensor: &Tensor| broadcast_positions(tensor.shape(), &shape);
        let (at_condition, at_a, at_b) = (at(condition), at(a), at(b));
        let truth = condition.to_i64_vec();
        let size = a.dtype().size();
        let mut made = Tensor::zeros(a.dtype(), shape.clone())?;
        for (i, to) in made.bytes_mut().chunks_exact_mut(size).enumerate() {
            let (source, at) =
                if truth[at_condition[i]] != 0 { (a, at_a[i]) } else { (b, at_b[i]) };
            to.copy_from_slice(&source.bytes()[at * size..(at + 1) * size]);
        }
        Ok(vec![made])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let dy = g.output_grad()?;
        let (condition, a, b) = (g.input(0), g.input(1), g.input(2));
        let zero = g.scalar_like(dy, 0.0);
        let da = g.op(Where {}, &[condition, dy, zero])?;
        let db = g.op(Where {}, &[condition, zero, dy])?;
        Ok(vec![None, Some(sum_to_like(g, da, a)?), Some(sum_to_like(g, db, b)?)])
    }

    fn axes(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        broadcast_axes(inputs, outputs)
    }
}

impl Operator for Not {
    facets! {
        arity = Arity::exactly(1),
        stops = "truth values have no gradient",
        quant = Quant::NotApplicable,
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.dtype != DType::Bool {
            return Err(Problem::dtype("x", "bool", x.dtype));
        }
        let negate = |d: &Dim| d.as_known().map(|v| Dim::known((v == 0) as i64));
        let integers = x.integers.as_ref().and_then(|v| v.iter().map(negate).collect());
        Ok(vec![Fact::new(DType::Bool, x.dims.clone()).with_integers(integers)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        Ok(vec![Tensor::from_bools(x.shape(), x.to_i64_vec().into_iter().map(|v| v == 0))?])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        same_axes(outputs[0].rank())
    }
}

impl Clip {
    /// 1 where a positive `a − b`, else 0.
    fn above(g: &mut Backward<'_>, a: ValueId, b: ValueId) -> Result<ValueId, Stops> {
        let difference = g.op(Binary::new(BinaryFunction::Sub), &[a, b])?;
        let positive = g.op(Unary::new(UnaryFunction::Relu), &[difference])?;
        g.op(Unary::new(UnaryFunction::Sign), &[positive])
    }
}

impl Operator for Clip {
    facets! {
        arity = Arity::between(1, 3),
        quant = Quant::Table,
        element_ops = 2,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        for (index, name) in [(1, "low"), (2, "high")] {
            let Some(bound) = inputs.optional(index) else { continue };
            require_same(name, x.dtype, bound.dtype)?;
            if bound.rank() != 0 {
                return Err(Problem::shape(format!("{name} must be a scalar, found {bound}")));
            }
        }
        let bounds = [1, 2].map(|i| inputs.optional(i).map(|b| b.integers.as_ref()?.first()));
        let limit = |value: &Dim| {
            let low = match bounds[0] {
                Some(low) => value.larger(low?),
                None => value.clone(),
            };
            match bounds[1] {
                Some(high) => Some(low.smaller(high?)),
                None => Some(low),
            }
        };
        let integers = x.integers.as_ref().and_then(|v| v.iter().map(limit).collect());
        Ok(vec![Fact::new(x.dtype, x.dims.clone()).with_integers(integers)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.dtype().is_float() {
            let bound = |i| inputs.optional(i).and_then(|t| t.to_f64_vec().first().copied());
            let (low, high) =
                (bound(1).unwrap_or(f64::NEG_INFINITY), bound(2).unwrap_or(f64::INFINITY));
            let limit = |v: f64| if v.is_nan() { v } else { v.max(low).min(high) };
            let values: Vec<f64> = x.to_f64_vec().into_iter().map(limit).collect();
            return Ok(vec![Tensor::from_f64_slice(x.dtype(), x.shape(), &values)?]);
        }
        let bound = |i| inputs.optional(i).and_then(|t| t.to_i64_vec().first().copied());
        let (low, high) = (bound(1).unwrap_or(i64::MIN), bound(2).unwrap_or(i64::MAX));
        let values: Vec<i64> = x.to_i64_vec().into_iter().map(|v| v.max(low).min(high)).collect();
        Ok(vec![Tensor::from_i64_slice(x.dtype(), x.shape(), &values)?])
    }

    fn grad(&self, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
        let (dy, x) = (g.output_grad()?, g.input(0));
        let mut rest = dy;
        let mut grads = vec![None; g.inputs.len()];
        for (index, bound) in g.inputs.iter().enumerate().skip(1) {
            let Some(bound) = *bound else { continue };
            let (more, less) = if index == 1 { (bound, x) } else { (x, bound) };
            let outside = Clip::above(g, more, less)?;
            let lost = multiply(g, dy, outside)?;
            rest = g.op(Binary::new(BinaryFunction::Sub), &[rest, lost])?;
            grads[index] = Some(sum_to_like(g, lost, bound)?);
        }
        grads[0] = Some(rest);
        Ok(grads)
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Vec<AxisLink> {
        same_axes(outputs[0].rank())
    }
}
