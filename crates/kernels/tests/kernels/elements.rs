//! Functions of elements: of one variable, of two with broadcasting, between types; transposition.

use std::ops::Range;

use half::{bf16, f16};
use lepton_kernels::Isa;
use lepton_kernels::binary::{Binary, NO_CLAMP, binary_f32, binary_f32_in_place};
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::map::{Unary, map_f32, map_f32_in_place, map_u8_table, map_u8_table_in_place};
use lepton_kernels::quantize::*;
use lepton_kernels::transpose::{Element, permutation, rearrange};
use proptest::prelude::*;

use crate::accuracy::{CASES, Reference};
use crate::data::{Random, floats, lengths, lists};
use crate::frame::{Compare, Row, Values, on_slices, undefined};

pub const ROWS: &[Row] = &[
    // Against double precision in accuracy.rs.
    Row {
        name: "map::map_f32",
        compare: Compare::Close(2e-5),
        run: |row| row.run(lists(), |x, isa, threads| mapped(x, isa, threads, false), undefined),
    },
    Row {
        name: "map::map_f32_in_place",
        compare: Compare::Close(2e-5),
        run: |row| row.run(lists(), |x, isa, threads| mapped(x, isa, threads, true), undefined),
    },
    Row {
        name: "map::map_u8_table",
        compare: Compare::Bits,
        run: |row| {
            row.run(tables(), |case, isa, threads| looked_up(case, isa, threads, false), looked)
        },
    },
    Row {
        name: "map::map_u8_table_in_place",
        compare: Compare::Bits,
        run: |row| {
            row.run(tables(), |case, isa, threads| looked_up(case, isa, threads, true), looked)
        },
    },
    Row {
        name: "binary::binary_f32",
        compare: Compare::Bits,
        run: |row| row.run(pairs(false), joined, Pair::results),
    },
    Row {
        name: "binary::binary_f32_in_place",
        compare: Compare::Bits,
        run: |row| row.run(pairs(true), joined_in_place, Pair::results),
    },
    Row {
        name: "quantize::quantize",
        compare: Compare::Bits,
        run: |row| row.run(scaled(), to_bytes, defined_bytes),
    },
    Row {
        name: "quantize::dequantize",
        compare: Compare::Bits,
        run: |row| row.run(scaled(), from_bytes, defined_floats),
    },
    Row {
        name: "quantize::range_f32",
        compare: Compare::Bits,
        run: |row| row.run(lists(), |x, isa, _| vec![values(&range_f32(isa, x))], |x| range(x)),
    },
    Row {
        name: "quantize::add_quantized",
        compare: Compare::Bits,
        run: |row| {
            row.run(
                quantized(),
                |case, isa, threads| case.run(isa, threads, false),
                |case| case.results(false),
            )
        },
    },
    Row {
        name: "quantize::multiply_quantized",
        compare: Compare::Bits,
        run: |row| {
            row.run(
                quantized(),
                |case, isa, threads| case.run(isa, threads, true),
                |case| case.results(true),
            )
        },
    },
    Row {
        name: "quantize::f32_to_f16",
        compare: Compare::Bits,
        run: |row| {
            row.run(
                patterns(),
                |x, isa, threads| halved(x, isa, threads),
                |x| Some(vec![half_bits(x.iter().map(|x| f16::from_f32_const(*x).to_bits()))]),
            )
        },
    },
    Row {
        name: "quantize::f32_to_bf16",
        compare: Compare::Bits,
        run: |row| {
            row.run(
                patterns(),
                |x, isa, threads| shortened(x, isa, threads),
                |x| Some(vec![half_bits(x.iter().map(|x| bf16::from_f32(*x).to_bits()))]),
            )
        },
    },
    Row {
        name: "quantize::f16_to_f32",
        compare: Compare::Bits,
        run: |row| {
            row.run(
                words(),
                |x, isa, threads| doubled(x, isa, threads),
                |x| {
                    Some(vec![values(
                        &x.iter().map(|x| f16::from_bits(*x).to_f32_const()).collect::<Vec<_>>(),
                    )])
                },
            )
        },
    },
    Row {
        name: "quantize::bf16_to_f32",
        compare: Compare::Bits,
        run: |row| {
            row.run(
                words(),
                |x, isa, threads| lengthened(x, isa, threads),
                |x| {
                    Some(vec![values(
                        &x.iter().map(|x| bf16::from_bits(*x).to_f32()).collect::<Vec<_>>(),
                    )])
                },
            )
        },
    },
    Row {
        name: "transpose::rearrange",
        compare: Compare::Bits,
        run: |row| row.run(moves(), moved, Move::results),
    },
];

fn values(values: &[f32]) -> Values {
    Values::Floats(values.to_vec())
}

fn mapped(x: &[f32], isa: Isa, threads: usize, in_place: bool) -> Vec<Values> {
    let of = |(function, ..): &(Unary, Reference, f64, f64)| {
        let mut y = if in_place { x.to_vec() } else { vec![7.0; x.len()] };
        on_slices(threads, &mut y, 1, x.len() as u64, |range, y| {
            if in_place {
                map_f32_in_place(isa, *function, y);
            } else {
                map_f32(isa, *function, &x[range], y);
            }
        });
        values(&y)
    };
    CASES.iter().map(of).collect()
}

fn tables() -> impl Strategy<Value = (Vec<u8>, u8)> {
    (prop::collection::vec(any::<u8>(), 0..600), any::<u8>())
}

fn table(seed: u8) -> [u8; 256] {
    std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ seed)
}

fn looked_up((x, seed): &(Vec<u8>, u8), isa: Isa, threads: usize, in_place: bool) -> Vec<Values> {
    let mut y = if in_place { x.clone() } else { vec![0; x.len()] };
    on_slices(threads, &mut y, 1, u64::from(*seed), |range, y| {
        if in_place {
            map_u8_table_in_place(isa, &table(*seed), y);
        } else {
            map_u8_table(isa, &table(*seed), &x[range], y);
        }
    });
    vec![Values::integers(&y)]
}

fn looked((x, seed): &(Vec<u8>, u8)) -> Option<Vec<Values>> {
    let y: Vec<u8> = x.iter().map(|&x| table(*seed)[usize::from(x)]).collect();
    Some(vec![Values::integers(&y)])
}

/// A shape, and for each of two operands which axes it repeats.
fn shapes(whole: bool) -> impl Strategy<Value = (Vec<usize>, [Vec<usize>; 2])> {
    let axis = (prop_oneof![1 => Just(0usize), 20 => 1..6usize], any::<[bool; 2]>());
    let axes = prop::collection::vec(axis, 0..4);
    (axes, lengths(70), any::<[bool; 2]>()).prop_map(move |(mut axes, last, repeats)| {
        axes.push((last, repeats));
        let shape = axes.iter().map(|axis| axis.0).collect();
        let operand = |k: usize| -> Vec<usize> {
            let repeats = |repeat: &[bool; 2]| repeat[k] && !(whole && k == 0);
            axes.iter().map(|(n, repeat)| if repeats(repeat) { 1 } else { *n }).collect()
        };
        (shape, [operand(0), operand(1)])
    })
}

/// The element of a dense operand that lies at `at` of the output.
pub fn locate(shape: &[usize], operand: &[usize], mut at: usize) -> usize {
    let (mut offset, mut stride) = (0, 1);
    for (&size, &own) in shape.iter().zip(operand).rev() {
        offset += if own == 1 { 0 } else { at % size * stride };
        stride *= own;
        at /= size;
    }
    offset
}

/// A function of two operands over a part of the output.
#[derive(Clone, Debug)]
struct Pair {
    shape: Vec<usize>,
    operands: [Vec<usize>; 2],
    a: Vec<f32>,
    b: Vec<f32>,
    /// The part, in shares of the whole.
    part: [f64; 2],
    clamp: [f32; 2],
}

fn pairs(whole: bool) -> impl Strategy<Value = Pair> {
    let clamps = prop_oneof![Just(NO_CLAMP), Just([-0.5, 1.0])];
    (shapes(whole), [0.0..1.0f64, 0.0..1.0f64], clamps).prop_flat_map(
        |((shape, operands), part, clamp)| {
            let values =
                |k: usize| prop::collection::vec(floats(), operands[k].iter().product::<usize>());
            (values(0), values(1), Just((shape, operands.clone()))).prop_map(
                move |(a, b, (shape, operands))| Pair { shape, operands, a, b, part, clamp },
            )
        },
    )
}

impl Pair {
    fn plan(&self) -> Broadcast<2> {
        let [a, b] = &self.operands;
        Broadcast::dense(&self.shape, [a, b]).expect("operands that broadcast")
    }

    fn range(&self) -> Range<usize> {
        let len = self.shape.iter().product::<usize>() as f64;
        let [a, b] = self.part;
        (a.min(b) * len) as usize..(a.max(b) * len) as usize
    }

    fn results(&self) -> Option<Vec<Values>> {
        let [a, b] = &self.operands;
        let of = |function: &Binary| {
            let value = |at: usize| {
                let a = self.a[locate(&self.shape, a, at)];
                let y = scalar(*function, a, self.b[locate(&self.shape, b, at)]);
                // NaN passes.
                let y = if y < self.clamp[0] { self.clamp[0] } else { y };
                if y > self.clamp[1] { self.clamp[1] } else { y }
            };
            Values::Floats(self.range().map(value).collect())
        };
        Some(Binary::ALL.iter().map(of).collect())
    }
}

fn scalar(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::Max if a.is_nan() || a > b => a,
        Binary::Min if a.is_nan() || a < b => a,
        Binary::Max | Binary::Min => b,
        Binary::SquaredDifference => (a - b) * (a - b),
        Binary::Prelu if a < 0.0 => a * b,
        Binary::Prelu => a,
        Binary::Power => a.powf(b),
        Binary::Remainder => a % b,
        Binary::Modulo => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
    }
}

fn joined(case: &Pair, isa: Isa, threads: usize) -> Vec<Values> {
    let (plan, range) = (case.plan(), case.range());
    let of = |function: &Binary| {
        let mut y = vec![9.0; range.len()];
        on_slices(threads, &mut y, 1, case.a.len() as u64, |part, y| {
            let part = range.start + part.start..range.start + part.end;
            binary_f32(isa, *function, &plan, part, &case.a, &case.b, case.clamp, y);
        });
        values(&y)
    };
    Binary::ALL.iter().map(of).collect()
}

fn joined_in_place(case: &Pair, isa: Isa, threads: usize) -> Vec<Values> {
    let (plan, range) = (case.plan(), case.range());
    let of = |function: &Binary| {
        let mut y = case.a[range.clone()].to_vec();
        on_slices(threads, &mut y, 1, case.a.len() as u64, |part, y| {
            let part = range.start + part.start..range.start + part.end;
            binary_f32_in_place(isa, *function, &plan, part, y, &case.b, case.clamp);
        });
        values(&y)
    };
    Binary::ALL.iter().map(of).collect()
}

/// What a byte is by definition.
pub fn round(x: f32, zero: i32, least: i32, greatest: i32) -> i32 {
    let x = if x.is_nan() { f32::NEG_INFINITY } else { x };
    (x.round_ties_even() + zero as f32).clamp(least as f32, greatest as f32) as i32
}

/// Values, a scale and a zero point.
pub fn scaled() -> impl Strategy<Value = (Vec<f32>, f32, u8)> {
    (lists(), prop_oneof![Just(1.0f32), 0.001f32..4.0], any::<u8>())
}

fn to_bytes((x, scale, zero): &(Vec<f32>, f32, u8), isa: Isa, threads: usize) -> Vec<Values> {
    let (mut unsigned, mut signed) = (vec![7u8; x.len()], vec![7i8; x.len()]);
    on_slices(threads, &mut unsigned, 1, u64::from(*zero), |range, y| {
        quantize(isa, *scale, *zero, &x[range], y);
    });
    on_slices(threads, &mut signed, 1, u64::from(*zero), |range, y| {
        quantize(isa, *scale, *zero as i8, &x[range], y);
    });
    vec![Values::integers(&unsigned), Values::integers(&signed)]
}

fn defined_bytes((x, scale, zero): &(Vec<f32>, f32, u8)) -> Option<Vec<Values>> {
    let unsigned = |x: &f32| round(x / scale, i32::from(*zero), 0, 255);
    let signed = |x: &f32| round(x / scale, i32::from(*zero as i8), -128, 127);
    let [unsigned, signed]: [Vec<i32>; 2] =
        [x.iter().map(unsigned).collect(), x.iter().map(signed).collect()];
    Some(vec![Values::integers(&unsigned), Values::integers(&signed)])
}

/// Bytes that stand for a list.
fn some_bytes(x: &[f32]) -> Vec<u8> {
    x.iter().map(|x| x.to_bits().wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn from_bytes((x, scale, zero): &(Vec<f32>, f32, u8), isa: Isa, threads: usize) -> Vec<Values> {
    let x = some_bytes(x);
    let signed: Vec<i8> = x.iter().map(|&x| x as i8).collect();
    let (mut y, mut z) = (vec![7.0; x.len()], vec![7.0; x.len()]);
    on_slices(threads, &mut y, 1, u64::from(*zero), |range, y| {
        dequantize(isa, *scale, *zero, &x[range], y);
    });
    on_slices(threads, &mut z, 1, u64::from(*zero), |range, z| {
        dequantize(isa, *scale, *zero as i8, &signed[range], z);
    });
    vec![values(&y), values(&z)]
}

fn defined_floats((x, scale, zero): &(Vec<f32>, f32, u8)) -> Option<Vec<Values>> {
    let x = some_bytes(x);
    let unsigned = |&x: &u8| (i32::from(x) - i32::from(*zero)) as f32 * scale;
    let signed = |&x: &u8| (i32::from(x as i8) - i32::from(*zero as i8)) as f32 * scale;
    let [y, z]: [Vec<f32>; 2] = [x.iter().map(unsigned).collect(), x.iter().map(signed).collect()];
    Some(vec![values(&y), values(&z)])
}

fn range(x: &[f32]) -> Option<Vec<Values>> {
    let low = x.iter().copied().fold(f32::INFINITY, f32::min);
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    Some(vec![values(&[low, high])])
}

/// Two tensors of bytes.
#[derive(Clone, Debug)]
struct Quantized {
    shape: Vec<usize>,
    operands: [Vec<usize>; 2],
    scales: [f32; 2],
    zeros: [u8; 3],
    seed: u64,
}

fn quantized() -> impl Strategy<Value = Quantized> {
    let scales = [0.01f32..2.0, 0.01f32..2.0];
    (shapes(false), scales, any::<[u8; 3]>(), any::<u64>()).prop_map(
        |((shape, operands), scales, zeros, seed)| Quantized {
            shape,
            operands,
            scales,
            zeros,
            seed,
        },
    )
}

impl Quantized {
    fn bytes(&self) -> [Vec<u8>; 2] {
        let mut random = Random(self.seed);
        [0, 1].map(|k| random.bytes(self.operands[k].iter().product()))
    }

    fn run(&self, isa: Isa, threads: usize, product: bool) -> Vec<Values> {
        let ([a, b], [shape_a, shape_b]) = (self.bytes(), &self.operands);
        let plan = Broadcast::dense(&self.shape, [shape_a, shape_b]).expect("broadcasts");
        let ([scale_a, scale_b], [zero_a, zero_b, zero]) = (self.scales, self.zeros);
        let pair = QuantizedPair {
            scale_a,
            scale_b,
            zero_a: i32::from(zero_a),
            zero_b: i32::from(zero_b),
            rounding: Rounding::clamped(zero, 3, 250),
        };
        let mut y = vec![0; plan.len()];
        on_slices(threads, &mut y, 1, self.seed, |range, y| {
            if product {
                multiply_quantized(isa, pair, &plan, range, &a, &b, y);
            } else {
                add_quantized(isa, pair, &plan, range, &a, &b, y);
            }
        });
        vec![Values::integers(&y)]
    }

    fn results(&self, product: bool) -> Option<Vec<Values>> {
        let ([a, b], [shape_a, shape_b]) = (self.bytes(), &self.operands);
        let value = |at: usize| {
            let a = i32::from(a[locate(&self.shape, shape_a, at)]) - i32::from(self.zeros[0]);
            let b = i32::from(b[locate(&self.shape, shape_b, at)]) - i32::from(self.zeros[1]);
            let (a, b) = (a as f32 * self.scales[0], b as f32 * self.scales[1]);
            round(if product { a * b } else { a + b }, i32::from(self.zeros[2]), 3, 250)
        };
        let all: Vec<i32> = (0..self.shape.iter().product()).map(value).collect();
        Some(vec![Values::integers(&all)])
    }
}

/// Floats of any bits, and usual ones.
fn patterns() -> impl Strategy<Value = Vec<f32>> {
    let any_bits = any::<u32>().prop_map(f32::from_bits);
    prop::collection::vec(prop_oneof![any_bits, floats()], 0..200)
}

fn words() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 0..200)
}

fn half_bits(bits: impl Iterator<Item = u16>) -> Values {
    Values::integers(&bits.collect::<Vec<_>>())
}

fn halved(x: &[f32], isa: Isa, threads: usize) -> Vec<Values> {
    let mut y = vec![f16::ZERO; x.len()];
    on_slices(threads, &mut y, 1, 3, |range, y| f32_to_f16(isa, &x[range], y));
    vec![half_bits(y.iter().map(|y| y.to_bits()))]
}

fn shortened(x: &[f32], isa: Isa, threads: usize) -> Vec<Values> {
    let mut y = vec![bf16::ZERO; x.len()];
    on_slices(threads, &mut y, 1, 3, |range, y| f32_to_bf16(isa, &x[range], y));
    vec![half_bits(y.iter().map(|y| y.to_bits()))]
}

fn doubled(x: &[u16], isa: Isa, threads: usize) -> Vec<Values> {
    let x: Vec<f16> = x.iter().map(|&x| f16::from_bits(x)).collect();
    let mut y = vec![7.0; x.len()];
    on_slices(threads, &mut y, 1, 3, |range, y| f16_to_f32(isa, &x[range], y));
    vec![values(&y)]
}

fn lengthened(x: &[u16], isa: Isa, threads: usize) -> Vec<Values> {
    let x: Vec<bf16> = x.iter().map(|&x| bf16::from_bits(x)).collect();
    let mut y = vec![7.0; x.len()];
    on_slices(threads, &mut y, 1, 3, |range, y| bf16_to_f32(isa, &x[range], y));
    vec![values(&y)]
}

/// A walk through a tensor.
#[derive(Clone, Debug)]
enum Move {
    /// The axes in another order.
    Permute { shape: Vec<usize>, axes: Vec<usize> },
    /// Rows and columns of a table from some place on, with steps that may go backwards.
    Steps { sizes: [usize; 2], start: usize, strides: [isize; 2], length: usize },
}

fn moves() -> impl Strategy<Value = Move> {
    let small = prop::collection::vec(prop_oneof![1 => Just(0usize), 20 => 1..6usize], 0..3);
    let permute = (small, lengths(40), lengths(80)).prop_flat_map(|(mut shape, a, b)| {
        shape.extend([a, b]);
        let axes: Vec<usize> = (0..shape.len()).collect();
        (Just(shape), Just(axes).prop_shuffle())
            .prop_map(|(shape, axes)| Move::Permute { shape, axes })
    });
    let steps =
        ([1..40usize, 1..40usize], [-40..40isize, -3..4isize]).prop_map(|(sizes, strides)| {
            let reach = |k: usize| (sizes[k] as isize - 1) * strides[k];
            let least: isize = (0..2).map(|k| reach(k).min(0)).sum();
            let most: isize = (0..2).map(|k| reach(k).max(0)).sum();
            let (start, length) = (-least as usize, (most - least) as usize + 1);
            Move::Steps { sizes, start, strides, length }
        });
    prop_oneof![2 => permute, 1 => steps]
}

impl Move {
    fn walk(&self) -> Broadcast<1> {
        match self {
            Move::Permute { shape, axes } => permutation(shape, axes).expect("a permutation"),
            Move::Steps { sizes, start, strides, .. } => {
                Broadcast::strided(sizes, [*start], [strides]).expect("a walk inside the table")
            }
        }
    }

    fn length(&self) -> usize {
        match self {
            Move::Permute { shape, .. } => shape.iter().product(),
            Move::Steps { length, .. } => *length,
        }
    }

    /// Where each element comes from.
    fn places(&self) -> Vec<usize> {
        match self {
            Move::Permute { shape, axes } => {
                let place = |at: usize| {
                    let (mut rest, mut index) = (at, vec![0; shape.len()]);
                    for &axis in axes.iter().rev() {
                        index[axis] = rest % shape[axis];
                        rest /= shape[axis];
                    }
                    index.iter().zip(shape).fold(0, |at, (i, size)| at * size + i)
                };
                (0..self.length()).map(place).collect()
            }
            Move::Steps { sizes, start, strides, .. } => {
                let place = |at: usize| {
                    let (i, j) = (at / sizes[1], at % sizes[1]);
                    let from = i as isize * strides[0] + j as isize * strides[1];
                    start.wrapping_add_signed(from)
                };
                (0..sizes[0] * sizes[1]).map(place).collect()
            }
        }
    }

    fn moved<T: Element + Send + Sync>(
        &self,
        isa: Isa,
        threads: usize,
        element: impl Fn(usize) -> T,
    ) -> Vec<T> {
        let x: Vec<T> = (0..self.length()).map(&element).collect();
        let walk = self.walk();
        let mut y = vec![element(251); walk.len()];
        on_slices(threads, &mut y, 1, self.length() as u64, |range, y| {
            rearrange(isa, &walk, range, &x, y);
        });
        y
    }

    fn results(&self) -> Option<Vec<Values>> {
        let places: Vec<i64> = self.places().into_iter().map(|place| place as i64).collect();
        let cut = |bits: i64| Values::Integers(places.iter().map(|place| place & bits).collect());
        Some(vec![cut(0xff), cut(0xffff), cut(0xffff_ffff), cut(i64::MAX)])
    }
}

fn moved(case: &Move, isa: Isa, threads: usize) -> Vec<Values> {
    vec![
        Values::integers(&case.moved(isa, threads, |i| i as u8)),
        Values::integers(&case.moved(isa, threads, |i| i as u16)),
        Values::integers(&case.moved(isa, threads, |i| i as u32)),
        Values::integers(&case.moved(isa, threads, |i| i as i64)),
    ]
}
