//! The gradients of convolution and transposed convolution, as graph nodes.

use lepton_tensor::Layout;

use super::conv::Conv;
use super::conv_transpose::{ConvTranspose, ConvWeightGrad};
use super::reduce::{Reduce, ReduceFunction};
use super::window::Window;
use crate::dim::Dim;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::ops::unary::UnaryFunction;

/// The spatial extents of a `[N,C,spatial…]` value.
fn spatial(g: &Backward<'_>, value: ValueId) -> Result<Vec<usize>, Stops> {
    let extents = g.fact(value).dims.iter().skip(2).map(Dim::as_usize).collect();
    let extents: Option<Vec<usize>> = extents;
    extents.ok_or(Stops::Because("the spatial extents must be bound before training"))
}

fn weight_grad(window: &Window, group: usize) -> ConvWeightGrad {
    ConvWeightGrad {
        kernel: window.kernel.clone(),
        strides: window.strides.clone(),
        pads: window.pads.clone(),
        dilations: window.dilations.clone(),
        group,
    }
}

/// The sum of dy over everything but the channel.
fn bias_grad(g: &mut Backward<'_>, dy: ValueId) -> Result<ValueId, Stops> {
    let axes: Vec<i64> = (0..g.fact(dy).rank() as i64).filter(|&axis| axis != 1).collect();
    let axes = g.integers(&axes);
    g.op(Reduce { keep_dims: false, ..Reduce::new(ReduceFunction::Sum) }, &[dy, axes])
}

/// Gradients of x, w and b of a plain convolution.
pub(crate) fn grad(conv: &Conv, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
    if conv.layout != Layout::Nchw
        || conv.activation.function != UnaryFunction::Identity
        || g.inputs.get(3).is_some_and(Option::is_some)
    {
        return Err(Stops::Because("gradients are taken before fusion and layout"));
    }
    let (dy, x, w) = (g.output_grad()?, g.input(0), g.input(1));
    if g.fact(w).dtype != g.fact(x).dtype {
        return Err(Stops::Because("weights of another type than x are not trained"));
    }
    let extents = spatial(g, x)?;
    let broken = |_| Stops::Because("the window does not fit");
    let kernel = g.fact(w).shape().ok_or(Stops::Because("the kernel has unknown extents"))?;
    let window = conv.window(&kernel).map_err(broken)?;
    let (positions, before) = window.resolve(&extents).map_err(broken)?;
    let axes = extents.len();
    let (mut pads, mut output_padding) = (before.clone(), Vec::with_capacity(axes));
    for axis in 0..axes {
        let span = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
        let reach = (positions[axis] - 1) * window.strides[axis] + span;
        // The last window ends in the padding after x, or leaves elements of x unread.
        pads.push(reach.saturating_sub(before[axis] + extents[axis]));
        output_padding.push((before[axis] + extents[axis]).saturating_sub(reach));
    }
    let window = Window { pads, auto_pad: super::window::AutoPad::Explicit, ..window };
    let transpose = ConvTranspose {
        strides: window.strides.clone(),
        pads: window.pads.clone(),
        dilations: window.dilations.clone(),
        group: conv.group,
        output_padding,
        ..ConvTranspose::default()
    };
    let dx = g.op(transpose, &[dy, w])?;
    let dw = g.op(weight_grad(&window, conv.group), &[x, dy])?;
    let mut grads = vec![None; g.inputs.len()];
    (grads[0], grads[1]) = (Some(dx), Some(dw));
    if g.inputs.get(2).is_some_and(Option::is_some) {
        grads[2] = Some(bias_grad(g, dy)?);
    }
    Ok(grads)
}

/// Gradients of x, w and b of a transposed convolution: dx is a convolution of dy with the same
/// weights, and dw the weight gradient of that convolution.
pub(crate) fn grad_of_transpose(
    op: &ConvTranspose,
    g: &mut Backward<'_>,
) -> Result<Vec<Option<ValueId>>, Stops> {
    let (dy, x, w) = (g.output_grad()?, g.input(0), g.input(1));
    let extents = spatial(g, x)?;
    let fact = g.fact(w).clone();
    let window =
        op.resolved(&fact, &extents).map_err(|_| Stops::Because("the window does not fit"))?;
    let conv = Conv {
        strides: window.strides.clone(),
        pads: window.pads.clone(),
        dilations: window.dilations.clone(),
        group: op.group,
        ..Conv::default()
    };
    let dx = g.op(conv, &[dy, w])?;
    if g.fact(dx).dims != g.fact(x).dims {
        return Err(Stops::Because("output padding of a stride or more"));
    }
    let dw = g.op(weight_grad(&window, op.group), &[dy, x])?;
    let mut grads = vec![Some(dx), Some(dw)];
    if let Some(b) = g.inputs.get(2) {
        grads.push(b.map(|_| bias_grad(g, dy)).transpose()?);
    }
    Ok(grads)
}
