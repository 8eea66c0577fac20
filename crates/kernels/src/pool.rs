//! Pooling over NHWC images: maximum and average, of f32 and of quantised bytes, and of bf16.
//!
//! A global pool is a window as large as the image; a one-dimensional pool has height 1.

use crate::quantize::{Byte, Rounding, load_bytes, store_bytes};
use crate::real::{Real, load_real, store_real};
use crate::vector::{Vector, vectorised, whole_vector};
use std::ops::Range;

/// One spatial axis of a pool, in pixels. With ceil mode only `output` grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolAxis {
    /// Pixels of the input.
    pub input: usize,
    /// Pixels of the output.
    pub output: usize,
    /// Taps of the window, at least 1.
    pub kernel: usize,
    /// Input pixels between windows, at least 1.
    pub stride: usize,
    /// Input pixels between taps, at least 1.
    pub dilation: usize,
    /// Pixels of padding before the first.
    pub padding_before: usize,
    /// Pixels of padding after the last.
    pub padding_after: usize,
}

impl PoolAxis {
    /// The axis of a global pool.
    pub fn global(input: usize) -> Self {
        Self {
            input,
            output: 1,
            kernel: input.max(1),
            stride: 1,
            dilation: 1,
            padding_before: 0,
            padding_after: 0,
        }
    }

    /// The taps of a window whose position, shifted by `before`, lies below `end`.
    fn taps(&self, window: usize, before: usize, end: usize) -> Range<usize> {
        let start = window * self.stride;
        let first = before.saturating_sub(start).div_ceil(self.dilation);
        let limit = (end + before).saturating_sub(start).div_ceil(self.dilation);
        first.min(self.kernel)..limit.min(self.kernel).max(first.min(self.kernel))
    }

    /// The taps inside the image.
    fn inside(&self, window: usize) -> Range<usize> {
        let end = self.padding_before + self.input;
        match window * self.stride >= self.padding_before && self.is_whole(window, end) {
            true => 0..self.kernel,
            false => self.taps(window, self.padding_before, self.input),
        }
    }

    /// How many taps lie inside the padded image.
    fn padded(&self, window: usize) -> usize {
        let padded = self.padding_before + self.input + self.padding_after;
        match self.is_whole(window, padded) {
            true => self.kernel,
            false => self.taps(window, 0, padded).len(),
        }
    }

    /// True where a window ends before `end`, counted from the padding's first pixel. Most do, and
    /// need none of the divisions of [`Self::taps`].
    fn is_whole(&self, window: usize, end: usize) -> bool {
        window * self.stride + (self.kernel - 1) * self.dilation < end
    }

    /// The input pixel of a tap inside the image.
    fn pixel(&self, window: usize, tap: usize) -> usize {
        window * self.stride + tap * self.dilation - self.padding_before
    }
}

/// The geometry of a pool over an image of H × W × C, or over some channels of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The vertical axis.
    pub height: PoolAxis,
    /// The horizontal axis.
    pub width: PoolAxis,
    /// Channels.
    pub channels: usize,
    /// Elements from a pixel of the input to the next: its channels, or those of the image they are of.
    pub pixel: usize,
}

impl Pool {
    /// A pool of all channels of an image.
    pub fn new(height: PoolAxis, width: PoolAxis, channels: usize) -> Self {
        Pool { height, width, channels, pixel: channels }
    }

    /// The pool of some of the channels: its input begins with the first of these.
    pub fn of_channels(&self, count: usize) -> Self {
        Pool { channels: count, ..*self }
    }

    /// Elements of one input image.
    pub fn input_len(&self) -> usize {
        self.height.input * self.width.input * self.pixel
    }

    /// Elements of one output row.
    pub fn row_len(&self) -> usize {
        self.width.output * self.channels
    }

    /// The taps of an output pixel of a row that counts through all images of the batch.
    fn taps(&self, row: usize, x: usize) -> Taps {
        let (height, width) = (&self.height, &self.width);
        let (image, y) = (row / height.output, row % height.output);
        let (vertical, horizontal) = (height.inside(y), width.inside(x));
        let mut taps = Taps {
            first: 0,
            rows: 0,
            columns: 0,
            row_stride: height.dilation * width.input * self.pixel,
            column_stride: width.dilation * self.pixel,
            padded: height.padded(y) * width.padded(x),
        };
        if !vertical.is_empty() && !horizontal.is_empty() {
            let pixel =
                height.pixel(y, vertical.start) * width.input + width.pixel(x, horizontal.start);
            taps.first = image * self.input_len() + pixel * self.pixel;
            (taps.rows, taps.columns) = (vertical.len(), horizontal.len());
        }
        taps
    }

    /// Asserts what makes unchecked access for the rows sound.
    fn check(&self, rows: &Range<usize>, input: usize, output: usize) {
        let axes = [&self.height, &self.width];
        assert!(axes.iter().all(|a| a.kernel > 0 && a.stride > 0 && a.dilation > 0), "no zeros");
        if rows.is_empty() || self.row_len() == 0 {
            assert_eq!(output, 0, "the output holds the rows");
            return;
        }
        let images = rows.end.div_ceil(self.height.output.max(1));
        let unread = self.pixel.checked_sub(self.channels).expect("channels of a pixel");
        let read = (images * self.input_len()).saturating_sub(unread);
        assert!(read <= input, "the input holds the images of the rows");
        assert_eq!(rows.len() * self.row_len(), output, "the output holds the rows");
    }
}

/// Where the taps of one window that lie inside the image are, for channel 0.
struct Taps {
    first: usize,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    padded: usize,
}

impl Taps {
    /// What an average divides by.
    fn count(&self, include_padding: bool) -> usize {
        if include_padding { self.padded } else { self.rows * self.columns }
    }
}

/// How the taps of a window are gathered, lane by lane. Offsets are in elements; `count` lanes
/// matter where fewer than `LANES` are left.
trait Gather<V: Vector>: Copy {
    type Sum: Copy;
    fn start(self) -> Self::Sum;
    /// # Safety
    /// The input must be readable there.
    unsafe fn step(self, sum: Self::Sum, input: usize, count: usize) -> Self::Sum;
    /// # Safety
    /// The output must be writable there.
    unsafe fn finish(self, taps: &Taps, sum: Self::Sum, output: usize, count: usize);
}

/// Vectors of channels kept in registers at a time.
const BLOCK: usize = 4;

/// Gathers the taps of every window, channel by channel.
///
/// # Safety
/// `pool.check` must have passed for the slices of `gather`.
#[inline(always)]
unsafe fn pool_any<V: Vector, G: Gather<V>>(pool: &Pool, rows: Range<usize>, gather: G) {
    for (i, row) in rows.enumerate() {
        for x in 0..pool.width.output {
            let taps = pool.taps(row, x);
            let output = (i * pool.width.output + x) * pool.channels;
            let mut channel = 0;
            // SAFETY: as promised by the caller.
            unsafe {
                while channel + BLOCK * V::LANES <= pool.channels {
                    window::<V, G, BLOCK>(gather, &taps, channel, V::LANES, output + channel);
                    channel += BLOCK * V::LANES;
                }
                while channel < pool.channels {
                    let (first, left) = whole_vector::<V>(channel, pool.channels);
                    window::<V, G, 1>(gather, &taps, first, left, output + first);
                    channel += V::LANES;
                }
            }
        }
    }
}

/// `N` vectors of channels of one window; `count` lanes of each matter.
///
/// # Safety
/// The window must be inside the slices of `gather`.
#[inline(always)]
unsafe fn window<V: Vector, G: Gather<V>, const N: usize>(
    gather: G,
    taps: &Taps,
    channel: usize,
    count: usize,
    output: usize,
) {
    let mut sums = [gather.start(); N];
    for row in 0..taps.rows {
        for column in 0..taps.columns {
            let tap = taps.first + row * taps.row_stride + column * taps.column_stride;
            for (k, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as promised by the caller.
                *sum = unsafe { gather.step(*sum, tap + channel + k * V::LANES, count) };
            }
        }
    }
    for (k, &sum) in sums.iter().enumerate() {
        // SAFETY: as promised by the caller.
        unsafe { gather.finish(taps, sum, output + k * V::LANES, count) }
    }
}

#[derive(Clone, Copy)]
struct Max<T, R>(*const T, *mut R);

impl<V: Vector, T: Real, R: Real> Gather<V> for Max<T, R> {
    type Sum = V;
    #[inline(always)]
    fn start(self) -> V {
        V::splat(f32::NEG_INFINITY)
    }
    #[inline(always)]
    unsafe fn step(self, sum: V, input: usize, count: usize) -> V {
        // SAFETY: as promised by the caller.
        sum.max(unsafe { load_real::<V, T>(self.0.add(input), count) })
    }
    #[inline(always)]
    unsafe fn finish(self, _: &Taps, sum: V, output: usize, count: usize) {
        // SAFETY: as promised by the caller.
        unsafe { store_real(sum, self.1.add(output), count) }
    }
}

#[derive(Clone, Copy)]
struct Average<T>(*const T, *mut f32, bool);

impl<V: Vector, T: Real> Gather<V> for Average<T> {
    type Sum = V;
    #[inline(always)]
    fn start(self) -> V {
        V::splat(0.0)
    }
    #[inline(always)]
    unsafe fn step(self, sum: V, input: usize, count: usize) -> V {
        // SAFETY: as promised by the caller.
        sum + unsafe { load_real::<V, T>(self.0.add(input), count) }
    }
    #[inline(always)]
    unsafe fn finish(self, taps: &Taps, sum: V, output: usize, count: usize) {
        let average = sum / V::splat(taps.count(self.2).max(1) as f32);
        // SAFETY: as promised by the caller.
        unsafe { average.store_upto(self.1.add(output), count) }
    }
}

#[derive(Clone, Copy)]
struct AverageBytes<T>(*const T, *mut T, AverageRequantization);

impl<V: Vector, T: Byte> Gather<V> for AverageBytes<T> {
    type Sum = V::Int;
    #[inline(always)]
    fn start(self) -> V::Int {
        V::int_splat(0)
    }
    #[inline(always)]
    unsafe fn step(self, sum: V::Int, input: usize, count: usize) -> V::Int {
        // SAFETY: as promised by the caller.
        V::int_add(sum, unsafe { load_bytes::<V, T>(self.0.add(input), 1, count) })
    }
    #[inline(always)]
    unsafe fn finish(self, taps: &Taps, sum: V::Int, output: usize, count: usize) {
        let AverageRequantization { factor, zero, rounding } = self.2;
        let zeros = zero.wrapping_mul((taps.rows * taps.columns) as i32);
        let sum = V::from_int(V::int_sub(sum, V::int_splat(zeros)));
        let value = rounding.apply(sum * V::splat(factor));
        // SAFETY: as promised by the caller.
        unsafe { store_bytes::<V, T>(value, self.1.add(output), count) }
    }
}

#[inline(always)]
fn max_real<V: Vector, T: Real, R: Real>(
    pool: &Pool,
    rows: Range<usize>,
    input: &[T],
    output: &mut [R],
) {
    pool.check(&rows, input.len(), output.len());
    // SAFETY: just checked.
    unsafe { pool_any::<V, _>(pool, rows, Max(input.as_ptr(), output.as_mut_ptr())) }
}

#[inline(always)]
fn average_f32<V: Vector, T: Real>(
    pool: &Pool,
    include_padding: bool,
    rows: Range<usize>,
    input: &[T],
    output: &mut [f32],
) {
    pool.check(&rows, input.len(), output.len());
    let gather = Average(input.as_ptr(), output.as_mut_ptr(), include_padding);
    // SAFETY: just checked.
    unsafe { pool_any::<V, _>(pool, rows, gather) }
}

#[inline(always)]
fn average_bytes<V: Vector, T: Byte>(
    pool: &Pool,
    requantization: AverageRequantization,
    rows: Range<usize>,
    input: &[T],
    output: &mut [T],
) {
    pool.check(&rows, input.len(), output.len());
    let gather = AverageBytes(input.as_ptr(), output.as_mut_ptr(), requantization);
    // SAFETY: just checked.
    unsafe { pool_any::<V, _>(pool, rows, gather) }
}

/// Plain loops over fixed numbers of bytes, which compilers keep in vector registers.
#[inline(always)]
fn max_bytes<V: Vector, T: Byte>(pool: &Pool, rows: Range<usize>, input: &[T], output: &mut [T]) {
    pool.check(&rows, input.len(), output.len());
    for (i, row) in rows.enumerate() {
        for x in 0..pool.width.output {
            let taps = pool.taps(row, x);
            let pixel = (i * pool.width.output + x) * pool.channels;
            let mut channel = 0;
            while channel < pool.channels {
                let at = pixel + channel;
                channel += match pool.channels - channel {
                    64.. => max_block::<T, 64>(&taps, &input[channel..], &mut output[at..]),
                    16.. => max_block::<T, 16>(&taps, &input[channel..], &mut output[at..]),
                    _ => max_block::<T, 1>(&taps, &input[channel..], &mut output[at..]),
                };
            }
        }
    }
}

/// `N` channels of one window, from the first of both slices; returns `N`.
#[inline(always)]
fn max_block<T: Byte, const N: usize>(taps: &Taps, input: &[T], output: &mut [T]) -> usize {
    let mut max = [T::LOWEST; N];
    for row in 0..taps.rows {
        for column in 0..taps.columns {
            let tap = taps.first + row * taps.row_stride + column * taps.column_stride;
            let pixel = &input[tap..tap + N];
            for k in 0..N {
                max[k] = if pixel[k] > max[k] { pixel[k] } else { max[k] };
            }
        }
    }
    output[..N].copy_from_slice(&max);
    N
}

/// How an average of bytes becomes a byte: `(Σ (x − zero)) · factor` over the taps inside the image,
/// the sum exact in i32 and the product one f32 multiplication, then [`Rounding`]. A window may
/// hold up to 2^23 taps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AverageRequantization {
    /// Scale of the input over that of the output and the number of taps.
    pub factor: f32,
    /// Zero point of the input.
    pub zero: i32,
    /// The last step.
    pub rounding: Rounding,
}

vectorised! {
    /// Maximum pool of f32 or bf16, rounded if the output is of bf16; −∞ where a window lies in the
    /// padding. `rows` counts output rows through the batch, `input` is the whole batch, `output`
    /// just the rows.
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn max_pool_f32[T: Real, R: Real](isa, pool: &Pool, rows: Range<usize>, input: &[T],
        output: &mut [R]) = max_real;
    /// Maximum pool of bytes; the least value where a window lies in the padding. Otherwise as
    /// [`max_pool_f32`].
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn max_pool_bytes[T: Byte](isa, pool: &Pool, rows: Range<usize>, input: &[T],
        output: &mut [T]) = max_bytes;
    /// Average pool, in f32; 0 where a window lies in the padding. Otherwise as [`max_pool_f32`].
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn average_pool_f32[T: Real](isa, pool: &Pool, include_padding: bool,
        rows: Range<usize>, input: &[T], output: &mut [f32]) = average_f32;
    /// Average pool of bytes, otherwise as [`max_pool_f32`].
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn average_pool_bytes[T: Byte](isa, pool: &Pool, requantization: AverageRequantization,
        rows: Range<usize>, input: &[T], output: &mut [T]) = average_bytes;
}
