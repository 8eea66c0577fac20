//! Fourier transforms of any length, in the time of the fast one.

use lepton_tensor::Tensor;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

use super::facets::facets;
use super::walk::require_float;
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};

/// Longest transform.
const LONGEST: usize = 1 << 24;

attributes! {
    /// Discrete Fourier transform (Cooley and Tukey 1965, Bluestein 1970): x `[…,S,1]` of reals or
    /// `[…,S,2]` with imaginary parts, to `[…,bins,2]`. S is at most `length`; what is missing is
    /// zero, or with `real` (half a spectrum of a real signal, back to it: `[…,bins,1]`) the mirror
    /// image. It is computed in f64.
    pub struct Fourier {
        /// Length of the transform.
        pub length: usize = 1,
        /// How many results are kept, from the first.
        pub bins: usize = 1,
        /// True for the way back, which divides by the length.
        pub inverse: bool = false,
        /// True if the result is real.
        pub real: bool = false,
    }
}

impl Fourier {
    /// The whole signal or spectrum of one row.
    fn fill(&self, row: &[f64], parts: usize, all: &mut [Complex<f64>]) {
        all.fill(Complex::default());
        let given = row.chunks_exact(parts);
        for (place, value) in all.iter_mut().zip(given) {
            *place = Complex::new(value[0], if parts == 2 { value[1] } else { 0.0 });
        }
        let samples = row.len() / parts;
        if self.real && samples < self.length {
            for n in 1..samples.min(self.length.div_ceil(2)) {
                all[self.length - n] = all[n].conj();
            }
        }
    }
}

impl Operator for Fourier {
    facets! {
        arity = Arity::exactly(1),
        stops = "training through Fourier transforms is not written yet",
        frozen = "every frequency is of all samples",
        quant = Quant::FloatOnly("sums of many samples"),
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        require_float("x", x.dtype)?;
        let known = |axis: usize| x.dims[axis].as_usize();
        let rank = x.rank();
        let fits = rank >= 2
            && known(rank - 1).is_some_and(|parts| (1..=2).contains(&parts))
            && known(rank - 2).is_none_or(|samples| samples <= self.length);
        if !fits {
            let length = self.length;
            return Err(Problem::shape(format!(
                "[…, up to {length}, 1 or 2] is needed, found {x}"
            )));
        }
        if !(1..=LONGEST).contains(&self.length) || !(1..=self.length).contains(&self.bins) {
            let why = format!("{} bins of a transform of {}", self.bins, self.length);
            return Err(Problem::attribute("length", why));
        }
        let mut dims = x.dims.clone();
        dims[rank - 2] = Dim::from(self.bins);
        dims[rank - 1] = Dim::known(if self.real { 1 } else { 2 });
        Ok(vec![Fact::new(x.dtype, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        self.infer(Operands(&[Some(&Fact::of(x))]))?;
        let mut shape = x.shape().to_vec();
        let rank = shape.len();
        let (samples, parts) = (shape[rank - 2], shape[rank - 1]);
        let rows: usize = shape[..rank - 2].iter().product();
        if samples > self.length {
            return Err(Problem::shape(format!("{samples} samples for {}", self.length)));
        }
        shape[rank - 2] = self.bins;
        shape[rank - 1] = if self.real { 1 } else { 2 };
        let mut planner = FftPlanner::<f64>::new();
        let plan = match self.inverse {
            true => planner.plan_fft_inverse(self.length),
            false => planner.plan_fft_forward(self.length),
        };
        let scale = if self.inverse { 1.0 / self.length as f64 } else { 1.0 };
        let values = x.to_f64_vec();
        let mut all = vec![Complex::default(); self.length];
        let mut scratch = vec![Complex::default(); plan.get_inplace_scratch_len()];
        let mut made = Vec::with_capacity(shape.iter().product());
        for row in 0..rows {
            let each = samples * parts;
            self.fill(&values[row * each..(row + 1) * each], parts, &mut all);
            plan.process_with_scratch(&mut all, &mut scratch);
            for bin in &all[..self.bins] {
                made.push(bin.re * scale);
                if !self.real {
                    made.push(bin.im * scale);
                }
            }
        }
        Ok(vec![Tensor::from_f64_slice(x.dtype(), shape, &made)?])
    }
}
