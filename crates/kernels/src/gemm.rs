//! Matrix products over indirect rows: what plain products and convolutions have in common.

use std::ops::Range;

use half::bf16;

use crate::conv::Indirection;
use crate::epilogue::{
    Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, Residual, ThroughU8, store_s32,
};
use crate::finish::{Finish, FinishDequantized, FinishReal, FinishThrough, FinishU8};
use crate::isa::{self, Isa};
use crate::pack::{PackedBf16, PackedF32, PackedS8, PanelView};
use crate::real::Real;
use crate::single::single_u8s8;
use crate::tile::{Ahead, Direct, Gathered, Micro, Rounded, RowSource, resolver};
use crate::walk::run;

/// The rows of A.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, T> {
    /// First element of the first image (or of the first channel of a group).
    pub base: *const T,
    /// Where each row's taps start.
    pub rows: &'a Indirection,
    /// As many elements as a tap is deep, read for taps in the padding: zeros, or the zero point.
    /// Not read by plain matrix products.
    pub padding: *const T,
}

/// The f32 tile kernels of an instruction set.
pub(crate) fn micro_f32(isa: Isa) -> &'static Micro<f32> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return &isa::avx512::gemm_f32::MICRO;
    } else if isa.has_avx2() {
        return &isa::avx2::gemm_f32::MICRO;
    }
    let _ = isa;
    &isa::portable::gemm::MICRO_F32
}

/// The u8 × s8 tile kernels of an instruction set.
pub(crate) fn micro_u8s8(isa: Isa) -> &'static Micro<i32> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return &isa::avx512::gemm_u8s8::MICRO;
    } else if isa.has_avx2() {
        return &isa::avx2::gemm_u8s8::MICRO;
    }
    let _ = isa;
    &isa::portable::gemm::MICRO_U8S8
}

/// The bf16 tile kernels of an instruction set.
pub(crate) fn micro_bf16(isa: Isa) -> &'static Micro<f32> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_bf16() {
        return &isa::avx512::gemm_bf16::MICRO;
    }
    let _ = isa;
    &isa::portable::gemm::MICRO_BF16
}

/// Checks that a geometry and its weights belong together.
fn check_taps(rows: &Indirection, taps: usize) {
    assert_eq!(rows.taps(), taps, "taps of the geometry and of the weights");
}

/// f32 product of indirect rows and packed weights, for a range of rows and of columns.
///
/// `columns` starts at a multiple of [`PANEL`](crate::pack::PANEL) and ends at one, or at N.
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// Every tap of `rows` is readable from `input` for the weights' depth, `input.padding` too where
/// the geometry has padding; `output` and the residual cover `rows` × `columns`; nobody else
/// touches that part of the output meanwhile.
pub unsafe fn gemm_f32(
    isa: Isa,
    input: &Input<f32>,
    weights: &PackedF32,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { gemm_f32_before(isa, input, weights, epilogue, output, rows, columns, &[]) }
}

/// [`gemm_f32`], during which the first bytes of what is read `next` are brought into the cache.
///
/// # Panics
/// As [`gemm_f32`].
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_f32_before(
    isa: Isa,
    input: &Input<f32>,
    weights: &PackedF32,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
    next: &[u8],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (view, after) = (weights.view(), Ahead::of(next));
        gemm_f32_panels(isa, input, &view, epilogue, output, rows, columns, after);
    }
}

/// [`gemm_f32`] with panels that somebody else holds; what comes `after` is brought near.
///
/// # Panics
/// As [`gemm_f32`].
///
/// # Safety
/// As [`gemm_f32`]; the view's panels of these columns are readable.
pub(crate) unsafe fn gemm_f32_panels(
    isa: Isa,
    input: &Input<f32>,
    view: &PanelView,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
    after: Ahead,
) {
    let mut source = Direct { input, resolver: resolver(isa) };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        let finish = FinishReal::new(isa, epilogue, output);
        run(micro_f32(isa), &mut source, view, rows, columns, after, finish);
    }
}

/// The u8 × s8 product up to its s32 accumulators.
///
/// # Safety
/// As [`gemm_u8s8`].
unsafe fn run_u8s8(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    rows: Range<usize>,
    columns: Range<usize>,
    after: Ahead,
    finish: impl Finish<i32>,
) {
    let view = weights.view();
    let mut direct = Direct { input, resolver: resolver(isa) };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        match weights.merged_channels() {
            None => {
                check_taps(input.rows, view.taps);
                run_any_u8s8(isa, &mut direct, &view, rows, columns, after, finish);
            }
            Some(channels) => {
                check_taps(input.rows, view.depth / channels);
                let mut source = Gathered::new(direct, channels, rows.end);
                let view = PanelView { depth: source.depth(), ..view };
                run_any_u8s8(isa, &mut source, &view, rows, columns, after, finish);
            }
        }
    }
}

/// Tiles of AMX where they are and pay, else those of vectors.
///
/// # Safety
/// As [`run`].
unsafe fn run_any_u8s8(
    isa: Isa,
    source: &mut impl RowSource,
    view: &PanelView,
    rows: Range<usize>,
    columns: Range<usize>,
    after: Ahead,
    finish: impl Finish<i32>,
) {
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_amx() && isa::amx::gemm::pays(source, view, rows.len(), columns.len()) {
            use isa::amx::gemm::{Bytes, Taps, run};
            let finish = |block: &Block<i32>| finish.finish(block, false);
            let (count, depth, bytes) = (view.taps, view.depth, view.steps * 4);
            let taps = Taps { count, depth, bytes, line: 1 };
            return run::<Bytes>(source, taps, view, rows, columns, after, finish);
        }
        if rows.len() == 1
            && single_u8s8(isa, source, view, rows.start, columns.clone(), after, &finish)
        {
            return;
        }
        run(micro_u8s8(isa), source, view, rows, columns, after, finish);
    }
}

/// u8 × s8 product of indirect rows and packed weights, requantised to u8.
///
/// Exact on every instruction set; `columns` as for [`gemm_f32`].
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_u8s8(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { gemm_u8s8_before(isa, input, weights, epilogue, output, rows, columns, &[]) }
}

/// [`gemm_u8s8`], during which the first bytes of what is read `next` are brought into the cache.
///
/// # Panics
/// As [`gemm_u8s8`].
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_u8s8_before(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
    rows: Range<usize>,
    columns: Range<usize>,
    next: &[u8],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishU8::new(isa, epilogue, output);
        run_u8s8(isa, input, weights, rows, columns, Ahead::of(next), finish);
    }
}

/// u8 × s8 product of indirect rows and packed weights, scaled to f32.
///
/// The integer part is exact on every instruction set; `columns` as for [`gemm_f32`].
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_u8s8_f32(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    epilogue: &DequantizeF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishDequantized::new(isa, epilogue, output);
        run_u8s8(isa, input, weights, rows, columns, Ahead::of(&[]), finish);
    }
}

/// u8 × s8 product of indirect rows and packed weights, through a function to u8; `columns` as for
/// [`gemm_f32`]. The first bytes of what is read `next` are brought into the cache meanwhile.
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_u8s8_through(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    epilogue: &ThroughU8,
    output: &Output<u8>,
    rows: Range<usize>,
    columns: Range<usize>,
    next: &[u8],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishThrough::new(isa, epilogue, output);
        run_u8s8(isa, input, weights, rows, columns, Ahead::of(next), finish);
    }
}

/// u8 × s8 product of indirect rows and packed weights as s32, with an optional bias per column.
///
/// Exact on every instruction set; `columns` as for [`gemm_f32`].
///
/// # Panics
/// If columns, taps or the bias do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_u8s8_s32(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    bias: Option<&[i32]>,
    output: &Output<i32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let finish = |block: &Block<i32>| store_s32(block, bias, output);
        run_u8s8(isa, input, weights, rows, columns, Ahead::of(&[]), finish);
    }
}

/// bf16 product of indirect rows and packed weights, accumulated in f32; `columns` as for
/// [`gemm_f32`]. Rows of f32 are rounded to bf16 on the way; results of bf16 are rounded after the
/// epilogue. An `addend` is a residual of bf16, added before the epilogue. The first bytes of what
/// is read `next` are brought into the cache meanwhile. Native where [`Isa::has_bf16`], otherwise emulated, slowly.
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_bf16<T: Real, R: Real>(
    isa: Isa,
    input: &Input<T>,
    weights: &PackedBf16,
    epilogue: &EpilogueF32,
    addend: Option<&Residual<bf16>>,
    output: &Output<R>,
    rows: Range<usize>,
    columns: Range<usize>,
    next: &[u8],
) {
    check_taps(input.rows, weights.taps());
    let after = Ahead::of(next);
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishReal::of_halves(isa, epilogue, addend, output);
        match weights.taps_view().filter(|_| !T::WIDE && !isa.has_amx()) {
            Some(view) => gemm_bf16_direct(isa, input, &view, rows, columns, after, finish),
            None => {
                let (view, depth) = (weights.view(), weights.depth());
                gemm_bf16_panels(isa, input, &view, depth, rows, columns, after, finish);
            }
        }
    }
}

/// [`gemm_bf16`] of rows of bf16 that are read where they lie, without tiles of AMX.
///
/// # Safety
/// As [`gemm_bf16_panels`]; T is bf16.
pub(crate) unsafe fn gemm_bf16_direct<T: Real>(
    isa: Isa,
    input: &Input<T>,
    view: &PanelView,
    rows: Range<usize>,
    columns: Range<usize>,
    after: Ahead,
    finish: impl Finish<f32>,
) {
    let (base, padding) = (input.base.cast::<bf16>(), input.padding.cast());
    let input = Input { base, rows: input.rows, padding };
    let mut source = Direct { input: &input, resolver: resolver(isa) };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe { run(micro_bf16(isa), &mut source, view, rows, columns, after, finish) }
}

/// [`gemm_bf16`] with panels that somebody else holds, up to its sums; taps are `depth` deep.
///
/// # Safety
/// As [`gemm_bf16`]; the view's panels of these columns are readable.
pub(crate) unsafe fn gemm_bf16_panels<T: Real>(
    isa: Isa,
    input: &Input<T>,
    view: &PanelView,
    depth: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    after: Ahead,
    finish: impl Finish<f32>,
) {
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_amx() && depth > 0 {
            use isa::amx::gemm::{Halves, Rounded, Taps, run};
            let finish = |block: &Block<f32>| finish.finish(block, false);
            let source = &mut Direct { input, resolver: resolver(isa) };
            let line = input.rows.line_of_taps(depth);
            let taps = Taps { count: input.rows.taps(), depth, bytes: depth * 2, line };
            return match T::WIDE {
                true => run::<Rounded>(source, taps, view, rows, columns, after, finish),
                false => run::<Halves>(source, taps, view, rows, columns, after, finish),
            };
        }
        let mut source = Rounded::new(isa, input, depth);
        run(micro_bf16(isa), &mut source, view, rows, columns, after, finish);
    }
}
