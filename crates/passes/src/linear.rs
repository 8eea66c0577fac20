//! Matrix products with constant weights become `Linear`, the form that has packed kernels.

use lepton_ir::ops::matmul::Linear;
use lepton_ir::{Graph, GraphError, Node, Op, ValueId};
use lepton_tensor::{DType, Tensor};

/// Rewrites `MatMul` and `Gemm` whose second operand is constant.
pub fn form(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.node(id).clone();
        let formed = match &node.op {
            Op::MatMul(_) => from_matmul(graph, &node),
            Op::Gemm(_) => from_gemm(graph, &node),
            _ => None,
        };
        if let Some(inputs) = formed {
            graph.rewrite_node(id, Linear::default(), &inputs)?;
            changes += 1;
        }
    }
    Ok(changes)
}

fn from_matmul(graph: &Graph, node: &Node) -> Option<Vec<Option<ValueId>>> {
    let w = graph.constant(node.inputs[1]?)?;
    let x = graph.fact(node.inputs[0]?);
    let fits = w.rank() == 2 && w.dtype() == DType::F32 && x.rank() >= 2;
    fits.then(|| node.inputs.clone())
}

fn from_gemm(graph: &mut Graph, node: &Node) -> Option<Vec<Option<ValueId>>> {
    let Op::Gemm(op) = &node.op else { return None };
    let w = graph.constant(node.inputs[1]?)?;
    if op.trans_a || w.dtype() != DType::F32 {
        return None;
    }
    let (rows, columns) = (w.shape()[0], w.shape()[1]);
    let (k, n) = if op.trans_b { (columns, rows) } else { (rows, columns) };
    let values = w.as_slice::<f32>().ok()?;
    let at = |i: usize| if op.trans_b { i % n * k + i / n } else { i };
    let weights: Vec<f32> = (0..k * n).map(|i| values[at(i)] * op.alpha).collect();
    let bias = match node.inputs.get(2).copied().flatten() {
        None => None,
        Some(c) => {
            let c = graph.constant(c)?;
            let per_column = c.len() == n && c.shape().last() == Some(&n) || c.len() == 1;
            if !per_column {
                return None;
            }
            let c = c.as_slice::<f32>().ok()?;
            Some(
                (0..n).map(|i| c[if c.len() == 1 { 0 } else { i }] * op.beta).collect::<Vec<f32>>(),
            )
        }
    };
    let w = Tensor::from_slice([k, n], &weights).ok()?;
    let w = graph.add_constant("", w);
    let b = bias.map(|bias| graph.add_constant("", Tensor::vector(&bias)));
    Some(vec![node.inputs[0], Some(w), b])
}
