//! From "dequantise, compute, quantise" to integer operators.
//!
//! The passes here read the standard QDQ form: every quantised tensor is a byte tensor between a
//! `QuantizeLinear` and a `DequantizeLinear`. Each moves work from the reals between the two to the
//! bytes before or behind them; what does not fit stays in f32 and keeps its meaning.

pub mod moves;
pub mod pools;
pub mod products;
pub mod tables;
pub mod weights;

use lepton_ir::ops::quantize::{DequantizeLinear, QuantizeLinear};
use lepton_ir::{Graph, GraphError, Node, NodeId, Op, ValueId};
use lepton_tensor::{DType, Tensor};

/// Scale and zero point of a whole byte tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parameters {
    pub scale: f32,
    pub zero: i64,
    pub dtype: DType,
}

impl Parameters {
    /// The same reals as u8.
    pub fn as_u8(self) -> Parameters {
        let shift = if self.dtype == DType::I8 { 128 } else { 0 };
        Parameters { zero: self.zero + shift, dtype: DType::U8, ..self }
    }

    /// The u8 nearest to a real, by the rule of `QuantizeLinear`.
    pub fn quantise(self, real: f32) -> i64 {
        ((real / self.scale).round_ties_even() as f64 + self.zero as f64).clamp(0.0, 255.0) as i64
    }
}

/// The operand at `index`, if it is connected.
pub(crate) fn operand(node: &Node, index: usize) -> Option<ValueId> {
    node.inputs.get(index).copied().flatten()
}

/// One constant scale and zero point of a (de)quantisation to or from u8 or i8.
fn parameters(graph: &Graph, node: &Node, dtype: DType) -> Option<Parameters> {
    let scale = graph.constant(operand(node, 1)?)?;
    let zero = match operand(node, 2) {
        None => 0,
        Some(id) => *graph.constant(id)?.to_i64_vec().first()?,
    };
    let scale = *scale.as_slice::<f32>().ok().filter(|s| s.len() == 1)?.first()?;
    let served = scale > 0.0 && scale.is_finite() && matches!(dtype, DType::U8 | DType::I8);
    served.then_some(Parameters { scale, zero, dtype })
}

/// The parameters a `QuantizeLinear` node quantises with.
pub(crate) fn quantiser(graph: &Graph, node: &Node) -> Option<Parameters> {
    let Op::QuantizeLinear(_) = &node.op else { return None };
    parameters(graph, node, graph.fact(node.outputs.first().copied().flatten()?).dtype)
}

/// The bytes behind a value that `DequantizeLinear` makes, and what they stand for.
pub(crate) fn dequantised(graph: &Graph, value: ValueId) -> Option<(ValueId, Parameters)> {
    let (_, node) = graph.producer(value)?;
    let Op::DequantizeLinear(_) = &node.op else { return None };
    let bytes = operand(node, 0)?;
    Some((bytes, parameters(graph, node, graph.fact(bytes).dtype)?))
}

/// Adds `QuantizeLinear` of a whole tensor.
pub(crate) fn add_quantiser(
    graph: &mut Graph,
    x: ValueId,
    p: Parameters,
) -> Result<ValueId, GraphError> {
    let inputs = parameter_operands(graph, x, p)?;
    Ok(graph.add_node("", QuantizeLinear::default(), &inputs)?[0])
}

/// Adds `DequantizeLinear` of a whole tensor.
pub(crate) fn add_dequantiser(
    graph: &mut Graph,
    bytes: ValueId,
    p: Parameters,
) -> Result<ValueId, GraphError> {
    let inputs = parameter_operands(graph, bytes, p)?;
    Ok(graph.add_node("", DequantizeLinear::default(), &inputs)?[0])
}

fn parameter_operands(
    graph: &mut Graph,
    x: ValueId,
    p: Parameters,
) -> Result<[Option<ValueId>; 3], GraphError> {
    let scale = graph.add_constant("", Tensor::scalar(p.scale));
    let zero = Tensor::from_i64_slice(p.dtype, Vec::new(), &[p.zero])
        .map_err(|error| GraphError::Structure(error.to_string()))?;
    let zero = graph.add_constant("", zero);
    Ok([Some(x), Some(scale), Some(zero)])
}

/// True if the node turns integers into f32 of the same value.
fn counted(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let made = node.outputs.first().copied().flatten();
    matches!(node.op, Op::Cast(_)) && made.is_some_and(|y| graph.fact(y).dtype == DType::F32)
}

/// Turns i8 activations into u8, 128 higher: the kernels take unsigned activations.
pub fn unsign(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some(p) = quantiser(graph, &node).filter(|p| p.dtype == DType::I8) else { continue };
        let Some(bytes) = node.outputs[0].filter(|b| !graph.outputs().contains(b)) else {
            continue;
        };
        let readers: Vec<NodeId> =
            graph.users()[bytes.index()].iter().map(|(user, _)| *user).collect();
        let same = |user: &NodeId| {
            let made = graph.node(*user).outputs[0].and_then(|y| dequantised(graph, y));
            made.is_some_and(|(_, q)| q == p)
        };
        let counts = |user: &NodeId| counted(graph, *user);
        if !readers.iter().all(|user| same(user) || counts(user)) {
            continue;
        }
        let counting: Vec<NodeId> = readers.iter().copied().filter(counts).collect();
        let inputs = parameter_operands(graph, node.inputs[0].expect("x"), p.as_u8())?;
        graph.rewrite_node(id, QuantizeLinear::default(), &inputs)?;
        for reader in readers {
            let inputs = match counting.contains(&reader) {
                // The integers themselves are steps of one.
                true => parameter_operands(
                    graph,
                    bytes,
                    Parameters { scale: 1.0, zero: 0, dtype: DType::I8 }.as_u8(),
                )?,
                false => [Some(bytes), inputs[1], inputs[2]],
            };
            graph.rewrite_node(reader, DequantizeLinear::default(), &inputs)?;
        }
        changes += 1;
    }
    Ok(changes)
}
