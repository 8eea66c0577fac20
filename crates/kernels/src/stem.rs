//! Convolutions of few channels. Some lines of the image are copied with their padding, so that a
//! line of taps is one run: rows of the product are read where they lie in the copy.

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;

use crate::conv::Window;
use crate::epilogue::{DequantizeF32, EpilogueF32, Output, RequantizeU8, Residual};
use crate::finish::{Finish, FinishDequantized, FinishReal, FinishU8, Sum};
use crate::gemm::{micro_bf16, micro_f32, micro_u8s8};
use crate::isa::{self, Isa};
use crate::pack::{PackedF32, PanelView, TapsBf16, TapsS8, WeightOrder};
use crate::panel::EvenRows;
use crate::real::Real;
use crate::tile::{Ahead, Micro, PITCH, RowSource};
use crate::walk::run;

/// Most channels of an image whose lines are copied.
const MOST_CHANNELS: usize = 3;
/// Bytes of a line of taps at most, where tiles multiply them: a line of a tile.
const RUN_BYTES: usize = 64;
/// Elements of a line of taps at most, by what multiplies them.
pub const MOST_F32: usize = 64;
/// The same for bf16.
pub const MOST_BF16: usize = RUN_BYTES / 2;
/// The same for u8.
pub const MOST_U8: usize = RUN_BYTES;
/// Bytes of copied lines that are wanted at a time: they stay in L1.
const ROOM_BYTES: usize = 32 << 10;
/// Rows that may be read behind the last.
const ROWS_BEHIND: usize = 32;

/// The geometry of a convolution whose lines of taps are runs.
#[derive(Clone, Debug)]
pub struct Lines {
    window: Window,
    channels: usize,
    output: [usize; 2],
    /// Elements of a copied line.
    pitch: usize,
}

impl Lines {
    /// The lines of images of so many channels; `None` where copying them does not pay or a line of
    /// taps is no run of at most `most` elements.
    pub fn of(window: &Window, channels: usize, most: usize) -> Option<Self> {
        let run = window.kernel[1] * channels;
        let few = (1..=MOST_CHANNELS).contains(&channels) && window.taps() > 1;
        let output = window.output()?;
        let pitch = ((output[1] - 1) * window.stride[1] + window.kernel[1]) * channels;
        let lies = window.dilation[1] == 1 && run <= most;
        (few && lies).then_some(Lines { window: *window, channels, output, pitch })
    }

    /// How weights `[out][taps][in]` are packed for these lines.
    pub fn order(&self, columns: usize) -> WeightOrder {
        WeightOrder::ohwi(columns, self.window.kernel[0], self.window.kernel[1] * self.channels)
    }

    /// Lines of the copy that `lines` lines of output need.
    fn needed(&self, lines: usize) -> usize {
        (lines - 1) * self.window.stride[0]
            + (self.window.kernel[0] - 1) * self.window.dilation[0]
            + 1
    }

    /// Lines of output computed at a time from copied lines of elements of `bytes` bytes.
    fn strip(&self, bytes: usize) -> usize {
        let fit = ROOM_BYTES / (self.pitch * bytes);
        let more = fit.saturating_sub(self.needed(1)) / self.window.stride[0];
        (1 + more).min(self.output[0])
    }

    /// Copies the lines that the output from line `y` on needs; `convert` copies pixels.
    fn copy<T, E: Copy>(
        &self,
        image: &[T],
        padding: E,
        y: usize,
        to: &mut [E],
        convert: impl Fn(&[T], &mut [E]),
    ) {
        let [height, width] = self.window.input;
        let left = (self.window.pad_before[1] * self.channels).min(self.pitch);
        let inside = (width * self.channels).min(self.pitch - left);
        for (i, line) in to.chunks_exact_mut(self.pitch).enumerate() {
            let at = y * self.window.stride[0] + i;
            let source = at.checked_sub(self.window.pad_before[0]).filter(|&line| line < height);
            let Some(source) = source else {
                line.fill(padding);
                continue;
            };
            line[..left].fill(padding);
            let from = &image[source * width * self.channels..][..inside];
            convert(from, &mut line[left..left + inside]);
            line[left + inside..].fill(padding);
        }
    }
}

/// Rows of a strip, in the copied lines.
#[derive(Clone, Copy)]
pub(crate) struct LineRows {
    base: usize,
    /// The row at the beginning of the first line.
    first_row: usize,
    /// Rows in a line.
    pub width: usize,
    /// Bytes between rows of a line.
    pub row_step: usize,
    line_step: usize,
    /// Bytes between taps.
    pub tap_step: usize,
}

impl LineRows {
    /// How many rows from `row` on lie evenly, and where the first is.
    pub fn place(&self, row: usize) -> (usize, usize) {
        let (line, x) = ((row - self.first_row) / self.width, (row - self.first_row) % self.width);
        (self.width - x, self.base + line * self.line_step + x * self.row_step)
    }
}

impl RowSource for LineRows {
    fn even(&self, row: usize) -> Option<(usize, EvenRows)> {
        let (run, first) = self.place(row);
        Some((run, EvenRows { first, row_step: self.row_step, tap_step: self.tap_step }))
    }

    unsafe fn addresses(
        &mut self,
        row: usize,
        count: usize,
        taps: Range<usize>,
        addresses: *mut usize,
    ) {
        let mut first = [0usize; PITCH];
        let mut done = 0;
        while done < count {
            let (left, place) = self.place(row + done);
            let run = left.min(count - done);
            for (i, slot) in first[done..done + run].iter_mut().enumerate() {
                *slot = place + i * self.row_step;
            }
            done += run;
        }
        for (i, tap) in taps.enumerate() {
            let line = first.map(|address| address + tap * self.tap_step);
            // SAFETY: every tap has `PITCH` slots by the caller's promise.
            unsafe { addresses.add(i * PITCH).cast::<[usize; PITCH]>().write(line) };
        }
    }
}

thread_local! {
    /// Copied lines; kept, because a stem of a small model takes only microseconds.
    static ROOM: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Copies lines and hands out their rows, strip by strip; the flag tells the last strip.
///
/// # Safety
/// `image` holds the images of `rows`; `E` is any bits, of at most eight bytes.
unsafe fn strips<T, E: Copy>(
    lines: &Lines,
    image: *const T,
    padding: E,
    rows: Range<usize>,
    convert: impl Fn(&[T], &mut [E]),
    mut each: impl FnMut(LineRows, Range<usize>, bool),
) {
    let [height, width] = lines.output;
    let (strip, size) = (lines.strip(size_of::<E>()), size_of::<E>());
    let row_step = lines.window.stride[1] * lines.channels * size;
    let behind = ROWS_BEHIND * row_step + RUN_BYTES;
    let image_elements = lines.window.input[0] * lines.window.input[1] * lines.channels;
    ROOM.with_borrow_mut(|room| {
        let most = lines.needed(strip) * lines.pitch * size;
        let words = (most + behind).div_ceil(8);
        if room.len() < words {
            room.resize(words, 0);
        }
        let room = room.as_mut_ptr();
        let mut row = rows.start;
        while row < rows.end {
            let (at, y) = (row / (height * width), row % (height * width) / width);
            let first_row = (at * height + y) * width;
            let left = (rows.end - first_row).div_ceil(width);
            let count = strip.min(height - y).min(left);
            let elements = lines.needed(count) * lines.pitch;
            // SAFETY: the room has as many lines as a strip needs; the image is the caller's.
            unsafe {
                let image =
                    std::slice::from_raw_parts(image.add(at * image_elements), image_elements);
                let to = std::slice::from_raw_parts_mut(room.cast::<E>(), elements);
                lines.copy(image, padding, y, to, &convert);
                // Weights of what is read behind a run are zero, but bits of another call may be
                // no numbers.
                room.cast::<u8>().add(elements * size).write_bytes(0, behind);
            }
            let end = rows.end.min(first_row + count * width);
            let source = LineRows {
                base: room.expose_provenance(),
                first_row,
                width,
                row_step,
                line_step: lines.window.stride[0] * lines.pitch * size,
                tap_step: lines.window.dilation[0] * lines.pitch * size,
            };
            each(source, row..end, end == rows.end);
            row = end;
        }
    });
}

/// Where a strip's product goes on: nothing is brought near before the last.
fn ahead(next: &[u8], last: bool) -> Ahead {
    Ahead::of(if last { next } else { &[] })
}

/// Checks that a geometry and its weights belong together.
fn check(lines: &Lines, view: &PanelView) {
    let order = lines.order(view.columns);
    assert_eq!([view.taps, view.depth], [order.taps, order.depth], "weights of another geometry");
}

/// f32 convolution with weights packed in [`Lines::order`], for a range of output pixels. The first
/// bytes of what is read `next` are brought into the cache meanwhile.
///
/// # Panics
/// If weights or the epilogue's vectors do not fit.
///
/// # Safety
/// `image` holds the images of `rows`; `output` and the residual cover `rows`; nobody else touches
/// that part of the output meanwhile.
pub unsafe fn stem_f32(
    isa: Isa,
    image: *const f32,
    lines: &Lines,
    weights: &PackedF32,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    next: &[u8],
) {
    let view = weights.view();
    check(lines, &view);
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        let convert = |from: &[f32], to: &mut [f32]| to.copy_from_slice(from);
        strips(lines, image, 0.0, rows, convert, |mut source, rows, last| {
            let (after, columns) = (ahead(next, last), 0..view.columns);
            let finish = FinishReal::new(isa, epilogue, output);
            run(micro_f32(isa), &mut source, &view, rows, columns, after, finish);
        });
    }
}

/// Sums of a strip by tiles of AMX where its lines are long enough, else by vectors.
///
/// # Safety
/// As [`run`]; with tiles, `Self::tiles` multiplies what the weights are.
unsafe fn multiply<A: Sum, F: Finish<A>>(
    isa: Isa,
    micro: &Micro<A>,
    tiles: unsafe fn(&LineRows, &PanelView, Range<usize>, F),
    (mut source, view): (LineRows, PanelView),
    rows: Range<usize>,
    after: Ahead,
    finish: F,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if isa.has_amx() && source.width >= FEWEST_OF_TILES {
            return tiles(&source, &view, rows, finish);
        }
        run(micro, &mut source, &view, rows, 0..view.columns, after, finish);
    }
}

/// Fewest rows in a line for which tiles are faster than vectors.
const FEWEST_OF_TILES: usize = 8;

/// bf16 convolution with weights packed in [`Lines::order`], accumulated in f32; pixels of f32 are
/// rounded where lines are copied. A pixel that is no finite number may make its neighbours NaN.
/// Otherwise as [`crate::gemm::gemm_bf16`] and [`stem_f32`].
///
/// # Panics
/// If weights or the epilogue's vectors do not fit.
///
/// # Safety
/// As [`stem_f32`].
pub unsafe fn stem_bf16<T: Real, R: Real>(
    isa: Isa,
    image: *const T,
    lines: &Lines,
    weights: &TapsBf16,
    epilogue: &EpilogueF32,
    addend: Option<&Residual<bf16>>,
    output: &Output<R>,
    rows: Range<usize>,
    next: &[u8],
) {
    let view = weights.view();
    check(lines, &view);
    // What is read to the end of the last pair has weights of zero.
    let view = PanelView { depth: view.steps * 2, ..view };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        let convert = |from: &[T], to: &mut [bf16]| T::round(isa, from, to);
        strips(lines, image, bf16::ZERO, rows, convert, |source, rows, last| {
            let finish = FinishReal::of_halves(isa, epilogue, addend, output);
            let (micro, after) = (micro_bf16(isa), ahead(next, last));
            multiply(isa, micro, tiles::run_bf16, (source, view), rows, after, finish);
        });
    }
}

/// The integer product of a stem up to its s32 accumulators.
///
/// # Safety
/// As [`stem_f32`].
unsafe fn run_u8s8(
    isa: Isa,
    (image, zero_point): (*const u8, u8),
    lines: &Lines,
    weights: &TapsS8,
    rows: Range<usize>,
    next: &[u8],
    finish: impl Finish<i32> + Copy,
) {
    let view = weights.view();
    check(lines, &view);
    // What is read to the end of the last word has weights of zero.
    let view = PanelView { depth: view.steps * 4, ..view };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        let convert = |from: &[u8], to: &mut [u8]| to.copy_from_slice(from);
        strips(lines, image, zero_point, rows, convert, |source, rows, last| {
            let (micro, after) = (micro_u8s8(isa), ahead(next, last));
            multiply(isa, micro, tiles::run_u8s8, (source, view), rows, after, finish);
        });
    }
}

/// u8 × s8 convolution with weights packed in [`Lines::order`], requantised to u8; padding is the
/// zero point. Exact on every instruction set. Otherwise as [`stem_f32`].
///
/// # Panics
/// If weights or the epilogue's vectors do not fit.
///
/// # Safety
/// As [`stem_f32`].
pub unsafe fn stem_u8s8(
    isa: Isa,
    image: (*const u8, u8),
    lines: &Lines,
    weights: &TapsS8,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
    rows: Range<usize>,
    next: &[u8],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishU8::new(isa, epilogue, output);
        run_u8s8(isa, image, lines, weights, rows, next, finish);
    }
}

/// [`stem_u8s8`], scaled to f32 instead.
///
/// # Panics
/// If weights or the epilogue's vectors do not fit.
///
/// # Safety
/// As [`stem_f32`].
pub unsafe fn stem_u8s8_f32(
    isa: Isa,
    image: (*const u8, u8),
    lines: &Lines,
    weights: &TapsS8,
    epilogue: &DequantizeF32,
    output: &Output<f32>,
    rows: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishDequantized::new(isa, epilogue, output);
        run_u8s8(isa, image, lines, weights, rows, &[], finish);
    }
}

#[cfg(target_arch = "x86_64")]
use isa::amx::stem as tiles;

/// No processor has tiles here.
#[cfg(not(target_arch = "x86_64"))]
mod tiles {
    use super::*;

    /// # Safety
    /// Never called.
    pub unsafe fn run_bf16<F>(_: &LineRows, _: &PanelView, _: Range<usize>, _: F) {
        unreachable!("no tiles")
    }

    /// # Safety
    /// Never called.
    pub unsafe fn run_u8s8<F>(_: &LineRows, _: &PanelView, _: Range<usize>, _: F) {
        unreachable!("no tiles")
    }
}
