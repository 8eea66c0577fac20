//! What follows a product moves into its epilogue: bias, residual, activation.

use lepton_ir::ops::binary::BinaryFunction;
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Graph, GraphError, Node, NodeId, Op, ValueId};
use lepton_tensor::{DType, Tensor};

use crate::pass::sole_producer;

/// The operator with another activation, if it is a product that has an epilogue and no
/// activation yet.
fn with_activation(op: &Op, activation: &Unary) -> Option<Op> {
    let mut op = op.clone();
    let slot = match &mut op {
        Op::Conv(conv) => &mut conv.activation,
        Op::Linear(linear) => &mut linear.activation,
        _ => return None,
    };
    if slot.function != UnaryFunction::Identity {
        return None;
    }
    *slot = activation.clone();
    Some(op)
}

fn takes_epilogue(op: &Op) -> bool {
    with_activation(op, &Unary::default()).is_some()
}

fn operand(node: &Node, index: usize) -> Option<ValueId> {
    node.inputs.get(index).copied().flatten()
}

/// The operands of a node, with one more where there was none.
fn with_operand(node: &Node, index: usize, value: ValueId) -> Vec<Option<ValueId>> {
    let mut inputs = node.inputs.clone();
    inputs.resize(inputs.len().max(index + 1), None);
    inputs[index] = Some(value);
    inputs
}

/// Functions the kernels apply while a tile is in registers or L1.
fn fuses(function: UnaryFunction) -> bool {
    use UnaryFunction as F;
    matches!(
        function,
        F::Relu
            | F::Clip
            | F::LeakyRelu
            | F::Sigmoid
            | F::Silu
            | F::HardSigmoid
            | F::HardSwish
            | F::Tanh
            | F::Gelu
            | F::GeluTanh
    )
}

/// `function(product)` becomes one node.
pub fn fuse_activation(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Op::Unary(function) = &node.op else { continue };
        let users = graph.users();
        let Some(x) = operand(&node, 0).filter(|_| fuses(function.function)) else { continue };
        let Some((producer, product)) = sole_producer(graph, &users, x) else { continue };
        let Some(op) = with_activation(&product.op, function) else { continue };
        let inputs = product.inputs.clone();
        graph.rewrite_node(producer, op, &inputs)?;
        graph.replace_uses(node.outputs[0].expect("a used result"), x);
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

/// The two orders of operands of an addition.
fn sums(graph: &Graph, id: NodeId) -> Vec<(ValueId, ValueId)> {
    let node = graph.node(id);
    match (&node.op, operand(node, 0), operand(node, 1)) {
        (Op::Binary(op), Some(a), Some(b)) if op.function == BinaryFunction::Add => {
            vec![(a, b), (b, a)]
        }
        _ => Vec::new(),
    }
}

/// `product + constant per channel` becomes the bias of the product.
pub fn fuse_bias(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let sums = sums(graph, id);
        if sums.is_empty() {
            continue;
        }
        let users = graph.users();
        for (x, bias) in sums {
            let Some(bias) = graph.constant(bias).filter(|b| b.dtype() == DType::F32) else {
                continue;
            };
            let Some((producer, product)) = sole_producer(graph, &users, x) else { continue };
            let plain = takes_epilogue(&product.op) && matches!(product.op, Op::Linear(_));
            if !plain || operand(product, 2).is_some() || operand(product, 3).is_some() {
                continue;
            }
            let Some(n) = graph.fact(x).dims.last().and_then(|d| d.as_usize()) else { continue };
            if bias.shape() != [n] {
                continue;
            }
            let (product, bias) = (product.clone(), Tensor::clone(bias));
            let bias = graph.add_constant("", bias);
            let inputs = with_operand(&product, 2, bias);
            graph.rewrite_node(producer, product.op, &inputs)?;
            let output = graph.node(id).outputs[0].expect("a used result");
            graph.replace_uses(output, x);
            graph.remove_node(id);
            changes += 1;
            break;
        }
    }
    Ok(changes)
}

/// `product + other of the same shape` becomes the residual of the product. The other operand
/// must be made before, so the product moves to the place of the addition. A product with bf16
/// weights would round the other operand: it takes none here.
pub fn fuse_residual(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let mut candidates = sums(graph, id);
        if candidates.is_empty() {
            continue;
        }
        let users = graph.users();
        // Of two products the later one takes the addition: the other is then made already.
        candidates.reverse();
        for (x, other) in candidates {
            let Some((producer, product)) = sole_producer(graph, &users, x) else { continue };
            let same = graph.fact(x).dims == graph.fact(other).dims && x != other;
            let exact = operand(product, 1).is_some_and(|w| graph.fact(w).dtype != DType::BF16);
            let free = takes_epilogue(&product.op) && operand(product, 3).is_none() && exact;
            if !same || !free || graph.constant(other).is_some() || reaches(graph, producer, other)
            {
                continue;
            }
            let product = product.clone();
            let inputs = with_operand(&product, 3, other);
            graph.rewrite_node(producer, product.op, &inputs)?;
            let output = graph.node(id).outputs[0].expect("a used result");
            graph.replace_uses(output, x);
            graph.remove_node(id);
            graph.sort()?;
            changes += 1;
            break;
        }
    }
    Ok(changes)
}

/// True if `value` depends on a result of `node`.
fn reaches(graph: &Graph, node: NodeId, value: ValueId) -> bool {
    let mut stack = vec![value];
    let mut seen = vec![false; graph.node_slots()];
    while let Some(value) = stack.pop() {
        let Some((producer, made_by)) = graph.producer(value) else { continue };
        if producer == node {
            return true;
        }
        if !std::mem::replace(&mut seen[producer.index()], true) {
            stack.extend(made_by.inputs.iter().flatten());
        }
    }
    false
}
