//! Per-channel factors and shifts after a convolution, folded into its weights and bias.

use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::unary::UnaryFunction;
use lepton_ir::{Graph, GraphError, Node, Op, ValueId};
use lepton_tensor::{DType, Layout, Tensor};

use crate::pass::sole_producer;

/// `y = x·factor + shift`, one pair per channel.
struct ChannelAffine {
    factor: Vec<f64>,
    shift: Vec<f64>,
}

/// Folds multiplications and additions of per-channel constants into the convolution before.
pub fn fold(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        if !graph.contains(id) {
            continue;
        }
        let node = graph.node(id);
        let Some((x, affine)) = channel_affine(graph, node) else { continue };
        let users = graph.users();
        let Some((conv_id, conv)) = sole_producer(graph, &users, x) else { continue };
        if let Some(inputs) = folded_inputs(graph, conv, &affine) {
            let output = node.outputs[0].expect("a used result");
            let [w, b] = inputs.map(|tensor| graph.add_constant("", tensor));
            let conv = graph.node(conv_id).clone();
            graph.rewrite_node(conv_id, conv.op.clone(), &[conv.inputs[0], Some(w), Some(b)])?;
            graph.replace_uses(output, x);
            graph.remove_node(id);
            changes += 1;
        }
    }
    Ok(changes)
}

fn channel_affine(graph: &Graph, node: &Node) -> Option<(ValueId, ChannelAffine)> {
    let Op::Binary(op) = &node.op else {
        return batch_norm(graph, node);
    };
    let (a, b) = (node.inputs[0]?, node.inputs[1]?);
    let (x, constant) = match (graph.constant(a), graph.constant(b)) {
        (None, Some(constant)) => (a, constant),
        (Some(constant), None) if op.function.is_commutative() => (b, constant),
        _ => return None,
    };
    let fact = graph.fact(x);
    if fact.rank() < 3 || constant.dtype() != DType::F32 {
        return None;
    }
    let channels = fact.dims[1].as_usize()?;
    let values = per_channel(constant, fact.rank(), channels)?;
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    let affine = match op.function {
        BinaryFunction::Mul => ChannelAffine { factor: values, shift: zeros },
        BinaryFunction::Div => {
            ChannelAffine { factor: values.iter().map(|v| 1.0 / v).collect(), shift: zeros }
        }
        BinaryFunction::Add => ChannelAffine { factor: ones, shift: values },
        BinaryFunction::Sub => {
            ChannelAffine { factor: ones, shift: values.iter().map(|v| -v).collect() }
        }
        _ => return None,
    };
    Some((x, affine))
}

/// Batch normalisation with constant statistics.
fn batch_norm(graph: &Graph, node: &Node) -> Option<(ValueId, ChannelAffine)> {
    let Op::BatchNormalization(op) = &node.op else { return None };
    if op.layout != Layout::Nchw {
        return None;
    }
    let values = |index: usize| Some(graph.constant(node.inputs[index]?)?.to_f64_vec());
    let (gamma, beta, mean, variance) = (values(1)?, values(2)?, values(3)?, values(4)?);
    let factor: Vec<f64> =
        gamma.iter().zip(&variance).map(|(g, v)| g / (v + op.epsilon as f64).sqrt()).collect();
    let shift = (0..factor.len()).map(|c| beta[c] - mean[c] * factor[c]).collect();
    Some((node.inputs[0]?, ChannelAffine { factor, shift }))
}

/// A batch normalisation that no product takes in becomes a multiplication and an addition.
pub fn spread(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Op::BatchNormalization(_) = &node.op else { continue };
        let Some((x, affine)) = batch_norm(graph, &node) else { continue };
        let mut shape = vec![1; graph.fact(x).rank() - 1];
        shape[0] = affine.factor.len();
        let constant = |graph: &mut Graph, values: &[f64]| {
            let tensor = Tensor::from_f64_slice(graph.fact(x).dtype, shape.clone(), values);
            Some(graph.add_constant("", tensor.expect("one value a channel")))
        };
        let [factor, shift] = [&affine.factor, &affine.shift].map(|v| constant(graph, v));
        let scaled = graph.add_node("", Binary::new(BinaryFunction::Mul), &[Some(x), factor])?[0];
        graph.rewrite_node(id, Binary::new(BinaryFunction::Add), &[Some(scaled), shift])?;
        graph.sort()?;
        changes += 1;
    }
    Ok(changes)
}

/// One value per channel (axis 1 of `rank` axes), if the constant varies along nothing else.
fn per_channel(constant: &Tensor, rank: usize, channels: usize) -> Option<Vec<f64>> {
    if constant.len() == 1 && constant.rank() <= rank {
        return Some(vec![constant.to_f64_vec()[0]; channels]);
    }
    let axis = (1 + constant.rank()).checked_sub(rank)?;
    let fits = constant.len() == channels && constant.shape().get(axis) == Some(&channels);
    fits.then(|| constant.to_f64_vec())
}

/// New weights and bias of the convolution.
fn folded_inputs(graph: &Graph, conv: &Node, affine: &ChannelAffine) -> Option<[Tensor; 2]> {
    let Op::Conv(op) = &conv.op else { return None };
    let plain = op.activation.function == UnaryFunction::Identity && op.layout == Layout::Nchw;
    if !plain || conv.inputs.len() > 3 {
        return None;
    }
    let w = graph.constant(conv.inputs[1]?)?;
    if w.dtype() != DType::F32 || w.shape()[0] != affine.factor.len() {
        return None;
    }
    let bias = match conv.inputs.get(2).copied().flatten() {
        Some(bias) => graph.constant(bias)?.to_f64_vec(),
        None => vec![0.0; affine.factor.len()],
    };
    let per_channel = (w.len() / affine.factor.len().max(1)).max(1);
    let channels = w.as_slice::<f32>().ok()?.chunks(per_channel).zip(&affine.factor);
    let scaled = |(weights, &factor): (&[f32], &f64)| -> Vec<f32> {
        weights.iter().map(|&weight| (f64::from(weight) * factor) as f32).collect()
    };
    let weights: Vec<f32> = channels.flat_map(scaled).collect();
    let bias: Vec<f64> =
        bias.iter().enumerate().map(|(c, b)| b * affine.factor[c] + affine.shift[c]).collect();
    let w = Tensor::from_slice(w.shape(), &weights).ok()?;
    Some([w, Tensor::from_f64_slice(DType::F32, vec![bias.len()], &bias).ok()?])
}
