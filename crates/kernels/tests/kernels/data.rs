//! Values of cases: a case is its sizes and a seed.

use proptest::prelude::*;

/// A small generator, so that a case is its seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() >> 8) as usize % end.max(1)
    }

    /// Uniform in -1..1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Bytes, with the extremes often, so that saturating sums are caught.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut byte = || match self.bits() % 4 {
            0 => 255,
            _ => self.bits() as u8,
        };
        (0..count).map(|_| byte()).collect()
    }

    pub fn signed_bytes(&mut self, count: usize) -> Vec<i8> {
        let mut byte = || match self.bits() % 6 {
            0 => 127,
            1 => -128,
            _ => self.bits() as i8,
        };
        (0..count).map(|_| byte()).collect()
    }

    /// Makes a few values, in one case of four, infinite or no numbers.
    pub fn disturb(&mut self, values: &mut [f32]) {
        if !self.bits().is_multiple_of(4) || values.is_empty() {
            return;
        }
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            if self.bits().is_multiple_of(2) {
                values[self.below(values.len())] = value;
            }
        }
    }
}

/// Floats of moderate size, halves among them, and numbers that are special.
pub fn floats() -> impl Strategy<Value = f32> {
    let special = vec![
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1e-40,
        -1e-42,
        1e30,
        f32::MAX,
        f32::MIN_POSITIVE,
    ];
    prop_oneof![
        8 => -300.0f32..300.0,
        4 => -4.0f32..4.0,
        2 => (-80i32..80).prop_map(|i| i as f32 * 0.5),
        1 => prop::sample::select(special),
    ]
}

/// A list of [`floats`], empty ones and those longer than a few vectors included.
pub fn lists() -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![
        4 => prop::collection::vec(floats(), 0..140),
        1 => prop::collection::vec(floats(), 140..700),
    ]
}

/// Lengths that leave rests of every vector, and none.
pub fn lengths(most: usize) -> impl Strategy<Value = usize> {
    let whole = (1..=(most / 16).max(1)).prop_map(move |n| (n * 16).min(most));
    prop_oneof![1 => Just(0), 6 => 1..=most, 2 => whole]
}
