//! f32 products and convolutions.

use lepton_kernels::Isa;
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_f32};
use lepton_kernels::pack::{PackedF32, WeightOrder};
use proptest::prelude::*;

use crate::case::{Case, Random, cases};

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
                let expected = activation.apply(data.expected(case, row, column));
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
