//! Pools of every geometry, and gates of what they squeeze.

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::gate::gate_bf16;
use lepton_kernels::pool::*;
use lepton_kernels::quantize::Rounding;
use proptest::prelude::*;

use crate::data::Random;
use crate::frame::{Compare, Row, Values, on_slices};
use crate::matrices::to_halves;

pub const ROWS: &[Row] = &[
    Row {
        name: "pool::max_pool_f32",
        compare: Compare::Bits,
        run: |row| {
            row.run(
                pools(),
                |case, isa, threads| case.greatest(isa, threads),
                |case| Some(case.greatest_floats()),
            )
        },
    },
    Row {
        name: "pool::max_pool_bytes",
        compare: Compare::Bits,
        run: |row| row.run(pools(), Pooled::bytes, Pooled::greatest_bytes),
    },
    Row {
        name: "pool::average_pool_f32",
        compare: Compare::Bits,
        run: |row| {
            row.run(
                pools(),
                |case, isa, threads| {
                    let of = |include| case.means(isa, threads, include);
                    [of(false), of(true)].concat()
                },
                |case| {
                    let of = |include| [case.mean(include), case.mean(include)];
                    Some([of(false), of(true)].concat())
                },
            )
        },
    },
    Row {
        name: "gate::gate_bf16",
        compare: Compare::Bits,
        run: |row| row.run(gated(), gate, gated_values),
    },
    Row {
        name: "pool::average_pool_bytes",
        compare: Compare::Bits,
        run: |row| row.run(pools(), Pooled::mean_bytes, |case| Some(vec![case.mean_byte()])),
    },
];

/// A pool over some rows of a batch.
#[derive(Clone, Debug)]
struct Pooled {
    pool: Pool,
    batch: usize,
    skip: f64,
    seed: u64,
}

fn pool_axis() -> impl Strategy<Value = PoolAxis> {
    let sizes = (1..9usize, 1..4usize, 1..4usize, 1..3usize, 0..3usize, 0..3usize);
    sizes.prop_flat_map(|(input, kernel, stride, dilation, before, after)| {
        let span = (kernel - 1) * dilation + 1;
        let room = (input + before + after).saturating_sub(span);
        let output = room / stride + 1;
        (output..=output + 1).prop_map(move |output| PoolAxis {
            input,
            output,
            kernel,
            stride,
            dilation,
            padding_before: before,
            padding_after: after,
        })
    })
}

fn pools() -> impl Strategy<Value = Pooled> {
    let axes = prop_oneof![
        6 => (pool_axis(), pool_axis()),
        1 => (1..20usize, 1..20usize).prop_map(|(h, w)| (PoolAxis::global(h), PoolAxis::global(w))),
    ];
    let channels = prop_oneof![1..80usize, Just(64usize), Just(128usize), Just(200usize)];
    (axes, channels, 0..3usize, 0.0..1.0f64, any::<u64>()).prop_map(
        |((height, width), channels, batch, skip, seed)| {
            let pool = Pool::new(height, width, channels);
            Pooled { pool, batch, skip, seed }
        },
    )
}

/// Where one tap of one window falls.
enum Tap {
    Pixel(usize),
    Padding,
    Beyond,
}

fn tap(axis: &PoolAxis, window: usize, tap: usize) -> Tap {
    let at = window * axis.stride + tap * axis.dilation;
    if at >= axis.padding_before && at - axis.padding_before < axis.input {
        Tap::Pixel(at - axis.padding_before)
    } else if at < axis.padding_before + axis.input + axis.padding_after {
        Tap::Padding
    } else {
        Tap::Beyond
    }
}

impl Pooled {
    fn values(&self) -> Vec<u8> {
        Random(self.seed).bytes(self.batch * self.pool.input_len())
    }

    /// Whole numbers, whose sums are exact.
    fn whole(&self) -> Vec<f32> {
        self.values().iter().map(|&x| f32::from(x) - 100.0).collect()
    }

    fn signed(&self) -> Vec<i8> {
        self.values().iter().map(|&x| x as i8).collect()
    }

    fn first_row(&self) -> usize {
        (self.skip * (self.batch * self.pool.height.output) as f64) as usize
    }

    /// Runs a pool on the rows.
    fn run<T: Copy + Send>(
        &self,
        threads: usize,
        empty: T,
        pool: impl Fn(std::ops::Range<usize>, &mut [T]) + Sync,
    ) -> Vec<T> {
        let (first, length) = (self.first_row(), self.pool.row_len().max(1));
        let rows = self.batch * self.pool.height.output - first;
        let mut y = vec![empty; rows * self.pool.row_len()];
        on_slices(threads, &mut y, length, self.seed, |range, y| {
            pool(first + range.start / length..first + range.end / length, y);
        });
        y
    }

    /// The greatest values of f32 and of bf16, as either.
    fn greatest(&self, isa: Isa, threads: usize) -> Vec<Values> {
        let (x, pool) = (self.whole(), &self.pool);
        let (halves, empty) = (to_halves(&x), bf16::from_f32(9.0));
        vec![
            Values::Floats(self.run(threads, 9.0, |rows, y| max_pool_f32(isa, pool, rows, &x, y))),
            Values::Halves(
                self.run(threads, empty, |rows, y| max_pool_f32(isa, pool, rows, &x, y)),
            ),
            Values::Halves(
                self.run(threads, empty, |rows, y| max_pool_f32(isa, pool, rows, &halves, y)),
            ),
        ]
    }

    /// The means, with or without padding, of f32 and of bf16, which holds the same numbers.
    fn means(&self, isa: Isa, threads: usize, include: bool) -> [Values; 2] {
        let (x, pool) = (self.whole(), &self.pool);
        let halves = to_halves(&x);
        let of_floats =
            self.run(threads, 9.0, |rows, y| average_pool_f32(isa, pool, include, rows, &x, y));
        let of_halves = self
            .run(threads, 9.0, |rows, y| average_pool_f32(isa, pool, include, rows, &halves, y));
        [of_floats, of_halves].map(Values::Floats)
    }

    fn bytes(&self, isa: Isa, threads: usize) -> Vec<Values> {
        let (x, signed, pool) = (self.values(), self.signed(), &self.pool);
        let y = self.run(threads, 9u8, |rows, y| max_pool_bytes(isa, pool, rows, &x, y));
        let z = self.run(threads, 9i8, |rows, y| max_pool_bytes(isa, pool, rows, &signed, y));
        vec![Values::integers(&y), Values::integers(&z)]
    }

    fn mean_bytes(&self, isa: Isa, threads: usize) -> Vec<Values> {
        let (x, pool) = (self.values(), &self.pool);
        let rounding = Rounding::new(20u8);
        let how = AverageRequantization { factor: 0.07, zero: 11, rounding };
        let y = self.run(threads, 9u8, |rows, y| average_pool_bytes(isa, pool, how, rows, &x, y));
        vec![Values::integers(&y)]
    }

    /// A value for each result from the places of its window, and how many taps are in the image
    /// or its padding.
    fn each<T>(&self, value: impl Fn(&[usize], usize) -> T) -> Vec<T> {
        let Pool { height, width, channels, .. } = &self.pool;
        let first = self.first_row() * self.pool.row_len();
        let end = self.batch * height.output * self.pool.row_len();
        let one = |at: usize| {
            let (row, x, c) =
                (at / self.pool.row_len(), at / channels % width.output, at % channels);
            let image = row / height.output * self.pool.input_len();
            let (mut places, mut padded) = (Vec::new(), 0);
            for i in 0..height.kernel {
                for j in 0..width.kernel {
                    match (tap(height, row % height.output, i), tap(width, x, j)) {
                        (Tap::Pixel(i), Tap::Pixel(j)) => {
                            places.push(image + (i * width.input + j) * channels + c);
                            padded += 1;
                        }
                        (Tap::Beyond, _) | (_, Tap::Beyond) => {}
                        _ => padded += 1,
                    }
                }
            }
            value(&places, padded)
        };
        (first..end).map(one).collect()
    }

    fn greatest_floats(&self) -> Vec<Values> {
        let x = self.whole();
        let greatest =
            |at: &[usize], _| at.iter().map(|&at| x[at]).fold(f32::NEG_INFINITY, f32::max);
        let floats = self.each(greatest);
        let halves = to_halves(&floats);
        vec![Values::Floats(floats), Values::Halves(halves.clone()), Values::Halves(halves)]
    }

    fn greatest_bytes(&self) -> Option<Vec<Values>> {
        let (x, signed) = (self.values(), self.signed());
        let y = self.each(|at, _| at.iter().map(|&at| x[at]).max().unwrap_or(0));
        let z = self.each(|at, _| at.iter().map(|&at| signed[at]).max().unwrap_or(-128));
        Some(vec![Values::integers(&y), Values::integers(&z)])
    }

    fn mean(&self, include: bool) -> Values {
        let x = self.whole();
        Values::Floats(self.each(|at, padded| {
            let divisor = if include { padded } else { at.len() }.max(1) as f32;
            at.iter().fold(0.0, |sum, &at| sum + x[at]) / divisor
        }))
    }

    fn mean_byte(&self) -> Values {
        let x = self.values();
        Values::integers(&self.each(|at, _| {
            let sum: i32 = at.iter().map(|&at| i32::from(x[at]) - 11).sum();
            ((sum as f32 * 0.07).round_ties_even() + 20.0).clamp(0.0, 255.0) as u8
        }))
    }
}

/// Rows of values that bf16 holds, and their gates.
fn gated() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    (0..9usize, 1..70usize, any::<u64>()).prop_map(|(rows, channels, seed)| {
        let mut random = Random(seed);
        let x = random.floats(rows * channels);
        let x = x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        (x, random.floats(channels))
    })
}

/// Of f32 and of bf16.
fn gate((x, gates): &(Vec<f32>, Vec<f32>), isa: Isa, threads: usize) -> Vec<Values> {
    let (channels, halves) = (gates.len(), to_halves(x));
    let (mut wide, mut narrow) = (vec![bf16::ZERO; x.len()], vec![bf16::ZERO; x.len()]);
    on_slices(threads, &mut wide, channels, 5, |range, y| gate_bf16(isa, &x[range], gates, y));
    on_slices(threads, &mut narrow, channels, 5, |range, y| {
        gate_bf16(isa, &halves[range], gates, y);
    });
    vec![Values::Halves(wide), Values::Halves(narrow)]
}

fn gated_values((x, gates): &(Vec<f32>, Vec<f32>)) -> Option<Vec<Values>> {
    let product = |(i, x): (usize, &f32)| bf16::from_f32(x * gates[i % gates.len()]);
    let values: Vec<bf16> = x.iter().enumerate().map(product).collect();
    Some(vec![Values::Halves(values.clone()), Values::Halves(values)])
}

#[test]
fn some_channels_of_a_pool_are_those_of_all() {
    let channels = 70;
    let pool = Pool::new(PoolAxis::global(5), PoolAxis::global(3), channels);
    let x = Random(3).floats(2 * pool.input_len());
    for isa in Isa::available() {
        let mut whole = vec![0.0; 2 * channels];
        average_pool_f32(isa, &pool, false, 0..2, &x, &mut whole);
        for (image, part) in [(0, 0..64), (0, 64..70), (1, 0..64), (1, 7..70)] {
            let mut some = vec![0.0; part.len()];
            let (narrow, rows) = (pool.of_channels(part.len()), image..image + 1);
            average_pool_f32(isa, &narrow, false, rows, &x[part.start..], &mut some);
            let (from, to) = (image * channels + part.start, image * channels + part.end);
            assert_eq!(some, whole[from..to], "{}", isa.name());
        }
    }
}
