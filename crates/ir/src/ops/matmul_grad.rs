//! Gradients of the matrix products, as graph nodes.

use super::matmul::{Gemm, MatMul};
use super::sum_to::sum_to_like;
use super::transpose::Transpose;
use crate::gradient::{Backward, Stops};
use crate::graph::ValueId;
use crate::ops::binary::{Binary, BinaryFunction};

fn swap_last_two(g: &mut Backward<'_>, x: ValueId) -> Result<ValueId, Stops> {
    let rank = g.fact(x).rank();
    let mut permutation: Vec<usize> = (0..rank).collect();
    permutation.swap(rank - 1, rank - 2);
    g.op(Transpose { permutation }, &[x])
}

/// `da = dy·bᵀ`, `db = aᵀ·dy`, summed over broadcast leading axes.
pub(crate) fn matmul(g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
    let dy = g.output_grad()?;
    let (a, b) = (g.input(0), g.input(1));
    if g.fact(a).rank() < 2 || g.fact(b).rank() < 2 {
        return Err(Stops::Because("products with vectors are not trained"));
    }
    let bt = swap_last_two(g, b)?;
    let at = swap_last_two(g, a)?;
    let da = g.op(MatMul {}, &[dy, bt])?;
    let db = g.op(MatMul {}, &[at, dy])?;
    let da = sum_to_like(g, da, a)?;
    let db = sum_to_like(g, db, b)?;
    Ok(vec![Some(da), Some(db)])
}

/// The four cases of transposition are all products of the operands and dy.
pub(crate) fn gemm(op: &Gemm, g: &mut Backward<'_>) -> Result<Vec<Option<ValueId>>, Stops> {
    let dy = g.output_grad()?;
    let (a, b) = (g.input(0), g.input(1));
    let product = |g: &mut Backward<'_>, x, y, trans_a, trans_b| {
        g.op(Gemm { alpha: op.alpha, beta: 0.0, trans_a, trans_b }, &[x, y])
    };
    let da = if op.trans_a {
        product(g, b, dy, op.trans_b, true)?
    } else {
        product(g, dy, b, false, !op.trans_b)?
    };
    let db = if op.trans_b {
        product(g, dy, a, true, op.trans_a)?
    } else {
        product(g, a, dy, !op.trans_a, false)?
    };
    let mut grads = vec![Some(da), Some(db)];
    if let Some(c) = g.inputs.get(2).copied().flatten() {
        let summed = sum_to_like(g, dy, c)?;
        let beta = g.scalar_like(summed, op.beta as f64);
        grads.push(Some(g.op(Binary::new(BinaryFunction::Mul), &[summed, beta])?));
    }
    Ok(grads)
}
