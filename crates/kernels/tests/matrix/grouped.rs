//! Grouped convolutions equal dense ones whose weights are zero between groups.

use lepton_kernels::Isa;
use lepton_kernels::epilogue::{EpilogueF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_f32, gemm_u8s8};
use lepton_kernels::grouped::{grouped_f32, grouped_u8s8};
use lepton_kernels::pack::{PackedF32, PackedS8, WeightOrder};
use proptest::prelude::*;

use crate::case::{Case, Random, cases};
use crate::integer::Data;

/// The dense equivalent of `[group][column][tap][depth]` weights.
fn dense<T: Copy + Default>(weights: &[T], sizes: [usize; 4]) -> Vec<T> {
    let [groups, columns, taps, depth] = sizes;
    let mut result = vec![T::default(); groups * columns * taps * groups * depth];
    for (index, &weight) in weights.iter().enumerate() {
        let (row, k) = (index / depth, index % depth);
        let group = row / taps / columns;
        result[row * groups * depth + group * depth + k] = weight;
    }
    result
}

fn check(case: &Case, groups: usize) {
    let (taps, depth, columns) = (case.window.taps(), case.depth, case.columns);
    let all = Case { depth: depth * groups, columns: columns * groups, ..case.clone() };
    let mut random = Random(case.seed);
    let data = Data::new(&all, &mut random, groups * columns * taps * depth);
    let order = WeightOrder::ohwi(columns, taps, depth);
    let dense_order = WeightOrder::ohwi(all.columns, taps, all.depth);
    let sizes = [groups, columns, taps, depth];
    let rows = all.indirection();
    let padding = vec![data.input_zero; all.depth];
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let epilogue = data.requantize(&all, &mut random);
    let chunk = columns * taps * depth;
    let packs: Vec<_> = data.weights.chunks(chunk).map(|w| PackedS8::pack(w, &order)).collect();
    let whole = PackedS8::pack(&dense(&data.weights, sizes), &dense_order);

    let floats = random.floats(all.input_length());
    let kernel = random.floats(groups * chunk);
    let zeros = vec![0.0; all.depth];
    let input_f32 = Input { base: floats.as_ptr(), rows: &rows, padding: zeros.as_ptr() };
    let packs_f32: Vec<_> = kernel.chunks(chunk).map(|w| PackedF32::pack(w, &order)).collect();
    let whole_f32 = PackedF32::pack(&dense(&kernel, sizes), &dense_order);
    let residual = Residual { pointer: data.residual_f32.as_ptr(), row_stride: all.columns };
    let epilogue_f32 = EpilogueF32 {
        bias: Some(&data.bias_f32),
        residual: Some(residual),
        ..EpilogueF32::default()
    };
    let size = all.rows() * all.columns;
    for isa in Isa::available() {
        let (mut bytes, mut expected) = (vec![0; size], vec![1; size]);
        let (mut values, mut expected_f32) = (vec![0.0; size], vec![1.0; size]);
        let (m, n) = (all.rows(), all.columns);
        fn to<T>(results: &mut [T], row_stride: usize) -> Output<T> {
            Output { pointer: results.as_mut_ptr(), row_stride }
        }
        // SAFETY: all buffers have the sizes the case says.
        unsafe {
            grouped_u8s8(isa, &input, &packs, depth, &epilogue, &to(&mut bytes, n), 0..m);
            gemm_u8s8(isa, &input, &whole, &epilogue, &to(&mut expected, n), 0..m, 0..n);
            grouped_f32(isa, &input_f32, &packs_f32, &epilogue_f32, &to(&mut values, n), 0..m);
            let output = to(&mut expected_f32, n);
            gemm_f32(isa, &input_f32, &whole_f32, &epilogue_f32, &output, 0..m, 0..n);
        }
        assert_eq!(bytes, expected, "{isa}");
        for (value, expected) in values.iter().zip(&expected_f32) {
            assert!((value - expected).abs() <= 1e-5 * (1 + taps) as f32, "{isa}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn groups_match_dense(case in cases(), groups in 1..4usize) {
        check(&case, groups);
    }
}
