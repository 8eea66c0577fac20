//! Speed of the matrix kernels on one core, as a share of what a register-only loop reaches.
//!
//! `cargo run --release -p lepton-kernels --example matrix_speed [instruction set [convolutions
//! whose name has this]]`

use std::time::Instant;

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::activations::{gemm_f32_scratch, pack_f32, scratch_f32};
use lepton_kernels::conv::{Indirection, Window};
use lepton_kernels::depthwise::{
    DepthwiseS8, DepthwiseTapsS8, depthwise_f32, depthwise_order, depthwise_u8s8,
};
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, RequantizeU8};
use lepton_kernels::gemm::{Input, gemm_bf16, gemm_f32, gemm_u8s8};
use lepton_kernels::pack::{PackedBf16, PackedF32, PackedS8, WeightOrder};

/// A product of `pixels` rows, or a convolution of a square image.
struct Shape {
    name: &'static str,
    side: usize,
    depth: usize,
    columns: usize,
    kernel: usize,
}

const fn conv(
    name: &'static str,
    side: usize,
    depth: usize,
    columns: usize,
    kernel: usize,
) -> Shape {
    Shape { name, side, depth, columns, kernel }
}

const PRODUCTS: &[Shape] = &[
    conv("resnet20 stem 3x3", 32, 3, 16, 3),
    conv("resnet20 3x3", 32, 16, 16, 3),
    conv("resnet20 3x3", 16, 32, 32, 3),
    conv("resnet20 3x3", 8, 64, 64, 3),
    conv("lenet 5x5", 28, 1, 6, 5),
    conv("mobilenet 1x1", 28, 192, 32, 1),
    conv("mobilenet 1x1", 14, 384, 96, 1),
    conv("mobilenet 1x1", 7, 960, 320, 1),
    conv("mobilenet 1x1", 112, 16, 96, 1),
    conv("mobilenet 1x1", 56, 24, 144, 1),
    conv("mobilenet 1x1", 14, 112, 672, 1),
    conv("mobilenet 1x1", 7, 160, 960, 1),
    conv("resnet50 1x1", 56, 64, 256, 1),
    conv("resnet50 1x1", 14, 1024, 256, 1),
    conv("resnet50 3x3", 56, 64, 64, 3),
    conv("resnet50 3x3", 14, 256, 256, 3),
    conv("gemv", 1, 1024, 1000, 1),
];

/// A buffer on a cache line, as the runtime's are: wide loads that straddle lines cost twice.
struct Aligned<T> {
    room: Vec<T>,
    first: usize,
}

impl<T: Copy> Aligned<T> {
    fn new(value: T, length: usize) -> Self {
        let room = vec![value; length + 64 / size_of::<T>()];
        let first = room.as_ptr().align_offset(64);
        Aligned { room, first }
    }

    fn as_ptr(&self) -> *const T {
        self.room[self.first..].as_ptr()
    }

    fn as_mut_ptr(&mut self) -> *mut T {
        self.room[self.first..].as_mut_ptr()
    }
}

/// Median seconds of one call, over enough calls to be steady.
fn seconds(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut warm = 0u32;
    while start.elapsed().as_secs_f64() < 0.05 {
        call();
        warm += 1;
    }
    let calls = warm.div_ceil(20);
    let mut samples: Vec<f64> = (0..25)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            start.elapsed().as_secs_f64() / f64::from(calls)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Billions of operations a second that a loop without memory reaches.
#[derive(Clone, Copy)]
struct Peaks {
    f32: f64,
    bf16: f64,
    u8s8: f64,
}

fn peaks(isa: Isa) -> Peaks {
    let measured = lepton_kernels::peak::measure(isa);
    let operations = |macs: f64| 2.0 * macs / 1e9;
    Peaks {
        f32: operations(measured.f32),
        bf16: operations(measured.bf16),
        u8s8: operations(measured.u8s8),
    }
}

fn report(what: &str, shape: &str, operations: f64, seconds: f64, peak: f64) {
    let rate = operations / seconds / 1e9;
    println!(
        "{what:6} {shape:32} {:9.2} us {rate:8.1} Gop/s {:5.1} %",
        seconds * 1e6,
        rate / peak * 100.0
    );
}

fn product_f32(isa: Isa, rows: &Indirection, m: usize, order: &WeightOrder, pixels: usize) -> f64 {
    let weights = PackedF32::pack(&vec![0.5; order.columns * order.taps * order.depth], order);
    let input = Aligned::new(0.25f32, pixels * order.depth);
    let padding = vec![0.0f32; order.depth];
    let bias = vec![1.0f32; order.columns];
    let mut result = Aligned::new(0.0f32, m * order.columns);
    let input = Input { base: input.as_ptr(), rows, padding: padding.as_ptr() };
    let epilogue =
        EpilogueF32 { bias: Some(&bias), activation: Activation::Relu, ..EpilogueF32::default() };
    let output = Output { pointer: result.as_mut_ptr(), row_stride: order.columns };
    // SAFETY: buffers are as large as the shape says.
    seconds(|| unsafe {
        gemm_f32(isa, &input, &weights, &epilogue, &output, 0..m, 0..order.columns);
    })
}

fn requantize<'a>(bias: &'a [i32], multiplier: &'a [f32]) -> RequantizeU8<'a> {
    let (zero_point, low, high) = (3, 3, 255);
    let (residual, table, bounded) = (None, None, true);
    RequantizeU8 { bias, multiplier, residual, zero_point, low, high, table, bounded }
}

fn product_u8s8(isa: Isa, rows: &Indirection, m: usize, order: &WeightOrder, pixels: usize) -> f64 {
    let weights = PackedS8::pack(&vec![3; order.columns * order.taps * order.depth], order);
    let input = Aligned::new(7u8, pixels * order.depth);
    let padding = vec![0u8; order.depth];
    let (bias, multiplier) = (vec![1i32; order.columns], vec![1e-3f32; order.columns]);
    let mut result = Aligned::new(0u8, m * order.columns);
    let input = Input { base: input.as_ptr(), rows, padding: padding.as_ptr() };
    let epilogue = requantize(&bias, &multiplier);
    let output = Output { pointer: result.as_mut_ptr(), row_stride: order.columns };
    // SAFETY: buffers are as large as the shape says.
    seconds(|| unsafe {
        gemm_u8s8(isa, &input, &weights, &epilogue, &output, 0..m, 0..order.columns);
    })
}

fn products(isa: Isa, peaks: Peaks) {
    for size in [256, 512, 1024] {
        let (rows, order) = (Indirection::strided(size), WeightOrder::matrix(size, size));
        let operations = 2.0 * (size * size * size) as f64;
        let name = format!("gemm {size}^3");
        let time = product_f32(isa, &rows, size, &order, size);
        report("f32", &name, operations, time, peaks.f32);
        let time = product_bf16(isa, &rows, size, &order, size);
        report("bf16", &name, operations, time, peaks.bf16);
        let time = product_u8s8(isa, &rows, size, &order, size);
        report("u8s8", &name, operations, time, peaks.u8s8);
    }
    let only = std::env::args().nth(2).unwrap_or_default();
    for shape in PRODUCTS {
        let window = Window {
            input: [shape.side; 2],
            kernel: [shape.kernel; 2],
            stride: [1, 1],
            dilation: [1, 1],
            pad_before: [shape.kernel / 2; 2],
            pad_after: [shape.kernel / 2; 2],
        };
        let rows = Indirection::window(&window, shape.depth).expect("a small window");
        let order = WeightOrder::hwio(window.taps(), shape.depth, shape.columns);
        let pixels = shape.side * shape.side;
        let operations = 2.0 * (pixels * window.taps() * shape.depth * shape.columns) as f64;
        let name = format!("{} {}^2 {}->{}", shape.name, shape.side, shape.depth, shape.columns);
        if !name.contains(&only) {
            continue;
        }
        let time = product_f32(isa, &rows, pixels, &order, pixels);
        report("f32", &name, operations, time, peaks.f32);
        let time = product_bf16(isa, &rows, pixels, &order, pixels);
        report("bf16", &name, operations, time, peaks.bf16);
        let time = product_u8s8(isa, &rows, pixels, &order, pixels);
        report("u8s8", &name, operations, time, peaks.u8s8);
    }
}

fn depthwise(isa: Isa, peaks: Peaks, side: usize, channels: usize, kernel: usize, stride: usize) {
    let window = Window {
        input: [side; 2],
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1, 1],
        pad_before: [kernel / 2; 2],
        pad_after: [kernel / 2; 2],
    };
    let [height, width] = window.output().expect("an output");
    let (m, taps) = (height * width, window.taps());
    let rows = Indirection::window(&window, channels).expect("a small window");
    let order = depthwise_order(channels, taps, true);
    let operations = 2.0 * (m * taps * channels) as f64;
    let name = format!("depthwise {kernel}x{kernel}/{stride} {side}^2 {channels}");

    let weights = PackedF32::pack(&vec![0.5; taps * channels], &order);
    let (values, padding) = (Aligned::new(0.25f32, side * side * channels), vec![0.0f32; channels]);
    let bias = vec![1.0f32; channels];
    let mut result = Aligned::new(0.0f32, m * channels);
    let input = Input { base: values.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let activation = Activation::Clip { low: 0.0, high: 6.0 };
    let epilogue = EpilogueF32 { bias: Some(&bias), activation, ..EpilogueF32::default() };
    let output = Output { pointer: result.as_mut_ptr(), row_stride: channels };
    // SAFETY: buffers are as large as the shape says.
    let time = seconds(|| unsafe {
        depthwise_f32(isa, &input, &weights, &epilogue, &output, 0..m);
    });
    report("f32", &name, operations, time, peaks.f32);

    let order = DepthwiseTapsS8::order(&order, window.kernel);
    let packed = DepthwiseTapsS8::pack(&vec![3; taps * channels], &order);
    let weights = DepthwiseS8::new(packed.into(), &window, channels).expect("a small kernel");
    let (values, padding) =
        (Aligned::new(7u8, side * side * channels), vec![0u8; channels * (side + 2)]);
    let (bias, multiplier) = (vec![1i32; channels], vec![1e-2f32; channels]);
    let mut result = Aligned::new(0u8, m * channels);
    let epilogue = requantize(&bias, &multiplier);
    let output = Output { pointer: result.as_mut_ptr(), row_stride: channels };
    // SAFETY: buffers are as large as the shape says.
    let time = seconds(|| unsafe {
        let (values, padding) = (values.as_ptr(), padding.as_ptr());
        depthwise_u8s8(isa, values, padding, &weights, &epilogue, &output, 0..m);
    });
    report("u8s8", &name, operations, time, peaks.u8s8);
}

fn product_bf16(isa: Isa, rows: &Indirection, m: usize, order: &WeightOrder, pixels: usize) -> f64 {
    let weights = PackedBf16::pack(&vec![0.5; order.columns * order.taps * order.depth], order);
    let input = Aligned::new(bf16::ONE, pixels * order.depth);
    let padding = vec![bf16::ZERO; order.depth];
    let bias = vec![1.0f32; order.columns];
    let mut result = Aligned::new(bf16::ZERO, m * order.columns);
    let input = Input { base: input.as_ptr(), rows, padding: padding.as_ptr() };
    let epilogue =
        EpilogueF32 { bias: Some(&bias), activation: Activation::Relu, ..EpilogueF32::default() };
    let output = Output { pointer: result.as_mut_ptr(), row_stride: order.columns };
    // SAFETY: buffers are as large as the shape says.
    seconds(|| unsafe {
        gemm_bf16(isa, &input, &weights, &epilogue, None, &output, 0..m, 0..order.columns, &[]);
    })
}

/// One attention head's Q·Kᵀ, packing included.
fn scores(isa: Isa, length: usize, width: usize) -> f64 {
    let rows = Indirection::strided(width);
    let values = Aligned::new(0.5f32, length * width);
    let mut scratch = vec![0.0; scratch_f32(width, length)];
    let mut result = Aligned::new(0.0f32, length * length);
    let input = Input { base: values.as_ptr(), rows: &rows, padding: std::ptr::null() };
    let epilogue = EpilogueF32 { alpha: 0.125, ..EpilogueF32::default() };
    let output = Output { pointer: result.as_mut_ptr(), row_stride: length };
    // SAFETY: buffers are as large as the shape says.
    seconds(|| unsafe {
        pack_f32(isa, values.as_ptr(), width, true, width, length, &mut scratch);
        let (all, n) = (0..length, length);
        gemm_f32_scratch(isa, &input, &scratch, width, n, &epilogue, &output, all.clone(), all);
    })
}

fn main() {
    let isa = match std::env::args().nth(1) {
        None => Isa::best(),
        Some(name) => Isa::named(&name).expect("a set of this machine"),
    };
    let peaks = peaks(isa);
    let Peaks { f32, bf16, u8s8 } = peaks;
    println!("{isa}: register-only f32 {f32:.1}, bf16 {bf16:.1}, u8s8 {u8s8:.1} Gop/s");
    products(isa, peaks);
    let time = scores(isa, 128, 64);
    report("f32", "Q.K^T 128x64, with packing", 2.0 * 128.0 * 128.0 * 64.0, time, peaks.f32);
    for (side, channels, kernel, stride) in
        [(112, 32, 3, 1), (56, 144, 3, 1), (56, 144, 3, 2), (14, 576, 3, 1), (14, 480, 5, 1)]
    {
        depthwise(isa, peaks, side, channels, kernel, stride);
    }
}
