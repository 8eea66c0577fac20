//! Element types of eight bits and fewer, one element per byte: floats with few bits (OCP OFP8 and
//! Microscaling specifications, and the variants without negative zero), and short integers.

use crate::DType;

/// What the codes above the largest finite number mean.
#[derive(Clone, Copy, PartialEq)]
enum Above {
    /// Infinity, then not-a-number, as in IEEE 754.
    Infinity,
    /// The last code of each sign is not a number.
    LastIsNan,
    /// Nothing: the code of negative zero is not a number.
    MinusZeroIsNan,
    /// Nothing: every code is a number, and what is larger becomes the largest.
    Nothing,
}

/// A float of a sign, an exponent and a mantissa.
struct Small {
    bits: u32,
    mantissa_bits: u32,
    bias: i32,
    above: Above,
}

impl Small {
    fn sign(&self) -> u8 {
        1 << (self.bits - 1)
    }

    /// The code of the largest finite number.
    fn largest(&self) -> u8 {
        let all = self.sign() - 1;
        match self.above {
            Above::Infinity => all - (1 << self.mantissa_bits),
            Above::LastIsNan => all - 1,
            Above::MinusZeroIsNan | Above::Nothing => all,
        }
    }

    fn decode(&self, code: u8) -> f64 {
        let magnitude = code & (self.sign() - 1);
        let negative = code & self.sign() != 0;
        if self.above == Above::MinusZeroIsNan && negative && magnitude == 0 {
            return f64::NAN;
        }
        let value = if magnitude > self.largest() {
            let infinite = self.above == Above::Infinity && magnitude == self.largest() + 1;
            if infinite { f64::INFINITY } else { f64::NAN }
        } else {
            let field = i32::from(magnitude >> self.mantissa_bits);
            let rest = f64::from(magnitude & ((1 << self.mantissa_bits) - 1));
            let one = f64::from(1u32 << self.mantissa_bits);
            let (mantissa, exponent) = if field == 0 { (rest, 1) } else { (rest + one, field) };
            mantissa * 2f64.powi(exponent - self.bias - self.mantissa_bits as i32)
        };
        if negative { -value } else { value }
    }

    fn not_a_number(&self) -> u8 {
        match self.above {
            Above::MinusZeroIsNan => self.sign(),
            // There is none: minus zero, as other implementations give.
            Above::Nothing => self.sign(),
            _ => self.sign() - 1,
        }
    }

    /// The nearest number, to even where two are as near.
    fn encode(&self, value: f64) -> u8 {
        if value.is_nan() {
            return self.not_a_number();
        }
        let least = 1 - self.bias;
        let magnitude = value.abs();
        let exponent = if magnitude > 0.0 { magnitude.log2().floor() as i32 } else { least };
        let exponent = exponent.clamp(least, 1 << 10);
        let unit = 2f64.powi(exponent - self.mantissa_bits as i32);
        let steps = (magnitude / unit).round_ties_even();
        let code = f64::from(exponent - least) * f64::from(1u32 << self.mantissa_bits) + steps;
        let largest = self.largest();
        let sign = if value.is_sign_negative() { self.sign() } else { 0 };
        if code <= f64::from(largest) {
            let code = code as u8;
            let one_zero = self.above == Above::MinusZeroIsNan && code == 0;
            return if one_zero { 0 } else { code | sign };
        }
        match self.above {
            Above::Infinity => (largest + 1) | sign,
            Above::LastIsNan => (largest + 1) | sign,
            Above::MinusZeroIsNan => self.sign(),
            Above::Nothing => largest | sign,
        }
    }
}

const fn small(bits: u32, mantissa_bits: u32, bias: i32, above: Above) -> Small {
    Small { bits, mantissa_bits, bias, above }
}

const E4M3FN: Small = small(8, 3, 7, Above::LastIsNan);
const E4M3FNUZ: Small = small(8, 3, 8, Above::MinusZeroIsNan);
const E5M2: Small = small(8, 2, 15, Above::Infinity);
const E5M2FNUZ: Small = small(8, 2, 16, Above::MinusZeroIsNan);
const E2M1: Small = small(4, 1, 1, Above::Nothing);

/// A power of two; 255 is not a number.
fn decode_e8m0(code: u8) -> f64 {
    if code == 255 { f64::NAN } else { 2f64.powi(i32::from(code) - 127) }
}

/// The next power of two upwards, within the range; what is not positive becomes the smallest.
fn encode_e8m0(value: f64) -> u8 {
    if value.is_nan() {
        return 255;
    }
    (0..=254).find(|&code| decode_e8m0(code) >= value).unwrap_or(254)
}

/// The value of a code of one of the types of this file.
pub(crate) fn decode(dtype: DType, code: u8) -> f64 {
    match dtype {
        DType::F8E4M3FN => E4M3FN.decode(code),
        DType::F8E4M3FNUZ => E4M3FNUZ.decode(code),
        DType::F8E5M2 => E5M2.decode(code),
        DType::F8E5M2FNUZ => E5M2FNUZ.decode(code),
        DType::F4E2M1 => E2M1.decode(code & 15),
        DType::F8E8M0 => decode_e8m0(code),
        DType::I4 | DType::I2 => f64::from(code as i8),
        _ => f64::from(code),
    }
}

/// The code of a value in one of the types of this file: floats by rounding to the nearest (powers
/// of two upwards), integers as the longer ones do.
pub(crate) fn encode(dtype: DType, value: f64) -> u8 {
    match dtype {
        DType::F8E4M3FN => E4M3FN.encode(value),
        DType::F8E4M3FNUZ => E4M3FNUZ.encode(value),
        DType::F8E5M2 => E5M2.encode(value),
        DType::F8E5M2FNUZ => E5M2FNUZ.encode(value),
        DType::F4E2M1 => E2M1.encode(value),
        DType::F8E8M0 => encode_e8m0(value),
        DType::I4 => value.clamp(-8.0, 7.0) as i8 as u8,
        DType::I2 => value.clamp(-2.0, 1.0) as i8 as u8,
        DType::U4 => value.clamp(0.0, 15.0) as u8,
        _ => value.clamp(0.0, 3.0) as u8,
    }
}

/// The code of an integer in a short integer type: its low bits, as in two's complement.
pub(crate) fn wrap(dtype: DType, value: i64) -> u8 {
    match dtype {
        DType::I4 => ((value << 4) as i8 >> 4) as u8,
        DType::I2 => ((value << 6) as i8 >> 6) as u8,
        DType::U4 => (value & 15) as u8,
        _ => (value & 3) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOATS: &[DType] = &[
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F8E8M0,
        DType::F4E2M1,
    ];

    #[test]
    fn every_code_is_its_own_nearest() {
        for &dtype in FLOATS {
            let codes = if dtype == DType::F4E2M1 { 16 } else { 256 };
            for code in (0..codes).map(|code| code as u8) {
                let value = decode(dtype, code);
                let again = decode(dtype, encode(dtype, value));
                assert!(again == value || value.is_nan() && again.is_nan(), "{dtype} {code}");
            }
        }
    }

    #[test]
    fn the_largest_are_those_of_the_specification() {
        let largest = |dtype| {
            let all = (0..=255u8).map(|code| decode(dtype, code));
            all.filter(|value| value.is_finite()).fold(0.0, f64::max)
        };
        let found: Vec<f64> = FLOATS.iter().map(|&dtype| largest(dtype)).collect();
        assert_eq!(found, [448.0, 240.0, 57344.0, 57344.0, 2f64.powi(127), 6.0]);
    }

    #[test]
    fn ties_go_to_even_and_what_is_too_large_says_so() {
        assert_eq!(decode(DType::F8E4M3FN, encode(DType::F8E4M3FN, 17.0)), 16.0);
        assert_eq!(decode(DType::F8E4M3FN, encode(DType::F8E4M3FN, 19.0)), 20.0);
        assert!(decode(DType::F8E4M3FN, encode(DType::F8E4M3FN, 480.0)).is_nan());
        assert_eq!(decode(DType::F8E5M2, encode(DType::F8E5M2, -1e9)), f64::NEG_INFINITY);
        assert_eq!(decode(DType::F4E2M1, encode(DType::F4E2M1, -100.0)), -6.0);
        assert_eq!(decode(DType::F8E8M0, encode(DType::F8E8M0, 3.0)), 4.0);
        assert_eq!(decode(DType::I4, wrap(DType::I4, 8)), -8.0);
    }
}
