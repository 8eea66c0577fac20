//! Bilinear resizing of 8-bit images to the bits of Pillow: a triangle filter, widened by the ratio
//! when shrinking, applied across and then down, in 22-bit fixed point with 8 bits between.

const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Interleaved 8-bit pixels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pixels {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) bytes: Vec<u8>,
}

/// The source pixels that make one target pixel, and how much each counts.
struct Window {
    first: usize,
    weights: Vec<i64>,
}

fn windows(source: usize, target: usize) -> Vec<Window> {
    let ratio = source as f64 / target as f64;
    let support = ratio.max(1.0);
    (0..target)
        .map(|position| {
            let centre = (position as f64 + 0.5) * ratio;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(source);
            let weight = |at: usize| {
                let distance = (at as f64 - centre + 0.5) / support;
                (1.0 - distance.abs()).max(0.0)
            };
            let weights: Vec<f64> = (first..last).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |w: &f64| (w / sum * f64::from(1u32 << PRECISION_BITS) + 0.5) as i64;
            Window { first, weights: weights.iter().map(fixed).collect() }
        })
        .collect()
}

fn round(sum: i64) -> u8 {
    ((sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The image at another size; both extents are at least 1.
pub(crate) fn bilinear(image: &Pixels, height: usize, width: usize) -> Pixels {
    let mut result = image.clone();
    if width != image.width {
        result = across(&result, width);
    }
    if height != image.height {
        result = down(&result, height);
    }
    result
}

fn across(image: &Pixels, width: usize) -> Pixels {
    let channels = image.channels;
    let windows = windows(image.width, width);
    let mut bytes = Vec::with_capacity(image.height * width * channels);
    for row in image.bytes.chunks_exact(image.width * channels) {
        for window in &windows {
            for channel in 0..channels {
                let pixel = |i: usize| i64::from(row[(window.first + i) * channels + channel]);
                let terms = window.weights.iter().enumerate().map(|(i, w)| w * pixel(i));
                bytes.push(round(terms.sum()));
            }
        }
    }
    Pixels { width, bytes, ..*image }
}

fn down(image: &Pixels, height: usize) -> Pixels {
    let row_bytes = image.width * image.channels;
    let mut bytes = Vec::with_capacity(height * row_bytes);
    for window in windows(image.height, height) {
        for column in 0..row_bytes {
            let pixel = |i: usize| i64::from(image.bytes[(window.first + i) * row_bytes + column]);
            let terms = window.weights.iter().enumerate().map(|(i, w)| w * pixel(i));
            bytes.push(round(terms.sum()));
        }
    }
    Pixels { height, bytes, ..*image }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(height: usize, width: usize, channels: usize) -> Pixels {
        let bytes = (0..height * width * channels).map(|i| (i * i * 7 + i * 13) as u8).collect();
        Pixels { height, width, channels, bytes }
    }

    #[test]
    fn flat_images_stay_flat() {
        let flat = Pixels { height: 5, width: 7, channels: 3, bytes: vec![200; 105] };
        let resized = bilinear(&flat, 3, 11);
        assert_eq!((resized.height, resized.width), (3, 11));
        assert!(resized.bytes.iter().all(|&byte| byte == 200));
        assert_eq!(bilinear(&flat, 5, 7), flat);
    }

    /// `numpy.array(Image.fromarray(x).resize((w, h), Image.BILINEAR))` of Pillow 13.0.0, for
    /// `x[i] = (i·i·7 + i·13) mod 256` in C order.
    #[test]
    fn the_bits_are_those_of_pillow() {
        assert_eq!(bilinear(&image(4, 4, 1), 2, 3).bytes, PILLOW_DOWN);
        assert_eq!(bilinear(&image(2, 3, 1), 4, 4).bytes, PILLOW_UP);
        assert_eq!(bilinear(&image(9, 7, 3), 3, 2).bytes, PILLOW_COLOUR);
    }

    const PILLOW_DOWN: &[u8] = &[94, 100, 126, 112, 92, 168];
    const PILLOW_UP: &[u8] =
        &[0, 13, 33, 54, 26, 45, 73, 101, 77, 109, 153, 194, 102, 141, 193, 240];
    const PILLOW_COLOUR: &[u8] =
        &[118, 118, 153, 133, 150, 105, 109, 108, 134, 127, 126, 83, 128, 119, 158, 130, 126, 134];
}
