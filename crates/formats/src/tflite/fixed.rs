//! `HARD_SWISH` of bytes in the interpreter's fixed point of 16 bits, as a table.

use super::schema::TensorInfo;

/// `x·a`, doubled and rounded to its upper half: halves go away from zero.
fn rounded_product(x: i32, a: i32) -> i32 {
    let product = i64::from(x) * i64::from(a);
    let half = if product >= 0 { 1 << 14 } else { 1 - (1 << 14) };
    ((product + half) / (1 << 15)) as i32
}

/// `x / 2^bits`, halves away from zero.
fn rounded_shift(x: i32, bits: u32) -> i32 {
    let (rest, half) = (x & ((1 << bits) - 1), ((1 << bits) - 1) >> 1);
    (x >> bits) + i32::from(rest > half + i32::from(x < 0))
}

/// A factor as an integer of 16 bits, 2^15 standing for 1, and a power of two.
struct Factor {
    mantissa: i32,
    exponent: i32,
}

impl Factor {
    /// `None` where the power of two is none that 16 bits take.
    fn of(value: f32) -> Option<Factor> {
        if !(1e-6..1e6).contains(&value) {
            return None;
        }
        let mut exponent = f64::from(value).log2().floor() as i32 + 1;
        let mut wide = (f64::from(value) * 2f64.powi(31 - exponent)).round() as i64;
        if wide == 1 << 31 {
            (wide, exponent) = (wide / 2, exponent + 1);
        }
        let mantissa = ((wide + (1 << 15)) >> 16).min(i64::from(i16::MAX)) as i32;
        (-15..=15).contains(&exponent).then_some(Factor { mantissa, exponent })
    }
}

/// The result of every byte, the least first; `None` where the interpreter would refuse.
pub fn hard_swish(given: &TensorInfo, result: &TensorInfo, least: i32) -> Option<Vec<i32>> {
    let fine = given.scale[0] / 128.0;
    let output = Factor::of(fine / result.scale[0]).filter(|factor| factor.exponent <= 0)?;
    let gate = Factor::of(fine / (3.0 / 32768.0))?;
    let byte = least..least + 256;
    let zero = |info: &TensorInfo| info.zero.first().map_or(Some(0), |&zero| zero.try_into().ok());
    let zeros = [zero(given)?, zero(result)?];
    if !zeros.iter().all(|zero| byte.contains(zero)) {
        return None;
    }
    let short = |x: i32| x.clamp(i32::from(i16::MIN), i32::from(i16::MAX));
    let of = |byte: i32| {
        let x = (byte - zeros[0]) * 128;
        let mut open = x;
        if gate.exponent > 0 {
            open = short(open << (gate.exponent - 1));
        }
        open = rounded_product(open, gate.mantissa);
        if gate.exponent > 0 {
            open = short(open << 1);
        } else {
            open = rounded_shift(open, gate.exponent.unsigned_abs());
        }
        open = (open + (1 << 15)) >> 1;
        let product = open * rounded_product(x, output.mantissa) / (1 << 15);
        let y = rounded_shift(product, output.exponent.unsigned_abs()) + zeros[1];
        y.clamp(least, least + 255)
    };
    Some(byte.map(of).collect())
}
