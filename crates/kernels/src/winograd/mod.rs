//! 3×3 convolution of stride 1 with fewer multiplications (Winograd; Lavin and Gray, "Fast
//! algorithms for convolutional neural networks", 2016): tiles of the image and the weights are
//! transformed, multiplied as 16 or 36 matrices, and transformed back.
//!
//! Tiles of 2×2 outputs take 16 products for 36, those of 4×4 take 36 for 144. The points of the
//! larger ones are 0, ±√½, ±√2 and infinity, which lose less than the usual 0, ±1, ±2: on random
//! images of 256 channels the error is 2 times that of the direct sum, instead of 4.

mod lines;
mod stored;

use std::ops::Range;

use crate::conv::{Indirection, Window};
use crate::epilogue::{EpilogueF32, Output, Residual};
use crate::gemm::{Input, gemm_f32_before};
use crate::isa::Isa;
use crate::map::map_f32_in_place;
use crate::pack::{PackedF32, WeightOrder};
use crate::vector::{Vector, vectorised};
use lines::{input_line, output_line, weight_line};

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

/// Weights are divided between threads where they are so many times what the threads then exchange.
const SHARED_WEIGHTS: usize = 4;

/// One of those who compute blocks together.
pub trait Member {
    /// Its part of `0..end`; those of all members cover it.
    fn part(&self, end: usize) -> Range<usize>;
    /// Returns when all have come, and sees what they wrote before.
    fn meet(&self);
}

/// Who computes blocks alone.
pub struct Alone;

impl Member for Alone {
    fn part(&self, end: usize) -> Range<usize> {
        0..end
    }

    fn meet(&self) {}
}

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
    shared: bool,
    rows_in: Indirection,
}

impl Tiling {
    /// Tiles of `images` images of `channels` channels with `columns` output channels, or `None` where
    /// the window is not 3×3 of stride and dilation 1. Each of so many threads has as many blocks;
    /// where weights are most of what is read, all of them do every block together.
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
        let room = BLOCK_BYTES[usize::from(weight_bytes > 1 << 20)];
        let exchanged = 4 * tile.matrices() * total * (channels + columns);
        let shared = threads > 1 && weight_bytes / SHARED_WEIGHTS >= exchanged;
        let apart = if shared { 1 } else { threads.max(1) };
        let blocks = total.div_ceil((room / bytes).max(12)).next_multiple_of(apart);
        Some(Tiling {
            window: *window,
            tile,
            tiles,
            output,
            images,
            channels,
            columns,
            block: total.div_ceil(blocks),
            shared,
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

    /// Blocks of tiles, which threads share.
    pub fn blocks(&self) -> usize {
        self.total().div_ceil(self.block)
    }

    /// True if threads do every block together, over the same scratch.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Floats of scratch for one thread, or for those who do blocks together.
    pub fn scratch_floats(&self) -> usize {
        let lines = row_floats(self.channels) + row_floats(self.columns);
        // A line between matrices, so that they do not lie in step.
        self.tile.matrices() * (self.block * lines + 32)
    }

    /// Image, and first output row and column of a tile.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [down, across] = self.tiles;
        let size = self.tile.outputs();
        let (image, at) = (tile / (down * across), tile % (down * across));
        [image, at / across * size, at % across * size]
    }
}

/// What the transforms of a block work on.
struct Job<'a> {
    tiling: &'a Tiling,
    /// The block's first tile.
    first: usize,
    /// Those of the block to transform.
    tiles: Range<usize>,
    input: *const f32,
    padding: *const f32,
    /// `[matrix][tile][channel]`.
    transformed: *mut f32,
    /// `[matrix][tile][column]`.
    products: *mut f32,
    epilogue: &'a EpilogueF32<'a>,
    output: Output<f32>,
}

impl Job<'_> {
    /// Floats between matrices of rows of so many channels.
    fn matrix_floats(&self, channels: usize) -> usize {
        self.tiling.block * row_floats(channels) + 16
    }
}

/// A member's part of a convolution of f32 images, for a range of blocks of tiles. What is read `next`
/// is brought near meanwhile.
///
/// # Panics
/// If weights or epilogue do not fit the tiling.
///
/// # Safety
/// `input` are the tiling's NHWC images, `padding` its channels and 16 more zeros; `output` and
/// the residual cover every pixel; `scratch` has [`Tiling::scratch_floats`]; nobody but the members
/// touches it or the blocks' pixels meanwhile.
pub unsafe fn winograd_f32(
    isa: Isa,
    tiling: &Tiling,
    input: *const f32,
    padding: *const f32,
    weights: &PackedWinograd,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    scratch: *mut f32,
    blocks: Range<usize>,
    next: &[u8],
    member: &dyn Member,
) {
    let (channels, columns) = (tiling.channels, tiling.columns);
    let fit = (weights.tile, weights.depth(), weights.columns());
    assert_eq!(fit, (tiling.tile, channels, columns), "weights of another tiling");
    assert!(epilogue.bias.is_none_or(|bias| bias.len() >= columns), "bias");
    for block in blocks {
        let first = block * tiling.block;
        let count = tiling.block.min(tiling.total() - first);
        let tiles = member.part(count);
        let mut job = Job {
            tiling,
            first,
            tiles,
            input,
            padding,
            transformed: scratch,
            products: scratch,
            epilogue,
            output: *output,
        };
        let matrix = job.matrix_floats(channels);
        job.products = scratch.wrapping_add(tiling.tile.matrices() * matrix);
        transform_inputs(isa, &job);
        member.meet();
        let matrices = member.part(weights.matrices.len());
        for (i, matrix_weights) in matrices.clone().zip(&weights.matrices[matrices]) {
            let base = scratch.wrapping_add(i * matrix).cast_const();
            let pointer = job.products.wrapping_add(i * job.matrix_floats(columns));
            let input = Input { base, rows: &tiling.rows_in, padding: base };
            let output = Output { pointer, row_stride: row_floats(columns) };
            let plain = EpilogueF32::default();
            let next = weights.matrices.get(i + 1).map_or(next, |weights| weights.bytes());
            let (rows, all) = (0..count, 0..columns);
            // SAFETY: the scratch holds `count` rows of inputs and products for every matrix.
            unsafe {
                gemm_f32_before(isa, &input, matrix_weights, &plain, &output, rows, all, next);
            }
        }
        member.meet();
        transform_products(isa, &job);
        // SAFETY: the caller's promise.
        unsafe { activate(isa, &job) };
    }
}

/// The activation where it is not a clamp.
///
/// # Safety
/// The output covers the job's pixels.
unsafe fn activate(isa: Isa, job: &Job<'_>) {
    let Some(function) = job.epilogue.activation.function() else { return };
    let [height, width] = job.tiling.output;
    let size = job.tiling.tile.outputs();
    for tile in job.tiles.clone() {
        let [image, top, left] = job.tiling.place(job.first + tile);
        for y in top..height.min(top + size) {
            for x in left..width.min(left + size) {
                let pixel = (image * height + y) * width + x;
                // SAFETY: the caller's promise.
                let values = unsafe {
                    let first = job.output.pointer.add(pixel * job.output.row_stride);
                    std::slice::from_raw_parts_mut(first, job.tiling.columns)
                };
                map_f32_in_place(isa, function, values);
            }
        }
    }
}

vectorised! {
    fn transform_weights(
        isa,
        weights: &[f32],
        depth: usize,
        tile: Tile,
        transformed: &mut [f32],
    ) = weights_any;
    fn transform_inputs(isa, job: &Job<'_>) = inputs_any;
    fn transform_products(isa, job: &Job<'_>) = products_any;
}

#[inline(always)]
fn weights_any<V: Vector>(weights: &[f32], depth: usize, tile: Tile, transformed: &mut [f32]) {
    match tile {
        Tile::Two => weights_of::<V, 4>(weights, depth, transformed),
        Tile::Four => weights_of::<V, 6>(weights, depth, transformed),
    }
}

/// `[out][9][depth]` to `[N²][out][depth]`.
#[inline(always)]
fn weights_of<V: Vector, const N: usize>(weights: &[f32], depth: usize, transformed: &mut [f32]) {
    let matrix = transformed.len() / (N * N);
    let columns = matrix / depth.max(1);
    assert!(weights.len() >= 9 * matrix && transformed.len() == N * N * columns * depth, "weights");
    for m in 0..columns {
        for c in (0..depth).step_by(V::LANES) {
            let left = depth - c;
            // SAFETY: taps and matrices were checked; vectors end with the channels.
            unsafe {
                let from = weights.as_ptr().add(m * 9 * depth + c);
                let mut lines = [[V::splat(0.0); N]; 3];
                for (i, line) in lines.iter_mut().enumerate() {
                    let tap = |j: usize| V::load_upto(from.add((i * 3 + j) * depth), left);
                    *line = weight_line([tap(0), tap(1), tap(2)]);
                }
                let to = transformed.as_mut_ptr().add(m * depth + c);
                let [top, middle, bottom] = lines;
                for j in 0..N {
                    let values = weight_line::<V, N>([top[j], middle[j], bottom[j]]);
                    for (i, value) in values.into_iter().enumerate() {
                        value.store_upto(to.add((i * N + j) * matrix), left);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn inputs_any<V: Vector>(job: &Job<'_>) {
    // SAFETY: `winograd_f32` made the job; its caller vouches for the images.
    unsafe {
        match job.tiling.tile {
            Tile::Two => inputs_of::<V, 4>(job),
            Tile::Four => inputs_of::<V, 6>(job),
        }
    }
}

#[inline(always)]
fn products_any<V: Vector>(job: &Job<'_>) {
    // SAFETY: `winograd_f32` made the job; its caller vouches for output and residual.
    unsafe {
        match job.tiling.tile {
            Tile::Two => products_of::<V, 4, 2>(job),
            Tile::Four => products_of::<V, 6, 4>(job),
        }
    }
}

/// # Safety
/// Images, padding and scratch of the job are as [`winograd_f32`] says; tiles have `N` inputs.
#[inline(always)]
unsafe fn inputs_of<V: Vector, const N: usize>(job: &Job<'_>) {
    let tiling = job.tiling;
    let channels = tiling.channels;
    let matrix = job.matrix_floats(channels);
    for row in job.tiles.clone() {
        let pixels = pixels_of::<N>(job, job.first + row);
        // SAFETY: as promised; the scratch has this row in every matrix, with room for whole
        // vectors.
        unsafe {
            let to = job.transformed.add(row * row_floats(channels));
            for c in (0..channels).step_by(V::LANES) {
                let left = channels - c;
                let mut lines = [[V::splat(0.0); N]; N];
                for (line, pixels) in lines.iter_mut().zip(&pixels) {
                    let mut x = [V::splat(0.0); N];
                    for (x, pixel) in x.iter_mut().zip(pixels) {
                        *x = V::load_upto(pixel.add(c), left);
                    }
                    *line = input_line(x);
                }
                for j in 0..N {
                    let mut x = [V::splat(0.0); N];
                    for (x, line) in x.iter_mut().zip(&lines) {
                        *x = line[j];
                    }
                    for (i, y) in input_line(x).into_iter().enumerate() {
                        y.store(to.add((i * N + j) * matrix + c));
                    }
                }
            }
        }
    }
}

/// Where a tile's pixels are.
#[inline(always)]
fn pixels_of<const N: usize>(job: &Job<'_>, tile: usize) -> [[*const f32; N]; N] {
    let window = &job.tiling.window;
    let [image, top, left] = job.tiling.place(tile);
    let [height, width] = window.input;
    let mut pixels = [[job.padding; N]; N];
    for (i, line) in pixels.iter_mut().enumerate() {
        let Some(y) = (top + i).checked_sub(window.pad_before[0]).filter(|&y| y < height) else {
            continue;
        };
        for (j, pixel) in line.iter_mut().enumerate() {
            if let Some(x) = (left + j).checked_sub(window.pad_before[1])
                && x < width
            {
                let at = (image * height + y) * width + x;
                *pixel = job.input.wrapping_add(at * job.tiling.channels);
            }
        }
    }
    pixels
}

/// # Safety
/// Scratch, output and residual of the job are as [`winograd_f32`] says; tiles have `N` inputs and
/// `OUT` outputs.
#[inline(always)]
unsafe fn products_of<V: Vector, const N: usize, const OUT: usize>(job: &Job<'_>) {
    let columns = job.tiling.columns;
    let matrix = job.matrix_floats(columns);
    for row in job.tiles.clone() {
        let tile = job.first + row;
        let from = job.products.wrapping_add(row * row_floats(columns));
        for c in (0..columns).step_by(V::LANES) {
            let mut lines = [[V::splat(0.0); N]; OUT];
            // SAFETY: the scratch has this row in every matrix, with room for whole vectors;
            // the rest as promised.
            unsafe {
                for j in 0..N {
                    let mut x = [V::splat(0.0); N];
                    for (i, x) in x.iter_mut().enumerate() {
                        *x = V::load(from.add((i * N + j) * matrix + c));
                    }
                    for (line, y) in lines.iter_mut().zip(output_line::<V, N, OUT>(x)) {
                        line[j] = y;
                    }
                }
                store_tile::<V, N, OUT>(job, tile, c, lines);
            }
        }
    }
}

/// The last transform and the epilogue of a vector of columns.
///
/// # Safety
/// As [`products_of`].
#[inline(always)]
unsafe fn store_tile<V: Vector, const N: usize, const OUT: usize>(
    job: &Job<'_>,
    tile: usize,
    c: usize,
    lines: [[V; N]; OUT],
) {
    let EpilogueF32 { alpha, bias, residual, activation } = *job.epilogue;
    let left = job.tiling.columns - c;
    let [height, width] = job.tiling.output;
    let [image, top, first] = job.tiling.place(tile);
    let (low, high) = activation.bounds();
    let (low, high, alpha) = (V::splat(low), V::splat(high), V::splat(alpha));
    // SAFETY: pixels inside the output are covered by output and residual, as the caller vouches.
    unsafe {
        let bias = match bias {
            Some(bias) => V::load_upto(bias.as_ptr().add(c), left),
            None => V::splat(0.0),
        };
        for (i, line) in lines.into_iter().enumerate() {
            if top + i >= height {
                break;
            }
            for (j, value) in output_line::<V, N, OUT>(line).into_iter().enumerate() {
                if first + j < width {
                    let pixel = (image * height + top + i) * width + first + j;
                    let mut value = value.mul_add(alpha, bias);
                    if let Some(Residual { pointer, row_stride }) = residual {
                        value = value + V::load_upto(pointer.add(pixel * row_stride + c), left);
                    }
                    let to = job.output.pointer.add(pixel * job.output.row_stride + c);
                    value.clamp(low, high).store_upto(to, left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3×3 with a pixel around.
    fn padded(input: [usize; 2]) -> Window {
        let [kernel, stride, dilation] = [[3, 3], [1, 1], [1, 1]];
        Window { input, kernel, stride, dilation, pad_before: [1, 1], pad_after: [1, 1] }
    }

    #[test]
    fn every_thread_has_as_many_blocks() {
        let window = padded([14, 14]);
        for threads in 1..=4 {
            for channels in [64, 128, 256] {
                let tiling =
                    Tiling::of(&window, 4, channels, channels, Tile::Two, threads).unwrap();
                let blocks = tiling.blocks();
                assert!(
                    !tiling.is_shared() && blocks.is_multiple_of(threads),
                    "{blocks} blocks for {threads}"
                );
            }
        }
    }

    #[test]
    fn threads_divide_weights_that_are_most_of_what_is_read() {
        let shared = |extent, channels, threads| {
            let window = padded([extent, extent]);
            Tiling::of(&window, 1, channels, channels, Tile::Four, threads).unwrap().is_shared()
        };
        assert!(shared(14, 256, 2) && shared(12, 96, 2));
        assert!(!shared(14, 256, 1) && !shared(56, 256, 2));
    }

    #[test]
    fn other_windows_have_no_tiling() {
        let window = Window { stride: [2, 2], ..padded([8, 8]) };
        assert!(Tiling::of(&window, 1, 16, 16, Tile::Four, 1).is_none());
        let wide = Window { stride: [1, 1], dilation: [2, 2], ..window };
        assert!(Tiling::of(&wide, 1, 16, 16, Tile::Two, 1).is_none());
    }
}
