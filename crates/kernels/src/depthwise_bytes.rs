//! Integer depthwise convolution where neighbours in a line of output read neighbouring pixels: a
//! column of pixels is read and interleaved once for all of a tile's pixels that it counts in, and
//! with steps of one pixel for two lines of output.

use std::ops::Range;

use crate::conv::Window;
use crate::epilogue::{Block, Finish, Requantized};
use crate::isa::{self, Isa};
use crate::pack::PanelView;
use crate::tile::{Accumulators, BLOCK_STRIDE, TILE_ROWS, even};

/// Lines of the image that a tile reads at most: five taps, two lines of output.
pub(crate) const MOST_LINES: usize = 6;
/// Rows of accumulators between the two lines of output.
pub(crate) const LINE_ROWS: usize = TILE_ROWS / 2;
/// Channels of a tile whose sums go through memory.
const CHANNEL_BLOCK: usize = BLOCK_STRIDE;

/// A tile of neighbours in one line of output, or in two, by some channels.
pub(crate) struct ByteTile {
    /// Where each line of the image has the tile's first column, or a pixel of padding.
    pub sources: [*const u8; MOST_LINES],
    /// Bytes between columns; 0 where the line is padding.
    pub steps: [usize; MOST_LINES],
    /// The columns, counted from the tile's first, that are in the image.
    pub inside: Range<usize>,
    /// A pixel of padding.
    pub padding: *const u8,
    /// `[panel][kernel column][group of four kernel rows]` lines of 16 channels.
    pub weights: *const u8,
    pub panel_bytes: usize,
    pub channels: usize,
    /// For each line of output; its sums go to the accumulators where there is none.
    pub finish: [Option<Requantized>; 2],
    /// Rows `BLOCK_STRIDE` apart, those of the second line from [`LINE_ROWS`] on.
    pub accumulators: *mut i32,
}

impl ByteTile {
    /// Goes on by so many pixels of output, `step` columns apart.
    fn advance(&mut self, pixels: usize, step: usize) {
        let columns = pixels * step;
        for (source, step) in self.sources.iter_mut().zip(self.steps) {
            *source = source.wrapping_add(columns * step);
        }
        let Range { start, end } = &mut self.inside;
        (*start, *end) = (start.saturating_sub(columns), end.saturating_sub(columns));
        for finish in self.finish.iter_mut().flatten() {
            finish.output = finish.output.wrapping_add(pixels * finish.output_stride);
            finish.residual = finish.residual.wrapping_add(pixels * finish.residual_stride);
        }
    }
}

/// The kernels for one size of kernel and step.
#[derive(Clone, Copy)]
pub(crate) struct MicroDepthwiseBytes {
    /// Most pixels of a line at once.
    pub pixels: usize,
    /// Computes (pixels, lines of output, tile).
    pub tile: unsafe fn(usize, usize, &ByteTile),
}

/// The kernels for a window, if there are any.
fn micro(isa: Isa, window: &Window) -> Option<MicroDepthwiseBytes> {
    let [taps, across] = window.kernel;
    let [step, step_across] = window.stride;
    let square = taps == across && step == step_across && window.dilation == [1, 1];
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() && isa.has_vbmi() && square {
        return isa::avx512::depthwise_bytes::micro(taps, step);
    }
    let _ = (isa, square);
    None
}

/// What stays the same while the tiles of a convolution are walked.
pub(crate) struct Bytes<'a> {
    pub window: &'a Window,
    pub view: PanelView,
    pub input: *const u8,
    pub padding: *const u8,
    pub pixel_stride: usize,
}

/// Some pixels of one line of output, or of two.
#[derive(Clone)]
struct Part {
    image: usize,
    line: usize,
    lines: usize,
    pixels: Range<usize>,
}

impl Bytes<'_> {
    /// Computes a range of output pixels, numbered through the batch, where there are kernels for
    /// the window: otherwise gives false.
    ///
    /// # Safety
    /// As [`crate::depthwise::depthwise_u8s8`].
    pub unsafe fn run(&self, isa: Isa, rows: Range<usize>, finish: &impl Finish<i32>) -> bool {
        let Some(micro) = micro(isa, self.window) else { return false };
        let [height, width] = self.window.output().expect("packed for it");
        let mut storage = Accumulators::<i32>::new();
        let mut row = rows.start;
        while row < rows.end {
            let (line, x) = (row / width, row % width);
            let two = self.window.stride[0] == 1
                && x == 0
                && line % height + 1 < height
                && rows.end - row >= 2 * width;
            let lines = if two { 2 } else { 1 };
            let pixels = x..if two { width } else { width.min(x + rows.end - row) };
            let part = Part { image: line / height, line: line % height, lines, pixels };
            row += part.pixels.len() * lines;
            // SAFETY: the caller's promise.
            unsafe { self.part(micro, part, storage.pointer(), finish) };
        }
        true
    }

    /// # Safety
    /// As [`Self::run`].
    unsafe fn part(
        &self,
        micro: MicroDepthwiseBytes,
        part: Part,
        accumulators: *mut i32,
        finish: &impl Finish<i32>,
    ) {
        let [height, width] = self.window.output().expect("packed for it");
        let first_row = (part.image * height + part.line) * width;
        let row = |line: usize, x: usize| first_row + line * width + x;
        let columns = self.view.columns;
        let first = part.pixels.start;
        let in_registers = |line: usize| finish.in_registers([row(line, first), 0], columns);
        let mut tile = self.tile(&part, first, 0, columns);
        tile.finish = [in_registers(0), in_registers(part.lines - 1)];
        let stored = tile.finish[0].is_some();
        let mut x = first;
        while x < part.pixels.end {
            let count = even(part.pixels.end - x, micro.pixels);
            // SAFETY: the caller's promise; columns outside the image are padding.
            unsafe {
                if stored {
                    (micro.tile)(count, part.lines, &tile);
                    tile.advance(count, self.window.stride[1]);
                } else {
                    let place = (&part, row(0, x), x..x + count);
                    self.through_memory(micro, place, accumulators, finish);
                }
            }
            x += count;
        }
        for line in (0..part.lines).filter(|_| stored) {
            let (place, size) = ([row(line, first), 0], [part.pixels.len(), columns]);
            finish.finish(&Block::new(accumulators, place, size), true);
        }
    }

    /// The tile of these pixels, some channels at a time, whose sums become blocks; the first is in
    /// row `row` of the output.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn through_memory(
        &self,
        micro: MicroDepthwiseBytes,
        (part, row, pixels): (&Part, usize, Range<usize>),
        accumulators: *mut i32,
        finish: &impl Finish<i32>,
    ) {
        let [_, width] = self.window.output().expect("packed for it");
        for channel in (0..self.view.columns).step_by(CHANNEL_BLOCK) {
            let channels = (self.view.columns - channel).min(CHANNEL_BLOCK);
            let mut tile = self.tile(part, pixels.start, channel, channels);
            tile.accumulators = accumulators;
            // SAFETY: the caller's promise; columns outside the image are padding.
            unsafe { (micro.tile)(pixels.len(), part.lines, &tile) };
            for line in 0..part.lines {
                let sums = accumulators.wrapping_add(line * LINE_ROWS * BLOCK_STRIDE);
                let (place, size) = ([row + line * width, channel], [pixels.len(), channels]);
                finish.finish(&Block::new(sums, place, size), false);
            }
        }
    }

    /// The tile whose first pixel is in column `x` of the output.
    fn tile(&self, part: &Part, x: usize, channel: usize, channels: usize) -> ByteTile {
        let window = self.window;
        let [height, width] = window.input;
        let image = part.image * height * width * self.pixel_stride + channel;
        let first = x * window.stride[1];
        let before = window.pad_before[1];
        let (mut sources, mut steps) =
            ([self.padding.wrapping_add(channel); MOST_LINES], [0; MOST_LINES]);
        for line in 0..window.kernel[0] + part.lines - 1 {
            let at = part.line * window.stride[0] + line;
            let Some(y) = at.checked_sub(window.pad_before[0]).filter(|&y| y < height) else {
                continue;
            };
            let start = image + y * width * self.pixel_stride + first * self.pixel_stride;
            let left = before * self.pixel_stride;
            sources[line] = self.input.wrapping_add(start).wrapping_sub(left);
            steps[line] = self.pixel_stride;
        }
        ByteTile {
            sources,
            steps,
            inside: before.saturating_sub(first)..(before + width).saturating_sub(first),
            padding: self.padding.wrapping_add(channel),
            weights: self.view.weights.wrapping_add(channel / 16 * self.view.panel_bytes()),
            panel_bytes: self.view.panel_bytes(),
            channels,
            finish: [None; 2],
            accumulators: std::ptr::null_mut(),
        }
    }
}
