//! Attention of one head, in f32 and in bf16.

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::attention::{Head, HeadRows, attention_head};
use lepton_kernels::epilogue::Output;
use lepton_kernels::real::Real;
use proptest::prelude::*;

use crate::case::Random;

/// Result of the head in f64.
fn reference(head: &Head<f32>) -> Vec<f64> {
    let [rows, columns, depth, width] = head.extents;
    // SAFETY: the buffers have the sizes the extents say.
    let at = |m: HeadRows<f32>, r: usize, c: usize| unsafe {
        f64::from(m.pointer.add(r * m.stride + c).read())
    };
    let mut result = Vec::new();
    for s in 0..rows {
        let score = |t: usize| {
            let sum: f64 = (0..depth).map(|d| at(head.q, s, d) * at(head.k, t, d)).sum();
            sum * f64::from(head.scale) + head.mask.map_or(0.0, |mask| at(mask, s, t))
        };
        let powers: Vec<f64> = (0..columns).map(|t| score(t).exp()).collect();
        let total: f64 = powers.iter().sum();
        let value = |e| (0..columns).map(|t| powers[t] / total * at(head.v, t, e)).sum::<f64>();
        result.extend((0..width).map(value));
    }
    result
}

fn computed<T: Real, R: Real>(isa: Isa, head: &Head<T>, empty: R) -> Vec<R> {
    let [rows, _, _, width] = head.extents;
    let mut result = vec![empty; rows * width];
    let output = Output { pointer: result.as_mut_ptr(), row_stride: width };
    // SAFETY: the buffers have the sizes the extents say.
    unsafe { attention_head(isa, head, &output) };
    result
}

fn check(extents: [usize; 4], gap: usize, mask_rows: Option<usize>, seed: u64) {
    let [rows, columns, depth, width] = extents;
    let mut random = Random(seed);
    let mut rounded = |rows: usize, columns: usize| -> Vec<bf16> {
        random.floats(rows * (columns + gap)).into_iter().map(bf16::from_f32).collect()
    };
    let halves = [rounded(rows, depth), rounded(columns, depth), rounded(columns, width)];
    let floats = halves.clone().map(|m| m.iter().map(|v| v.to_f32()).collect::<Vec<f32>>());
    let mask = random.floats(rows * columns);
    let mask = mask_rows.map(|rows| HeadRows {
        pointer: mask.as_ptr(),
        stride: if rows == 1 { 0 } else { columns },
    });
    let strides = [depth + gap, depth + gap, width + gap];
    let [q, k, v] = [0, 1, 2].map(|i| HeadRows { pointer: floats[i].as_ptr(), stride: strides[i] });
    let wide = Head { q, k, v, mask, scale: 0.3, extents };
    let [q, k, v] = [0, 1, 2].map(|i| HeadRows { pointer: halves[i].as_ptr(), stride: strides[i] });
    let narrow = Head { q, k, v, mask, scale: 0.3, extents };
    let expected = reference(&wide);
    for isa in Isa::available() {
        let results: [Vec<f32>; 2] = [computed(isa, &wide, 0.0), computed(isa, &narrow, 0.0)];
        let short: Vec<bf16> = computed(isa, &narrow, bf16::NAN);
        for (i, &value) in expected.iter().enumerate() {
            let [exact, halved] = [&results[0], &results[1]].map(|r| f64::from(r[i]));
            assert!((exact - value).abs() < 1e-5, "{isa} {i}: {exact} {value}");
            assert!((halved - value).abs() < 4e-3, "{isa} {i}: {halved} {value}");
            assert_eq!(short[i], bf16::from_f32(results[1][i]), "{isa} {i}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn heads_match(
        extents in (1..70usize, 1..70usize, 1..70usize, 1..70usize),
        gap in 0..3usize,
        mask in prop_oneof![Just(None), Just(Some(1)), Just(Some(2))],
        seed: u64,
    ) {
        let (rows, columns, depth, width) = extents;
        check([rows, columns, depth, width], gap, mask, seed);
    }
}

#[test]
fn heads_of_whole_tiles_match() {
    check([128, 128, 64, 64], 64, Some(1), 1);
    check([128, 64, 32, 32], 0, None, 2);
}
