//! Depthwise convolution in f32 where neighbours in a line of output read neighbouring pixels: every
//! pixel is read once for all of a tile's rows that it counts in.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::epilogue::{EpilogueF32, Output};
use crate::finish::InRegisters;
use crate::gemm::Input;
use crate::isa::{self, Isa};
use crate::map::{Unary, map_f32_in_place};
use crate::pack::PanelView;
use crate::quantize::f32_to_bf16;
use crate::real::Real;
use crate::tile::{Direct, PITCH, RowSource, TAP_BLOCK, even, resolver};

/// A tile of neighbours in a line of output, by all channels.
pub(crate) struct SharedTile {
    /// `[tap][PITCH]` row addresses. Those of (row, tap) and (row + 1, tap - step) are one.
    pub addresses: *const usize,
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
    let Some(micro) = micro(isa, taps, step).filter(|_| square) else { return false };
    let mut source = Direct { input, resolver: resolver(isa) };
    let mut addresses = [MaybeUninit::<usize>::uninit(); TAP_BLOCK * PITCH];
    let addresses = addresses.as_mut_ptr().cast::<usize>();
    let finish = Finish::new(isa, epilogue, output, [micro.rows, view.columns]);
    let mut row = rows.start;
    while row < rows.end {
        let count = even((rows.end - row).min(across.width - row % across.width), micro.rows);
        // SAFETY: rows, addresses and output are there by the caller's promise; kernels were chosen
        // for these taps, all of which fit the addresses.
        unsafe {
            source.addresses(row, count, 0..view.taps, addresses);
            finish.around(row, count, |place| {
                let weights = view.weights.cast();
                let half = !T::WIDE;
                let tile = SharedTile { addresses, half, weights, finish: place };
                (micro.tile)(count, &tile);
            });
        }
        row += count;
    }
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
        epilogue.activation.function().filter(|_| !epilogue.activation.is_hard_swish())
    }

    /// Calls `compute` for `count` rows from `row` on with where they go, and finishes them.
    ///
    /// # Safety
    /// The output and the residual cover the rows.
    unsafe fn around(&self, row: usize, count: usize, compute: impl FnOnce(InRegisters)) {
        let (columns, stride) = (self.columns, self.output.row_stride);
        let EpilogueF32 { alpha, bias, residual, activation } = *self.epilogue;
        let (low, high) = activation.bounds();
        let apart = !self.room.is_empty();
        let first = self.output.pointer.wrapping_add(row * stride);
        let place = InRegisters {
            alpha,
            low,
            high,
            hard_swish: activation.is_hard_swish(),
            bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            residual: residual
                .map_or(std::ptr::null(), |r| r.pointer.wrapping_add(row * r.row_stride)),
            residual_stride: residual.map_or(0, |r| r.row_stride),
            addend: std::ptr::null(),
            addend_stride: 0,
            output: if apart { UnsafeCell::raw_get(self.room.as_ptr()) } else { first.cast() },
            output_stride: if apart { columns } else { stride },
            half_result: !R::WIDE && !apart,
            columns,
        };
        compute(place);
        let Some(function) = Self::late(self.epilogue) else { return };
        // SAFETY: the caller's promise; the tile's results are in the room or in the output.
        unsafe {
            if apart {
                let results = std::slice::from_raw_parts_mut(place.output, count * columns);
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
