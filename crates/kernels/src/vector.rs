//! The vector abstraction: a kernel is written once over [`Vector`] and compiled for every set.
//!
//! Every method is `#[inline(always)]` and holds bare intrinsics, so it must end up inside a
//! function that has the target features. [`vectorised!`] makes such functions, and only they
//! name the vector types; that is what makes the safe methods sound.

use std::ops::{Add, Div, Mul, Neg, Sub};

use half::bf16;

/// A register of f32 lanes with its masks and its i32 twin.
///
/// `min` and `max` return the *second* operand when either is NaN, as x86 does; kernels choose the
/// order to say whether NaN passes.
pub(crate) trait Vector:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// How many lanes.
    const LANES: usize;
    /// True if `mul_add` rounds once.
    const FUSED: bool;
    /// True if [`Vector::look_up`] takes one or two instructions.
    const LOOKS_UP: bool = false;
    /// One truth value a lane.
    type Mask: Copy;
    /// One i32 a lane.
    type Int: Copy;

    fn splat(value: f32) -> Self;
    /// # Safety
    /// `LANES` values must be readable.
    unsafe fn load(pointer: *const f32) -> Self;
    /// The first `count < LANES` values, then zeros.
    /// # Safety
    /// `count` values must be readable.
    unsafe fn load_first(pointer: *const f32, count: usize) -> Self;
    /// # Safety
    /// `LANES` values must be writable.
    unsafe fn store(self, pointer: *mut f32);
    /// # Safety
    /// `count < LANES` values must be writable.
    unsafe fn store_first(self, pointer: *mut f32, count: usize);

    /// `self * factor + addend`.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    /// To the nearest whole number, halves to even.
    fn round_even(self) -> Self;
    fn min(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn copy_sign(self, sign: Self) -> Self;
    /// `self * 2^power` for whole `power` in -300..=300, with gradual underflow.
    #[inline(always)]
    fn scale_exponent(self, power: Self) -> Self {
        let power = power.to_int();
        let half = Self::int_halve(power);
        let bias = Self::int_splat(127);
        let two_to = |n| Self::from_bits(Self::int_shift_left::<23>(Self::int_add(n, bias)));
        self * two_to(half) * two_to(Self::int_sub(power, half))
    }
    /// `self * 2^power` for whole `power` in -126..=127.
    #[inline(always)]
    fn scale_exponent_normal(self, power: Self) -> Self {
        let field = Self::int_add(power.to_int(), Self::int_splat(127));
        self * Self::from_bits(Self::int_shift_left::<23>(field))
    }

    /// Set in the first `count` lanes, of which there are at least as many.
    fn below(count: usize) -> Self::Mask;
    fn less(self, other: Self) -> Self::Mask;
    /// At least as large, or either is NaN.
    fn not_less(self, other: Self) -> Self::Mask;
    fn equal(self, other: Self) -> Self::Mask;
    /// `yes` where the mask is set.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;

    /// To the nearest i32, halves to even; unspecified beyond ±2^22.
    fn to_int(self) -> Self::Int;
    fn from_int(value: Self::Int) -> Self;
    fn bits(self) -> Self::Int;
    fn from_bits(bits: Self::Int) -> Self;
    fn int_splat(value: i32) -> Self::Int;
    fn int_add(a: Self::Int, b: Self::Int) -> Self::Int;
    fn int_sub(a: Self::Int, b: Self::Int) -> Self::Int;
    fn int_and(a: Self::Int, b: Self::Int) -> Self::Int;
    fn int_shift_left<const BITS: u32>(a: Self::Int) -> Self::Int;
    /// `sum` plus both products of the i16 halves of `a` and `b`, wrapping.
    fn int_add_pairs(sum: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int;
    /// # Safety
    /// `LANES` values must be readable.
    unsafe fn int_load(pointer: *const i32) -> Self::Int;
    /// Brings the line at `pointer`, which may be any address, into the nearest cache, where that
    /// is worth an instruction.
    #[inline(always)]
    fn prefetch(_pointer: *const f32) {}
    /// The entries of a table that the five lowest bits of each lane name.
    #[inline(always)]
    fn look_up(table: &[f32; 32], entries: Self::Int) -> Self {
        let (mut lanes, mut found) = ([0i32; 16], [0.0f32; 16]);
        // SAFETY: no set has more than 16 lanes.
        unsafe {
            Self::int_store(entries, lanes.as_mut_ptr());
            for (lane, value) in lanes.iter().zip(&mut found) {
                *value = table[(lane & 31) as usize];
            }
            Self::load(found.as_ptr())
        }
    }
    /// Floor of half.
    fn int_halve(a: Self::Int) -> Self::Int;
    /// `LANES` bytes, zero-extended.
    /// # Safety
    /// `LANES` bytes must be readable.
    unsafe fn int_load_u8(pointer: *const u8) -> Self::Int;
    /// `LANES` bytes, sign-extended.
    /// # Safety
    /// `LANES` bytes must be readable.
    unsafe fn int_load_i8(pointer: *const i8) -> Self::Int;
    /// The low byte of each lane.
    /// # Safety
    /// `LANES` bytes must be writable.
    unsafe fn int_store_bytes(value: Self::Int, pointer: *mut u8);
    /// # Safety
    /// `LANES` values must be writable.
    unsafe fn int_store(value: Self::Int, pointer: *mut i32);
    /// The `BYTES` (1 to 4) low bytes of each lane, one after the other.
    /// # Safety
    /// `LANES` times as many bytes must be writable.
    #[inline(always)]
    unsafe fn int_store_pixels<const BYTES: usize>(value: Self::Int, pointer: *mut u8) {
        let mut lanes = [0i32; 16];
        // SAFETY: no set has more than 16 lanes; the rest is promised by the caller.
        unsafe {
            Self::int_store(value, lanes.as_mut_ptr());
            for (i, lane) in lanes[..Self::LANES].iter().enumerate() {
                let bytes = lane.to_le_bytes();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer.add(i * BYTES), BYTES);
            }
        }
    }

    /// `LANES` half floats.
    /// # Safety
    /// They must be readable.
    unsafe fn load_halves(pointer: *const u16) -> Self;
    /// As half floats, to nearest even.
    /// # Safety
    /// `LANES` places must be writable.
    unsafe fn store_halves(self, pointer: *mut u16);

    /// `LANES` values of bf16.
    /// # Safety
    /// They must be readable.
    unsafe fn load_bf16(pointer: *const bf16) -> Self;
    /// As bf16, to nearest even.
    /// # Safety
    /// `LANES` places must be writable.
    unsafe fn store_bf16(self, pointer: *mut bf16);

    /// Lane `i ^ DISTANCE` in place of lane `i`; `DISTANCE` is a power of 2 below `LANES`.
    fn exchange<const DISTANCE: u32>(self) -> Self;

    /// Lane 0.
    fn first(self) -> f32;

    /// The sum of all lanes, in a fixed tree order.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut sum = self;
        if Self::LANES > 8 {
            sum = sum + sum.exchange::<8>();
        }
        if Self::LANES > 4 {
            sum = sum + sum.exchange::<4>();
        }
        sum = sum + sum.exchange::<2>();
        (sum + sum.exchange::<1>()).first()
    }

    /// `f` of each lane, one at a time: for functions too rare to be worth vectors.
    #[inline(always)]
    fn each(self, f: impl Fn(f32) -> f32) -> Self {
        let mut lanes = [0.0; 16];
        // SAFETY: no set has more than 16 lanes.
        unsafe {
            self.store(lanes.as_mut_ptr());
            lanes[..Self::LANES].iter_mut().for_each(|x| *x = f(*x));
            Self::load(lanes.as_ptr())
        }
    }

    /// `f` of each pair of lanes, one at a time.
    #[inline(always)]
    fn each_pair(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let (mut a, mut b) = ([0.0; 16], [0.0; 16]);
        // SAFETY: no set has more than 16 lanes.
        unsafe {
            self.store(a.as_mut_ptr());
            other.store(b.as_mut_ptr());
            a[..Self::LANES].iter_mut().zip(&b).for_each(|(a, &b)| *a = f(*a, b));
            Self::load(a.as_ptr())
        }
    }

    /// The lanes folded in order from the first.
    #[inline(always)]
    fn fold(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = [0.0; 16];
        // SAFETY: no set has more than 16 lanes.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes[1..Self::LANES].iter().fold(lanes[0], |a, &b| f(a, b))
    }

    /// The larger; NaN where `self` is NaN.
    #[inline(always)]
    fn max_keeping_nan(self, other: Self) -> Self {
        other.max(self)
    }

    /// The smaller; NaN where `self` is NaN.
    #[inline(always)]
    fn min_keeping_nan(self, other: Self) -> Self {
        other.min(self)
    }

    /// Lanes from `low` to `high`; NaN stays NaN.
    #[inline(always)]
    fn clamp(self, low: Self, high: Self) -> Self {
        self.max_keeping_nan(low).min_keeping_nan(high)
    }

    /// Loads `LANES` values, or the first `count` where fewer are left.
    /// # Safety
    /// `count.min(LANES)` values must be readable.
    #[inline(always)]
    unsafe fn load_upto(pointer: *const f32, count: usize) -> Self {
        // SAFETY: as promised by the caller.
        unsafe {
            if count >= Self::LANES {
                Self::load(pointer)
            } else {
                Self::load_first(pointer, count)
            }
        }
    }

    /// [`Vector::load_bf16`], or the first `count` values where fewer are left.
    /// # Safety
    /// `count.min(LANES)` values must be readable.
    #[inline(always)]
    unsafe fn load_bf16_upto(pointer: *const bf16, count: usize) -> Self {
        // SAFETY: as promised by the caller; no set has more than 16 lanes.
        unsafe {
            if count >= Self::LANES {
                Self::load_bf16(pointer)
            } else {
                let mut lanes = [bf16::ZERO; 16];
                std::ptr::copy_nonoverlapping(pointer, lanes.as_mut_ptr(), count);
                Self::load_bf16(lanes.as_ptr())
            }
        }
    }

    /// [`Vector::store_bf16`] of the first `count` lanes, or of all where more are asked for.
    /// # Safety
    /// `count.min(LANES)` places must be writable.
    #[inline(always)]
    unsafe fn store_bf16_upto(self, pointer: *mut bf16, count: usize) {
        // SAFETY: as promised by the caller; no set has more than 16 lanes.
        unsafe {
            if count >= Self::LANES {
                self.store_bf16(pointer)
            } else {
                let mut lanes = [bf16::ZERO; 16];
                self.store_bf16(lanes.as_mut_ptr());
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), pointer, count);
            }
        }
    }

    /// Stores `LANES` values, or the first `count` where fewer are left.
    /// # Safety
    /// `count.min(LANES)` values must be writable.
    #[inline(always)]
    unsafe fn store_upto(self, pointer: *mut f32, count: usize) {
        // SAFETY: as promised by the caller.
        unsafe {
            if count >= Self::LANES {
                self.store(pointer)
            } else {
                self.store_first(pointer, count)
            }
        }
    }
}

/// The first of the vector at `at` of `count` values, and how many of it are left: where a vector is
/// not whole, but one before it is, the last whole one again.
#[inline(always)]
pub(crate) fn whole_vector<V: Vector>(at: usize, count: usize) -> (usize, usize) {
    let first = if count >= V::LANES { at.min(count - V::LANES) } else { at };
    (first, count - first)
}

/// Declares public entry points that take an [`Isa`](crate::Isa) first and run a function generic
/// over [`Vector`] compiled for that set: `pub fn name(isa, a: A, ..) -> R = generic_function;`
/// with optional element generics written `[T: Bound]` after the name.
macro_rules! vectorised {
    ($( $(#[$attribute:meta])* $visibility:vis fn $name:ident $([$($generic:ident : $bound:path),+])?
        ($isa:ident $(, $argument:ident : $kind:ty)* $(,)?) $(-> $result:ty)? = $body:ident; )+) => {$(
        $(#[$attribute])*
        $visibility fn $name $(<$($generic: $bound),+>)? ($isa: $crate::Isa $(, $argument: $kind)*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
            fn avx512 $(<$($generic: $bound),+>)? ($($argument: $kind),*) $(-> $result)? {
                $body::<$crate::isa::avx512::vector::Vector16 $($(, $generic)+)?>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2 $(<$($generic: $bound),+>)? ($($argument: $kind),*) $(-> $result)? {
                $body::<$crate::isa::avx2::vector::Vector8 $($(, $generic)+)?>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            if $isa.has_avx512() {
                // SAFETY: the token proves the features.
                return unsafe { avx512($($argument),*) };
            }
            #[cfg(target_arch = "x86_64")]
            if $isa.has_avx2() {
                // SAFETY: the token proves the features.
                return unsafe { avx2($($argument),*) };
            }
            $body::<$crate::isa::portable::vector::Vector4 $($(, $generic)+)?>($($argument),*)
        }
    )+};
}
pub(crate) use vectorised;
