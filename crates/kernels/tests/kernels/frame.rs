//! The frame: what a row of the list is, and the one driver that runs a row on every instruction
//! set, on one thread and on two, and compares with the portable form.

use std::fmt::Debug;
use std::ops::Range;

use half::bf16;
use lepton_kernels::Isa;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Cases of a row where `PROPTEST_CASES` does not say how many.
const CASES: u32 = 100;

/// A kernel, how its results are compared, and how its cases are made and run.
pub struct Row {
    /// Module and function, as in the crate.
    pub name: &'static str,
    /// How results are compared.
    pub compare: Compare,
    /// Hands cases, kernel and definition to [`Driver::run`].
    pub run: fn(&Driver) -> Result<(), String>,
}

/// How close results have to be. NaN equals NaN.
#[derive(Clone, Copy, Debug)]
pub enum Compare {
    /// The same bits.
    Bits,
    /// Floats as far apart as this by max(1, |value|); those of bf16 by a unit of their last place
    /// more, for sums that are rounded to neighbours.
    Close(f32),
    /// Floats as far apart as this by their value.
    Relative(f32),
}

/// One result of a kernel.
#[derive(Clone, Debug)]
pub enum Values {
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Halves(Vec<bf16>),
}

impl Values {
    /// Whole numbers of any type.
    pub fn integers<T: Copy + Into<i64>>(values: &[T]) -> Values {
        Values::Integers(values.iter().map(|&value| value.into()).collect())
    }

    /// Floats by their bits, so that `-0` is not `0`.
    pub fn bits(values: &[f32]) -> Values {
        Values::Integers(values.iter().map(|value| i64::from(value.to_bits())).collect())
    }
}

/// What no definition is written for: the sets are compared with the portable form alone.
pub fn undefined<C>(_: &C) -> Option<Vec<Values>> {
    None
}

/// Runs the cases of one row.
pub struct Driver {
    name: &'static str,
    compare: Compare,
}

impl Driver {
    /// `kernel(case, set, threads)` on every set against the portable form on one thread, and that
    /// against the definition, where there is one.
    pub fn run<S: Strategy>(
        &self,
        cases: S,
        kernel: impl Fn(&S::Value, Isa, usize) -> Vec<Values>,
        definition: impl Fn(&S::Value) -> Option<Vec<Values>>,
    ) -> Result<(), String> {
        let asked = std::env::var_os("PROPTEST_CASES").is_some();
        let config = Config { failure_persistence: None, ..Config::default() };
        let cases_of_row = if asked { config.cases } else { CASES };
        let mut runner = TestRunner::new(Config { cases: cases_of_row, ..config });
        let tried = runner.run(&cases, |case| {
            let want = kernel(&case, Isa::PORTABLE, 1);
            if let Some(defined) = definition(&case) {
                self.hold("portable against the definition", &want, &defined)?;
            }
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let got = kernel(&case, isa, threads);
                    self.hold(&format!("{isa}, threads: {threads}"), &got, &want)?;
                }
            }
            Ok(())
        });
        tried.map_err(|error| format!("{}: {error}", self.name))
    }

    fn hold(&self, what: &str, got: &[Values], want: &[Values]) -> Result<(), TestCaseError> {
        if got.len() != want.len() {
            return Err(TestCaseError::fail(format!("{what}: {} results", got.len())));
        }
        for (part, (got, want)) in got.iter().zip(want).enumerate() {
            let different = match (got, want) {
                (Values::Integers(got), Values::Integers(want)) => {
                    first_different(got, want, |a, b| a == b)
                }
                (Values::Floats(got), Values::Floats(want)) => {
                    first_different(got, want, |a, b| self.compare.holds(a, b, 0.0))
                }
                (Values::Halves(got), Values::Halves(want)) => {
                    first_different(got, want, |a, b| {
                        let unit = b.to_f32().abs() / 128.0;
                        a == b || self.compare.holds(a.to_f32(), b.to_f32(), unit)
                    })
                }
                _ => Some("another type".to_owned()),
            };
            if let Some(message) = different {
                return Err(TestCaseError::fail(format!("{what}: result {part}, {message}")));
            }
        }
        Ok(())
    }
}

impl Compare {
    /// True if two floats are close enough; a rounding of the result may move it by `unit`.
    fn holds(self, got: f32, want: f32, unit: f32) -> bool {
        let off = (got - want).abs();
        let near = match self {
            Compare::Bits => got.to_bits() == want.to_bits(),
            Compare::Close(most) => off <= most * want.abs().max(1.0) + unit,
            Compare::Relative(most) => off <= most * want.abs() + f32::MIN_POSITIVE,
        };
        let same = !matches!(self, Compare::Bits) && got == want;
        near || same || (got.is_nan() && want.is_nan())
    }
}

/// Where two results differ first.
fn first_different<T: Copy + Debug>(
    got: &[T],
    want: &[T],
    same: impl Fn(T, T) -> bool,
) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} values, not {}", got.len(), want.len()));
    }
    let pairs = || got.iter().zip(want);
    let at = pairs().position(|(&got, &want)| !same(got, want))?;
    let count = pairs().filter(|&(&got, &want)| !same(got, want)).count();
    let (got, want) = (got[at], want[at]);
    Some(format!("value {at} is {got:?}, not {want:?} ({count} differ)"))
}

/// Runs all rows of a family and tells all that fail.
pub fn drive(rows: &[Row]) {
    let try_row = |row: &Row| {
        let started = std::time::Instant::now();
        let result = (row.run)(&Driver { name: row.name, compare: row.compare });
        println!("{}: {:.2} s", row.name, started.elapsed().as_secs_f64());
        result.err()
    };
    let failures: Vec<String> = rows.iter().filter_map(try_row).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// A part of `0..end` for each thread, cut at a multiple of `step` that a case's seed chooses.
pub fn parts(threads: usize, end: usize, step: usize, seed: u64) -> Vec<Range<usize>> {
    if threads == 1 {
        return std::iter::once(0..end).collect();
    }
    let middle = crate::data::Random(seed).bits() as usize % (end + 1) / step * step;
    vec![0..middle, middle..end]
}

struct Shared<F>(F);

// SAFETY: `on_threads` is the only one to make and use it, and its caller vouches for the work.
unsafe impl<F> Sync for Shared<F> {}

impl<F> Shared<F> {
    fn call<T>(&self, part: T)
    where
        F: Fn(T),
    {
        (self.0)(part);
    }
}

/// Runs `work` on all parts at once, each on a thread of its own.
///
/// # Safety
/// What the work of different parts writes is apart, and everything else is only read.
pub unsafe fn on_threads<T: Send>(parts: Vec<T>, work: impl Fn(T)) {
    let work = Shared(work);
    let mut parts = parts.into_iter();
    let own = parts.next();
    std::thread::scope(|scope| {
        let work = &work;
        for part in parts {
            scope.spawn(move || work.call(part));
        }
        own.into_iter().for_each(|part| work.call(part));
    });
}

/// Runs `work` on the parts of a slice that threads get, cut at multiples of `step`, with the
/// range each is of.
pub fn on_slices<T: Send>(
    threads: usize,
    values: &mut [T],
    step: usize,
    seed: u64,
    work: impl Fn(Range<usize>, &mut [T]) + Sync,
) {
    let mut rest = values;
    let mut slices = Vec::new();
    for range in parts(threads, rest.len(), step, seed) {
        let (part, left) = rest.split_at_mut(range.len());
        slices.push((range, part));
        rest = left;
    }
    // SAFETY: the parts are apart by their borrows, and the work may be shared.
    unsafe { on_threads(slices, |(range, part)| work(range, part)) };
}
