//! Features of lists of words, given as numbers.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};
use crate::{attributes, words};

/// Most features.
const MAX_FEATURES: usize = 1 << 28;

words! {
    /// What stands for an n-gram.
    pub enum NgramWeight {
        /// How often it occurs
        Count = "tf",
        /// Its weight if it occurs
        Weight = "idf",
        /// The product of both
        Both = "tfidf",
    }
}

attributes! {
    /// How often each of a list of n-grams occurs in x `[T]` or `[N,T]` (integers): f32
    /// `[features]` or `[N,features]`. Words of an n-gram may be up to `skips` words apart
    /// (Guthrie et al. 2006), all by the same distance. ONNX's `TfIdfVectorizer`.
    pub struct Ngrams {
        /// Fewest words of an n-gram.
        pub shortest: usize = 1,
        /// Most words of an n-gram.
        pub longest: usize = 1,
        /// Most words between two of an n-gram.
        pub skips: usize = 0,
        /// What stands for an n-gram.
        pub weight: NgramWeight = NgramWeight::Count,
        /// Where the 1-grams, the 2-grams and so on start in `pool`.
        pub starts: Vec<usize> = Vec::new(),
        /// The n-grams, one after the other.
        pub pool: Vec<i64> = Vec::new(),
        /// Which feature each n-gram is.
        pub features: Vec<usize> = Vec::new(),
        /// The weight of each n-gram; empty means 1.
        pub weights: Vec<f32> = Vec::new(),
    }
}

impl Ngrams {
    /// Each n-gram of lengths that are asked for, with its position in the list of features.
    fn grams(&self) -> Vec<(&[i64], usize)> {
        let mut grams = Vec::new();
        let mut position = 0;
        for (i, &start) in self.starts.iter().enumerate() {
            let (start, length) = (start.min(self.pool.len()), i + 1);
            let end = self.starts.get(i + 1).map_or(self.pool.len(), |&end| end);
            let end = end.clamp(start, self.pool.len());
            for gram in self.pool[start..end].chunks_exact(length) {
                if (self.shortest..=self.longest).contains(&length) {
                    grams.push((gram, position));
                }
                position += 1;
            }
        }
        grams
    }

    fn count(&self, row: &[i64], gram: &[i64]) -> usize {
        let skips = if gram.len() == 1 { 0 } else { self.skips };
        let occurs = |start: usize, step: usize| {
            let at = |i: usize| row.get(start + i * step);
            gram.iter().enumerate().all(|(i, word)| at(i) == Some(word))
        };
        let starts = |step: usize| (0..row.len()).filter(|&s| occurs(s, step)).count();
        (1..=skips + 1).map(starts).sum()
    }

    fn width(&self) -> usize {
        self.features.iter().max().map_or(0, |last| last.saturating_add(1))
    }
}

impl Operator for Ngrams {
    facets! {
        arity = Arity::exactly(1),
        stops = "words are not numbers",
        frozen = "the result lists features",
        quant = Quant::NotApplicable,
        element_ops = 16,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if !x.dtype.is_integer() {
            return Err(Problem::dtype("x", "an integer", x.dtype));
        }
        if x.rank() == 0 || x.rank() > 2 {
            return Err(Problem::shape(format!("x must be one or several lists, found {x}")));
        }
        if self.width() > MAX_FEATURES {
            return Err(Problem::attribute("features", "too many"));
        }
        let mut dims = x.dims[..x.rank() - 1].to_vec();
        dims.push(self.width().into());
        Ok(vec![Fact::new(DType::F32, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let made = self.infer(Operands(&[Some(&Fact::of(x))]))?;
        let shape = made[0].shape().ok_or_else(|| Problem::shape("a negative extent"))?;
        let width = self.width();
        let (words, grams) = (x.to_i64_vec(), self.grams());
        let length = *x.shape().last().unwrap_or(&0);
        let mut values = vec![0f32; shape.iter().product()];
        for (row, values) in values.chunks_mut(width.max(1)).enumerate() {
            let row = &words[row * length..(row + 1) * length];
            for &(gram, position) in &grams {
                let weight = self.weights.get(position).copied().unwrap_or(1.0);
                let count = self.count(row, gram) as f32;
                let feature = self.features.get(position).and_then(|&f| values.get_mut(f));
                let feature = feature.ok_or_else(|| Problem::attribute("features", "too few"))?;
                *feature += match self.weight {
                    NgramWeight::Count => count,
                    NgramWeight::Weight => weight * f32::from(u8::from(count > 0.0)),
                    NgramWeight::Both => weight * count,
                };
            }
        }
        Ok(vec![Tensor::from_slice(shape, &values)?])
    }
}
