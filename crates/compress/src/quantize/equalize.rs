//! Cross-layer equalisation: scale moves between neighbouring layers until their channels are
//! alike, and the function stays the same (Nagel et al., 2019, section 4.1).

use lepton_ir::ops::pool::PoolFunction;
use lepton_ir::ops::unary::UnaryFunction;
use lepton_ir::{Graph, Node, NodeId, Op, Users, ValueId};
use lepton_tensor::{DType, Tensor, row_major_strides};

use super::place::{self, operand};
use crate::error::CompressError;

/// Most rounds over all pairs; chains of layers settle in a few.
const MAX_ROUNDS: usize = 20;
/// A round whose largest factor is this close to 1 is the last.
const SETTLED: f64 = 1e-3;
/// Bounds of one factor, so that channels of almost no weight do not run away.
const LARGEST_FACTOR: f64 = 1e4;

/// Equalises a simplified graph. Layers pair where the result of one goes to the other alone, and
/// between them are only functions that commute with positive factors (ReLU, leaky ReLU, pools).
///
/// # Errors
/// Only those of the graph's edits.
pub fn equalize(graph: &Graph) -> Result<Graph, CompressError> {
    let mut made = graph.clone();
    let pairs = pairs(&made);
    // Weights that several nodes read would change under all of them.
    for &(first, second) in &pairs {
        own_constants(&mut made, first);
        own_constants(&mut made, second);
    }
    for _ in 0..MAX_ROUNDS {
        let mut largest = 0.0f64;
        for &(first, second) in &pairs {
            largest = largest.max(equalise_pair(&mut made, first, second)?);
        }
        if largest < SETTLED {
            break;
        }
    }
    made.verify()?;
    Ok(made)
}

/// Gives a node constants of its own.
fn own_constants(graph: &mut Graph, id: NodeId) {
    for position in 0..graph.node(id).inputs.len() {
        let Some(value) = operand(graph.node(id), position) else { continue };
        let readers = graph.users()[value.index()].len();
        if let Some(tensor) = graph.constant(value).filter(|_| readers > 1) {
            let tensor = tensor.clone();
            graph.node_mut(id).inputs[position] = Some(graph.add_constant("", tensor));
        }
    }
}

/// Neighbouring layers, in execution order.
fn pairs(graph: &Graph) -> Vec<(NodeId, NodeId)> {
    let users = graph.users();
    let mut found = Vec::new();
    for (first, node) in graph.nodes() {
        if !scalable(graph, node) {
            continue;
        }
        let mut value = node.outputs[0].expect("a product has a result");
        while let Some((next, position)) = sole_user(graph, &users, value) {
            let node = graph.node(next);
            let second = position == 0 && place::weights(graph, node).is_some();
            if second && input_channels(graph, node) == output_channels(graph, first) {
                found.push((first, next));
            }
            match node.outputs[0] {
                Some(made) if !second && commutes(&node.op) => value = made,
                _ => break,
            }
        }
    }
    found
}

fn sole_user(graph: &Graph, users: &Users, value: ValueId) -> Option<(NodeId, usize)> {
    match users[value.index()][..] {
        [only] if !graph.outputs().contains(&value) => Some(only),
        _ => None,
    }
}

/// True if the rows of a product can be scaled: its bias, if any, is a constant per channel.
fn scalable(graph: &Graph, node: &Node) -> bool {
    let Some((position, axis)) = place::weights(graph, node) else { return false };
    let w = operand(node, position).and_then(|w| graph.constant(w)).expect("checked");
    let bias = match operand(node, 2) {
        None => true,
        Some(bias) => graph
            .constant(bias)
            .is_some_and(|b| b.shape() == [w.shape()[axis]] && b.dtype() == DType::F32),
    };
    bias && !matches!(node.op, Op::MatMul(_))
}

/// True if `f(a·x) = a·f(x)` for every positive a, channel by channel.
fn commutes(op: &Op) -> bool {
    match op {
        Op::Unary(op) => matches!(
            op.function,
            UnaryFunction::Relu | UnaryFunction::LeakyRelu | UnaryFunction::Identity
        ),
        Op::Pool(op) => op.function != PoolFunction::Lp,
        _ => false,
    }
}

fn output_channels(graph: &Graph, id: NodeId) -> Option<usize> {
    let node = graph.node(id);
    let (position, axis) = place::weights(graph, node)?;
    Some(graph.constant(operand(node, position)?)?.shape()[axis])
}

/// Number of input channels that a factor per channel can be given to.
fn input_channels(graph: &Graph, node: &Node) -> Option<usize> {
    let (position, axis) = place::weights(graph, node)?;
    let w = graph.constant(operand(node, position)?)?;
    match &node.op {
        Op::Conv(conv) if conv.group == 1 => Some(w.shape()[1]),
        Op::Conv(conv) if w.shape()[1] == 1 && w.shape()[0] == conv.group => Some(conv.group),
        Op::Conv(_) => None,
        _ => Some(w.shape()[1 - axis]),
    }
}

/// The axis of the weights along which input channels run.
fn input_axis(graph: &Graph, node: &Node) -> usize {
    let (_, axis) = place::weights(graph, node).expect("a pair of products");
    match &node.op {
        Op::Conv(conv) if conv.group == 1 => 1,
        Op::Conv(_) => 0,
        _ => 1 - axis,
    }
}

/// Moves scale between two layers; returns how far the largest factor is from 1.
fn equalise_pair(graph: &mut Graph, first: NodeId, second: NodeId) -> Result<f64, CompressError> {
    let (above, below) = (graph.node(first).clone(), graph.node(second).clone());
    let (w1, axis1) = place::weights(graph, &above).expect("a pair of products");
    let (w2, _) = place::weights(graph, &below).expect("a pair of products");
    let axis2 = input_axis(graph, &below);
    let value = |node: &Node, position| operand(node, position).expect("weights");
    let (w1, w2) = (value(&above, w1), value(&below, w2));
    let tensor = |graph: &Graph, id| graph.constant(id).expect("weights").clone();
    let (r1, r2) = (largest(&tensor(graph, w1), axis1), largest(&tensor(graph, w2), axis2));
    let factor = |(a, b): (&f64, &f64)| {
        let usable = *a > 0.0 && *b > 0.0 && a.is_finite() && b.is_finite();
        let factor = if usable { (b / a).sqrt() } else { 1.0 };
        factor.clamp(1.0 / LARGEST_FACTOR, LARGEST_FACTOR)
    };
    let factors: Vec<f64> = r1.iter().zip(&r2).map(factor).collect();
    let inverse: Vec<f64> = factors.iter().map(|f| 1.0 / f).collect();
    let scaled1 = scaled(&tensor(graph, w1), axis1, &factors)?;
    graph.set_constant(w1, scaled1);
    let scaled2 = scaled(&tensor(graph, w2), axis2, &inverse)?;
    graph.set_constant(w2, scaled2);
    if let Some(bias) = operand(&above, 2) {
        let bias_scaled = scaled(&tensor(graph, bias), 0, &factors)?;
        graph.set_constant(bias, bias_scaled);
    }
    Ok(factors.iter().map(|f| f.ln().abs()).fold(0.0, f64::max))
}

/// Largest magnitude of each slice along `axis`.
fn largest(tensor: &Tensor, axis: usize) -> Vec<f64> {
    let extent = tensor.shape()[axis];
    let stride = row_major_strides(tensor.shape())[axis];
    let mut largest = vec![0.0f64; extent];
    for (i, w) in tensor.to_f64_vec().into_iter().enumerate() {
        let slot = &mut largest[i / stride % extent];
        *slot = slot.max(w.abs());
    }
    largest
}

fn scaled(tensor: &Tensor, axis: usize, factors: &[f64]) -> Result<Tensor, CompressError> {
    let stride = row_major_strides(tensor.shape())[axis];
    let values = tensor.to_f64_vec();
    let scale = |(i, v): (usize, f64)| v * factors[i / stride % factors.len()];
    let values: Vec<f64> = values.into_iter().enumerate().map(scale).collect();
    Ok(Tensor::from_f64_slice(DType::F32, tensor.shape(), &values)?)
}
