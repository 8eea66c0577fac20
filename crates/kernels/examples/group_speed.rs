//! Speed of products with weights in groups of 4 and 8 bits beside f32 weights, on one core.
//!
//! `taskset -c 1 cargo run --release -p lepton-kernels --example group_speed [instruction set]`

use std::time::Instant;

use lepton_kernels::Isa;
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{EpilogueF32, Output};
use lepton_kernels::gemm::{Input, gemm_f32};
use lepton_kernels::groups::{GroupOrder, PackedGroups, gemm_groups};
use lepton_kernels::pack::{PackedF32, WeightOrder};

/// K, N, elements of a group.
const SIZES: &[[usize; 3]] = &[[4096, 4096, 32], [1024, 1024, 128], [4096, 11008, 32]];
const ROWS: &[usize] = &[1, 4, 5, 8, 16, 128, 300];
const ROUNDS: usize = 7;

fn time_us(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e6
}

fn measure(isa: Isa, [depth, columns, group]: [usize; 3]) {
    let orders = [4, 8].map(|bits| GroupOrder { depth, columns, group, bits, shifted: false });
    let codes: Vec<i8> = (0..depth * columns).map(|i| (i * 7 % 16) as i8 - 8).collect();
    let scales = vec![0.01f32; depth / group * columns];
    let packed = orders.map(|order| PackedGroups::pack(&order, &codes, &scales, &[]));
    let real: Vec<f32> = codes.iter().map(|&code| f32::from(code) * 0.01).collect();
    let dense = PackedF32::pack(&real, &WeightOrder::matrix(depth, columns));
    for &rows in ROWS {
        let x: Vec<f32> = (0..rows * depth).map(|i| (i % 13) as f32 - 6.0).collect();
        let mut y = vec![0f32; rows * columns];
        let mut scratch = vec![0f32; orders[0].scratch(rows)];
        let geometry = Indirection::strided(depth);
        let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
        let epilogue = EpilogueF32::default();
        let output = Output { pointer: y.as_mut_ptr(), row_stride: columns };
        let mut least = [f64::MAX; 3];
        for _ in 0..ROUNDS {
            // SAFETY: the buffers are as long as the sizes say.
            unsafe {
                for (least, weights) in least.iter_mut().zip(&packed) {
                    *least = least.min(time_us(|| {
                        let (rows, columns) = (0..rows, 0..columns);
                        let scratch = &mut scratch;
                        gemm_groups(
                            isa, &input, weights, &epilogue, &output, rows, columns, scratch,
                        );
                    }));
                }
                least[2] = least[2].min(time_us(|| {
                    gemm_f32(isa, &input, &dense, &epilogue, &output, 0..rows, 0..columns);
                }));
            }
        }
        let [four, eight, real] = least;
        println!(
            "| {depth} × {columns} / {group} | {rows} | {four:.0} | {eight:.0} | {real:.0} | {:.2} |",
            real / four
        );
    }
}

fn main() {
    let named = std::env::args().nth(1).and_then(|name| Isa::named(&name));
    let isa = named.unwrap_or_else(Isa::best);
    println!("| {isa}: K × N / group | rows | 4 bits µs | 8 bits µs | f32 µs | f32 / 4 bits |");
    println!("|---|---|---|---|---|---|");
    for &size in SIZES {
        measure(isa, size);
    }
}
