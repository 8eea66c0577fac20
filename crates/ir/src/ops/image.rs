//! Pixels from the bytes of an image file.

use std::io::Cursor;

use hayro_jpeg2000::{DecodeSettings, Image};
use image::{ImageFormat, ImageReader};
use lepton_tensor::{DType, Tensor};
use libjpeg_turbo_rs::{Decoder, PixelFormat};

use super::facets::facets;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};
use crate::{attributes, words};

/// Larger images are refused before their pixels are allocated.
const MAX_PIXELS: usize = 1 << 27;
const MAX_EXTENT: u32 = 1 << 16;
const MAX_DECODER_BYTES: usize = 1 << 30;
/// Progressive files with more scans exist only to waste time.
const MAX_SCANS: u32 = 200;

words! {
    /// What a pixel consists of.
    pub enum Colours {
        /// Red, green, blue
        Rgb = "rgb",
        /// Blue, green, red
        Bgr = "bgr",
        /// Brightness
        Grey = "grey",
    }
}

attributes! {
    /// The pixels `[H,W,C]` (u8) of the image file whose bytes are x `[N]` (u8): JPEG, JPEG 2000,
    /// PNG, BMP, TIFF, WebP or PNM.
    pub struct ImageDecoder {
        /// What a pixel consists of.
        pub colours: Colours = Colours::Rgb,
    }
}

/// Red, green and blue of every pixel.
struct Pixels {
    height: usize,
    width: usize,
    bytes: Vec<u8>,
}

fn decoded(bytes: &[u8]) -> Result<Pixels, String> {
    match bytes {
        [0xff, 0xd8, ..] => jpeg(bytes),
        [0xff, 0x4f, 0xff, 0x51, ..] | [0, 0, 0, 0x0c, b'j', b'P', ..] => jpeg_2000(bytes),
        _ => other(bytes),
    }
}

fn jpeg(bytes: &[u8]) -> Result<Pixels, String> {
    let image = Decoder::new(bytes)
        .map_err(|error| error.to_string())?
        .with_output_format(PixelFormat::Rgb)
        .with_max_pixels(MAX_PIXELS)
        .with_max_memory(MAX_DECODER_BYTES)
        .with_scan_limit(MAX_SCANS)
        .with_stop_on_warning(true)
        .decode_image()
        .map_err(|error| error.to_string())?;
    Ok(Pixels { height: image.height, width: image.width, bytes: image.data })
}

fn jpeg_2000(bytes: &[u8]) -> Result<Pixels, String> {
    let image = Image::new(bytes, &DecodeSettings::default()).map_err(|e| e.to_string())?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    if height.saturating_mul(width) > MAX_PIXELS {
        return Err(format!("an image of {height} × {width} pixels"));
    }
    let colours = usize::from(image.color_space().num_channels());
    let each = colours + usize::from(image.has_alpha());
    let raw = image.decode().map_err(|error| error.to_string())?;
    let bytes = match colours {
        1 => raw.chunks_exact(each).flat_map(|pixel| [pixel[0]; 3]).collect(),
        3 => raw.chunks_exact(each).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        count => return Err(format!("JPEG 2000 of {count} colours; save it as RGB or grey")),
    };
    Ok(Pixels { height, width, bytes })
}

fn other(bytes: &[u8]) -> Result<Pixels, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.as_mut().map_err(|error| error.to_string())?;
    let known = [
        ImageFormat::Png,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::WebP,
        ImageFormat::Pnm,
    ];
    let format = reader.format().filter(|format| known.contains(format));
    let format = format.ok_or("not a JPEG, JPEG 2000, PNG, BMP, TIFF, WebP or PNM image")?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_EXTENT);
    limits.max_image_height = Some(MAX_EXTENT);
    limits.max_alloc = Some(MAX_DECODER_BYTES as u64);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| error.to_string())?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    Ok(Pixels { height, width, bytes: image.into_rgb8().into_raw() })
}

/// Brightness as ITU-R BT.601 weighs it, in 16-bit fixed point.
fn brightness(pixel: &[u8]) -> u8 {
    let [red, green, blue] = [0, 1, 2].map(|i| u32::from(pixel[i]));
    ((red * 19595 + green * 38470 + blue * 7471 + (1 << 15)) >> 16) as u8
}

impl Operator for ImageDecoder {
    facets! {
        arity = Arity::exactly(1),
        stops = "a file is not a number",
        frozen = "a file is not a table",
        quant = Quant::NotApplicable,
        element_ops = 64,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let x = inputs.required(0, "x")?;
        if x.dtype != DType::U8 {
            return Err(Problem::dtype("x", "u8", x.dtype));
        }
        // Also of a constant: who only reads a model must not pay for an image that is a bomb.
        let channels = if self.colours == Colours::Grey { 1 } else { 3 };
        let dims = vec![Dim::unknown(), Dim::unknown(), Dim::known(channels)];
        Ok(vec![Fact::new(DType::U8, dims)])
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let x = inputs.required(0, "x")?;
        let Pixels { height, width, mut bytes } =
            decoded(x.as_slice::<u8>()?).map_err(Problem::Value)?;
        match self.colours {
            Colours::Rgb => {}
            Colours::Bgr => bytes.chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2)),
            Colours::Grey => bytes = bytes.chunks_exact(3).map(brightness).collect(),
        }
        let channels = if self.colours == Colours::Grey { 1 } else { 3 };
        Ok(vec![Tensor::from_slice([height, width, channels], &bytes)?])
    }
}
