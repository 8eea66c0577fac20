//! Weights as int8 behind a `DequantizeLinear`; activations stay f32.

use lepton_ir::ops::quantize::DequantizeLinear;
use lepton_ir::{Graph, Problem, Quant};
use lepton_tensor::{DType, QuantParams, Tensor, row_major_strides};

use super::place::operand;
use crate::error::CompressError;

/// The largest integers of the grids that are recognised, the coarsest first: 4 to 8 bits.
const LARGEST: &[f32] = &[7.0, 15.0, 31.0, 63.0, 127.0];

/// How far from a multiple of the step, in steps, a weight may lie and still be on the grid.
const TOLERANCE: f32 = 1e-3;

/// Stores the weights of convolutions and matrix products as symmetric i8 with a step per output
/// channel. Weights that lie on a grid of 4 to 8 bits already keep their values; others are rounded
/// to 8 bits, or with `exact` stay f32.
///
/// # Errors
/// Weights that are not finite.
pub fn quantize_weights(graph: &Graph, exact: bool) -> Result<Graph, CompressError> {
    let mut made = graph.clone();
    for id in made.order() {
        let node = made.node(id).clone();
        let Quant::Weighted { weight, channel_axis, .. } = node.op.operator().quant() else {
            continue;
        };
        let Some(w) = operand(&node, weight).and_then(|w| made.constant(w)) else { continue };
        if w.dtype() != DType::F32 || w.is_empty() || w.rank() < 2 {
            continue;
        }
        let Some(largest) = channel_maxima(w, channel_axis)? else {
            let why = Problem::value("its weights are not finite");
            return Err(made.node_error(&node, why).into());
        };
        let on_grid = LARGEST.iter().find(|&&l| lies_on(w, channel_axis, &largest, l));
        let Some(levels) = on_grid.copied().or((!exact).then_some(127.0)) else { continue };
        let steps: Vec<f32> =
            largest.iter().map(|&m| QuantParams::symmetric_scale(m, levels)).collect();
        let channel = channel_of(w, channel_axis);
        let quantise = |(i, v): (usize, &f32)| {
            (v / steps[channel(i)]).round_ties_even().clamp(-levels, levels) as i8
        };
        let bytes: Vec<i8> = w.as_slice::<f32>()?.iter().enumerate().map(quantise).collect();
        let bytes = Tensor::from_slice(w.shape(), &bytes)?;
        let bytes = made.add_constant("", bytes);
        let scale = made.add_constant("", Tensor::vector(&steps));
        let op = DequantizeLinear { axis: channel_axis as i64 };
        let name = format!("{}/weights", made.node_label(&node));
        let real = made.add_node(name, op, &[Some(bytes), Some(scale)])?[0];
        made.node_mut(id).inputs[weight] = Some(real);
    }
    made.sort()?;
    made.remove_dead();
    made.verify()?;
    Ok(made)
}

/// The place along `axis` of an element by its number.
fn channel_of(w: &Tensor, axis: usize) -> impl Fn(usize) -> usize + use<> {
    let (channels, stride) = (w.shape()[axis], row_major_strides(w.shape())[axis]);
    move |i| i / stride % channels
}

/// The largest magnitude of each slice along `axis`; `None` if a weight is not finite.
fn channel_maxima(w: &Tensor, axis: usize) -> Result<Option<Vec<f32>>, CompressError> {
    let channel = channel_of(w, axis);
    let mut largest = vec![0.0f32; w.shape()[axis]];
    for (i, v) in w.as_slice::<f32>()?.iter().enumerate() {
        if !v.is_finite() {
            return Ok(None);
        }
        let slot = &mut largest[channel(i)];
        *slot = slot.max(v.abs());
    }
    Ok(Some(largest))
}

/// True if every weight is a multiple of its channel's largest over `levels`.
fn lies_on(w: &Tensor, axis: usize, largest: &[f32], levels: f32) -> bool {
    let channel = channel_of(w, axis);
    let Ok(values) = w.as_slice::<f32>() else { return false };
    values.iter().enumerate().all(|(i, v)| {
        if *v == 0.0 {
            return true;
        }
        let ratio = v / largest[channel(i)] * levels;
        (ratio - ratio.round_ties_even()).abs() <= TOLERANCE
    })
}
