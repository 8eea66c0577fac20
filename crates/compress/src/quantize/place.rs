//! Where quantisation goes: which nodes work on integers, and which of the values around them
//! become bytes.

use std::collections::BTreeSet;

use lepton_ir::ops::binary::BinaryFunction;
use lepton_ir::ops::unary::UnaryFunction;
use lepton_ir::{Graph, Node, NodeId, Op, Quant, Users, ValueId};
use lepton_tensor::DType;

/// What a node does in the quantised graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Stays in f32.
    Float,
    /// A product with constant weights.
    Product,
    /// Adds a constant per channel to a product: its bias.
    Bias,
    /// A function of one element.
    Table,
    /// Moves elements; output and input share parameters.
    Move,
    /// Computes from several bytes: sums, products of activations, joins, averages.
    Combine,
}

/// The decisions for a graph.
pub(crate) struct Placement {
    roles: Vec<Role>,
    /// Values that become bytes, in order of their numbers.
    pub quantised: BTreeSet<ValueId>,
}

impl Placement {
    /// The role of a node.
    pub fn role(&self, id: NodeId) -> Role {
        self.roles[id.index()]
    }
}

/// The operand at `index`, if it is connected.
pub(crate) fn operand(node: &Node, index: usize) -> Option<ValueId> {
    node.inputs.get(index).copied().flatten()
}

/// Operand that holds the constant weights, and their axis of output channels, if the engine has
/// an integer form of this product.
pub(crate) fn weights(graph: &Graph, node: &Node) -> Option<(usize, usize)> {
    let Quant::Weighted { weight, channel_axis, .. } = node.op.operator().quant() else {
        return None;
    };
    let w = graph.constant(operand(node, weight)?)?;
    let served = match &node.op {
        Op::Conv(conv) => w.rank() == 4 && conv.activation.function == UnaryFunction::Identity,
        Op::MatMul(_) => w.rank() == 2 && graph.fact(operand(node, 0)?).rank() >= 2,
        Op::Gemm(op) => !op.trans_a && op.alpha == 1.0,
        _ => false,
    };
    let plain = operand(node, 3).is_none() && w.dtype() == DType::F32 && !w.is_empty();
    (served && plain).then_some((weight, channel_axis))
}

/// True if a node has weights that can be quantised: what `keep` may name.
pub(crate) fn is_quantisable(graph: &Graph, node: &Node) -> bool {
    weights(graph, node).is_some()
}

/// The operands that vary, with their positions.
fn varying(graph: &Graph, node: &Node) -> Vec<(usize, ValueId)> {
    let each = node.inputs.iter().enumerate();
    each.filter_map(|(i, id)| Some((i, (*id)?)))
        .filter(|(_, id)| graph.constant(*id).is_none())
        .collect()
}

/// The role a node could have by itself.
fn possible(graph: &Graph, node: &Node, keep: &BTreeSet<String>) -> Role {
    let real = |id: &ValueId| graph.fact(*id).dtype == DType::F32;
    let varying = varying(graph, node);
    if keep.contains(&graph.node_label(node))
        || (node.outputs.len() != 1 && !matches!(node.op, Op::Split(_)))
        || !node.outputs.iter().flatten().all(real)
        || varying.is_empty()
        || !varying.iter().all(|(_, id)| real(id))
    {
        return Role::Float;
    }
    match node.op.operator().quant() {
        Quant::Weighted { .. } if weights(graph, node).is_some() => Role::Product,
        Quant::SameAsInput if varying.len() == 1 && varying[0].0 == 0 => Role::Move,
        Quant::Table => Role::Table,
        Quant::Requantise if varying.len() == node.inputs.len() => match &node.op {
            Op::Binary(_) | Op::Concat(_) | Op::Pool(_) => Role::Combine,
            _ => Role::Float,
        },
        Quant::Requantise if varying.len() == 1 => with_constant(graph, node),
        _ => Role::Float,
    }
}

/// The role of a sum or product with a constant.
fn with_constant(graph: &Graph, node: &Node) -> Role {
    let Op::Binary(op) = &node.op else { return Role::Float };
    let Some(constant) = node.inputs.iter().flatten().find_map(|&id| graph.constant(id)) else {
        return Role::Float;
    };
    if constant.len() == 1 && constant.rank() <= 1 {
        return Role::Table;
    }
    let columns = node.outputs[0].and_then(|y| graph.fact(y).dims.last()?.as_usize());
    let per_column = constant.rank() == 1 && Some(constant.len()) == columns;
    if op.function == BinaryFunction::Add && per_column { Role::Bias } else { Role::Float }
}

/// Decides for a simplified graph; nodes named in `keep` stay in f32.
pub(crate) fn place(graph: &Graph, keep: &BTreeSet<String>) -> Placement {
    let users = graph.users();
    let mut roles = vec![Role::Float; graph.node_slots()];
    for (id, node) in graph.nodes() {
        roles[id.index()] = possible(graph, node, keep);
    }
    loop {
        let lonely: Vec<NodeId> = graph
            .nodes()
            .filter(|(id, _)| !matches!(roles[id.index()], Role::Float | Role::Product))
            .filter(|(id, node)| !belongs(graph, &users, &roles, *id, node))
            .map(|(id, _)| id)
            .collect();
        if lonely.is_empty() {
            break;
        }
        for id in lonely {
            roles[id.index()] = Role::Float;
        }
    }
    let quantised = quantised(graph, &users, &roles);
    Placement { roles, quantised }
}

/// True if a node without weights stands between nodes that work on integers.
fn belongs(graph: &Graph, users: &Users, roles: &[Role], id: NodeId, node: &Node) -> bool {
    let role = roles[id.index()];
    let above = varying(graph, node).iter().all(|(_, x)| match graph.producer(*x) {
        None => role == Role::Move,
        Some((producer, made_by)) => match role {
            Role::Bias => {
                roles[producer.index()] == Role::Product
                    && matches!(made_by.op, Op::MatMul(_))
                    && users[x.index()].len() == 1
                    && !graph.outputs().contains(x)
            }
            _ => roles[producer.index()] != Role::Float,
        },
    });
    // A bias belongs to its product whatever follows.
    let works =
        |y: &ValueId| users[y.index()].iter().any(|(user, _)| roles[user.index()] != Role::Float);
    let below = role == Role::Bias || node.outputs.iter().flatten().any(works);
    above && below
}

/// The values that become bytes.
fn quantised(graph: &Graph, users: &Users, roles: &[Role]) -> BTreeSet<ValueId> {
    let mut inside = Inside { sums: vec![false; graph.node_slots()], functions: Vec::new() };
    inside.functions = vec![false; graph.node_slots()];
    let mut found = BTreeSet::new();
    for (id, node) in graph.nodes() {
        let role = roles[id.index()];
        if role == Role::Float {
            continue;
        }
        let real = fused(graph, users, roles, &mut inside, id, node);
        for (_, x) in varying(graph, node) {
            if Some(x) != real {
                found.insert(x);
            }
        }
    }
    found
}

/// What has become part of a product's epilogue so far.
struct Inside {
    /// Nodes whose result is an int32 sum in a product, with a residual or not.
    sums: Vec<bool>,
    /// Nodes that are a chain of functions of one element.
    functions: Vec<bool>,
}

/// The operand a node takes as a real, because both become one integer node.
fn fused(
    graph: &Graph,
    users: &Users,
    roles: &[Role],
    inside: &mut Inside,
    id: NodeId,
    node: &Node,
) -> Option<ValueId> {
    let alone = |x: ValueId| users[x.index()].len() == 1 && !graph.outputs().contains(&x);
    let producer = |x: ValueId| graph.producer(x).filter(|_| alone(x));
    let role = roles[id.index()];
    inside.functions[id.index()] = role == Role::Table;
    let x = varying(graph, node).first().map(|(_, x)| *x)?;
    match role {
        Role::Product => {
            inside.sums[id.index()] = true;
            None
        }
        Role::Bias => {
            inside.sums[id.index()] = true;
            Some(x)
        }
        Role::Table => {
            let (above, _) = producer(x)?;
            let clamp = clamps(node) && inside.sums[above.index()];
            inside.functions[id.index()] = !clamp;
            (clamp || inside.functions[above.index()]).then_some(x)
        }
        Role::Combine => {
            let Op::Binary(op) = &node.op else { return None };
            let (a, b) = (operand(node, 0)?, operand(node, 1)?);
            let same = graph.fact(a).dims == graph.fact(b).dims && a != b;
            let is_product = |x: ValueId| {
                let role = producer(x).map(|(above, _)| roles[above.index()]);
                matches!(role, Some(Role::Product | Role::Bias))
            };
            // Of two products the later one takes the addition, as in the fusion of residuals.
            let order = [b, a].into_iter().find(|&x| is_product(x));
            let chosen = order.filter(|_| op.function == BinaryFunction::Add && same);
            inside.sums[id.index()] = chosen.is_some();
            chosen
        }
        Role::Move | Role::Float => None,
    }
}

/// True for functions that an integer epilogue does by clamping.
fn clamps(node: &Node) -> bool {
    matches!(&node.op, Op::Unary(op)
        if matches!(op.function, UnaryFunction::Relu | UnaryFunction::Clip))
}
