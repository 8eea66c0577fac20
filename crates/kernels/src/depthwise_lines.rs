//! Depthwise convolution in f32 where the pixels of a line of output lie evenly: no table of
//! addresses, and several pixels to a vector where channels are few.

use std::ops::Range;

use crate::conv::Across;
use crate::depthwise::{DepthwiseLine, MicroDepthwiseLine, tile_channels};
use crate::epilogue::{Block, Finish};
use crate::pack::{PANEL, PanelView};
use crate::tile::{Accumulators, even};

/// Most lines of taps that are walked.
pub(crate) const MOST_LINES: usize = 16;
/// Fewest pixels of a line for which a call pays.
pub(crate) const FEWEST_PIXELS: usize = 4;
/// Most taps of weights that are spread over the pixels of a vector.
const MOST_TAPS: usize = 64;

/// The rows of a line of output that one call computes.
pub(crate) struct LineCall<'a> {
    pub micro: &'static MicroDepthwiseLine,
    pub view: &'a PanelView,
    pub across: &'a Across,
    /// Where the first row's first tap of each line of taps is, and the number of that tap.
    pub lines: &'a [(usize, usize)],
    pub rows: Range<usize>,
    /// Pixels are bf16, else f32.
    pub half: bool,
}

impl LineCall<'_> {
    fn line(&self, weights: *const u8, pixel: usize, channels: [usize; 2]) -> DepthwiseLine<'_> {
        let size = if self.half { 2 } else { 4 };
        DepthwiseLine {
            lines: self.lines,
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

    /// # Safety
    /// Rows and weights are readable; `finish` may take the rows.
    pub unsafe fn run(&self, finish: &impl Finish<f32>) {
        let mut storage = Accumulators::<f32>::new();
        let accumulators = storage.pointer();
        let columns = self.view.columns;
        let mut done = 0;
        while done < self.rows.len() {
            let count = even(self.rows.len() - done, self.micro.rows);
            let row = self.rows.start + done;
            let mut channel = 0;
            while channel < columns {
                let channels = tile_channels(columns - channel, self.micro.panels);
                let weights = channel / PANEL * self.view.panel_bytes();
                let in_registers = finish.in_registers([row, channel], channels);
                // SAFETY: the caller's promise; accumulators have room for a tile.
                unsafe {
                    let weights = self.view.weights.add(weights);
                    let line = self.line(weights, done, [channel, channels]);
                    let line = DepthwiseLine { accumulators, finish: in_registers, ..line };
                    (self.micro.tile)(count, &line);
                }
                let block = Block::new(accumulators, [row, channel], [count, channels]);
                finish.finish(&block, in_registers.is_some());
                channel += channels;
            }
            done += count;
        }
    }

    /// Pixels in a vector, where several fit and lie one behind the other.
    fn pixels_in_vector(&self) -> Option<usize> {
        let columns = self.view.columns;
        let several = matches!(columns, 2 | 4 | 8);
        let dense = self.across.row_step == columns && !self.half;
        let fits = self.rows.len() >= PANEL / columns.max(1) && self.view.taps <= MOST_TAPS;
        (several && dense && fits).then(|| PANEL / columns)
    }

    /// [`LineCall::run`] with several pixels to a vector; false where that cannot be.
    ///
    /// # Safety
    /// As [`LineCall::run`].
    pub unsafe fn run_packed(&self, finish: &impl Finish<f32>) -> bool {
        let columns = self.view.columns;
        let Some(pixels) = self.pixels_in_vector() else { return false };
        let Some(first) = finish.in_registers([self.rows.start, 0], columns) else { return false };
        if first.output_stride != columns || !first.residual.is_null() {
            return false;
        }
        let mut weights = [[0f32; PANEL]; MOST_TAPS];
        let mut bias = [0f32; PANEL];
        for i in 0..PANEL {
            for (tap, weights) in weights[..self.view.taps].iter_mut().enumerate() {
                // SAFETY: a line of 16 weights for each tap.
                weights[i] =
                    unsafe { *self.view.weights.cast::<f32>().add(tap * PANEL + i % columns) };
            }
            if !first.bias.is_null() {
                // SAFETY: a bias for each column.
                bias[i] = unsafe { *first.bias.add(i % columns) };
            }
        }
        let vectors = self.rows.len() / pixels;
        let rest = !self.rows.len().is_multiple_of(pixels);
        let tile = |pixel: usize, count: usize| {
            let row = self.rows.start + pixel;
            let place = finish.in_registers([row, 0], columns).expect("as the first");
            let mut line = self.line(weights.as_ptr().cast(), pixel, [0, PANEL]);
            line.row_step = PANEL * 4;
            line.finish = Some(crate::epilogue::InRegisters {
                bias: bias.as_ptr(),
                columns: PANEL,
                output_stride: PANEL,
                ..place
            });
            // SAFETY: the caller's promise; as many pixels as vectors hold are in the line.
            unsafe { (self.micro.tile)(count, &line) };
            let size = [count * pixels, columns];
            finish.finish(&Block::new(std::ptr::null_mut(), [row, 0], size), true);
        };
        let mut done = 0;
        while done < vectors {
            let count = even(vectors - done, self.micro.rows);
            tile(done * pixels, count);
            done += count;
        }
        if rest {
            // Pixels that were computed already are computed again.
            tile(self.rows.len() - pixels, 1);
        }
        true
    }
}
