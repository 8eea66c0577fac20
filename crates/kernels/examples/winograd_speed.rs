//! 3×3 convolutions of stride 1, directly and by tiles: how long, and how far from the direct sum.
//! `cargo run --release -p lepton-kernels --example winograd_speed`.

use std::time::Instant;

use lepton_kernels::Isa;
use lepton_kernels::conv::{Indirection, Window};
use lepton_kernels::epilogue::{EpilogueF32, Output};
use lepton_kernels::gemm::{Input, gemm_f32};
use lepton_kernels::pack::{PackedF32, WeightOrder};
use lepton_kernels::winograd::{Alone, PackedWinograd, Tile, Tiling, winograd_f32};

/// Height and width, channels in and out.
const LAYERS: [[usize; 4]; 19] = [
    [56, 56, 64, 64],
    [28, 28, 128, 128],
    [14, 14, 256, 256],
    [7, 7, 512, 512],
    [120, 160, 16, 16],
    [60, 80, 32, 32],
    [30, 40, 64, 64],
    [15, 20, 128, 128],
    [32, 32, 16, 16],
    [16, 16, 32, 32],
    [8, 8, 64, 64],
    [112, 112, 8, 16],
    [112, 112, 32, 64],
    [56, 56, 24, 24],
    [56, 56, 16, 64],
    [56, 56, 64, 16],
    [28, 28, 64, 64],
    [14, 14, 64, 64],
    [7, 7, 128, 128],
];

fn main() {
    let isa = Isa::best();
    println!("{isa}, microseconds, minima; error over the largest output, of f32 over f32");
    println!(
        "{:>22} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "layer", "direct", "2x2", "4x4", "err 2x2", "err 4x4"
    );
    for [height, width, channels, columns] in LAYERS {
        let mut random = 1u32;
        let mut value = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let x: Vec<f32> = (0..height * width * channels).map(|_| value().max(0.0)).collect();
        let w: Vec<f32> = (0..9 * channels * columns).map(|_| value()).collect();
        let (one, three) = ([1, 1], [3, 3]);
        let window = Window {
            input: [height, width],
            kernel: three,
            stride: one,
            dilation: one,
            pad_before: one,
            pad_after: one,
        };
        let (expected, direct_us) = direct(isa, &x, &w, &window, channels, columns);
        let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let mut us = vec![direct_us];
        let mut errors = vec![];
        for tile in [Tile::Two, Tile::Four] {
            let (y, time) = tiles(isa, &x, &w, &window, [channels, columns], tile);
            let far = y.iter().zip(&expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            us.push(time);
            errors.push(far / largest);
        }
        println!(
            "{:>22} {:>9.1} {:>9.1} {:>9.1} {:>9.1e} {:>9.1e}",
            format!("{height}x{width} {channels}->{columns}"),
            us[0],
            us[1],
            us[2],
            errors[0],
            errors[1]
        );
    }
}

fn minimum(mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    while begin.elapsed().as_secs_f64() < 0.15 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64() * 1e6);
    }
    best
}

/// A vector of zeros whose first element lies on a cache line.
fn aligned(count: usize) -> (Vec<f32>, usize) {
    let memory = vec![0.0f32; count + 16];
    let skip = memory.as_ptr().align_offset(64);
    (memory, skip)
}

fn direct(
    isa: Isa,
    x: &[f32],
    w: &[f32],
    window: &Window,
    channels: usize,
    columns: usize,
) -> (Vec<f32>, f64) {
    let rows = Indirection::window(window, channels).expect("a window");
    let packed = PackedF32::pack(w, &WeightOrder::ohwi(columns, 9, channels));
    let count = window.input[0] * window.input[1];
    let (mut input, skip) = aligned(x.len());
    input[skip..][..x.len()].copy_from_slice(x);
    let mut y = vec![0.0; count * columns];
    let padding = vec![0.0; channels + 16];
    let base = input[skip..].as_ptr();
    let input = Input { base, rows: &rows, padding: padding.as_ptr() };
    let output = Output { pointer: y.as_mut_ptr(), row_stride: columns };
    let us = minimum(|| {
        let (rows, all) = (0..count, 0..columns);
        // SAFETY: input and output have the window's extents.
        unsafe { gemm_f32(isa, &input, &packed, &EpilogueF32::default(), &output, rows, all) };
    });
    (y, us)
}

fn tiles(
    isa: Isa,
    x: &[f32],
    w: &[f32],
    window: &Window,
    [channels, columns]: [usize; 2],
    tile: Tile,
) -> (Vec<f32>, f64) {
    let tiling = Tiling::of(window, 1, channels, columns, tile, 1).expect("a tiling");
    let packed = PackedWinograd::pack(w, columns, channels, tile);
    let mut y = vec![0.0; window.input[0] * window.input[1] * columns];
    let (mut input, skip) = aligned(x.len());
    input[skip..][..x.len()].copy_from_slice(x);
    let (mut scratch, start) = aligned(tiling.scratch_floats());
    let padding = vec![0.0; channels + 16];
    let output = Output { pointer: y.as_mut_ptr(), row_stride: columns };
    let us = minimum(|| {
        // SAFETY: input and output have the window's extents.
        unsafe {
            winograd_f32(
                isa,
                &tiling,
                input[skip..].as_ptr(),
                padding.as_ptr(),
                &packed,
                &EpilogueF32::default(),
                &output,
                scratch[start..].as_mut_ptr(),
                0..tiling.blocks(),
                &[],
                &Alone,
            );
        }
    });
    (y, us)
}
