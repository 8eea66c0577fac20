//! [`Vector`] for AVX2 with FMA: eight lanes.

use crate::vector::Vector;
use half::bf16;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Eight f32 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Vector8(__m256);

macro_rules! operator {
    ($($trait:ident $method:ident $intrinsic:ident)+) => {$(
        impl $trait for Vector8 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: only functions with AVX2 name this type.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )+};
}
operator! { Add add _mm256_add_ps Sub sub _mm256_sub_ps Mul mul _mm256_mul_ps Div div _mm256_div_ps }

impl Neg for Vector8 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: only functions with AVX2 name this type.
        Self(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
    }
}

/// A method whose body is one expression of intrinsics.
macro_rules! methods {
    ($(fn $name:ident $(<const $constant:ident: u32>)? ($($argument:ident: $kind:ty),*) -> $result:ty $body:block)+) => {$(
        #[inline(always)]
        fn $name $(<const $constant: u32>)? ($($argument: $kind),*) -> $result {
            // SAFETY: only functions with AVX2 and FMA name this type.
            unsafe { $body }
        }
    )+};
    ($(unsafe fn $name:ident ($($argument:ident: $kind:ty),*) $(-> $result:ty)? $body:block)+) => {$(
        #[inline(always)]
        unsafe fn $name ($($argument: $kind),*) $(-> $result)? {
            // SAFETY: only functions with AVX2 and FMA name this type; the caller vouches for
            // the memory.
            unsafe { $body }
        }
    )+};
}

/// All ones in the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __m256i {
    // SAFETY: only functions with AVX2 name `Vector8`, which alone calls this.
    unsafe {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane)
    }
}

impl Vector for Vector8 {
    const LANES: usize = 8;
    const FUSED: bool = true;
    type Mask = __m256;
    type Int = __m256i;

    methods! {
        unsafe fn load(pointer: *const f32) -> Self { Self(_mm256_loadu_ps(pointer)) }
        unsafe fn load_first(pointer: *const f32, count: usize) -> Self {
            Self(_mm256_maskload_ps(pointer, first(count)))
        }
        unsafe fn store(self: Self, pointer: *mut f32) { _mm256_storeu_ps(pointer, self.0) }
        unsafe fn store_first(self: Self, pointer: *mut f32, count: usize) {
            _mm256_maskstore_ps(pointer, first(count), self.0)
        }
        unsafe fn load_halves(pointer: *const u16) -> Self {
            Self(_mm256_cvtph_ps(_mm_loadu_si128(pointer.cast())))
        }
        unsafe fn store_halves(self: Self, pointer: *mut u16) {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
            _mm_storeu_si128(pointer.cast(), halves)
        }
        unsafe fn load_bf16(pointer: *const bf16) -> Self {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(pointer.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves)))
        }
        unsafe fn store_bf16(self: Self, pointer: *mut bf16) {
            let bits = _mm256_castps_si256(self.0);
            let high = _mm256_srli_epi32::<16>(bits);
            let odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
            let bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, bias));
            let quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
            let halves = _mm256_blendv_epi8(rounded, quiet, nan);
            let (low, high) = (_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
            _mm_storeu_si128(pointer.cast(), _mm_packus_epi32(low, high))
        }
        unsafe fn int_load(pointer: *const i32) -> __m256i { _mm256_loadu_si256(pointer.cast()) }
        unsafe fn int_store(value: __m256i, pointer: *mut i32) -> () {
            _mm256_storeu_si256(pointer.cast(), value)
        }
        unsafe fn int_load_u8(pointer: *const u8) -> __m256i {
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(pointer.cast()))
        }
        unsafe fn int_load_i8(pointer: *const i8) -> __m256i {
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(pointer.cast()))
        }
        unsafe fn int_store_bytes(value: __m256i, pointer: *mut u8) {
            let low = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
            let a = _mm_shuffle_epi8(_mm256_castsi256_si128(value), low);
            let b = _mm_shuffle_epi8(_mm256_extracti128_si256::<1>(value), low);
            _mm_storel_epi64(pointer.cast(), _mm_unpacklo_epi32(a, b))
        }
    }

    methods! {
        fn splat(value: f32) -> Self { Self(_mm256_set1_ps(value)) }
        fn mul_add(self: Self, factor: Self, addend: Self) -> Self {
            Self(_mm256_fmadd_ps(self.0, factor.0, addend.0))
        }
        fn abs(self: Self) -> Self { Self(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)) }
        fn sqrt(self: Self) -> Self { Self(_mm256_sqrt_ps(self.0)) }
        fn floor(self: Self) -> Self { Self(_mm256_floor_ps(self.0)) }
        fn ceil(self: Self) -> Self { Self(_mm256_ceil_ps(self.0)) }
        fn round_even(self: Self) -> Self {
            Self(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
        }
        fn min(self: Self, other: Self) -> Self { Self(_mm256_min_ps(self.0, other.0)) }
        fn max(self: Self, other: Self) -> Self { Self(_mm256_max_ps(self.0, other.0)) }
        fn copy_sign(self: Self, sign: Self) -> Self {
            let bit = _mm256_set1_ps(-0.0);
            Self(_mm256_or_ps(_mm256_andnot_ps(bit, self.0), _mm256_and_ps(bit, sign.0)))
        }
        fn below(count: usize) -> __m256 { _mm256_castsi256_ps(first(count)) }
        fn less(self: Self, other: Self) -> __m256 { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) }
        fn not_less(self: Self, other: Self) -> __m256 { _mm256_cmp_ps::<_CMP_NLT_UQ>(self.0, other.0) }
        fn equal(self: Self, other: Self) -> __m256 { _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0) }
        fn select(mask: __m256, yes: Self, no: Self) -> Self {
            Self(_mm256_blendv_ps(no.0, yes.0, mask))
        }
        fn to_int(self: Self) -> __m256i { _mm256_cvtps_epi32(self.0) }
        fn from_int(value: __m256i) -> Self { Self(_mm256_cvtepi32_ps(value)) }
        fn bits(self: Self) -> __m256i { _mm256_castps_si256(self.0) }
        fn from_bits(bits: __m256i) -> Self { Self(_mm256_castsi256_ps(bits)) }
        fn int_splat(value: i32) -> __m256i { _mm256_set1_epi32(value) }
        fn int_add(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn int_sub(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn int_and(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn int_shift_left<const BITS: u32>(a: __m256i) -> __m256i {
            _mm256_sll_epi32(a, _mm_cvtsi32_si128(BITS as i32))
        }
        fn int_add_pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
            _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
        }
        fn int_halve(a: __m256i) -> __m256i { _mm256_srai_epi32::<1>(a) }
        fn exchange<const DISTANCE: u32>(self: Self) -> Self {
            Self(match DISTANCE {
                4 => _mm256_permute2f128_ps::<1>(self.0, self.0),
                2 => _mm256_permute_ps::<0b01_00_11_10>(self.0),
                _ => _mm256_permute_ps::<0b10_11_00_01>(self.0),
            })
        }
        fn first(self: Self) -> f32 { _mm256_cvtss_f32(self.0) }
    }
}
