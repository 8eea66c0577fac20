//! Planes of an image become its pixels, quantised on the way.

use std::ops::Range;

use crate::quantize::{Byte, Rounding};
use crate::vector::{Vector, vectorised};

/// Most channels of an image that [`quantize_pixels`] takes.
pub const MOST_CHANNELS: usize = 4;

/// The bytes of `LANES` pixels, of which `left` are there, channel by channel from the lowest on.
///
/// # Safety
/// That many values of each plane must be readable; planes are `pixels` values apart.
#[inline(always)]
unsafe fn gathered<V: Vector, const CHANNELS: usize>(
    (scale, rounding): (V, Rounding),
    planes: *const f32,
    pixels: usize,
    left: usize,
) -> V::Int {
    // A macro, because what a closure does is not compiled for an instruction set.
    macro_rules! byte {
        ($channel:literal) => {{
            // SAFETY: the caller's promise.
            let x = unsafe { V::load_upto(planes.add($channel * pixels), left) };
            V::int_and(rounding.apply(x / scale), V::int_splat(255))
        }};
    }
    let mut all = byte!(0);
    if CHANNELS > 1 {
        all = V::int_add(all, V::int_shift_left::<8>(byte!(1)));
    }
    if CHANNELS > 2 {
        all = V::int_add(all, V::int_shift_left::<16>(byte!(2)));
    }
    if CHANNELS > 3 {
        all = V::int_add(all, V::int_shift_left::<24>(byte!(3)));
    }
    all
}

#[inline(always)]
fn pixels_of<V: Vector, T: Byte, const CHANNELS: usize>(
    (scale, zero): (f32, T),
    planes: &[f32],
    range: Range<usize>,
    output: &mut [T],
) {
    let pixels = planes.len() / CHANNELS;
    let how = (V::splat(scale), Rounding::new(zero));
    let to = output.as_mut_ptr().cast::<u8>();
    for pixel in range.clone().step_by(V::LANES) {
        let left = range.end - pixel;
        // SAFETY: pixels of the range lie in the planes and, from its start on, in the output; no
        // set has more than 16 lanes.
        unsafe {
            let bytes = gathered::<V, CHANNELS>(how, planes.as_ptr().add(pixel), pixels, left);
            let to = to.add((pixel - range.start) * CHANNELS);
            if left >= V::LANES {
                V::int_store_pixels::<CHANNELS>(bytes, to);
            } else {
                let mut lanes = [0u8; 16 * MOST_CHANNELS];
                V::int_store_pixels::<CHANNELS>(bytes, lanes.as_mut_ptr());
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, left * CHANNELS);
            }
        }
    }
}

#[inline(always)]
fn any<V: Vector, T: Byte>(
    how: (f32, T),
    channels: usize,
    planes: &[f32],
    range: Range<usize>,
    output: &mut [T],
) {
    assert!((1..=MOST_CHANNELS).contains(&channels), "1 to {MOST_CHANNELS} channels");
    assert!(range.start <= range.end && range.end <= planes.len() / channels, "pixels");
    assert_eq!(output.len(), range.len() * channels, "the output holds the range");
    match channels {
        1 => pixels_of::<V, T, 1>(how, planes, range, output),
        2 => pixels_of::<V, T, 2>(how, planes, range, output),
        3 => pixels_of::<V, T, 3>(how, planes, range, output),
        _ => pixels_of::<V, T, 4>(how, planes, range, output),
    }
}

vectorised! {
    /// [`crate::quantize::quantize`] with a scale and a zero point, of a `range` of pixels whose 1 to
    /// [`MOST_CHANNELS`] channels come as planes and leave side by side; `output` holds just that range.
    ///
    /// # Panics
    /// If there are more channels, or the range or the output do not fit.
    pub fn quantize_pixels[T: Byte](isa, how: (f32, T), channels: usize, planes: &[f32],
        range: Range<usize>, output: &mut [T]) = any;
}
