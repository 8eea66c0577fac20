//! Encoded images to 8-bit pixels, with the pixels that Pillow would give.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, ImageReader};
use libjpeg_turbo_rs::{Decoder, PixelFormat};

use crate::options::{Channels, DataOptions};
use crate::resize::{Pixels, bilinear};

/// Larger images are refused before their pixels are allocated.
const MAX_PIXELS: usize = 1 << 27;
const MAX_DECODER_BYTES: usize = 1 << 30;
/// Progressive files with more scans exist only to waste time.
const MAX_SCANS: u32 = 200;
/// File names that are taken for images.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "bmp"];

/// True where the name looks like an image of a known format.
pub(crate) fn is_image(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    let extension = base.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    !base.starts_with("._") && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// What happens to an image between its bytes and its row.
#[derive(Clone, Debug)]
pub(crate) struct ImageSteps {
    channels: Option<Channels>,
    resize: Option<Size>,
    crop: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum Size {
    Shorter(usize),
    Exact(usize, usize),
}

impl ImageSteps {
    pub(crate) fn new(options: &DataOptions) -> Result<Self, String> {
        let positive = |key: &str, sizes: &[usize]| match sizes {
            [] | [_, _, _, ..] => Err(format!("`{key}` takes a number or [height, width]")),
            _ if sizes.contains(&0) || sizes.iter().any(|&size| size > 1 << 14) => {
                Err(format!("`{key}` must be from 1 to {}", 1 << 14))
            }
            _ => Ok(()),
        };
        let mut steps = ImageSteps { channels: options.channels, resize: None, crop: None };
        if let Some(sizes) = options.resize.as_ref().map(|sizes| sizes.as_slice()) {
            positive("resize", sizes)?;
            steps.resize = Some(match *sizes {
                [height, width] => Size::Exact(height, width),
                _ => Size::Shorter(sizes[0]),
            });
        }
        if let Some(sizes) = options.crop.as_ref().map(|sizes| sizes.as_slice()) {
            positive("crop", sizes)?;
            steps.crop = Some((sizes[0], sizes[sizes.len() - 1]));
        }
        Ok(steps)
    }

    /// Decodes and applies the steps.
    pub(crate) fn apply(&self, bytes: &[u8]) -> Result<Pixels, String> {
        let mut image = with_channels(decode(bytes)?, self.channels);
        if let Some(size) = self.resize {
            let (height, width) = match size {
                Size::Exact(height, width) => (height, width),
                Size::Shorter(size) if image.height <= image.width => {
                    (size, size * image.width / image.height)
                }
                Size::Shorter(size) => (size * image.height / image.width, size),
            };
            image = bilinear(&image, height, width);
        }
        match self.crop {
            Some((height, width)) => crop(&image, height, width),
            None => Ok(image),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    match bytes {
        [0xff, 0xd8, ..] => decode_jpeg(bytes),
        [0x89, b'P', b'N', b'G', ..] => decode_other(bytes, ImageFormat::Png),
        [b'B', b'M', ..] => decode_other(bytes, ImageFormat::Bmp),
        _ => Err("not a JPEG, PNG or BMP image".to_owned()),
    }
}

fn decode_jpeg(bytes: &[u8]) -> Result<Pixels, String> {
    let decoder = Decoder::new(bytes).map_err(|error| error.to_string())?;
    let header = decoder.header();
    let (format, channels) = match header.components.len() {
        1 => (PixelFormat::Grayscale, 1),
        3 => (PixelFormat::Rgb, 3),
        count => return Err(format!("JPEG of {count} components; save it as RGB or grey")),
    };
    let image = decoder
        .with_output_format(format)
        .with_max_pixels(MAX_PIXELS)
        .with_max_memory(MAX_DECODER_BYTES)
        .with_scan_limit(MAX_SCANS)
        .with_stop_on_warning(true)
        .decode_image()
        .map_err(|error| error.to_string())?;
    whole(Pixels { height: image.height, width: image.width, channels, bytes: image.data })
}

fn decode_other(bytes: &[u8], format: ImageFormat) -> Result<Pixels, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(1 << 16);
    limits.max_image_height = Some(1 << 16);
    limits.max_alloc = Some(MAX_DECODER_BYTES as u64);
    reader.limits(limits);
    let decoded = reader.decode().map_err(|error| error.to_string())?;
    let (height, width) = (decoded.height() as usize, decoded.width() as usize);
    let grey = matches!(
        decoded,
        DynamicImage::ImageLuma8(_)
            | DynamicImage::ImageLuma16(_)
            | DynamicImage::ImageLumaA8(_)
            | DynamicImage::ImageLumaA16(_)
    );
    let (channels, bytes) = match grey {
        true => (1, decoded.into_luma8().into_raw()),
        false => (3, decoded.into_rgb8().into_raw()),
    };
    whole(Pixels { height, width, channels, bytes })
}

fn whole(image: Pixels) -> Result<Pixels, String> {
    let expected = image.height * image.width * image.channels;
    if image.bytes.len() != expected || expected == 0 {
        return Err(format!("{} bytes of pixels instead of {expected}", image.bytes.len()));
    }
    Ok(image)
}

fn with_channels(image: Pixels, wanted: Option<Channels>) -> Pixels {
    let grey = image.channels == 1;
    let bytes = match wanted {
        None => return image,
        Some(Channels::Grey) if grey => return image,
        Some(Channels::Rgb) if !grey => return image,
        Some(Channels::Grey) => image.bytes.chunks_exact(3).map(luma).collect(),
        Some(Channels::Rgb | Channels::Bgr) if grey => {
            image.bytes.iter().flat_map(|&grey| [grey; 3]).collect()
        }
        Some(_) => image.bytes.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect(),
    };
    let channels = if wanted == Some(Channels::Grey) { 1 } else { 3 };
    Pixels { channels, bytes, ..image }
}

/// ITU-R BT.601 luma in 16-bit fixed point, as Pillow rounds it.
fn luma(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

fn crop(image: &Pixels, height: usize, width: usize) -> Result<Pixels, String> {
    if height > image.height || width > image.width {
        return Err(format!(
            "crop {height}×{width} is larger than the image, {}×{}; resize first",
            image.height, image.width
        ));
    }
    // Halves go to the even neighbour, as in torchvision's centre crop.
    let start = |all: usize, part: usize| ((all - part) as f64 / 2.0).round_ties_even() as usize;
    let (top, left) = (start(image.height, height), start(image.width, width));
    let channels = image.channels;
    let mut bytes = Vec::with_capacity(height * width * channels);
    for row in top..top + height {
        let at = (row * image.width + left) * channels;
        bytes.extend_from_slice(&image.bytes[at..at + width * channels]);
    }
    Ok(Pixels { height, width, channels, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OneOrMany;

    /// A 2×3 BMP, 24 bits, bottom row first: blue is the pixel's index, red 100 + index.
    fn bmp() -> Vec<u8> {
        let mut bytes = b"BM".to_vec();
        bytes.extend(78u32.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(54u32.to_le_bytes());
        bytes.extend(40u32.to_le_bytes());
        bytes.extend(3i32.to_le_bytes());
        bytes.extend(2i32.to_le_bytes());
        bytes.extend([1, 0, 24, 0]);
        bytes.extend([0; 24]);
        for row in [1u8, 0] {
            bytes.extend((0..3).flat_map(|x| [row * 3 + x, 50, 100 + row * 3 + x]));
            bytes.extend([0; 3]);
        }
        bytes
    }

    #[test]
    fn channels_and_crop() {
        let mut options = DataOptions { channels: Some(Channels::Bgr), ..Default::default() };
        options.crop = Some(OneOrMany::Many(vec![1, 2]));
        let image = ImageSteps::new(&options).unwrap().apply(&bmp()).unwrap();
        assert_eq!((image.height, image.width, image.channels), (1, 2, 3));
        assert_eq!(image.bytes, [0, 50, 100, 1, 50, 101]);
        options.channels = Some(Channels::Grey);
        let image = ImageSteps::new(&options).unwrap().apply(&bmp()).unwrap();
        assert_eq!(image.bytes, [59, 60]);
        options.crop = Some(OneOrMany::One(3));
        let error = ImageSteps::new(&options).unwrap().apply(&bmp()).unwrap_err();
        assert!(error.contains("3×3 is larger than the image, 2×3"), "{error}");
    }

    #[test]
    fn broken_images_are_errors() {
        let steps = ImageSteps::new(&DataOptions::default()).unwrap();
        assert!(steps.apply(b"GIF89a").unwrap_err().contains("not a JPEG"));
        for cut in 0..bmp().len() - 4 {
            assert!(steps.apply(&bmp()[..cut]).is_err(), "{cut}");
        }
        for bytes in [&[0xff, 0xd8][..], &[0xff, 0xd8, 0xff, 0xda], b"\x89PNG"] {
            assert!(steps.apply(bytes).is_err());
        }
    }

    fn jpeg(subsampling: libjpeg_turbo_rs::Subsampling) -> Vec<u8> {
        let pixels: Vec<u8> = (0..40 * 24 * 3u32).map(|i| (i * i / 97) as u8).collect();
        libjpeg_turbo_rs::compress(&pixels, 40, 24, PixelFormat::Rgb, 80, subsampling).unwrap()
    }

    #[test]
    fn damaged_jpegs_are_errors_or_images_never_panics() {
        let steps = ImageSteps::new(&DataOptions::default()).unwrap();
        for subsampling in
            [libjpeg_turbo_rs::Subsampling::S420, libjpeg_turbo_rs::Subsampling::S444]
        {
            let whole = jpeg(subsampling);
            assert_eq!(steps.apply(&whole).unwrap().bytes.len(), 40 * 24 * 3);
            for cut in 0..whole.len() - 8 {
                assert!(steps.apply(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
            }
            let mut random = oorandom::Rand32::new(7);
            for _ in 0..FLIPS {
                let mut damaged = whole.clone();
                for _ in 0..1 + random.rand_u32() % 3 {
                    let at = random.rand_u32() as usize % damaged.len();
                    damaged[at] = random.rand_u32() as u8;
                }
                let _ = steps.apply(&damaged);
            }
        }
    }

    const FLIPS: usize = 2000;

    #[test]
    fn names_of_images() {
        assert!(is_image("a/b.JPG") && is_image("0.png"));
        assert!(!is_image("a/._b.jpg") && !is_image("jpg") && !is_image("a.txt"));
    }
}
