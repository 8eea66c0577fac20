//! Parts of images within boxes, in cells (He et al. 2017, region-of-interest alignment).

use crate::isa::Isa;

/// How boxes are read.
#[derive(Clone, Copy, Debug)]
pub struct Regions {
    /// Cells from top to bottom, and from left to right.
    pub cells: [usize; 2],
    /// Samples of a cell along each axis; 0 for as many as it has pixels.
    pub samples: usize,
    /// What a coordinate is multiplied with.
    pub scale: f32,
    /// True if the centres of pixels lie at halves.
    pub halves: bool,
}

/// Most samples of a cell along an axis.
const MOST_SAMPLES: f64 = 4096.0;

/// Lines of pixels and their weights for each cell along one axis.
type Taps = Vec<Vec<(usize, f32)>>;

impl Regions {
    /// Lines of pixels that the cells between two coordinates are a mean of.
    fn taps(&self, from: f32, to: f32, cells: usize, extent: usize) -> Taps {
        let scale = f64::from(self.scale);
        let shift = if self.halves { 0.5 } else { 0.0 };
        let start = f64::from(from) * scale - shift;
        let mut length = f64::from(to) * scale - shift - start;
        if !self.halves {
            length = length.max(1.0);
        }
        let cell = length / cells as f64;
        let count = match self.samples {
            0 => cell.ceil().clamp(0.0, MOST_SAMPLES) as usize,
            samples => samples,
        };
        let of_cell = |c: usize| {
            let mut taps: Vec<(usize, f32)> = Vec::with_capacity(2 * count);
            let mut add = |pixel: usize, weight: f64| {
                let weight = (weight / count as f64) as f32;
                match taps.iter_mut().rev().take(2).find(|tap| tap.0 == pixel) {
                    Some(tap) => tap.1 += weight,
                    None => taps.push((pixel, weight)),
                }
            };
            for i in 0..count {
                let at = start + c as f64 * cell + (i as f64 + 0.5) * cell / count as f64;
                if (-1.0..=extent as f64).contains(&at) {
                    let at = at.clamp(0.0, extent as f64 - 1.0);
                    let low = at as usize;
                    add(low, 1.0 - (at - low as f64));
                    add((low + 1).min(extent - 1), at - low as f64);
                }
            }
            taps
        };
        (0..cells).map(of_cell).collect()
    }

    /// The means of the cells of a box (x, y, x, y of two corners), `[cells,channels]`, from an
    /// image `[height,width,channels]`.
    ///
    /// # Panics
    /// If a slice does not have these extents, or the image has no pixel.
    pub fn means(
        &self,
        isa: Isa,
        image: &[f32],
        [height, width, channels]: [usize; 3],
        corners: &[f32; 4],
        output: &mut [f32],
    ) {
        assert!(height * width > 0 && image.len() == height * width * channels, "an image");
        assert!(output.len() == self.cells[0] * self.cells[1] * channels, "a row for each cell");
        output.fill(0.0);
        let rows = self.taps(corners[1], corners[3], self.cells[0], height);
        let columns = self.taps(corners[0], corners[2], self.cells[1], width);
        let cells = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        for ((row, column), output) in cells.zip(output.chunks_exact_mut(channels.max(1))) {
            for &(y, own) in row {
                for &(x, weight) in column {
                    let pixel = &image[(y * width + x) * channels..][..channels];
                    add(isa, own * weight, pixel, output);
                }
            }
        }
    }
}

/// Adds a pixel, weighted.
fn add(isa: Isa, weight: f32, pixel: &[f32], output: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        // SAFETY: the token proves the instruction set.
        return unsafe { add_avx512(weight, pixel, output) };
    } else if isa.has_avx2() {
        // SAFETY: as above.
        return unsafe { add_avx2(weight, pixel, output) };
    }
    let _ = isa;
    add_all(weight, pixel, output);
}

/// # Safety
/// The machine has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn add_avx512(weight: f32, pixel: &[f32], output: &mut [f32]) {
    add_all(weight, pixel, output);
}

/// # Safety
/// The machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn add_avx2(weight: f32, pixel: &[f32], output: &mut [f32]) {
    add_all(weight, pixel, output);
}

#[inline(always)]
fn add_all(weight: f32, pixel: &[f32], output: &mut [f32]) {
    output.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += weight * value);
}
