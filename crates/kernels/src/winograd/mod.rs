//! 3×3 convolution of stride 1 with fewer multiplications (Winograd; Lavin and Gray, "Fast
//! algorithms for convolutional neural networks", 2016): tiles of the image and the weights are
//! transformed, multiplied as 16 or 36 matrices, and transformed back.
//!
//! Tiles of 2×2 outputs take 16 products for 36, those of 4×4 take 36 for 144. The points of the
//! larger ones are 0, ±√½, ±√2 and infinity, which lose less than the usual 0, ±1, ±2: on random
//! images of 256 channels the error is 2 times that of the direct sum, instead of 4.

mod lines;
mod stored;
mod transforms;

use std::ops::Range;

use crate::conv::{Indirection, Window};
use crate::epilogue::{EpilogueF32, Output};
use crate::gemm::{Input, gemm_f32_before};
use crate::isa::Isa;
use crate::pack::{PackedF32, WeightOrder};
use transforms::{Images, Job, activate, transform_inputs, transform_products, transform_weights};

/// Outputs of a tile, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// 2×2 outputs of 4×4 inputs.
    Two,
    /// 4×4 outputs of 6×6 inputs.
    Four,
}

impl Tile {
    /// Outputs in each direction.
    pub fn outputs(self) -> usize {
        if self == Tile::Two { 2 } else { 4 }
    }

    /// Inputs in each direction.
    pub fn inputs(self) -> usize {
        self.outputs() + 2
    }

    /// Matrices to multiply.
    pub fn matrices(self) -> usize {
        self.inputs() * self.inputs()
    }
}

/// Transformed weights: one matrix for each pair of points.
#[derive(Clone, Debug)]
pub struct PackedWinograd {
    tile: Tile,
    matrices: Vec<PackedF32>,
}

impl PackedWinograd {
    /// Transforms weights `[out][3][3][in]`.
    ///
    /// # Panics
    /// If there are fewer weights.
    pub fn pack(weights: &[f32], columns: usize, depth: usize, tile: Tile) -> Self {
        let count = columns * depth;
        assert!(weights.len() >= 9 * count, "nine taps of {columns} × {depth} weights");
        let mut transformed = vec![0.0; tile.matrices() * count];
        transform_weights(Isa::best(), weights, depth, tile, &mut transformed);
        let order = WeightOrder::transposed(columns, depth);
        let matrices = transformed.chunks_exact(count.max(1));
        let matrices = matrices.map(|values| PackedF32::pack(values, &order)).collect();
        PackedWinograd { tile, matrices }
    }

    /// The first bytes the kernel reads.
    pub fn first_bytes(&self) -> &[u8] {
        self.matrices[0].bytes()
    }

    fn columns(&self) -> usize {
        self.matrices[0].columns()
    }

    fn depth(&self) -> usize {
        self.matrices[0].depth()
    }
}

/// Floats between rows of transformed values: no power of two, whatever the channels.
fn row_floats(channels: usize) -> usize {
    channels.next_multiple_of(16) + 16
}

/// Bytes of transformed inputs and products at a time where the weights stay in L2 beside them,
/// and where they do not and are better read once.
const BLOCK_BYTES: [usize; 2] = [768 << 10, 2 << 20];

/// Bytes of transformed weights above which they do not stay in L2.
const FAR_WEIGHTS: usize = 1 << 20;

/// How images are cut into tiles.
#[derive(Clone, Debug)]
pub struct Tiling {
    window: Window,
    tile: Tile,
    /// Tiles down and across an image.
    tiles: [usize; 2],
    /// Output pixels down and across.
    output: [usize; 2],
    images: usize,
    channels: usize,
    columns: usize,
    /// Tiles at a time.
    block: usize,
    by_columns: bool,
    rows_in: Indirection,
}

impl Tiling {
    /// Tiles of `images` images of `channels` channels with `columns` output channels, for so many
    /// threads, or `None` where the window is not 3×3 of stride and dilation 1.
    pub fn of(
        window: &Window,
        images: usize,
        channels: usize,
        columns: usize,
        tile: Tile,
        threads: usize,
    ) -> Option<Self> {
        let plain = window.kernel == [3, 3] && window.stride == [1, 1] && window.dilation == [1, 1];
        let output = window.output().filter(|_| plain && images * channels * columns > 0)?;
        let tiles = output.map(|extent| extent.div_ceil(tile.outputs()));
        let total = images * tiles[0] * tiles[1];
        let weight_bytes = 4 * tile.matrices() * channels * columns;
        let bytes = 4 * tile.matrices() * (row_floats(channels) + row_floats(columns));
        let far = weight_bytes > FAR_WEIGHTS;
        let by_columns = far && threads > 1 && columns >= 16 * threads;
        let mut blocks = total.div_ceil((BLOCK_BYTES[usize::from(far)] / bytes).max(12));
        if !by_columns {
            blocks = blocks.next_multiple_of(threads.max(1));
        }
        Some(Tiling {
            window: *window,
            tile,
            tiles,
            output,
            images,
            channels,
            columns,
            block: total.div_ceil(blocks),
            by_columns,
            rows_in: Indirection::strided(row_floats(channels)),
        })
    }

    /// The size of its tiles.
    pub fn tile(&self) -> Tile {
        self.tile
    }

    /// Tiles in all.
    pub fn total(&self) -> usize {
        self.images * self.tiles[0] * self.tiles[1]
    }

    /// Blocks of tiles: threads share them, unless [`Tiling::by_columns`].
    pub fn blocks(&self) -> usize {
        self.total().div_ceil(self.block)
    }

    /// True where weights do not stay in L2, so that threads do best to read each its own: all
    /// threads are to work on the same block, first on the [transforms](transform_f32) of tiles,
    /// then each on [its columns](multiply_f32).
    pub fn by_columns(&self) -> bool {
        self.by_columns
    }

    /// The tiles of a block.
    pub fn tiles(&self, block: usize) -> Range<usize> {
        let first = block * self.block;
        first..self.total().min(first + self.block)
    }

    /// Floats of scratch for a block.
    pub fn scratch_floats(&self) -> usize {
        let lines = row_floats(self.channels) + row_floats(self.columns);
        // A line between matrices, so that they do not lie in step.
        self.tile.matrices() * (self.block * lines + 32)
    }

    /// Floats between matrices of rows of so many channels.
    fn matrix_floats(&self, channels: usize) -> usize {
        self.block * row_floats(channels) + 16
    }

    /// Image, and first output row and column of a tile.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [down, across] = self.tiles;
        let size = self.tile.outputs();
        let (image, at) = (tile / (down * across), tile % (down * across));
        [image, at / across * size, at % across * size]
    }
}

/// A convolution of f32 images for a range of blocks of tiles. What is read `next` is brought
/// near meanwhile.
///
/// # Panics
/// If weights, epilogue or scratch do not fit the tiling.
///
/// # Safety
/// `input` are the tiling's NHWC images, `padding` its channels and 16 more zeros; `output` and
/// the residual cover every pixel; nobody else touches the blocks' pixels meanwhile.
pub unsafe fn winograd_f32(
    isa: Isa,
    tiling: &Tiling,
    input: *const f32,
    padding: *const f32,
    weights: &PackedWinograd,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    scratch: &mut [f32],
    blocks: Range<usize>,
    next: &[u8],
) {
    assert!(scratch.len() >= tiling.scratch_floats(), "scratch");
    let (scratch, columns) = (scratch.as_mut_ptr(), 0..tiling.columns);
    for block in blocks {
        let tiles = tiling.tiles(block);
        // SAFETY: the caller's promise; nobody else has the scratch.
        unsafe {
            transform_f32(isa, tiling, input, padding, scratch, block, tiles);
            let columns = columns.clone();
            multiply_f32(isa, tiling, weights, epilogue, output, scratch, block, columns, next);
        }
    }
}

/// The first half of [`winograd_f32`]: transforms some tiles of a block into its scratch.
///
/// # Panics
/// If the block does not have the tiles.
///
/// # Safety
/// `input` and `padding` as for [`winograd_f32`]; `scratch` has [`Tiling::scratch_floats`], of
/// which nobody else touches what is of these tiles.
pub unsafe fn transform_f32(
    isa: Isa,
    tiling: &Tiling,
    input: *const f32,
    padding: *const f32,
    scratch: *mut f32,
    block: usize,
    tiles: Range<usize>,
) {
    let all = tiling.tiles(block);
    assert!(all.start <= tiles.start && tiles.end <= all.end, "tiles of another block");
    let first = tiles.start.wrapping_sub(all.start) * row_floats(tiling.channels);
    let images = Images { tiling, tiles, input, padding, to: scratch.wrapping_add(first) };
    transform_inputs(isa, &images);
}

/// The second half of [`winograd_f32`]: some columns of a block whose tiles were all transformed.
/// Ranges of columns begin at multiples of 16.
///
/// # Panics
/// If weights or epilogue do not fit the tiling.
///
/// # Safety
/// `output` and the residual as for [`winograd_f32`]; `scratch` has what [`transform_f32`] wrote,
/// and nobody writes to that; nobody else touches the block's pixels in these columns.
pub unsafe fn multiply_f32(
    isa: Isa,
    tiling: &Tiling,
    weights: &PackedWinograd,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    scratch: *mut f32,
    block: usize,
    columns: Range<usize>,
    next: &[u8],
) {
    let fit = (weights.tile, weights.depth(), weights.columns());
    assert_eq!(fit, (tiling.tile, tiling.channels, tiling.columns), "weights of another tiling");
    assert!(epilogue.bias.is_none_or(|bias| bias.len() >= columns.end), "bias");
    assert!(columns.start.is_multiple_of(16) && columns.end <= tiling.columns, "columns");
    let (tiles, matrix) = (tiling.tiles(block), tiling.matrix_floats(tiling.channels));
    let products = scratch.wrapping_add(tiling.tile.matrices() * matrix);
    for (i, matrix_weights) in weights.matrices.iter().enumerate() {
        let base = scratch.wrapping_add(i * matrix).cast_const();
        let pointer = products.wrapping_add(i * tiling.matrix_floats(tiling.columns));
        let input = Input { base, rows: &tiling.rows_in, padding: base };
        let output = Output { pointer, row_stride: row_floats(tiling.columns) };
        let plain = EpilogueF32::default();
        let next = weights.matrices.get(i + 1).map_or(next, |weights| {
            let bytes = weights.bytes();
            &bytes[bytes.len() / tiling.columns * columns.start..]
        });
        let (rows, columns) = (0..tiles.len(), columns.clone());
        // SAFETY: the scratch holds rows of inputs and products of the block's tiles for every
        // matrix.
        unsafe {
            gemm_f32_before(isa, &input, matrix_weights, &plain, &output, rows, columns, next);
        }
    }
    let job =
        Job { tiling, tiles, columns, products: products.cast_const(), epilogue, output: *output };
    transform_products(isa, &job);
    // SAFETY: the caller's promise.
    unsafe { activate(isa, &job) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epilogue::{Activation, Residual};

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 211) as f32 / 211.0 - 0.5).collect()
    }

    /// The convolution by its definition, in double precision.
    fn direct(x: &[f32], w: &[f32], window: &Window, at: [usize; 3], m: usize, c: usize) -> f64 {
        let [height, width] = window.input;
        let mut sum = 0.0;
        for tap in 0..9 {
            let y = (at[1] + tap / 3).checked_sub(window.pad_before[0]).filter(|&y| y < height);
            let across = (at[2] + tap % 3).checked_sub(window.pad_before[1]);
            let (Some(y), Some(across)) = (y, across.filter(|&x| x < width)) else { continue };
            for k in 0..c {
                let pixel = x[((at[0] * height + y) * width + across) * c + k];
                sum += f64::from(pixel) * f64::from(w[(m * 9 + tap) * c + k]);
            }
        }
        sum
    }

    /// In the order of two threads, where the tiling is for them.
    ///
    /// # Safety
    /// The pointers are to what the tiling has.
    unsafe fn run(
        isa: Isa,
        tiling: &Tiling,
        x: &[f32],
        weights: &PackedWinograd,
        epilogue: &EpilogueF32,
        output: &Output<f32>,
    ) {
        let (x, padding) = (x.as_ptr(), vec![0.0; tiling.channels + 16]);
        let padding = padding.as_ptr();
        let mut scratch = vec![f32::NAN; tiling.scratch_floats()];
        if !tiling.by_columns() {
            let blocks = 0..tiling.blocks();
            // SAFETY: the caller's promise.
            return unsafe {
                winograd_f32(
                    isa,
                    tiling,
                    x,
                    padding,
                    weights,
                    epilogue,
                    output,
                    &mut scratch,
                    blocks,
                    &[],
                );
            };
        }
        let scratch = scratch.as_mut_ptr();
        for block in 0..tiling.blocks() {
            let tiles = tiling.tiles(block);
            let (middle, columns) = (tiles.start.midpoint(tiles.end), tiling.columns);
            // SAFETY: the caller's promise.
            unsafe {
                for tiles in [middle..tiles.end, tiles.start..middle] {
                    transform_f32(isa, tiling, x, padding, scratch, block, tiles);
                }
                for columns in [16..columns, 0..16] {
                    multiply_f32(
                        isa,
                        tiling,
                        weights,
                        epilogue,
                        output,
                        scratch,
                        block,
                        columns,
                        &[],
                    );
                }
            }
        }
    }

    /// A convolution and its operands, of which pixels have `c` channels and results `m`.
    struct Example {
        window: Window,
        extents: [usize; 3],
        x: Vec<f32>,
        w: Vec<f32>,
        bias: Vec<f32>,
        residual: Vec<f32>,
    }

    impl Example {
        fn new(input: [usize; 2], pad: usize, extents: [usize; 3]) -> Self {
            let ([pad_before, pad_after], [n, c, m]) = ([[pad; 2]; 2], extents);
            let (kernel, stride, dilation) = ([3, 3], [1, 1], [1, 1]);
            let window = Window { input, kernel, stride, dilation, pad_before, pad_after };
            let [height, width] = window.output().unwrap();
            let x = values(n * input[0] * input[1] * c, 1);
            let (w, bias) = (values(m * 9 * c, 2), values(m, 3));
            let residual = values(n * height * width * m, 4);
            Example { window, extents, x, w, bias, residual }
        }

        fn tiling(&self, tile: Tile, threads: usize) -> Tiling {
            let [n, c, m] = self.extents;
            Tiling::of(&self.window, n, c, m, tile, threads).unwrap()
        }

        fn run(&self, isa: Isa, tiling: &Tiling, activation: Activation) -> Vec<f32> {
            let [_, c, m] = self.extents;
            let packed = PackedWinograd::pack(&self.w, m, c, tiling.tile);
            let residual = Residual { pointer: self.residual.as_ptr(), row_stride: m };
            let (alpha, residual, bias) = (0.5, Some(residual), Some(&self.bias[..]));
            let epilogue = EpilogueF32 { alpha, bias, residual, activation };
            let mut y = vec![f32::NAN; self.residual.len()];
            let output = Output { pointer: y.as_mut_ptr(), row_stride: m };
            // SAFETY: images, padding, output and residual have the tiling's extents.
            unsafe { run(isa, tiling, &self.x, &packed, &epilogue, &output) };
            y
        }

        fn check(&self, isa: Isa, tile: Tile) {
            let [_, c, m] = self.extents;
            let [height, width] = self.window.output().unwrap();
            for activation in [Activation::Relu, Activation::Silu] {
                let y = self.run(isa, &self.tiling(tile, 1), activation);
                for (i, &value) in y.iter().enumerate() {
                    let (pixel, column) = (i / m, i % m);
                    let place = [pixel / (height * width), pixel / width % height, pixel % width];
                    let sum = direct(&self.x, &self.w, &self.window, place, column, c);
                    let others = f64::from(self.bias[column]) + f64::from(self.residual[i]);
                    let sum = 0.5 * sum + others;
                    let want = match activation {
                        Activation::Relu => sum.max(0.0),
                        _ => sum / (1.0 + (-sum).exp()),
                    };
                    let error = (f64::from(value) - want).abs();
                    assert!(error < 1e-5, "{isa} {tile:?} {:?}: {value} {want}", self.window);
                }
            }
        }
    }

    #[test]
    fn tiles_give_the_convolution_on_every_set() {
        for isa in Isa::available() {
            for tile in [Tile::Two, Tile::Four] {
                Example::new([7, 7], 1, [1, 20, 40]).check(isa, tile);
                Example::new([8, 12], 0, [2, 16, 16]).check(isa, tile);
                Example::new([3, 3], 1, [1, 3, 5]).check(isa, tile);
                Example::new([13, 6], 1, [1, 33, 7]).check(isa, tile);
            }
            Example::new([40, 40], 1, [1, 64, 64]).check(isa, Tile::Two);
        }
    }

    #[test]
    fn threads_with_columns_of_their_own_give_the_same() {
        for isa in Isa::available() {
            for tile in [Tile::Two, Tile::Four] {
                let example = Example::new([5, 6], 1, [2, 180, 100]);
                let (alone, shared) = (example.tiling(tile, 1), example.tiling(tile, 2));
                assert!(!alone.by_columns() && shared.by_columns());
                let [alone, shared] =
                    [alone, shared].map(|tiling| example.run(isa, &tiling, Activation::Silu));
                assert_eq!(alone, shared, "{isa} {tile:?}");
            }
        }
    }

    #[test]
    fn other_windows_have_no_tiling() {
        let window = Window {
            input: [8, 8],
            kernel: [3, 3],
            stride: [2, 2],
            dilation: [1, 1],
            pad_before: [1, 1],
            pad_after: [1, 1],
        };
        assert!(Tiling::of(&window, 1, 16, 16, Tile::Four, 1).is_none());
        let wide = Window { stride: [1, 1], dilation: [2, 2], ..window };
        assert!(Tiling::of(&wide, 1, 16, 16, Tile::Two, 1).is_none());
    }
}
