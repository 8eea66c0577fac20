//! Entropy coding of byte tensors: adaptive binary range coding with the neighbours as context.
//!
//! A value is coded as "is it zero", its sign, and its magnitude in unary, each binary decision with
//! a probability that adapts to what was seen in the same context, as in CABAC (Marpe, Schwarz and
//! Wiegand 2003) and, for weights, DeepCABAC (Wiedemann et al. 2020). The range coder keeps a carry,
//! after Martin (1979). The context of "is it zero" is what the left, second left and upper
//! neighbours are, and how dense row and column have been; dead rows and columns so cost next to
//! nothing.

/// Values a coded byte can stand for at most: a decision costs at least 2⁻¹¹ of a bit.
pub const MOST_VALUES_PER_BYTE: usize = 16384;

const HALF: u16 = 1 << 15;
const LEAST: u32 = 32;
const MOST: u32 = 65536 - LEAST;

/// Probability that a decision is true: the mean of a fast and a slow estimate, in 1/65536. Both
/// move by half, quarters … of the error at first, so that a few decisions are enough to start.
#[derive(Clone, Copy)]
struct Chance {
    fast: u16,
    slow: u16,
    seen: u16,
}

const EVEN: Chance = Chance { fast: HALF, slow: HALF, seen: 0 };

/// The estimates move by 2^−5 and 2^−8 of the error in the end.
const FAST: u32 = 5;
const SLOW: u32 = 8;

impl Chance {
    fn of_true(self) -> u32 {
        ((u32::from(self.fast) + u32::from(self.slow)) / 2).clamp(LEAST, MOST)
    }

    fn learn(&mut self, bit: bool) {
        let step = |p: u16, rate: u32| {
            if bit { p + ((u16::MAX - p) >> rate) } else { p - (p >> rate) }
        };
        let start = (self.seen + 2).ilog2();
        self.fast = step(self.fast, FAST.min(start));
        self.slow = step(self.slow, SLOW.min(start));
        self.seen = (self.seen + 1).min(1 << SLOW);
    }
}

/// One binary decision at a time; the encoder is told it, the decoder finds it.
trait Coder {
    fn code(&mut self, chance: u32, bit: bool) -> bool;
}

struct Encoder {
    low: u64,
    range: u32,
    /// The byte that a carry may still change, and how many 255s follow it.
    held: Option<u8>,
    full: usize,
    bytes: Vec<u8>,
}

impl Encoder {
    fn new() -> Self {
        Encoder { low: 0, range: u32::MAX, held: None, full: 0, bytes: Vec::new() }
    }

    fn shift(&mut self) {
        let carry = (self.low >> 32) as u8;
        if self.low < 0xff00_0000 || carry != 0 {
            if let Some(held) = self.held {
                self.bytes.push(held.wrapping_add(carry));
            }
            self.bytes.extend(std::iter::repeat_n(0xffu8.wrapping_add(carry), self.full));
            self.full = 0;
            self.held = Some((self.low >> 24) as u8);
        } else {
            self.full += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    fn finish(mut self) -> Vec<u8> {
        for _ in 0..5 {
            self.shift();
        }
        while self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
        self.bytes
    }
}

impl Coder for Encoder {
    #[inline]
    fn code(&mut self, chance: u32, bit: bool) -> bool {
        let bound = (self.range >> 16) * chance;
        if bit {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
        bit
    }
}

/// Reads zeros behind the end, which the encoder leaves out.
struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Decoder { bytes, at: 0, range: u32::MAX, code: 0 };
        for _ in 0..4 {
            decoder.pull();
        }
        decoder
    }

    fn pull(&mut self) {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        self.code = self.code << 8 | u32::from(byte);
    }
}

impl Coder for Decoder<'_> {
    #[inline]
    fn code(&mut self, chance: u32, _: bool) -> bool {
        let bound = (self.range >> 16) * chance;
        let bit = self.code < bound;
        if bit {
            self.range = bound;
        } else {
            self.code -= bound;
            self.range -= bound;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.pull();
        }
        bit
    }
}

/// Unary magnitudes up to this have a context each; the rest is Exp-Golomb.
const UNARY: usize = 15;
/// Steps of density that contexts tell apart.
const DENSITIES: usize = 6;

/// What is known of a tensor of `columns` columns while it is coded row by row.
struct Model {
    zero: Vec<Chance>,
    sign: [Chance; 3],
    magnitude: [[Chance; UNARY]; 2],
    /// Share of values that were not zero, in 1/65536: of each column, and of late in the row.
    columns: Vec<u16>,
    row: u16,
}

fn density(share: u16) -> usize {
    const EDGES: [u16; DENSITIES - 1] = [256, 1024, 4096, 12288, 32768];
    EDGES.iter().filter(|&&edge| share >= edge).count()
}

fn follow(share: &mut u16, hit: bool) {
    *share = if hit { *share + ((u16::MAX - *share) >> 4) } else { *share - (*share >> 4) };
}

impl Model {
    fn new(columns: usize) -> Self {
        Model {
            zero: vec![EVEN; 8 * DENSITIES * DENSITIES],
            sign: [EVEN; 3],
            magnitude: [[EVEN; UNARY]; 2],
            columns: vec![8192; columns],
            row: 8192,
        }
    }

    /// Codes one value; `near` are the left, second left and upper neighbours.
    #[inline]
    fn value(&mut self, coder: &mut impl Coder, column: usize, near: [i8; 3], value: i8) -> i8 {
        let bits = near.iter().fold(0, |sum, &n| sum << 1 | usize::from(n != 0));
        let context = density(self.columns[column]) * DENSITIES + density(self.row);
        let set = decide(coder, &mut self.zero[bits * DENSITIES * DENSITIES + context], value != 0);
        follow(&mut self.columns[column], set);
        follow(&mut self.row, set);
        if !set {
            return 0;
        }
        let side = match near[0] {
            0 => 0,
            1.. => 1,
            _ => 2,
        };
        let negative = decide(coder, &mut self.sign[side], value < 0);
        let large = usize::from(near[0].unsigned_abs() > 1);
        let rest = self.rest(coder, large, u32::from(value.unsigned_abs()).wrapping_sub(1));
        let magnitude = rest.saturating_add(1).min(if negative { 128 } else { 127 });
        if negative { (-(magnitude as i32)) as i8 } else { magnitude as i8 }
    }

    /// The magnitude less one.
    fn rest(&mut self, coder: &mut impl Coder, large: usize, value: u32) -> u32 {
        for (at, chance) in self.magnitude[large].iter_mut().enumerate() {
            if !decide(coder, chance, value > at as u32) {
                return at as u32;
            }
        }
        let mut even = |bit: bool| coder.code(u32::from(HALF), bit);
        let above = value.wrapping_sub(UNARY as u32).wrapping_add(1);
        let length = above.max(1).ilog2();
        let mut width = 0;
        while width < 8 && even(width < length) {
            width += 1;
        }
        let mut read = 1u32;
        for at in (0..width).rev() {
            read = read << 1 | u32::from(even(above >> at & 1 != 0));
        }
        read - 1 + UNARY as u32
    }
}

#[inline]
fn decide(coder: &mut impl Coder, chance: &mut Chance, bit: bool) -> bool {
    let bit = coder.code(chance.of_true(), bit);
    chance.learn(bit);
    bit
}

/// Goes over a tensor of rows of `columns` values; `values` are read by an encoder and written by a
/// decoder.
fn walk(coder: &mut impl Coder, columns: usize, values: &mut [i8]) {
    let mut model = Model::new(columns);
    for start in (0..values.len()).step_by(columns.max(1)) {
        let width = columns.min(values.len() - start);
        for column in 0..width {
            let at = start + column;
            let left = if column > 0 { values[at - 1] } else { 0 };
            let second = if column > 1 { values[at - 2] } else { 0 };
            let upper = if at >= columns { values[at - columns] } else { 0 };
            values[at] = model.value(coder, column, [left, second, upper], values[at]);
        }
    }
}

/// The coded form of a tensor whose rows have `columns` values.
pub fn encode(columns: usize, values: &[i8]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    walk(&mut encoder, columns, &mut values.to_vec());
    encoder.finish()
}

/// The `count` values that `bytes` code. Bytes that no encoder wrote give some values.
pub fn decode(columns: usize, count: usize, bytes: &[u8]) -> Vec<i8> {
    let mut values = vec![0; count];
    walk(&mut Decoder::new(bytes), columns, &mut values);
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values on a grid of `levels` steps each way, the share `density` of them not zero.
    fn sparse(count: usize, density: f64, levels: i32, mut seed: u64) -> Vec<i8> {
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as f64 / (1u64 << 31) as f64
        };
        let value = |next: &mut dyn FnMut() -> f64| {
            if next() >= density {
                return 0;
            }
            let magnitude = 1 + (next() * next() * f64::from(levels)) as i32;
            (if next() < 0.5 { -magnitude } else { magnitude }).clamp(-128, 127) as i8
        };
        (0..count).map(|_| value(&mut next)).collect()
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            columns in 1_usize..70, count in 0_usize..3000, density in 0.0_f64..1.0,
            levels in 1_i32..200, seed in any::<u64>(),
        ) {
            let values = sparse(count, density, levels, seed);
            let bytes = encode(columns, &values);
            prop_assert_eq!(decode(columns, count, &bytes), values);
        }

        #[test]
        fn any_bytes_decode_to_something(
            columns in 1_usize..20, count in 0_usize..500,
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            prop_assert_eq!(decode(columns, count, &bytes).len(), count);
        }
    }

    #[test]
    fn extremes() {
        let all: Vec<i8> = (0..=255).map(|v: u8| v as i8).collect();
        assert_eq!(decode(16, 256, &encode(16, &all)), all);
        let zeros = vec![0; 1 << 20];
        let bytes = encode(1024, &zeros);
        assert!(bytes.len() <= (zeros.len() / 1000), "{}", bytes.len());
        assert!(bytes.len() * MOST_VALUES_PER_BYTE >= zeros.len());
        assert_eq!(decode(1024, zeros.len(), &bytes), zeros);
    }

    #[test]
    fn close_to_the_entropy_and_better_with_structure() {
        let count = 200_000;
        let values = sparse(count, 0.03, 4, 7);
        let mut seen = [0usize; 256];
        values.iter().for_each(|&v| seen[usize::from(v as u8)] += 1);
        let bits: f64 = seen
            .iter()
            .filter(|&&n| n > 0)
            .map(|&n| -(n as f64) * (n as f64 / count as f64).log2())
            .sum();
        let found = encode(500, &values).len() as f64 * 8.0;
        assert!(found < bits * 1.03, "{found} bits, entropy {bits}");
        // The same number of values in a tenth of the columns.
        let mut dense = sparse(count / 10, 0.3, 4, 9).into_iter();
        let live = |at: usize| (at % 500).is_multiple_of(10);
        let gathered: Vec<i8> =
            (0..count).map(|at| if live(at) { dense.next().unwrap_or(0) } else { 0 }).collect();
        let spread = encode(499, &gathered).len();
        let kept = encode(500, &gathered).len();
        assert!(kept * 20 < spread * 19, "{kept} {spread}");
    }
}
