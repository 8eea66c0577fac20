//! Channels last: image operators run in `nhwc`, between transposes that cancel.

use lepton_ir::ops::transpose::{Transpose, inverse};
use lepton_ir::{Graph, GraphError, Node, Op, ValueId};
use lepton_tensor::{Layout, Tensor};

/// Ranks the engine's image kernels take.
const IMAGE_RANK: usize = 4;

pub(crate) fn transposed(
    graph: &mut Graph,
    value: ValueId,
    permutation: Vec<usize>,
) -> Result<ValueId, GraphError> {
    Ok(graph.add_node("", Transpose { permutation }, &[Some(value)])?[0])
}

/// Gives convolutions and pools of images the layout `nhwc`, between transposes.
pub fn channels_last(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some(op) = in_channels_last(graph, &node) else { continue };
        let to = Layout::Nchw.permutation_to(Layout::Nhwc, IMAGE_RANK);
        let back = Layout::Nhwc.permutation_to(Layout::Nchw, IMAGE_RANK);
        let mut inputs = node.inputs.clone();
        for (position, input) in inputs.iter_mut().enumerate() {
            if let Some(value) = *input
                && graph.fact(value).rank() == IMAGE_RANK
            {
                debug_assert!(position != 2, "a bias has one axis");
                *input = Some(transposed(graph, value, to.clone())?);
            }
        }
        let made = graph.add_node(node.name.clone(), op, &inputs)?[0];
        let made = transposed(graph, made, back)?;
        graph.replace_uses(node.outputs[0].expect("a used result"), made);
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

fn in_channels_last(graph: &Graph, node: &Node) -> Option<Op> {
    if graph.fact(node.inputs.first().copied().flatten()?).rank() != IMAGE_RANK {
        return None;
    }
    let mut op = node.op.clone();
    let layout = match &mut op {
        Op::Conv(conv) => &mut conv.layout,
        Op::DynamicConv(conv) => &mut conv.layout,
        Op::Pool(pool) => &mut pool.layout,
        _ => return None,
    };
    (*layout == Layout::Nchw).then(|| *layout = Layout::Nhwc)?;
    Some(op)
}

/// The permutation and operand of a transpose that makes `value`.
pub(crate) fn transpose_of(graph: &Graph, value: ValueId) -> Option<(Vec<usize>, ValueId)> {
    let (_, node) = graph.producer(value)?;
    let Op::Transpose(op) = &node.op else { return None };
    let x = node.inputs[0]?;
    Some((op.resolved(graph.fact(x).rank()).ok()?, x))
}

/// Two transposes in a row become one; a transpose of a constant is computed; one that only
/// moves axes of extent 1 becomes a reshape.
pub fn merge(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Op::Transpose(op) = &node.op else { continue };
        let Some(x) = node.inputs[0] else { continue };
        let Ok(outer) = op.resolved(graph.fact(x).rank()) else { continue };
        if let Some((inner, source)) = transpose_of(graph, x) {
            let permutation = outer.iter().map(|&axis| inner[axis]).collect();
            graph.rewrite_node(id, Transpose { permutation }, &[Some(source)])?;
            changes += 1;
        } else if let Some((op, inputs)) = over_quantised(graph, x, &outer) {
            let inputs = added(graph, inputs);
            graph.rewrite_node(id, op, &inputs)?;
            changes += 1;
        } else if let Some(shape) = as_reshape(graph, x, &outer) {
            let shape = graph.add_constant("", shape);
            let op = lepton_ir::ops::reshape::Reshape::default();
            graph.rewrite_node(id, op, &[Some(x), Some(shape)])?;
            changes += 1;
        }
    }
    Ok(changes)
}

/// A transpose of a constant that is stored quantised: the bytes are transposed, the axis of the
/// parameters follows.
fn over_quantised(graph: &Graph, x: ValueId, permutation: &[usize]) -> Option<(Op, Vec<Sunk>)> {
    let (_, node) = graph.producer(x)?;
    let Op::DequantizeLinear(op) = &node.op else { return None };
    let constant = graph.constant(node.inputs[0]?)?;
    let (scale, zero) = (node.inputs[1]?, node.inputs.get(2).copied().flatten());
    let rank = constant.rank() as i64;
    let axis = usize::try_from(if op.axis < 0 { op.axis + rank } else { op.axis }).ok()?;
    let moved = permutation.iter().position(|&from| from == axis);
    let axis = if graph.fact(scale).count().is(1) { 0 } else { moved? } as i64;
    let moved = untransposed(constant, &inverse(permutation), constant.rank())?;
    let op = lepton_ir::ops::quantize::DequantizeLinear { axis };
    // Parameters of blocks have the axes of what they scale.
    let blocked = graph.fact(scale).rank() == constant.rank() && constant.rank() > 1;
    let parameter = |id: ValueId| match blocked {
        true => untransposed(graph.constant(id)?, &inverse(permutation), constant.rank())
            .map(Sunk::Constant),
        false => Some(Sunk::Value(id)),
    };
    let parameters = [Some(scale), zero].into_iter().flatten().map(parameter);
    let inputs = std::iter::once(Some(Sunk::Constant(moved))).chain(parameters);
    Some((op.into(), inputs.collect::<Option<_>>()?))
}

/// The shape operand of the reshape a transpose is, if it moves only axes of extent 1 and at
/// most one extent is not known.
fn as_reshape(graph: &Graph, x: ValueId, permutation: &[usize]) -> Option<Tensor> {
    let dims = &graph.fact(x).dims;
    let moved: Vec<usize> = permutation.iter().copied().filter(|&a| !dims[a].is(1)).collect();
    let still = moved.windows(2).all(|pair| pair[0] < pair[1]);
    let identity = permutation.iter().enumerate().all(|(i, &axis)| i == axis);
    let open = dims.iter().filter(|d| d.as_known().is_none()).count();
    if !still || identity || open > 1 || dims.iter().any(|d| d.is(0)) {
        return None;
    }
    let target: Vec<i64> =
        permutation.iter().map(|&axis| dims[axis].as_known().unwrap_or(-1)).collect();
    Some(Tensor::vector(&target))
}

/// An operand that a rewriting makes.
pub(crate) enum Sunk {
    Value(ValueId),
    Constant(Tensor),
    Absent,
}

/// Operands of a node, constants added to the graph.
pub(crate) fn added(graph: &mut Graph, inputs: Vec<Sunk>) -> Vec<Option<ValueId>> {
    let value = |input| match input {
        Sunk::Value(value) => Some(value),
        Sunk::Constant(tensor) => Some(graph.add_constant("", tensor)),
        Sunk::Absent => None,
    };
    inputs.into_iter().map(value).collect()
}

/// A constant operand as it broadcasts against operands that are not transposed.
pub(crate) fn untransposed(
    constant: &Tensor,
    permutation: &[usize],
    rank: usize,
) -> Option<Tensor> {
    let mut shape = vec![1; rank.checked_sub(constant.rank())?];
    shape.extend_from_slice(constant.shape());
    let full = constant.reshaped(shape).ok()?;
    let op = Transpose { permutation: inverse(permutation) };
    lepton_ir::Operator::eval(&op, lepton_ir::Operands(&[Some(&full)])).ok()?.pop()
}
