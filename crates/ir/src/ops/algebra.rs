//! Linear algebra.

use lepton_tensor::Tensor;

use super::facets::facets;
use super::walk::require_float;
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};

attributes! {
    /// The determinants of the matrices `[…,M,M]`: `[…]`.
    pub struct Det {}
}

/// By elimination with the largest pivot.
fn determinant(mut rows: Vec<Vec<f64>>) -> f64 {
    let size = rows.len();
    let mut product = 1.0;
    for column in 0..size {
        let larger =
            |&a: &usize, &b: &usize| rows[a][column].abs().total_cmp(&rows[b][column].abs());
        let Some(pivot) = (column..size).max_by(larger) else { return product };
        if rows[pivot][column] == 0.0 {
            return 0.0;
        }
        if pivot != column {
            rows.swap(pivot, column);
            product = -product;
        }
        product *= rows[column][column];
        let (above, below) = rows.split_at_mut(column + 1);
        for row in below {
            let factor = row[column] / above[column][column];
            for (element, pivot) in row.iter_mut().zip(&above[column]).skip(column) {
                *element -= factor * pivot;
            }
        }
    }
    product
}

impl Operator for Det {
    facets! {
        arity = Arity::exactly(1),
        stops = "determinants are not trained through",
        frozen = "a determinant mixes its matrix",
        quant = Quant::FloatOnly("products of many elements need range"),
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_float("x", x.dtype)?;
        match x.dims.as_slice() {
            [lead @ .., a, b] if a == b || a.as_known().is_none() || b.as_known().is_none() => {
                Ok(vec![Fact::new(x.dtype, lead.to_vec())])
            }
            _ => Err(Problem::shape(format!("{x} is not square matrices"))),
        }
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let [lead @ .., rows, columns] = x.shape() else {
            return Err(Problem::shape("a matrix has two axes"));
        };
        if rows != columns {
            return Err(Problem::shape(format!("{rows}·{columns} is not square")));
        }
        let values = x.to_f64_vec();
        let count: usize = lead.iter().product();
        let matrix = |i: usize| {
            let own = &values[i * rows * rows..(i + 1) * rows * rows];
            determinant(own.chunks((*rows).max(1)).map(<[f64]>::to_vec).collect())
        };
        let found: Vec<f64> = (0..count).map(matrix).collect();
        Ok(vec![Tensor::from_f64_slice(x.dtype(), lead, &found)?])
    }
}
