//! Pooling over NHWC images: maximum and average, of f32 and of quantised bytes.
//!
//! A global pool is a window as large as the image; a one-dimensional pool has height 1.

use crate::quantize::{Byte, Rounding, load_bytes, store_bytes};
use crate::vector::{Vector, vectorised};
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
        self.taps(window, self.padding_before, self.input)
    }

    /// How many taps lie inside the padded image.
    fn padded(&self, window: usize) -> usize {
        let padded = self.padding_before + self.input + self.padding_after;
        self.taps(window, 0, padded).len()
    }

    /// The input pixel of a tap inside the image.
    fn pixel(&self, window: usize, tap: usize) -> usize {
        window * self.stride + tap * self.dilation - self.padding_before
    }
}

/// The geometry of a pool over an image of H × W × C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The vertical axis.
    pub height: PoolAxis,
    /// The horizontal axis.
    pub width: PoolAxis,
    /// Channels.
    pub channels: usize,
}

impl Pool {
    /// Elements of one input image.
    pub fn input_len(&self) -> usize {
        self.height.input * self.width.input * self.channels
    }

    /// Elements of one output row.
    pub fn row_len(&self) -> usize {
        self.width.output * self.channels
    }

    /// Calls `window(input offset of the first tap, taps, output offset)` for each output pixel
    /// of the rows, which count through all images of the batch.
    #[inline(always)]
    fn for_each_window(&self, rows: Range<usize>, mut window: impl FnMut(&Taps, usize)) {
        let (height, width) = (&self.height, &self.width);
        let mut output = 0;
        for row in rows {
            let (image, y) = (row / height.output, row % height.output);
            let vertical = height.inside(y);
            for x in 0..width.output {
                let horizontal = width.inside(x);
                let empty = vertical.is_empty() || horizontal.is_empty();
                let mut taps = Taps {
                    first: 0,
                    rows: 0,
                    columns: 0,
                    row_stride: height.dilation * width.input * self.channels,
                    column_stride: width.dilation * self.channels,
                    padded: height.padded(y) * width.padded(x),
                };
                if !empty {
                    let pixel = height.pixel(y, vertical.start) * width.input
                        + width.pixel(x, horizontal.start);
                    taps.first = image * self.input_len() + pixel * self.channels;
                    (taps.rows, taps.columns) = (vertical.len(), horizontal.len());
                }
                window(&taps, output);
                output += self.channels;
            }
        }
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
        assert!(images * self.input_len() <= input, "the input holds the images of the rows");
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
    #[inline(always)]
    fn each(&self, mut tap: impl FnMut(usize)) {
        for row in 0..self.rows {
            let start = self.first + row * self.row_stride;
            for column in 0..self.columns {
                tap(start + column * self.column_stride);
            }
        }
    }

    /// What an average divides by.
    #[inline(always)]
    fn count(&self, include_padding: bool) -> usize {
        if include_padding { self.padded } else { self.rows * self.columns }
    }
}

/// Vectors of channels kept in registers at a time.
const BLOCK: usize = 4;

/// Folds the taps of every window channel by channel and finishes with `store`.
///
/// # Safety
/// `pool.check` must have passed; `load(offset, count)` reads the input there.
#[inline(always)]
unsafe fn fold<V: Vector, A: Copy>(
    pool: &Pool,
    rows: Range<usize>,
    start: A,
    load: impl Fn(usize, usize) -> A,
    combine: impl Fn(A, A) -> A,
    mut store: impl FnMut(&Taps, A, usize, usize),
) {
    pool.for_each_window(rows, |taps, output| {
        let mut channel = 0;
        while channel + BLOCK * V::LANES <= pool.channels {
            let mut sums = [start; BLOCK];
            taps.each(|tap| {
                for (k, sum) in sums.iter_mut().enumerate() {
                    *sum = combine(*sum, load(tap + channel + k * V::LANES, V::LANES));
                }
            });
            for (k, &sum) in sums.iter().enumerate() {
                store(taps, sum, output + channel + k * V::LANES, V::LANES);
            }
            channel += BLOCK * V::LANES;
        }
        while channel < pool.channels {
            let left = pool.channels - channel;
            let mut sum = start;
            taps.each(|tap| sum = combine(sum, load(tap + channel, left)));
            store(taps, sum, output + channel, left);
            channel += V::LANES;
        }
    });
}

#[inline(always)]
fn max_f32<V: Vector>(pool: &Pool, rows: Range<usize>, input: &[f32], output: &mut [f32]) {
    pool.check(&rows, input.len(), output.len());
    let lowest = V::splat(f32::NEG_INFINITY);
    // SAFETY: just checked.
    unsafe {
        let load = |at: usize, count| V::load_upto(input.as_ptr().add(at), count);
        let place = output.as_mut_ptr();
        fold::<V, V>(
            pool,
            rows,
            lowest,
            load,
            |a, b| a.max(b),
            |_, max, at, count| {
                max.store_upto(place.add(at), count);
            },
        );
    }
}

#[inline(always)]
fn average_f32<V: Vector>(
    pool: &Pool,
    include_padding: bool,
    rows: Range<usize>,
    input: &[f32],
    output: &mut [f32],
) {
    pool.check(&rows, input.len(), output.len());
    // SAFETY: just checked.
    unsafe {
        let load = |at: usize, count| V::load_upto(input.as_ptr().add(at), count);
        let place = output.as_mut_ptr();
        fold::<V, V>(
            pool,
            rows,
            V::splat(0.0),
            load,
            |a, b| a + b,
            |taps, sum, at, count| {
                let divisor = V::splat(taps.count(include_padding).max(1) as f32);
                (sum / divisor).store_upto(place.add(at), count);
            },
        );
    }
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
    let AverageRequantization { scale, zero, include_padding, rounding } = requantization;
    // SAFETY: just checked.
    unsafe {
        let load = |at: usize, count| load_bytes::<V, T>(input.as_ptr().add(at), 1, count);
        let place = output.as_mut_ptr();
        fold::<V, V::Int>(pool, rows, V::int_splat(0), load, V::int_add, |taps, sum, at, count| {
            let zeros = zero.wrapping_mul((taps.rows * taps.columns) as i32);
            let divisor = taps.count(include_padding).max(1) as f32;
            let sum = V::from_int(V::int_sub(sum, V::int_splat(zeros)));
            let value = rounding.apply(sum * V::splat(scale / divisor));
            store_bytes::<V, T>(value, place.add(at), count);
        });
    }
}

/// Plain loops over bytes, which compilers turn into vectors.
#[inline(always)]
fn max_bytes<V: Vector, T: Byte>(pool: &Pool, rows: Range<usize>, input: &[T], output: &mut [T]) {
    pool.check(&rows, input.len(), output.len());
    pool.for_each_window(rows, |taps, at| {
        let place = &mut output[at..at + pool.channels];
        let mut first = true;
        taps.each(|tap| {
            let pixel = &input[tap..tap + pool.channels];
            if first {
                place.copy_from_slice(pixel);
            } else {
                place.iter_mut().zip(pixel).for_each(|(max, &x)| *max = (*max).max(x));
            }
            first = false;
        });
        if first {
            place.fill(T::LOWEST);
        }
    });
}

/// How an average of bytes becomes a byte: `(Σ x − zero · taps) · (scale / count)`, the sum exact
/// in i32 and the product one f32 multiplication, then [`Rounding`]. A window may hold up to
/// 2^23 taps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AverageRequantization {
    /// Scale of the input over that of the output.
    pub scale: f32,
    /// Zero point of the input.
    pub zero: i32,
    /// Whether padding counts.
    pub include_padding: bool,
    /// The last step.
    pub rounding: Rounding,
}

vectorised! {
    /// Maximum pool; −∞ where a window lies in the padding. `rows` counts output rows through the
    /// batch, `input` is the whole batch, `output` just the rows.
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn max_pool_f32(isa, pool: &Pool, rows: Range<usize>, input: &[f32], output: &mut [f32])
        = max_f32;
    /// Maximum pool of bytes; the least value where a window lies in the padding. Otherwise as
    /// [`max_pool_f32`].
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn max_pool_bytes[T: Byte](isa, pool: &Pool, rows: Range<usize>, input: &[T],
        output: &mut [T]) = max_bytes;
    /// Average pool; 0 where a window lies in the padding. Otherwise as [`max_pool_f32`].
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn average_pool_f32(isa, pool: &Pool, include_padding: bool, rows: Range<usize>,
        input: &[f32], output: &mut [f32]) = average_f32;
    /// Average pool of bytes, otherwise as [`max_pool_f32`].
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn average_pool_bytes[T: Byte](isa, pool: &Pool, requantization: AverageRequantization,
        rows: Range<usize>, input: &[T], output: &mut [T]) = average_bytes;
}
