//! Functions that exporters write as several nodes become one: GELU, SiLU, hard swish, layer
//! normalisation, and bounds given as operands.

use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::normalize::LayerNormalization;
use lepton_ir::ops::reduce::ReduceFunction;
use lepton_ir::ops::unary::{Unary, UnaryFunction as F};
use lepton_ir::{Graph, GraphError, Node, Op, Users, ValueId};
use lepton_tensor::DType;

use crate::pass::sole_producer;

/// How far a constant may be from the number it stands for; exporters round to f16 at worst.
const TOLERANCE: f64 = 1e-3;

fn near(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() <= TOLERANCE * wanted.abs()
}

fn scalar(graph: &Graph, value: ValueId) -> Option<f64> {
    let tensor = graph.constant(value)?;
    (tensor.len() == 1).then(|| tensor.to_f64_vec()[0])
}

/// The operands of the function of two elements that makes `value`.
fn pair(graph: &Graph, value: ValueId, function: B) -> Option<[ValueId; 2]> {
    let (_, node) = graph.producer(value)?;
    let Op::Binary(op) = &node.op else { return None };
    (op.function == function).then_some(())?;
    Some([node.inputs[0]?, node.inputs[1]?])
}

/// The operands of a commutative function where one is a scalar: the other, and the scalar.
fn with_scalar(graph: &Graph, value: ValueId, function: B) -> Option<(ValueId, f64)> {
    let [a, b] = pair(graph, value, function)?;
    scalar(graph, b).map(|k| (a, k)).or_else(|| scalar(graph, a).map(|k| (b, k)))
}

/// The operand of the function of one element that makes `value`.
fn unary(graph: &Graph, value: ValueId, function: F) -> Option<ValueId> {
    let (_, node) = graph.producer(value)?;
    let Op::Unary(op) = &node.op else { return None };
    if op.function == function { node.inputs[0] } else { None }
}

/// A product as a number and the other factors, products inside it taken apart.
struct Factors {
    number: f64,
    values: Vec<ValueId>,
}

impl Factors {
    fn of(graph: &Graph, users: &Users, node: &Node) -> Option<Self> {
        let mut factors = Factors { number: 1.0, values: Vec::new() };
        factors.collect(graph, users, node).then_some(factors)
    }

    fn collect(&mut self, graph: &Graph, users: &Users, node: &Node) -> bool {
        let Op::Binary(op) = &node.op else { return false };
        let (Some(a), Some(b)) = (node.inputs[0], node.inputs[1]) else { return false };
        let divides = op.function == B::Div;
        if !matches!(op.function, B::Mul | B::Div) || divides && scalar(graph, b).is_none() {
            return false;
        }
        for value in [a, b] {
            if let Some(number) = scalar(graph, value) {
                let inverse = divides && value == b;
                self.number *= if inverse { 1.0 / number } else { number };
                continue;
            }
            let inner = sole_producer(graph, users, value);
            let taken = self.values.len() < 8
                && inner.is_some_and(|(_, inner)| self.collect(graph, users, inner));
            if !taken {
                self.values.push(value);
            }
        }
        true
    }

    /// The two factors, either of which may be the first.
    fn two(&self) -> Vec<(ValueId, ValueId)> {
        match self.values[..] {
            [a, b] => vec![(a, b), (b, a)],
            _ => Vec::new(),
        }
    }
}

/// `½·x·(1 + erf(x/√2))` and its approximation by tanh, `x·sigmoid(x)`, `x·hard_sigmoid(x)`.
pub fn gates(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        if !graph.contains(id) {
            continue;
        }
        if !matches!(&graph.node(id).op, Op::Binary(op) if matches!(op.function, B::Mul | B::Div)) {
            continue;
        }
        let users = graph.users();
        let Some(factors) = Factors::of(graph, &users, graph.node(id)) else { continue };
        let found = factors.two().into_iter().find_map(|(x, gate)| {
            let function = gate_function(graph, &users, x, gate, factors.number)?;
            (graph.fact(x).dtype == DType::F32).then_some((x, function))
        });
        let Some((x, function)) = found else { continue };
        let alpha = if function == F::Silu { 1.0 } else { 0.0 };
        graph.rewrite_node(id, Unary::with(function, alpha, 0.0), &[Some(x)])?;
        graph.remove_dead();
        changes += 1;
    }
    Ok(changes)
}

/// The function `number·x·gate` is.
fn gate_function(
    graph: &Graph,
    users: &Users,
    x: ValueId,
    gate: ValueId,
    number: f64,
) -> Option<F> {
    if near(number, 1.0) {
        if unary(graph, gate, F::Sigmoid) == Some(x) {
            return Some(F::Silu);
        }
        let (_, node) = graph.producer(gate)?;
        let Op::Unary(op) = &node.op else { return None };
        let slopes = near(op.alpha.into(), 1.0 / 6.0) && near(op.beta.into(), 0.5);
        let hard = op.function == F::HardSigmoid && slopes && node.inputs[0] == Some(x);
        return hard.then_some(F::HardSwish);
    }
    let (curve, one) = with_scalar(graph, gate, B::Add)?;
    if !near(number, 0.5) || !near(one, 1.0) {
        return None;
    }
    if let Some(argument) = unary(graph, curve, F::Erf) {
        let factors = Factors::of(graph, users, graph.producer(argument)?.1)?;
        let root = std::f64::consts::FRAC_1_SQRT_2;
        return (factors.values == [x] && near(factors.number, root)).then_some(F::Gelu);
    }
    let argument = unary(graph, curve, F::Tanh)?;
    let factors = Factors::of(graph, users, graph.producer(argument)?.1)?;
    let [sum] = factors.values[..] else { return None };
    let [a, b] = pair(graph, sum, B::Add)?;
    let cubic = if a == x { b } else { a };
    let fits = (a == x || b == x) && near(factors.number, 0.797_884_560_8);
    (fits && is_cube(graph, users, cubic, x, 0.044715)).then_some(F::GeluTanh)
}

/// True if `value` is `number·x³`.
fn is_cube(graph: &Graph, users: &Users, value: ValueId, x: ValueId, number: f64) -> bool {
    let Some((_, node)) = graph.producer(value) else { return false };
    let Some(factors) = Factors::of(graph, users, node) else { return false };
    let cube = match factors.values[..] {
        [power] => pair(graph, power, B::Pow)
            .is_some_and(|[base, n]| base == x && scalar(graph, n).is_some_and(|n| n == 3.0)),
        [a, b, c] => [a, b, c] == [x; 3],
        _ => false,
    };
    cube && near(factors.number, number)
}

/// `Clip` of reals with constant bounds becomes the function of one element that fuses.
pub fn bounds(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let (Op::Clip(_), Some(x)) = (&node.op, node.inputs[0]) else { continue };
        let bound = |index: usize, absent: f32| match node.inputs.get(index).copied().flatten() {
            None => Some(absent),
            Some(id) => scalar(graph, id).map(|bound| bound as f32),
        };
        let (low, high) = (bound(1, f32::NEG_INFINITY), bound(2, f32::INFINITY));
        let (Some(alpha), Some(beta), DType::F32) = (low, high, graph.fact(x).dtype) else {
            continue;
        };
        graph.rewrite_node(id, Unary { function: F::Clip, alpha, beta }, &[Some(x)])?;
        changes += 1;
    }
    Ok(changes)
}

/// The axes of the mean with kept axes that makes `value`, and its operand.
fn mean(graph: &Graph, value: ValueId) -> Option<(ValueId, Vec<usize>)> {
    let (_, node) = graph.producer(value)?;
    let Op::Reduce(op) = &node.op else { return None };
    (op.function == ReduceFunction::Mean && op.keep_dims).then_some(())?;
    let x = node.inputs[0]?;
    let axes = node.inputs.get(1).copied().flatten().map(|id| graph.fact(id));
    let mut axes = op.axes_of(axes, graph.fact(x).rank()).ok()?;
    axes.sort_unstable();
    Some((x, axes))
}

/// The operand x of `x − mean(x)`, and the axes of the mean.
fn centred(graph: &Graph, value: ValueId) -> Option<(ValueId, Vec<usize>)> {
    let [x, average] = pair(graph, value, B::Sub)?;
    let (of, axes) = mean(graph, average)?;
    (of == x).then_some((x, axes))
}

/// The operand of the square that makes `value`.
fn squared(graph: &Graph, value: ValueId) -> Option<ValueId> {
    if let Some([base, exponent]) = pair(graph, value, B::Pow) {
        return (scalar(graph, exponent)? == 2.0).then_some(base);
    }
    let [a, b] = pair(graph, value, B::Mul)?;
    (a == b).then_some(a)
}

/// `(x − mean)/√(mean((x − mean)²) + epsilon)`: x, the first of the trailing axes, epsilon.
fn standardised(graph: &Graph, value: ValueId) -> Option<(ValueId, usize, f32)> {
    let [difference, deviation] = pair(graph, value, B::Div)?;
    let (variance, epsilon) = with_scalar(graph, unary(graph, deviation, F::Sqrt)?, B::Add)?;
    let (square, axes) = mean(graph, variance)?;
    let (x, own_axes) = centred(graph, difference)?;
    let (same_x, same_axes) = centred(graph, squared(graph, square)?)?;
    let rank = graph.fact(x).rank();
    let trailing = axes.iter().copied().eq(rank - axes.len()..rank) && !axes.is_empty();
    let agree = x == same_x && axes == own_axes && axes == same_axes;
    (trailing && agree && epsilon >= 0.0).then_some((x, rank - axes.len(), epsilon as f32))
}

/// A standardised value times a constant, plus a constant, becomes `LayerNormalization`.
pub fn layer_normalization(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        if !graph.contains(id) {
            continue;
        }
        let Some(output) = graph.node(id).outputs[0] else { continue };
        if pair(graph, output, B::Add).is_none() {
            continue;
        }
        let users = graph.users();
        let Some((op, inputs)) = scaled_and_shifted(graph, &users, output) else { continue };
        graph.rewrite_node(id, op, &inputs)?;
        graph.remove_dead();
        changes += 1;
    }
    Ok(changes)
}

fn scaled_and_shifted(
    graph: &Graph,
    users: &Users,
    value: ValueId,
) -> Option<(LayerNormalization, Vec<Option<ValueId>>)> {
    let orders = |[a, b]: [ValueId; 2]| [(a, b), (b, a)];
    orders(pair(graph, value, B::Add)?).into_iter().find_map(|(product, bias)| {
        sole_producer(graph, users, product)?;
        orders(pair(graph, product, B::Mul)?).into_iter().find_map(|(inner, scale)| {
            sole_producer(graph, users, inner)?;
            let (x, first, epsilon) = standardised(graph, inner)?;
            let row = graph.fact(x).dims[first..].to_vec();
            let fits = |id| graph.constant(id).is_some() && graph.fact(id).dims == row;
            let op = LayerNormalization { axis: first as i64, epsilon };
            (fits(scale) && fits(bias)).then(|| (op, vec![Some(x), Some(scale), Some(bias)]))
        })
    })
}
