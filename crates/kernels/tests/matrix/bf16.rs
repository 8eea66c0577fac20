//! bf16 products and convolutions.

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_bf16};
use lepton_kernels::pack::{PackedBf16, WeightOrder};
use proptest::prelude::*;

use crate::case::{Case, Random, cases};

fn check(case: &Case) {
    let mut random = Random(case.seed);
    let (taps, depth) = (case.window.taps(), case.depth);
    let mut rounded =
        |count| -> Vec<bf16> { random.floats(count).into_iter().map(bf16::from_f32).collect() };
    let (values, kernel) = (rounded(case.input_length()), rounded(case.columns * taps * depth));
    let (bias, addend) = (random.floats(case.columns), random.floats(case.rows() * case.columns));
    let wide: Vec<f32> = kernel.iter().map(|w| w.to_f32()).collect();
    let weights = PackedBf16::pack(&wide, &WeightOrder::ohwi(case.columns, taps, depth));
    let padding = vec![bf16::ZERO; depth];
    let rows = case.indirection();
    let input = Input { base: values.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let residual = Residual { pointer: addend.as_ptr(), row_stride: case.columns };
    let epilogue = EpilogueF32 {
        bias: Some(&bias),
        residual: case.residual.then_some(residual),
        activation: Activation::Relu,
        ..EpilogueF32::default()
    };
    let stride = case.output_stride();
    for isa in Isa::available() {
        let mut floats = vec![f32::NAN; case.rows() * stride];
        let mut halves = vec![bf16::NAN; case.rows() * stride];
        for rows in random.split(case.rows(), 1) {
            for columns in random.split(case.columns, 16) {
                let (rows, columns) = (|| rows.clone(), || columns.clone());
                // SAFETY: all buffers have the sizes the case says.
                unsafe {
                    let output = Output { pointer: floats.as_mut_ptr(), row_stride: stride };
                    gemm_bf16(isa, &input, &weights, &epilogue, &output, rows(), columns(), &[]);
                    let output = Output { pointer: halves.as_mut_ptr(), row_stride: stride };
                    gemm_bf16(isa, &input, &weights, &epilogue, &output, rows(), columns(), &[]);
                }
            }
        }
        for row in 0..case.rows() {
            for column in 0..case.columns {
                let mut sum = bias[column];
                for tap in 0..taps {
                    let Some(source) = case.source(row, tap) else { continue };
                    for k in 0..depth {
                        let weight = wide[(column * taps + tap) * depth + k];
                        sum += values[source + k].to_f32() * weight;
                    }
                }
                if case.residual {
                    sum += addend[row * case.columns + column];
                }
                let (value, expected) = (floats[row * stride + column], sum.max(0.0));
                let tolerance = 1e-6 * (4 + taps * depth) as f32;
                assert!((value - expected).abs() <= tolerance, "{isa} row {row} column {column}");
                let half = halves[row * stride + column];
                assert_eq!(half, bf16::from_f32(value), "{isa} row {row} column {column}");
            }
            let gap = row * stride + case.columns..(row + 1) * stride;
            assert!(halves[gap].iter().all(|half| half.is_nan()), "{isa} gap");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn bf16_products_match(case in cases()) {
        check(&case);
    }
}
