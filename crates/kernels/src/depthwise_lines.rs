//! Depthwise convolution in f32 of fewer channels than a vector holds: several pixels of a line share
//! one.

use std::ops::Range;

use crate::conv::Across;
use crate::depthwise::{DepthwiseLine, MicroDepthwiseLine};
use crate::epilogue::Block;
use crate::finish::{Finish, InRegisters};
use crate::gemm::Input;
use crate::pack::{PANEL, PanelView};
use crate::tile::even;

/// Most lines of taps that are walked.
pub(crate) const MOST_LINES: usize = 16;
/// Most taps in a line of them.
const MOST_ACROSS: usize = 16;
/// Most taps of weights that are spread over the pixels of a vector.
const MOST_TAPS: usize = 64;

/// Pixels of a line of output, and where they read.
pub(crate) struct OutputLine<'a> {
    /// Of each line of taps inside the image, where its first tap would be for the first pixel of
    /// the line (which may be before the image), and the number of that tap.
    pub lines: &'a [(usize, usize)],
    /// Number of the line's first row.
    pub first_row: usize,
    pub pixels: Range<usize>,
}

/// Hands out the lines of output that `rows` are in, of a window of `taps` taps.
pub(crate) fn lines_of_output<T>(
    across: &Across,
    taps: usize,
    input: &Input<T>,
    rows: Range<usize>,
    mut each: impl FnMut(&OutputLine),
) {
    let before = across.pad_before * across.pixel_step * size_of::<T>();
    let mut row = rows.start;
    while row < rows.end {
        let line = row / across.width;
        let first_row = line * across.width;
        let end = rows.end.min(first_row + across.width);
        let mut lines = [(0, 0); MOST_LINES];
        let mut count = 0;
        for (tap_line, tap) in (0..taps).step_by(across.taps).enumerate() {
            if let Some(offset) = input.rows.line(line, tap_line) {
                let address = input.base.wrapping_add(offset).expose_provenance();
                lines[count] = (address.wrapping_sub(before), tap);
                count += 1;
            }
        }
        let (lines, pixels) = (&lines[..count], row - first_row..end - first_row);
        each(&OutputLine { lines, first_row, pixels });
        row = end;
    }
}

/// A line of output that is being computed.
pub(crate) struct LineCall<'a, F> {
    micro: &'static MicroDepthwiseLine,
    across: &'a Across,
    packed: &'a Packed,
    finish: &'a F,
    first_row: usize,
    /// Moved along the line: what is copied as a whole a moment after its parts were written waits
    /// for them.
    call: DepthwiseLine<'a>,
    /// Where the line's first pixel goes.
    output: *mut f32,
}

impl<'a, F: Finish<f32>> LineCall<'a, F> {
    pub fn new(
        micro: &'static MicroDepthwiseLine,
        across: &'a Across,
        line: &OutputLine<'a>,
        packed: &'a Packed,
        finish: &'a F,
    ) -> Self {
        let columns = PANEL / packed.pixels;
        let place = finish.in_registers([line.first_row, 0], columns);
        let place = place.expect("as was asked for `Packed`");
        let bias = packed.bias.as_ptr();
        let call = DepthwiseLine {
            lines: line.lines,
            offset: 0,
            taps: across.taps,
            tap_step: across.tap_step * 4,
            row_step: PANEL * 4,
            ends: [ALL.as_ptr(); 2],
            weights: packed.weights.as_ptr().cast(),
            finish: InRegisters { bias, columns: PANEL, output_stride: PANEL, ..place },
        };
        let (first_row, output) = (line.first_row, place.output);
        LineCall { micro, across, packed, finish, first_row, call, output }
    }

    /// All channels of these pixels of the line.
    ///
    /// # Safety
    /// Rows are readable; `finish` may take the rows.
    pub unsafe fn run(&mut self, pixels: Range<usize>) {
        let Range { start, end } = pixels;
        let vector = self.packed.pixels;
        // SAFETY: the caller's promise.
        unsafe {
            if end - start < vector {
                return self.alone(start..end);
            }
            let mut pixel = start;
            while pixel + vector <= end {
                pixel += vector * self.vectors(pixel, end);
            }
            if pixel < end {
                // Pixels that were computed already are computed again.
                self.vectors(end - vector, end);
            }
        }
    }

    /// Vectors of pixels before `end`, of which all but the first and the last have all of their
    /// taps inside; gives how many.
    ///
    /// # Safety
    /// As [`LineCall::run`].
    unsafe fn vectors(&mut self, pixel: usize, end: usize) -> usize {
        let (vector, inside) = (self.packed.pixels, &self.across.inside);
        let second = pixel + vector;
        let whole = inside.end.min(end).saturating_sub(second) / vector;
        let more = if second < inside.start { 0 } else { (whole + 1).min((end - second) / vector) };
        let count = even(1 + more, self.micro.rows);
        let last = pixel + (count - 1) * vector;
        let mut rooms = [[0; MOST_ACROSS]; 2];
        let [first_room, last_room] = &mut rooms;
        self.call.ends = [
            self.packed.masks(self.across, pixel, first_room),
            self.packed.masks(self.across, last, last_room),
        ];
        self.place(pixel);
        // SAFETY: the caller's promise; masks leave out what is beside the image.
        unsafe { (self.micro.tile)(count, &self.call) };
        self.finished(pixel, count * vector);
        count
    }

    /// Pixels one by one, of whose taps some may be beside the image.
    ///
    /// # Safety
    /// As [`LineCall::run`].
    unsafe fn alone(&mut self, pixels: Range<usize>) {
        let columns = PANEL / self.packed.pixels;
        let channels: Masks = [(1 << columns) - 1; MOST_ACROSS];
        for pixel in pixels {
            let taps = self.across.taps_inside(pixel);
            let mut lines = [(0, 0); MOST_LINES];
            for (to, &(address, tap)) in lines.iter_mut().zip(self.call.lines) {
                let beside = taps.start * self.across.tap_step * 4;
                *to = (address.wrapping_add(beside), tap + taps.start);
            }
            self.place(pixel);
            let finish = InRegisters { columns, output_stride: columns, ..self.call.finish };
            let call = DepthwiseLine {
                lines: &lines[..self.call.lines.len()],
                taps: taps.len(),
                row_step: columns * 4,
                ends: [channels.as_ptr(); 2],
                finish,
                ..self.call
            };
            // SAFETY: the caller's promise; taps are inside the image.
            unsafe { (self.micro.tile)(1, &call) };
            self.finished(pixel, 1);
        }
    }

    /// Moves the call to a pixel.
    fn place(&mut self, pixel: usize) {
        self.call.offset = pixel * self.across.row_step * 4;
        self.call.finish.output = self.output.wrapping_add(pixel * self.across.row_step);
    }

    /// What is left to do with so many pixels from one on.
    fn finished(&self, pixel: usize, pixels: usize) {
        let size = [pixels, PANEL / self.packed.pixels];
        let block = Block::new(std::ptr::null_mut(), [self.first_row + pixel, 0], size);
        self.finish.finish(&block, true);
    }
}

/// Weights and bias of several pixels in a vector.
pub(crate) struct Packed {
    pixels: usize,
    weights: [[f32; PANEL]; MOST_TAPS],
    bias: [f32; PANEL],
    /// For the first vector of a line and for the last.
    edges: [Masks; 2],
}

/// The floats of a vector of pixels that count, tap by tap across.
type Masks = [u16; MOST_ACROSS];

/// Those of a vector all of whose taps are inside.
static ALL: Masks = [u16::MAX; MOST_ACROSS];

impl Packed {
    /// `None` where a vector does not hold several pixels that lie one behind the other.
    ///
    /// # Safety
    /// The weights and the epilogue's bias are readable.
    pub unsafe fn of(view: &PanelView, across: &Across, finish: &impl Finish<f32>) -> Option<Self> {
        let columns = view.columns;
        if !matches!(columns, 2 | 4 | 8)
            || across.row_step != columns
            || view.taps > MOST_TAPS
            || across.taps > MOST_ACROSS
        {
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
            edges: [[0; MOST_ACROSS]; 2],
        };
        let last = across.width.saturating_sub(packed.pixels);
        packed.edges = [0, last].map(|pixel| packed.found_masks(across, pixel));
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

    /// The masks of the vector that begins at a pixel, found in the room if nobody knows them.
    fn masks(&self, across: &Across, pixel: usize, room: &mut Masks) -> *const u16 {
        let end = pixel + self.pixels;
        match pixel {
            0 => self.edges[0].as_ptr(),
            _ if end == across.width => self.edges[1].as_ptr(),
            _ if pixel >= across.inside.start && end <= across.inside.end => ALL.as_ptr(),
            _ => {
                *room = self.found_masks(across, pixel);
                room.as_ptr()
            }
        }
    }

    fn found_masks(&self, across: &Across, pixel: usize) -> Masks {
        let mut masks = [0; MOST_ACROSS];
        let channels = PANEL / self.pixels;
        for i in 0..self.pixels.min(across.width - pixel) {
            for tap in across.taps_inside(pixel + i) {
                masks[tap] |= ((1 << channels) - 1) << (i * channels);
            }
        }
        masks
    }
}
