//! Products of one panel of columns, whose tiles are short work: rows that lie evenly, or that are
//! neighbours in a line of output, are told by a few addresses, and a tile is moved from one to the
//! next instead of being made anew.

use std::ops::Range;

use crate::epilogue::Block;
use crate::finish::{Finish, Movable, Sum};
use crate::pack::{PANEL, PanelView};
use crate::tile::{Ahead, RowSource, TAP_BLOCK, TILE_ROWS, even};

/// Most rows of a tile that lie evenly.
pub(crate) const TALL_ROWS: usize = 28;
/// Lines of three taps at most.
const MOST_LINES: usize = TAP_BLOCK / 3;

/// The pixels that a line of three taps reads for neighbouring rows, each row's first being the
/// second of the row before. Only the first and the last may be in the padding.
#[derive(Clone, Copy, Default)]
pub(crate) struct PixelLine {
    /// The first row's first pixel.
    pub left: usize,
    /// The pixel after it.
    pub second: usize,
    /// The last row's last pixel.
    pub right: usize,
    /// Bytes between those that lie evenly.
    pub step: usize,
}

/// Rows that lie evenly.
#[derive(Clone, Copy, Default)]
pub(crate) struct EvenRows {
    /// The first row's first tap.
    pub first: usize,
    /// Bytes between rows, and between taps.
    pub row_step: usize,
    pub tap_step: usize,
}

/// One call of a kernel of one panel.
pub(crate) struct PanelTile<A: Sum> {
    /// For rows that share pixels, one for three taps.
    pub lines: *const PixelLine,
    /// For others.
    pub even: EvenRows,
    pub taps: usize,
    /// Elements per tap.
    pub depth: usize,
    /// Lines `[tap][step]`.
    pub weights: *const u8,
    pub tap_bytes: usize,
    /// Lines to bring into the cache meanwhile, and bytes further on with every step.
    pub ahead: *const u8,
    pub ahead_step: usize,
    pub finish: A::InRegisters,
}

/// A kernel of one panel.
pub(crate) type PanelKernel<A> = unsafe fn(&PanelTile<A>);

/// The kernels of one panel of an instruction set: rows, tile.
pub(crate) struct PanelMicro<A: Sum> {
    /// Up to [`TILE_ROWS`] rows that share pixels.
    pub shared: unsafe fn(usize, &PanelTile<A>),
    /// Up to [`TALL_ROWS`] rows that lie evenly.
    pub even: unsafe fn(usize, &PanelTile<A>),
}

/// The bytes at an address.
#[inline(always)]
pub(crate) fn pointer(address: usize) -> *const u8 {
    std::ptr::with_exposed_provenance(address)
}

/// Walks the tiles of `rows` of the panel that `columns` are, where its kernels can; otherwise gives
/// false.
///
/// # Safety
/// As [`crate::walk::run`].
pub(crate) unsafe fn run<A: Sum>(
    micro: &PanelMicro<A>,
    source: &mut impl RowSource,
    view: &PanelView,
    rows: Range<usize>,
    columns: Range<usize>,
    ahead: Ahead,
    finish: &impl Finish<A>,
) -> bool {
    let width = source.shared_width().filter(|_| view.taps <= 3 * MOST_LINES);
    // A single row's sums are parted by the other kernels, so that they do not wait for each other.
    let lies = width.is_some() || rows.len() > 1 && source.even(rows.start).is_some();
    let place = [rows.start, columns.start];
    let in_registers = finish.in_registers(place, columns.len()).filter(|_| lies);
    let Some(in_registers) = in_registers else { return false };
    let weights = view.weights.wrapping_add(columns.start / PANEL * view.panel_bytes());
    let steps = view.taps * view.steps;
    let mut ahead = ahead.over(rows.len().div_ceil(TILE_ROWS) * steps, 4);
    let mut lines = [PixelLine::default(); MOST_LINES];
    let mut tile = PanelTile {
        lines: lines.as_ptr(),
        even: EvenRows::default(),
        taps: view.taps,
        depth: view.depth,
        weights,
        tap_bytes: view.steps * 64,
        ahead: weights,
        ahead_step: 0,
        finish: in_registers,
    };
    let mut row = rows.start;
    while row < rows.end {
        let left = rows.end - row;
        let in_four = ahead.in_four;
        (tile.ahead, tile.ahead_step) = match ahead.take(steps * in_four / 4) {
            Some(lines) => (lines, in_four * 16),
            None => (weights, 0),
        };
        // SAFETY: lines have room for a tile's; the rest is the caller's promise.
        let count = unsafe {
            match width {
                Some(width) => {
                    let count = even(left.min(width - row % width), TILE_ROWS);
                    source.pixel_lines(row, count, &mut lines[..view.taps / 3]);
                    tile.lines = lines.as_ptr();
                    (micro.shared)(count, &tile);
                    count
                }
                None => {
                    let (run, place) = source.even(row).expect("as for the first row");
                    let count = even(left.min(run), TALL_ROWS);
                    tile.even = place;
                    (micro.even)(count, &tile);
                    count
                }
            }
        };
        let block = Block::new(std::ptr::null_mut(), [row, columns.start], [count, columns.len()]);
        finish.finish(&block, true);
        tile.finish.below(count);
        row += count;
    }
    true
}
