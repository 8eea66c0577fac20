//! Random numbers. A graph is a function, so they are the same in every run.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::walk::{require_float, unknown_dims};
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};
use crate::{attributes, words};

words! {
    /// How numbers are distributed.
    pub enum Distribution {
        /// Evenly from `low` to before `high`
        Uniform = "uniform",
        /// Normally with mean `low` and standard deviation `high`
        Normal = "normal",
    }
}

attributes! {
    /// Numbers in the shape of the operand (i64 `[rank]`), those of NumPy's `RandomState(seed)`: the
    /// generator of Matsumoto and Nishimura 1998, and the polar method of Marsaglia for the normal
    /// distribution.
    pub struct Random {
        /// How they are distributed.
        pub distribution: Distribution = Distribution::Uniform,
        /// The least, or the mean.
        pub low: f32 = 0.0,
        /// The bound above, or the standard deviation.
        pub high: f32 = 1.0,
        /// Where the generator starts.
        pub seed: i64 = 0,
        /// Element type of the numbers.
        pub dtype: DType = DType::F32,
    }
}

attributes! {
    /// `count` draws from each row of x `[N,classes]`, which holds logarithms of how likely each
    /// class is up to a common term: class numbers `[N,count]` (i64).
    pub struct Draw {
        /// Draws from each row.
        pub count: usize = 1,
        /// Where the generator starts.
        pub seed: i64 = 0,
    }
}

const STATE: usize = 624;
const OFFSET: usize = 397;

/// The generator MT19937.
struct Generator {
    state: [u32; STATE],
    at: usize,
    /// The second normal number of a pair.
    kept: Option<f64>,
}

impl Generator {
    fn new(seed: u32) -> Self {
        let mut state = [seed; STATE];
        for i in 1..STATE {
            let before = state[i - 1];
            state[i] = (before ^ before >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Generator { state, at: STATE, kept: None }
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let joined = self.state[i] & 1 << 31 | self.state[(i + 1) % STATE] & !(1 << 31);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + OFFSET) % STATE] ^ joined >> 1 ^ odd;
        }
        self.at = 0;
    }

    fn bits(&mut self) -> u32 {
        if self.at == STATE {
            self.twist();
        }
        let mut bits = self.state[self.at];
        self.at += 1;
        bits ^= bits >> 11;
        bits ^= bits << 7 & 0x9d2c_5680;
        bits ^= bits << 15 & 0xefc6_0000;
        bits ^ bits >> 18
    }

    /// From 0 to before 1, with 53 bits.
    fn uniform(&mut self) -> f64 {
        let (high, low) = (self.bits() >> 5, self.bits() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    fn normal(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let radius = x * x + y * y;
            if radius < 1.0 && radius != 0.0 {
                let factor = (-2.0 * radius.ln() / radius).sqrt();
                self.kept = Some(factor * x);
                return factor * y;
            }
        }
    }
}

impl Operator for Random {
    facets! {
        arity = Arity::exactly(1),
        stops = "nothing moves a random number",
        frozen = "the numbers follow the shape",
        quant = Quant::FloatOnly("random numbers are made in floating point"),
        element_ops = 16,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let shape = inputs.required(0, "shape")?;
        require_float("dtype", self.dtype)?;
        let dims = match &shape.integers {
            Some(dims) => dims.clone(),
            None => match shape.known_integers() {
                Some(known) => known.into_iter().map(crate::dim::Dim::known).collect(),
                None => unknown_dims(shape, "shape")?,
            },
        };
        Ok(vec![Fact::new(self.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let shape = inputs.required(0, "shape")?.to_i64_vec();
        let shape: Option<Vec<usize>> = shape.iter().map(|&v| usize::try_from(v).ok()).collect();
        let shape = shape.ok_or_else(|| Problem::shape("a negative extent"))?;
        // Checks that there can be such a tensor.
        let count = Tensor::zeros(self.dtype, shape.clone())?.len();
        let mut generator = Generator::new(self.seed as u32);
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let values: Vec<f64> = (0..count)
            .map(|_| match self.distribution {
                Distribution::Uniform => low + (high - low) * generator.uniform(),
                Distribution::Normal => low + high * generator.normal(),
            })
            .collect();
        Ok(vec![Tensor::from_f64_slice(self.dtype, shape, &values)?])
    }
}

impl Operator for Draw {
    facets! {
        arity = Arity::exactly(1),
        stops = "a class is not a number",
        frozen = "classes are counted",
        quant = Quant::FloatOnly("what is unlikely would be lost"),
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_float("x", x.dtype)?;
        super::walk::require_rank("x", x, 2)?;
        Ok(vec![Fact::new(DType::I64, vec![x.dims[0].clone(), self.count.into()])])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let &[rows, classes] = x.shape() else { return Err(Problem::shape("x is not a table")) };
        if classes == 0 && rows * self.count > 0 {
            return Err(Problem::shape("x has no classes"));
        }
        let values = x.to_f64_vec();
        let mut generator = Generator::new(self.seed as u32);
        let mut drawn = Tensor::zeros(DType::I64, [rows, self.count])?;
        let places = drawn.as_mut_slice::<i64>()?.chunks_mut(self.count.max(1));
        for (row, places) in values.chunks(classes.max(1)).zip(places) {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut sum = 0.0;
            let sums: Vec<f64> = row
                .iter()
                .map(|v| {
                    sum += (v - top).exp();
                    sum
                })
                .collect();
            for place in places {
                let at = generator.uniform() * sum;
                *place = sums.partition_point(|&bound| bound <= at).min(classes - 1) as i64;
            }
        }
        Ok(vec![drawn])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.RandomState(0).random_sample(2)` and `.standard_normal(3)`, NumPy 2.3.
    #[test]
    fn the_numbers_are_those_of_numpy() {
        let mut generator = Generator::new(0);
        assert_eq!(generator.uniform(), 0.5488135039273248);
        assert_eq!(generator.uniform(), 0.7151893663724195);
        let mut generator = Generator::new(0);
        let normal = [(); 3].map(|()| generator.normal());
        let expected = [1.764052345967664, 0.4001572083672233, 0.9787379841057392];
        assert!(normal.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-15), "{normal:?}");
    }

    fn drawn(op: &dyn Operator, operand: &Tensor) -> Vec<f64> {
        op.eval(Operands(&[Some(operand)])).unwrap()[0].to_f64_vec()
    }

    #[test]
    fn numbers_are_distributed_as_asked() {
        const COUNT: usize = 10_000;
        let shape = Tensor::vector(&[COUNT as i64]);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let even = Random { low: -2.0, high: 4.0, seed: 7, ..Random::default() };
        let values = drawn(&even, &shape);
        assert!(
            values.iter().all(|v| (-2.0..=4.0).contains(v)) && (mean(&values) - 1.0).abs() < 0.1
        );
        let distribution = Distribution::Normal;
        let values = drawn(&Random { distribution, low: 3.0, high: 0.5, ..even }, &shape);
        let spread = mean(&values.iter().map(|v| (v - 3.0).powi(2)).collect::<Vec<f64>>()).sqrt();
        assert!((mean(&values) - 3.0).abs() < 0.02 && (spread - 0.5).abs() < 0.02);
        let likely = Tensor::from_slice([1, 3], &[0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()]).unwrap();
        let classes = drawn(&Draw { count: COUNT, seed: 3 }, &likely);
        for (class, share) in [(0.0, 0.2), (1.0, 0.5), (2.0, 0.3)] {
            let found = classes.iter().filter(|&&c| c == class).count() as f64 / COUNT as f64;
            assert!((found - share).abs() < 0.02, "{class}: {found}");
        }
    }
}
