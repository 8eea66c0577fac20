//! Dynamic quantisation: int8 weights, activations quantised with a range found at each run.

use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::dynamic::{DynamicConv, DynamicLinear};
use lepton_ir::{Graph, Op};
use lepton_tensor::{DType, QuantParams, Tensor, row_major_strides};

use super::place::operand;
use super::products;
use crate::error::CompressError;

/// Turns convolutions and matrix products with constant weights into their dynamic forms. Needs
/// no samples.
///
/// # Errors
/// Weights that are not finite.
pub fn quantize_dynamic(graph: &Graph) -> Result<Graph, CompressError> {
    let mut made = products::linear(graph)?;
    for id in made.order() {
        let node = made.node(id).clone();
        let (op, axis): (Op, usize) = match &node.op {
            Op::Linear(op) => (DynamicLinear { activation: op.activation.clone() }.into(), 1),
            Op::Conv(op) => (dynamic_conv(op).into(), 0),
            _ => continue,
        };
        let Some(w) = operand(&node, 1).and_then(|w| made.constant(w)) else { continue };
        if w.dtype() != DType::F32 || w.is_empty() {
            continue;
        }
        let Some((bytes, scale)) = quantised(w, axis)? else {
            let why = lepton_ir::Problem::value("its weights are not finite");
            return Err(made.node_error(&node, why).into());
        };
        let bytes = made.add_constant("", bytes);
        let scale = made.add_constant("", scale);
        let mut inputs = vec![operand(&node, 0), Some(bytes), Some(scale), operand(&node, 2)];
        inputs.push(operand(&node, 3));
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        made.rewrite_node(id, op, &inputs)?;
    }
    made.verify()?;
    Ok(made)
}

fn dynamic_conv(conv: &Conv) -> DynamicConv {
    DynamicConv {
        strides: conv.strides.clone(),
        pads: conv.pads.clone(),
        dilations: conv.dilations.clone(),
        group: conv.group,
        auto_pad: conv.auto_pad,
        layout: conv.layout,
        activation: conv.activation.clone(),
    }
}

/// Symmetric i8 and the step of each slice along `axis`; `None` if a weight is not finite.
fn quantised(w: &Tensor, axis: usize) -> Result<Option<(Tensor, Tensor)>, CompressError> {
    let channels = w.shape()[axis];
    let stride = row_major_strides(w.shape())[axis];
    let values = w.as_slice::<f32>()?;
    let mut largest = vec![0.0f32; channels];
    for (i, v) in values.iter().enumerate() {
        if !v.is_finite() {
            return Ok(None);
        }
        let slot = &mut largest[i / stride % channels];
        *slot = slot.max(v.abs());
    }
    let steps: Vec<f32> =
        largest.into_iter().map(|m| QuantParams::symmetric_scale(m, 127.0)).collect();
    let quantise = |(i, v): (usize, &f32)| {
        (v / steps[i / stride % channels]).round_ties_even().clamp(-127.0, 127.0) as i8
    };
    let bytes: Vec<i8> = values.iter().enumerate().map(quantise).collect();
    Ok(Some((Tensor::from_slice(w.shape(), &bytes)?, Tensor::vector(&steps))))
}
