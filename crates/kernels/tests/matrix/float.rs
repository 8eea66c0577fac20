//! f32 products and convolutions.

use lepton_kernels::Isa;
use lepton_kernels::activations::{gemm_f32_scratch, pack_f32, scratch_f32};
use lepton_kernels::conv::{Indirection, Window};
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_f32};
use lepton_kernels::pack::{PackedF32, WeightOrder};
use proptest::prelude::*;

use crate::case::{Case, Random, activated, cases, deep};

/// Inputs of one case.
struct Data {
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Data {
    fn new(case: &Case, random: &mut Random) -> Data {
        Data {
            input: random.floats(case.input_length()),
            weights: random.floats(case.columns * case.window.taps() * case.depth),
            bias: random.floats(case.columns),
            residual: random.floats(case.rows() * case.columns),
        }
    }

    /// The value of one output before the activation.
    fn expected(&self, case: &Case, row: usize, column: usize) -> f32 {
        let taps = case.window.taps();
        let mut sum = f64::from(self.bias[column]);
        for tap in 0..taps {
            if let Some(source) = case.source(row, tap) {
                for k in 0..case.depth {
                    let weight = self.weights[(column * taps + tap) * case.depth + k];
                    sum += f64::from(self.input[source + k]) * f64::from(weight);
                }
            }
        }
        if case.residual {
            sum += f64::from(self.residual[row * case.columns + column]);
        }
        sum as f32
    }
}

fn activations() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::None),
        Just(Activation::Relu),
        Just(Activation::Clip { low: -0.5, high: 0.75 }),
        Just(Activation::LeakyRelu { slope: 0.1 }),
        Just(Activation::Silu),
        Just(Activation::HardSwish),
        Just(Activation::Gelu),
    ]
}

fn check(case: &Case, activation: Activation) {
    let mut random = Random(case.seed);
    let data = Data::new(case, &mut random);
    let order = WeightOrder::ohwi(case.columns, case.window.taps(), case.depth);
    let weights = PackedF32::pack(&data.weights, &order);
    let rows = case.indirection();
    let padding = vec![0.0; case.depth];
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let residual = Residual { pointer: data.residual.as_ptr(), row_stride: case.columns };
    let epilogue = EpilogueF32 {
        bias: Some(&data.bias),
        residual: case.residual.then_some(residual),
        activation,
        ..EpilogueF32::default()
    };
    let stride = case.output_stride();
    for isa in Isa::available() {
        let mut result = vec![f32::NAN; case.rows() * stride];
        let output = Output { pointer: result.as_mut_ptr(), row_stride: stride };
        for rows in random.split(case.rows(), 1) {
            for columns in random.split(case.columns, 16) {
                // SAFETY: all buffers have the sizes the case says.
                unsafe {
                    gemm_f32(isa, &input, &weights, &epilogue, &output, rows.clone(), columns);
                }
            }
        }
        for row in 0..case.rows() {
            for column in 0..stride {
                let value = result[row * stride + column];
                if column >= case.columns {
                    assert!(value.is_nan(), "{isa} wrote into the gap of row {row}");
                    continue;
                }
                let expected = activated(activation, data.expected(case, row, column));
                let tolerance = 1e-6 * (4 + case.window.taps() * case.depth) as f32;
                assert!(
                    (value - expected).abs() <= tolerance,
                    "{isa} row {row} column {column}: {value} is not {expected}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn f32_products_match(case in cases(), activation in activations()) {
        check(&case, activation);
    }
}

/// alpha · A · B with both operands unpacked, B plain or transposed.
fn check_unpacked([m, n, k]: [usize; 3], transposed: bool, gap: usize, seed: u64) {
    let mut random = Random(seed);
    let (a_stride, b_stride) = (k + gap, if transposed { k } else { n } + gap);
    let a = random.floats(m * a_stride);
    let b = random.floats(if transposed { n } else { k } * b_stride);
    let rows = Indirection::strided(a_stride);
    let input = Input { base: a.as_ptr(), rows: &rows, padding: std::ptr::null() };
    let epilogue = EpilogueF32 { alpha: 0.125, ..EpilogueF32::default() };
    for isa in Isa::available() {
        let mut scratch = vec![f32::NAN; scratch_f32(k, n)];
        let mut result = vec![f32::NAN; m * n];
        let output = Output { pointer: result.as_mut_ptr(), row_stride: n };
        // SAFETY: all buffers have the sizes given.
        unsafe {
            pack_f32(isa, b.as_ptr(), b_stride, transposed, k, n, &mut scratch);
            gemm_f32_scratch(isa, &input, &scratch, k, n, &epilogue, &output, 0..m, 0..n);
        }
        for row in 0..m {
            for column in 0..n {
                let expected: f32 = (0..k)
                    .map(|i| {
                        let at =
                            if transposed { column * b_stride + i } else { i * b_stride + column };
                        a[row * a_stride + i] * b[at]
                    })
                    .sum::<f32>()
                    * 0.125;
                let value = result[row * n + column];
                assert!((value - expected).abs() < 1e-5, "{isa} {row} {column}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn unpacked_products_match(
        size in [0..20usize, 1..70usize, 1..70usize],
        transposed in any::<bool>(),
        gap in 0..3usize,
        seed in any::<u64>(),
    ) {
        check_unpacked(size, transposed, gap, seed);
    }
}

/// More taps than are resolved at a time, and more weights than one pass keeps in cache.
#[test]
fn many_taps_and_many_panels() {
    let window = Window {
        input: [1, 90],
        kernel: [1, 70],
        stride: [1, 3],
        dilation: [1, 1],
        pad_before: [0, 5],
        pad_after: [0, 30],
    };
    let case = Case {
        window,
        images: 2,
        depth: 2,
        columns: 40,
        input_gap: 0,
        output_gap: 1,
        residual: true,
        seed: 1,
    };
    check(&case, Activation::None);
    let plain =
        Window { input: [1, 17], kernel: [1, 1], pad_before: [0; 2], pad_after: [0; 2], ..window };
    let plain = Window { stride: [1, 1], ..plain };
    check(&Case { window: plain, images: 1, depth: 2000, columns: 150, ..case }, Activation::None);
}

#[test]
fn deep_products_match() {
    check(&deep(1, [1, 31], 2101, 70), Activation::Gelu);
    check(&deep(1, [1, 250], 2100, 64), Activation::None);
    check(&deep(3, [5, 5], 251, 80), Activation::Relu);
    check(&deep(5, [6, 5], 90, 100), Activation::None);
    check(&deep(7, [7, 7], 45, 65), Activation::None);
}
