//! Epilogues for AVX-512; masks for column tails.

use std::arch::x86_64::*;

use half::bf16;

use super::packing::{Packing, put};
use crate::epilogue::{
    Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, Residual, columns_of,
};

/// Mask of the columns of a block's vector that starts at `column`.
fn mask_at(columns: usize, column: usize) -> __mmask16 {
    if columns - column >= 16 { u16::MAX } else { (1 << (columns - column)) - 1 }
}

/// x · min(max(x / 6 + 1 / 2, 0), 1), to the bit what `map` gives.
#[inline(always)]
pub(crate) fn hard_swish(x: __m512) -> __m512 {
    // SAFETY: only functions with AVX-512 call this.
    unsafe {
        let share = _mm512_mul_ps(x, _mm512_set1_ps(1.0 / 6.0));
        let share = _mm512_add_ps(share, _mm512_set1_ps(0.5));
        // The operand order lets NaN through.
        let share = _mm512_min_ps(_mm512_set1_ps(1.0), _mm512_max_ps(_mm512_setzero_ps(), share));
        _mm512_mul_ps(x, share)
    }
}

/// Bias, residual and clamp, and how a vector of results is written.
macro_rules! store_as {
    ($name:ident, $result:ty, $features:literal, |$to:ident, $mask:ident, $value:ident| $put:expr) => {
        /// Stores a block.
        ///
        /// # Safety
        /// Needs the features. The block's accumulators are valid, and output and residual cover
        /// its rows and columns.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn $name(
            block: &Block<f32>,
            epilogue: &EpilogueF32,
            output: &Output<$result>,
        ) {
            let (low, high) = epilogue.activation.bounds();
            let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
            let alpha = _mm512_set1_ps(epilogue.alpha);
            let bias = epilogue.bias.map(|bias| columns_of(block, bias));
            let mut c = 0;
            while c < block.columns {
                let mask = mask_at(block.columns, c);
                // SAFETY: masks keep every access inside the block, which the caller vouches for.
                unsafe {
                    let offset = match bias {
                        Some(bias) => _mm512_maskz_loadu_ps(mask, bias.add(c)),
                        None => _mm512_setzero_ps(),
                    };
                    for r in 0..block.rows {
                        let accumulator =
                            _mm512_loadu_ps(block.accumulators.add(r * block.stride + c));
                        let mut value = _mm512_add_ps(_mm512_mul_ps(accumulator, alpha), offset);
                        if let Some(residual) = &epilogue.residual {
                            let from = block.place(residual.pointer, residual.row_stride, r).add(c);
                            value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, from));
                        }
                        // The operand order lets NaN through.
                        let value = _mm512_min_ps(high, _mm512_max_ps(low, value));
                        let $to =
                            block.place(output.pointer, output.row_stride, r).cast_mut().add(c);
                        let ($mask, $value) = (mask, value);
                        $put
                    }
                }
                c += 16;
            }
        }
    };
}

store_as!(store_f32, f32, "avx512f,avx512bw,avx512dq,avx512vl", |to, mask, value| {
    if mask == u16::MAX {
        _mm512_storeu_ps(to, value);
    } else {
        _mm512_mask_storeu_ps(to, mask, value);
    }
});

store_as!(store_bf16, bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", |to, mask, value| {
    let halves: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(value));
    if mask == u16::MAX {
        _mm256_storeu_si256(to.cast(), halves);
    } else {
        _mm256_mask_storeu_epi16(to.cast(), mask, halves);
    }
});

/// Adds rows of bf16 to a block's accumulators.
///
/// # Safety
/// Needs the features. The block's accumulators are valid, and the addend covers its rows and
/// columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn add_halves(block: &Block<f32>, addend: &Residual<bf16>) {
    for r in 0..block.rows {
        // SAFETY: masks keep every access inside the block, which the caller vouches for.
        unsafe {
            let from = block.place(addend.pointer, addend.row_stride, r);
            let to = block.accumulators.add(r * block.stride);
            let mut c = 0;
            while c < block.columns {
                let halves =
                    _mm256_maskz_loadu_epi16(mask_at(block.columns, c), from.add(c).cast());
                let wide = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves));
                let sum = _mm512_add_ps(_mm512_loadu_ps(to.add(c)), _mm512_castsi512_ps(wide));
                _mm512_storeu_ps(to.add(c), sum);
                c += 16;
            }
        }
    }
}

/// Repeats a block for each number as `$i`. A loop would only be unrolled where it is short, and
/// arrays that are indexed by a variable leave their registers.
macro_rules! each {
    ($i:ident in $($n:literal)* => $body:block) => {
        $({
            let $i: usize = $n;
            $body
        })*
    };
}

/// Repeats a block for each of `$rows` rows, at most 28, as `$r`.
macro_rules! each_row {
    ($r:ident in $rows:expr => $body:block) => {
        $crate::isa::avx512::epilogue::each!(
            $r in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 => {
                if $r < $rows $body
            }
        );
    };
}

/// The factors of the sums of `$panels` panels; `$finish` is a [`crate::finish::Requantized`].
macro_rules! byte_factors {
    ($finish:expr, $panels:expr) => {{
        let mut factors = [_mm512_setzero_ps(); $panels];
        for p in 0..$panels {
            let left = $finish.columns.saturating_sub(p * 16);
            let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
            factors[p] = _mm512_maskz_loadu_ps(mask, $finish.multiplier.wrapping_add(p * 16));
        }
        factors
    }};
}

/// The requantisation of a tile of `$rows` rows by `$panels` panels (1, 2 or 4), at most 28 vectors of
/// sums, bias included, with their [`byte_factors`]: a macro, because sums that are passed on leave
/// their registers. `$finish` is a [`crate::finish::Requantized`]. Eight vectors at a time, before which
/// `$last` adds what is left to the sums of their `$count` rows from `$row` on (fewer at the end of the
/// tile): that overlaps with what becomes of those before.
macro_rules! store_bytes {
    ($finish:ident, $factors:expr, $rows:expr, $panels:expr, $sums:ident) => {
        $crate::isa::avx512::epilogue::store_bytes!(
            $finish, $factors, $rows, $panels, $sums, |_row, _count| {}
        );
    };
    (
        $finish:ident, $factors:expr, $rows:expr, $panels:expr, $sums:ident,
        |$row:ident, $count:ident| $last:block
    ) => {
        use $crate::isa::avx512::epilogue::each;
        use $crate::isa::avx512::packing::{Packing, put};
        let mask = |panel: usize| -> __mmask16 {
            let left = $finish.columns.saturating_sub(panel * 16);
            if left >= 16 { u16::MAX } else { (1 << left) - 1 }
        };
        let whole = $finish.columns >= $panels * 16;
        let zero_point = _mm512_set1_epi32(i32::from($finish.residual_zero_point));
        let scale = _mm512_set1_ps($finish.residual_scale);
        let packing = Packing::new($finish.zero_point, $finish.low, $finish.high);
        let stride = $finish.output_stride;
        let panels: usize = $panels;
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        each!(eight in 0 1 2 3 => {
            let ($row, $count) = (eight * (8 / panels), 8 / panels);
            if $row < $rows {
                $last
            }
            // Four vectors are packed at a time: of one row, of two, or of four.
            each!(four in 0 1 => {
                let row = (2 * eight + four) * (4 / panels);
                if row < $rows {
                    let place = |i: usize| (row + i / panels, i % panels);
                    let mut values = [_mm512_setzero_ps(); 4];
                    each!(i in 0 1 2 3 => {
                        let (r, p) = place(i);
                        if r < $rows {
                            values[i] = _mm512_mul_ps(_mm512_cvtepi32_ps($sums[r][p]), $factors[p]);
                        }
                    });
                    if !$finish.residual.is_null() {
                        let from = |(r, p): (usize, usize)| {
                            let from = $finish.residual.wrapping_add(r * $finish.residual_stride);
                            from.wrapping_add(p * 16).cast::<i8>()
                        };
                        let mut bytes = [_mm_setzero_si128(); 4];
                        // Loads with masks take longer.
                        each!(i in 0 1 2 3 => {
                            if place(i).0 < $rows {
                                bytes[i] = match whole {
                                    true => _mm_loadu_epi8(from(place(i))),
                                    false => _mm_maskz_loadu_epi8(mask(i % panels), from(place(i))),
                                };
                            }
                        });
                        each!(i in 0 1 2 3 => {
                            let steps = _mm512_sub_epi32(_mm512_cvtepu8_epi32(bytes[i]), zero_point);
                            let steps = _mm512_mul_ps(_mm512_cvtepi32_ps(steps), scale);
                            values[i] = _mm512_add_ps(values[i], steps);
                        });
                    }
                    each!(i in 0 1 2 3 => {
                        let (r, p) = place(i);
                        if r < $rows {
                            $sums[r][p] = _mm512_cvt_roundps_epi32::<NEAREST>(values[i]);
                        }
                    });
                    // The same row again where there are no more.
                    let at = |i: usize| (row + i / panels).min($rows - 1);
                    let bytes = packing.bytes(
                        $sums[at(0)][0],
                        $sums[at(1)][1 % panels],
                        $sums[at(2)][2 % panels],
                        $sums[at(3)][3 % panels],
                    );
                    let to = $finish.output.wrapping_add(row * stride);
                    let rows = ($rows - row).min(4 / panels);
                    put::<$panels>(bytes, rows, $finish.columns, to, stride);
                }
            });
        });
    };
}

pub(crate) use {each, each_row};
/// The scaling to f32 of a tile of `$rows` rows (at most 28) by `$panels` panels (1, 2 or 4) of
/// sums, zero-point terms included; `$finish` is a [`crate::finish::Dequantized`].
macro_rules! store_reals {
    ($finish:ident, $rows:expr, $panels:expr, $sums:ident) => {
        use $crate::isa::avx512::epilogue::{each, each_row};
        let (low, high) = (_mm512_set1_ps($finish.low), _mm512_set1_ps($finish.high));
        each!(p in 0 1 2 3 => {
            if p < $panels {
                let left = $finish.columns.saturating_sub(p * 16);
                let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
                let factor = _mm512_maskz_loadu_ps(mask, $finish.scale.wrapping_add(p * 16));
                let offset = match $finish.bias.is_null() {
                    true => _mm512_setzero_ps(),
                    false => _mm512_maskz_loadu_ps(mask, $finish.bias.wrapping_add(p * 16)),
                };
                let to = $finish.output.wrapping_add(p * 16);
                each_row!(r in $rows => {
                    let sum = _mm512_cvtepi32_ps($sums[r][p]);
                    let mut value = _mm512_add_ps(_mm512_mul_ps(sum, factor), offset);
                    if !$finish.residual.is_null() {
                        let from = $finish.residual.wrapping_add(p * 16);
                        let from = from.wrapping_add(r * $finish.residual_stride);
                        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, from));
                    }
                    // The operand order lets NaN through.
                    let value = _mm512_min_ps(high, _mm512_max_ps(low, value));
                    let to = to.wrapping_add(r * $finish.output_stride);
                    _mm512_mask_storeu_ps(to, mask, value);
                });
            }
        });
    };
}

/// Where the sums of a tile begin: the integers that are added to each column of one that is
/// finished in registers, for `$panels` panels.
macro_rules! first_integers {
    ($finish:expr, $panels:expr) => {{
        use $crate::finish::OfIntegers;
        let (terms, columns) = match $finish {
            Some(OfIntegers::Bytes(finish)) => (finish.bias, finish.columns),
            Some(OfIntegers::Reals(finish)) => (finish.zero_terms, finish.columns),
            None => (std::ptr::null(), 0),
        };
        let mut first = [_mm512_setzero_si512(); $panels];
        if !terms.is_null() {
            for p in 0..$panels {
                let left = columns.saturating_sub(p * 16);
                let mask: __mmask16 = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
                first[p] = _mm512_maskz_loadu_epi32(mask, terms.wrapping_add(p * 16));
            }
        }
        first
    }};
}

/// Finishes the sums of a tile, which began with [`first_integers`], if there is something to do with them; gives whether there was.
macro_rules! store_integers {
    ($finish:expr, $rows:expr, $panels:expr, $sums:ident) => {{
        use $crate::finish::OfIntegers;
        match $finish {
            Some(OfIntegers::Bytes(finish)) => {
                let factors = $crate::isa::avx512::epilogue::byte_factors!(finish, $panels);
                $crate::isa::avx512::epilogue::store_bytes!(finish, factors, $rows, $panels, $sums);
                true
            }
            Some(OfIntegers::Reals(finish)) => {
                $crate::isa::avx512::epilogue::store_reals!(finish, $rows, $panels, $sums);
                true
            }
            None => false,
        }
    }};
}

pub(crate) use {byte_factors, first_integers, store_bytes, store_integers, store_reals};

/// The parts of a requantisation that are the same for every column.
struct Requantizer<'a> {
    epilogue: &'a RequantizeU8<'a>,
    low: __m512,
    high: __m512,
}

impl Requantizer<'_> {
    /// The rounded steps from the zero point of 16 sums whose residual is at `residual`, not yet
    /// clamped from below. Steps too low to convert become the lowest integer.
    ///
    /// # Safety
    /// Needs AVX-512 BW and VL. The residual is readable where `mask` says.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn steps(
        &self,
        sum: __m512i,
        factor: __m512,
        residual: *const u8,
        mask: __mmask16,
    ) -> __m512i {
        let mut value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor);
        if let Some(parameters) = &self.epilogue.residual {
            // SAFETY: the caller's promise.
            let bytes = unsafe { _mm_maskz_loadu_epi8(mask, residual.cast()) };
            let zero_point = _mm512_set1_epi32(i32::from(parameters.zero_point));
            let steps = _mm512_sub_epi32(_mm512_cvtepu8_epi32(bytes), zero_point);
            let scale = _mm512_set1_ps(parameters.scale);
            value = _mm512_add_ps(value, _mm512_mul_ps(_mm512_cvtepi32_ps(steps), scale));
        }
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        _mm512_cvt_roundps_epi32::<NEAREST>(_mm512_min_ps(self.high, value))
    }

    /// Where the residual of the block's element lies, if there is one.
    ///
    /// # Safety
    /// The residual covers the block.
    unsafe fn residual(&self, block: &Block<i32>, row: usize, column: usize) -> *const u8 {
        match &self.epilogue.residual {
            None => std::ptr::null(),
            // SAFETY: the caller's promise.
            Some(residual) => unsafe {
                block.place(residual.rows.pointer, residual.rows.row_stride, row).add(column)
            },
        }
    }

    /// Columns `c..c + 64` of the block.
    ///
    /// # Safety
    /// As [`store_u8`]; the block has those columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn four_vectors(&self, block: &Block<i32>, c: usize, output: &Output<u8>) {
        let bias = columns_of(block, self.epilogue.bias);
        let multiplier = columns_of(block, self.epilogue.multiplier);
        let mut offset = [_mm512_setzero_si512(); 4];
        let mut factor = [_mm512_setzero_ps(); 4];
        // SAFETY: 64 columns of everything, by the caller's promise.
        unsafe {
            let packing =
                Packing::new(self.epilogue.zero_point, self.epilogue.low, self.epilogue.high);
            for v in 0..4 {
                offset[v] = _mm512_loadu_epi32(bias.add(c + v * 16));
                factor[v] = _mm512_loadu_ps(multiplier.add(c + v * 16));
            }
            for r in 0..block.rows {
                let residual = self.residual(block, r, c);
                let from = block.accumulators.add(r * block.stride + c);
                let mut steps = [_mm512_setzero_si512(); 4];
                for v in 0..4 {
                    let sum = _mm512_add_epi32(_mm512_loadu_epi32(from.add(v * 16)), offset[v]);
                    let residual = residual.wrapping_add(v * 16);
                    steps[v] = self.steps(sum, factor[v], residual, u16::MAX);
                }
                let bytes = packing.bytes(steps[0], steps[1], steps[2], steps[3]);
                let to = block.place(output.pointer, output.row_stride, r).cast_mut();
                _mm512_storeu_si512(to.add(c).cast(), bytes);
            }
        }
    }

    /// Columns `c..c + 16` of rows `r..r + 4` of the block.
    ///
    /// # Safety
    /// As [`store_u8`]; the block has those rows and columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn four_rows(
        &self,
        block: &Block<i32>,
        (r, c): (usize, usize),
        (offset, factor): (__m512i, __m512),
        output: &Output<u8>,
    ) {
        // SAFETY: four rows of 16 columns, by the caller's promise.
        unsafe {
            let mut steps = [_mm512_setzero_si512(); 4];
            for v in 0..4 {
                let from = block.accumulators.add((r + v) * block.stride + c);
                let sum = _mm512_add_epi32(_mm512_loadu_epi32(from), offset);
                steps[v] = self.steps(sum, factor, self.residual(block, r + v, c), u16::MAX);
            }
            let packing =
                Packing::new(self.epilogue.zero_point, self.epilogue.low, self.epilogue.high);
            let rows = packing.bytes(steps[0], steps[1], steps[2], steps[3]);
            let to = block.place(output.pointer, output.row_stride, r).cast_mut().add(c);
            put::<1>(rows, 4, 16, to, output.row_stride);
        }
    }

    /// Up to 16 columns of the block from `c` on.
    ///
    /// # Safety
    /// As [`store_u8`].
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn one_vector(&self, block: &Block<i32>, c: usize, output: &Output<u8>) {
        let mask = mask_at(block.columns, c);
        let zero_point = _mm512_set1_epi32(i32::from(self.epilogue.zero_point));
        let lowest = _mm512_cvtps_epi32(self.low);
        let bias = columns_of(block, self.epilogue.bias);
        let multiplier = columns_of(block, self.epilogue.multiplier);
        // SAFETY: masks keep every access inside the block, which the caller vouches for.
        unsafe {
            let offset = _mm512_maskz_loadu_epi32(mask, bias.add(c));
            let factor = _mm512_maskz_loadu_ps(mask, multiplier.add(c));
            let fours = if mask == u16::MAX { block.rows / 4 * 4 } else { 0 };
            for r in (0..fours).step_by(4) {
                self.four_rows(block, (r, c), (offset, factor), output);
            }
            for r in fours..block.rows {
                let sum = _mm512_loadu_epi32(block.accumulators.add(r * block.stride + c));
                let sum = _mm512_add_epi32(sum, offset);
                let steps = self.steps(sum, factor, self.residual(block, r, c), mask);
                let steps = _mm512_add_epi32(_mm512_max_epi32(steps, lowest), zero_point);
                let to = block.place(output.pointer, output.row_stride, r).cast_mut().add(c);
                if mask == u16::MAX {
                    _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(steps));
                } else {
                    _mm512_mask_cvtepi32_storeu_epi8(to.cast(), mask, steps);
                }
            }
        }
    }
}

/// Requantisation.
///
/// # Safety
/// As [`store_f32`], with AVX-512 BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn store_u8(block: &Block<i32>, epilogue: &RequantizeU8, output: &Output<u8>) {
    let zero = f32::from(epilogue.zero_point);
    let low = _mm512_set1_ps(f32::from(epilogue.low) - zero);
    let high = _mm512_set1_ps(f32::from(epilogue.high) - zero);
    let requantizer = Requantizer { epilogue, low, high };
    let mut c = 0;
    while c < block.columns {
        // SAFETY: the caller's promise.
        unsafe {
            if block.columns - c >= 64 {
                requantizer.four_vectors(block, c, output);
                c += 64;
            } else {
                requantizer.one_vector(block, c, output);
                c += 16;
            }
        }
    }
}

/// Turns the block into f32 in place: f32(acc + bias) · scale.
///
/// # Safety
/// Needs AVX-512 F. The block's accumulators are valid, whole vectors of them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn scale(block: &Block<i32>, epilogue: &DequantizeF32) {
    let bias = epilogue.bias_s32.map(|bias| columns_of(block, bias));
    let scale = columns_of(block, epilogue.scale);
    let mut c = 0;
    while c < block.columns {
        let mask = mask_at(block.columns, c);
        // SAFETY: masks keep every access inside the block, which the caller vouches for.
        unsafe {
            let offset = match bias {
                Some(bias) => _mm512_maskz_loadu_epi32(mask, bias.add(c)),
                None => _mm512_setzero_si512(),
            };
            let factor = _mm512_maskz_loadu_ps(mask, scale.add(c));
            for r in 0..block.rows {
                let at = block.accumulators.add(r * block.stride + c);
                let sum = _mm512_add_epi32(_mm512_loadu_epi32(at), offset);
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor);
                _mm512_storeu_ps(at.cast(), value);
            }
        }
        c += 16;
    }
}
