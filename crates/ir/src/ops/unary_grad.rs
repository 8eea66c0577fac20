//! Derivatives of the unary functions, as graph nodes.

use super::binary::{Binary, BinaryFunction as B};
use super::unary::{Unary, UnaryFunction as F, multiply};
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;

/// Gradient of `function(x)`: the gradient of the result times the derivative.
pub(crate) fn grad(op: &Unary, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
    let dy = g.output_grad()?;
    if op.function == F::Identity {
        return Ok(vec![Some(dy)]);
    }
    if op.function == F::Neg {
        return Ok(vec![Some(unary(g, F::Neg, dy)?)]);
    }
    let derivative = derivative(op, g)?;
    Ok(vec![Some(multiply(g, dy, derivative)?)])
}

fn unary(g: &mut Backward<'_>, function: F, x: ValueId) -> Result<ValueId, Stops> {
    g.op(Unary::new(function), &[x])
}

fn binary(g: &mut Backward<'_>, function: B, x: ValueId, y: ValueId) -> Result<ValueId, Stops> {
    g.op(Binary::new(function), &[x, y])
}

/// `a + b·x`.
fn affine(g: &mut Backward<'_>, a: f64, b: f64, x: ValueId) -> Result<ValueId, Stops> {
    let (a, b) = (g.scalar_like(x, a), g.scalar_like(x, b));
    let scaled = binary(g, B::Mul, x, b)?;
    binary(g, B::Add, scaled, a)
}

/// 1 where `low < x < high`, else 0 — written with functions that every float type has:
/// `sign(relu(x − low)) · sign(relu(high − x))`; an infinite side is left out.
fn inside(g: &mut Backward<'_>, x: ValueId, low: f64, high: f64) -> Result<ValueId, Stops> {
    let mut result = None;
    for (bound, direction) in [(low, 1.0), (high, -1.0)] {
        if bound.is_infinite() {
            continue;
        }
        let distance = affine(g, -bound * direction, direction, x)?;
        let positive = unary(g, F::Relu, distance)?;
        let step = unary(g, F::Sign, positive)?;
        result = Some(match result {
            None => step,
            Some(other) => multiply(g, other, step)?,
        });
    }
    match result {
        Some(value) => Ok(value),
        None => affine(g, 1.0, 0.0, x),
    }
}

/// `inside·a + (1 − inside)·b` for a scalar `a` and a node `b`.
fn choose(g: &mut Backward<'_>, condition: ValueId, a: f64, b: ValueId) -> Result<ValueId, Stops> {
    let other = affine(g, 1.0, -1.0, condition)?;
    let b = multiply(g, other, b)?;
    let a = affine(g, 0.0, a, condition)?;
    binary(g, B::Add, a, b)
}

fn derivative(op: &Unary, g: &mut Backward<'_>) -> Result<ValueId, Stops> {
    let (x, y) = (g.input(0), g.output());
    let (alpha, beta) = (op.alpha as f64, op.beta as f64);
    let infinite = f64::INFINITY;
    match op.function {
        F::Abs => unary(g, F::Sign, x),
        F::Sqrt => {
            let r = unary(g, F::Reciprocal, y)?;
            affine(g, 0.0, 0.5, r)
        }
        F::Reciprocal => {
            let square = multiply(g, y, y)?;
            unary(g, F::Neg, square)
        }
        F::Exp => Ok(y),
        F::Log => unary(g, F::Reciprocal, x),
        F::Sigmoid => {
            let rest = affine(g, 1.0, -1.0, y)?;
            multiply(g, y, rest)
        }
        F::Tanh => {
            let square = multiply(g, y, y)?;
            affine(g, 1.0, -1.0, square)
        }
        F::Relu => inside(g, x, 0.0, infinite),
        F::ThresholdedRelu => inside(g, x, alpha, infinite),
        F::Clip => inside(g, x, alpha, beta),
        F::LeakyRelu => {
            let positive = inside(g, x, 0.0, infinite)?;
            affine(g, alpha, 1.0 - alpha, positive)
        }
        F::Elu | F::Selu => {
            let scale = if op.function == F::Selu { beta } else { 1.0 };
            let positive = inside(g, x, 0.0, infinite)?;
            let slope = affine(g, alpha * scale, 1.0, y)?;
            choose(g, positive, scale, slope)
        }
        F::HardSigmoid => {
            let ramp = affine(g, beta, alpha, x)?;
            let step = inside(g, ramp, 0.0, 1.0)?;
            affine(g, 0.0, alpha, step)
        }
        _ => smooth_derivative(op, g, x),
    }
}

/// Functions whose derivative takes a few more nodes.
fn smooth_derivative(op: &Unary, g: &mut Backward<'_>, x: ValueId) -> Result<ValueId, Stops> {
    let alpha = op.alpha as f64;
    match op.function {
        F::Gelu => {
            // Φ(x) + x·φ(x)
            let z = affine(g, 0.0, 1.0 / std::f64::consts::SQRT_2, x)?;
            let erf = unary(g, F::Erf, z)?;
            let cdf = affine(g, 0.5, 0.5, erf)?;
            let density = gaussian(g, x, 1.0 / (2.0 * std::f64::consts::PI).sqrt(), 0.5)?;
            let tail = multiply(g, x, density)?;
            binary(g, B::Add, cdf, tail)
        }
        F::Erf => gaussian(g, x, 2.0 / std::f64::consts::PI.sqrt(), 1.0),
        F::Silu => {
            // s + alpha·x·s·(1 − s)
            let z = affine(g, 0.0, alpha, x)?;
            let s = unary(g, F::Sigmoid, z)?;
            let rest = affine(g, 1.0, -1.0, s)?;
            let slope = multiply(g, s, rest)?;
            let tail = multiply(g, z, slope)?;
            binary(g, B::Add, s, tail)
        }
        F::HardSwish => {
            // 0 below −3, 1 above 3, x/3 + ½ between: clip(x/6 + ½) + x·inside/6
            let ramp = affine(g, 0.5, 1.0 / 6.0, x)?;
            let gate = g.op(Unary::with(F::Clip, 0.0, 1.0), &[ramp])?;
            let step = inside(g, x, -3.0, 3.0)?;
            let moving = multiply(g, x, step)?;
            let moving = affine(g, 0.0, 1.0 / 6.0, moving)?;
            binary(g, B::Add, gate, moving)
        }
        F::Softplus => unary(g, F::Sigmoid, x),
        F::Softsign => {
            let magnitude = unary(g, F::Abs, x)?;
            let denominator = affine(g, 1.0, 1.0, magnitude)?;
            let r = unary(g, F::Reciprocal, denominator)?;
            multiply(g, r, r)
        }
        F::Sin => unary(g, F::Cos, x),
        F::Cos => {
            let sine = unary(g, F::Sin, x)?;
            unary(g, F::Neg, sine)
        }
        F::Sinh => unary(g, F::Cosh, x),
        F::Cosh => unary(g, F::Sinh, x),
        F::Atan => {
            let square = multiply(g, x, x)?;
            let denominator = affine(g, 1.0, 1.0, square)?;
            unary(g, F::Reciprocal, denominator)
        }
        F::Floor | F::Ceil | F::Round | F::Sign => {
            Err(Stops::Because("a step function is flat almost everywhere"))
        }
        _ => Err(Stops::Because("nobody trains through this function")),
    }
}

/// `scale·e^(−rate·x²)`.
fn gaussian(g: &mut Backward<'_>, x: ValueId, scale: f64, rate: f64) -> Result<ValueId, Stops> {
    let square = multiply(g, x, x)?;
    let exponent = affine(g, 0.0, -rate, square)?;
    let bell = unary(g, F::Exp, exponent)?;
    affine(g, 0.0, scale, bell)
}
