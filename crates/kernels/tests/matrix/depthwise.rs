//! Depthwise convolutions, f32 and u8 × s8.

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::conv::{GeometryError, Window};
use lepton_kernels::depthwise::{
    DepthwiseS8, depthwise_f32, depthwise_order, depthwise_u8s8, depthwise_u8s8_f32,
};
use lepton_kernels::epilogue::{Activation, DequantizeF32, EpilogueF32, Output, Residual};
use lepton_kernels::gemm::Input;
use lepton_kernels::pack::PackedF32;
use proptest::prelude::*;

use crate::case::{Case, Random, activated, cases};
use crate::integer::Data;

/// A case whose columns are its channels.
fn depthwise_cases() -> impl Strategy<Value = Case> {
    cases().prop_map(|case| Case { depth: case.columns, ..case })
}

/// Square kernels whose neighbours share pixels, on lines longer than a tile.
fn neighbours() -> impl Strategy<Value = Case> {
    let window = (1..8usize, 1..30usize, 1..4usize, 1..4usize, 0..3usize);
    (depthwise_cases(), window).prop_map(|(case, (height, width, half, stride, pad))| {
        let kernel = 2 * half.min(2) + 1;
        let window = Window {
            input: [height + kernel, width + kernel],
            kernel: [kernel; 2],
            stride: [1 + stride % 3, stride],
            dilation: [1, 1 + case.seed as usize % 2 * (stride % 2)],
            pad_before: [pad; 2],
            pad_after: [pad + kernel, half + kernel],
        };
        Case { window, ..case }
    })
}

/// Pixels and results of bf16 give what f32 gives for the same values, rounded.
fn check_halves(
    isa: Isa,
    case: &Case,
    input: &Input<f32>,
    weights: &PackedF32,
    epilogue: &EpilogueF32,
    count: usize,
) {
    // SAFETY: the input has `count` values.
    let values = unsafe { std::slice::from_raw_parts(input.base, count) };
    let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let wide: Vec<f32> = halves.iter().map(|v| v.to_f32()).collect();
    let (zeros, rows, stride) = (vec![bf16::ZERO; case.columns], case.rows(), case.output_stride());
    let (mut result, mut expected) = (vec![bf16::ZERO; rows * stride], vec![0.0f32; rows * stride]);
    // SAFETY: all buffers have the sizes the case says.
    unsafe {
        let half = Input { base: halves.as_ptr(), rows: input.rows, padding: zeros.as_ptr() };
        let output = Output { pointer: result.as_mut_ptr(), row_stride: stride };
        depthwise_f32(isa, &half, weights, epilogue, &output, 0..rows);
        let wide = Input { base: wide.as_ptr(), ..*input };
        let output = Output { pointer: expected.as_mut_ptr(), row_stride: stride };
        depthwise_f32(isa, &wide, weights, epilogue, &output, 0..rows);
    }
    for (half, wide) in result.iter().zip(&expected) {
        // Sums of another order may differ in their last bits, and so round to a neighbour.
        let tolerance = wide.abs() / 128.0 + 4e-6;
        assert!((half.to_f32() - wide).abs() <= tolerance, "{isa} {half} {wide}");
    }
}

fn check_f32(case: &Case) {
    let mut random = Random(case.seed);
    let (taps, channels) = (case.window.taps(), case.columns);
    let values = random.floats(case.input_length());
    let mut kernel = random.floats(taps * channels);
    if case.seed.is_multiple_of(2) {
        // As those of models in bf16, for which there are kernels of their own.
        kernel.iter_mut().for_each(|w| *w = bf16::from_f32(*w).to_f32());
    }
    let bias = random.floats(channels);
    let addend = random.floats(case.rows() * channels);
    let weights = PackedF32::pack(&kernel, &depthwise_order(channels, taps, true));
    let padding = vec![0.0; channels];
    let rows = case.indirection();
    let input = Input { base: values.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let residual = Residual { pointer: addend.as_ptr(), row_stride: channels };
    let clip = Activation::Clip { low: -1.0, high: 1.5 };
    let activation = [clip, Activation::HardSwish, Activation::Silu][case.seed as usize % 3];
    let epilogue = EpilogueF32 {
        bias: Some(&bias),
        residual: case.residual.then_some(residual),
        activation,
        ..EpilogueF32::default()
    };
    let stride = case.output_stride();
    for isa in Isa::available() {
        let mut result = vec![f32::NAN; case.rows() * stride];
        let output = Output { pointer: result.as_mut_ptr(), row_stride: stride };
        for rows in random.split(case.rows(), 1) {
            // SAFETY: all buffers have the sizes the case says.
            unsafe { depthwise_f32(isa, &input, &weights, &epilogue, &output, rows) };
        }
        check_halves(isa, case, &input, &weights, &epilogue, values.len());
        for (row, results) in result.chunks(stride).enumerate() {
            for (c, value) in results.iter().enumerate() {
                if c >= channels {
                    assert!(value.is_nan(), "{isa} wrote into the gap of row {row}");
                    continue;
                }
                let mut sum = bias[c];
                for tap in 0..taps {
                    let source = case.source(row, tap);
                    sum += source.map_or(0.0, |s| values[s + c] * kernel[tap * channels + c]);
                }
                if case.residual {
                    sum += addend[row * channels + c];
                }
                let expected = activated(activation, sum);
                assert!((value - expected).abs() < 1e-5, "{isa} row {row} channel {c}");
            }
        }
    }
}

fn check_u8s8(case: &Case) {
    let mut random = Random(case.seed);
    let (taps, channels) = (case.window.taps(), case.columns);
    let data = Data::new(case, &mut random, taps * channels);
    let order = depthwise_order(channels, taps, false);
    let weights =
        DepthwiseS8::pack(&data.weights, &order, &case.window, case.pixel_stride()).unwrap();
    let total: i32 = data.weights.iter().map(|&weight| i32::from(weight)).sum();
    assert_eq!(weights.column_sums().iter().sum::<i32>(), total);
    let padding = vec![data.input_zero; channels];
    let requantize = data.requantize(case, &mut random);
    let dequantize = DequantizeF32 {
        bias_s32: None,
        scale: &data.multiplier,
        bias: Some(&data.bias_f32),
        residual: None,
        activation: Activation::None,
    };
    let stride = case.output_stride();
    for isa in Isa::available() {
        let mut bytes = vec![0xa5; case.rows() * stride];
        let mut floats = vec![f32::NAN; case.rows() * stride];
        let (values, padding) = (data.input.as_ptr(), padding.as_ptr());
        for rows in random.split(case.rows(), 1) {
            let (first, second) = (rows.clone(), rows);
            // SAFETY: all buffers have the sizes the case says.
            unsafe {
                let output = Output { pointer: bytes.as_mut_ptr(), row_stride: stride };
                depthwise_u8s8(isa, values, padding, &weights, &requantize, &output, first);
                let output = Output { pointer: floats.as_mut_ptr(), row_stride: stride };
                depthwise_u8s8_f32(isa, values, padding, &weights, &dequantize, &output, second);
            }
        }
        for row in 0..case.rows() {
            for c in 0..channels {
                let sum = (0..taps)
                    .map(|tap| {
                        let source = case.source(row, tap);
                        let value = source.map_or(data.input_zero, |s| data.input[s + c]);
                        i32::from(value) * i32::from(data.weights[c * taps + tap])
                    })
                    .sum();
                let byte = data.byte(sum, [row, c], case, &requantize);
                assert_eq!(bytes[row * stride + c], byte, "{isa} u8 row {row} channel {c}");
                let value = sum as f32 * data.multiplier[c] + data.bias_f32[c];
                assert_eq!(floats[row * stride + c], value, "{isa} f32 row {row} channel {c}");
            }
            let gap = row * stride + channels..(row + 1) * stride;
            assert!(bytes[gap].iter().all(|&byte| byte == 0xa5), "{isa} gap");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn neighbours_match(case in neighbours()) {
        check_f32(&case);
    }

    #[test]
    fn f32_depthwise_matches(case in depthwise_cases()) {
        check_f32(&case);
    }

    #[test]
    fn u8s8_depthwise_is_exact(case in depthwise_cases()) {
        check_u8s8(&case);
    }
}

/// Long rows of pixels, and dilations too wide for neighbours to share columns.
#[test]
fn long_rows_and_wide_dilations() {
    for (stride, dilation, kernel) in [(1, 1, 7), (2, 1, 3), (3, 1, 2), (1, 9, 6), (1, 20, 5)] {
        let window = Window {
            input: [9, 90],
            kernel: [kernel.min(5), kernel],
            stride: [1, stride],
            dilation: [1, dilation],
            pad_before: [2, 40],
            pad_after: [2, 40],
        };
        let case = Case {
            window,
            images: 2,
            depth: 70,
            columns: 70,
            input_gap: 0,
            output_gap: 0,
            residual: false,
            seed: dilation as u64,
        };
        check_f32(&case);
        check_u8s8(&case);
    }
}

#[test]
fn oversized_kernels_are_errors() {
    let window = Window {
        input: [20, 20],
        kernel: [17, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad_before: [0, 0],
        pad_after: [0, 0],
    };
    let result = DepthwiseS8::pack(&[0; 17], &depthwise_order(1, 17, true), &window, 1);
    assert!(matches!(result, Err(GeometryError::KernelTooLarge { kernel: [17, 1] })));
}
