//! Functions of two variables with broadcasting: f32 vectors, integers, comparisons, selection.

use crate::broadcast::{Broadcast, Run};
use crate::vector::{Vector, vectorised};
use std::ops::Range;

/// A function of two f32 compiled for every set.
trait Function: Copy {
    fn of<V: Vector>(self, a: V, b: V) -> V;
}

/// One operand along the innermost axis.
trait Source<V: Vector>: Copy {
    /// The `count.min(LANES)` values from the `i`-th on; lanes beyond are unspecified.
    /// # Safety
    /// They must be readable.
    unsafe fn at(self, i: usize, count: usize) -> V;
}

#[derive(Clone, Copy)]
struct Dense(*const f32);
#[derive(Clone, Copy)]
struct Repeated<V>(V);
#[derive(Clone, Copy)]
struct Strided(*const f32, isize);

impl<V: Vector> Source<V> for Dense {
    #[inline(always)]
    unsafe fn at(self, i: usize, count: usize) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load_upto(self.0.add(i), count) }
    }
}

impl<V: Vector> Source<V> for Repeated<V> {
    #[inline(always)]
    unsafe fn at(self, _: usize, _: usize) -> V {
        self.0
    }
}

impl<V: Vector> Source<V> for Strided {
    #[inline(always)]
    unsafe fn at(self, i: usize, count: usize) -> V {
        let mut lanes = [0.0; 16];
        for (lane, value) in lanes[..V::LANES.min(count)].iter_mut().enumerate() {
            // SAFETY: as promised by the caller.
            *value = unsafe { *self.0.offset((i + lane) as isize * self.1) };
        }
        // SAFETY: no set has more than 16 lanes.
        unsafe { V::load(lanes.as_ptr()) }
    }
}

/// # Safety
/// The sources must have `count` values, `output` that many places.
#[inline(always)]
unsafe fn sweep<V: Vector, F: Function>(
    f: F,
    a: impl Source<V>,
    b: impl Source<V>,
    clamp: [V; 2],
    output: *mut f32,
    count: usize,
) {
    for i in (0..count).step_by(V::LANES) {
        let left = count - i;
        // SAFETY: all offsets stay below `count`.
        unsafe {
            let value = f.of(a.at(i, left), b.at(i, left)).clamp(clamp[0], clamp[1]);
            value.store_upto(output.add(i), left);
        }
    }
}

/// # Safety
/// `a` and `b` must satisfy `walk.check`, `output` must have `range.len()` places, and equal `a`
/// or be apart from both; it may equal `a` only if `a` is read in output order.
#[inline(always)]
unsafe fn walk<V: Vector, F: Function>(
    f: F,
    walk: &Broadcast<2>,
    range: Range<usize>,
    a: *const f32,
    b: *const f32,
    clamp: [f32; 2],
    output: *mut f32,
) {
    let clamp = [V::splat(clamp[0]), V::splat(clamp[1])];
    let strides = walk.inner_strides();
    let start = range.start;
    for Run { at, first: [first_a, first_b], count } in walk.runs(range) {
        // SAFETY: the walk stays inside its operands.
        unsafe {
            let (a, b) = (a.wrapping_add(first_a), b.add(first_b));
            let output = output.add(at - start);
            match strides {
                [1, 1] => sweep::<V, F>(f, Dense(a), Dense(b), clamp, output, count),
                [1, 0] => sweep(f, Dense(a), Repeated(V::splat(*b)), clamp, output, count),
                [0, 1] => sweep(f, Repeated(V::splat(*a)), Dense(b), clamp, output, count),
                [i, j] => sweep::<V, F>(f, Strided(a, i), Strided(b, j), clamp, output, count),
            }
        }
    }
}

/// Builds [`Binary`] and its dispatch from the table below.
macro_rules! binary_functions {
    ($( $(#[$doc:meta])* $name:ident |$a:ident, $b:ident| $body:expr; )*) => {
        /// The f32 functions of two variables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Binary { $( $(#[$doc])* $name, )* }

        impl Binary {
            /// Every function, in the order of the table.
            pub const ALL: &[Binary] = &[$( Binary::$name ),*];
        }

        mod table {
            use super::*;
            $(
                #[derive(Clone, Copy)]
                pub(super) struct $name;
                impl Function for $name {
                    #[inline(always)]
                    fn of<V: Vector>(self, $a: V, $b: V) -> V { $body }
                }
            )*
        }

        /// # Safety
        /// As [`walk`].
        #[inline(always)]
        unsafe fn walk_any<V: Vector>(
            function: Binary,
            plan: &Broadcast<2>,
            range: Range<usize>,
            a: *const f32,
            b: *const f32,
            clamp: [f32; 2],
            output: *mut f32,
        ) {
            match function {
                $( Binary::$name => {
                    // SAFETY: as promised by the caller.
                    unsafe { walk::<V, _>(table::$name, plan, range, a, b, clamp, output) }
                } )*
            }
        }
    };
}

binary_functions! {
    /// a + b.
    Add |a, b| a + b;
    /// a − b.
    Subtract |a, b| a - b;
    /// a b.
    Multiply |a, b| a * b;
    /// a / b.
    Divide |a, b| a / b;
    /// The larger; NaN if either is NaN.
    Max |a, b| V::select(a.equal(a), a.max(b), a);
    /// The smaller; NaN if either is NaN.
    Min |a, b| V::select(a.equal(a), a.min(b), a);
    /// (a − b)².
    SquaredDifference |a, b| (a - b) * (a - b);
    /// a where not negative, a b elsewhere.
    Prelu |a, b| V::select(a.less(V::splat(0.0)), a * b, a);
    // One lane at a time on every set: a pass replaces the common constant exponents.
    /// a to the power b.
    Power |a, b| a.each_pair(b, f32::powf);
    /// The remainder of a / b with the sign of a (C `fmod`).
    Remainder |a, b| a.each_pair(b, |a, b| a % b);
    /// The remainder of a / b with the sign of b (Python `%`).
    Modulo |a, b| a.each_pair(b, |a, b| {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    });
}

/// The clamp that changes nothing.
pub const NO_CLAMP: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

#[inline(always)]
fn apart<V: Vector>(
    function: Binary,
    plan: &Broadcast<2>,
    range: Range<usize>,
    a: &[f32],
    b: &[f32],
    clamp: [f32; 2],
    output: &mut [f32],
) {
    plan.check(&range, [a.len(), b.len()], output.len());
    // SAFETY: just checked; the borrows keep the output apart.
    unsafe {
        let (a, b, output) = (a.as_ptr(), b.as_ptr(), output.as_mut_ptr());
        walk_any::<V>(function, plan, range, a, b, clamp, output)
    }
}

#[inline(always)]
fn in_place<V: Vector>(
    function: Binary,
    plan: &Broadcast<2>,
    range: Range<usize>,
    a: &mut [f32],
    b: &[f32],
    clamp: [f32; 2],
) {
    assert_eq!(a.len(), range.len(), "the first operand holds the range");
    assert!(plan.is_identity(0), "the first operand is read in output order");
    plan.check(&range, [plan.len(), b.len()], a.len());
    // SAFETY: `a` holds the range, from whose start its offsets count, and is read where it is
    // written.
    unsafe {
        let pointer = a.as_mut_ptr();
        let first = pointer.wrapping_sub(range.start);
        walk_any::<V>(function, plan, range, first, b.as_ptr(), clamp, pointer)
    }
}

vectorised! {
    /// `output = clamp(function(a, b))` for the `range` of output elements of the plan; `output`
    /// holds just that range, `a` and `b` are whole tensors. NaN passes the clamp.
    ///
    /// # Panics
    /// If a slice is shorter than the plan needs.
    pub fn binary_f32(isa, function: Binary, plan: &Broadcast<2>, range: Range<usize>,
        a: &[f32], b: &[f32], clamp: [f32; 2], output: &mut [f32]) = apart;
    /// `a = clamp(function(a, b))`; `a` is dense and holds just the range.
    ///
    /// # Panics
    /// If a slice is shorter than the plan needs or the plan reads `a` in another order.
    pub fn binary_f32_in_place(isa, function: Binary, plan: &Broadcast<2>, range: Range<usize>,
        a: &mut [f32], b: &[f32], clamp: [f32; 2]) = in_place;
}

/// Runs `f` over two operands of any type, for the `range` of output elements of the plan.
///
/// Meant for index arithmetic and logic, where speed does not matter.
///
/// # Panics
/// If a slice is shorter than the plan needs.
pub fn zip<A: Copy, B: Copy, R>(
    plan: &Broadcast<2>,
    range: Range<usize>,
    a: &[A],
    b: &[B],
    output: &mut [R],
    f: impl Fn(A, B) -> R,
) {
    plan.check(&range, [a.len(), b.len()], output.len());
    let start = range.start;
    for Run { at, first: [first_a, first_b], count } in plan.runs(range) {
        let output = &mut output[at - start..][..count];
        // Loops the compiler makes vectors of.
        match plan.inner_strides() {
            [1, 1] => {
                let pairs = a[first_a..][..count].iter().zip(&b[first_b..][..count]);
                output.iter_mut().zip(pairs).for_each(|(y, (&a, &b))| *y = f(a, b));
            }
            [1, 0] => {
                let b = b[first_b];
                output.iter_mut().zip(&a[first_a..][..count]).for_each(|(y, &a)| *y = f(a, b));
            }
            [0, 1] => {
                let a = a[first_a];
                output.iter_mut().zip(&b[first_b..][..count]).for_each(|(y, &b)| *y = f(a, b));
            }
            [stride_a, stride_b] => {
                for (i, y) in output.iter_mut().enumerate() {
                    let a = a[first_a.wrapping_add_signed(i as isize * stride_a)];
                    let b = b[first_b.wrapping_add_signed(i as isize * stride_b)];
                    *y = f(a, b);
                }
            }
        }
    }
}

/// `output = if condition != 0 { yes } else { no }` for elements of any type, with broadcasting.
///
/// # Panics
/// If a slice is shorter than the plan needs.
pub fn select<T: Copy>(
    plan: &Broadcast<3>,
    range: Range<usize>,
    condition: &[u8],
    yes: &[T],
    no: &[T],
    output: &mut [T],
) {
    plan.check(&range, [condition.len(), yes.len(), no.len()], output.len());
    let start = range.start;
    let [stride_c, strides @ ..] = plan.inner_strides();
    for Run { at, first: [first_c, first_y, first_n], count } in plan.runs(range) {
        let output = &mut output[at - start..][..count];
        // Along a line or one for all of it: loops the compiler makes vectors of.
        macro_rules! chosen {
            ($yes:expr, $no:expr) => {
                for (i, (place, &c)) in
                    output.iter_mut().zip(&condition[first_c..][..count]).enumerate()
                {
                    *place = if c != 0 { $yes(i) } else { $no(i) };
                }
            };
        }
        match (stride_c, strides) {
            (1, [0, 0]) => {
                let (yes, no) = (yes[first_y], no[first_n]);
                chosen!(|_| yes, |_| no);
            }
            (1, [1, 0]) => {
                let (yes, no) = (&yes[first_y..][..count], no[first_n]);
                chosen!(|i: usize| yes[i], |_| no);
            }
            (1, [0, 1]) => {
                let (yes, no) = (yes[first_y], &no[first_n..][..count]);
                chosen!(|_| yes, |i: usize| no[i]);
            }
            (1, [1, 1]) => {
                let (yes, no) = (&yes[first_y..][..count], &no[first_n..][..count]);
                chosen!(|i: usize| yes[i], |i: usize| no[i]);
            }
            _ => {
                let at =
                    |first: usize, i: usize, stride| first.wrapping_add_signed(i as isize * stride);
                for (i, place) in output.iter_mut().enumerate() {
                    let chosen = condition[at(first_c, i, stride_c)] != 0;
                    *place = match chosen {
                        true => yes[at(first_y, i, strides[0])],
                        false => no[at(first_n, i, strides[1])],
                    };
                }
            }
        }
    }
}

/// Comparisons that give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// a = b.
    Equal,
    /// a < b.
    Less,
    /// a ≤ b.
    LessOrEqual,
    /// a > b.
    Greater,
    /// a ≥ b.
    GreaterOrEqual,
}

/// `output = 1` where the comparison holds, else 0; false where either is NaN.
///
/// # Panics
/// If a slice is shorter than the plan needs.
pub fn compare<T: Copy + PartialOrd>(
    comparison: Comparison,
    plan: &Broadcast<2>,
    range: Range<usize>,
    a: &[T],
    b: &[T],
    output: &mut [u8],
) {
    match comparison {
        Comparison::Equal => zip(plan, range, a, b, output, |a, b| u8::from(a == b)),
        Comparison::Less => zip(plan, range, a, b, output, |a, b| u8::from(a < b)),
        Comparison::LessOrEqual => zip(plan, range, a, b, output, |a, b| u8::from(a <= b)),
        Comparison::Greater => zip(plan, range, a, b, output, |a, b| u8::from(a > b)),
        Comparison::GreaterOrEqual => zip(plan, range, a, b, output, |a, b| u8::from(a >= b)),
    }
}

/// The integer functions of two variables; all wrap on overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerBinary {
    /// a + b.
    Add,
    /// a − b.
    Subtract,
    /// a b.
    Multiply,
    /// a / b towards zero; 0 where b is 0.
    Divide,
    /// The remainder with the sign of a; 0 where b is 0.
    Remainder,
    /// The remainder with the sign of b; 0 where b is 0.
    Modulo,
    /// The larger.
    Max,
    /// The smaller.
    Min,
    /// a to the power b; negative exponents give the integer part of the quotient.
    Power,
    /// Bits of both.
    And,
    /// Bits of either.
    Or,
    /// Bits of one.
    Xor,
    /// a shifted left by b bits; 0 from the width on.
    ShiftLeft,
    /// a shifted right by b bits, with its sign; like the largest shift from the width on.
    ShiftRight,
}

/// The integer types of [`binary_integer`].
pub trait Integer: Copy {
    /// The function's value.
    fn apply(function: IntegerBinary, a: Self, b: Self) -> Self;
}

macro_rules! integers {
    ($($kind:ty)+) => {$(
        impl Integer for $kind {
            #[inline]
            fn apply(function: IntegerBinary, a: Self, b: Self) -> Self {
                match function {
                    IntegerBinary::Add => a.wrapping_add(b),
                    IntegerBinary::Subtract => a.wrapping_sub(b),
                    IntegerBinary::Multiply => a.wrapping_mul(b),
                    IntegerBinary::Divide if b == 0 => 0,
                    IntegerBinary::Divide => a.wrapping_div(b),
                    IntegerBinary::Remainder | IntegerBinary::Modulo if b == 0 => 0,
                    IntegerBinary::Remainder => a.wrapping_rem(b),
                    IntegerBinary::Modulo => {
                        let rest = a.wrapping_rem(b);
                        if rest != 0 && (rest ^ b) < 0 { rest + b } else { rest }
                    }
                    IntegerBinary::Max => a.max(b),
                    IntegerBinary::Min => a.min(b),
                    IntegerBinary::Power if b >= 0 => a.wrapping_pow(b as u32),
                    IntegerBinary::Power => match a {
                        1 => 1,
                        -1 => if b & 1 == 0 { 1 } else { -1 },
                        _ => 0,
                    },
                    IntegerBinary::And => a & b,
                    IntegerBinary::Or => a | b,
                    IntegerBinary::Xor => a ^ b,
                    IntegerBinary::ShiftLeft => a.checked_shl(b as u32).unwrap_or(0),
                    IntegerBinary::ShiftRight => a >> (b as u32).min(Self::BITS - 1),
                }
            }
        }
    )+};
}
integers! { i32 i64 }

/// `output = function(a, b)` on integers, for index arithmetic.
///
/// # Panics
/// If a slice is shorter than the plan needs.
pub fn binary_integer<T: Integer>(
    function: IntegerBinary,
    plan: &Broadcast<2>,
    range: Range<usize>,
    a: &[T],
    b: &[T],
    output: &mut [T],
) {
    zip(plan, range, a, b, output, |a, b| T::apply(function, a, b));
}
