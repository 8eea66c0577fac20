//! [`Vector`] in plain Rust: four lanes, which compilers turn into SSE2 or NEON registers.

use crate::vector::Vector;
use half::{bf16, f16};
use std::array::from_fn;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Four f32 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Vector4([f32; 4]);

#[inline(always)]
fn each<T: Copy, R>(a: [T; 4], f: impl Fn(T) -> R) -> [R; 4] {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn pairs<T: Copy, R>(a: [T; 4], b: [T; 4], f: impl Fn(T, T) -> R) -> [R; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

macro_rules! operator {
    ($($trait:ident $method:ident)+) => {$(
        impl $trait for Vector4 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(pairs(self.0, other.0, |a, b| a.$method(b)))
            }
        }
    )+};
}
operator! { Add add Sub sub Mul mul Div div }

impl Neg for Vector4 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(each(self.0, |a| -a))
    }
}

/// Rounds without a library call: adding 2^23 pushes the fraction out.
#[inline(always)]
fn round_even(x: f32) -> f32 {
    const SHIFT: f32 = 8_388_608.0;
    let magnitude = x.abs();
    let rounded = if magnitude < SHIFT { (magnitude + SHIFT) - SHIFT } else { magnitude };
    rounded.copysign(x)
}

impl Vector for Vector4 {
    const LANES: usize = 4;
    const FUSED: bool = false;
    type Mask = [u32; 4];
    type Int = [i32; 4];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    unsafe fn load(pointer: *const f32) -> Self {
        // SAFETY: the caller promises four values.
        Self(unsafe { pointer.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(pointer: *const f32, count: usize) -> Self {
        // SAFETY: the caller promises `count` values.
        Self(from_fn(|i| if i < count { unsafe { *pointer.add(i) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn store(self, pointer: *mut f32) {
        // SAFETY: the caller promises four places.
        unsafe { pointer.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, pointer: *mut f32, count: usize) {
        for (i, &value) in self.0.iter().enumerate().take(count) {
            // SAFETY: the caller promises `count` places.
            unsafe { *pointer.add(i) = value }
        }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        self * factor + addend
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(each(self.0, f32::abs))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(each(self.0, f32::sqrt))
    }
    #[inline(always)]
    fn floor(self) -> Self {
        Self(each(self.0, |x| {
            let near = round_even(x);
            (if near > x { near - 1.0 } else { near }).copysign(x)
        }))
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        Self(each(self.0, |x| {
            let near = round_even(x);
            (if near < x { near + 1.0 } else { near }).copysign(x)
        }))
    }
    #[inline(always)]
    fn round_even(self) -> Self {
        Self(each(self.0, round_even))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, |a, b| if a < b { a } else { b }))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, |a, b| if a > b { a } else { b }))
    }
    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        Self(pairs(self.0, sign.0, f32::copysign))
    }

    #[inline(always)]
    fn below(count: usize) -> [u32; 4] {
        from_fn(|i| if i < count { u32::MAX } else { 0 })
    }
    #[inline(always)]
    fn less(self, other: Self) -> [u32; 4] {
        pairs(self.0, other.0, |a, b| if a < b { u32::MAX } else { 0 })
    }
    #[inline(always)]
    fn not_less(self, other: Self) -> [u32; 4] {
        pairs(self.0, other.0, |a, b| if a < b { 0 } else { u32::MAX })
    }
    #[inline(always)]
    fn equal(self, other: Self) -> [u32; 4] {
        pairs(self.0, other.0, |a, b| if a == b { u32::MAX } else { 0 })
    }
    #[inline(always)]
    fn select(mask: [u32; 4], yes: Self, no: Self) -> Self {
        let kept = pairs(mask, each(yes.0, f32::to_bits), |mask, x| mask & x);
        let other = pairs(mask, each(no.0, f32::to_bits), |mask, x| !mask & x);
        Self(pairs(kept, other, |a, b| f32::from_bits(a | b)))
    }

    #[inline(always)]
    fn to_int(self) -> [i32; 4] {
        // The sum's low bits are the rounded number; no saturating conversion needed.
        const SHIFT: f32 = 12_582_912.0;
        each(self.0, |x| (x + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32)
    }
    #[inline(always)]
    fn from_int(value: [i32; 4]) -> Self {
        Self(each(value, |x| x as f32))
    }
    #[inline(always)]
    fn bits(self) -> [i32; 4] {
        each(self.0, |x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn from_bits(bits: [i32; 4]) -> Self {
        Self(each(bits, |x| f32::from_bits(x as u32)))
    }
    #[inline(always)]
    fn int_splat(value: i32) -> [i32; 4] {
        [value; 4]
    }
    #[inline(always)]
    fn int_add(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        pairs(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn int_sub(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        pairs(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn int_and(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        pairs(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn int_shift_left<const BITS: u32>(a: [i32; 4]) -> [i32; 4] {
        each(a, |a| a << BITS)
    }
    #[inline(always)]
    fn int_add_pairs(sum: [i32; 4], a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        let product = |a: i32, b: i32| i32::from(a as i16).wrapping_mul(i32::from(b as i16));
        let both = |a: i32, b: i32| product(a, b).wrapping_add(product(a >> 16, b >> 16));
        pairs(sum, pairs(a, b, both), i32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn int_load(pointer: *const i32) -> [i32; 4] {
        // SAFETY: the caller promises four values.
        unsafe { pointer.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn int_store(value: [i32; 4], pointer: *mut i32) {
        // SAFETY: the caller promises four places.
        unsafe { pointer.cast::<[i32; 4]>().write_unaligned(value) }
    }
    #[inline(always)]
    fn int_halve(a: [i32; 4]) -> [i32; 4] {
        each(a, |a| a >> 1)
    }
    #[inline(always)]
    unsafe fn int_load_u8(pointer: *const u8) -> [i32; 4] {
        // SAFETY: the caller promises four bytes.
        each(unsafe { pointer.cast::<[u8; 4]>().read_unaligned() }, i32::from)
    }
    #[inline(always)]
    unsafe fn int_load_i8(pointer: *const i8) -> [i32; 4] {
        // SAFETY: the caller promises four bytes.
        each(unsafe { pointer.cast::<[i8; 4]>().read_unaligned() }, i32::from)
    }
    #[inline(always)]
    unsafe fn int_store_bytes(value: [i32; 4], pointer: *mut u8) {
        // SAFETY: the caller promises four bytes.
        unsafe { pointer.cast::<[u8; 4]>().write_unaligned(each(value, |x| x as u8)) }
    }

    #[inline(always)]
    unsafe fn load_halves(pointer: *const u16) -> Self {
        // SAFETY: the caller promises four values.
        let halves = unsafe { pointer.cast::<[u16; 4]>().read_unaligned() };
        Self(halves.map(|x| f16::from_bits(x).to_f32_const()))
    }
    #[inline(always)]
    unsafe fn load_bf16(pointer: *const bf16) -> Self {
        // SAFETY: the caller promises four values.
        let halves = unsafe { pointer.cast::<[bf16; 4]>().read_unaligned() };
        Self(halves.map(bf16::to_f32_const))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, pointer: *mut bf16) {
        // SAFETY: the caller promises four places.
        unsafe { pointer.cast::<[bf16; 4]>().write_unaligned(self.0.map(bf16::from_f32_const)) }
    }
    #[inline(always)]
    unsafe fn store_halves(self, pointer: *mut u16) {
        let halves = each(self.0, |x| f16::from_f32_const(x).to_bits());
        // SAFETY: the caller promises four places.
        unsafe { pointer.cast::<[u16; 4]>().write_unaligned(halves) }
    }

    #[inline(always)]
    fn exchange<const DISTANCE: u32>(self) -> Self {
        let [a, b, c, d] = self.0;
        Self(if DISTANCE == 2 { [c, d, a, b] } else { [b, a, d, c] })
    }
    #[inline(always)]
    fn first(self) -> f32 {
        self.0[0]
    }
}
