//! Averages over windows of bytes are depthwise integer convolutions whose weights are all one.

use lepton_ir::ops::integer::IntegerConv;
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::window::{AutoPad, Window};
use lepton_ir::{Graph, GraphError, Op};
use lepton_tensor::{DType, Layout, Tensor};

use super::{dequantised, operand, quantiser};
use crate::pass::sole_producer;

/// Replaces average pools between dequantisation and quantisation.
pub fn averages(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some(y) = quantiser(graph, &node).filter(|p| p.dtype == DType::U8) else { continue };
        let users = graph.users();
        let pool = operand(&node, 0).and_then(|x| sole_producer(graph, &users, x));
        let Some((_, made_by)) = pool else { continue };
        let (Op::Pool(pool), Some(x)) = (&made_by.op, operand(made_by, 0)) else { continue };
        let Some((bytes, p)) = dequantised(graph, x).filter(|(_, p)| p.dtype == DType::U8) else {
            continue;
        };
        let dims = &graph.fact(bytes).dims;
        let channels = dims.last().and_then(|d| d.as_usize());
        let Some((channels, window)) = channels.zip(window(pool, dims)) else { continue };
        let count: usize = window.kernel.iter().product();
        let op = IntegerConv {
            strides: window.strides.clone(),
            pads: window.pads.clone(),
            dilations: window.dilations.clone(),
            group: channels,
            auto_pad: if pool.global { AutoPad::Valid } else { pool.auto_pad },
            x_zero: p.zero,
            zero: y.zero,
            ..IntegerConv::default()
        };
        // A sum of bytes must stay within int32.
        let Some(offset) = i32::try_from(count).ok().and_then(|c| c.checked_mul(255)) else {
            continue;
        };
        let bias = -(offset / 255) * p.zero as i32;
        let multiplier = (p.scale as f64 / (count as f64 * y.scale as f64)) as f32;
        let shape = [channels, window.kernel[0], window.kernel[1], 1];
        let ones = Tensor::from_slice(shape, &vec![1i8; channels * count])
            .map_err(|error| GraphError::Structure(error.to_string()))?;
        let w = graph.add_constant("", ones);
        let bias = graph.add_constant("", Tensor::vector(&vec![bias; channels]));
        let multiplier = graph.add_constant("", Tensor::vector(&vec![multiplier; channels]));
        let inputs = [Some(bytes), Some(w), Some(bias), Some(multiplier)];
        graph.rewrite_node(id, op, &inputs)?;
        changes += 1;
    }
    Ok(changes)
}

/// The window of an average over images in which every position divides by the same number.
fn window(pool: &Pool, dims: &[lepton_ir::Dim]) -> Option<Window> {
    if pool.function != PoolFunction::Average || pool.layout != Layout::Nhwc || dims.len() != 4 {
        return None;
    }
    let window = pool.window(&dims[1..3]).ok()?;
    let unpadded = pool.auto_pad == AutoPad::Valid
        || (pool.auto_pad == AutoPad::Explicit && window.pads.iter().all(|&p| p == 0));
    let even = pool.global || (!pool.ceil && (unpadded || pool.count_padding));
    even.then_some(window)
}
