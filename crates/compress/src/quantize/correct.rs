//! Bias correction: the mean error that quantisation leaves in each channel is taken out of the
//! bias (Nagel et al., "Data-free quantization through weight equalization and bias correction",
//! 2019, the empirical form of appendix D).

use std::collections::BTreeMap;

use lepton_ir::ops::binary::BinaryFunction;
use lepton_ir::{Graph, Node, NodeId, Op, Quant, ValueId};
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor, row_major_strides};

use super::observe::watching;
use super::place::operand;
use crate::error::CompressError;

/// Corrects the biases of the quantised products of `quantised`, which was made from `graph` and
/// has its node labels. Products are taken in execution order, each with all corrections before it
/// in place. A `MatMul` without a bias stays as it is.
///
/// # Errors
/// No samples, or samples that do not fit.
pub fn bias_correction(
    graph: &Graph,
    quantised: &Graph,
    samples: &[Vec<Tensor>],
) -> Result<Graph, CompressError> {
    if samples.is_empty() {
        return Err(CompressError::NoSamples { what: "bias correction" });
    }
    let labelled: BTreeMap<String, ValueId> = graph
        .nodes()
        .filter_map(|(_, node)| Some((graph.node_label(node), node.outputs.first().copied()??)))
        .collect();
    let mut made = quantised.clone();
    let products: Vec<(NodeId, ValueId)> = quantised
        .nodes()
        .filter(|(_, node)| has_integer_weights(quantised, node))
        .filter_map(|(id, node)| Some((id, *labelled.get(&quantised.node_label(node))?)))
        .collect();
    let wanted: Vec<(ValueId, usize)> =
        products.iter().map(|&(id, y)| (y, channel_axis(quantised, quantised.node(id)))).collect();
    let expected = means(graph, &wanted, samples)?;
    for ((id, _), expected) in products.into_iter().zip(expected) {
        let y = made.node(id).outputs[0].expect("a product has a result");
        let axis = channel_axis(&made, made.node(id));
        let found = means(&made, &[(y, axis)], samples)?.remove(0);
        let error: Vec<f64> = found.iter().zip(&expected).map(|(f, e)| f - e).collect();
        subtract(&mut made, id, &error)?;
    }
    made.sort()?;
    made.verify()?;
    Ok(made)
}

/// True for products whose weights are dequantised integers.
fn has_integer_weights(graph: &Graph, node: &Node) -> bool {
    let Quant::Weighted { weight, .. } = node.op.operator().quant() else { return false };
    let made_by = operand(node, weight).and_then(|w| graph.producer(w));
    made_by.is_some_and(|(_, node)| matches!(node.op, Op::DequantizeLinear(_)))
}

/// The axis of a product's result that its output channels run along.
fn channel_axis(graph: &Graph, node: &Node) -> usize {
    match &node.op {
        Op::Conv(_) => 1,
        _ => node.outputs[0].map_or(1, |y| graph.fact(y).rank() - 1),
    }
}

/// Mean of each channel of the values over all samples.
fn means(
    graph: &Graph,
    values: &[(ValueId, usize)],
    samples: &[Vec<Tensor>],
) -> Result<Vec<Vec<f64>>, CompressError> {
    let ids: Vec<ValueId> = values.iter().map(|(id, _)| *id).collect();
    let session = Session::new(&watching(graph, &ids), SessionOptions::default())?;
    let mut sums: Vec<Vec<f64>> = vec![Vec::new(); values.len()];
    let mut counts = vec![0usize; values.len()];
    for sample in samples {
        for (i, tensor) in session.run(sample)?.iter().enumerate() {
            let axis = values[i].1;
            let channels = tensor.shape()[axis];
            let stride = row_major_strides(tensor.shape())[axis];
            sums[i].resize(channels, 0.0);
            for (at, slice) in tensor.as_slice::<f32>()?.chunks(stride.max(1)).enumerate() {
                sums[i][at % channels] += slice.iter().map(|&v| v as f64).sum::<f64>();
            }
            counts[i] += tensor.len() / channels.max(1);
        }
    }
    let mean = |(sums, count): (Vec<f64>, usize)| {
        sums.into_iter().map(|s| s / count.max(1) as f64).collect()
    };
    Ok(sums.into_iter().zip(counts).map(mean).collect())
}

/// Takes `error` out of the bias of a product.
fn subtract(graph: &mut Graph, id: NodeId, error: &[f64]) -> Result<(), CompressError> {
    let node = graph.node(id).clone();
    let Quant::Weighted { bias, .. } = node.op.operator().quant() else { return Ok(()) };
    if matches!(node.op, Op::MatMul(_)) {
        return subtract_behind(graph, &node, error);
    }
    let negative: Vec<f32> = error.iter().map(|e| -e as f32).collect();
    let Some(old) = operand(&node, bias) else {
        let constant = graph.add_constant("", Tensor::vector(&negative));
        let inputs = &mut graph.node_mut(id).inputs;
        inputs.resize(inputs.len().max(bias + 1), None);
        inputs[bias] = Some(constant);
        return Ok(());
    };
    let scaled = matches!(&node.op, Op::Gemm(op) if op.beta != 1.0);
    if let Some(tensor) = graph.constant(old).filter(|t| t.len() == error.len() && !scaled) {
        let tensor = less(tensor, error)?;
        graph.node_mut(id).inputs[bias] = Some(graph.add_constant("", tensor));
    } else if let Some((dequantise, made_by)) = graph.producer(old) {
        let made_by = made_by.clone();
        let parts = operand(&made_by, 0).zip(operand(&made_by, 1));
        let parts = parts.and_then(|(b, s)| graph.constant(b).zip(graph.constant(s)));
        let Some((integers, scale)) = parts else { return Ok(()) };
        let (integers, scale) = (integers.to_i64_vec(), scale.to_f64_vec());
        let corrected: Vec<i32> = integers
            .iter()
            .enumerate()
            .map(|(n, b)| *b as f64 - (error[n] / scale[n]).round_ties_even())
            .map(|b| b.clamp(i32::MIN as f64, i32::MAX as f64) as i32)
            .collect();
        let constant = graph.add_constant("", Tensor::vector(&corrected));
        graph.node_mut(dequantise).inputs[0] = Some(constant);
    }
    Ok(())
}

/// Takes `error` out of the constant that is added to the result of a `MatMul`.
fn subtract_behind(graph: &mut Graph, node: &Node, error: &[f64]) -> Result<(), CompressError> {
    let y = node.outputs[0].expect("a product has a result");
    let users = graph.users();
    let [(user, position)] = users[y.index()][..] else { return Ok(()) };
    let adds = matches!(&graph.node(user).op,
        Op::Binary(op) if op.function == BinaryFunction::Add);
    let Some(other) = operand(graph.node(user), 1 - position.min(1)).filter(|_| adds) else {
        return Ok(());
    };
    let Some(tensor) = graph.constant(other).filter(|t| t.shape() == [error.len()]) else {
        return Ok(());
    };
    let tensor = less(tensor, error)?;
    graph.node_mut(user).inputs[1 - position] = Some(graph.add_constant("", tensor));
    Ok(())
}

fn less(tensor: &Tensor, error: &[f64]) -> Result<Tensor, CompressError> {
    let values: Vec<f64> = tensor.to_f64_vec().iter().zip(error).map(|(v, e)| v - e).collect();
    Ok(Tensor::from_f64_slice(DType::F32, tensor.shape(), &values)?)
}
