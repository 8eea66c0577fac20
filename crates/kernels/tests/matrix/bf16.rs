//! bf16 products and convolutions.

use std::ops::Range;

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_bf16};
use lepton_kernels::pack::{PackedBf16, WeightOrder};
use lepton_kernels::real::Real;
use proptest::prelude::*;

use crate::case::{Case, Random, cases};

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The product in parts, with `empty` where nothing is written.
fn product<T: Real, R: Real>(
    isa: Isa,
    case: &Case,
    input: &Input<T>,
    (weights, epilogue): (&PackedBf16, &EpilogueF32),
    parts: &[[Range<usize>; 2]; 2],
    empty: R,
) -> Vec<R> {
    let stride = case.output_stride();
    let mut result = vec![empty; case.rows() * stride];
    let output = Output { pointer: result.as_mut_ptr(), row_stride: stride };
    for rows in &parts[0] {
        for columns in &parts[1] {
            let (rows, columns) = (rows.clone(), columns.clone());
            // SAFETY: all buffers have the sizes the case says.
            unsafe {
                gemm_bf16(isa, input, weights, epilogue, None, &output, rows, columns, &[]);
            }
        }
    }
    result
}

/// An addend of bf16 gives what a residual of the same values gives.
fn check_addend(isa: Isa, case: &Case, input: &Input<bf16>, weights: &PackedBf16, values: &[f32]) {
    let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let wide: Vec<f32> = halves.iter().map(|v| v.to_f32()).collect();
    let stride = case.columns;
    let (rows, columns) = (0..case.rows(), 0..stride);
    let mut results = [vec![0.0f32; case.rows() * stride], vec![0.0f32; case.rows() * stride]];
    let [sums, expected] = &mut results;
    let plain = EpilogueF32::default();
    let residual = Some(Residual { pointer: wide.as_ptr(), row_stride: stride });
    let addend = Residual { pointer: halves.as_ptr(), row_stride: stride };
    // SAFETY: all buffers have the sizes the case says.
    unsafe {
        let output = Output { pointer: sums.as_mut_ptr(), row_stride: stride };
        let (all, every) = (rows.clone(), columns.clone());
        gemm_bf16(isa, input, weights, &plain, Some(&addend), &output, all, every, &[]);
        let output = Output { pointer: expected.as_mut_ptr(), row_stride: stride };
        let epilogue = EpilogueF32 { residual, ..plain };
        gemm_bf16(isa, input, weights, &epilogue, None, &output, rows, columns, &[]);
    }
    assert_eq!(sums, expected, "{isa}");
}

fn check(case: &Case) {
    let mut random = Random(case.seed);
    let (taps, depth) = (case.window.taps(), case.depth);
    let mut rounded =
        |count| -> Vec<bf16> { random.floats(count).into_iter().map(bf16::from_f32).collect() };
    let (values, kernel) = (rounded(case.input_length()), rounded(case.columns * taps * depth));
    let (bias, addend) = (random.floats(case.columns), random.floats(case.rows() * case.columns));
    let wide: Vec<f32> = kernel.iter().map(|w| w.to_f32()).collect();
    let weights = PackedBf16::pack(&wide, &WeightOrder::ohwi(case.columns, taps, depth));
    let (padding, zeros) = (vec![bf16::ZERO; depth], vec![0.0f32; depth]);
    // A little off: rounding takes them back.
    let floats_in: Vec<f32> = values.iter().map(|v| v.to_f32() * (1.0 + 1e-4)).collect();
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
        let parts = [random.split(case.rows(), 1), random.split(case.columns, 16)];
        let operands = (&weights, &epilogue);
        let floats: Vec<f32> = product(isa, case, &input, operands, &parts, f32::NAN);
        let halves: Vec<bf16> = product(isa, case, &input, operands, &parts, bf16::NAN);
        let from_floats = Input { base: floats_in.as_ptr(), rows: &rows, padding: zeros.as_ptr() };
        let rounded: Vec<f32> = product(isa, case, &from_floats, operands, &parts, f32::NAN);
        assert!(same_bits(&floats, &rounded), "{isa}: rows of f32 are rounded to the same");
        check_addend(isa, case, &input, &weights, &addend);
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
