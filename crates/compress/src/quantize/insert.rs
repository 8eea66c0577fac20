//! Static quantisation: a graph with `QuantizeLinear` and `DequantizeLinear` around what works on
//! integers.
//!
//! Weights are symmetric i8 with a step per output channel, activations asymmetric u8 with an
//! exact zero, biases i32 in steps of activation step · weight step (Jacob et al., "Quantization
//! and training of neural networks for efficient integer-arithmetic-only inference", 2018).

use std::collections::{BTreeMap, BTreeSet};

use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_ir::{Graph, NodeId, Op, Quant, ValueId};
use lepton_tensor::{DType, QuantParams, Tensor, row_major_strides};

use super::calibrate::Ranges;
use super::domain;
use super::observe::described;
use super::place::{self, Placement, Role, operand};
use crate::error::CompressError;

/// Nothing is kept in f32.
static NONE: BTreeSet<String> = BTreeSet::new();

/// What [`quantize_static`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeOptions<'a> {
    /// Range of every activation that may become bytes.
    pub ranges: &'a Ranges,
    /// One weight step per output channel; else one per tensor.
    pub per_channel: bool,
    /// Labels of nodes that stay in f32.
    pub keep: &'a BTreeSet<String>,
}

impl<'a> QuantizeOptions<'a> {
    /// Per channel, nothing kept.
    pub fn new(ranges: &'a Ranges) -> Self {
        QuantizeOptions { ranges, per_channel: true, keep: &NONE }
    }
}

/// Quantises a graph on which the pipeline `SIMPLIFY` has run. Inputs and outputs keep their
/// names and stay f32; node labels stay.
///
/// # Errors
/// An activation without a range, and weights that are not finite.
pub fn quantize_static(
    graph: &Graph,
    options: &QuantizeOptions<'_>,
) -> Result<Graph, CompressError> {
    let placement = place::place(graph, options.keep);
    let parameters = parameters(graph, &placement, options.ranges)?;
    let mut made = graph.clone();
    // Biases first: their steps follow from the operands as they were.
    for (id, node) in graph.nodes() {
        if placement.role(id) == Role::Product {
            let x = operand(node, 0).expect("a product has an operand");
            quantise_weights(&mut made, id, parameters[&x].0, options.per_channel)?;
        }
    }
    let users = graph.users();
    for (&value, &(scale, zero)) in &parameters {
        let real = insert_pair(&mut made, value, scale, zero)?;
        for &(user, position) in &users[value.index()] {
            made.node_mut(user).inputs[position] = Some(real);
        }
    }
    made.sort()?;
    made.remove_dead();
    made.verify()?;
    Ok(made)
}

/// Labels of the nodes that [`quantize_static`] gives integer weights, in order: what `keep` may
/// name.
pub fn quantisable_nodes(graph: &Graph) -> Vec<String> {
    let nodes = graph.nodes().filter(|(_, node)| place::is_quantisable(graph, node));
    nodes.map(|(_, node)| graph.node_label(node)).collect()
}

/// Step and zero point of every value that becomes bytes.
fn parameters(
    graph: &Graph,
    placement: &Placement,
    ranges: &Ranges,
) -> Result<BTreeMap<ValueId, (f32, u8)>, CompressError> {
    let mut groups = Groups::new(graph.value_count());
    for (id, node) in graph.nodes() {
        let shares = match placement.role(id) {
            Role::Move => true,
            Role::Combine => matches!(node.op, Op::Concat(_)),
            _ => false,
        };
        if shares {
            let sources = if placement.role(id) == Role::Move { 1 } else { node.inputs.len() };
            for &x in node.inputs[..sources].iter().flatten() {
                node.outputs.iter().flatten().for_each(|&y| groups.join(x, y));
            }
        }
    }
    let mut spans: BTreeMap<usize, (f32, f32)> = BTreeMap::new();
    for &value in &placement.quantised {
        let label = graph.value_label(value);
        let Some(&range) = ranges.by_value.get(&label) else {
            let (value, node) = described(graph, value);
            return Err(CompressError::NoRange { value, node });
        };
        let range = domain::effective(graph, value, range, ranges);
        let span = spans.entry(groups.root(value.index())).or_insert((0.0, 0.0));
        *span = (span.0.min(range.0), span.1.max(range.1));
    }
    let of = |&value: &ValueId| {
        let (low, high) = spans[&groups.root(value.index())];
        let p = QuantParams::asymmetric_u8(low, high);
        (value, (p.scale[0], p.zero_point[0] as u8))
    };
    Ok(placement.quantised.iter().map(of).collect())
}

/// Values that share parameters.
struct Groups(Vec<usize>);

impl Groups {
    fn new(count: usize) -> Self {
        Groups((0..count).collect())
    }

    fn root(&self, mut at: usize) -> usize {
        while self.0[at] != at {
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.root(a.index()), self.root(b.index()));
        self.0[a.max(b)] = a.min(b);
    }
}

/// Adds quantisation and dequantisation of a value; returns the dequantised one.
fn insert_pair(
    graph: &mut Graph,
    value: ValueId,
    scale: f32,
    zero: u8,
) -> Result<ValueId, CompressError> {
    let label = graph.value_label(value);
    let scale = graph.add_constant("", Tensor::scalar(scale));
    let zero = graph.add_constant("", Tensor::scalar(zero));
    let name = format!("{label}/quantize");
    let inputs = [Some(value), Some(scale), Some(zero)];
    let bytes = graph.add_node(name, QuantizeLinear::default(), &inputs)?[0];
    let name = format!("{label}/dequantize");
    let inputs = [Some(bytes), Some(scale), Some(zero)];
    Ok(graph.add_node(name, DequantizeLinear::default(), &inputs)?[0])
}

/// Replaces the weights and bias of a product by dequantised integers.
fn quantise_weights(
    graph: &mut Graph,
    id: NodeId,
    x_scale: f32,
    per_channel: bool,
) -> Result<(), CompressError> {
    let node = graph.node(id).clone();
    let (position, axis) = place::weights(graph, &node).expect("it has the role of a product");
    let tensor = graph.constant(operand(&node, position).expect("weights")).expect("constant");
    let bias = bias_of(graph, id);
    let channels = tensor.shape()[axis];
    let mut steps = weight_steps(tensor, axis);
    if steps.iter().any(|s| !s.is_finite()) {
        let value = graph.value_label(operand(&node, position).expect("weights"));
        let why = lepton_ir::Problem::value(format!("weights `{value}` are not finite"));
        return Err(graph.node_error(&node, why).into());
    }
    if let Some((_, values)) = &bias {
        raise_for_bias(&mut steps, values, x_scale);
    }
    if !per_channel {
        let largest = steps.iter().copied().fold(0.0, f32::max);
        steps = vec![largest];
    }
    let step_of = |n: usize| steps[if per_channel { n } else { 0 }];
    let stride = row_major_strides(tensor.shape())[axis];
    let quantise = |(i, &w): (usize, &f32)| {
        let ratio = w / step_of(i / stride % channels);
        ratio.round_ties_even().clamp(-127.0, 127.0) as i8
    };
    let bytes: Vec<i8> = tensor.as_slice::<f32>()?.iter().enumerate().map(quantise).collect();
    let bytes = Tensor::from_slice(tensor.shape(), &bytes)?;
    let scale = if per_channel { Tensor::vector(&steps) } else { Tensor::scalar(steps[0]) };
    let op = DequantizeLinear { axis: axis as i64 };
    let name = format!("{}/weights", graph.node_label(&node));
    let made = dequantised(graph, name, op, bytes, scale)?;
    graph.node_mut(id).inputs[position] = Some(made);
    if let Some((position, values)) = bias {
        let scales: Vec<f32> = (0..channels).map(|n| x_scale * step_of(n)).collect();
        let integer = |(n, b): (usize, &f64)| (b / scales[n] as f64).round_ties_even() as i32;
        let integers: Vec<i32> = values.iter().enumerate().map(integer).collect();
        let op = DequantizeLinear { axis: 0 };
        let name = format!("{}/bias", graph.node_label(&node));
        let (bytes, scale) = (Tensor::vector(&integers), Tensor::vector(&scales));
        let made = dequantised(graph, name, op, bytes, scale)?;
        graph.node_mut(id).inputs[position] = Some(made);
    }
    Ok(())
}

fn dequantised(
    graph: &mut Graph,
    name: String,
    op: DequantizeLinear,
    integers: Tensor,
    scale: Tensor,
) -> Result<ValueId, CompressError> {
    let integers = graph.add_constant("", integers);
    let scale = graph.add_constant("", scale);
    Ok(graph.add_node(name, op, &[Some(integers), Some(scale)])?[0])
}

/// Position and values of a bias `[M]` that can be stored as integers.
fn bias_of(graph: &Graph, id: NodeId) -> Option<(usize, Vec<f64>)> {
    let node = graph.node(id);
    let Quant::Weighted { bias, channel_axis, weight } = node.op.operator().quant() else {
        return None;
    };
    let scaled = matches!(&node.op, Op::Gemm(op) if op.beta != 1.0);
    let tensor = graph.constant(operand(node, bias)?)?;
    let channels = graph.constant(operand(node, weight)?)?.shape()[channel_axis];
    let plain = tensor.shape() == [channels] && tensor.dtype() == DType::F32 && !scaled;
    plain.then(|| (bias, tensor.to_f64_vec()))
}

/// The step of each slice along `axis`.
fn weight_steps(tensor: &Tensor, axis: usize) -> Vec<f32> {
    let channels = tensor.shape()[axis];
    let stride = row_major_strides(tensor.shape())[axis];
    let mut largest = vec![0.0f64; channels];
    for (i, w) in tensor.to_f64_vec().into_iter().enumerate() {
        let slot = &mut largest[i / stride % channels];
        *slot = if w.is_finite() { slot.max(w.abs()) } else { f64::NAN };
    }
    let step = |m: f64| {
        if m.is_nan() { f32::NAN } else { QuantParams::symmetric_scale(m as f32, 127.0) }
    };
    largest.into_iter().map(step).collect()
}

/// Widens the steps of channels whose weights are so small that the bias would overflow int32.
fn raise_for_bias(steps: &mut [f32], bias: &[f64], x_scale: f32) {
    const LARGEST: f64 = (1u32 << 30) as f64;
    for (step, b) in steps.iter_mut().zip(bias) {
        let least = b.abs() / (x_scale as f64 * LARGEST);
        *step = step.max(least as f32);
    }
}
