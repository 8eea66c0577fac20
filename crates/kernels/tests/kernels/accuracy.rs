//! Unary functions on every instruction set against double precision, to units of the last place.

use lepton_kernels::Isa;
use lepton_kernels::map::{Unary, map_f32, map_f32_in_place};
use proptest::prelude::*;

/// erf by its series near 0 and by the continued fraction of erfc beyond.
fn erf(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    (1.0 - erfc_tail(x.abs())).copysign(x)
}

/// erfc for x ≥ 3.
fn erfc_tail(x: f64) -> f64 {
    let fraction = (1..120).rev().fold(x, |f, n| x + n as f64 / 2.0 / f);
    (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
}

fn normal(x: f64) -> f64 {
    let z = -x / 2.0_f64.sqrt();
    if z > 3.0 { erfc_tail(z) / 2.0 } else { (1.0 - erf(z)) / 2.0 }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub type Reference = fn(f64) -> f64;

/// Function, its meaning, the error allowed in units of the last place, and the absolute error
/// that is allowed where that is larger.
pub const CASES: &[(Unary, Reference, f64, f64)] = &[
    (Unary::Neg, |x| -x, 0.0, 0.0),
    (Unary::Abs, f64::abs, 0.0, 0.0),
    (Unary::Sqrt, f64::sqrt, 0.5, 0.0),
    (Unary::Reciprocal, |x| 1.0 / x, 0.5, 0.0),
    (Unary::ReciprocalSqrt, |x| 1.0 / x.sqrt(), 1.5, 0.0),
    (Unary::Square, |x| x * x, 0.5, 1e-45),
    (Unary::Sign, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }, 0.0, 0.0),
    (Unary::Floor, f64::floor, 0.0, 0.0),
    (Unary::Ceil, f64::ceil, 0.0, 0.0),
    (Unary::Round, f64::round_ties_even, 0.0, 0.0),
    (Unary::Exp, f64::exp, 2.0, 2e-45),
    (Unary::Log, f64::ln, 2.0, 0.0),
    (Unary::Erf, erf, 4.0, 2e-45),
    (Unary::Tanh, f64::tanh, 4.0, 2e-45),
    (Unary::Sigmoid, sigmoid, 6.0, 2e-35),
    (Unary::Silu, |x| x * sigmoid(x), 6.0, 2e-33),
    // The rounding of alpha x alone makes as much as |alpha x| units.
    (Unary::Swish { alpha: 1.5 }, |x| x * sigmoid(1.5 * x), 96.0, 2e-33),
    (Unary::Gelu, |x| if x == f64::NEG_INFINITY { 0.0 } else { x * normal(x) }, 4.0, 1e-7),
    (
        Unary::GeluTanh,
        |x| x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)),
        8.0,
        1e-7,
    ),
    (Unary::Relu, |x| if x.is_nan() { x } else { x.max(0.0) }, 0.0, 0.0),
    (Unary::LeakyRelu { alpha: 0.25 }, |x| if x < 0.0 { x * 0.25 } else { x }, 0.5, 1e-45),
    (Unary::ThresholdedRelu { alpha: 1.0 }, |x| if x > 1.0 { x } else { 0.0 }, 0.0, 0.0),
    (Unary::Elu { alpha: 0.5 }, |x| if x > 0.0 { x } else { 0.5 * x.exp_m1() }, 4.0, 2e-45),
    (
        Unary::Celu { alpha: 2.0 },
        |x| if x > 0.0 { x } else { 2.0 * (x / 2.0).exp_m1() },
        4.0,
        4e-45,
    ),
    (
        Unary::Selu { alpha: 1.5, gamma: 1.25 },
        |x| if x > 0.0 { 1.25 * x } else { 1.25 * 1.5 * x.exp_m1() },
        4.0,
        4e-45,
    ),
    (Unary::Clip { low: -1.0, high: 2.0 }, |x| x.clamp(-1.0, 2.0), 0.0, 0.0),
    (
        Unary::HardSigmoid { alpha: 0.25, beta: 0.5 },
        |x| (0.25 * x + 0.5).clamp(0.0, 1.0),
        1.0,
        1e-7,
    ),
    (Unary::HardSwish, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0), 2.0, 4e-7),
    (Unary::Mish, |x| x * softplus(x).tanh(), 8.0, 1e-7),
    (Unary::Softplus, softplus, 5.0, 2e-35),
    (Unary::Softsign, |x| x / (1.0 + x.abs()), 2.0, 1e-45),
    (Unary::Affine { alpha: 2.0, beta: 1.0 }, |x| 2.0 * x + 1.0, 0.5, 0.0),
    (Unary::Sin, f64::sin, 1.0, 0.0),
    (Unary::Cos, f64::cos, 1.0, 0.0),
    (Unary::Tan, f64::tan, 2.0, 0.0),
    (Unary::Asin, f64::asin, 1.0, 0.0),
    (Unary::Acos, f64::acos, 1.0, 0.0),
    (Unary::Atan, f64::atan, 1.0, 0.0),
    (Unary::Sinh, f64::sinh, 2.0, 0.0),
    (Unary::Cosh, f64::cosh, 2.0, 0.0),
    (Unary::Asinh, f64::asinh, 4.0, 1e-6),
    (Unary::Acosh, f64::acosh, 4.0, 1e-6),
    (Unary::Atanh, f64::atanh, 4.0, 1e-6),
];

/// Numbers of all magnitudes that matter, both signs, and the special ones.
fn probes() -> Vec<f32> {
    let mut values = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    values.extend([f32::MIN_POSITIVE, f32::MAX, f32::MIN, 1e-45, -1e-45, 1e-40, 0.5, 1.5, 2.5]);
    values.extend((-110_000..=110_000).map(|i| i as f32 * 0.001));
    values.extend((0..4000).flat_map(|i| {
        let x = 1.07_f32.powi(i % 1800 - 1300) * (1.0 + i as f32 * 1e-5);
        [x, -x]
    }));
    values
}

/// The distance from the right answer, less what is allowed absolutely, in units of the last
/// place; 0 if both are NaN or the same infinity.
fn error_in_ulp(got: f32, want: f64, absolute: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() || rounded.is_nan() {
        return if got.is_nan() && rounded.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == rounded {
        return if rounded.is_finite() && rounded.is_normal() {
            (f64::from(got) - want).abs() / ulp(rounded)
        } else {
            0.0
        };
    }
    if got.is_infinite() || rounded.is_infinite() {
        // Infinity is also right within a few units of the greatest number.
        return if want.abs() > f64::from(f32::MAX) * (1.0 - 1e-6) { 0.0 } else { f64::INFINITY };
    }
    let off = (f64::from(got) - want).abs();
    if off <= absolute { 0.0 } else { off / ulp(rounded) }
}

fn ulp(x: f32) -> f64 {
    let x = x.abs();
    f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
}

#[test]
fn errors_stay_small_and_special_values_follow_ieee() {
    let input = probes();
    let mut output = vec![0.0; input.len()];
    let mut failures = Vec::new();
    for isa in Isa::available() {
        for (function, reference, ulps, absolute) in CASES {
            map_f32(isa, *function, &input, &mut output);
            let mut worst = (0.0, 0.0, 0.0);
            for (&x, &y) in input.iter().zip(&output) {
                let error = error_in_ulp(y, reference(f64::from(x)), *absolute);
                if error > worst.0 {
                    worst = (error, x, y);
                }
            }
            let (error, x, y) = worst;
            println!("{isa} {function:?}: {error:.2} ulp at {x:e}");
            if error > *ulps {
                let want = reference(f64::from(x));
                failures.push(format!("{isa} {function:?}({x:e}) = {y:e}, not {want:e}: {error}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn gelu_is_within_a_millionth() {
    let input: Vec<f32> = (-20_000..20_000).map(|i| i as f32 * 0.0005).collect();
    let mut output = vec![0.0; input.len()];
    for isa in Isa::available() {
        map_f32(isa, Unary::Gelu, &input, &mut output);
        for (&x, &y) in input.iter().zip(&output) {
            let want = f64::from(x) * normal(f64::from(x));
            assert!((f64::from(y) - want).abs() < 1e-6, "{isa} {x} {y} {want}");
        }
    }
}

proptest! {
    #[test]
    fn tails_and_in_place_give_the_same_bits(values in prop::collection::vec(-20.0_f32..20.0, 0..75)) {
        for isa in Isa::available() {
            for (function, ..) in CASES {
                let mut apart = vec![7.0; values.len()];
                map_f32(isa, *function, &values, &mut apart);
                let mut place = values.clone();
                map_f32_in_place(isa, *function, &mut place);
                for (i, &x) in values.iter().enumerate() {
                    let mut alone = [0.0];
                    map_f32(isa, *function, &[x], &mut alone);
                    prop_assert_eq!(apart[i].to_bits(), alone[0].to_bits());
                    prop_assert_eq!(place[i].to_bits(), alone[0].to_bits());
                }
            }
        }
    }
}
