//! Convolutions and linear layers between dequantisation and quantisation become integer ones.

use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::integer::{IntegerConv, IntegerLinear};
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Graph, GraphError, Node, NodeId, Op, Users, ValueId};
use lepton_tensor::{DType, Layout, Tensor};

use super::weights::{QuantisedWeights, real_vector};
use super::{Parameters, add_quantiser, dequantised, operand, quantiser};
use crate::pass::sole_producer;

/// A product whose x and w are dequantised bytes.
struct Product {
    op: Op,
    x: Bytes,
    weights: QuantisedWeights,
    /// Real bias, one per channel; empty where there is none.
    bias: Vec<f64>,
    residual: Option<ValueId>,
    activation: Unary,
}

/// A byte tensor, perhaps to be transposed first.
pub(super) struct Bytes {
    pub value: ValueId,
    pub permutation: Option<Vec<usize>>,
    pub parameters: Parameters,
}

impl Bytes {
    /// The bytes that are dequantised to `value`.
    pub fn directly_behind(graph: &Graph, value: ValueId) -> Option<Bytes> {
        let (value, parameters) = dequantised(graph, value)?;
        Some(Bytes { value, permutation: None, parameters })
    }

    /// The bytes that are dequantised, and perhaps transposed, to `value`.
    pub fn behind(graph: &Graph, value: ValueId) -> Option<Bytes> {
        if let Some(found) = Bytes::directly_behind(graph, value) {
            return Some(found);
        }
        let (_, node) = graph.producer(value)?;
        let Op::Transpose(op) = &node.op else { return None };
        let source = operand(node, 0)?;
        let (value, parameters) = dequantised(graph, source)?;
        let permutation = op.resolved(graph.fact(value).rank()).ok();
        Some(Bytes { value, permutation, parameters })
    }

    /// The tensor as u8, in the order the product reads.
    fn build(&self, graph: &mut Graph) -> Result<ValueId, GraphError> {
        let mut value = self.value;
        if self.parameters.dtype == DType::I8 {
            let real = super::add_dequantiser(graph, value, self.parameters)?;
            value = add_quantiser(graph, real, self.parameters.as_u8())?;
        }
        Bytes { value, permutation: self.permutation.clone(), ..*self }.reordered(graph)
    }

    /// The bytes as they are, in the order the reader wants.
    pub fn reordered(&self, graph: &mut Graph) -> Result<ValueId, GraphError> {
        match &self.permutation {
            None => Ok(self.value),
            Some(permutation) => {
                let op = Transpose { permutation: permutation.clone() };
                Ok(graph.add_node("", op, &[Some(self.value)])?[0])
            }
        }
    }
}

/// True if the product at `node` may become an integer one once its surroundings are in place.
pub(crate) fn is_candidate(graph: &Graph, node: &Node) -> bool {
    let Some(x) = operand(node, 0) else { return false };
    let rank = operand(node, 1).map_or(0, |w| graph.fact(w).rank());
    let form = match &node.op {
        Op::Conv(_) => rank == 4,
        Op::Linear(_) | Op::MatMul(_) => rank == 2,
        Op::Gemm(op) => rank == 2 && !op.trans_a && op.alpha == 1.0,
        _ => false,
    };
    form && Bytes::behind(graph, x).is_some()
}

impl Product {
    fn of(graph: &Graph, node: &Node) -> Option<Product> {
        let (activation, channel_axis) = match &node.op {
            Op::Conv(conv) if conv.layout == Layout::Nhwc => (&conv.activation, 0),
            Op::Linear(linear) => (&linear.activation, 1),
            _ => return None,
        };
        let x = Bytes::behind(graph, operand(node, 0)?)?;
        if !is_candidate(graph, node) {
            return None;
        }
        let weights = QuantisedWeights::behind(graph, operand(node, 1)?, channel_axis)?;
        let bias = match operand(node, 2) {
            None => Vec::new(),
            Some(bias) => real_vector(graph, bias)?,
        };
        Some(Product {
            op: node.op.clone(),
            x,
            weights,
            bias,
            residual: operand(node, 3),
            activation: activation.clone(),
        })
    }

    /// The int32 bias: the real one in steps of `x scale · w scale`, less what the zero point of x
    /// adds to every sum. `None` where it does not fit.
    fn integer_bias(&self) -> Option<Vec<i32>> {
        let p = self.x.parameters.as_u8();
        let sums = self.weights.sums();
        (0..sums.len())
            .map(|n| {
                let step = p.scale as f64 * self.weights.scale[n] as f64;
                let bias = self.bias.get(n).map_or(0.0, |b| b / step);
                let bias = bias.round_ties_even() - (p.zero * sums[n]) as f64;
                (bias.abs() < i32::MAX as f64).then_some(bias as i32)
            })
            .collect()
    }

    /// Factors from sums to results in steps of `y_scale`, rounded as ONNX Runtime and XNNPACK do.
    fn multiplier(&self, y_scale: f32) -> Vec<f32> {
        let x_scale = self.x.parameters.scale;
        self.weights.scale.iter().map(|&w| x_scale * w / y_scale).collect()
    }
}

/// The least and the greatest u8 an activation lets through, for those that only clamp.
pub(crate) fn clamps(activation: &Unary, y: Parameters) -> Option<(i64, i64)> {
    match activation.function {
        UnaryFunction::Identity => Some((0, 255)),
        UnaryFunction::Relu => Some((y.zero, 255)),
        UnaryFunction::Clip => Some((y.quantise(activation.alpha), y.quantise(activation.beta)))
            .filter(|(low, high)| low <= high),
        _ => None,
    }
}

/// What follows a product.
enum Follows {
    /// Only this quantisation, whose result is `bytes`.
    Quantiser { node: NodeId, bytes: ValueId, parameters: Parameters },
    /// A transpose that will sink below a quantisation.
    Pending,
    /// Anything else.
    Reals,
}

fn follows(graph: &Graph, users: &Users, y: ValueId) -> Follows {
    let [(user, 0)] = users[y.index()][..] else { return Follows::Reals };
    if graph.outputs().contains(&y) {
        return Follows::Reals;
    }
    let node = graph.node(user);
    let Some(made) = node.outputs.first().copied().flatten() else { return Follows::Reals };
    if let Some(p) = quantiser(graph, node).filter(|p| p.dtype == DType::U8) {
        return Follows::Quantiser { node: user, bytes: made, parameters: p };
    }
    let quantised = |(id, _): &(NodeId, usize)| quantiser(graph, graph.node(*id)).is_some();
    let moved = matches!(node.op, Op::Transpose(_)) && users[made.index()].iter().any(quantised);
    if moved { Follows::Pending } else { Follows::Reals }
}

/// Replaces products over dequantised bytes by integer products: to u8 where a quantisation
/// follows that the epilogue can do, else to f32.
pub fn form(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        if !graph.contains(id) {
            continue;
        }
        let node = graph.shared_node(id);
        let Some(product) = Product::of(graph, &node) else { continue };
        let Some(bias) = product.integer_bias() else { continue };
        let users = graph.users();
        let y = node.outputs[0].expect("a used result");
        match follows(graph, &users, y) {
            Follows::Pending => continue,
            Follows::Quantiser { node: quantiser, bytes, parameters } => {
                if let Some(made) = to_u8(graph, &node, &product, &bias, parameters)? {
                    graph.replace_uses(bytes, made);
                    graph.remove_node(quantiser);
                } else {
                    let made = to_f32(graph, &node, &product, &bias)?;
                    graph.replace_uses(y, made);
                }
            }
            Follows::Reals => {
                let made = to_f32(graph, &node, &product, &bias)?;
                graph.replace_uses(y, made);
            }
        }
        graph.remove_node(id);
        graph.sort()?;
        changes += 1;
    }
    Ok(changes)
}

fn to_u8(
    graph: &mut Graph,
    node: &Node,
    product: &Product,
    bias: &[i32],
    y: Parameters,
) -> Result<Option<ValueId>, GraphError> {
    let Some((low, high)) = clamps(&product.activation, y) else {
        return through_u8(graph, node, product, bias, y);
    };
    let residual = match product.residual {
        None => None,
        Some(value) => match Bytes::behind(graph, value) {
            None => return Ok(None),
            found => found,
        },
    };
    let added = residual.as_ref().map(|r| r.parameters.as_u8());
    let residual_scale = added.map_or(1.0, |p| p.scale / y.scale);
    let residual_zero = added.map_or(0, |p| p.zero);
    let op: Op = match &product.op {
        Op::Conv(conv) => IntegerConv {
            zero: y.zero,
            low,
            high,
            residual_scale,
            residual_zero,
            ..integer_conv(conv, product)
        }
        .into(),
        _ => {
            let (zero, output) = (y.zero, DType::U8);
            let plain = IntegerLinear::default();
            IntegerLinear { output, zero, low, high, residual_scale, residual_zero, ..plain }.into()
        }
    };
    let residual = residual.map(|r| r.build(graph)).transpose()?;
    Ok(Some(build(graph, node, op, product, bias, y.scale, residual)?))
}

/// A linear layer whose activation is no clamp, to u8.
fn through_u8(
    graph: &mut Graph,
    node: &Node,
    product: &Product,
    bias: &[i32],
    y: Parameters,
) -> Result<Option<ValueId>, GraphError> {
    use UnaryFunction::{Gelu, GeluTanh, Sigmoid, Silu, Tanh};
    let smooth = match product.activation.function {
        Gelu | GeluTanh | Sigmoid | Tanh => true,
        Silu => product.activation.alpha == 1.0,
        _ => false,
    };
    if !smooth || product.residual.is_some() || !matches!(product.op, Op::Linear(_)) {
        return Ok(None);
    }
    let activation = product.activation.clone();
    let plain = IntegerLinear::default();
    let op = IntegerLinear { zero: y.zero, activation, step: y.scale, ..plain };
    Ok(Some(build(graph, node, op.into(), product, bias, 1.0, None)?))
}

fn to_f32(
    graph: &mut Graph,
    node: &Node,
    product: &Product,
    bias: &[i32],
) -> Result<ValueId, GraphError> {
    let (output, activation) = (DType::F32, product.activation.clone());
    let op: Op = match &product.op {
        Op::Conv(conv) => IntegerConv { output, activation, ..integer_conv(conv, product) }.into(),
        _ => IntegerLinear { output, activation, ..IntegerLinear::default() }.into(),
    };
    build(graph, node, op, product, bias, 1.0, product.residual)
}

fn integer_conv(conv: &Conv, product: &Product) -> IntegerConv {
    IntegerConv {
        strides: conv.strides.clone(),
        pads: conv.pads.clone(),
        dilations: conv.dilations.clone(),
        group: conv.group,
        auto_pad: conv.auto_pad,
        x_zero: product.x.parameters.as_u8().zero,
        ..IntegerConv::default()
    }
}

fn build(
    graph: &mut Graph,
    node: &Node,
    op: Op,
    product: &Product,
    bias: &[i32],
    y_scale: f32,
    residual: Option<ValueId>,
) -> Result<ValueId, GraphError> {
    let x = product.x.build(graph)?;
    let w = product.weights.constant(graph)?;
    let bias = graph.add_constant("", Tensor::vector(bias));
    let multiplier = graph.add_constant("", Tensor::vector(&product.multiplier(y_scale)));
    let mut inputs = vec![Some(x), Some(w), Some(bias), Some(multiplier)];
    inputs.extend(residual.map(Some));
    Ok(graph.add_node(node.name.clone(), op, &inputs)?[0])
}

/// A table over the bytes of an integer product moves into its epilogue.
pub fn fuse_tables(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let (Op::Lookup(_), Some(x), Some(table)) =
            (&node.op, operand(&node, 0), operand(&node, 1))
        else {
            continue;
        };
        let users = graph.users();
        let Some((producer, product)) = sole_producer(graph, &users, x) else { continue };
        let integer = match &product.op {
            Op::IntegerConv(_) => true,
            Op::IntegerLinear(op) => op.activation == Unary::default(),
            _ => false,
        };
        if !integer || operand(product, 5).is_some() {
            continue;
        }
        let product = product.clone();
        let mut inputs = product.inputs.clone();
        inputs.resize(5, None);
        inputs.push(Some(table));
        graph.rewrite_node(producer, product.op, &inputs)?;
        graph.replace_uses(node.outputs[0].expect("a used result"), x);
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}
