//! Depthwise convolution in f32 of fewer channels than a vector holds: several pixels of a line share
//! one.

use std::ops::Range;

use crate::conv::Across;
use crate::depthwise::{DepthwiseLine, MicroDepthwiseLine};
use crate::epilogue::Block;
use crate::finish::{Finish, InRegisters};
use crate::pack::{PANEL, PanelView};
use crate::tile::even;

/// Most lines of taps that are walked.
pub(crate) const MOST_LINES: usize = 16;
/// Most taps of weights that are spread over the pixels of a vector.
const MOST_TAPS: usize = 64;

/// The rows of a line of output, and where they read.
pub(crate) struct LineCall<'a> {
    pub micro: &'static MicroDepthwiseLine,
    pub view: &'a PanelView,
    pub across: &'a Across,
    /// Where the first tap of each line of taps would be for the first pixel of the line (which may
    /// be before the image), and the number of that tap.
    pub lines: &'a [(usize, usize)],
    /// Number of the line's first row.
    pub first_row: usize,
    /// Pixels of the line.
    pub pixels: Range<usize>,
}

impl LineCall<'_> {
    /// All channels of the line.
    ///
    /// # Safety
    /// Rows are readable; `finish` may take the rows.
    pub unsafe fn run(&self, packed: &Packed, finish: &impl Finish<f32>) {
        let Range { start, end } = self.across.inside;
        let inside = start.clamp(self.pixels.start, self.pixels.end);
        let outside = end.clamp(inside, self.pixels.end);
        let vector = packed.pixels;
        // SAFETY: the caller's promise.
        unsafe {
            self.alone(self.pixels.start..inside, packed, finish);
            if outside - inside < vector {
                self.alone(inside..outside, packed, finish);
            } else {
                let mut pixel = inside;
                while pixel + vector <= outside {
                    let count = even((outside - pixel) / vector, self.micro.rows);
                    self.vectors(pixel, count, packed, finish);
                    pixel += count * vector;
                }
                if pixel < outside {
                    // Pixels that were computed already are computed again.
                    self.vectors(outside - vector, 1, packed, finish);
                }
            }
            self.alone(outside..self.pixels.end, packed, finish);
        }
    }

    /// So many vectors of pixels, all of whose taps are inside.
    ///
    /// # Safety
    /// As [`LineCall::run`].
    unsafe fn vectors(
        &self,
        pixel: usize,
        count: usize,
        packed: &Packed,
        finish: &impl Finish<f32>,
    ) {
        let size = [count * packed.pixels, PANEL];
        // SAFETY: the caller's promise.
        unsafe { self.tile(self.lines, self.across.taps, pixel, size, packed, finish) };
    }

    /// Pixels one by one, of whose taps some may be beside the image.
    ///
    /// # Safety
    /// As [`LineCall::run`].
    unsafe fn alone(&self, pixels: Range<usize>, packed: &Packed, finish: &impl Finish<f32>) {
        for pixel in pixels {
            let taps = self.across.taps_inside(pixel);
            let mut lines = [(0, 0); MOST_LINES];
            for (to, &(address, tap)) in lines.iter_mut().zip(self.lines) {
                let beside = taps.start * self.across.tap_step * 4;
                *to = (address.wrapping_add(beside), tap + taps.start);
            }
            let (lines, size) = (&lines[..self.lines.len()], [1, self.view.columns]);
            // SAFETY: the caller's promise; taps are inside the image.
            unsafe { self.tile(lines, taps.len(), pixel, size, packed, finish) };
        }
    }

    /// Pixels from `pixel` on, `channels` floats to a vector.
    ///
    /// # Safety
    /// As [`LineCall::run`], for pixels that all have those taps.
    unsafe fn tile(
        &self,
        lines: &[(usize, usize)],
        taps: usize,
        pixel: usize,
        [pixels, channels]: [usize; 2],
        packed: &Packed,
        finish: &impl Finish<f32>,
    ) {
        let (row, columns) = (self.first_row + pixel, self.view.columns);
        let place = finish.in_registers([row, 0], columns).expect("as was asked for `Packed`");
        let bias = packed.bias.as_ptr();
        let line = DepthwiseLine {
            lines,
            offset: pixel * self.across.row_step * 4,
            taps,
            tap_step: self.across.tap_step * 4,
            row_step: channels * 4,
            channels,
            weights: packed.weights.as_ptr().cast(),
            finish: InRegisters { bias, columns: channels, output_stride: channels, ..place },
        };
        // SAFETY: the caller's promise.
        unsafe { (self.micro.tile)(pixels * columns / channels, &line) };
        let block = Block::new(std::ptr::null_mut(), [row, 0], [pixels, columns]);
        finish.finish(&block, true);
    }
}

/// Weights and bias of several pixels in a vector.
pub(crate) struct Packed {
    pixels: usize,
    weights: [[f32; PANEL]; MOST_TAPS],
    bias: [f32; PANEL],
}

impl Packed {
    /// `None` where a vector does not hold several pixels that lie one behind the other.
    ///
    /// # Safety
    /// The weights and the epilogue's bias are readable.
    pub unsafe fn of(view: &PanelView, across: &Across, finish: &impl Finish<f32>) -> Option<Self> {
        let columns = view.columns;
        if !matches!(columns, 2 | 4 | 8) || across.row_step != columns || view.taps > MOST_TAPS {
            return None;
        }
        let first = finish.in_registers([0, 0], columns)?;
        if first.output_stride != columns || !first.residual.is_null() {
            return None;
        }
        let mut packed = Packed {
            pixels: PANEL / columns,
            weights: [[0.0; PANEL]; MOST_TAPS],
            bias: [0.0; PANEL],
        };
        for i in 0..PANEL {
            // SAFETY: a line of 16 weights for each tap, a bias for each column.
            unsafe {
                for (tap, weights) in packed.weights[..view.taps].iter_mut().enumerate() {
                    weights[i] = *view.weights.cast::<f32>().add(tap * PANEL + i % columns);
                }
                if !first.bias.is_null() {
                    packed.bias[i] = *first.bias.add(i % columns);
                }
            }
        }
        Some(packed)
    }
}
