//! A table from keys to values.

use std::collections::HashMap;

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::walk::pick;
use crate::attributes;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};

attributes! {
    /// For each element of x, which has the type of `keys`, the value at the position of the first
    /// key that equals it (NaN equals NaN), and `otherwise` where none does: the type of `values`.
    pub struct LabelEncoder {
        /// The keys `[K]`.
        pub keys: Tensor = Tensor::vector::<i64>(&[]),
        /// Their values `[K]`.
        pub values: Tensor = Tensor::vector::<i64>(&[]),
        /// What stands for anything else: one element.
        pub otherwise: Tensor = Tensor::vector(&[-1i64]),
    }
}

/// An element as something that can be looked up.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Text(&'a str),
    Whole(i64),
    Real(u64),
}

fn keys(tensor: &Tensor) -> Result<Vec<Key<'_>>, Problem> {
    Ok(match tensor.dtype() {
        DType::Str => tensor.strings()?.into_iter().map(Key::Text).collect(),
        float if float.is_float() => {
            // One NaN, and one zero.
            let one = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            tensor.to_f64_vec().into_iter().map(|v| Key::Real(one(v).to_bits())).collect()
        }
        _ => tensor.to_i64_vec().into_iter().map(Key::Whole).collect(),
    })
}

impl LabelEncoder {
    fn check(&self) -> Result<(), Problem> {
        if self.keys.len() != self.values.len() {
            let why = format!("{} for {} keys", self.values.len(), self.keys.len());
            return Err(Problem::attribute("values", why));
        }
        if self.otherwise.len() != 1 || self.otherwise.dtype() != self.values.dtype() {
            return Err(Problem::attribute("otherwise", "must be one element like the values"));
        }
        Ok(())
    }
}

impl Operator for LabelEncoder {
    facets! {
        arity = Arity::exactly(1),
        stops = "labels are not numbers",
        frozen = "nothing is removed from tables of labels",
        quant = Quant::NotApplicable,
        element_ops = 16,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        self.check()?;
        if x.dtype != self.keys.dtype() {
            let expected = format!("{} like the keys", self.keys.dtype());
            return Err(Problem::dtype("x", expected, x.dtype));
        }
        Ok(vec![Fact::new(self.values.dtype(), x.dims.clone())])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        self.check()?;
        let mut places = HashMap::new();
        for (place, key) in keys(&self.keys)?.into_iter().enumerate() {
            places.entry(key).or_insert(place);
        }
        let none = self.keys.len();
        let found = keys(x)?.into_iter().map(|key| places.get(&key).copied().unwrap_or(none));
        let found: Vec<usize> = found.collect();
        let known = self.values.len();
        if self.values.dtype() == DType::Str {
            let mut words = self.values.strings()?;
            words.extend(self.otherwise.strings()?);
            let made: Vec<&str> = found.into_iter().map(|at| words[at]).collect();
            return Ok(vec![Tensor::from_strings(x.shape(), &made)?]);
        }
        let mut table = Tensor::zeros(self.values.dtype(), [known + 1])?;
        let (size, bytes) = (self.values.dtype().size(), table.bytes_mut());
        bytes[..known * size].copy_from_slice(self.values.bytes());
        bytes[known * size..].copy_from_slice(self.otherwise.bytes());
        Ok(vec![pick(&table, x.shape().to_vec(), &found)?])
    }
}
