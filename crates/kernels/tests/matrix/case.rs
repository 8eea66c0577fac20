//! Random geometries, and the references' view of them.

use lepton_kernels::conv::{Indirection, Window};
use lepton_kernels::epilogue::Activation;
use proptest::prelude::*;

/// A convolution (or, with one tap, a matrix product) of `images` images of `depth` channels.
#[derive(Clone, Debug)]
pub struct Case {
    pub window: Window,
    pub images: usize,
    pub depth: usize,
    pub columns: usize,
    /// Channels of the input beyond `depth`.
    pub input_gap: usize,
    /// Columns of the output beyond `columns`.
    pub output_gap: usize,
    pub residual: bool,
    pub seed: u64,
}

impl Case {
    pub fn pixels(&self) -> usize {
        let [height, width] = self.window.output().expect("generated with an output");
        height * width
    }

    pub fn rows(&self) -> usize {
        self.pixels() * self.images
    }

    pub fn pixel_stride(&self) -> usize {
        self.depth + self.input_gap
    }

    pub fn output_stride(&self) -> usize {
        self.columns + self.output_gap
    }

    /// Exactly as many input elements as may be read.
    pub fn input_length(&self) -> usize {
        self.images * self.window.input[0] * self.window.input[1] * self.pixel_stride()
            - self.input_gap
    }

    pub fn indirection(&self) -> Indirection {
        Indirection::window(&self.window, self.pixel_stride()).expect("a small window")
    }

    /// Index of the first channel a row reads for a tap; `None` for padding.
    pub fn source(&self, row: usize, tap: usize) -> Option<usize> {
        let w = &self.window;
        let [_, width] = w.output().expect("generated with an output");
        let (image, pixel) = (row / self.pixels(), row % self.pixels());
        let position = [pixel / width, pixel % width];
        let tap = [tap / w.kernel[1], tap % w.kernel[1]];
        let mut at = [0; 2];
        for axis in 0..2 {
            let x = (position[axis] * w.stride[axis] + tap[axis] * w.dilation[axis]) as isize
                - w.pad_before[axis] as isize;
            if x < 0 || x >= w.input[axis] as isize {
                return None;
            }
            at[axis] = x as usize;
        }
        Some(((image * w.input[0] + at[0]) * w.input[1] + at[1]) * self.pixel_stride())
    }
}

fn axis() -> impl Strategy<Value = [usize; 6]> {
    (1..9usize, 1..6usize, 1..3usize, 1..3usize, 0..3usize, 0..3usize)
        .prop_map(|(input, kernel, stride, dilation, before, after)| {
            [input, kernel, stride, dilation, before, after]
        })
        .prop_filter("an output", |a| a[0] + a[4] + a[5] > (a[1] - 1) * a[3])
}

fn window() -> impl Strategy<Value = Window> {
    let windowed = (axis(), axis()).prop_map(|(y, x)| Window {
        input: [y[0], x[0]],
        kernel: [y[1], x[1]],
        stride: [y[2], x[2]],
        dilation: [y[3], x[3]],
        pad_before: [y[4], x[4]],
        pad_after: [y[5], x[5]],
    });
    let plain = (1..60usize).prop_map(|rows| Window {
        input: [1, rows],
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad_before: [0, 0],
        pad_after: [0, 0],
    });
    // Wide lines of 3 × 3 windows, which some kernels treat on their own.
    let wide =
        (1..4usize, 9..50usize, 0..3usize, 0..3usize).prop_map(|(height, width, y, x)| Window {
            input: [height, width],
            kernel: [2, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pad_before: [y, x],
            pad_after: [1, 1],
        });
    prop_oneof![windowed, plain, wide]
}

/// Any small case.
pub fn cases() -> impl Strategy<Value = Case> {
    let depth = prop_oneof![1..10usize, Just(16), Just(33), Just(64)];
    let columns = prop_oneof![1..20usize, Just(32), Just(48), 60..140usize];
    (window(), 1..4usize, depth, columns, 0..3usize, 0..3usize, any::<bool>(), any::<u64>())
        .prop_map(|(window, images, depth, columns, input_gap, output_gap, residual, seed)| Case {
            window,
            images,
            depth,
            columns,
            input_gap,
            output_gap,
            residual,
            seed,
        })
}

/// Deep products of few rows: weights that are walked in slices of K, inside of taps and across
/// them.
pub fn deep(kernel: usize, input: [usize; 2], depth: usize, columns: usize) -> Case {
    let pad = [kernel / 2; 2];
    let kernel = [kernel; 2];
    let window =
        Window { input, kernel, stride: [1; 2], dilation: [1; 2], pad_before: pad, pad_after: pad };
    let (input_gap, output_gap) = (3, 1);
    Case { window, images: 1, depth, columns, input_gap, output_gap, residual: true, seed: 5 }
}

/// A small generator, so that a case is its seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Bytes, with the extremes often, so that saturating sums are caught.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| match self.bits() % 4 {
                0 => 255,
                _ => self.bits() as u8,
            })
            .collect()
    }

    pub fn signed_bytes(&mut self, count: usize) -> Vec<i8> {
        (0..count)
            .map(|_| match self.bits() % 6 {
                0 => 127,
                1 => -128,
                _ => self.bits() as i8,
            })
            .collect()
    }

    /// A split of `0..end` at a random place, so that ranges are tried.
    pub fn split(&mut self, end: usize, step: usize) -> [std::ops::Range<usize>; 2] {
        let middle = (self.bits() as usize % (end + 1)) / step * step;
        [0..middle, middle..end]
    }
}

/// The activation of one value, in f64.
pub fn activated(activation: Activation, x: f32) -> f32 {
    let x = f64::from(x);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let y = match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Clip { low, high } => x.max(f64::from(low)).min(f64::from(high)),
        Activation::LeakyRelu { slope } => {
            if x < 0.0 {
                f64::from(slope) * x
            } else {
                x
            }
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::HardSigmoid { alpha, beta } => {
            (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0)
        }
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => 0.5 * x * (1.0 + error_function(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x * x * x)).tanh())
        }
    };
    y as f32
}

/// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: absolute error 1.5e-7.
fn error_function(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let factors = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let polynomial = factors.iter().fold(0.0, |sum, factor| sum * t + factor) * t;
    (1.0 - polynomial * (-x * x).exp()).copysign(x)
}
