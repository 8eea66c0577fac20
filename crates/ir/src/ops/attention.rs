//! Attention of several heads as one operator.

use lepton_tensor::Tensor;

use super::facets::facets;
use super::walk::{broadcast_dims, broadcast_positions, require_float, require_rank, require_same};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, AxisLink, Cost, Operands, Operator, Quant};

attributes! {
    /// `softmax(scale·q·kᵀ + mask)·v` for each head (Vaswani et al. 2017): q `[N,S,H,D]`,
    /// k `[N,T,H,D]`, v `[N,T,H,E]`, optional mask that broadcasts to `[N,H,S,T]`; result
    /// `[N,S,H,E]`.
    pub struct Attention {
        /// Factor of the products of q and k.
        pub scale: f32 = 1.0,
    }
}

/// Extents `[N,S,T,H,D,E]` of known operands.
fn extents(q: &[usize], k: &[usize], v: &[usize]) -> [usize; 6] {
    [q[0], q[1], k[1], q[2], q[3], v[3]]
}

impl Operator for Attention {
    facets! {
        arity = Arity::between(3, 4),
        quant = Quant::FloatOnly("the exponentials need more range than 8 bits have"),
        stops = "gradients are taken before fusion",
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (q, k, v) =
            (inputs.required(0, "q")?, inputs.required(1, "k")?, inputs.required(2, "v")?);
        require_float("q", q.dtype)?;
        for (name, fact) in [("q", q), ("k", k), ("v", v)] {
            require_rank(name, fact, 4)?;
            require_same(name, q.dtype, fact.dtype)?;
        }
        let pairs = [(q, k, 0), (q, k, 2), (q, k, 3), (q, v, 0), (q, v, 2), (k, v, 1)];
        for (a, b, axis) in pairs {
            let (a_known, b_known) = (a.dims[axis].as_known(), b.dims[axis].as_known());
            if a_known.is_some() && b_known.is_some() && a_known != b_known {
                return Err(Problem::shape(format!("{a} and {b} differ in axis {axis}")));
            }
        }
        if let Some(mask) = inputs.optional(3) {
            require_same("mask", q.dtype, mask.dtype)?;
            let scores = [&q.dims[0], &q.dims[2], &q.dims[1], &k.dims[1]].map(Dim::clone);
            if broadcast_dims(&scores, &mask.dims)?.len() != scores.len() {
                return Err(Problem::shape(format!("mask {mask} is larger than the scores")));
            }
        }
        let dims = [&q.dims[0], &q.dims[1], &q.dims[2], &v.dims[3]].map(Dim::clone);
        Ok(vec![Fact::new(q.dtype, dims.to_vec())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let (q, k, v) =
            (inputs.required(0, "q")?, inputs.required(1, "k")?, inputs.required(2, "v")?);
        let [images, rows, columns, heads, depth, width] = extents(q.shape(), k.shape(), v.shape());
        let scores_shape = [images, heads, rows, columns];
        let mask = inputs
            .optional(3)
            .map(|mask| (mask.to_f64_vec(), broadcast_positions(mask.shape(), &scores_shape)));
        let (qv, kv, vv) = (q.to_f64_vec(), k.to_f64_vec(), v.to_f64_vec());
        let mut result = vec![0.0; images * rows * heads * width];
        for lane in 0..images * heads * rows {
            let (n, h, s) = (lane / (heads * rows), lane / rows % heads, lane % rows);
            let key = |t: usize| ((n * columns + t) * heads + h) * depth;
            let query = ((n * rows + s) * heads + h) * depth;
            let score = |t: usize| {
                let product = |d: usize| qv[query + d] * kv[key(t) + d];
                let sum: f64 = (0..depth).map(product).sum();
                let added = mask.as_ref().map_or(0.0, |(m, at)| m[at[lane * columns + t]]);
                sum * f64::from(self.scale) + added
            };
            let scores: Vec<f64> = (0..columns).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = powers.iter().sum();
            for e in 0..width {
                let value = |t: usize| vv[((n * columns + t) * heads + h) * width + e];
                let sum: f64 = (0..columns).map(|t| powers[t] / total * value(t)).sum();
                result[((n * rows + s) * heads + h) * width + e] = sum;
            }
        }
        Ok(vec![Tensor::from_f64_slice(q.dtype(), [images, rows, heads, width], &result)?])
    }

    fn axes(&self, _inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Vec<AxisLink> {
        let same = |input: usize, axis: usize| AxisLink::Same {
            output: 0,
            output_axis: axis,
            input,
            input_axis: axis,
        };
        vec![
            same(0, 0),
            same(1, 0),
            same(2, 0),
            same(0, 1),
            same(0, 2),
            same(1, 2),
            same(2, 2),
            same(2, 3),
        ]
    }

    fn cost(&self, inputs: Operands<'_, Fact>, outputs: &[Fact]) -> Cost {
        let (Some(q), Some(k)) = (inputs.optional(0), inputs.optional(1)) else {
            return Cost::element_ops(Dim::known(0));
        };
        let columns = k.dims[1].clone();
        Cost::multiply_adds((q.count() + outputs[0].count()) * columns)
    }
}
