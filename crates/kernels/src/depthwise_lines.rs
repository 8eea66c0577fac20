//! Depthwise convolution in f32 where the pixels of a line of output lie evenly: no table of
//! addresses, and several pixels to a vector where channels are few.

use std::ops::Range;

use crate::conv::Across;
use crate::depthwise::{DepthwiseLine, MicroDepthwiseLine};
use crate::epilogue::{Block, Finish, InRegisters};
use crate::pack::{PANEL, PanelView};
use crate::tile::{Accumulators, even};

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
    /// Pixels are bf16, else f32.
    pub half: bool,
}

impl LineCall<'_> {
    fn line<'a>(
        &self,
        lines: &'a [(usize, usize)],
        weights: *const u8,
        pixel: usize,
        channels: [usize; 2],
    ) -> DepthwiseLine<'a> {
        let size = if self.half { 2 } else { 4 };
        DepthwiseLine {
            lines,
            offset: (pixel * self.across.row_step + channels[0]) * size,
            taps: self.across.taps,
            tap_step: self.across.tap_step * size,
            row_step: self.across.row_step * size,
            half: self.half,
            channels: channels[1],
            weights,
            panel_bytes: self.view.panel_bytes(),
            accumulators: std::ptr::null_mut(),
            finish: None,
        }
    }

    /// Those channels of the line.
    ///
    /// # Safety
    /// Rows and weights are readable; `finish` may take the rows.
    pub unsafe fn run(&self, channels: [usize; 2], finish: &impl Finish<f32>) {
        let Range { start, end } = self.across.inside;
        let inside = start.clamp(self.pixels.start, self.pixels.end);
        let outside = end.clamp(inside, self.pixels.end);
        // SAFETY: the caller's promise.
        unsafe {
            self.edges(self.pixels.start..inside, channels, finish);
            let mut pixel = inside;
            while pixel < outside {
                let count = even(outside - pixel, self.micro.rows);
                self.tile(self.lines, self.across.taps, pixel..pixel + count, channels, finish);
                pixel += count;
            }
            self.edges(outside..self.pixels.end, channels, finish);
        }
    }

    /// Pixels some of whose taps are beside the image.
    ///
    /// # Safety
    /// As [`LineCall::run`].
    pub unsafe fn edges(
        &self,
        pixels: Range<usize>,
        channels: [usize; 2],
        finish: &impl Finish<f32>,
    ) {
        let size = if self.half { 2 } else { 4 };
        for pixel in pixels {
            let taps = self.across.taps_inside(pixel);
            let mut lines = [(0, 0); MOST_LINES];
            for (to, &(address, tap)) in lines.iter_mut().zip(self.lines) {
                let beside = taps.start * self.across.tap_step * size;
                *to = (address.wrapping_add(beside), tap + taps.start);
            }
            let lines = &lines[..self.lines.len()];
            // SAFETY: the caller's promise; taps are inside the image.
            unsafe { self.tile(lines, taps.len(), pixel..pixel + 1, channels, finish) };
        }
    }

    /// # Safety
    /// As [`LineCall::run`], for pixels that all have those taps.
    unsafe fn tile(
        &self,
        lines: &[(usize, usize)],
        taps: usize,
        pixels: Range<usize>,
        [channel, channels]: [usize; 2],
        finish: &impl Finish<f32>,
    ) {
        let row = self.first_row + pixels.start;
        let in_registers = finish.in_registers([row, channel], channels);
        let mut storage = Accumulators::<f32>::new();
        let accumulators = storage.pointer();
        // SAFETY: the caller's promise; accumulators have room for a tile.
        unsafe {
            let weights = self.view.weights.add(channel / PANEL * self.view.panel_bytes());
            let line = self.line(lines, weights, pixels.start, [channel, channels]);
            let line = DepthwiseLine { accumulators, finish: in_registers, taps, ..line };
            (self.micro.tile)(pixels.len(), &line);
        }
        let block = Block::new(accumulators, [row, channel], [pixels.len(), channels]);
        finish.finish(&block, in_registers.is_some());
    }

    /// [`LineCall::run`] of all channels with several pixels to a vector.
    ///
    /// # Safety
    /// As [`LineCall::run`].
    pub unsafe fn run_packed(&self, packed: &Packed, finish: &impl Finish<f32>) {
        let (columns, pixels) = (self.view.columns, packed.pixels);
        let Range { start, end } = self.across.inside;
        let inside = start.clamp(self.pixels.start, self.pixels.end);
        let outside = end.clamp(inside, self.pixels.end);
        if outside - inside < pixels {
            // SAFETY: the caller's promise.
            return unsafe { self.run([0, columns], finish) };
        }
        let tile = |pixel: usize, count: usize| {
            let row = self.first_row + pixel;
            let place = finish.in_registers([row, 0], columns).expect("as was asked for `Packed`");
            let mut line = self.line(self.lines, packed.weights.as_ptr().cast(), pixel, [0, PANEL]);
            line.row_step = PANEL * 4;
            let bias = packed.bias.as_ptr();
            line.finish = Some(InRegisters { bias, columns: PANEL, output_stride: PANEL, ..place });
            // SAFETY: the caller's promise; as many pixels as vectors hold are in the line.
            unsafe { (self.micro.tile)(count, &line) };
            let size = [count * pixels, columns];
            finish.finish(&Block::new(std::ptr::null_mut(), [row, 0], size), true);
        };
        let mut pixel = inside;
        while pixel + pixels <= outside {
            let count = even((outside - pixel) / pixels, self.micro.rows);
            tile(pixel, count);
            pixel += count * pixels;
        }
        if pixel < outside {
            // Pixels that were computed already are computed again.
            tile(outside - pixels, 1);
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.edges(self.pixels.start..inside, [0, columns], finish);
            self.edges(outside..self.pixels.end, [0, columns], finish);
        }
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
