//! Fourier transforms as matrix products, and the windows and filters that go with them.

use std::f64::consts::TAU;

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::fourier::Fourier;
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_tensor::DType;

use super::call::Call;
use super::rows::given_type;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

/// Most elements of the constant of a transform that is written as a product with one; larger ones
/// are computed by the fast transform.
const LARGEST_MATRIX: usize = 1 << 20;
/// Longest part of a signal.
const LONGEST_FRAME: usize = 1 << 20;

/// `Σ terms[k]·cos(k·2π·n/N)` for `n` from 0, N the size, less one for a symmetric window.
fn window(call: &mut Call<'_>, terms: &[f64]) -> Results {
    call.check_attributes(&[], &["periodic", "output_datatype"])?;
    let to = given_type(call.int("output_datatype", 1));
    let to = to.filter(|to| to.is_float()).ok_or_else(|| call.error("unknown output_datatype"))?;
    let size = call.required(0)?;
    let size = call.cast(size, DType::I64)?;
    let n = call.counting(size)?;
    let (n, mut period) = (call.cast(n, DType::F32)?, call.cast(size, DType::F32)?);
    if call.int("periodic", 1) == 0 {
        period = call.shifted(period, -1.0)?;
    }
    let phase = call.pair(B::Div, n, period)?;
    let mut sum = call.scalar(DType::F32, terms[0])?;
    for (k, &term) in terms.iter().enumerate().skip(1) {
        let angle = call.scaled(phase, TAU * k as f64)?;
        let wave = call.map(U::Cos, angle)?;
        let wave = call.scaled(wave, term)?;
        sum = call.pair(B::Add, sum, wave)?;
    }
    Ok(vec![call.cast(sum, to)?])
}

/// The window of Hann.
pub fn hann(call: &mut Call<'_>) -> Results {
    window(call, &[0.5, -0.5])
}

/// The window of Hamming, with ONNX's quotients.
pub fn hamming(call: &mut Call<'_>) -> Results {
    window(call, &[25.0 / 46.0, -21.0 / 46.0])
}

/// The window of Blackman.
pub fn blackman(call: &mut Call<'_>) -> Results {
    window(call, &[0.42, -0.5, 0.08])
}

/// Triangular filters that are equally wide on the mel scale (Davis and Mermelstein 1980), from
/// five constants.
pub fn mel_weights(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["output_datatype"])?;
    let to = given_type(call.int("output_datatype", 1));
    let to = to.ok_or_else(|| call.error("unknown output_datatype"))?;
    let mut given = [0.0; 5];
    for (index, value) in given.iter_mut().enumerate() {
        let known = call.known_reals(index)?;
        *value = *known.first().ok_or_else(|| call.error("its operands are scalars"))?;
    }
    let [filters, length, rate, low, high] = given;
    let in_range = |v: f64| (1.0..=65536.0).contains(&v);
    if !in_range(filters) || !in_range(length) || rate <= 0.0 {
        return Err(call.error("its operands are out of range"));
    }
    let (filters, bins) = (filters as usize, length as usize / 2 + 1);
    call.check_size(&[bins, filters])?;
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let (low, high) = (mel(low), mel(high));
    let edge = |i: usize| {
        let at = low + i as f64 * (high - low) / (filters + 2) as f64;
        (700.0 * (10f64.powf(at / 2595.0) - 1.0) * (length + 1.0) / rate).floor()
    };
    let mut values = vec![0.0; bins * filters];
    for filter in 0..filters {
        let [start, top, end] = [0, 1, 2].map(|i| edge(filter + i));
        for bin in 0..bins {
            let at = bin as f64;
            values[bin * filters + filter] = if at == top {
                1.0
            } else if at >= start && at < top {
                (at - start) / (top - start)
            } else if at > top && at < end {
                (end - at) / (end - top)
            } else {
                0.0
            };
        }
    }
    Ok(vec![call.table(to, &[bins, filters], &values)?])
}

/// cos(π·p/q), with the symmetries of the cosine to the last bit, so that what cancels does.
fn cosine(p: usize, q: usize) -> f64 {
    let p = p % (2 * q);
    let p = p.min(2 * q - p);
    match (2 * p).cmp(&q) {
        std::cmp::Ordering::Less => (std::f64::consts::PI * p as f64 / q as f64).cos(),
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => -cosine(q - p, q),
    }
}

/// A transform of `samples` values to `bins` frequencies, or back.
struct Transform {
    length: usize,
    samples: usize,
    bins: usize,
    complex_in: bool,
    real_out: bool,
    inverse: bool,
}

impl Transform {
    /// The matrix `[samples·(1 or 2), bins·(1 or 2)]`, real and imaginary parts side by side.
    fn matrix(&self) -> (usize, usize, Vec<f64>) {
        let parts_in = if self.complex_in { 2 } else { 1 };
        let parts_out = if self.real_out { 1 } else { 2 };
        let (rows, columns) = (self.samples * parts_in, self.bins * parts_out);
        let sign = if self.inverse { 1.0 } else { -1.0 };
        let scale = if self.inverse { 1.0 / self.length as f64 } else { 1.0 };
        // A real result of half a spectrum: the other half is its mirror image.
        let mirrored = self.real_out && self.samples < self.length;
        let mut values = vec![0.0; rows * columns];
        for n in 0..self.samples {
            let twin = mirrored && n != 0 && 2 * n != self.length;
            let scale = if twin { 2.0 * scale } else { scale };
            for k in 0..self.bins {
                // The angle is π·p/(2·length); a sine is a cosine a quarter of a turn later.
                let p = 4 * (n * k % self.length);
                let re = cosine(p, 2 * self.length) * scale;
                let im = sign * cosine(p + 3 * self.length, 2 * self.length) * scale;
                let at =
                    |part: usize, out: usize| (n * parts_in + part) * columns + k * parts_out + out;
                values[at(0, 0)] = re;
                if !self.real_out {
                    values[at(0, 1)] = im;
                }
                if self.complex_in {
                    values[at(1, 0)] = -im;
                }
                if self.complex_in && !self.real_out {
                    values[at(1, 1)] = re;
                }
            }
        }
        (rows, columns, values)
    }

    /// The same as an operator.
    fn operator(&self) -> Fourier {
        let Transform { length, bins, real_out, inverse, .. } = *self;
        Fourier { length, bins, inverse, real: real_out }
    }

    /// `x` `[…,samples,parts]` transformed: `[…,bins,parts]`.
    fn apply(&self, call: &mut Call<'_>, x: ValueId) -> Made {
        if self.length == 0 || self.bins == 0 {
            return Err(call.error("a transform of nothing"));
        }
        let elements = self.samples.saturating_mul(self.bins).saturating_mul(4);
        if elements > LARGEST_MATRIX {
            return call.emit_one(self.operator(), &[Some(x)]);
        }
        let (rows, columns, values) = self.matrix();
        let matrix = call.table(call.dtype(x), &[rows, columns], &values)?;
        let rank = call.graph.fact(x).rank();
        let mut merged = vec![0i64; rank - 1];
        merged[rank - 2] = -1;
        let flat = call.reshape(x, &merged)?;
        let made = call.product(flat, matrix)?;
        let mut split = vec![0i64; rank];
        split[rank - 2] = self.bins as i64;
        split[rank - 1] = (columns / self.bins) as i64;
        call.reshape(made, &split)
    }
}

/// The axis and the length of a transform, from attributes or operands.
fn axis_and_length(call: &Call<'_>) -> Result<(usize, Option<usize>), FormatError> {
    let rank = call.fact(0)?.rank();
    let axis = match call.input(2) {
        Some(_) => call.known(2)?.first().copied().unwrap_or(-2),
        None if call.version >= 20 => -2,
        None => call.int("axis", 1),
    };
    let axis = call.axis_of(axis, rank)?;
    if rank < 2 || axis == rank - 1 {
        return Err(call.error("the last axis holds real and imaginary parts"));
    }
    let length = call.input(1).map(|_| call.known(1)).transpose()?;
    let length = length.and_then(|list| usize::try_from(*list.first()?).ok());
    Ok((axis, length))
}

/// The discrete Fourier transform along one axis.
pub fn dft(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["axis", "inverse", "onesided"])?;
    let x = call.required(0)?;
    let (axis, length) = axis_and_length(call)?;
    let rank = call.fact(0)?.rank();
    let (inverse, half) = (call.int("inverse", 0) != 0, call.int("onesided", 0) != 0);
    let known = |axis: usize| call.graph.fact(x).dims[axis].as_usize();
    let (Some(samples), Some(parts)) = (known(axis), known(rank - 1)) else {
        return Err(call.error("the extents of its axis and of the last must be known"));
    };
    let from_half = inverse && half;
    let length =
        length.unwrap_or(if from_half { (samples.max(1) - 1).saturating_mul(2) } else { samples });
    let used = if from_half { length / 2 + 1 } else { length };
    let mut order: Vec<usize> = (0..rank).filter(|&a| a != axis && a != rank - 1).collect();
    order.extend([axis, rank - 1]);
    let mut x = call.transpose(x, &order)?;
    if used < samples {
        x = call.slice(x, rank - 2, 0, used as i64)?;
    }
    let transform = Transform {
        length,
        samples: used.min(samples),
        bins: if half && !inverse { length / 2 + 1 } else { length },
        complex_in: parts == 2,
        real_out: from_half,
        inverse,
    };
    let made = transform.apply(call, x)?;
    let back: Vec<usize> =
        (0..rank).map(|a| order.iter().position(|&o| o == a).unwrap_or(a)).collect();
    Ok(vec![call.transpose(made, &back)?])
}

/// The transform of short, overlapping parts of a signal (Allen 1977).
pub fn stft(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["onesided"])?;
    let signal = call.required(0)?;
    let first = |call: &Call<'_>, index: usize| -> Result<Option<usize>, FormatError> {
        let known = call.input(index).map(|_| call.known(index)).transpose()?;
        Ok(known.and_then(|list| usize::try_from(*list.first()?).ok()))
    };
    let (step, given) = (first(call, 1)?.unwrap_or(0), first(call, 3)?);
    let dims: Vec<Option<usize>> =
        call.fact(0)?.dims.iter().map(lepton_ir::Dim::as_usize).collect();
    let parts = if dims.len() == 3 { dims[2].unwrap_or(1) } else { 1 };
    let of_window = call.input(2).and_then(|id| call.graph.fact(id).dims.first()?.as_usize());
    let (Some(total), Some(length)) = (dims.get(1).copied().flatten(), given.or(of_window)) else {
        return Err(call.error("the lengths of the signal and of a frame must be known"));
    };
    if step == 0 || length == 0 || length > total || length > LONGEST_FRAME {
        return Err(call.error(format!("frames of {length} by {step} of a signal of {total}")));
    }
    let frames = (total - length) / step + 1;
    call.check_size(&[frames, length])?;
    let places: Vec<f64> =
        (0..frames * length).map(|i| (i / length * step + i % length) as f64).collect();
    let places = call.table(DType::I64, &[frames, length], &places)?;
    let signal = call.reshape(signal, &[0, total as i64, parts as i64])?;
    let gather = lepton_ir::ops::gather::Gather { axis: 1 };
    let mut x = call.emit_one(gather, &[Some(signal), Some(places)])?;
    if let Some(window) = call.input(2) {
        let window = call.reshape(window, &[-1, 1])?;
        x = call.pair(B::Mul, x, window)?;
    }
    let half = call.int("onesided", 1) != 0;
    let transform = Transform {
        length,
        samples: length,
        bins: if half { length / 2 + 1 } else { length },
        complex_in: parts == 2,
        real_out: false,
        inverse: false,
    };
    Ok(vec![transform.apply(call, x)?])
}

#[cfg(test)]
mod tests {
    use lepton_ir::{Operands, Operator};
    use lepton_tensor::Tensor;

    use super::*;

    #[test]
    fn the_fast_transform_is_the_product() {
        let forms = [(false, false, false), (true, false, false), (true, false, true)];
        for (complex_in, real_out, inverse) in [forms.as_slice(), &[(true, true, true)]].concat() {
            for length in [1, 2, 7, 12, 60, 97] {
                for samples in [length, length / 2 + 1] {
                    let bins = if inverse { length } else { length / 2 + 1 };
                    let own = Transform { length, samples, bins, complex_in, real_out, inverse };
                    let (rows, columns, matrix) = own.matrix();
                    let x: Vec<f64> =
                        (0..rows).map(|i| ((i * 37 + 5) % 23) as f64 - 11.0).collect();
                    let product = |column: usize| -> f64 {
                        (0..rows).map(|row| x[row] * matrix[row * columns + column]).sum()
                    };
                    let parts = rows / samples;
                    let x = Tensor::from_slice([samples, parts], &x).unwrap();
                    let made = own.operator().eval(Operands(&[Some(&x)])).unwrap()[0].to_f64_vec();
                    assert_eq!(made.len(), columns);
                    for (column, value) in made.into_iter().enumerate() {
                        assert!((value - product(column)).abs() < 1e-9 * length as f64 * 11.0);
                    }
                }
            }
        }
    }
}
