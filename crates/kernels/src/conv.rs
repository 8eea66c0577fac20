//! Where a convolution reads: windows, and the indirection that turns them into matrix products.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::offsets::{Offsets, PADDING};
use crate::panel::PixelLine;

/// Why a geometry cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// Offsets inside one image must fit 31 bits.
    #[error("an image of {elements} elements is larger than the 2^31 - 1 a kernel can address")]
    ImageTooLarge {
        /// Elements spanned by one image.
        elements: usize,
    },
    /// The kernel, stride or dilation has a zero, or the padded input is smaller than the kernel.
    #[error("the window {window:?} has no output")]
    NoOutput {
        /// The window as asked for.
        window: Window,
    },
    /// The kernel has more rows or columns than a depthwise kernel can hold.
    #[error("a depthwise kernel of {kernel:?} taps is larger than 16 by 16; use a grouped one")]
    KernelTooLarge {
        /// Taps down and across.
        kernel: [usize; 2],
    },
}

/// A two-dimensional sliding window over NHWC images; `[height, width]` throughout. A
/// one-dimensional window has height 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Input pixels.
    pub input: [usize; 2],
    /// Kernel extent in taps.
    pub kernel: [usize; 2],
    /// Distance between outputs in input pixels.
    pub stride: [usize; 2],
    /// Distance between taps in input pixels.
    pub dilation: [usize; 2],
    /// Padding above and to the left.
    pub pad_before: [usize; 2],
    /// Padding below and to the right.
    pub pad_after: [usize; 2],
}

impl Window {
    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Output pixels, or `None` if there are none.
    pub fn output(&self) -> Option<[usize; 2]> {
        let mut output = [0; 2];
        for (axis, output) in output.iter_mut().enumerate() {
            let reach = self.kernel[axis].checked_sub(1)?.checked_mul(self.dilation[axis])? + 1;
            let padded = self.input[axis] + self.pad_before[axis] + self.pad_after[axis];
            if self.stride[axis] == 0 || self.dilation[axis] == 0 || self.input[axis] == 0 {
                return None;
            }
            *output = padded.checked_sub(reach)? / self.stride[axis] + 1;
        }
        Some(output)
    }

    /// Input coordinate of `tap` for `output` along `axis`; `None` in the padding.
    pub fn source(&self, axis: usize, output: usize, tap: usize) -> Option<usize> {
        (output * self.stride[axis] + tap * self.dilation[axis])
            .checked_sub(self.pad_before[axis])
            .filter(|&at| at < self.input[axis])
    }

    /// True if every output pixel is the input pixel of the same index.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1]
            && self.stride == [1, 1]
            && self.pad_before == [0, 0]
            && self.pad_after == [0, 0]
    }
}

#[derive(Clone, Debug)]
enum Rows {
    /// One tap; row r starts at r · stride.
    Strided(usize),
    Window(Offsets),
}

/// For each output row and tap, where its input elements start: relative to the input's first
/// element, so it is built once per shape and serves every run and every image of a batch.
///
/// A *row* is one output pixel; rows are numbered through the images of a batch.
#[derive(Clone, Debug)]
pub struct Indirection {
    rows: Rows,
    taps: usize,
    rows_per_image: usize,
    image_stride: usize,
    /// Where neighbouring rows share pixels.
    shared: Option<SharedPixels>,
    /// Taps in a line of the kernel, and elements between pixels, where taps are neighbours.
    line_taps: Option<[usize; 2]>,
    /// Where lines of output lie evenly.
    across: Option<Across>,
}

/// How neighbouring rows of a line of output share the pixels of three taps across.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedPixels {
    /// Output pixels in a line.
    pub width: usize,
    /// Pixels from a row to the next, 1 or 2.
    pub step: usize,
    /// True where the first row's first pixel is beside the image.
    pad_left: bool,
    /// True where the last row's last pixel is.
    pad_right: bool,
}

/// How rows and taps of a line of output lie, where every one is inside the image.
#[derive(Clone, Debug)]
pub(crate) struct Across {
    /// Output pixels in a line.
    pub width: usize,
    /// Those of them whose taps are all inside, but for whole lines of taps.
    pub inside: Range<usize>,
    /// Taps in a line of the kernel.
    pub taps: usize,
    /// Elements between rows, between taps, and between pixels.
    pub row_step: usize,
    pub tap_step: usize,
    pub pixel_step: usize,
    pub stride: usize,
    dilation: usize,
    pub pad_before: usize,
    /// Input pixels in a line.
    pub input: usize,
}

impl Across {
    fn of(window: &Window, pixel_stride: usize) -> Self {
        let [_, step] = window.stride;
        let reach = (window.kernel[1] - 1) * window.dilation[1];
        let width = window.output().map_or(0, |[_, width]| width);
        let first = window.pad_before[1].div_ceil(step);
        let end = (window.input[1] + window.pad_before[1]).saturating_sub(reach).div_ceil(step);
        Across {
            width,
            inside: first..end.min(width).max(first),
            taps: window.kernel[1],
            row_step: step * pixel_stride,
            tap_step: window.dilation[1] * pixel_stride,
            pixel_step: pixel_stride,
            stride: step,
            dilation: window.dilation[1],
            pad_before: window.pad_before[1],
            input: window.input[1],
        }
    }

    /// Pixels of the taps of a row that are beside the image at most, at either end of a line, where
    /// taps are neighbours.
    pub fn most_beside(&self) -> Option<usize> {
        let reach = (self.width.max(1) - 1) * self.stride + self.taps;
        let after = reach.saturating_sub(self.pad_before + self.input);
        (self.dilation == 1).then_some(self.pad_before.max(after))
    }

    /// Taps of a line of taps that are inside the image for a pixel.
    pub fn taps_inside(&self, pixel: usize) -> Range<usize> {
        let at = pixel * self.stride;
        let first = self.pad_before.saturating_sub(at).div_ceil(self.dilation).min(self.taps);
        let end = (self.input + self.pad_before).saturating_sub(at).div_ceil(self.dilation);
        first..end.min(self.taps).max(first)
    }
}

impl Indirection {
    /// Plain matrix rows, `row_stride` elements apart.
    pub fn strided(row_stride: usize) -> Self {
        Indirection {
            rows: Rows::Strided(row_stride),
            taps: 1,
            rows_per_image: usize::MAX,
            image_stride: 0,
            shared: None,
            line_taps: None,
            across: None,
        }
    }

    /// The rows of a convolution over NHWC images whose pixels are `pixel_stride` elements apart
    /// (the channels of the whole tensor, of which a group may be a part). Taps run row by row.
    ///
    /// # Errors
    /// If the window has no output or an image is too large.
    pub fn window(window: &Window, pixel_stride: usize) -> Result<Self, GeometryError> {
        if window.is_pointwise() {
            return Ok(Self::strided(pixel_stride));
        }
        let mut rows = Self::ring(window, pixel_stride, window.input[0])?;
        rows.image_stride = window.input[0] * window.input[1] * pixel_stride;
        let [_, width] = window.output().expect("it has rows");
        let step = window.stride[1];
        let shares = (window.kernel[1], window.dilation[1]) == (3, 1) && step <= 2;
        // At most one pixel of a line of three taps is beside the image.
        let reach = (width - 1) * step + 2;
        let shares = shares && window.pad_before[1] <= 1;
        let shares = shares && reach <= window.input[1] + window.pad_before[1];
        rows.shared = shares.then_some(SharedPixels {
            width,
            step,
            pad_left: window.pad_before[1] == 1,
            pad_right: reach == window.input[1] + window.pad_before[1],
        });
        let narrow = window.kernel[1] <= 16;
        rows.line_taps =
            (narrow && window.dilation[1] == 1).then_some([window.kernel[1], pixel_stride]);
        Ok(rows)
    }

    /// The same for one image of which `kept` lines are there at a time: each lies where the one so
    /// many before it lay.
    ///
    /// # Errors
    /// Those of [`Indirection::window`].
    pub fn ring(window: &Window, pixel_stride: usize, kept: usize) -> Result<Self, GeometryError> {
        let offsets = Offsets::of(window, pixel_stride, kept)?;
        Ok(Indirection {
            rows_per_image: offsets.rows(),
            rows: Rows::Window(offsets),
            taps: window.taps(),
            image_stride: 0,
            shared: None,
            line_taps: None,
            across: Some(Across::of(window, pixel_stride)),
        })
    }

    /// How lines of output lie, if evenly.
    pub(crate) fn lines_across(&self) -> Option<&Across> {
        self.across.as_ref()
    }

    /// Elements from the first image to the line of an image that a line of taps meets for a line of
    /// output; `None` in the padding. Lines are numbered through the images.
    pub(crate) fn line(&self, line: usize, taps: usize) -> Option<usize> {
        let Rows::Window(offsets) = &self.rows else { unreachable!("lines of a window") };
        let height = offsets.output[0];
        let (image, line) = if line < height { (0, line) } else { (line / height, line % height) };
        Some(image * self.image_stride + offsets.line(line, taps)?)
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Taps of a line of the kernel, where those of `depth` elements lie one behind the other;
    /// otherwise 1.
    pub(crate) fn line_of_taps(&self, depth: usize) -> usize {
        self.line_taps.filter(|&[_, stride]| stride == depth).map_or(1, |[taps, _]| taps)
    }

    /// Where a line of output and of three taps reads neighbouring pixels.
    pub(crate) fn shared(&self) -> Option<SharedPixels> {
        self.shared
    }

    /// The pixels that lines of three taps read for `count` neighbours in a line of output, of
    /// which `row` is the `x`th.
    #[inline]
    pub(crate) fn pixel_lines<T>(
        &self,
        base: *const T,
        padding: *const T,
        [row, x]: [usize; 2],
        count: usize,
        lines: &mut [MaybeUninit<PixelLine>],
    ) {
        let (Rows::Window(offsets), Some(across), Some(shared)) =
            (&self.rows, &self.across, self.shared)
        else {
            unreachable!("rows that share pixels")
        };
        let table = offsets.table();
        let (mut image, mut row) = (base.expose_provenance(), row);
        if row >= self.rows_per_image {
            image += row / self.rows_per_image * self.image_stride * size_of::<T>();
            row %= self.rows_per_image;
        }
        let (step, padding) = (across.tap_step * size_of::<T>(), padding.expose_provenance());
        let pad_left = shared.pad_left && x == 0;
        let pad_right = shared.pad_right && x + count == shared.width;
        let to_right = (shared.step * (count - 1) + 1) * step;
        for (i, line) in lines.iter_mut().enumerate() {
            line.write(match table[(3 * i + 1) * self.rows_per_image + row] {
                PADDING => PixelLine { left: padding, second: padding, right: padding, step: 0 },
                offset => {
                    let second = image + offset as usize * size_of::<T>();
                    let left = if pad_left { padding } else { second - step };
                    let right = if pad_right { padding } else { second + to_right };
                    PixelLine { left, second, right, step }
                }
            });
        }
    }

    /// Copies `CHANNELS` bytes of each tap of rows of bytes to one run a row, `pitch` apart.
    ///
    /// # Safety
    /// Every tap of the rows is readable, from `padding` where it is in the padding; `to` is
    /// writable for all rows and for [`LINE_BYTES`](crate::offsets::LINE_BYTES) more, whose contents are lost.
    pub(crate) unsafe fn gather<const CHANNELS: usize>(
        &self,
        base: *const u8,
        padding: *const u8,
        rows: Range<usize>,
        to: *mut u8,
        pitch: usize,
    ) {
        let (mut image, mut row) =
            (rows.start / self.rows_per_image, rows.start % self.rows_per_image);
        for i in 0..rows.len() {
            // SAFETY: the caller's promise.
            unsafe {
                let base = base.wrapping_add(image * self.image_stride);
                self.gather_row::<CHANNELS>(base, padding, row, to.add(i * pitch));
            }
            row += 1;
            if row == self.rows_per_image {
                (image, row) = (image + 1, 0);
            }
        }
    }

    /// # Safety
    /// As [`Indirection::gather`], for one row of the image at `base`.
    #[inline(always)]
    unsafe fn gather_row<const CHANNELS: usize>(
        &self,
        base: *const u8,
        padding: *const u8,
        row: usize,
        to: *mut u8,
    ) {
        let Rows::Window(offsets) = &self.rows else { unreachable!("merged taps") };
        let table = offsets.table();
        let (line_taps, flags) = match offsets.runs().filter(|runs| runs.pixel_stride == CHANNELS) {
            Some(runs) => (runs.taps, runs.whole.as_slice()),
            None => (self.taps, &[][..]),
        };
        let (mut first, mut place) = (0, row);
        while first < self.taps {
            // SAFETY: whole lines are followed by enough bytes of their image; taps as promised.
            unsafe {
                let to = to.add(first * CHANNELS);
                if flags.get(place) == Some(&true) {
                    let from = base.offset(table[first * self.rows_per_image + row] as isize);
                    to.cast::<[u8; 16]>().write(from.cast::<[u8; 16]>().read());
                    if line_taps * CHANNELS > 16 {
                        to.add(16).cast::<[u8; 16]>().write(from.add(16).cast::<[u8; 16]>().read());
                    }
                } else {
                    for tap in 0..line_taps {
                        let from = match table[(first + tap) * self.rows_per_image + row] {
                            PADDING => padding,
                            offset => base.offset(offset as isize),
                        };
                        let bytes = from.cast::<[u8; CHANNELS]>().read();
                        to.add(tap * CHANNELS).cast::<[u8; CHANNELS]>().write(bytes);
                    }
                }
            }
            first += line_taps;
            place += self.rows_per_image;
        }
    }

    /// True if plain rows of `bytes`-byte elements start on the same sets of an L1 cache, so that a
    /// tall tile of them evicts itself: multiples of 4 KiB.
    pub(crate) fn rows_collide(&self, bytes: usize) -> bool {
        matches!(self.rows, Rows::Strided(stride) if stride > 0 && (stride * bytes).is_multiple_of(4096))
    }

    /// Elements between rows that lie evenly.
    pub(crate) fn stride(&self) -> Option<usize> {
        match self.rows {
            Rows::Strided(stride) => Some(stride),
            Rows::Window(_) => None,
        }
    }

    /// Output rows per image; `None` if rows are not bound to images.
    pub fn rows_per_image(&self) -> Option<usize> {
        matches!(self.rows, Rows::Window(_)).then_some(self.rows_per_image)
    }

    /// Writes the addresses of rows `row..row + count` for `taps`, each tap `pitch` entries apart.
    ///
    /// # Safety
    /// `addresses` has room for `taps.len()` runs of `pitch ≥ count` entries (rounded up to 8);
    /// rows and taps are inside the geometry.
    pub(crate) unsafe fn resolve<T>(
        &self,
        resolver: Resolver,
        base: *const T,
        padding: *const T,
        row: usize,
        count: usize,
        taps: Range<usize>,
        addresses: *mut usize,
        pitch: usize,
    ) {
        let base = base.expose_provenance();
        let padding = padding.expose_provenance();
        let size = size_of::<T>();
        let table = match &self.rows {
            Rows::Strided(stride) => {
                for r in 0..count {
                    // SAFETY: r < count ≤ pitch.
                    unsafe { *addresses.add(r) = base + (row + r) * stride * size };
                }
                return;
            }
            Rows::Window(offsets) => offsets.table(),
        };
        let mut done = 0;
        while done < count {
            let (image, first) =
                ((row + done) / self.rows_per_image, (row + done) % self.rows_per_image);
            let run = (count - done).min(self.rows_per_image - first);
            let base = base + image * self.image_stride * size;
            let batch = OffsetBatch {
                offsets: &table[taps.start * self.rows_per_image + first..],
                tap_stride: self.rows_per_image,
                taps: taps.len(),
                rows: run,
                base,
                padding,
                shift: size.trailing_zeros(),
                pitch,
                whole: done == 0,
            };
            // SAFETY: done + run ≤ count entries of each tap are within the room promised.
            unsafe { resolver(&batch, addresses.add(done)) };
            done += run;
        }
    }
}

/// Offsets of neighbouring rows of one image to turn into addresses.
pub(crate) struct OffsetBatch<'a> {
    /// From the first row of the first tap on.
    pub offsets: &'a [i32],
    /// Distance between taps in `offsets`.
    pub tap_stride: usize,
    pub taps: usize,
    pub rows: usize,
    /// Address of the image.
    pub base: usize,
    /// Address of the padding row.
    pub padding: usize,
    /// Elements have `1 << shift` bytes.
    pub shift: u32,
    /// Distance between taps in the result.
    pub pitch: usize,
    /// Every eight rows begun may be written: masked stores keep what is read next waiting.
    pub whole: bool,
}

/// Writes a batch's addresses, `[tap][pitch]`.
pub(crate) type Resolver = unsafe fn(&OffsetBatch, *mut usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_images() {
        let window = Window {
            input: [2, 2],
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pad_before: [1, 1],
            pad_after: [1, 1],
        };
        assert_eq!(window.output(), Some([2, 2]));
        let rows = Indirection::window(&window, 5).unwrap();
        assert_eq!((rows.taps(), rows.rows_per_image()), (9, Some(4)));
        let Rows::Window(offsets) = &rows.rows else { panic!("a window") };
        let table = offsets.table();
        assert_eq!(table[..4], [PADDING, PADDING, PADDING, 0]);
        assert_eq!(table[16..20], [0, 5, 10, 15]);
    }
}
