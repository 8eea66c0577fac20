//! The two element types that bf16 products read and write: f32, rounded on the way, and bf16.

use half::bf16;

use crate::isa::Isa;
use crate::quantize::f32_to_bf16;
use crate::vector::Vector;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

/// f32 or bf16.
pub trait Real: Copy + sealed::Sealed + 'static {
    /// True for f32.
    const WIDE: bool;

    /// The value, rounded to nearest even.
    fn from_f32(value: f32) -> Self;

    /// The values as bf16, rounded to nearest even; both slices have one length.
    fn round(isa: Isa, from: &[Self], to: &mut [bf16]);
}

impl Real for f32 {
    const WIDE: bool = true;

    fn from_f32(value: f32) -> Self {
        value
    }

    fn round(isa: Isa, from: &[f32], to: &mut [bf16]) {
        f32_to_bf16(isa, from, to);
    }
}

impl Real for bf16 {
    const WIDE: bool = false;

    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }

    fn round(_isa: Isa, from: &[bf16], to: &mut [bf16]) {
        to.copy_from_slice(from);
    }
}

/// `LANES` values, or the first `count` where fewer are left.
///
/// # Safety
/// `count.min(LANES)` values must be readable.
#[inline(always)]
pub(crate) unsafe fn load_real<V: Vector, T: Real>(from: *const T, count: usize) -> V {
    // SAFETY: the caller's promise; what is not f32 is bf16.
    unsafe {
        match T::WIDE {
            true => V::load_upto(from.cast(), count),
            false => V::load_bf16_upto(from.cast(), count),
        }
    }
}

/// Stores `LANES` values, or the first `count` where fewer are left, rounded if they are to be bf16.
///
/// # Safety
/// `count.min(LANES)` values must be writable.
#[inline(always)]
pub(crate) unsafe fn store_real<V: Vector, R: Real>(value: V, to: *mut R, count: usize) {
    // SAFETY: the caller's promise; what is not f32 is bf16.
    unsafe {
        match R::WIDE {
            true => value.store_upto(to.cast(), count),
            false => value.store_bf16_upto(to.cast(), count),
        }
    }
}
