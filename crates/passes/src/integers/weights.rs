//! Constants behind a `DequantizeLinear`: read as int8 by products, folded everywhere else.

use lepton_ir::ops::matmul::Linear;
use lepton_ir::{Graph, GraphError, Op, Operands, Users, ValueId};
use lepton_tensor::{DType, Tensor, row_major_strides};

use super::products::is_candidate;
use super::{operand, quantiser};
use crate::pass::sole_producer;

/// Constant int8 weights with one scale per channel and zero points of zero.
pub(crate) struct QuantisedWeights {
    values: Vec<i8>,
    shape: Vec<usize>,
    channel_axis: usize,
    /// One step per channel.
    pub scale: Vec<f32>,
}

impl QuantisedWeights {
    /// The weights behind a value, if every zero point stands for zero.
    pub fn behind(graph: &Graph, value: ValueId, channel_axis: usize) -> Option<QuantisedWeights> {
        let (_, node) = graph.producer(value)?;
        let Op::DequantizeLinear(op) = &node.op else { return None };
        let weights = graph.constant(operand(node, 0)?)?;
        let shift = match weights.dtype() {
            DType::I8 => 0,
            DType::U8 => 128,
            _ => return None,
        };
        let scale = graph.constant(operand(node, 1)?)?.as_slice::<f32>().ok()?;
        let zeros = match operand(node, 2) {
            None => vec![0],
            Some(zero) => graph.constant(zero)?.to_i64_vec(),
        };
        let shape = weights.shape().to_vec();
        let channels = *shape.get(channel_axis)?;
        let rank = i64::try_from(shape.len()).ok()?;
        let axis = usize::try_from(if op.axis < 0 { op.axis + rank } else { op.axis }).ok()?;
        let per_channel = scale.len() == channels && axis == channel_axis;
        let sound = scale.iter().all(|s| *s > 0.0 && s.is_finite());
        if !sound || !(per_channel || scale.len() == 1) || zeros.iter().any(|z| *z != shift) {
            return None;
        }
        let values = weights.to_i64_vec().iter().map(|v| (v - shift) as i8).collect();
        let each = |n: usize| scale[if scale.len() == 1 { 0 } else { n }];
        let scale = (0..channels).map(each).collect();
        Some(QuantisedWeights { values, shape, channel_axis, scale })
    }

    /// The sum of the weights of each channel.
    pub fn sums(&self) -> Vec<i64> {
        let mut sums = vec![0; self.scale.len()];
        let stride = row_major_strides(&self.shape)[self.channel_axis];
        for (i, &value) in self.values.iter().enumerate() {
            sums[i / stride % self.scale.len()] += i64::from(value);
        }
        sums
    }

    /// Adds them to the graph as a constant.
    pub fn constant(&self, graph: &mut Graph) -> Result<ValueId, GraphError> {
        let tensor = Tensor::from_slice(self.shape.clone(), &self.values)
            .map_err(|error| GraphError::Structure(error.to_string()))?;
        Ok(graph.add_constant("", tensor))
    }
}

/// The tensor of a constant, or of a constant that is dequantised.
pub(crate) fn real_tensor(graph: &Graph, value: ValueId) -> Option<Tensor> {
    if let Some(tensor) = graph.constant(value) {
        return Some(tensor.clone());
    }
    let (_, node) = graph.producer(value)?;
    let Op::DequantizeLinear(op) = &node.op else { return None };
    let constant = |id: &Option<ValueId>| match id {
        None => Some(None),
        Some(id) => graph.constant(*id).map(Some),
    };
    let operands: Vec<Option<&Tensor>> = node.inputs.iter().map(constant).collect::<Option<_>>()?;
    lepton_ir::Operator::eval(op, Operands(&operands)).ok()?.pop()
}

/// The elements of [`real_tensor`].
pub(crate) fn real_vector(graph: &Graph, value: ValueId) -> Option<Vec<f64>> {
    real_tensor(graph, value).map(|tensor| tensor.to_f64_vec())
}

/// Products whose constant weights are codes in groups along K read the codes themselves.
pub fn groups(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.node(id);
        let op = match &node.op {
            Op::Linear(op) => op.clone(),
            Op::MatMul(_) => Linear::default(),
            _ => continue,
        };
        let Some(w) = operand(node, 1) else { continue };
        let Some(codes) = in_groups(graph, w) else { continue };
        let served = operand(node, 0).is_some_and(|x| {
            let x = graph.fact(x);
            x.dtype == DType::F32 && x.rank() >= 2
        });
        if !served || operand(node, 4).is_some() {
            continue;
        }
        let [w, scale, zero] = codes;
        let inputs = node.inputs.clone();
        // Packed forms belong to a constant: codes that are read with other scales are another.
        let w = w.and_then(|w| graph.constant(w)).cloned().map(|w| graph.add_constant("", w));
        let operand = |index: usize| inputs.get(index).copied().flatten();
        let inputs = [operand(0), w, operand(2), operand(3), scale, zero];
        graph.rewrite_node(id, op, &inputs)?;
        changes += 1;
    }
    Ok(changes)
}

/// The codes `[K, N]`, scales and zero points behind a value, where groups of at least eight along
/// K divide it evenly.
fn in_groups(graph: &Graph, value: ValueId) -> Option<[Option<ValueId>; 3]> {
    let (_, node) = graph.producer(value)?;
    let Op::DequantizeLinear(op) = &node.op else { return None };
    let operands = [operand(node, 0), operand(node, 1), operand(node, 2)];
    let codes = graph.constant(operands[0]?)?;
    let scale = graph.constant(operands[1]?)?;
    let constant = operands[2].is_none_or(|zero| graph.constant(zero).is_some());
    let short = matches!(
        codes.dtype(),
        DType::U2 | DType::I2 | DType::U4 | DType::I4 | DType::U8 | DType::I8
    );
    let (&[depth, columns], &[groups, across]) = (codes.shape(), scale.shape()) else {
        return None;
    };
    let along = op.axis == 0 || op.axis == -2;
    let even = groups > 0 && depth.is_multiple_of(groups) && (depth / groups).is_multiple_of(8);
    let served = short && scale.dtype() == DType::F32 && across == columns && columns > 1;
    (constant && served && along && even && depth > 0).then_some(operands)
}

/// Dequantises the constants that no integer product will read as bytes.
pub fn fold(graph: &mut Graph) -> Result<usize, GraphError> {
    let users = graph.users();
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.node(id);
        let (Op::DequantizeLinear(_), Some(made)) = (&node.op, node.outputs[0]) else { continue };
        if graph.outputs().contains(&made) || kept(graph, &users, made) {
            continue;
        }
        let Some(tensor) = real_tensor(graph, made) else { continue };
        let constant = graph.add_constant("", tensor);
        graph.replace_uses(made, constant);
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

/// Elements of a table that is quantised as a whole, however few of them are ever selected.
const LARGEST_TABLE: usize = 1 << 20;

/// Quantises constants before `Gather` selects from them, where that is what happens to what it selects:
/// once, instead of whenever a graph is specialised, or a run selects.
pub fn quantise_tables(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        if quantiser(graph, &node).is_none() {
            continue;
        }
        let (Some(x), Some(made)) = (operand(&node, 0), node.outputs[0]) else { continue };
        let Some((gather, selects)) = graph.producer(x) else { continue };
        let table = operand(selects, 0).and_then(|table| graph.constant(table));
        let (Op::Gather(op), Some(table)) = (&selects.op, table) else { continue };
        // Who reads what is only asked where it matters.
        if table.len() > LARGEST_TABLE || sole_producer(graph, &graph.users(), x).is_none() {
            continue;
        }
        let parameters = [1, 2].map(|at| graph.constant(operand(&node, at)?));
        let Ok(bytes) = node.op.eval(Operands(&[Some(table), parameters[0], parameters[1]])) else {
            continue;
        };
        let (op, indices) = (op.clone(), selects.inputs[1]);
        let bytes = bytes.into_iter().next().map(|bytes| graph.add_constant("", bytes));
        graph.rewrite_node(gather, op, &[bytes, indices])?;
        graph.replace_uses(made, x);
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

/// True if a product that may become an integer one reads the value as its weights.
fn kept(graph: &Graph, users: &Users, value: ValueId) -> bool {
    users[value.index()].iter().any(|&(user, position)| {
        let node = graph.node(user);
        if position != 1 || !is_candidate(graph, node) {
            return false;
        }
        let axis = match &node.op {
            Op::Conv(_) => 0,
            Op::Gemm(op) if op.trans_b => 0,
            _ => 1,
        };
        QuantisedWeights::behind(graph, value, axis).is_some()
    })
}
