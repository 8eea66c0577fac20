//! The transforms of Winograd's tiles: images and weights to what is multiplied, products to outputs with
//! the epilogue.

use std::ops::Range;

use super::lines::{input_line, output_line, weight_line};
use super::{Tile, Tiling, row_floats};
use crate::epilogue::{EpilogueF32, Output, Residual};
use crate::isa::Isa;
use crate::map::map_f32_in_place;
use crate::vector::{Vector, vectorised};

/// What the first transform works on.
pub(super) struct Images<'a> {
    pub tiling: &'a Tiling,
    pub tiles: Range<usize>,
    pub input: *const f32,
    pub padding: *const f32,
    /// `[matrix][tile][channel]`, from the first of the tiles on.
    pub to: *mut f32,
}

/// What the last transform works on.
pub(super) struct Job<'a> {
    pub tiling: &'a Tiling,
    pub tiles: Range<usize>,
    pub columns: Range<usize>,
    /// `[matrix][tile][column]`.
    pub products: *const f32,
    pub epilogue: &'a EpilogueF32<'a>,
    pub output: Output<f32>,
}

/// The activation where it is not a clamp.
///
/// # Safety
/// The output covers the job's pixels.
pub(super) unsafe fn activate(isa: Isa, job: &Job<'_>) {
    let Some(function) = job.epilogue.activation.function() else { return };
    let [height, width] = job.tiling.output;
    let size = job.tiling.tile.outputs();
    for tile in job.tiles.clone() {
        let [image, top, left] = job.tiling.place(tile);
        for y in top..height.min(top + size) {
            for x in left..width.min(left + size) {
                let pixel = (image * height + y) * width + x;
                // SAFETY: the caller's promise.
                let values = unsafe {
                    let first = pixel * job.output.row_stride + job.columns.start;
                    std::slice::from_raw_parts_mut(job.output.pointer.add(first), job.columns.len())
                };
                map_f32_in_place(isa, function, values);
            }
        }
    }
}

vectorised! {
    pub(super) fn transform_weights(
        isa,
        weights: &[f32],
        depth: usize,
        tile: Tile,
        transformed: &mut [f32],
    ) = weights_any;
    pub(super) fn transform_inputs(isa, images: &Images<'_>) = inputs_any;
    pub(super) fn transform_products(isa, job: &Job<'_>) = products_any;
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
fn inputs_any<V: Vector>(images: &Images<'_>) {
    // SAFETY: `transform_f32` made them; its caller vouches for what they point to.
    unsafe {
        match images.tiling.tile {
            Tile::Two => inputs_of::<V, 4>(images),
            Tile::Four => inputs_of::<V, 6>(images),
        }
    }
}

#[inline(always)]
fn products_any<V: Vector>(job: &Job<'_>) {
    // SAFETY: `multiply_f32` made the job; its caller vouches for output and residual.
    unsafe {
        match job.tiling.tile {
            Tile::Two => products_of::<V, 4, 2>(job),
            Tile::Four => products_of::<V, 6, 4>(job),
        }
    }
}

/// # Safety
/// Images, padding and scratch are as [`transform_f32`] says; tiles have `N` inputs.
#[inline(always)]
unsafe fn inputs_of<V: Vector, const N: usize>(images: &Images<'_>) {
    let tiling = images.tiling;
    let channels = tiling.channels;
    let matrix = tiling.matrix_floats(channels);
    for (row, tile) in images.tiles.clone().enumerate() {
        let pixels = pixels_of::<N>(images, tile);
        // SAFETY: as promised; the scratch has this row in every matrix, with room for whole
        // vectors.
        unsafe {
            let to = images.to.add(row * row_floats(channels));
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
fn pixels_of<const N: usize>(images: &Images<'_>, tile: usize) -> [[*const f32; N]; N] {
    let window = &images.tiling.window;
    let [image, top, left] = images.tiling.place(tile);
    let [height, width] = window.input;
    let mut pixels = [[images.padding; N]; N];
    for (i, line) in pixels.iter_mut().enumerate() {
        let Some(y) = (top + i).checked_sub(window.pad_before[0]).filter(|&y| y < height) else {
            continue;
        };
        for (j, pixel) in line.iter_mut().enumerate() {
            if let Some(x) = (left + j).checked_sub(window.pad_before[1])
                && x < width
            {
                let at = (image * height + y) * width + x;
                *pixel = images.input.wrapping_add(at * images.tiling.channels);
            }
        }
    }
    pixels
}

/// # Safety
/// Scratch, output and residual of the job are as [`multiply_f32`] says; tiles have `N` inputs and
/// `OUT` outputs.
#[inline(always)]
unsafe fn products_of<V: Vector, const N: usize, const OUT: usize>(job: &Job<'_>) {
    let columns = job.tiling.columns;
    let matrix = job.tiling.matrix_floats(columns);
    for (row, tile) in job.tiles.clone().enumerate() {
        let from = job.products.wrapping_add(row * row_floats(columns));
        for c in job.columns.clone().step_by(V::LANES) {
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
    let left = job.columns.end - c;
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
