//! Products with weights of which whole lines are zero.

use lepton_kernels::Isa;
use lepton_kernels::conv::Indirection;
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, RequantizeU8};
use lepton_kernels::gemm::{Input, gemm_f32, gemm_u8s8};
use lepton_kernels::pack::{PackedF32, PackedS8, WeightOrder};
use lepton_kernels::sparse::{SparseLines, sparse_f32, sparse_u8s8};

use crate::case::Random;

/// Rows, K, N, and how many of sixteen blocks are zero.
const SIZES: &[[usize; 4]] =
    &[[1, 4, 1, 8], [5, 36, 17, 0], [13, 64, 48, 10], [30, 128, 80, 15], [25, 12, 33, 16]];

/// True for the weight `[k, n]` of a block that is zero; blocks are 16 columns by `deep`.
fn is_zero(i: usize, columns: usize, deep: usize, share: usize) -> bool {
    let block = i / columns / deep * 31 + i % columns / 16 * 7;
    block * 11 % 16 < share
}

#[test]
fn reals_are_those_of_the_dense_kernel() {
    let mut random = Random(5);
    for &[rows, depth, columns, share] in SIZES {
        let mut weights = random.floats(depth * columns);
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = if is_zero(i, columns, 1, share) { 0.0 } else { *weight };
        }
        let dense = PackedF32::pack(&weights, &WeightOrder::matrix(depth, columns));
        let sparse = SparseLines::pack_f32(&dense);
        assert!(sparse.lines() <= dense.bytes().len() / 64 && (share < 16 || sparse.lines() == 0));
        let (x, bias) = (random.floats(rows * depth), random.floats(columns));
        let geometry = Indirection::strided(depth);
        let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
        let activation = Activation::Relu;
        let epilogue = EpilogueF32 { bias: Some(&bias), activation, ..EpilogueF32::default() };
        for isa in Isa::available() {
            let mut results = [vec![f32::NAN; rows * columns], vec![f32::NAN; rows * columns]];
            let outputs = results
                .each_mut()
                .map(|result| Output { pointer: result.as_mut_ptr(), row_stride: columns });
            // SAFETY: the buffers are as long as the sizes say.
            unsafe {
                gemm_f32(isa, &input, &dense, &epilogue, &outputs[0], 0..rows, 0..columns);
                sparse_f32(isa, &input, &sparse, &epilogue, &outputs[1], 0..rows);
            }
            if isa.has_avx512() {
                assert_eq!(results[0], results[1], "{isa} {rows} {depth} {columns}");
            }
            for (a, b) in results[0].iter().zip(&results[1]) {
                assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{isa}: {a} and {b}");
            }
        }
    }
}

#[test]
fn bytes_are_exact() {
    let mut random = Random(6);
    for &[rows, depth, columns, share] in SIZES {
        let mut weights = random.signed_bytes(depth * columns);
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = if is_zero(i, columns, 4, share) { 0 } else { *weight };
        }
        let dense = PackedS8::pack(&weights, &WeightOrder::matrix(depth, columns));
        let sparse = SparseLines::pack_s8(&dense);
        let x = random.bytes(rows * depth);
        let geometry = Indirection::strided(depth);
        let input = Input { base: x.as_ptr(), rows: &geometry, padding: x.as_ptr() };
        let bias: Vec<i32> = random.bytes(columns).iter().map(|&b| i32::from(b) * 16).collect();
        let multiplier: Vec<f32> = random.floats(columns).iter().map(|m| m * 0.002).collect();
        let epilogue = RequantizeU8 {
            bias: &bias,
            multiplier: &multiplier,
            residual: None,
            zero_point: 120,
            low: 3,
            high: 250,
            table: None,
        };
        for isa in Isa::available() {
            let mut results = [vec![0u8; rows * columns], vec![1u8; rows * columns]];
            let outputs = results
                .each_mut()
                .map(|result| Output { pointer: result.as_mut_ptr(), row_stride: columns });
            // SAFETY: the buffers are as long as the sizes say.
            unsafe {
                gemm_u8s8(isa, &input, &dense, &epilogue, &outputs[0], 0..rows, 0..columns);
                sparse_u8s8(isa, &input, &sparse, &epilogue, &outputs[1], 0..rows);
            }
            assert_eq!(results[0], results[1], "{isa} {rows} {depth} {columns}");
        }
    }
}
