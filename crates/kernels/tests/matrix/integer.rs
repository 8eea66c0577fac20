//! u8 × s8 products and convolutions: equal to the reference, bit for bit.

use lepton_kernels::Isa;
use lepton_kernels::epilogue::{
    Activation, DequantizeF32, Output, RequantizeU8, Residual, ResidualU8,
};
use lepton_kernels::gemm::{Input, gemm_u8s8, gemm_u8s8_f32, gemm_u8s8_s32};
use lepton_kernels::pack::{PackedS8, WeightOrder};
use proptest::prelude::*;

use crate::case::{Case, Random, cases, deep};

/// Inputs of one case, and the exact accumulators.
pub struct Data {
    pub input: Vec<u8>,
    pub input_zero: u8,
    pub weights: Vec<i8>,
    pub bias: Vec<i32>,
    pub multiplier: Vec<f32>,
    pub bias_f32: Vec<f32>,
    pub residual: Vec<u8>,
    pub residual_f32: Vec<f32>,
    pub table: [u8; 256],
}

impl Data {
    pub fn new(case: &Case, random: &mut Random, weights: usize) -> Data {
        let reach = case.window.taps() * case.depth;
        Data {
            input: random.bytes(case.input_length()),
            input_zero: random.bits() as u8,
            weights: random.signed_bytes(weights),
            bias: (0..case.columns).map(|_| random.bits() as i32 >> 17).collect(),
            multiplier: (0..case.columns)
                .map(|_| (random.float() + 1.01) / (64.0 * reach as f32))
                .collect(),
            bias_f32: random.floats(case.columns),
            residual: random.bytes(case.rows() * case.columns),
            residual_f32: random.floats(case.rows() * case.columns),
            table: std::array::from_fn(|_| random.bits() as u8),
        }
    }

    fn sum(&self, case: &Case, row: usize, column: usize) -> i32 {
        let taps = case.window.taps();
        let mut sum = 0;
        for tap in 0..taps {
            let source = case.source(row, tap);
            for k in 0..case.depth {
                let value = source.map_or(self.input_zero, |source| self.input[source + k]);
                let weight = self.weights[(column * taps + tap) * case.depth + k];
                sum += i32::from(value) * i32::from(weight);
            }
        }
        sum
    }

    pub fn requantize<'a>(&'a self, case: &Case, random: &mut Random) -> RequantizeU8<'a> {
        let rows = Residual { pointer: self.residual.as_ptr(), row_stride: case.columns };
        let residual = ResidualU8 { rows, scale: 0.37, zero_point: random.bits() as u8 };
        let bounds = [random.bits() as u8, random.bits() as u8];
        RequantizeU8 {
            bias: &self.bias,
            multiplier: &self.multiplier,
            residual: case.residual.then_some(residual),
            zero_point: random.bits() as u8,
            low: bounds[0].min(bounds[1]),
            high: bounds[0].max(bounds[1]),
            table: random.bits().is_multiple_of(2).then_some(&self.table),
        }
    }

    /// The formula of `RequantizeU8`, one step at a time.
    pub fn byte(&self, sum: i32, at: [usize; 2], case: &Case, epilogue: &RequantizeU8) -> u8 {
        let mut value = sum.wrapping_add(self.bias[at[1]]) as f32 * self.multiplier[at[1]];
        if let Some(residual) = &epilogue.residual {
            let byte = self.residual[at[0] * case.columns + at[1]];
            value += (i32::from(byte) - i32::from(residual.zero_point)) as f32 * residual.scale;
        }
        let zero = f32::from(epilogue.zero_point);
        let clamped =
            value.max(f32::from(epilogue.low) - zero).min(f32::from(epilogue.high) - zero);
        let byte = (clamped.round_ties_even() + zero) as u8;
        epilogue.table.map_or(byte, |table| table[usize::from(byte)])
    }
}

fn check(case: &Case) {
    let mut random = Random(case.seed);
    let taps = case.window.taps();
    let data = Data::new(case, &mut random, case.columns * taps * case.depth);
    let weights = PackedS8::pack(&data.weights, &WeightOrder::ohwi(case.columns, taps, case.depth));
    let rows = case.indirection();
    let padding = vec![data.input_zero; case.depth];
    let input = Input { base: data.input.as_ptr(), rows: &rows, padding: padding.as_ptr() };
    let requantize = data.requantize(case, &mut random);
    let residual = Residual { pointer: data.residual_f32.as_ptr(), row_stride: case.columns };
    let dequantize = DequantizeF32 {
        bias_s32: Some(&data.bias),
        scale: &data.multiplier,
        bias: Some(&data.bias_f32),
        residual: case.residual.then_some(residual),
        activation: Activation::Relu,
    };
    let stride = case.output_stride();
    for isa in Isa::available() {
        let mut bytes = vec![0xa5; case.rows() * stride];
        let mut floats = vec![f32::NAN; case.rows() * stride];
        let mut integers = vec![i32::MIN; case.rows() * stride];
        for rows in random.split(case.rows(), 1) {
            for columns in random.split(case.columns, 16) {
                let (rows, input, weights) = (|| rows.clone(), &input, &weights);
                // SAFETY: all buffers have the sizes the case says.
                unsafe {
                    let output = Output { pointer: bytes.as_mut_ptr(), row_stride: stride };
                    gemm_u8s8(isa, input, weights, &requantize, &output, rows(), columns.clone());
                    let output = Output { pointer: floats.as_mut_ptr(), row_stride: stride };
                    gemm_u8s8_f32(
                        isa,
                        input,
                        weights,
                        &dequantize,
                        &output,
                        rows(),
                        columns.clone(),
                    );
                    let output = Output { pointer: integers.as_mut_ptr(), row_stride: stride };
                    gemm_u8s8_s32(isa, input, weights, None, &output, rows(), columns.clone());
                }
            }
        }
        for row in 0..case.rows() {
            for column in 0..case.columns {
                let (at, sum) = (row * stride + column, data.sum(case, row, column));
                assert_eq!(integers[at], sum, "{isa} s32 row {row} column {column}");
                let byte = data.byte(sum, [row, column], case, &requantize);
                assert_eq!(bytes[at], byte, "{isa} u8 row {row} column {column}");
                let mut value = sum.wrapping_add(data.bias[column]) as f32
                    * data.multiplier[column]
                    + data.bias_f32[column];
                if case.residual {
                    value += data.residual_f32[row * case.columns + column];
                }
                assert_eq!(floats[at], value.max(0.0), "{isa} f32 row {row} column {column}");
            }
            let gap = row * stride + case.columns..(row + 1) * stride;
            assert!(bytes[gap.clone()].iter().all(|&byte| byte == 0xa5), "{isa} gap");
            assert!(floats[gap.clone()].iter().all(|value| value.is_nan()), "{isa} gap");
            assert!(integers[gap].iter().all(|&value| value == i32::MIN), "{isa} gap");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn u8s8_products_are_exact(case in cases()) {
        check(&case);
    }
}

/// More taps than are resolved at a time, merged and not.
#[test]
fn many_taps() {
    let window = lepton_kernels::conv::Window {
        input: [11, 12],
        kernel: [9, 10],
        stride: [1, 1],
        dilation: [1, 1],
        pad_before: [4, 4],
        pad_after: [4, 4],
    };
    for depth in [1, 2, 3, 5, 8] {
        let case = Case {
            window,
            images: 1,
            depth,
            columns: 35,
            input_gap: 1,
            output_gap: 0,
            residual: true,
            seed: 3,
        };
        check(&case);
    }
}

#[test]
fn deep_products_are_exact() {
    check(&deep(1, [1, 31], 8302, 70));
    check(&deep(3, [5, 5], 1001, 80));
    check(&deep(5, [6, 5], 360, 70));
}
