//! Elementary functions over [`Vector`], each written once for every set.
//!
//! Polynomials are weighted minimax fits made for this file (Lawson's iteration in double
//! precision, coefficients then rounded to f32 one by one, the rest refitted). The worst errors
//! seen over all sets are in the tests of `map`.

use crate::vector::Vector;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LN_2, LOG2_E};

/// ln 2 in two parts; the first is so short that whole multiples up to 2^14 are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// What f32 misses of ln 2.
const LN_2_REST: f32 = -1.904_654_3e-9;

/// Horner's rule, coefficients from the highest power down, unrolled.
macro_rules! polynomial {
    ($x:expr; $highest:expr $(, $coefficient:expr)+) => {
        V::splat($highest)$(.mul_add($x, V::splat($coefficient)))+
    };
}

/// `x = n ln 2 + r` with whole `n` and |r| ≤ ln 2 / 2, and `s` with `e^r = 1 + r s`: returns
/// `(n, r, s)`. |x| must stay below 10⁴. `EXACT` corrects `r` for the rounding of ln 2, which
/// otherwise adds up to |x| / 16 units of the last place to e^x.
#[inline(always)]
fn reduce_exponent<V: Vector, const EXACT: bool>(x: V) -> (V, V, V) {
    // Adding 1.5 · 2^23 pushes the fraction out, rounding to even.
    let shift = V::splat(12_582_912.0);
    let n = x.mul_add(V::splat(LOG2_E), shift) - shift;
    let r = match (V::FUSED, EXACT) {
        (true, true) => n.mul_add(V::splat(-LN_2_REST), n.mul_add(V::splat(-LN_2), x)),
        (true, false) => n.mul_add(V::splat(-LN_2), x),
        (false, _) => n.mul_add(V::splat(-LN_2_LOW), n.mul_add(V::splat(-LN_2_HIGH), x)),
    };
    let s = polynomial!(
        r; 1.381_939e-3, 8.368_892e-3, 0.041_668_29, 0.166_665_2, 0.499_999_94, 1.0
    );
    (n, r, s)
}

/// e^x; 0 below −104, infinite above 88.73, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    let x = V::splat(89.0).min(x.max_keeping_nan(V::splat(-104.0)));
    let (n, r, s) = reduce_exponent::<V, true>(x);
    r.mul_add(s, V::splat(1.0)).scale_exponent(n)
}

/// Below this [`exp_not_positive`] gives 0: results too small for a normal f32, or products with
/// them, would cost a hundred cycles each, and masked attention is full of them.
const LEAST_EXPONENT: f32 = -80.0;

/// e^x for x ≤ 0, or 0 below −80; cheaper than [`exp`] and less exact far from 0.
#[inline(always)]
pub(crate) fn exp_not_positive<V: Vector>(x: V) -> V {
    let least = V::splat(LEAST_EXPONENT);
    let (n, r, s) = reduce_exponent::<V, false>(x.max_keeping_nan(least));
    let value = r.mul_add(s, V::splat(1.0)).scale_exponent_normal(n);
    V::select(x.not_less(least), value, V::splat(0.0))
}

/// e^x − 1 for x ≤ 0, with small relative error also near 0; −1 below −25.
#[inline(always)]
fn exp_minus_one_not_positive<V: Vector>(x: V) -> V {
    let (n, r, s) = reduce_exponent::<V, true>(x.max_keeping_nan(V::splat(-25.0)));
    let power = V::splat(1.0).scale_exponent_normal(n);
    power.mul_add(r * s, power - V::splat(1.0))
}

/// 1 / (1 + e^−x), or 0 below −80.
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(x: V) -> V {
    let (one, least) = (V::splat(1.0), V::splat(LEAST_EXPONENT));
    // Far below −80 the exponential is wrong, but not used.
    let (n, r, s) = reduce_exponent::<V, false>(-x.min_keeping_nan(-least));
    let value = one / (one + r.mul_add(s, one).scale_exponent_normal(n));
    V::select(x.not_less(least), value, V::splat(0.0))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<V: Vector>(x: V) -> V {
    // tanh |x| = −m / (2 + m) with m = e^(−2|x|) − 1 in (−1, 0].
    let m = exp_minus_one_not_positive(x.abs() * V::splat(-2.0));
    (m / (V::splat(2.0) + m)).copy_sign(x)
}

/// ln erfc(z) for z ≥ 0, as z times a polynomial whose first and last terms are negative, so that
/// it falls without end beyond the fitted range 0..4 where erf is 1 in f32.
#[inline(always)]
fn log_erfc<V: Vector>(z: V) -> V {
    z * polynomial!(
        z;
        -3.714_135e-5,
        3.568_351e-4,
        -1.189_933_9e-3,
        -2.808_089_2e-4,
        0.019_366_473,
        -0.102_826_595,
        -0.636_615_3,
        -FRAC_2_SQRT_PI
    )
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<V: Vector>(x: V) -> V {
    exp_minus_one_not_positive(log_erfc(x.abs())).copy_sign(x)
}

/// x Φ(x), Φ the normal distribution, to 4 units of the last place or 10⁻⁷, whichever is more:
/// the left tail is right absolutely, not relatively. At −∞ the result is the limit 0 (to within
/// 10⁻³⁴), not NaN.
#[inline(always)]
pub(crate) fn gelu<V: Vector>(x: V) -> V {
    // max(x, 0) − |x| erfc(|x| / √2) / 2. At z = 6.8 the exponent is −80.
    let z = (x.abs() * V::splat(FRAC_1_SQRT_2)).min_keeping_nan(V::splat(6.8));
    let (n, r, s) = reduce_exponent::<V, false>(log_erfc(z));
    let tail = r.mul_add(s, V::splat(1.0)).scale_exponent_normal(n);
    (z * V::splat(-FRAC_1_SQRT_2)).mul_add(tail, V::splat(0.0).max(x))
}

/// [`gelu`] to within 2.5 · 10⁻⁵, for half the work, or a third where tables are cheap.
#[inline(always)]
pub(crate) fn gelu_nearly<V: Vector>(x: V) -> V {
    // max(x, 0) − z (1 − Φ(z)) with z = |x|, which is fitted on 0..4.4 and 2.4 · 10⁻⁵ beyond.
    let z = x.abs().min_keeping_nan(V::splat(4.4));
    let tail = if V::LOOKS_UP { gelu_tail_by_parts(z) } else { gelu_tail(z) };
    V::splat(0.0).max(x) - tail
}

/// z (1 − Φ(z)) on 0..4.4.
#[inline(always)]
fn gelu_tail<V: Vector>(z: V) -> V {
    let u = z.mul_add(V::splat(1.0 / 2.2), V::splat(-1.0));
    // By Estrin's scheme: Horner's waits for itself ten times.
    let (u2, c) = (u * u, |c: f32| V::splat(c));
    let u4 = u2 * u2;
    let pair = |high: f32, low: f32| c(high).mul_add(u, c(low));
    let low = pair(-0.118_418_51, 0.244_301_21).mul_add(u2, pair(-0.141_021_24, 0.030_580_614));
    let middle = pair(-0.175_299_9, -0.158_880_87).mul_add(u2, pair(0.410_075_6, -0.229_071_17));
    let high = c(-0.037_096_553).mul_add(u2, pair(0.024_665_771, 0.150_178_7));
    high.mul_add(u4, middle).mul_add(u4, low)
}

/// The same by parabolas, fitted around 32 multiples of 4.4 / 31.5 to within 1.2 · 10⁻⁵.
#[inline(always)]
fn gelu_tail_by_parts<V: Vector>(z: V) -> V {
    // The lowest bits of a sum with 2^23 are the nearest whole number.
    let part = z.mul_add(V::splat(31.5 / 4.4), V::splat(8_388_608.0)).bits();
    let [constant, slope, bend] = &GELU_PARABOLAS;
    let bend = V::look_up(bend, part);
    bend.mul_add(z, V::look_up(slope, part)).mul_add(z, V::look_up(constant, part))
}

/// Coefficients of the powers 0, 1 and 2 of z for each part.
#[rustfmt::skip]
const GELU_PARABOLAS: [[f32; 32]; 3] = [
    [
        7.409_426e-8, 6.104_366e-5, 0.001_112_716_1, 0.005_511_693, 0.016_421_936, 0.036_881_313,
        0.068_858_33, 0.112_538_63, 0.166_014_82, 0.225_446_18, 0.285_636_7, 0.340_884_78,
        0.385_906_73, 0.416_638_06, 0.430_764_67, 0.427_911_6, 0.409_498_1, 0.378_333_3,
        0.338_066, 0.292_607_45, 0.245_628_2, 0.200_194_03, 0.158_565_76, 0.122_153_03,
        0.091_588_69, 0.066_879_18, 0.047_587_037, 0.033_009_971, 0.022_333_03, 0.014_742_247,
        0.009_498_252_6, 0.005_974_801,
    ],
    [
        0.499_981_6, 0.498_631_83, 0.488_945_42, 0.464_051_7, 0.419_649_4, 0.354_701_96,
        0.271_525_32, 0.175_301_2, 0.073_143_352, -0.027_079_904, -0.117_935_543, -0.193_420_52,
        -0.249_616_28, -0.284_941_67, -0.300_025_22, -0.297_282_9, -0.280_323_26, -0.253_307_37,
        -0.220_371_71, -0.185_186_27, -0.150_680_23, -0.118_931_64, -0.091_192_13, -0.068_004_29,
        -0.049_367_603, -0.034_915_01, -0.024_073_006, -0.016_189_643, -0.010_625_263, -0.006_807_952_8,
        -0.004_260_141, -0.002_604_349_7,
    ],
    [
        -0.398_395_4, -0.390_982_58, -0.368_500_27, -0.333_169_6, -0.287_917_1, -0.236_321_2,
        -0.182_195_55, -0.129_175_98, -0.080_368_823, -0.038_103_33, -0.003_809_584_8, 0.021_978_805,
        0.039_517_154, 0.049_669_942, 0.053_696_555, 0.053_038_022, 0.049_132_58, 0.043_277_305,
        0.036_542_114, 0.029_733_223, 0.023_396_747, 0.017_850_134, 0.013_228_786, 0.009_537_099,
        0.006_696_05, 0.004_582_647_8, 0.003_059_323_8, 0.001_993_450_7, 0.001_268_450_3, 0.000_788_518_87,
        0.000_479_046_06, 0.000_284_513_55,
    ],
];

/// The tanh approximation of GELU, `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
#[inline(always)]
pub(crate) fn gelu_tanh<V: Vector>(x: V) -> V {
    // (1 + tanh u) / 2 = sigmoid(2u).
    let slope = (x * x).mul_add(V::splat(0.071_354_814), V::splat(1.595_769));
    x * sigmoid(x * slope)
}

/// Natural logarithm; NaN below 0, −∞ at 0.
#[inline(always)]
pub(crate) fn log<V: Vector>(x: V) -> V {
    let (zero, one) = (V::splat(0.0), V::splat(1.0));
    let tiny = x.less(V::splat(f32::MIN_POSITIVE));
    let scaled = V::select(tiny, x * V::splat(8_388_608.0), x);
    // Mantissa in √½..√2: moving the bits by the distance from √½ to 1 makes the exponent field
    // count from there.
    let shift = V::int_splat(1.0_f32.to_bits() as i32 - FRAC_1_SQRT_2.to_bits() as i32);
    let moved = V::int_add(scaled.bits(), shift);
    let field = V::int_and(moved, V::int_splat(0x7f80_0000));
    let power = V::from_int(field) * V::splat(1.0 / 8_388_608.0) - V::splat(127.0);
    let power = V::select(tiny, power - V::splat(23.0), power);
    let one_bits = V::int_splat(1.0_f32.to_bits() as i32);
    let mantissa = V::from_bits(V::int_sub(V::int_add(scaled.bits(), one_bits), field));
    let f = mantissa - one;
    let p = polynomial!(
        f;
        -0.078_625_15,
        0.128_834_07,
        -0.131_283_95,
        0.141_808_73,
        -0.166_245_61,
        0.200_023_04,
        -0.250_008_1,
        0.333_333_16
    );
    let square = f * f;
    let rest = (square * f).mul_add(p, square * V::splat(-0.5));
    let low = power.mul_add(V::splat(LN_2_LOW), rest);
    let value = power.mul_add(V::splat(LN_2_HIGH), f + low);
    let value = V::select(x.equal(zero), V::splat(f32::NEG_INFINITY), value);
    let value = V::select(x.less(zero), V::splat(f32::NAN), value);
    // Infinity and NaN are their own logarithms.
    V::select(x.less(V::splat(f32::INFINITY)), value, x)
}

/// ln(1 + e^x).
#[inline(always)]
pub(crate) fn softplus<V: Vector>(x: V) -> V {
    // ln(1 + e) = e ln(u) / (u − 1) with u = 1 + e rounded (Kahan): the error of u cancels.
    let one = V::splat(1.0);
    let e = exp_not_positive(-x.abs());
    let u = one + e;
    let lost = u.equal(one);
    let ratio = e / V::select(lost, one, u - one);
    V::splat(0.0).max_keeping_nan(x) + V::select(lost, e, log(u) * ratio)
}

/// x tanh(ln(1 + e^x)).
#[inline(always)]
pub(crate) fn mish<V: Vector>(x: V) -> V {
    // With e = e^x the tangent is e(e + 2) / (e(e + 2) + 2); beyond 20 it is 1.
    let e = exp(V::splat(20.0).min(x));
    let n = e * (e + V::splat(2.0));
    x * (n / (n + V::splat(2.0)))
}

/// x where positive, `alpha (e^(x / beta) − 1)` elsewhere, both times `gamma`: ELU, CELU, SELU.
#[inline(always)]
pub(crate) fn exponential_linear<V: Vector>(x: V, alpha: V, beta: V, gamma: V) -> V {
    let zero = V::splat(0.0);
    let negative = alpha * exp_minus_one_not_positive(zero.min(x / beta));
    gamma * V::select(zero.less(x), x, negative)
}

/// −1, 0 or 1; NaN for NaN.
#[inline(always)]
pub(crate) fn sign<V: Vector>(x: V) -> V {
    let zero = V::splat(0.0);
    let value = V::select(zero.less(x), V::splat(1.0), x);
    V::select(x.less(zero), V::splat(-1.0), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::portable::vector::Vector4;

    #[test]
    fn tails_of_gelu_are_near() {
        for i in 0..44_000 {
            let z = i as f32 * 1e-4;
            let first = |value: Vector4| {
                let mut lanes = [0.0; 4];
                // SAFETY: four values are writable.
                unsafe { value.store(lanes.as_mut_ptr()) };
                lanes[0]
            };
            let x = Vector4::splat(z);
            let want = z - first(gelu(x));
            for tail in [gelu_tail(x), gelu_tail_by_parts(x)] {
                assert!((first(tail) - want).abs() < 2.5e-5, "{z}: {}, not {want}", first(tail));
            }
        }
    }
}
