//! Geometries of products and convolutions, their data, and what their sums are by definition.

use std::ops::Range;

use half::bf16;
use lepton_kernels::conv::{Indirection, Window};
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, Residual};
use lepton_kernels::pack::WeightOrder;
use proptest::prelude::*;

use crate::data::Random;
use crate::frame::{on_threads, parts};

/// A convolution (or, with one tap, a matrix product) of `images` images in groups; with one
/// channel and one column in each group, a depthwise one.
#[derive(Clone, Debug)]
pub struct Geometry {
    pub window: Window,
    pub images: usize,
    pub groups: usize,
    /// Input channels and output columns of a group.
    pub depth: usize,
    pub columns: usize,
    /// Channels of the input beyond those of all groups, and columns of the output.
    pub input_gap: usize,
    pub output_gap: usize,
    pub residual: bool,
    pub seed: u64,
}

impl Geometry {
    pub fn pixels(&self) -> usize {
        let [height, width] = self.window.output().expect("generated with an output");
        height * width
    }

    pub fn rows(&self) -> usize {
        self.pixels() * self.images
    }

    /// Channels of all groups.
    pub fn channels(&self) -> usize {
        self.groups * self.depth
    }

    /// Columns of all groups.
    pub fn width(&self) -> usize {
        self.groups * self.columns
    }

    pub fn pixel_stride(&self) -> usize {
        self.channels() + self.input_gap
    }

    pub fn output_stride(&self) -> usize {
        self.width() + self.output_gap
    }

    /// Products of one sum.
    pub fn terms(&self) -> usize {
        self.window.taps() * self.depth
    }

    pub fn weights(&self) -> usize {
        self.width() * self.terms()
    }

    /// The order of the weights of one group.
    pub fn order(&self) -> WeightOrder {
        WeightOrder::ohwi(self.columns, self.window.taps(), self.depth)
    }

    /// Exactly as many input elements as may be read.
    pub fn input_length(&self) -> usize {
        let pixels = self.images * self.window.input[0] * self.window.input[1];
        (pixels * self.pixel_stride()).saturating_sub(self.input_gap)
    }

    /// Fills what lies between the channels of pixels: nobody may look at it.
    pub fn fill_gaps<T: Copy>(&self, input: &mut [T], value: T) {
        for pixel in input.chunks_mut(self.pixel_stride().max(1)) {
            pixel.iter_mut().skip(self.channels()).for_each(|gap| *gap = value);
        }
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

    /// `add(input, weight)` for every product of an output; the input is `None` in the padding.
    pub fn each(&self, row: usize, column: usize, mut add: impl FnMut(Option<usize>, usize)) {
        let (taps, group) = (self.window.taps(), column / self.columns);
        for tap in 0..taps {
            let source = self.source(row, tap).map(|source| source + group * self.depth);
            for k in 0..self.depth {
                add(source.map(|source| source + k), (column * taps + tap) * self.depth + k);
            }
        }
    }

    /// Room for results; what is not written stays `empty`.
    pub fn room<T: Copy>(&self, empty: T) -> Vec<T> {
        vec![empty; self.rows() * self.output_stride()]
    }

    /// The results by `value(row, column)`, with `empty` in the gaps.
    pub fn results<T: Copy>(&self, empty: T, value: impl Fn(usize, usize) -> T) -> Vec<T> {
        let (stride, width) = (self.output_stride(), self.width());
        let at = |i: usize| match i % stride < width {
            true => value(i / stride, i % stride),
            false => empty,
        };
        (0..self.rows() * stride).map(at).collect()
    }

    /// Where results go.
    pub fn output<T>(&self, room: &mut [T]) -> Output<T> {
        Output { pointer: room.as_mut_ptr(), row_stride: self.output_stride() }
    }

    /// Runs `work` on rows and columns: all of them, or two threads with a part of either each.
    ///
    /// # Safety
    /// The work writes nothing but outputs of its rows and columns.
    pub unsafe fn share(&self, threads: usize, work: impl Fn(Range<usize>, Range<usize>)) {
        // SAFETY: the caller's promise; parts of rows or columns are apart.
        unsafe {
            if self.seed.is_multiple_of(2) {
                let rows = parts(threads, self.rows(), 1, self.seed);
                on_threads(rows, |rows| work(rows, 0..self.width()));
            } else {
                let columns = parts(threads, self.width(), 16, self.seed);
                on_threads(columns, |columns| work(0..self.rows(), columns));
            }
        }
    }

    /// [`Geometry::share`] by rows alone.
    ///
    /// # Safety
    /// The work writes nothing but outputs of its rows.
    pub unsafe fn share_rows(&self, threads: usize, work: impl Fn(Range<usize>)) {
        // SAFETY: the caller's promise; parts of rows are apart.
        unsafe { on_threads(parts(threads, self.rows(), 1, self.seed), work) };
    }
}

/// Operands in floats. Weights are so small that sums are about one.
pub struct Floats {
    pub input: Vec<f32>,
    pub weights: Vec<f32>,
    pub padding: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    activation: Activation,
}

impl Floats {
    /// Operands whose inputs may be infinite or no numbers.
    pub fn of(g: &Geometry) -> Self {
        let mut random = Random(g.seed);
        let mut data = Floats::finite(g);
        random.disturb(&mut data.input);
        g.fill_gaps(&mut data.input, f32::NAN);
        data
    }

    /// Operands all of whose inputs are numbers.
    pub fn finite(g: &Geometry) -> Self {
        let mut random = Random(g.seed);
        let size = (g.terms().max(1) as f32).sqrt().recip();
        let activations = [
            Activation::None,
            Activation::Relu,
            Activation::Clip { low: -0.5, high: 0.75 },
            Activation::LeakyRelu { slope: 0.1 },
            Activation::Sigmoid,
            Activation::Silu,
            Activation::HardSigmoid { alpha: 0.25, beta: 0.5 },
            Activation::HardSwish,
            Activation::Tanh,
            Activation::Gelu,
            Activation::GeluTanh,
        ];
        Floats {
            input: random.floats(g.input_length()),
            weights: random.floats(g.weights()).iter().map(|weight| weight * size).collect(),
            padding: vec![0.0; g.channels() + 16],
            bias: random.floats(g.width()),
            residual: random.floats(g.rows() * g.width()),
            activation: activations[random.below(activations.len())],
        }
    }

    /// The same, with inputs and weights that bf16 holds.
    pub fn rounded(g: &Geometry, mut data: Floats) -> Self {
        let round = |value: &mut f32| *value = bf16::from_f32(*value).to_f32();
        data.input.iter_mut().for_each(round);
        data.weights.iter_mut().for_each(round);
        g.fill_gaps(&mut data.input, f32::NAN);
        data
    }

    pub fn epilogue(&self, g: &Geometry) -> EpilogueF32<'_> {
        let residual = Residual { pointer: self.residual.as_ptr(), row_stride: g.width() };
        EpilogueF32 {
            alpha: if g.seed.is_multiple_of(3) { 0.5 } else { 1.0 },
            bias: (!g.seed.is_multiple_of(5)).then_some(&self.bias),
            residual: g.residual.then_some(residual),
            activation: self.activation,
        }
    }

    /// Residual rows as bf16.
    pub fn addend(&self) -> Vec<bf16> {
        self.residual.iter().map(|&value| bf16::from_f32(value)).collect()
    }

    /// The results by definition; an addend comes before the epilogue.
    pub fn results(&self, g: &Geometry, addend: Option<&[bf16]>) -> Vec<f32> {
        let epilogue = self.epilogue(g);
        g.results(f32::NAN, |row, column| {
            let mut sum = 0.0;
            g.each(row, column, |input, weight| {
                let value = input.map_or(0.0, |input| self.input[input]);
                sum += f64::from(value) * f64::from(self.weights[weight]);
            });
            if let Some(addend) = addend {
                sum += f64::from(addend[row * g.width() + column].to_f32());
            }
            sum *= f64::from(epilogue.alpha);
            sum += epilogue.bias.map_or(0.0, |bias| f64::from(bias[column]));
            if g.residual {
                sum += f64::from(self.residual[row * g.width() + column]);
            }
            activated(epilogue.activation, sum as f32)
        })
    }
}

/// The activation of one value, in f64.
pub fn activated(activation: Activation, x: f32) -> f32 {
    let x = f64::from(x);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    // Other than `max` and `min`, these let NaN through.
    let clip = |x: f64, low: f64, high: f64| if x.is_nan() { x } else { x.max(low).min(high) };
    let y = match activation {
        Activation::None => x,
        Activation::Relu => clip(x, 0.0, f64::INFINITY),
        Activation::Clip { low, high } => clip(x, f64::from(low), f64::from(high)),
        Activation::LeakyRelu { slope } if x < 0.0 => f64::from(slope) * x,
        Activation::LeakyRelu { .. } => x,
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::HardSigmoid { alpha, beta } => {
            clip(f64::from(alpha) * x + f64::from(beta), 0.0, 1.0)
        }
        Activation::HardSwish => x * clip(x / 6.0 + 0.5, 0.0, 1.0),
        Activation::Tanh => x.tanh(),
        Activation::Gelu if x == f64::NEG_INFINITY => 0.0,
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

fn axis() -> impl Strategy<Value = [usize; 6]> {
    (1..9usize, 1..6usize, 1..3usize, 1..3usize, 0..3usize, 0..3usize)
        .prop_map(|(input, kernel, stride, dilation, before, after)| {
            [input, kernel, stride, dilation, before, after]
        })
        .prop_filter("an output", |a| a[0] + a[4] + a[5] > (a[1] - 1) * a[3])
}

/// A window that reads one pixel.
pub fn pointwise(pixels: usize) -> Window {
    Window {
        input: [1, pixels],
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad_before: [0, 0],
        pad_after: [0, 0],
    }
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
    // Wide lines of 3 × 3 windows, which some kernels treat on their own.
    let wide =
        (1..4usize, 9..50usize, 0..3usize, 0..3usize).prop_map(|(height, width, y, x)| Window {
            input: [height, width],
            kernel: [2, 3],
            pad_before: [y, x],
            pad_after: [1, 1],
            ..pointwise(1)
        });
    // More taps than are resolved at a time.
    let many = (60..80usize, 1..4usize).prop_map(|(taps, stride)| Window {
        input: [1, 90],
        kernel: [1, taps],
        stride: [1, stride],
        pad_before: [0, 5],
        pad_after: [0, 30],
        ..pointwise(1)
    });
    prop_oneof![10 => windowed, 10 => (1..60usize).prop_map(pointwise), 10 => wide, 3 => many]
}

/// Geometries over some windows.
fn over(
    windows: impl Strategy<Value = Window>,
    depth: impl Strategy<Value = usize>,
    columns: impl Strategy<Value = usize>,
) -> impl Strategy<Value = Geometry> {
    (windows, 0..4usize, depth, columns, 0..3usize, 0..3usize, any::<bool>(), any::<u64>())
        .prop_map(|(window, images, depth, columns, input_gap, output_gap, residual, seed)| {
            let groups = 1;
            Geometry {
                window,
                images,
                groups,
                depth,
                columns,
                input_gap,
                output_gap,
                residual,
                seed,
            }
        })
}

fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1..10usize, Just(16), Just(33), Just(64)]
}

fn many_channels() -> impl Strategy<Value = usize> {
    prop_oneof![1..20usize, Just(32), Just(48), 60..140usize]
}

/// Products and convolutions of one group; now and then deep ones of few rows, whose weights are
/// walked in slices of K, inside of taps and across them.
pub fn products() -> impl Strategy<Value = Geometry> {
    let deep = (0..5usize, any::<u64>()).prop_map(|(which, seed)| {
        let (kernel, input, depth, columns) = [
            (1, [1, 31], 2101, 70),
            (1, [1, 31], 8302, 33),
            (3, [5, 5], 1001, 40),
            (5, [6, 5], 360, 35),
            (7, [7, 7], 45, 65),
        ][which];
        let (kernel, pad) = ([kernel; 2], [kernel / 2; 2]);
        let window = Window { input, kernel, pad_before: pad, pad_after: pad, ..pointwise(1) };
        let (images, groups, input_gap, output_gap, residual) = (1, 1, 3, 1, true);
        Geometry { window, images, groups, depth, columns, input_gap, output_gap, residual, seed }
    });
    prop_oneof![40 => over(window(), channels(), many_channels()), 1 => deep]
}

/// Convolutions in groups.
pub fn grouped() -> impl Strategy<Value = Geometry> {
    let some = over(window(), channels(), prop_oneof![1..20usize, Just(32)]);
    (some, 1..4usize).prop_map(|(g, groups)| Geometry { groups, ..g })
}

/// Depthwise convolutions, half of them of square kernels whose neighbours share pixels on lines
/// longer than a tile.
pub fn depthwise() -> impl Strategy<Value = Geometry> {
    let bools = (any::<bool>(), any::<bool>());
    let sizes = (1..8usize, 1..30usize, 1..4usize, 1..4usize, 0..3usize, bools);
    let neighbours = sizes.prop_map(|(height, width, half, stride, pad, (wide, even))| {
        let kernel = 2 * half.min(2) + 1;
        Window {
            input: [height + kernel, width + kernel],
            kernel: [kernel; 2],
            // The same in both directions, as the kernels that take columns of pixels want it.
            stride: [if even { stride } else { 1 + stride % 3 }, stride],
            dilation: [1, 1 + usize::from(wide && !even) * (stride % 2)],
            pad_before: [pad; 2],
            pad_after: [pad + kernel, half + kernel],
        }
    });
    // Long rows of pixels, and dilations too wide for neighbours to share columns.
    let long = (0..5usize).prop_map(|which| {
        let (stride, dilation, kernel) =
            [(1, 1, 7), (2, 1, 3), (3, 1, 2), (1, 9, 6), (1, 20, 5)][which];
        Window {
            input: [5, 90],
            kernel: [kernel.min(5), kernel],
            stride: [1, stride],
            dilation: [1, dilation],
            pad_before: [2, 40],
            pad_after: [2, 40],
        }
    });
    let windows = prop_oneof![10 => window(), 10 => neighbours, 1 => long];
    let some = over(windows, Just(1), Just(1));
    (some, many_channels()).prop_map(|(g, groups)| Geometry { groups, ..g })
}

/// Convolutions of few channels whose lines of taps are runs.
pub fn stems() -> impl Strategy<Value = Geometry> {
    let some = over(window(), 1..4usize, many_channels());
    (some, prop_oneof![1..9usize, 20..70usize], 1..8usize).prop_map(|(mut g, width, kernel)| {
        g.input_gap = 0;
        (g.window.dilation[1], g.window.kernel[1]) = (1, kernel);
        g.window.input[1] = width.max(kernel);
        g
    })
}

/// 3 × 3 convolutions of stride 1.
pub fn three_by_three() -> impl Strategy<Value = Geometry> {
    let sizes = (1..16usize, 1..16usize, 0..2usize, 0..2usize);
    let windows = sizes
        .prop_map(|(height, width, before, after)| Window {
            input: [height, width],
            kernel: [3, 3],
            pad_before: [before; 2],
            pad_after: [after; 2],
            ..pointwise(1)
        })
        .prop_filter("an output", |window| window.output().is_some());
    let some = over(windows, channels(), prop_oneof![1..20usize, Just(40), Just(64)]);
    some.prop_map(|g| Geometry { input_gap: 0, images: g.images.max(1), ..g })
}
