//! Stems on AMX tiles: rows overlap in the copied lines of the image, and each tap is a tile of as
//! many lines of K as it needs.

use std::arch::asm;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::gemm::{Configuration, ROWS, Sums};
use crate::epilogue::Block;
use crate::finish::{Finish, Sum};
use crate::pack::{PANEL, PanelView};
use crate::stem::LineRows;
use crate::tile::{BLOCK_STRIDE, TILE_ROWS};

/// What the products of a block have in common.
struct Block32 {
    /// Bytes between rows, and between the lines of taps.
    row_step: usize,
    tap_step: usize,
    taps: usize,
    /// Bytes of a tap in a panel.
    tap_bytes: usize,
}

/// The sums of 32 (or, not `$tall`, 16) rows by two panels over all taps.
macro_rules! multiply {
    ($name:ident, $sum:ty, $product:literal) => {
        /// # Safety
        /// Tiles are configured; rows, panels and sums are there.
        unsafe fn $name(
            call: &Block32,
            a0: usize,
            [b0, b1]: [*const u8; 2],
            tall: bool,
            sums: *mut $sum,
        ) {
            let a1 = if tall { a0 + TILE_ROWS * call.row_step } else { a0 };
            let below = if tall { sums.wrapping_add(TILE_ROWS * BLOCK_STRIDE) } else { sums };
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{a0} + {stride}*1]",
                    "tileloadd tmm6, [{b0} + {line}*1]",
                    "tileloadd tmm7, [{b1} + {line}*1]",
                    concat!($product, " tmm0, tmm4, tmm6"),
                    concat!($product, " tmm1, tmm4, tmm7"),
                    "cmp {a0}, {a1}", "je 3f",
                    "tileloadd tmm5, [{a1} + {stride}*1]",
                    concat!($product, " tmm2, tmm5, tmm6"),
                    concat!($product, " tmm3, tmm5, tmm7"),
                    "3:",
                    "add {a0}, {tap_step}", "add {a1}, {tap_step}",
                    "add {b0}, {tap_bytes}", "add {b1}, {tap_bytes}",
                    "dec {taps}", "jnz 2b",
                    "cmp {a0}, {a1}", "je 4f",
                    "tilestored [{below} + {pitch}*1], tmm2",
                    "tilestored [{below} + {pitch}*1 + 64], tmm3",
                    "4:",
                    "tilestored [{sums} + {pitch}*1], tmm0",
                    "tilestored [{sums} + {pitch}*1 + 64], tmm1",
                    a0 = inout(reg) a0 => _, a1 = inout(reg) a1 => _, b0 = inout(reg) b0 => _,
                    b1 = inout(reg) b1 => _, taps = inout(reg) call.taps => _,
                    stride = in(reg) call.row_step, tap_step = in(reg) call.tap_step,
                    tap_bytes = in(reg) call.tap_bytes, line = in(reg) 64usize,
                    pitch = in(reg) BLOCK_STRIDE * 4, sums = in(reg) sums, below = in(reg) below,
                    options(nostack),
                )
            }
        }
    };
}

multiply!(multiply_u8s8, i32, "tdpbusd");
multiply!(multiply_bf16, f32, "tdpbf16ps");

type Multiply<S> = unsafe fn(&Block32, usize, [*const u8; 2], bool, *mut S);

/// Sums of u8 by s8; rows as the lines have them, by all columns.
///
/// # Safety
/// [`super::available`] was true; rows and 32 behind them are readable, a line of a tile each.
pub(crate) unsafe fn run_u8s8<F: Finish<i32>>(
    source: &LineRows,
    view: &PanelView,
    rows: Range<usize>,
    finish: F,
) {
    // SAFETY: the caller's promise.
    unsafe { run(multiply_u8s8, source, view, rows, finish) }
}

/// The same for bf16.
///
/// # Safety
/// As [`run_u8s8`].
pub(crate) unsafe fn run_bf16<F: Finish<f32>>(
    source: &LineRows,
    view: &PanelView,
    rows: Range<usize>,
    finish: F,
) {
    // SAFETY: the caller's promise.
    unsafe { run(multiply_bf16, source, view, rows, finish) }
}

/// # Safety
/// As [`run_u8s8`].
unsafe fn run<S: Sum, F: Finish<S>>(
    multiply: Multiply<S>,
    source: &LineRows,
    view: &PanelView,
    rows: Range<usize>,
    finish: F,
) {
    let mut sums = Sums([const { MaybeUninit::<S>::uninit() }; ROWS * BLOCK_STRIDE]);
    let sums = sums.0.as_mut_ptr().cast::<S>();
    let call = Block32 {
        row_step: source.row_step,
        tap_step: source.tap_step,
        taps: view.taps,
        tap_bytes: view.steps * 64,
    };
    let configuration = Configuration::of_depth(view.steps);
    // SAFETY: tiles are available by the caller's promise; the configuration is 64 bytes.
    unsafe { configuration.load() };
    let panels = view.columns.div_ceil(PANEL);
    let mut row = rows.start;
    while row < rows.end {
        let (left, place) = source.place(row);
        let count = left.min(rows.end - row).min(ROWS);
        for first in (0..panels).step_by(4) {
            let end = panels.min(first + 4);
            for pair in (first..end).step_by(2) {
                let b0 = view.weights.wrapping_add(pair * view.panel_bytes());
                let second = if pair + 1 < end { view.panel_bytes() } else { 0 };
                let to = sums.wrapping_add((pair - first) * PANEL);
                // SAFETY: panels are inside the view; sums have room for 32 rows of four panels.
                unsafe {
                    let b1 = b0.wrapping_add(second);
                    multiply(&call, place, [b0, b1], count > TILE_ROWS, to);
                }
            }
            let width = ((end - first) * PANEL).min(view.columns - first * PANEL);
            finish.finish(&Block::new(sums, [row, first * PANEL], [count, width]), false);
        }
        row += count;
    }
    // SAFETY: as for the configuration.
    unsafe { asm!("tilerelease", options(nomem, nostack)) };
}
