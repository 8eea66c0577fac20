//! [`Vector`] for AVX-512: sixteen lanes.

use crate::vector::Vector;
use half::bf16;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Sixteen f32 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Vector16(__m512);

macro_rules! operator {
    ($($trait:ident $method:ident $intrinsic:ident)+) => {$(
        impl $trait for Vector16 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: only functions with AVX-512 name this type.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )+};
}
operator! { Add add _mm512_add_ps Sub sub _mm512_sub_ps Mul mul _mm512_mul_ps Div div _mm512_div_ps }

impl Neg for Vector16 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: only functions with AVX-512 name this type.
        Self(unsafe { _mm512_xor_ps(self.0, _mm512_set1_ps(-0.0)) })
    }
}

/// A method whose body is one expression of intrinsics.
macro_rules! methods {
    ($(fn $name:ident $(<const $constant:ident: u32>)? ($($argument:ident: $kind:ty),*) -> $result:ty $body:block)+) => {$(
        #[inline(always)]
        fn $name $(<const $constant: u32>)? ($($argument: $kind),*) -> $result {
            // SAFETY: only functions with AVX-512 name this type.
            unsafe { $body }
        }
    )+};
    ($(unsafe fn $name:ident ($($argument:ident: $kind:ty),*) $(-> $result:ty)? $body:block)+) => {$(
        #[inline(always)]
        unsafe fn $name ($($argument: $kind),*) $(-> $result)? {
            // SAFETY: only functions with AVX-512 name this type; the caller vouches for
            // the memory.
            unsafe { $body }
        }
    )+};
}

/// Ones in the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

impl Vector for Vector16 {
    const LANES: usize = 16;
    const FUSED: bool = true;
    const LOOKS_UP: bool = true;
    type Mask = __mmask16;
    type Int = __m512i;

    methods! {
        unsafe fn load(pointer: *const f32) -> Self { Self(_mm512_loadu_ps(pointer)) }
        unsafe fn load_first(pointer: *const f32, count: usize) -> Self {
            Self(_mm512_maskz_loadu_ps(first(count), pointer))
        }
        unsafe fn store(self: Self, pointer: *mut f32) { _mm512_storeu_ps(pointer, self.0) }
        unsafe fn store_first(self: Self, pointer: *mut f32, count: usize) {
            _mm512_mask_storeu_ps(pointer, first(count), self.0)
        }
        unsafe fn load_halves(pointer: *const u16) -> Self {
            Self(_mm512_cvtph_ps(_mm256_loadu_si256(pointer.cast())))
        }
        unsafe fn store_halves(self: Self, pointer: *mut u16) {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
            _mm256_storeu_si256(pointer.cast(), halves)
        }
        unsafe fn load_bf16(pointer: *const bf16) -> Self {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(pointer.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
        }
        unsafe fn store_bf16(self: Self, pointer: *mut bf16) {
            let bits = _mm512_castps_si512(self.0);
            let high = _mm512_srli_epi32::<16>(bits);
            let odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
            let bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, bias));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            let halves = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
            _mm256_storeu_si256(pointer.cast(), _mm512_cvtepi32_epi16(halves))
        }
        unsafe fn int_load(pointer: *const i32) -> __m512i { _mm512_loadu_si512(pointer.cast()) }
        unsafe fn int_store(value: __m512i, pointer: *mut i32) -> () {
            _mm512_storeu_si512(pointer.cast(), value)
        }
        unsafe fn int_load_u8(pointer: *const u8) -> __m512i {
            _mm512_cvtepu8_epi32(_mm_loadu_si128(pointer.cast()))
        }
        unsafe fn int_load_i8(pointer: *const i8) -> __m512i {
            _mm512_cvtepi8_epi32(_mm_loadu_si128(pointer.cast()))
        }
        unsafe fn int_store_bytes(value: __m512i, pointer: *mut u8) {
            _mm_storeu_si128(pointer.cast(), _mm512_cvtepi32_epi8(value))
        }
    }

    methods! {
        fn splat(value: f32) -> Self { Self(_mm512_set1_ps(value)) }
        fn mul_add(self: Self, factor: Self, addend: Self) -> Self {
            Self(_mm512_fmadd_ps(self.0, factor.0, addend.0))
        }
        fn abs(self: Self) -> Self { Self(_mm512_abs_ps(self.0)) }
        fn sqrt(self: Self) -> Self { Self(_mm512_sqrt_ps(self.0)) }
        fn floor(self: Self) -> Self { Self(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0)) }
        fn ceil(self: Self) -> Self { Self(_mm512_roundscale_ps::<{ _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC }>(self.0)) }
        fn round_even(self: Self) -> Self {
            Self(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
        }
        fn min(self: Self, other: Self) -> Self { Self(_mm512_min_ps(self.0, other.0)) }
        fn max(self: Self, other: Self) -> Self { Self(_mm512_max_ps(self.0, other.0)) }
        fn copy_sign(self: Self, sign: Self) -> Self {
            // The truth table 0xca is "second where the bit of the first is set, else third".
            let bit = _mm512_set1_epi32(i32::MIN);
            let (magnitude, sign) = (_mm512_castps_si512(self.0), _mm512_castps_si512(sign.0));
            Self(_mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xca>(bit, sign, magnitude)))
        }
        fn scale_exponent(self: Self, power: Self) -> Self {
            Self(_mm512_scalef_ps(self.0, power.0))
        }
        fn scale_exponent_normal(self: Self, power: Self) -> Self {
            Self(_mm512_scalef_ps(self.0, power.0))
        }
        fn less(self: Self, other: Self) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
        fn not_less(self: Self, other: Self) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(self.0, other.0) }
        fn equal(self: Self, other: Self) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0) }
        fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
            Self(_mm512_mask_blend_ps(mask, no.0, yes.0))
        }
        fn to_int(self: Self) -> __m512i { _mm512_cvtps_epi32(self.0) }
        fn from_int(value: __m512i) -> Self { Self(_mm512_cvtepi32_ps(value)) }
        fn bits(self: Self) -> __m512i { _mm512_castps_si512(self.0) }
        fn from_bits(bits: __m512i) -> Self { Self(_mm512_castsi512_ps(bits)) }
        fn int_splat(value: i32) -> __m512i { _mm512_set1_epi32(value) }
        fn int_add(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn int_sub(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn int_and(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn int_shift_left<const BITS: u32>(a: __m512i) -> __m512i {
            _mm512_sll_epi32(a, _mm_cvtsi32_si128(BITS as i32))
        }
        fn int_add_pairs(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
            _mm512_dpwssd_epi32(sum, a, b)
        }
        fn prefetch(pointer: *const f32) -> () { _mm_prefetch::<_MM_HINT_T0>(pointer.cast()) }
        fn look_up(table: &[f32; 32], entries: __m512i) -> Self {
            let (low, high) = (table.as_ptr(), table.as_ptr().add(16));
            Self(_mm512_permutex2var_ps(_mm512_loadu_ps(low), entries, _mm512_loadu_ps(high)))
        }
        fn int_halve(a: __m512i) -> __m512i { _mm512_srai_epi32::<1>(a) }
        fn exchange<const DISTANCE: u32>(self: Self) -> Self {
            Self(match DISTANCE {
                8 => _mm512_shuffle_f32x4::<0b01_00_11_10>(self.0, self.0),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(self.0, self.0),
                2 => _mm512_permute_ps::<0b01_00_11_10>(self.0),
                _ => _mm512_permute_ps::<0b10_11_00_01>(self.0),
            })
        }
        fn first(self: Self) -> f32 { _mm512_cvtss_f32(self.0) }
    }

    #[inline(always)]
    unsafe fn int_store_pixels<const BYTES: usize>(value: __m512i, pointer: *mut u8) {
        // The low bytes of a 128-bit lane side by side; then the lanes.
        let bytes: [i8; 16] = const {
            let mut order = [-1; 16];
            let mut i = 0;
            while i < 4 * BYTES {
                order[i] = (i / BYTES * 4 + i % BYTES) as i8;
                i += 1;
            }
            order
        };
        let words: [i32; 16] = const {
            let mut order = [0; 16];
            let mut i = 0;
            while i < 4 * BYTES {
                order[i] = (i / BYTES * 4 + i % BYTES) as i32;
                i += 1;
            }
            order
        };
        // SAFETY: only functions with AVX-512 name this type; the caller vouches for the memory.
        unsafe {
            let bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(bytes.as_ptr().cast()));
            let together = _mm512_shuffle_epi8(value, bytes);
            let words = _mm512_loadu_si512(words.as_ptr().cast());
            let dense = _mm512_permutexvar_epi32(words, together);
            _mm512_mask_storeu_epi32(pointer.cast(), first(4 * BYTES), dense)
        }
    }

    #[inline(always)]
    fn below(count: usize) -> __mmask16 {
        first(count)
    }
}
