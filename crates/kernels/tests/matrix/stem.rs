//! Convolutions over copied lines: what the products of gathered rows give.

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::epilogue::{
    Activation, DequantizeF32, EpilogueF32, Output, RequantizeU8, Residual,
};
use lepton_kernels::gemm::{Input, gemm_bf16, gemm_f32, gemm_u8s8, gemm_u8s8_f32};
use lepton_kernels::pack::{PackedBf16, PackedF32, PackedS8, TapsBf16, TapsS8, WeightOrder};
use lepton_kernels::stem::{
    Lines, MOST_BF16, MOST_U8, stem_bf16, stem_f32, stem_u8s8, stem_u8s8_f32,
};
use proptest::prelude::*;

use crate::case::{Case, Random, cases};
use crate::integer::Data;

/// Rows in order, in three parts.
fn parts(case: &Case, random: &mut Random) -> Vec<std::ops::Range<usize>> {
    let [first, second] = random.split(case.rows(), 1);
    let middle = second.start + second.len() / 2;
    vec![first, second.start..middle, middle..second.end]
}

fn check_bytes(case: &Case, random: &mut Random, isa: Isa) {
    let Some(lines) = Lines::of(&case.window, case.depth, MOST_U8) else { return };
    let taps = case.window.taps();
    let data = Data::new(case, random, case.columns * taps * case.depth);
    let order = WeightOrder::ohwi(case.columns, taps, case.depth);
    let gathered = PackedS8::pack(&data.weights, &order);
    let weights = TapsS8::pack(&data.weights, &lines.order(case.columns));
    let padding = vec![data.input_zero; case.depth];
    let rows = case.indirection();
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let requantize: RequantizeU8 = data.requantize(case, random);
    let dequantize = DequantizeF32 {
        bias_s32: Some(&data.bias),
        scale: &data.multiplier,
        bias: Some(&data.bias_f32),
        residual: None,
        activation: Activation::Relu,
    };
    let (stride, all) = (case.output_stride(), 0..case.rows());
    let mut bytes = [vec![7u8; case.rows() * stride], vec![7u8; case.rows() * stride]];
    let mut floats = [vec![7f32; case.rows() * stride], vec![7f32; case.rows() * stride]];
    let [to, expected] = bytes.each_mut();
    let [to_f32, expected_f32] = floats.each_mut();
    fn place<T>(to: &mut [T], row_stride: usize) -> Output<T> {
        Output { pointer: to.as_mut_ptr(), row_stride }
    }
    let image = (data.input.as_ptr(), data.input_zero);
    // SAFETY: all buffers have the sizes the case says.
    unsafe {
        for part in parts(case, random) {
            let output = place(to, stride);
            stem_u8s8(isa, image, &lines, &weights, &requantize, &output, part.clone(), &[]);
            let output = place(to_f32, stride);
            stem_u8s8_f32(isa, image, &lines, &weights, &dequantize, &output, part);
        }
        let (columns, output) = (0..case.columns, place(expected, stride));
        gemm_u8s8(isa, &input, &gathered, &requantize, &output, all.clone(), columns.clone());
        let output = place(expected_f32, stride);
        gemm_u8s8_f32(isa, &input, &gathered, &dequantize, &output, all, columns);
    }
    assert_eq!(bytes[0], bytes[1], "{isa}");
    assert_eq!(floats[0], floats[1], "{isa}");
}

fn close(case: &Case, isa: Isa, [values, expected]: &[Vec<f32>; 2]) {
    let tolerance = 1e-6 * (4 + case.window.taps() * case.depth) as f32;
    for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
        assert!((value - expected).abs() <= tolerance, "{isa} {i}: {value} {expected}");
    }
}

fn check_floats(case: &Case, random: &mut Random, isa: Isa) {
    let Some(lines) = Lines::of(&case.window, case.depth, MOST_BF16) else { return };
    let (taps, columns, stride) = (case.window.taps(), case.columns, case.output_stride());
    let mut rounded =
        |count| random.floats(count).iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
    let (values, kernel): (Vec<f32>, Vec<f32>) =
        (rounded(case.input_length()), rounded(columns * taps * case.depth));
    let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let (bias, residual) = (random.floats(columns), random.floats(case.rows() * columns));
    let residual = Residual { pointer: residual.as_ptr(), row_stride: columns };
    let order = WeightOrder::ohwi(columns, taps, case.depth);
    let packed = PackedF32::pack(&kernel, &lines.order(columns));
    let packed_halves = TapsBf16::pack(&kernel, &lines.order(columns));
    let (gathered, rows) = (PackedF32::pack(&kernel, &order), case.indirection());
    let gathered_halves = PackedBf16::pack(&kernel, &order);
    let padding = vec![0f32; case.depth];
    let input = Input { base: values.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let epilogue = EpilogueF32 {
        bias: Some(&bias),
        residual: case.residual.then_some(residual),
        activation: Activation::Relu,
        ..EpilogueF32::default()
    };
    let mut made = [(); 5].map(|()| vec![0f32; case.rows() * stride]);
    let outputs = made.each_mut().map(|to| Output { pointer: to.as_mut_ptr(), row_stride: stride });
    // SAFETY: all buffers have the sizes the case says.
    unsafe {
        for part in parts(case, random) {
            let (part, image, e) = (|| part.clone(), values.as_ptr(), &epilogue);
            stem_f32(isa, image, &lines, &packed, e, &outputs[0], part(), &[]);
            let w = &packed_halves;
            stem_bf16(isa, image, &lines, w, e, None, &outputs[2], part(), &[]);
            let image = halves.as_ptr();
            stem_bf16(isa, image, &lines, w, e, None, &outputs[4], part(), &[]);
        }
        let (all, every) = (0..case.rows(), 0..columns);
        gemm_f32(isa, &input, &gathered, &epilogue, &outputs[1], all.clone(), every.clone());
        let w = &gathered_halves;
        gemm_bf16(isa, &input, w, &epilogue, None, &outputs[3], all, every, &[]);
    }
    let [direct, expected, halved, expected_halved, of_halves] = made;
    close(case, isa, &[direct, expected]);
    assert_eq!(halved, of_halves, "{isa}");
    close(case, isa, &[halved, expected_halved]);
}

fn stems() -> impl Strategy<Value = Case> {
    (cases(), 1..4usize, prop_oneof![1..9usize, 20..70usize], 1..8usize).prop_map(
        |(mut case, depth, width, kernel)| {
            (case.depth, case.input_gap) = (depth, 0);
            (case.window.dilation[1], case.window.kernel[1]) = (1, kernel);
            case.window.input[1] = width.max(kernel);
            case
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn stems_match(case in stems()) {
        for isa in Isa::available() {
            let mut random = Random(case.seed);
            check_bytes(&case, &mut random, isa);
            check_floats(&case, &mut random, isa);
        }
    }
}
