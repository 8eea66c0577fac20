//! Class probabilities from probabilities of one class against another.

use lepton_tensor::Tensor;

use super::facets::facets;
use super::walk::{require_float, require_rank};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};

/// More classes would take more memory for pairs than a table of them is worth.
const MAX_CLASSES: usize = 1 << 12;
const MOST_ROUNDS: usize = 100;
/// How far from the solution the rounds end, divided by the number of classes.
const TOLERANCE: f64 = 0.005;

attributes! {
    /// Probabilities `[N,classes]` that go best with those of class i against class j, for the
    /// pairs (0,1), (0,2), …, (1,2), … of x `[N,pairs]`: the second method of Wu, Lin and Weng
    /// 2004, in rounds that end as libsvm's do.
    pub struct CouplePairs {
        /// Number of classes.
        pub classes: usize = 2,
    }
}

impl CouplePairs {
    fn pairs(&self) -> usize {
        self.classes.saturating_mul(self.classes.saturating_sub(1)) / 2
    }

    /// The quadratic form whose minimum over probabilities is wanted.
    fn form(&self, pairs: &[f64]) -> Vec<Vec<f64>> {
        let count = self.classes;
        let mut against = vec![vec![0.0; count]; count];
        let all = (0..count).flat_map(|i| (i + 1..count).map(move |j| (i, j)));
        for ((i, j), p) in all.zip(pairs) {
            against[i][j] = p.clamp(1e-7, 1.0 - 1e-7);
            against[j][i] = 1.0 - against[i][j];
        }
        let mut form = vec![vec![0.0; count]; count];
        for (i, row) in form.iter_mut().enumerate() {
            for j in (0..count).filter(|&j| j != i) {
                row[i] += against[j][i] * against[j][i];
                row[j] = -against[j][i] * against[i][j];
            }
        }
        form
    }

    fn row(&self, pairs: &[f64]) -> Vec<f64> {
        let (count, form) = (self.classes, self.form(pairs));
        let mut p = vec![1.0 / count as f64; count];
        for _ in 0..MOST_ROUNDS {
            let product = |row: &Vec<f64>| row.iter().zip(&p).map(|(q, p)| q * p).sum::<f64>();
            let mut slopes: Vec<f64> = form.iter().map(product).collect();
            let mut value: f64 = slopes.iter().zip(&p).map(|(s, p)| s * p).sum();
            let error = slopes.iter().map(|slope| (slope - value).abs()).fold(0.0, f64::max);
            if error < TOLERANCE / count as f64 {
                break;
            }
            for t in 0..count {
                let step = (value - slopes[t]) / form[t][t];
                let scale = 1.0 + step;
                p[t] += step;
                value = (value + step * (step * form[t][t] + 2.0 * slopes[t])) / scale / scale;
                for j in 0..count {
                    slopes[j] = (slopes[j] + step * form[t][j]) / scale;
                    p[j] /= scale;
                }
            }
        }
        p
    }
}

impl Operator for CouplePairs {
    facets! {
        arity = Arity::exactly(1),
        stops = "the rounds are not followed",
        frozen = "pairs are counted",
        quant = Quant::FloatOnly("probabilities lie close together"),
        element_ops = 256,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_float("x", x.dtype)?;
        require_rank("x", x, 2)?;
        if !(2..=MAX_CLASSES).contains(&self.classes) {
            return Err(Problem::attribute("classes", format!("{} classes", self.classes)));
        }
        if x.dims[1].as_known().is_some_and(|pairs| pairs != self.pairs() as i64) {
            return Err(Problem::shape(format!("{x} for {} pairs", self.pairs())));
        }
        Ok(vec![Fact::new(x.dtype, vec![x.dims[0].clone(), Dim::from(self.classes)])])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        self.infer(Operands(&[Some(&Fact::of(x))]))?;
        let values = x.to_f64_vec();
        let rows = values.chunks(self.pairs());
        let made: Vec<f64> = rows.flat_map(|pairs| self.row(pairs)).collect();
        Ok(vec![Tensor::from_f64_slice(x.dtype(), [x.shape()[0], self.classes], &made)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consistent_pairs_give_their_probabilities_back() {
        let p: [f64; 3] = [0.5, 0.3, 0.2];
        let pairs = [p[0] / (p[0] + p[1]), p[0] / (p[0] + p[2]), p[1] / (p[1] + p[2])];
        let found = CouplePairs { classes: 3 }.row(&pairs);
        assert!(found.iter().zip(p).all(|(x, y)| (x - y).abs() < 5e-3), "{found:?}");
    }
}
