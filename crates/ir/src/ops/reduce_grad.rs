//! Gradients of the reductions, as graph nodes.

use super::binary::{Binary, BinaryFunction as B};
use super::reduce::{Reduce, ReduceFunction as F};
use super::reshape::Unsqueeze;
use super::unary::{Unary, UnaryFunction, multiply};
use crate::fact::Fact;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;

/// `value` with the reduced axes back, so that it broadcasts against x.
fn widen(
    op: &Reduce,
    g: &mut Backward<'_>,
    value: ValueId,
    axes: &[usize],
) -> Result<ValueId, Stops> {
    if op.keep_dims || axes.is_empty() {
        return Ok(value);
    }
    let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    let axes = g.integers(&axes);
    g.op(Unsqueeze {}, &[value, axes])
}

/// The gradient of x: dy spread over the reduced axes, times the derivative.
pub(crate) fn grad(op: &Reduce, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
    let (dy, x) = (g.output_grad()?, g.input(0));
    let axes_fact: Option<Fact> = g.inputs.get(1).copied().flatten().map(|id| g.fact(id).clone());
    let rank = g.fact(x).rank();
    let axes = op
        .axes_of(axes_fact.as_ref(), rank)
        .map_err(|_| Stops::Because("the reduced axes are not known"))?;
    let dy = widen(op, g, dy, &axes)?;
    let output = g.output();
    let y = widen(op, g, output, &axes)?;
    let zero = g.scalar_like(x, 0.0);
    let blank = multiply(g, x, zero)?;
    let spread = g.op(Binary::new(B::Add), &[blank, dy])?;
    let dx = match op.function {
        F::Sum => spread,
        F::Mean => {
            let count = g.fact(x).count();
            let kept = g.fact(y).count();
            let lane = count.exact_div(&kept).and_then(|d| d.as_known());
            let lane = lane.ok_or(Stops::Because("the number of averaged elements is unknown"))?;
            let share = g.scalar_like(x, 1.0 / lane as f64);
            multiply(g, spread, share)?
        }
        F::SumSquare => {
            let two = g.scalar_like(x, 2.0);
            let slope = multiply(g, x, two)?;
            multiply(g, spread, slope)?
        }
        F::L1 => {
            let sign = g.op(Unary::new(UnaryFunction::Sign), &[x])?;
            multiply(g, spread, sign)?
        }
        F::L2 => {
            let direction = g.op(Binary::new(B::Div), &[x, y])?;
            multiply(g, spread, direction)?
        }
        F::LogSumExp => {
            let shifted = g.op(Binary::new(B::Sub), &[x, y])?;
            let share = g.op(Unary::new(UnaryFunction::Exp), &[shifted])?;
            multiply(g, spread, share)?
        }
        F::LogSum => {
            let exponential = g.op(Unary::new(UnaryFunction::Exp), &[y])?;
            g.op(Binary::new(B::Div), &[spread, exponential])?
        }
        F::Max | F::Min | F::Prod => {
            return Err(Stops::Because("nobody trains through this reduction"));
        }
    };
    let mut grads = vec![None; g.inputs.len()];
    grads[0] = Some(dx);
    Ok(grads)
}
