//! Weights in bf16: half the bytes, sums in f32.

use half::bf16;
use lepton_ir::{Graph, Node, Op};
use lepton_tensor::{DType, Tensor};

use super::place::operand;
use super::products;
use crate::error::CompressError;

/// Rounds the weights of convolutions, matrix products and recurrent layers to bf16 and stores them so. Matrix
/// products become `Linear`, which takes bf16 weights with f32 operands. Grouped
/// convolutions other than depthwise ones keep their weights: no kernel takes bf16 there.
///
/// # Errors
/// Only those of the graph's edits.
pub fn to_bf16(graph: &Graph) -> Result<Graph, CompressError> {
    let mut made = products::with_sums(graph)?;
    for id in made.order() {
        let node = made.node(id).clone();
        let weights: &[usize] = match &node.op {
            Op::Conv(conv) if is_dense_or_depthwise(&made, &node, conv.group) => &[1],
            Op::Linear(_) => &[1],
            Op::LSTM(_) | Op::GRU(_) => &[1, 2],
            _ => &[],
        };
        let mut inputs = node.inputs.clone();
        for &index in weights {
            let Some(w) = operand(&node, index).and_then(|w| made.constant(w)) else { continue };
            if w.dtype() != DType::F32 {
                continue;
            }
            let short: Vec<bf16> =
                w.as_slice::<f32>()?.iter().map(|&v| bf16::from_f32(v)).collect();
            let short = Tensor::from_slice(w.shape(), &short)?;
            inputs[index] = Some(made.add_constant("", short));
        }
        if inputs != node.inputs {
            made.rewrite_node(id, node.op.clone(), &inputs)?;
        }
    }
    made.verify()?;
    Ok(made)
}

fn is_dense_or_depthwise(graph: &Graph, node: &Node, group: usize) -> bool {
    let w = operand(node, 1).map(|w| graph.fact(w));
    let depthwise = w.is_some_and(|w| w.dims[0].is(group as i64) && w.dims[1].is(1));
    group == 1 || depthwise
}
