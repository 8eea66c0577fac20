//! Depthwise convolution of bytes and of bf16 where neighbours in a line of output read neighbouring
//! pixels: a column of pixels is read and interleaved once for all of a tile's pixels that it counts
//! in, and with steps of one pixel for two lines of output.

use std::ops::Range;

use half::bf16;

use crate::conv::{Across, Window};
use crate::epilogue::Block;
use crate::finish::{Finish, Movable, Sum};
use crate::gemm::Input;
use crate::isa::{self, Isa};
use crate::pack::PanelView;
use crate::tile::{Accumulators, BLOCK_STRIDE, TILE_ROWS, even};

/// Lines of the image that a tile reads at most: five taps, two lines of output.
pub(crate) const MOST_LINES: usize = 6;
/// Columns of the image that a tile reads at most: five taps, eight pixels two columns apart.
pub(crate) const MOST_COLUMNS: usize = 19;
/// Rows of accumulators between the two lines of output.
pub(crate) const LINE_ROWS: usize = TILE_ROWS / 2;
/// Channels of a tile whose sums go through memory.
const CHANNEL_BLOCK: usize = BLOCK_STRIDE;

/// A tile of neighbours in one line of output, or in two, by some channels; or several such tiles side
/// by side.
pub(crate) struct ColumnTile<A: Sum> {
    /// How many tiles.
    pub tiles: usize,
    /// Where each line of the image, or one of padding, has the tile's first column.
    pub sources: [*const u8; MOST_LINES],
    /// Bytes from there to each column.
    pub offsets: [usize; MOST_COLUMNS],
    /// The columns, counted from the tile's first, that are in the image.
    pub inside: Range<usize>,
    /// A line of padding.
    pub padding: *const u8,
    /// The panels of the tile's channels.
    pub weights: *const u8,
    pub panel_bytes: usize,
    pub channels: usize,
    /// For each line of output; its sums go to the accumulators where there is none.
    pub finish: [Option<A::InRegisters>; 2],
    /// Rows `BLOCK_STRIDE` apart, those of the second line from [`LINE_ROWS`] on.
    pub accumulators: *mut A,
}

impl<A: Sum> ColumnTile<A> {
    /// Goes on by so many pixels of output, `step` columns apart.
    fn advance(&mut self, pixels: usize, step: usize) {
        let columns = pixels * step;
        advance(&mut self.sources, &mut self.inside, columns, self.offsets[1]);
        self.finish.iter_mut().flatten().for_each(|finish| finish.below(pixels));
    }
}

/// Moves lines of the image, and the columns that are in it, so many columns of `pixel_bytes` on.
#[inline(always)]
fn advance(
    sources: &mut [*const u8; MOST_LINES],
    inside: &mut Range<usize>,
    columns: usize,
    pixel_bytes: usize,
) {
    for source in sources {
        *source = source.wrapping_add(columns * pixel_bytes);
    }
    *inside = inside.start.saturating_sub(columns)..inside.end.saturating_sub(columns);
}

/// Where one of the tiles side by side finds some channels of its columns.
pub(crate) struct Here {
    /// As in [`ColumnTile`].
    pub sources: [*const u8; MOST_LINES],
    pub inside: Range<usize>,
    pub padding: *const u8,
}

impl Here {
    /// The first tile, from a byte of its pixels on.
    #[inline(always)]
    pub fn of<A: Sum>(tile: &ColumnTile<A>, byte: usize) -> Self {
        Here {
            sources: tile.sources.map(|source| source.wrapping_add(byte)),
            inside: tile.inside.clone(),
            padding: tile.padding.wrapping_add(byte),
        }
    }

    /// So many columns further right.
    #[inline(always)]
    pub fn advance<A: Sum>(&mut self, tile: &ColumnTile<A>, columns: usize) {
        advance(&mut self.sources, &mut self.inside, columns, tile.offsets[1]);
    }
}

/// The kernels for one size of kernel and step.
pub(crate) struct MicroColumns<A: Sum> {
    /// Most pixels of a line in a tile.
    pub pixels: usize,
    /// Computes (pixels, lines of output, tile).
    pub tile: unsafe fn(usize, usize, &ColumnTile<A>),
}

/// How the lines of a convolution of `taps` by `taps` taps lie.
struct Lines {
    taps: usize,
    /// Columns between pixels of a line of output.
    step: usize,
    /// Pixels in a line of output.
    width: usize,
    /// Columns of padding before a line of the image, and columns of it.
    pad_before: usize,
    columns: usize,
    pixel_bytes: usize,
}

/// What stays the same while the tiles of a convolution are walked.
struct Walk<'a, A: Sum, F> {
    micro: MicroColumns<A>,
    lines: Lines,
    padding: *const u8,
    view: PanelView,
    finish: &'a F,
    accumulators: *mut A,
}

/// Some pixels of one line of output, or of two.
struct Part {
    /// The first pixel's row of the output.
    row: usize,
    /// Lines of output.
    count: usize,
    pixels: Range<usize>,
    /// Where each line of the image begins; `None` in the padding.
    from: [Option<*const u8>; MOST_LINES],
}

impl<A: Sum, F: Finish<A>> Walk<'_, A, F> {
    /// Computes a range of output pixels, numbered through the batch. `sources` gives the lines of
    /// the image for a line of output that begins with a row; `two` says whether the line below
    /// reads the same ones, one line further down, and which is the last.
    ///
    /// # Safety
    /// As [`crate::depthwise::depthwise_u8s8`].
    unsafe fn run(
        &mut self,
        rows: Range<usize>,
        sources: impl Fn(usize) -> [Option<*const u8>; MOST_LINES],
        two: impl Fn(usize) -> Option<Option<*const u8>>,
    ) {
        let width = self.lines.width;
        let mut row = rows.start;
        while row < rows.end {
            let x = row % width;
            let whole = x == 0 && rows.end - row >= 2 * width && self.lines.step == 1;
            let mut from = sources(row - x);
            let below = if whole { two(row) } else { None };
            let count = if let Some(last) = below {
                from[self.lines.taps] = last;
                2
            } else {
                1
            };
            let pixels = x..width.min(x + rows.end - row);
            let done = pixels.len() * count;
            // SAFETY: the caller's promise.
            unsafe { self.part(Part { row, count, pixels, from }) };
            row += done;
        }
    }

    /// # Safety
    /// As [`Self::run`].
    unsafe fn part(&mut self, part: Part) {
        let row = |line: usize| part.row + line * self.lines.width;
        let columns = self.view.columns;
        let in_registers = |line: usize| self.finish.in_registers([row(line), 0], columns);
        let mut tile = self.tile(&part, part.pixels.start, 0, columns);
        tile.finish = [in_registers(0), in_registers(part.count - 1)];
        let stored = tile.finish[0].is_some();
        let mut x = part.pixels.start;
        while x < part.pixels.end {
            let left = part.pixels.end - x;
            let most = if stored { self.micro.pixels } else { self.micro.pixels.min(LINE_ROWS) };
            let count = even(left, most);
            // SAFETY: the caller's promise; columns outside the image are padding.
            unsafe {
                if stored {
                    tile.tiles = left / count;
                    (self.micro.tile)(count, part.count, &tile);
                    tile.advance(count * tile.tiles, self.lines.step);
                    x += count * tile.tiles;
                } else {
                    self.through_memory(&part, x, count);
                    x += count;
                }
            }
        }
        for line in (0..part.count).filter(|_| stored) {
            let (place, size) = ([row(line), 0], [part.pixels.len(), columns]);
            self.finish.finish(&Block::new(self.accumulators, place, size), true);
        }
    }

    /// The tile of `count` pixels from `x` on, some channels at a time, whose sums become blocks.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn through_memory(&self, part: &Part, x: usize, count: usize) {
        let first = part.row + x - part.pixels.start;
        for channel in (0..self.view.columns).step_by(CHANNEL_BLOCK) {
            let channels = (self.view.columns - channel).min(CHANNEL_BLOCK);
            let tile = self.tile(part, x, channel, channels);
            // SAFETY: the caller's promise; columns outside the image are padding.
            unsafe { (self.micro.tile)(count, part.count, &tile) };
            for line in 0..part.count {
                let sums = self.accumulators.wrapping_add(line * LINE_ROWS * BLOCK_STRIDE);
                let place = [first + line * self.lines.width, channel];
                self.finish.finish(&Block::new(sums, place, [count, channels]), false);
            }
        }
    }

    /// The tile whose first pixel is in column `x` of the output.
    fn tile(&self, part: &Part, x: usize, channel: usize, channels: usize) -> ColumnTile<A> {
        let Lines { step, pad_before, columns, pixel_bytes, .. } = self.lines;
        let first = x * step;
        let channel_bytes = channel * A::ELEMENT_BYTES;
        let padding = self.padding.wrapping_add(channel_bytes);
        let mut sources = [padding; MOST_LINES];
        for (line, from) in part.from.iter().enumerate() {
            if let Some(from) = from {
                let from = from.wrapping_add(first * pixel_bytes + channel_bytes);
                sources[line] = from.wrapping_sub(pad_before * pixel_bytes);
            }
        }
        let panel_bytes = self.view.panel_bytes();
        ColumnTile {
            tiles: 1,
            sources,
            offsets: std::array::from_fn(|column| column * pixel_bytes),
            inside: pad_before.saturating_sub(first)..(pad_before + columns).saturating_sub(first),
            padding,
            weights: self.view.weights.wrapping_add(channel / 16 * panel_bytes),
            panel_bytes,
            channels,
            finish: [None; 2],
            accumulators: self.accumulators,
        }
    }
}

/// The kernels of bytes for a window, if there are any.
fn micro_bytes(isa: Isa, window: &Window) -> Option<MicroColumns<i32>> {
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

/// u8 × s8 sums of a convolution of images whose pixels are `pixel_stride` bytes apart, where there
/// are kernels for its window: otherwise gives false. Weights are `[panel][kernel column][group of
/// four kernel rows]` lines.
///
/// # Safety
/// As [`crate::depthwise::depthwise_u8s8`].
pub(crate) unsafe fn bytes(
    isa: Isa,
    (input, padding): (*const u8, *const u8),
    (window, pixel_stride): (&Window, usize),
    view: PanelView,
    rows: Range<usize>,
    finish: &impl Finish<i32>,
) -> bool {
    let Some(micro) = micro_bytes(isa, window) else { return false };
    let [height, width] = window.output().expect("packed for it");
    let taps = window.kernel[0];
    let line_bytes = window.input[1] * pixel_stride;
    let line = |row: usize, tap: usize| {
        let (image, y) = (row / width / height, row / width % height);
        let source = window.source(0, y, tap)?;
        Some(input.wrapping_add((image * window.input[0] + source) * line_bytes))
    };
    let sources = |row: usize| {
        let mut lines = [None; MOST_LINES];
        (0..taps).for_each(|tap| lines[tap] = line(row, tap));
        lines
    };
    let two = |row: usize| {
        let last = row / width % height + 1 == height;
        (!last).then(|| line(row + width, taps - 1))
    };
    let mut storage = Accumulators::<i32>::new();
    let lines = Lines {
        taps,
        step: window.stride[1],
        width,
        pad_before: window.pad_before[1],
        columns: window.input[1],
        pixel_bytes: pixel_stride,
    };
    let accumulators = storage.pointer();
    let mut walk = Walk { micro, lines, padding, view, finish, accumulators };
    // SAFETY: the caller's promise.
    unsafe { walk.run(rows, sources, two) };
    true
}

/// The kernels of bf16 for `taps` by `taps` taps and pixels `step` columns apart, if there are any.
fn micro_halves(isa: Isa, taps: usize, step: usize) -> Option<MicroColumns<f32>> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() && isa.has_bf16() {
        return isa::avx512::depthwise_halves::micro(taps, step);
    }
    let _ = (isa, taps, step);
    None
}

/// bf16 sums of a convolution with weights `[panel][tap][16]`, f32 that are values of bf16 (see
/// [`crate::pack::PackedF32::are_halves`]), where there are kernels for it: otherwise gives false. A pixel that is no finite number may make the
/// ones above and below it NaN.
///
/// # Safety
/// As [`crate::depthwise::depthwise_f32`].
pub(crate) unsafe fn halves(
    isa: Isa,
    input: &Input<bf16>,
    view: PanelView,
    rows: Range<usize>,
    finish: &impl Finish<f32>,
) -> bool {
    let Some(across) = input.rows.lines_across() else { return false };
    let Across { taps, width, ref inside, stride: step, pad_before, .. } = *across;
    let near = across.row_step == step * across.tap_step && !inside.is_empty();
    let Some(micro) = micro_halves(isa, taps, step).filter(|_| near && view.taps == taps * taps)
    else {
        return false;
    };
    let pixel_bytes = across.tap_step * size_of::<bf16>();
    // The first column of the line of the image that a line of taps reads.
    let line = |row: usize, tap: usize| {
        let offset = input.rows.line(row / width, tap)?;
        Some(input.base.wrapping_add(offset).cast::<u8>())
    };
    let sources = |row: usize| {
        let mut lines = [None; MOST_LINES];
        (0..taps).for_each(|tap| lines[tap] = line(row, tap));
        lines
    };
    let two = |row: usize| {
        let next = (1..taps).all(|tap| line(row, tap) == line(row + width, tap - 1));
        next.then(|| line(row + width, taps - 1))
    };
    let mut storage = Accumulators::<f32>::new();
    let columns = across.input;
    let lines = Lines { taps, step, width, pad_before, columns, pixel_bytes };
    let (padding, accumulators) = (input.padding.cast(), storage.pointer());
    let mut walk = Walk { micro, lines, padding, view, finish, accumulators };
    // SAFETY: the caller's promise.
    unsafe { walk.run(rows, sources, two) };
    true
}
