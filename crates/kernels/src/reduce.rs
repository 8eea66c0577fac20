//! Reductions over any axes, and the place of the extreme value along one.

use crate::broadcast::{Broadcast, Run};
use crate::functions;
use crate::vector::{Vector, vectorised};
use std::ops::Range;

/// The f32 reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Σ x.
    Sum,
    /// Σ x / n.
    Mean,
    /// The greatest; NaN if there is one, −∞ of nothing.
    Max,
    /// The least; NaN if there is one, ∞ of nothing.
    Min,
    /// Π x.
    Product,
    /// Σ |x|.
    L1,
    /// √Σ x².
    L2,
    /// Σ x².
    SumSquares,
    /// ln Σ x.
    LogSum,
    /// ln Σ e^x, safe from overflow.
    LogSumExp,
}

impl Reduction {
    /// Every reduction.
    pub const ALL: &[Reduction] = &[
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Max,
        Reduction::Min,
        Reduction::Product,
        Reduction::L1,
        Reduction::L2,
        Reduction::SumSquares,
        Reduction::LogSum,
        Reduction::LogSumExp,
    ];
}

/// Which elements of a dense tensor fall into which result. Results are dense over the kept axes
/// in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    kept: Broadcast<1>,
    reduced: Broadcast<1>,
}

impl Reduce {
    /// A tensor of `shape` reduced over the axes where `reduced` is true. `None` if more axes
    /// remain after collapsing than [`MAX_RANK`](crate::broadcast::MAX_RANK), on either side.
    pub fn new(shape: &[usize], reduced: &[bool]) -> Option<Self> {
        let mut strides = vec![0_isize; shape.len()];
        let mut stride = 1_isize;
        for (place, &size) in strides.iter_mut().zip(shape).rev() {
            *place = stride;
            stride = stride.checked_mul(isize::try_from(size.max(1)).ok()?)?;
        }
        let side = |wanted: bool| {
            let axes = (0..shape.len()).filter(|&axis| reduced.get(axis) == Some(&wanted));
            let (sizes, strides): (Vec<_>, Vec<_>) =
                axes.map(|axis| (shape[axis], strides[axis])).unzip();
            Broadcast::strided(&sizes, [0], [&strides])
        };
        (reduced.len() == shape.len()).then_some(())?;
        Some(Self { kept: side(false)?, reduced: side(true)? })
    }

    /// How many results there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// True if there is no result.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How many elements make one result.
    pub fn count(&self) -> usize {
        self.reduced.len()
    }

    fn check(&self, range: &Range<usize>, input: usize, output: usize) {
        assert!(range.start <= range.end && range.end <= self.len(), "a range of the results");
        assert_eq!(range.len(), output, "the output holds the range");
        if !self.kept.is_empty() && !self.reduced.is_empty() {
            let needed = self.kept.extent(0) + self.reduced.extent(0) - 1;
            assert!(needed <= input, "the input is shorter than the walk");
        }
    }
}

/// How elements are gathered, lane by lane.
pub(crate) trait Fold<V: Vector>: Copy {
    /// An element that changes nothing.
    const NEUTRAL: f32;
    /// What to start from.
    const START: f32;
    fn step(self, sum: V, x: V) -> V;
    fn join(self, a: V, b: V) -> V;
}

macro_rules! folds {
    ($($(#[$doc:meta])* $name:ident($neutral:expr, $start:expr)
        |$self:ident, $sum:ident, $x:ident| $step:expr, |$a:ident, $b:ident| $join:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name<V>(pub(crate) V);
        impl<V: Vector> Fold<V> for $name<V> {
            const NEUTRAL: f32 = $neutral;
            const START: f32 = $start;
            #[inline(always)]
            fn step($self, $sum: V, $x: V) -> V { $step }
            #[inline(always)]
            fn join(self, $a: V, $b: V) -> V { $join }
        }
    )+};
}

// The parameter is what an element is taken relative to; most folds ignore it.
folds! {
    Sum(0.0, 0.0) |self, sum, x| sum + x, |a, b| a + b;
    SumAbsolute(0.0, 0.0) |self, sum, x| sum + x.abs(), |a, b| a + b;
    SumSquares(0.0, 0.0) |self, sum, x| x.mul_add(x, sum), |a, b| a + b;
    Product(1.0, 1.0) |self, sum, x| sum * x, |a, b| a * b;
    Max(f32::NEG_INFINITY, f32::NEG_INFINITY)
        |self, sum, x| V::select(sum.equal(sum), sum.max(x), sum),
        |a, b| V::select(a.equal(a), a.max(b), a);
    /// May pass over NaN, for uses where NaN shows anyway.
    MaxLoose(f32::NEG_INFINITY, f32::NEG_INFINITY)
        |self, sum, x| sum.max(x), |a, b| a.max(b);
    Min(f32::INFINITY, f32::INFINITY)
        |self, sum, x| V::select(sum.equal(sum), sum.min(x), sum),
        |a, b| V::select(a.equal(a), a.min(b), a);
    /// Σ e^(x − parameter), the parameter being the greatest element.
    SumExp(f32::NEG_INFINITY, 0.0)
        |self, sum, x| sum + functions::exp_not_positive(x - self.0), |a, b| a + b;
}

/// All lanes joined in a fixed tree order, in every lane.
#[inline(always)]
pub(crate) fn join_lanes<V: Vector, F: Fold<V>>(fold: F, sum: V) -> V {
    let mut sum = sum;
    if V::LANES > 8 {
        sum = fold.join(sum, sum.exchange::<8>());
    }
    if V::LANES > 4 {
        sum = fold.join(sum, sum.exchange::<4>());
    }
    sum = fold.join(sum, sum.exchange::<2>());
    fold.join(sum, sum.exchange::<1>())
}

/// `count.min(LANES)` elements `stride` apart, then neutral ones.
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn gather<V: Vector, F: Fold<V>>(pointer: *const f32, stride: isize, count: usize) -> V {
    let mut lanes = [F::NEUTRAL; 16];
    for (i, lane) in lanes[..V::LANES.min(count)].iter_mut().enumerate() {
        // SAFETY: as promised by the caller.
        *lane = unsafe { *pointer.offset(i as isize * stride) };
    }
    // SAFETY: no set has more than 16 lanes.
    unsafe { V::load(lanes.as_ptr()) }
}

/// Folds `count` elements `stride` apart into four running sums.
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn fold_run<V: Vector, F: Fold<V>>(
    fold: F,
    mut sums: [V; 4],
    pointer: *const f32,
    stride: isize,
    count: usize,
) -> [V; 4] {
    let mut i = 0;
    // SAFETY: all offsets stay below `count`.
    unsafe {
        if stride == 1 {
            while i + 4 * V::LANES <= count {
                for (k, sum) in sums.iter_mut().enumerate() {
                    *sum = fold.step(*sum, V::load(pointer.add(i + k * V::LANES)));
                }
                i += 4 * V::LANES;
            }
            while i + V::LANES <= count {
                sums[0] = fold.step(sums[0], V::load(pointer.add(i)));
                i += V::LANES;
            }
            if i < count {
                let x = V::load_first(pointer.add(i), count - i);
                let x = V::select(V::below(count - i), x, V::splat(F::NEUTRAL));
                sums[1] = fold.step(sums[1], x);
                i = count;
            }
        }
        while i < count {
            let x = gather::<V, F>(pointer.offset(i as isize * stride), stride, count - i);
            sums[1] = fold.step(sums[1], x);
            i += V::LANES;
        }
    }
    sums
}

/// Folds a dense slice; the total is in every lane.
#[inline(always)]
pub(crate) fn fold_slice<V: Vector, F: Fold<V>>(fold: F, values: &[f32]) -> V {
    // SAFETY: the slice has its length.
    let sums = unsafe { fold_run(fold, [V::splat(F::START); 4], values.as_ptr(), 1, values.len()) };
    join_four(fold, sums)
}

#[inline(always)]
fn join_four<V: Vector, F: Fold<V>>(fold: F, sums: [V; 4]) -> V {
    join_lanes(fold, fold.join(fold.join(sums[0], sums[1]), fold.join(sums[2], sums[3])))
}

/// Folds all elements of one result, which is then in every lane.
/// # Safety
/// The walk from `pointer` must be readable.
#[inline(always)]
unsafe fn fold_one<V: Vector, F: Fold<V>>(
    fold: F,
    reduced: &Broadcast<1>,
    pointer: *const f32,
) -> V {
    let [stride] = reduced.inner_strides();
    let mut sums = [V::splat(F::START); 4];
    if let [count] = *reduced.sizes() {
        // SAFETY: the walk, here a single run from the pointer itself, is readable.
        return join_four(fold, unsafe { fold_run(fold, sums, pointer, stride, count) });
    }
    for Run { at: _, first: [first], count } in reduced.runs(0..reduced.len()) {
        // SAFETY: the walk is readable.
        sums = unsafe { fold_run(fold, sums, pointer.add(first), stride, count) };
    }
    join_four(fold, sums)
}

/// Folds `count.min(LANES)` results that lie side by side.
/// # Safety
/// The walk from each must be readable.
#[inline(always)]
unsafe fn fold_columns<V: Vector, F: Fold<V>>(
    fold: F,
    reduced: &Broadcast<1>,
    pointer: *const f32,
    count: usize,
) -> V {
    let [stride] = reduced.inner_strides();
    let mut sum = V::splat(F::START);
    for Run { first: [first], count: steps, .. } in reduced.runs(0..reduced.len()) {
        // SAFETY: the walk is readable.
        unsafe { sum = fold_column(fold, sum, pointer.add(first), stride, steps, count) };
    }
    sum
}

/// Folds `steps` vectors `stride` apart.
/// # Safety
/// `count.min(LANES)` values of each must be readable.
#[inline(always)]
unsafe fn fold_column<V: Vector, F: Fold<V>>(
    fold: F,
    start: V,
    pointer: *const f32,
    stride: isize,
    steps: usize,
    count: usize,
) -> V {
    let mut sums = [start, V::splat(F::START)];
    let mut i = 0;
    // SAFETY: as promised by the caller.
    unsafe {
        while i + 1 < steps as isize {
            sums[0] = fold.step(sums[0], V::load_upto(pointer.offset(i * stride), count));
            sums[1] = fold.step(sums[1], V::load_upto(pointer.offset((i + 1) * stride), count));
            i += 2;
        }
        if i < steps as isize {
            sums[0] = fold.step(sums[0], V::load_upto(pointer.offset(i * stride), count));
        }
    }
    fold.join(sums[0], sums[1])
}

/// Side by side or one result at a time.
/// # Safety
/// The walk must be readable.
#[inline(always)]
unsafe fn fold_any<V: Vector, F: Fold<V>>(
    fold: F,
    reduced: &Broadcast<1>,
    pointer: *const f32,
    columns: Option<usize>,
) -> V {
    // SAFETY: as promised by the caller.
    unsafe {
        match columns {
            Some(count) => fold_columns(fold, reduced, pointer, count),
            None => fold_one(fold, reduced, pointer),
        }
    }
}

/// The results whose first elements are at `pointer`: `columns` side by side, or one, repeated.
/// # Safety
/// The walk must be readable.
#[inline(always)]
unsafe fn reduce_at<V: Vector>(
    reduction: Reduction,
    reduced: &Broadcast<1>,
    pointer: *const f32,
    columns: Option<usize>,
) -> V {
    let zero = V::splat(0.0);
    // SAFETY: as promised by the caller.
    unsafe {
        match reduction {
            Reduction::Sum => fold_any(Sum(zero), reduced, pointer, columns),
            Reduction::Mean => {
                let sum: V = fold_any(Sum(zero), reduced, pointer, columns);
                sum / V::splat(reduced.len() as f32)
            }
            Reduction::Max => fold_any(Max(zero), reduced, pointer, columns),
            Reduction::Min => fold_any(Min(zero), reduced, pointer, columns),
            Reduction::Product => fold_any(Product(zero), reduced, pointer, columns),
            Reduction::L1 => fold_any(SumAbsolute(zero), reduced, pointer, columns),
            Reduction::L2 => fold_any::<V, _>(SumSquares(zero), reduced, pointer, columns).sqrt(),
            Reduction::SumSquares => fold_any(SumSquares(zero), reduced, pointer, columns),
            Reduction::LogSum => {
                functions::log(fold_any::<V, _>(Sum(zero), reduced, pointer, columns))
            }
            Reduction::LogSumExp => {
                let max: V = fold_any(Max(zero), reduced, pointer, columns);
                // An infinite maximum is the result, but must not be subtracted from itself.
                let finite = max.abs().less(V::splat(f32::INFINITY));
                let shift = V::select(finite, max, zero);
                let sum: V = fold_any(SumExp(shift), reduced, pointer, columns);
                V::select(finite, shift + functions::log(sum), max)
            }
        }
    }
}

#[inline(always)]
fn reduce_any<V: Vector>(
    reduction: Reduction,
    plan: &Reduce,
    range: Range<usize>,
    input: &[f32],
    output: &mut [f32],
) {
    plan.check(&range, input.len(), output.len());
    let start = range.start;
    let [stride] = plan.kept.inner_strides();
    for Run { at, first: [first], count } in plan.kept.runs(range) {
        let mut i = 0;
        while i < count {
            // SAFETY: the walk stays inside the input just checked.
            unsafe {
                let pointer = input.as_ptr().offset(first as isize + i as isize * stride);
                let place = output.as_mut_ptr().add(at - start + i);
                let columns = (stride == 1).then_some(count - i);
                let result: V = reduce_at(reduction, &plan.reduced, pointer, columns);
                result.store_upto(place, columns.unwrap_or(1));
                i += if stride == 1 { V::LANES } else { 1 };
            }
        }
    }
}

vectorised! {
    /// Reduces the `range` of results; `input` is the whole tensor, `output` just the range. The
    /// order of summation depends only on the plan and the instruction set.
    ///
    /// # Panics
    /// If a slice is shorter than the plan needs.
    pub fn reduce_f32(isa, reduction: Reduction, plan: &Reduce, range: Range<usize>,
        input: &[f32], output: &mut [f32]) = reduce_any;
}

/// Folds elements of any type from `start`, for index arithmetic and logic; otherwise as
/// [`reduce_f32`].
///
/// # Panics
/// If a slice is shorter than the plan needs.
pub fn reduce_with<T: Copy>(
    plan: &Reduce,
    range: Range<usize>,
    input: &[T],
    output: &mut [T],
    start: T,
    step: impl Fn(T, T) -> T,
) {
    plan.check(&range, input.len(), output.len());
    let from = range.start;
    let ([kept], [reduced]) = (plan.kept.inner_strides(), plan.reduced.inner_strides());
    for Run { at, first: [first], count } in plan.kept.runs(range) {
        for (i, place) in output[at - from..][..count].iter_mut().enumerate() {
            let base = first.wrapping_add_signed(i as isize * kept);
            *place = start;
            for Run { first: [offset], count, .. } in plan.reduced.runs(0..plan.reduced.len()) {
                for j in 0..count as isize {
                    *place = step(*place, input[base + offset.wrapping_add_signed(j * reduced)]);
                }
            }
        }
    }
}

/// Which of several equal extremes counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// The first.
    First,
    /// The last.
    Last,
}

/// The index of the greatest (or, if `least`, the least) element along the middle axis of a tensor
/// of (outer, `axis`, `inner`) elements; `output` has (outer, `inner`). NaN counts as extreme.
///
/// # Panics
/// If `axis` is 0 or the lengths do not agree.
pub fn arg_extreme<T: Copy + PartialOrd>(
    least: bool,
    tie: Tie,
    axis: usize,
    inner: usize,
    input: &[T],
    output: &mut [i64],
) {
    assert!(axis > 0, "nothing to choose from");
    assert_eq!(input.len(), output.len() * axis, "one result for each line");
    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
    let beats = |x: T, best: T| {
        if x != x || best != best {
            return best == best || tie == Tie::Last && x != x;
        }
        let wins = if least { x < best } else { x > best };
        wins || tie == Tie::Last && x == best
    };
    if inner == 0 {
        return;
    }
    for (outer, row) in output.chunks_exact_mut(inner).enumerate() {
        for (column, place) in row.iter_mut().enumerate() {
            let line = &input[outer * axis * inner + column..];
            let (mut best, mut index) = (line[0], 0);
            for i in 1..axis {
                let x = line[i * inner];
                if beats(x, best) {
                    (best, index) = (x, i);
                }
            }
            *place = index as i64;
        }
    }
}
