//! Between f32 and bytes or half floats, and arithmetic on quantised bytes.
//!
//! Everything that yields bytes is defined as an exact sequence of f32 operations without fused
//! steps, so every instruction set gives the same bits.

use crate::broadcast::{Broadcast, Run};
use crate::vector::{Vector, vectorised};
use half::{bf16, f16};
use std::ops::Range;

/// A quantised element: `u8` or `i8`.
pub trait Byte: Copy + Default + Ord + private::Sealed {
    /// The least value, widened.
    const LEAST: i32;
    /// The greatest value, widened.
    const GREATEST: i32;
    /// The least value.
    const LOWEST: Self;
    /// As a wider integer.
    fn widen(self) -> i32;
}

mod private {
    use crate::vector::Vector;

    /// What the kernels need of a [`Byte`](super::Byte).
    pub trait Sealed: Copy {
        /// Lanes from the bytes at `pointer`.
        /// # Safety
        /// `LANES` bytes must be readable.
        #[allow(private_bounds, private_interfaces)]
        unsafe fn load<V: Vector>(pointer: *const Self) -> V::Int;
    }

    impl Sealed for u8 {
        #[inline(always)]
        #[allow(private_bounds, private_interfaces)]
        unsafe fn load<V: Vector>(pointer: *const Self) -> V::Int {
            // SAFETY: as promised by the caller.
            unsafe { V::int_load_u8(pointer) }
        }
    }

    impl Sealed for i8 {
        #[inline(always)]
        #[allow(private_bounds, private_interfaces)]
        unsafe fn load<V: Vector>(pointer: *const Self) -> V::Int {
            // SAFETY: as promised by the caller.
            unsafe { V::int_load_i8(pointer) }
        }
    }
}

impl Byte for u8 {
    const LEAST: i32 = 0;
    const GREATEST: i32 = 255;
    const LOWEST: Self = 0;
    #[inline(always)]
    fn widen(self) -> i32 {
        i32::from(self)
    }
}

impl Byte for i8 {
    const LEAST: i32 = -128;
    const GREATEST: i32 = 127;
    const LOWEST: Self = -128;
    #[inline(always)]
    fn widen(self) -> i32 {
        i32::from(self)
    }
}

/// `count.min(LANES)` bytes `stride` apart as lanes; lanes beyond are 0.
/// # Safety
/// The bytes must be readable.
#[inline(always)]
pub(crate) unsafe fn load_bytes<V: Vector, T: Byte>(
    pointer: *const T,
    stride: isize,
    count: usize,
) -> V::Int {
    // SAFETY: as promised by the caller; no set has more than 16 lanes.
    unsafe {
        if stride == 1 && count >= V::LANES {
            return T::load::<V>(pointer);
        }
        if stride == 0 {
            return V::int_splat((*pointer).widen());
        }
        let mut lanes = [T::default(); 16];
        for (i, lane) in lanes[..V::LANES.min(count)].iter_mut().enumerate() {
            *lane = *pointer.offset(i as isize * stride);
        }
        T::load::<V>(lanes.as_ptr())
    }
}

/// Stores the low bytes of the first `count.min(LANES)` lanes.
/// # Safety
/// They must be writable.
#[inline(always)]
pub(crate) unsafe fn store_bytes<V: Vector, T: Byte>(value: V::Int, pointer: *mut T, count: usize) {
    // SAFETY: as promised by the caller; no set has more than 16 lanes; `T` is one byte.
    unsafe {
        if count >= V::LANES {
            return V::int_store_bytes(value, pointer.cast());
        }
        let mut lanes = [0_u8; 16];
        V::int_store_bytes(value, lanes.as_mut_ptr());
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), pointer.cast(), count);
    }
}

/// The last step of every kernel that yields bytes: `x` in units of the output scale is clamped,
/// rounded half to even, and moved by the zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounding {
    zero: i32,
    least: i32,
    greatest: i32,
}

impl Rounding {
    /// To the whole range of `T`.
    pub fn new<T: Byte>(zero: T) -> Self {
        Self { zero: zero.widen(), least: T::LEAST, greatest: T::GREATEST }
    }

    /// To a part of the range of `T`, as fused activations need.
    pub fn clamped<T: Byte>(zero: T, least: T, greatest: T) -> Self {
        Self { zero: zero.widen(), least: least.widen(), greatest: greatest.widen() }
    }

    /// NaN gives the least value.
    #[inline(always)]
    pub(crate) fn apply<V: Vector>(self, x: V) -> V::Int {
        let low = V::splat((self.least - self.zero) as f32);
        let high = V::splat((self.greatest - self.zero) as f32);
        V::int_add(x.max(low).min(high).to_int(), V::int_splat(self.zero))
    }
}

/// Does something with the place of every vector among `$count` elements, and how many are left from
/// there: a constant where there are as many as lanes, so that what whole vectors do has no branches.
/// The last vector may lie over the one before it, so what is written must not be read. A macro, because
/// what a closure does is not compiled for an instruction set.
macro_rules! by_vectors {
    ($vector:ident, $count:expr, |$i:ident, $left:ident| $body:block) => {
        let count = $count;
        let whole = count / $vector::LANES * $vector::LANES;
        for $i in (0..whole).step_by($vector::LANES) {
            let $left = $vector::LANES;
            $body
        }
        if whole < count && whole > 0 {
            let ($i, $left) = (count - $vector::LANES, $vector::LANES);
            $body
        } else if whole < count {
            let ($i, $left) = (0, count);
            $body
        }
    };
}

#[inline(always)]
fn quantize_any<V: Vector, T: Byte>(scale: f32, zero: T, input: &[f32], output: &mut [T]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    let (rounding, scale) = (Rounding::new(zero), V::splat(scale));
    by_vectors!(V, input.len(), |i, left| {
        // SAFETY: all offsets stay below the common length.
        unsafe {
            let x = V::load_upto(input.as_ptr().add(i), left) / scale;
            store_bytes::<V, T>(rounding.apply(x), output.as_mut_ptr().add(i), left);
        }
    });
}

#[inline(always)]
fn dequantize_any<V: Vector, T: Byte>(scale: f32, zero: T, input: &[T], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    let (scale, zero) = (V::splat(scale), V::int_splat(zero.widen()));
    by_vectors!(V, input.len(), |i, left| {
        // SAFETY: all offsets stay below the common length.
        unsafe {
            let x = load_bytes::<V, T>(input.as_ptr().add(i), 1, left);
            let x = V::from_int(V::int_sub(x, zero)) * scale;
            x.store_upto(output.as_mut_ptr().add(i), left);
        }
    });
}

#[inline(always)]
fn range_any<V: Vector>(input: &[f32]) -> [f32; 2] {
    let infinity = V::splat(f32::INFINITY);
    let (mut low, mut high) = ([infinity; 4], [-infinity; 4]);
    let blocks = input.chunks_exact(V::LANES * 4);
    let mut bounds = [f32::INFINITY, f32::NEG_INFINITY];
    for &x in blocks.remainder() {
        // `min` and `max` of f32 pass over NaN.
        bounds = [bounds[0].min(x), bounds[1].max(x)];
    }
    for block in blocks {
        for k in 0..4 {
            // SAFETY: a block has 4 vectors.
            let x = unsafe { V::load(block.as_ptr().add(k * V::LANES)) };
            low[k] = x.min(low[k]);
            high[k] = x.max(high[k]);
        }
    }
    let low = low[0].min(low[1]).min(low[2].min(low[3])).fold(f32::min);
    let high = high[0].max(high[1]).max(high[2].max(high[3])).fold(f32::max);
    [bounds[0].min(low), bounds[1].max(high)]
}

/// The scale and zero point that ONNX DynamicQuantizeLinear derives from the range of the data:
/// the range is widened to hold 0, `scale = (high − low) / 255`,
/// `zero = round(clamp(−low / scale))`. An empty range gives scale 1 and zero 0.
pub fn dynamic_parameters(range: [f32; 2]) -> (f32, u8) {
    let (low, high) = (range[0].min(0.0), range[1].max(0.0));
    let scale = (high - low) / 255.0;
    if scale == 0.0 {
        return (1.0, 0);
    }
    (scale, (-low / scale).clamp(0.0, 255.0).round_ties_even() as u8)
}

/// How two quantised operands become one: with `f = a − zero_a` and `g = b − zero_b` as f32, a
/// sum is `f scale_a + g scale_b`, a product `(f scale_a)(g scale_b)`; then [`Rounding`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizedPair {
    /// Factor of a.
    pub scale_a: f32,
    /// Factor of b.
    pub scale_b: f32,
    /// Zero point of a.
    pub zero_a: i32,
    /// Zero point of b.
    pub zero_b: i32,
    /// The last step.
    pub rounding: Rounding,
}

/// One stretch of [`pair_any`].
/// # Safety
/// `count` bytes must be accessible in each, `strides` apart in the operands.
#[inline(always)]
unsafe fn pair_run<V: Vector, T: Byte, const PRODUCT: bool>(
    pair: QuantizedPair,
    [a, b]: [*const T; 2],
    strides: [isize; 2],
    output: *mut T,
    count: usize,
) {
    let (zero_a, zero_b) = (V::int_splat(pair.zero_a), V::int_splat(pair.zero_b));
    let (scale_a, scale_b) = (V::splat(pair.scale_a), V::splat(pair.scale_b));
    by_vectors!(V, count, |i, left| {
        // SAFETY: all offsets stay below `count`.
        unsafe {
            let f = load_bytes::<V, T>(a.offset(i as isize * strides[0]), strides[0], left);
            let g = load_bytes::<V, T>(b.offset(i as isize * strides[1]), strides[1], left);
            let f = V::from_int(V::int_sub(f, zero_a));
            let g = V::from_int(V::int_sub(g, zero_b));
            let (f, g) = (f * scale_a, g * scale_b);
            let h = if PRODUCT { f * g } else { f + g };
            store_bytes::<V, T>(pair.rounding.apply(h), output.add(i), left);
        }
    });
}

/// `rows` dense rows by one row of reals, a few columns of all rows at a time, whose reals stay in
/// registers.
///
/// # Safety
/// All rows must be accessible in `a` and `output`, one in `reals`; there are as many columns as
/// lanes.
#[inline(always)]
unsafe fn gated_rows<V: Vector, T: Byte>(
    pair: QuantizedPair,
    a: *const T,
    reals: *const f32,
    output: *mut T,
    [rows, columns]: [usize; 2],
) {
    let (zero, scale) = (V::int_splat(pair.zero_a), V::splat(pair.scale_a));
    macro_rules! block {
        ($column:expr, $vectors:literal) => {
            // SAFETY: the columns are inside the rows.
            unsafe {
                let mut gates = [V::splat(0.0); $vectors];
                for (k, gate) in gates.iter_mut().enumerate() {
                    *gate = V::load(reals.add($column + k * V::LANES));
                }
                for row in 0..rows {
                    for (k, &gate) in gates.iter().enumerate() {
                        let at = row * columns + $column + k * V::LANES;
                        let f = V::from_int(V::int_sub(T::load::<V>(a.add(at)), zero));
                        let h = pair.rounding.apply(f * scale * gate);
                        V::int_store_bytes(h, output.add(at).cast());
                    }
                }
            }
        };
    }
    let mut column = 0;
    while column + 4 * V::LANES <= columns {
        block!(column, 4);
        column += 4 * V::LANES;
    }
    while column + V::LANES <= columns {
        block!(column, 1);
        column += V::LANES;
    }
    if column < columns {
        // Over what was written before: `a` is apart from the output.
        block!(columns - V::LANES, 1);
    }
}

/// Products of dense rows by one row for each group of them, as gates of channels are; false where
/// the walk is another one.
#[inline(always)]
fn gated<V: Vector, T: Byte>(
    pair: QuantizedPair,
    plan: &Broadcast<2>,
    range: &Range<usize>,
    [a, b]: [&[T]; 2],
    output: &mut [T],
) -> bool {
    let (&[.., group, columns], &[.., 0, 1]) = (plan.sizes(), plan.strides(1)) else {
        return false;
    };
    let whole = range.start.is_multiple_of(columns) && range.end.is_multiple_of(columns);
    if !whole || columns < V::LANES || !plan.is_identity(0) {
        return false;
    }
    let mut reals = vec![0.0f32; columns];
    let mut at = range.start;
    while at < range.end {
        let rows = (group - at / columns % group).min((range.end - at) / columns);
        let gates = &b[plan.locate(at).1[1] as usize..][..columns];
        for (real, gate) in reals.iter_mut().zip(gates) {
            *real = (gate.widen() - pair.zero_b) as f32 * pair.scale_b;
        }
        let place = &mut output[at - range.start..][..rows * columns];
        // SAFETY: the slices are that long; the walk over `a`, which is dense, was checked.
        unsafe {
            let (a, reals) = (a.as_ptr().add(at), reals.as_ptr());
            gated_rows::<V, T>(pair, a, reals, place.as_mut_ptr(), [rows, columns]);
        }
        at += rows * columns;
    }
    true
}

#[inline(always)]
fn pair_any<V: Vector, T: Byte, const PRODUCT: bool>(
    pair: QuantizedPair,
    plan: &Broadcast<2>,
    range: Range<usize>,
    a: &[T],
    b: &[T],
    output: &mut [T],
) {
    plan.check(&range, [a.len(), b.len()], output.len());
    if PRODUCT && gated::<V, T>(pair, plan, &range, [a, b], output) {
        return;
    }
    let start = range.start;
    let strides = plan.inner_strides();
    for Run { at, first, count } in plan.runs(range) {
        // SAFETY: the walk stays inside the slices just checked.
        unsafe {
            let operands = [a.as_ptr().add(first[0]), b.as_ptr().add(first[1])];
            let place = output.as_mut_ptr().add(at - start);
            match strides {
                // The same, but with strides the compiler knows.
                [1, 1] => pair_run::<V, T, PRODUCT>(pair, operands, [1, 1], place, count),
                _ => pair_run::<V, T, PRODUCT>(pair, operands, strides, place, count),
            }
        }
    }
}

#[inline(always)]
fn sum_any<V: Vector, T: Byte>(
    pair: QuantizedPair,
    plan: &Broadcast<2>,
    range: Range<usize>,
    a: &[T],
    b: &[T],
    output: &mut [T],
) {
    pair_any::<V, T, false>(pair, plan, range, a, b, output);
}

#[inline(always)]
fn product_any<V: Vector, T: Byte>(
    pair: QuantizedPair,
    plan: &Broadcast<2>,
    range: Range<usize>,
    a: &[T],
    b: &[T],
    output: &mut [T],
) {
    pair_any::<V, T, true>(pair, plan, range, a, b, output);
}

#[inline(always)]
fn to_f16<V: Vector>(input: &[f32], output: &mut [f16]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    for i in (0..input.len()).step_by(V::LANES) {
        let left = input.len() - i;
        // SAFETY: all offsets stay below the common length; no set has more than 16 lanes.
        unsafe {
            let x = V::load_upto(input.as_ptr().add(i), left);
            let place: *mut u16 = output.as_mut_ptr().add(i).cast();
            if left >= V::LANES {
                x.store_halves(place);
            } else {
                let mut lanes = [0_u16; 16];
                x.store_halves(lanes.as_mut_ptr());
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), place, left);
            }
        }
    }
}

#[inline(always)]
fn from_f16<V: Vector>(input: &[f16], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    for i in (0..input.len()).step_by(V::LANES) {
        let left = input.len() - i;
        // SAFETY: all offsets stay below the common length; no set has more than 16 lanes.
        unsafe {
            let from: *const u16 = input.as_ptr().add(i).cast();
            let place = output.as_mut_ptr().add(i);
            if left >= V::LANES {
                V::load_halves(from).store(place);
            } else {
                let mut lanes = [0_u16; 16];
                std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), left);
                V::load_halves(lanes.as_ptr()).store_first(place, left);
            }
        }
    }
}

#[inline(always)]
fn to_bf16<V: Vector>(input: &[f32], output: &mut [bf16]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    for i in (0..input.len()).step_by(V::LANES) {
        let left = input.len() - i;
        // SAFETY: all offsets stay below the common length.
        unsafe {
            let x = V::load_upto(input.as_ptr().add(i), left);
            x.store_bf16_upto(output.as_mut_ptr().add(i), left);
        }
    }
}

/// A plain loop on the bits, which compilers turn into vectors.
#[inline(always)]
fn from_bf16<V: Vector>(input: &[bf16], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "one result for each value");
    for (place, x) in output.iter_mut().zip(input) {
        *place = f32::from_bits(u32::from(x.to_bits()) << 16);
    }
}

vectorised! {
    /// `output = saturate(round(input / scale) + zero)`, halves to even, as ONNX QuantizeLinear
    /// defines it (a true division); NaN gives the least value.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quantize[T: Byte](isa, scale: f32, zero: T, input: &[f32], output: &mut [T])
        = quantize_any;
    /// `output = (input − zero) scale`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dequantize[T: Byte](isa, scale: f32, zero: T, input: &[T], output: &mut [f32])
        = dequantize_any;
    /// The least and the greatest value, NaN passed over; `[∞, −∞]` if there is none.
    pub fn range_f32(isa, input: &[f32]) -> [f32; 2] = range_any;
    /// The rounded sum of two quantised tensors, for the `range` of output elements of the plan;
    /// `output` holds just that range.
    ///
    /// # Panics
    /// If a slice is shorter than the plan needs.
    pub fn add_quantized[T: Byte](isa, pair: QuantizedPair, plan: &Broadcast<2>,
        range: Range<usize>, a: &[T], b: &[T], output: &mut [T]) = sum_any;
    /// The rounded product of two quantised tensors, otherwise as [`add_quantized`].
    ///
    /// # Panics
    /// If a slice is shorter than the plan needs.
    pub fn multiply_quantized[T: Byte](isa, pair: QuantizedPair, plan: &Broadcast<2>,
        range: Range<usize>, a: &[T], b: &[T], output: &mut [T]) = product_any;
    /// To half precision, to nearest even.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn f32_to_f16(isa, input: &[f32], output: &mut [f16]) = to_f16;
    /// From half precision, exact.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn f16_to_f32(isa, input: &[f16], output: &mut [f32]) = from_f16;
    /// To bfloat16, to nearest even.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn f32_to_bf16(isa, input: &[f32], output: &mut [bf16]) = to_bf16;
    /// From bfloat16, exact.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn bf16_to_f32(isa, input: &[bf16], output: &mut [f32]) = from_bf16;
}
