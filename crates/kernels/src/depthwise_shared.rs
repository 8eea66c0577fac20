//! Depthwise convolution in f32 where neighbours in a line of output read neighbouring pixels: every
//! pixel is read once for all of a tile's rows that it counts in.

use std::cell::UnsafeCell;
use std::ops::Range;

use crate::depthwise_lines::lines_of_output;
use crate::epilogue::{EpilogueF32, Output};
use crate::finish::{Gate, InRegisters, Movable};
use crate::gemm::Input;
use crate::isa::{self, Isa};
use crate::map::{Unary, map_f32_in_place};
use crate::pack::PanelView;
use crate::quantize::f32_to_bf16;
use crate::real::Real;
use crate::tile::even;

/// A tile of neighbours in a line of output, by all channels.
pub(crate) struct SharedTile {
    /// Of each line of taps inside the image, where its first tap would be for the first pixel of
    /// the line, and the number of that tap.
    pub lines: *const [(usize, usize)],
    /// Bytes from there to the tile's first pixel.
    pub offset: usize,
    /// Bytes between pixels.
    pub pixel_step: usize,
    /// The pixels that are inside, of those that the tile reads across; the middle taps of all rows
    /// are among them.
    pub inside: Range<usize>,
    /// Pixels are bf16, else f32.
    pub half: bool,
    /// `[panel][tap][16]` weights.
    pub weights: *const f32,
    /// For all channels.
    pub finish: InRegisters,
}

/// The kernels of one instruction set for one size of kernel and step.
#[derive(Clone, Copy)]
pub(crate) struct MicroDepthwiseShared {
    /// Most rows at once.
    pub rows: usize,
    /// Computes (rows, tile).
    pub tile: unsafe fn(usize, &SharedTile),
}

/// The kernels for `taps` by `taps` taps where rows are `step` pixels apart, if there are any.
fn micro(isa: Isa, taps: usize, step: usize) -> Option<MicroDepthwiseShared> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() && isa.has_bf16() {
        return isa::avx512::depthwise_shared::micro(taps, step);
    }
    let _ = (isa, taps, step);
    None
}

/// [`crate::depthwise::depthwise_f32`], where it can be done so: otherwise gives false.
///
/// # Safety
/// As [`crate::depthwise::depthwise_f32`].
pub(crate) unsafe fn shared<T: Real, R: Real>(
    isa: Isa,
    input: &Input<T>,
    view: &PanelView,
    epilogue: &EpilogueF32,
    output: &Output<R>,
    rows: Range<usize>,
) -> bool {
    let Some(across) = input.rows.lines_across() else { return false };
    let (taps, step) = (across.taps, across.row_step / across.tap_step.max(1));
    let square = taps * taps == view.taps && step * across.tap_step == across.row_step;
    let near = across.most_beside().is_some_and(|beside| beside <= taps / 2);
    let Some(micro) = micro(isa, taps, step).filter(|_| square && near) else { return false };
    let finish = Finish::new(isa, epilogue, output, [micro.rows, view.columns]);
    let pixel_step = across.tap_step * size_of::<T>();
    // Moved from tile to tile: what is copied as a whole a moment after its parts were written waits
    // for them.
    let mut tile = SharedTile {
        lines: &[],
        offset: 0,
        pixel_step,
        inside: 0..0,
        half: !T::WIDE,
        weights: view.weights.cast(),
        finish: finish.place(rows.start),
    };
    lines_of_output(across, view.taps, input, rows, |line| {
        tile.lines = line.lines;
        let mut pixel = line.pixels.start;
        while pixel < line.pixels.end {
            let count = even(line.pixels.end - pixel, micro.rows);
            let first = pixel * step;
            let outside = (across.pad_before + across.input).saturating_sub(first);
            tile.offset = first * pixel_step;
            tile.inside.start = across.pad_before.saturating_sub(first);
            tile.inside.end = outside.min((count - 1) * step + taps);
            // SAFETY: rows and output are there by the caller's promise; kernels were chosen for
            // these taps.
            unsafe {
                (micro.tile)(count, &tile);
                finish.after(line.first_row + pixel, count);
            }
            let room = tile.finish.output;
            tile.finish.below(count);
            if finish.apart() {
                tile.finish.output = room;
            }
            pixel += count;
        }
    });
    true
}

/// What becomes of a tile: clamped in registers; other functions afterwards.
struct Finish<'a, R> {
    isa: Isa,
    epilogue: &'a EpilogueF32<'a>,
    output: &'a Output<R>,
    columns: usize,
    /// Room for results that are rounded after a function.
    room: Vec<UnsafeCell<f32>>,
}

impl<'a, R: Real> Finish<'a, R> {
    /// For tiles of [rows, columns] at most.
    fn new(
        isa: Isa,
        epilogue: &'a EpilogueF32,
        output: &'a Output<R>,
        [rows, columns]: [usize; 2],
    ) -> Self {
        assert!(epilogue.bias.is_none_or(|bias| bias.len() == columns), "bias");
        let apart = !R::WIDE && Self::late(epilogue).is_some();
        let room =
            (0..if apart { rows * columns } else { 0 }).map(|_| UnsafeCell::new(0.0)).collect();
        Finish { isa, epilogue, output, columns, room }
    }

    /// The function that is not applied in registers.
    fn late(epilogue: &EpilogueF32) -> Option<Unary> {
        let open = Gate::of(epilogue.activation, R::WIDE) == Gate::Open;
        epilogue.activation.function().filter(|_| open)
    }

    /// True where results go to the room first.
    fn apart(&self) -> bool {
        !self.room.is_empty()
    }

    /// Where the results of the tile at `row` go, and what becomes of them in registers.
    fn place(&self, row: usize) -> InRegisters {
        let (columns, stride) = (self.columns, self.output.row_stride);
        let EpilogueF32 { alpha, bias, residual, activation } = *self.epilogue;
        let (low, high) = activation.bounds();
        let first = self.output.pointer.wrapping_add(row * stride).cast();
        let apart = self.apart();
        InRegisters {
            alpha,
            low,
            high,
            gate: Gate::of(activation, R::WIDE),
            bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            residual: residual
                .map_or(std::ptr::null(), |r| r.pointer.wrapping_add(row * r.row_stride)),
            residual_stride: residual.map_or(0, |r| r.row_stride),
            addend: std::ptr::null(),
            addend_stride: 0,
            output: if apart { UnsafeCell::raw_get(self.room.as_ptr()) } else { first },
            output_stride: if apart { columns } else { stride },
            half_result: !R::WIDE && !apart,
            columns,
        }
    }

    /// What is left to do with `count` rows from `row` on.
    ///
    /// # Safety
    /// Their results are in the room or in the output, which covers them.
    unsafe fn after(&self, row: usize, count: usize) {
        let Some(function) = Self::late(self.epilogue) else { return };
        let (columns, stride) = (self.columns, self.output.row_stride);
        let first = self.output.pointer.wrapping_add(row * stride);
        // SAFETY: the caller's promise.
        unsafe {
            if self.apart() {
                let results =
                    std::slice::from_raw_parts_mut(self.place(row).output, count * columns);
                map_f32_in_place(self.isa, function, results);
                for (r, from) in results.chunks_exact(columns).enumerate() {
                    let to = first.add(r * stride).cast();
                    f32_to_bf16(self.isa, from, std::slice::from_raw_parts_mut(to, columns));
                }
                return;
            }
            let whole = columns == stride;
            let (runs, length) = if whole { (1, count * columns) } else { (count, columns) };
            for r in 0..runs {
                let run = first.add(r * stride).cast::<f32>();
                let run = std::slice::from_raw_parts_mut(run, length);
                map_f32_in_place(self.isa, function, run);
            }
        }
    }
}
