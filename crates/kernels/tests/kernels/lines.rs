//! Kernels over lines of values: reductions, softmax, normalisation, resampling.

use half::bf16;
use lepton_kernels::Isa;
use lepton_kernels::normalize::*;
use lepton_kernels::reduce::{Reduce, Reduction, reduce_f32};
use lepton_kernels::resample::{Taps, resample_f32};
use lepton_kernels::softmax::*;
use proptest::prelude::*;

use crate::data::{Random, lengths};
use crate::frame::{Compare, Row, Values, on_slices, parts};

pub const ROWS: &[Row] = &[
    Row {
        name: "reduce::reduce_f32",
        compare: Compare::Close(3e-5),
        run: |row| row.run(reductions(), reduced, Reduced::results),
    },
    Row {
        name: "softmax::softmax",
        compare: Compare::Relative(6e-6),
        run: |row| {
            row.run(
                tables(),
                |x, isa, threads| soft(x, isa, threads, Softmax::Plain),
                |x| x.softmax(Softmax::Plain, false),
            )
        },
    },
    Row {
        name: "softmax::softmax",
        compare: Compare::Close(6e-6),
        run: |row| {
            row.run(
                tables(),
                |x, isa, threads| soft(x, isa, threads, Softmax::Log),
                |x| x.softmax(Softmax::Log, false),
            )
        },
    },
    Row {
        name: "softmax::softmax_to_bf16",
        compare: Compare::Relative(8e-3),
        run: |row| row.run(tables(), soft_rounded, |x| x.softmax(Softmax::Plain, false)),
    },
    Row {
        name: "softmax::softmax_in_place",
        compare: Compare::Relative(6e-6),
        run: |row| {
            row.run(
                tables(),
                |x, isa, threads| soft_in_place(x, isa, threads, Softmax::Plain),
                |x| x.softmax(Softmax::Plain, false),
            )
        },
    },
    Row {
        name: "softmax::softmax_in_place",
        compare: Compare::Close(6e-6),
        run: |row| {
            row.run(
                tables(),
                |x, isa, threads| soft_in_place(x, isa, threads, Softmax::Log),
                |x| x.softmax(Softmax::Log, false),
            )
        },
    },
    Row {
        name: "softmax::softmax_strided",
        compare: Compare::Relative(6e-6),
        run: |row| {
            row.run(
                tables(),
                |x, isa, threads| soft_strided(x, isa, threads, Softmax::Plain),
                |x| x.softmax(Softmax::Plain, true),
            )
        },
    },
    Row {
        name: "softmax::softmax_strided",
        compare: Compare::Close(6e-6),
        run: |row| {
            row.run(
                tables(),
                |x, isa, threads| soft_strided(x, isa, threads, Softmax::Log),
                |x| x.softmax(Softmax::Log, true),
            )
        },
    },
    Row {
        name: "softmax::softmax_masked",
        compare: Compare::Relative(6e-6),
        run: |row| row.run((tables(), 1..4usize), masked, defined_masked),
    },
    Row {
        name: "normalize::normalize_rows",
        compare: Compare::Close(2e-5),
        run: |row| row.run(normals(), rows, |case| Some(vec![case.rows(&case.table.values())])),
    },
    Row {
        name: "normalize::add_and_normalize_rows",
        compare: Compare::Close(2e-5),
        run: |row| row.run(normals(), rows_of_sums, Normal::rows_of_sums),
    },
    Row {
        name: "normalize::scale_shift_channels",
        compare: Compare::Close(1e-5),
        run: |row| row.run(normals(), shifted, Normal::shifted),
    },
    Row {
        name: "normalize::normalize_groups",
        compare: Compare::Close(3e-5),
        run: |row| row.run(groups(), channels_first, Grouped::channels_first),
    },
    Row {
        name: "normalize::normalize_groups_channels_last",
        compare: Compare::Close(3e-5),
        run: |row| row.run(groups(), channels_last, Grouped::channels_last),
    },
    Row {
        name: "resample::resample_f32",
        compare: Compare::Close(1e-5),
        run: |row| row.run((tables(), 0..9usize), resampled, defined_resampled),
    },
];

/// A reduction over some axes of a tensor, for the results from one on.
#[derive(Clone, Debug)]
struct Reduced {
    axes: Vec<(usize, bool)>,
    skip: f64,
    seed: u64,
    disturbed: bool,
}

fn reductions() -> impl Strategy<Value = Reduced> {
    let axis = (prop_oneof![1 => Just(0usize), 20 => 1..7usize], any::<bool>());
    let axes = (prop::collection::vec(axis, 0..4), (lengths(150), any::<bool>()));
    (axes, 0.0..1.0f64, any::<u64>(), any::<bool>()).prop_map(
        |((mut axes, last), skip, seed, disturbed)| {
            axes.push(last);
            Reduced { axes, skip, seed, disturbed }
        },
    )
}

impl Reduced {
    fn plan(&self) -> Reduce {
        let (shape, axes): (Vec<usize>, Vec<bool>) = self.axes.iter().copied().unzip();
        Reduce::new(&shape, &axes).expect("few axes")
    }

    fn values(&self, reduction: Reduction) -> Vec<f32> {
        let mut random = Random(self.seed);
        let mut x = random.floats(self.axes.iter().map(|axis| axis.0).product());
        if reduction == Reduction::LogSum {
            // Sums away from zero.
            x.iter_mut().for_each(|x| *x = x.abs() + 0.1);
        }
        if reduction == Reduction::Product {
            // Products that do not underflow.
            x.iter_mut().for_each(|x| *x = x.signum() * (1.0 + 0.1 * *x));
        }
        if self.disturbed {
            random.disturb(&mut x);
        } else if self.seed.is_multiple_of(11) {
            x.fill(f32::NEG_INFINITY);
        }
        x
    }

    /// The elements of each result, in order.
    fn groups(&self, x: &[f32]) -> Vec<Vec<f64>> {
        let kept = |&(size, reduced): &(usize, bool)| if reduced { 1 } else { size };
        let mut groups = vec![Vec::new(); self.axes.iter().map(kept).product()];
        for (at, &x) in x.iter().enumerate() {
            let (mut rest, mut place, mut stride) = (at, 0, 1);
            for axis in self.axes.iter().rev() {
                place += if axis.1 { 0 } else { rest % axis.0 * stride };
                stride *= kept(axis);
                rest /= axis.0;
            }
            groups[place].push(f64::from(x));
        }
        groups
    }

    fn first(&self, count: usize) -> usize {
        (self.skip * count as f64) as usize
    }

    fn results(&self) -> Option<Vec<Values>> {
        let of = |&reduction: &Reduction| {
            let groups = self.groups(&self.values(reduction));
            let groups = &groups[self.first(groups.len())..];
            let one = |group: &Vec<f64>| defined(reduction, group) as f32;
            Values::Floats(groups.iter().map(one).collect())
        };
        Some(Reduction::ALL.iter().map(of).collect())
    }
}

fn defined(reduction: Reduction, x: &[f64]) -> f64 {
    let sum = |f: fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>();
    let nan = x.iter().any(|x| x.is_nan());
    match reduction {
        Reduction::Sum => sum(|x| x),
        Reduction::Mean => sum(|x| x) / x.len() as f64,
        Reduction::Max | Reduction::Min if nan => f64::NAN,
        Reduction::Max => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Reduction::Min => x.iter().copied().fold(f64::INFINITY, f64::min),
        Reduction::Product => x.iter().product(),
        Reduction::L1 => sum(f64::abs),
        Reduction::L2 => sum(|x| x * x).sqrt(),
        Reduction::SumSquares => sum(|x| x * x),
        Reduction::LogSum => sum(|x| x).ln(),
        Reduction::LogSumExp => sum(f64::exp).ln(),
    }
}

fn reduced(case: &Reduced, isa: Isa, threads: usize) -> Vec<Values> {
    let plan = case.plan();
    let of = |&reduction: &Reduction| {
        let (x, first) = (case.values(reduction), case.first(plan.len()));
        let mut y = vec![9.0; plan.len() - first];
        on_slices(threads, &mut y, 1, case.seed, |range, y| {
            let range = first + range.start..first + range.end;
            reduce_f32(isa, reduction, &plan, range, &x, y);
        });
        Values::Floats(y)
    };
    Reduction::ALL.iter().map(of).collect()
}

/// Values `[outer, axis, inner]`; rows are of `axis` values.
#[derive(Clone, Debug)]
struct Table {
    outer: usize,
    axis: usize,
    inner: usize,
    seed: u64,
}

fn tables() -> impl Strategy<Value = Table> {
    // Many short rows are worked on together.
    let outer = prop_oneof![4 => 0..5usize, 1 => 60..150usize];
    let axis = prop_oneof![lengths(12), lengths(90)];
    (outer, axis, lengths(40), any::<u64>()).prop_map(|(outer, axis, inner, seed)| Table {
        outer,
        axis,
        inner: if outer > 5 { inner.min(3) } else { inner },
        seed,
    })
}

impl Table {
    fn values(&self) -> Vec<f32> {
        let count = self.outer * self.axis * self.inner;
        let mut random = Random(self.seed);
        let mut x: Vec<f32> = random.floats(count).iter().map(|x| x * 9.0).collect();
        random.disturb(&mut x);
        // The softmax of what is infinite is not promised.
        x.iter_mut().filter(|x| **x == f32::INFINITY).for_each(|x| *x = f32::NEG_INFINITY);
        if self.seed.is_multiple_of(13) {
            x[..count.min(self.axis)].fill(f32::NEG_INFINITY);
        }
        x
    }

    /// The softmax along rows, or along the middle axis.
    fn softmax(&self, kind: Softmax, strided: bool) -> Option<Vec<Values>> {
        let x: Vec<f64> = self.values().into_iter().map(f64::from).collect();
        let inner = if strided { self.inner } else { 1 };
        Some(vec![softmax_of(kind, self.axis, inner, &x)])
    }
}

fn softmax_of(kind: Softmax, axis: usize, inner: usize, x: &[f64]) -> Values {
    let mut y = vec![0.0; x.len()];
    for first in (0..x.len()).filter(|i| (i / inner).is_multiple_of(axis)) {
        let line = || (0..axis).map(|k| first + k * inner);
        let sum: f64 = line().map(|at| x[at].exp()).sum();
        for at in line() {
            y[at] =
                if kind == Softmax::Plain { x[at].exp() / sum } else { x[at] - sum.ln() } as f32;
        }
    }
    Values::Floats(y)
}

fn soft(case: &Table, isa: Isa, threads: usize, kind: Softmax) -> Vec<Values> {
    let (x, axis) = (case.values(), case.axis);
    let mut y = vec![9.0; x.len()];
    on_slices(threads, &mut y, axis.max(1), case.seed, |range, y| {
        softmax(isa, kind, axis, &x[range], y);
    });
    vec![Values::Floats(y)]
}

fn soft_rounded(case: &Table, isa: Isa, threads: usize) -> Vec<Values> {
    let (x, axis) = (case.values(), case.axis);
    let mut y = vec![bf16::NAN; x.len()];
    on_slices(threads, &mut y, axis.max(1), case.seed, |range, y| {
        softmax_to_bf16(isa, axis, &mut x[range].to_vec(), y);
    });
    vec![Values::Floats(y.into_iter().map(f32::from).collect())]
}

fn soft_in_place(case: &Table, isa: Isa, threads: usize, kind: Softmax) -> Vec<Values> {
    let mut y = case.values();
    on_slices(threads, &mut y, case.axis.max(1), case.seed, |_, y| {
        softmax_in_place(isa, kind, case.axis, y);
    });
    vec![Values::Floats(y)]
}

fn soft_strided(case: &Table, isa: Isa, threads: usize, kind: Softmax) -> Vec<Values> {
    let (x, axis, inner) = (case.values(), case.axis, case.inner);
    let mut y = vec![9.0; x.len()];
    on_slices(threads, &mut y, (axis * inner).max(1), case.seed, |range, y| {
        softmax_strided(isa, kind, axis, inner, &x[range], y);
    });
    vec![Values::Floats(y)]
}

/// Rows of mask, which are used in turn.
fn mask(case: &Table, rows: usize) -> Vec<f32> {
    Random(!case.seed).floats(rows * case.axis)
}

fn masked((case, rows): &(Table, usize), isa: Isa, threads: usize) -> Vec<Values> {
    let (mut y, mask) = (case.values(), mask(case, *rows));
    let period = (rows * case.axis).max(1);
    on_slices(threads, &mut y, period, case.seed, |_, y| {
        softmax_masked(isa, case.axis, 0.5, &mask, y);
    });
    vec![Values::Floats(y)]
}

fn defined_masked((case, rows): &(Table, usize)) -> Option<Vec<Values>> {
    let (x, mask) = (case.values(), mask(case, *rows));
    let pairs = x.iter().zip(mask.iter().cycle());
    let x: Vec<f64> = pairs.map(|(&x, &m)| f64::from(x) * 0.5 + f64::from(m)).collect();
    Some(vec![softmax_of(Softmax::Plain, case.axis, 1, &x)])
}

/// A normalisation of rows of `axis` values.
#[derive(Clone, Debug)]
struct Normal {
    table: Table,
    centre: bool,
    affine: bool,
}

fn normals() -> impl Strategy<Value = Normal> {
    let table = (0..6usize, lengths(150), any::<u64>()).prop_map(|(outer, axis, seed)| Table {
        outer,
        axis,
        inner: 1,
        seed,
    });
    (table, any::<bool>(), any::<bool>()).prop_map(|(table, centre, affine)| Normal {
        table,
        centre,
        affine,
    })
}

impl Normal {
    /// Factors and addends of columns.
    fn vectors(&self) -> [Vec<f32>; 2] {
        let mut random = Random(!self.table.seed);
        [random.floats(self.table.axis), random.floats(self.table.axis)]
    }

    fn residual(&self) -> Vec<f32> {
        Random(self.table.seed ^ 99).floats(self.table.values().len())
    }

    fn parameters<'a>(&self, [gamma, beta]: &'a [Vec<f32>; 2]) -> RowNormalization<'a> {
        RowNormalization {
            centre: self.centre,
            gamma: self.affine.then_some(gamma),
            beta: self.affine.then_some(beta),
            epsilon: 1e-2,
        }
    }

    fn rows(&self, x: &[f32]) -> Values {
        let ([gamma, beta], columns) = (self.vectors(), self.table.axis);
        let value = |(i, &x): (usize, &f32), row: &[f32]| {
            let row = || row.iter().map(|&x| f64::from(x));
            let mean = if self.centre { row().sum::<f64>() / columns as f64 } else { 0.0 };
            let variance = row().map(|x| (x - mean).powi(2)).sum::<f64>() / columns as f64;
            let y = (f64::from(x) - mean) / (variance + 1e-2).sqrt();
            let affine = y * f64::from(gamma[i]) + f64::from(beta[i]);
            if self.affine { affine as f32 } else { y as f32 }
        };
        let rows = x.chunks(columns.max(1));
        Values::Floats(
            rows.flat_map(|row| {
                row.iter().enumerate().map(|at| value(at, row)).collect::<Vec<_>>()
            })
            .collect(),
        )
    }

    fn rows_of_sums(&self) -> Option<Vec<Values>> {
        let pairs = self.table.values().into_iter().zip(self.residual());
        let sums: Vec<f32> = pairs.map(|(x, residual)| x + residual).collect();
        Some(vec![self.rows(&sums), Values::Floats(sums)])
    }

    fn shifted(&self) -> Option<Vec<Values>> {
        let ([scale, shift], columns) = (self.vectors(), self.table.axis);
        let x = self.table.values();
        let value = |(i, x): (usize, &f32)| {
            let (scale, shift) = (scale[i % columns], shift[i % columns]);
            (f64::from(*x) * f64::from(scale) + f64::from(shift)) as f32
        };
        Some(vec![Values::Floats(x.iter().enumerate().map(value).collect())])
    }
}

fn rows(case: &Normal, isa: Isa, threads: usize) -> Vec<Values> {
    let (x, vectors, columns) = (case.table.values(), case.vectors(), case.table.axis);
    let mut y = vec![9.0; x.len()];
    on_slices(threads, &mut y, columns.max(1), case.table.seed, |range, y| {
        normalize_rows(isa, case.parameters(&vectors), columns, &x[range], y);
    });
    vec![Values::Floats(y)]
}

fn rows_of_sums(case: &Normal, isa: Isa, threads: usize) -> Vec<Values> {
    let (x, vectors, columns) = (case.table.values(), case.vectors(), case.table.axis);
    let (mut sum, mut y) = (case.residual(), vec![9.0; x.len()]);
    // One after the other: both slices are written.
    for range in parts(threads, x.len(), columns.max(1), case.table.seed) {
        let (parameters, x) = (case.parameters(&vectors), &x[range.clone()]);
        add_and_normalize_rows(isa, parameters, columns, x, &mut sum[range.clone()], &mut y[range]);
    }
    vec![Values::Floats(y), Values::Floats(sum)]
}

fn shifted(case: &Normal, isa: Isa, threads: usize) -> Vec<Values> {
    let (x, [scale, shift]) = (case.table.values(), case.vectors());
    let mut y = vec![9.0; x.len()];
    on_slices(threads, &mut y, case.table.axis.max(1), case.table.seed, |range, y| {
        scale_shift_channels(isa, &scale, &shift, &x[range], y);
    });
    vec![Values::Floats(y)]
}

/// A normalisation of two images in groups of channels.
#[derive(Clone, Debug)]
struct Grouped {
    groups: usize,
    in_group: usize,
    pixels: usize,
    first: usize,
    seed: u64,
}

fn groups() -> impl Strategy<Value = Grouped> {
    let sizes = (1..4usize, 1..20usize, 2..80usize, 0..3usize, any::<u64>());
    sizes.prop_map(|(groups, in_group, pixels, first, seed)| Grouped {
        groups,
        in_group,
        pixels,
        first: first.min(groups - 1),
        seed,
    })
}

impl Grouped {
    fn channels(&self) -> usize {
        self.groups * self.in_group
    }

    /// Images, factors and addends.
    fn operands(&self) -> [Vec<f32>; 3] {
        let mut random = Random(self.seed);
        let x = random.floats(2 * self.channels() * self.pixels);
        [x, random.floats(self.channels()), random.floats(self.channels())]
    }

    fn value(&self, group: &[f64], x: f32, [gamma, beta]: [f32; 2]) -> f32 {
        let n = group.len() as f64;
        let mean = group.iter().sum::<f64>() / n;
        let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let y = (f64::from(x) - mean) / (variance + 1e-2).sqrt();
        (y * f64::from(gamma) + f64::from(beta)) as f32
    }

    fn channels_first(&self) -> Option<Vec<Values>> {
        let [x, gamma, beta] = self.operands();
        let size = self.in_group * self.pixels;
        let part = &x[self.first * size..];
        let value = |(i, &x): (usize, &f32)| {
            let group: Vec<f64> = part[i - i % size..][..size].iter().map(|&x| x.into()).collect();
            let channel = (self.first * self.in_group + i / self.pixels) % self.channels();
            self.value(&group, x, [gamma[channel], beta[channel]])
        };
        Some(vec![Values::Floats(part.iter().enumerate().map(value).collect())])
    }

    fn channels_last(&self) -> Option<Vec<Values>> {
        let ([x, gamma, beta], channels) = (self.operands(), self.channels());
        let group_of =
            |i: usize| i / (channels * self.pixels) * self.groups + i % channels / self.in_group;
        let mut groups = vec![Vec::new(); 2 * self.groups];
        for (i, &x) in x.iter().enumerate() {
            groups[group_of(i)].push(f64::from(x));
        }
        let value = |(i, &x): (usize, &f32)| {
            let channel = i % channels;
            self.value(&groups[group_of(i)], x, [gamma[channel], beta[channel]])
        };
        Some(vec![Values::Floats(x.iter().enumerate().map(value).collect())])
    }
}

fn channels_first(case: &Grouped, isa: Isa, threads: usize) -> Vec<Values> {
    let [x, gamma, beta] = case.operands();
    let parameters =
        GroupNormalization { groups: case.groups, gamma: &gamma, beta: &beta, epsilon: 1e-2 };
    let size = case.in_group * case.pixels;
    let part = &x[case.first * size..];
    let mut y = vec![9.0; part.len()];
    on_slices(threads, &mut y, size, case.seed, |range, y| {
        let first = case.first + range.start / size;
        normalize_groups(isa, parameters, case.pixels, first, &part[range], y);
    });
    vec![Values::Floats(y)]
}

fn channels_last(case: &Grouped, isa: Isa, threads: usize) -> Vec<Values> {
    let ([x, gamma, beta], channels) = (case.operands(), case.channels());
    let parameters =
        GroupNormalization { groups: case.groups, gamma: &gamma, beta: &beta, epsilon: 1e-2 };
    let mut y = vec![9.0; x.len()];
    on_slices(threads, &mut y, channels * case.pixels, case.seed, |range, y| {
        let (mut scratch, x) = (vec![f32::NAN; 2 * channels], &x[range]);
        normalize_groups_channels_last(isa, parameters, case.pixels, x, &mut scratch, y);
    });
    vec![Values::Floats(y)]
}

/// What each position of a resampled axis is made of.
fn positions((case, count): &(Table, usize)) -> Vec<Vec<(usize, f64)>> {
    let mut random = Random(case.seed);
    let mut tap = || (random.below(case.axis), f64::from(random.float()));
    let most = if case.axis == 0 { 0 } else { 4 };
    (0..*count).map(|i| (0..(i * 7 + case.axis) % 5).take(most).map(|_| tap()).collect()).collect()
}

fn resampled((case, count): &(Table, usize), isa: Isa, threads: usize) -> Vec<Values> {
    let (x, positions) = (case.values(), positions(&(case.clone(), *count)));
    let taps = Taps::new(positions.iter().map(Vec::as_slice));
    let (from, to) = (case.axis * case.inner, (count * case.inner).max(1));
    let mut y = vec![9.0; case.outer * count * case.inner];
    on_slices(threads, &mut y, to, case.seed, |range, y| {
        let x = &x[range.start / to * from..range.end / to * from];
        resample_f32(isa, x, case.axis, case.inner, &taps, y);
    });
    // Of an axis of nothing, nothing is written.
    vec![if case.axis == 0 { Values::Floats(Vec::new()) } else { Values::Floats(y) }]
}

fn defined_resampled((case, count): &(Table, usize)) -> Option<Vec<Values>> {
    let (x, positions) = (case.values(), positions(&(case.clone(), *count)));
    let value = |at: usize| {
        let (image, i, j) = (at / (count * case.inner), at / case.inner % count, at % case.inner);
        let value = |k: usize| f64::from(x[(image * case.axis + k) * case.inner + j]);
        positions[i].iter().map(|&(k, w)| value(k) * w).sum::<f64>() as f32
    };
    let all = if case.axis == 0 { 0 } else { case.outer * count * case.inner };
    Some(vec![Values::Floats((0..all).map(value).collect())])
}
