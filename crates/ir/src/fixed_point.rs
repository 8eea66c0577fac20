//! Arithmetic in fixed point as the integer kernels of TensorFlow Lite and gemmlowp define it:
//! reals as an integer and a shift (Jacob et al. 2018, arXiv:1712.05877), σ and tanh in 16 bits.

/// 1 as a fraction in 16 bits, as near as it gets.
const ONE: i32 = i16::MAX as i32;

/// e^(2ⁿ) for n from −2 to 4 with minus signs, as fractions in 32 bits.
const EXPONENTIALS: [(i32, i32); 7] = [
    (-2, 1_672_461_947),
    (-1, 1_302_514_674),
    (0, 790_015_084),
    (1, 290_630_308),
    (2, 39_332_535),
    (3, 720_401),
    (4, 242),
];

/// A positive real as `mantissa · 2^(shift − 31)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplier {
    /// From 2³⁰ to 2³¹, or zero.
    pub mantissa: i32,
    /// Power of two; negative for reals below one half.
    pub shift: i32,
}

impl Multiplier {
    /// The nearest one to `real`, which must not be negative; what is below 2⁻³² is zero.
    pub fn of(real: f32) -> Self {
        let zero = Multiplier { mantissa: 0, shift: 0 };
        if real <= 0.0 || !real.is_finite() {
            return zero;
        }
        let real = f64::from(real);
        // A finite f32 is a normal f64: real = fraction · 2^shift with a fraction from 1/2 to 1.
        let mut shift = (real.to_bits() >> 52) as i32 - 1022;
        let mut mantissa = (real * 2f64.powi(31 - shift)).round() as i64;
        if mantissa == 1 << 31 {
            mantissa /= 2;
            shift += 1;
        }
        if shift < -31 { zero } else { Multiplier { mantissa: mantissa as i32, shift } }
    }

    /// `x` times the real, rounded twice: the product to 32 bits (halves upwards), then what the
    /// shift drops (halves away from zero).
    pub fn times(self, x: i32) -> i32 {
        let wide = x.wrapping_shl(self.shift.max(0) as u32);
        rounded_shift(doubled_high(wide, self.mantissa), (-self.shift).max(0))
    }
}

/// The upper half of `2·a·b`, rounded to the nearest, halves upwards.
fn doubled_high(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    let product = i64::from(a) * i64::from(b);
    let nudge = if product >= 0 { 1 << 30 } else { 1 - (1 << 30) };
    ((product + nudge) / (1 << 31)) as i32
}

/// `x / 2^power`, rounded to the nearest, halves away from zero; `power` is from 0 to 31.
pub fn rounded_shift(x: i32, power: i32) -> i32 {
    let mask = ((1i64 << power) - 1) as i32;
    let threshold = (mask >> 1) + i32::from(x < 0);
    (x >> power.min(31)) + i32::from((x & mask) > threshold)
}

/// [`doubled_high`] of fractions in 16 bits.
fn product(a: i32, b: i32) -> i32 {
    let product = a * b;
    let nudge = if product >= 0 { 1 << 14 } else { 1 - (1 << 14) };
    ((product + nudge) / (1 << 15)).min(ONE)
}

/// The result that 16 bits keep.
fn wrapped(x: i32) -> i32 {
    i32::from(x as i16)
}

fn saturated(x: i32) -> i32 {
    x.clamp(i32::from(i16::MIN), ONE)
}

/// e^a for a from −1/4 up to 0, by its series about −1/8.
fn exponential_near_zero(a: i32) -> i32 {
    const AT_EIGHTH: i32 = 28918; // e^(−1/8)
    const THIRD: i32 = 10923;
    let x = a + (1 << 12);
    let second = product(x, x);
    let third = product(second, x);
    let fourth = rounded_shift(product(second, second), 2);
    let upper = rounded_shift(product(wrapped(fourth + third), THIRD) + second, 1);
    saturated(AT_EIGHTH + product(AT_EIGHTH, wrapped(x + upper)))
}

/// e^a as a fraction for a ≤ 0 with `integer_bits` bits above the point.
fn exponential(a: i32, integer_bits: i32) -> i32 {
    if a == 0 {
        return ONE;
    }
    let fraction_bits = 15 - integer_bits;
    let quarter = 1 << (fraction_bits - 2);
    let within = (a & (quarter - 1)) - quarter;
    let remainder = within - a;
    let mut result = exponential_near_zero(within << integer_bits);
    for (power, factor) in EXPONENTIALS {
        if integer_bits > power && remainder & (1 << (fraction_bits + power)) != 0 {
            result = product(result, rounded_shift(factor, 16));
        }
    }
    let underflows = integer_bits > 5 && a < -(1 << (fraction_bits + 5));
    if underflows { 0 } else { result }
}

/// `2 / (1 + a)` with two bits above the point for a fraction a ≥ 0, by Newton and Raphson.
fn doubled_reciprocal(a: i32) -> i32 {
    const ONE_OF_TWO_BITS: i32 = 1 << 13;
    const FIRST: i32 = 23130; // 48/17
    const SLOPE: i32 = -15420; // −32/17
    let half = (a + ONE + 1) / 2;
    let mut x = wrapped(FIRST + product(half, SLOPE));
    for _ in 0..3 {
        let rest = ONE_OF_TWO_BITS - product(half, x);
        x = wrapped(x + saturated(product(x, rest) << 2));
    }
    x
}

/// 1/(1 + e⁻ˣ) of x in Q3.12, as a fraction in 16 bits.
pub fn sigmoid(x: i16) -> i16 {
    if x == 0 {
        return 1 << 14;
    }
    let negative = -i32::from(x).abs();
    let positive_side = saturated(doubled_reciprocal(exponential(negative, 3)) << 1);
    (if x > 0 { positive_side } else { ONE - positive_side }) as i16
}

/// tanh of x with `integer_bits` (0 to 6) bits above the point, as a fraction in 16 bits.
pub fn tanh(x: i16, integer_bits: i32) -> i16 {
    if x == 0 {
        return 0;
    }
    // tanh(−a) = −(1 − e⁻²ᵃ)/(1 + e⁻²ᵃ); doubling only moves the point.
    let reciprocal = doubled_reciprocal(exponential(-i32::from(x).abs(), integer_bits + 1));
    let magnitude = saturated((reciprocal - (1 << 13)) << 2);
    (if x < 0 { -magnitude } else { magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipliers_are_the_reals() {
        for real in [1e-9f32, 0.3, 0.5, 0.999_999_94, 1.0, 7.25, 1e4] {
            let made = Multiplier::of(real);
            let found = f64::from(made.mantissa) * 2f64.powi(made.shift - 31);
            assert!((found / f64::from(real) - 1.0).abs() < 1e-9, "{real}: {made:?}");
        }
        assert_eq!(Multiplier::of(0.0).times(1 << 20), 0);
        let half = Multiplier::of(0.5);
        assert_eq!([3, -3, 5, 1 << 20].map(|x| half.times(x)), [2, -1, 3, 1 << 19]);
        let quarter = Multiplier::of(0.25);
        assert_eq!([6, -6, 7, -7, 5].map(|x| quarter.times(x)), [2, -2, 2, -2, 2]);
        assert_eq!(Multiplier::of(8.0).times(-5), -40);
    }

    #[test]
    fn functions_are_near_the_reals() {
        for x in (i16::MIN..=i16::MAX).step_by(7) {
            let real = f64::from(x) / 4096.0;
            let apart = f64::from(sigmoid(x)) / 32768.0 - 1.0 / (1.0 + (-real).exp());
            assert!(apart.abs() < 3e-4, "sigmoid {real}: {apart}");
            for bits in 0..=6 {
                let real = f64::from(x) / f64::from(1 << (15 - bits));
                let apart = f64::from(tanh(x, bits)) / 32768.0 - real.tanh();
                assert!(apart.abs() < 6e-4, "tanh {real} in {bits}: {apart}");
            }
        }
    }
}
