//! Quantisation gives the bits of the scalar definition on every instruction set.

use half::{bf16, f16};
use lepton_kernels::Isa;
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::quantize::*;
use proptest::prelude::*;

fn round(x: f32, zero: i32, least: i32, greatest: i32) -> i32 {
    let x = if x.is_nan() { f32::NEG_INFINITY } else { x };
    (x.round_ties_even() + zero as f32).clamp(least as f32, greatest as f32) as i32
}

fn floats() -> impl Strategy<Value = Vec<f32>> {
    let special =
        prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e30]);
    prop::collection::vec(
        prop_oneof![8 => -300.0_f32..300.0, 2 => (-80_i32..80).prop_map(|i| i as f32 * 0.5), 1 => special],
        0..100,
    )
}

proptest! {
    #[test]
    fn quantise_and_back(values in floats(), scale in prop_oneof![Just(1.0_f32), 0.001_f32..4.0], zero in any::<u8>()) {
        for isa in Isa::available() {
            let mut unsigned = vec![0_u8; values.len()];
            quantize(isa, scale, zero, &values, &mut unsigned);
            let signed_zero = zero as i8;
            let mut signed = vec![0_i8; values.len()];
            quantize(isa, scale, signed_zero, &values, &mut signed);
            let mut back = vec![0.0; values.len()];
            dequantize(isa, scale, signed_zero, &signed, &mut back);
            for (i, &x) in values.iter().enumerate() {
                prop_assert_eq!(i32::from(unsigned[i]), round(x / scale, i32::from(zero), 0, 255));
                prop_assert_eq!(i32::from(signed[i]), round(x / scale, i32::from(signed_zero), -128, 127));
                let want = (i32::from(signed[i]) - i32::from(signed_zero)) as f32 * scale;
                prop_assert_eq!(back[i].to_bits(), want.to_bits());
            }
        }
    }

    #[test]
    fn ranges_pass_over_nan(values in floats()) {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for isa in Isa::available() {
            prop_assert_eq!(range_f32(isa, &values), [low, high]);
        }
    }

    #[test]
    fn sums_and_products(
        a in prop::collection::vec(any::<u8>(), 1..120),
        channels in 1_usize..40,
        scales in (0.01_f32..2.0, 0.01_f32..2.0),
        zeros in any::<(u8, u8, u8)>(),
    ) {
        let rows = a.len().div_ceil(channels);
        let a: Vec<u8> = a.iter().copied().cycle().take(rows * channels).collect();
        for b_shape in [vec![rows, channels], vec![channels], vec![rows, 1], vec![1]] {
            let b: Vec<u8> = (0..b_shape.iter().product::<usize>()).map(|i| (i * 83 + 5) as u8).collect();
            let plan = Broadcast::dense(&[rows, channels], [&[rows, channels], &b_shape]).unwrap();
            let pair = QuantizedPair {
                scale_a: scales.0,
                scale_b: scales.1,
                zero_a: i32::from(zeros.0),
                zero_b: i32::from(zeros.1),
                rounding: Rounding::clamped(zeros.2, 3, 250),
            };
            for isa in Isa::available() {
                let (mut sum, mut product) = (vec![0; a.len()], vec![0; a.len()]);
                add_quantized(isa, pair, &plan, 0..a.len(), &a, &b, &mut sum);
                multiply_quantized(isa, pair, &plan, 0..a.len(), &a, &b, &mut product);
                for i in 0..a.len() {
                    let y = match b_shape.as_slice() {
                        [n, 1] if *n == rows => b[i / channels],
                        [_, _] => b[i],
                        _ => b[i % channels % b.len()],
                    };
                    let f = (i32::from(a[i]) - pair.zero_a) as f32;
                    let g = (i32::from(y) - pair.zero_b) as f32;
                    let zero = i32::from(zeros.2);
                    prop_assert_eq!(i32::from(sum[i]), round(f * pair.scale_a + g * pair.scale_b, zero, 3, 250));
                    prop_assert_eq!(i32::from(product[i]), round((f * pair.scale_a) * (g * pair.scale_b), zero, 3, 250));
                }
            }
        }
    }

    #[test]
    fn half_floats(bits in prop::collection::vec(any::<u32>(), 0..80), small in floats()) {
        let values: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).chain(small).collect();
        for isa in Isa::available() {
            let mut half = vec![f16::ZERO; values.len()];
            f32_to_f16(isa, &values, &mut half);
            let mut brain = vec![bf16::ZERO; values.len()];
            f32_to_bf16(isa, &values, &mut brain);
            let (mut wide, mut wide_brain) = (vec![0.0; values.len()], vec![0.0; values.len()]);
            f16_to_f32(isa, &half, &mut wide);
            bf16_to_f32(isa, &brain, &mut wide_brain);
            for (i, &x) in values.iter().enumerate() {
                prop_assert_eq!(half[i].to_bits(), f16::from_f32_const(x).to_bits());
                prop_assert_eq!(brain[i].to_bits(), bf16::from_f32(x).to_bits());
                prop_assert_eq!(wide[i].to_bits(), half[i].to_f32_const().to_bits());
                prop_assert_eq!(wide_brain[i].to_bits(), brain[i].to_f32().to_bits());
            }
        }
    }
}

#[test]
fn dynamic_parameters_follow_onnx() {
    assert_eq!(dynamic_parameters([0.0, 0.0]), (1.0, 0));
    assert_eq!(dynamic_parameters([-1.0, 2.0]), (3.0 / 255.0, 85));
    assert_eq!(dynamic_parameters([1.0, 2.0]), (2.0 / 255.0, 0));
    assert_eq!(dynamic_parameters([-2.0, -1.0]), (2.0 / 255.0, 255));
}
