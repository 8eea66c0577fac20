//! Speed of products whose weights have blocks of zeros, beside the dense kernels, on one core.
//!
//! `taskset -c 1 cargo run --release -p lepton-kernels --example sparse_speed [instruction set]`
//! prints tables; `benches/sparsity.py` writes them and a drawing.

use std::time::Instant;

use lepton_kernels::Isa;
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{EpilogueF32, Output, RequantizeU8};
use lepton_kernels::gemm::{Input, gemm_f32, gemm_u8s8};
use lepton_kernels::pack::{PackedF32, PackedS8, WeightOrder};
use lepton_kernels::sparse::{SparseLines, sparse_f32, sparse_u8s8};

/// Rows, K, N: 1×1 convolutions of 28² and 7² pixels, a linear layer, and one row.
const SIZES: &[[usize; 3]] = &[[784, 256, 512], [49, 1024, 512], [128, 768, 768], [1, 1024, 1024]];
const PERCENT: &[usize] = &[0, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95];
const ROUNDS: usize = 15;

/// Shortest times of two that take turns, in microseconds.
fn both(mut first: impl FnMut(), mut second: impl FnMut()) -> [f64; 2] {
    let mut least = [f64::MAX; 2];
    let time = |run: &mut dyn FnMut(), least: &mut f64| {
        run();
        let start = Instant::now();
        let mut count = 0;
        while count < 3 || start.elapsed().as_micros() < 500 {
            run();
            count += 1;
        }
        *least = least.min(start.elapsed().as_secs_f64() * 1e6 / f64::from(count));
    };
    for _ in 0..ROUNDS {
        time(&mut first, &mut least[0]);
        time(&mut second, &mut least[1]);
    }
    least
}

/// True for the blocks of 16 columns by `deep` that are zero, in no order.
fn is_zero(i: usize, columns: usize, deep: usize, percent: usize) -> bool {
    let block = (i / columns / deep * columns.div_ceil(16) + i % columns / 16) as u64;
    let mixed = block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32 < percent as u64 * 42_949_672
}

fn reals(isa: Isa, [rows, depth, columns]: [usize; 3], percent: usize) -> [f64; 2] {
    let weight = |i| if is_zero(i, columns, 1, percent) { 0.0 } else { 0.5 };
    let weights: Vec<f32> = (0..depth * columns).map(weight).collect();
    let dense = PackedF32::pack(&weights, &WeightOrder::matrix(depth, columns));
    let sparse = SparseLines::pack_f32(&dense);
    let x = vec![0.25f32; rows * depth];
    let (mut y, mut z) = (vec![0f32; rows * columns], vec![0f32; rows * columns]);
    let geometry = Indirection::strided(depth);
    let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
    let epilogue = EpilogueF32::default();
    let outputs = [&mut y, &mut z].map(|y| Output { pointer: y.as_mut_ptr(), row_stride: columns });
    let found = both(
        // SAFETY: the buffers are as long as the sizes say.
        || unsafe {
            gemm_f32(isa, &input, &dense, &epilogue, &outputs[0], 0..rows, 0..columns);
        },
        // SAFETY: as above.
        || unsafe { sparse_f32(isa, &input, &sparse, &epilogue, &outputs[1], 0..rows) },
    );
    assert_eq!(y, z, "the same sums");
    found
}

fn bytes(isa: Isa, [rows, depth, columns]: [usize; 3], percent: usize) -> [f64; 2] {
    let weight = |i| if is_zero(i, columns, 4, percent) { 0 } else { 3 };
    let weights: Vec<i8> = (0..depth * columns).map(weight).collect();
    let dense = PackedS8::pack(&weights, &WeightOrder::matrix(depth, columns));
    let sparse = SparseLines::pack_s8(&dense);
    let x = vec![7u8; rows * depth];
    let (mut y, mut z) = (vec![0u8; rows * columns], vec![0u8; rows * columns]);
    let geometry = Indirection::strided(depth);
    let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
    let (bias, multiplier) = (vec![0; columns], vec![0.01; columns]);
    let epilogue = RequantizeU8 {
        bias: &bias,
        multiplier: &multiplier,
        residual: None,
        zero_point: 0,
        low: 0,
        high: 255,
        table: None,
        bounded: true,
    };
    let outputs = [&mut y, &mut z].map(|y| Output { pointer: y.as_mut_ptr(), row_stride: columns });
    let found = both(
        // SAFETY: the buffers are as long as the sizes say.
        || unsafe {
            gemm_u8s8(isa, &input, &dense, &epilogue, &outputs[0], 0..rows, 0..columns);
        },
        // SAFETY: as above.
        || unsafe { sparse_u8s8(isa, &input, &sparse, &epilogue, &outputs[1], 0..rows) },
    );
    assert_eq!(y, z, "the same bytes");
    found
}

fn main() {
    let named = std::env::args().nth(1).and_then(|name| Isa::named(&name));
    let isa = named.unwrap_or_else(Isa::best);
    type Kind = fn(Isa, [usize; 3], usize) -> [f64; 2];
    let kinds: [(&str, Kind); 2] = [("f32", reals), ("u8 × s8", bytes)];
    for (kind, measure) in kinds {
        let names: Vec<String> = SIZES.iter().map(|[m, k, n]| format!("{m} × {k} × {n}")).collect();
        println!("\n| {kind}, {isa}: zeros | {} |", names.join(" | "));
        println!("|---|{}", "---|".repeat(SIZES.len()));
        for &percent in PERCENT {
            let cell = |&size: &[usize; 3]| {
                let [dense, sparse] = measure(isa, size, percent);
                format!("{dense:.1} / {sparse:.1} = {:.2}", dense / sparse)
            };
            let cells: Vec<String> = SIZES.iter().map(cell).collect();
            println!("| {percent} % | {} |", cells.join(" | "));
        }
    }
}
