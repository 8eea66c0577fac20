//! Matrix products with constant weights become `Linear`, the form that has packed kernels; others `MatMul`.

use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::matmul::{Gemm, Linear, MatMul};
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::{Graph, GraphError, Node, NodeId, Op, ValueId};
use lepton_tensor::{DType, Tensor};

use crate::integers::weights::real_tensor;

/// Rewrites `MatMul` and `Gemm` whose second operand is constant, and other `Gemm`.
pub fn form(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let formed = match &node.op {
            Op::MatMul(_) => from_matmul(graph, &node),
            Op::Gemm(_) => from_gemm(graph, &node),
            _ => None,
        };
        if let Some(inputs) = formed {
            graph.rewrite_node(id, Linear::default(), &inputs)?;
        } else if !as_product(graph, id, &node)? {
            continue;
        }
        graph.sort()?;
        changes += 1;
    }
    Ok(changes)
}

fn from_matmul(graph: &Graph, node: &Node) -> Option<Vec<Option<ValueId>>> {
    let w = node.inputs[1]?;
    let known = graph.constant(w).is_some() || is_stored_quantised(graph, w);
    let (x, w) = (graph.fact(node.inputs[0]?), graph.fact(w));
    let fits = known && w.rank() == 2 && w.dtype == DType::F32 && x.rank() >= 2;
    fits.then(|| node.inputs.clone())
}

fn from_gemm(graph: &mut Graph, node: &Node) -> Option<Vec<Option<ValueId>>> {
    let Op::Gemm(op) = &node.op else { return None };
    if is_stored_quantised(graph, node.inputs[1]?) {
        return from_quantised_gemm(graph, node, op);
    }
    let w = graph.constant(node.inputs[1]?)?;
    if op.trans_a || w.dtype() != DType::F32 {
        return None;
    }
    let (rows, columns) = (w.shape()[0], w.shape()[1]);
    let (k, n) = if op.trans_b { (columns, rows) } else { (rows, columns) };
    let values = w.as_slice::<f32>().ok()?;
    let at = |i: usize| if op.trans_b { i % n * k + i / n } else { i };
    let weights: Vec<f32> = (0..k * n).map(|i| values[at(i)] * op.alpha).collect();
    let bias = bias_of(graph, node, op, n)?;
    let w = Tensor::from_slice([k, n], &weights).ok()?;
    let w = graph.add_constant("", w);
    let b = bias.map(|bias| graph.add_constant("", Tensor::vector(&bias)));
    Some(vec![node.inputs[0], Some(w), b])
}

/// Makes a `MatMul` of a `Gemm` whose matrices are both computed, or whose first is transposed.
fn as_product(graph: &mut Graph, id: NodeId, node: &Node) -> Result<bool, GraphError> {
    let Op::Gemm(op) = &node.op else { return Ok(false) };
    let (a, b) = (node.inputs[0], node.inputs[1]);
    let added = node.inputs.get(2).copied().flatten();
    let plain = op.alpha == 1.0 && (op.beta == 1.0 || added.is_none());
    // What was quantised becomes a product of integers.
    let quantised = |x: ValueId| {
        graph.producer(x).is_some_and(|(_, maker)| matches!(maker.op, Op::DequantizeLinear(_)))
    };
    let float = |x: ValueId| graph.fact(x).dtype == DType::F32 && !quantised(x);
    if !plain || ![a, b].into_iter().flatten().all(float) {
        return Ok(false);
    }
    let mut matrices = [a, b];
    for (matrix, _) in matrices.iter_mut().zip([op.trans_a, op.trans_b]).filter(|(_, is)| *is) {
        let swap = Transpose { permutation: vec![1, 0] };
        *matrix = Some(graph.add_node("", swap, &[*matrix])?[0]);
    }
    match added {
        None => graph.rewrite_node(id, MatMul {}, &matrices)?,
        Some(_) => {
            let product = graph.add_node("", MatMul {}, &matrices)?[0];
            graph.rewrite_node(id, Binary::new(BinaryFunction::Add), &[Some(product), added])?;
        }
    };
    Ok(true)
}

/// The bias of `n` columns; the inner `None` where there is none.
fn bias_of(graph: &Graph, node: &Node, op: &Gemm, n: usize) -> Option<Option<Vec<f32>>> {
    let Some(c) = node.inputs.get(2).copied().flatten() else { return Some(None) };
    let c = real_tensor(graph, c)?;
    let per_column = c.len() == n && c.shape().last() == Some(&n) || c.len() == 1;
    let c = c.as_slice::<f32>().ok().filter(|_| per_column)?;
    Some(Some((0..n).map(|i| c[if c.len() == 1 { 0 } else { i }] * op.beta).collect()))
}

/// True for a constant behind a `DequantizeLinear`.
fn is_stored_quantised(graph: &Graph, value: ValueId) -> bool {
    graph.producer(value).is_some_and(|(_, node)| {
        matches!(node.op, Op::DequantizeLinear(_))
            && node.inputs[0].is_some_and(|x| graph.constant(x).is_some())
    })
}

/// The operands of a `Gemm` whose weights stay bytes; a transposition waits to be merged.
fn from_quantised_gemm(graph: &mut Graph, node: &Node, op: &Gemm) -> Option<Vec<Option<ValueId>>> {
    if op.trans_a || op.alpha != 1.0 {
        return None;
    }
    let mut w = node.inputs[1]?;
    let n = graph.fact(w).dims[if op.trans_b { 0 } else { 1 }].as_usize()?;
    let bias = bias_of(graph, node, op, n)?;
    if op.trans_b {
        let swap = Transpose { permutation: vec![1, 0] };
        w = graph.add_node("", swap, &[Some(w)]).ok()?[0];
    }
    let b = bias.map(|bias| graph.add_constant("", Tensor::vector(&bias)));
    Some(vec![node.inputs[0], Some(w), b])
}
