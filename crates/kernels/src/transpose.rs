//! Moving elements: transposition, slices, expansion, concatenation, padding, gathering.
//!
//! Elements are opaque here; only their size (1, 2, 4 or 8 bytes) matters.

use crate::broadcast::{Broadcast, Run};
use crate::isa::Isa;
use half::{bf16, f16};
use std::ops::Range;

/// A plain element of 1, 2, 4 or 8 bytes.
pub trait Element: Copy + private::Sealed {}

mod private {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($kind:ty)+) => {$(
        impl private::Sealed for $kind {}
        impl Element for $kind {}
    )+};
}
elements! { bool u8 i8 u16 i16 f16 bf16 u32 i32 f32 u64 i64 f64 }

/// The walk that reads a dense tensor of `shape` in the order of its transpose: axis `i` of the
/// output is axis `axes[i]` of the input. `None` if `axes` is not a permutation or too many axes
/// remain after collapsing.
pub fn permutation(shape: &[usize], axes: &[usize]) -> Option<Broadcast<1>> {
    let mut seen = vec![false; shape.len()];
    for &axis in axes {
        if std::mem::replace(seen.get_mut(axis)?, true) {
            return None;
        }
    }
    let mut strides = vec![0_isize; shape.len()];
    let mut stride = 1_isize;
    for (place, &size) in strides.iter_mut().zip(shape).rev() {
        *place = stride;
        stride = stride.checked_mul(isize::try_from(size.max(1)).ok()?)?;
    }
    let sizes: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    let strides: Vec<isize> = axes.iter().map(|&axis| strides[axis]).collect();
    (axes.len() == shape.len()).then(|| Broadcast::strided(&sizes, [0], [&strides]))?
}

/// Writes a dense output from a strided input, for the `range` of output elements of the walk:
/// transposition, slicing with steps, flipping, expansion. `output` holds just the range.
///
/// # Panics
/// If a slice is shorter than the walk needs.
pub fn rearrange<T: Element>(
    isa: Isa,
    walk: &Broadcast<1>,
    range: Range<usize>,
    input: &[T],
    output: &mut [T],
) {
    walk.check(&range, [input.len()], output.len());
    let rank = walk.sizes().len();
    let inner = walk.strides(0).last().copied().unwrap_or(0);
    let swaps = rank >= 2 && inner != 1 && walk.strides(0)[rank - 2] == 1;
    if !swaps {
        return copy_runs(walk, range, input, output);
    }
    let (rows, columns) = (walk.sizes()[rank - 2], walk.sizes()[rank - 1]);
    let mut at = range.start;
    while at < range.end {
        let left = range.end - at;
        let within = at % columns;
        if within != 0 || left < columns {
            let count = (columns - within).min(left);
            copy_runs(walk, at..at + count, input, &mut output[at - range.start..][..count]);
            at += count;
            continue;
        }
        let (index, [first]) = walk.locate(at);
        let count = (rows - index[rank - 2]).min(left / columns);
        let block = Block {
            input: input.as_ptr().wrapping_offset(first),
            input_stride: inner,
            output: output[at - range.start..].as_mut_ptr(),
            output_stride: columns as isize,
            rows: count,
            columns,
        };
        // SAFETY: the walk was checked against both slices, and the block is a part of it.
        unsafe { block.transpose(isa) }
        at += count * columns;
    }
}

/// Copies stretches along the innermost axis.
fn copy_runs<T: Element>(walk: &Broadcast<1>, range: Range<usize>, input: &[T], output: &mut [T]) {
    let start = range.start;
    let [stride] = walk.inner_strides();
    for Run { at, first: [first], count } in walk.runs(range) {
        let run = &mut output[at - start..][..count];
        match stride {
            0 => run.fill(input[first]),
            1 => run.copy_from_slice(&input[first..][..count]),
            _ => {
                for (i, place) in run.iter_mut().enumerate() {
                    *place = input[first.wrapping_add_signed(i as isize * stride)];
                }
            }
        }
    }
}

/// Copies from strided places of the input (operand 0 of the walk) to strided places of the output
/// (operand 1): the inside of a padded tensor, one part of a concatenation, a slice.
///
/// # Panics
/// If a slice is shorter than the walk needs.
pub fn copy_between<T: Element>(walk: &Broadcast<2>, input: &[T], output: &mut [T]) {
    walk.check(&(0..walk.len()), [input.len(), output.len()], walk.len());
    let strides = walk.inner_strides();
    for Run { first: [from, to], count, .. } in walk.runs(0..walk.len()) {
        if strides == [1, 1] {
            output[to..][..count].copy_from_slice(&input[from..][..count]);
            continue;
        }
        for i in 0..count as isize {
            output[to.wrapping_add_signed(i * strides[1])] =
                input[from.wrapping_add_signed(i * strides[0])];
        }
    }
}

/// Copies row `indices[i]` of a table of rows of `length` elements to row `i` of the output;
/// negative indices count from the end. Gives the place of the first index outside the table.
///
/// # Errors
/// The position in `indices` of an index outside the table; rows before it are written.
///
/// # Panics
/// If the output does not hold one row for each index.
pub fn gather_rows<T: Element>(
    length: usize,
    indices: &[impl Copy + Into<i64>],
    table: &[T],
    output: &mut [T],
) -> Result<(), usize> {
    assert_eq!(output.len(), indices.len() * length, "one row for each index");
    let rows = table.len().checked_div(length).unwrap_or(usize::MAX);
    for (position, &index) in indices.iter().enumerate() {
        let index: i64 = index.into();
        let row = match usize::try_from(index) {
            Ok(row) => Some(row),
            Err(_) => usize::try_from(index.unsigned_abs()).ok().and_then(|n| rows.checked_sub(n)),
        };
        let row = row.filter(|&row| row < rows).ok_or(position)?;
        output[position * length..][..length].copy_from_slice(&table[row * length..][..length]);
    }
    Ok(())
}

/// A two-dimensional transposition: element (r, c) moves from `input[r + c · input_stride]` to
/// `output[r · output_stride + c]`. Strides are in elements.
pub(crate) struct Block<T> {
    pub(crate) input: *const T,
    pub(crate) input_stride: isize,
    pub(crate) output: *mut T,
    pub(crate) output_stride: isize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl<T: Copy> Block<T> {
    /// # Safety
    /// All elements must be readable and writable, and apart.
    unsafe fn transpose(&self, isa: Isa) {
        let tile = tile_for::<T>(isa);
        let (rows, columns) = match tile {
            Some(tile) => {
                (self.rows - self.rows % tile.side, self.columns - self.columns % tile.side)
            }
            None => (0, 0),
        };
        // SAFETY: the tiles and the edges lie inside the block.
        unsafe {
            if let Some(tile) = tile {
                self.transpose_tiles(tile, rows, columns);
            }
            self.transpose_part(0..rows, columns..self.columns);
            self.transpose_part(rows..self.rows, 0..self.columns);
        }
    }

    /// Tiles in strips of at most 64 rows, so that the lines written stay in the first cache.
    /// # Safety
    /// As [`Block::transpose`], with rows and columns multiples of the side.
    unsafe fn transpose_tiles(&self, tile: Tile, rows: usize, columns: usize) {
        let size = size_of::<T>() as isize;
        for strip in (0..rows).step_by(64) {
            for column in (0..columns).step_by(tile.side) {
                for row in (strip..rows.min(strip + 64)).step_by(tile.side) {
                    // SAFETY: the tile lies inside the block; the kernel's set is proven by the
                    // token that chose it.
                    unsafe {
                        let (input, output) =
                            (self.input_at(row, column), self.output_at(row, column));
                        (tile.kernel)(
                            input.cast(),
                            self.input_stride * size,
                            output.cast(),
                            self.output_stride * size,
                        );
                    }
                }
            }
        }
    }

    /// Element by element, in squares of 16 for the caches' sake.
    /// # Safety
    /// As [`Block::transpose`].
    unsafe fn transpose_part(&self, rows: Range<usize>, columns: Range<usize>) {
        // Colour channels, mostly: unrolled.
        // SAFETY: as promised by the caller.
        unsafe {
            match (rows.len(), columns.len()) {
                (_, 2) => return self.transpose_columns::<2>(rows, columns.start),
                (_, 3) => return self.transpose_columns::<3>(rows, columns.start),
                (_, 4) => return self.transpose_columns::<4>(rows, columns.start),
                (2, _) => return self.transpose_rows::<2>(rows.start, columns),
                (3, _) => return self.transpose_rows::<3>(rows.start, columns),
                (4, _) => return self.transpose_rows::<4>(rows.start, columns),
                _ => {}
            }
        }
        for row_start in rows.clone().step_by(16) {
            for column_start in columns.clone().step_by(16) {
                let count = (columns.end - column_start).min(16);
                for row in row_start..rows.end.min(row_start + 16) {
                    // SAFETY: inside the block; the input only moves past its end after its last
                    // use.
                    unsafe {
                        let mut input = self.input_at(row, column_start);
                        let output = self.output_at(row, column_start);
                        for i in 0..count {
                            *output.add(i) = *input;
                            input = input.wrapping_offset(self.input_stride);
                        }
                    }
                }
            }
        }
    }

    /// `N` columns from `column` on.
    /// # Safety
    /// As [`Block::transpose`].
    unsafe fn transpose_columns<const N: usize>(&self, rows: Range<usize>, column: usize) {
        // SAFETY: inside the block.
        unsafe {
            let inputs: [*const T; N] = std::array::from_fn(|k| self.input_at(0, column + k));
            for row in rows {
                let output = self.output_at(row, column);
                for (k, input) in inputs.iter().enumerate() {
                    *output.add(k) = *input.add(row);
                }
            }
        }
    }

    /// `N` rows from `row` on.
    /// # Safety
    /// As [`Block::transpose`].
    unsafe fn transpose_rows<const N: usize>(&self, row: usize, columns: Range<usize>) {
        // SAFETY: inside the block.
        unsafe {
            let outputs: [*mut T; N] = std::array::from_fn(|k| self.output_at(row + k, 0));
            for column in columns {
                let input = self.input_at(row, column);
                for (k, output) in outputs.iter().enumerate() {
                    *output.add(column) = *input.add(k);
                }
            }
        }
    }

    /// # Safety
    /// The element must lie inside the block.
    #[inline(always)]
    unsafe fn input_at(&self, row: usize, column: usize) -> *const T {
        // SAFETY: as promised by the caller.
        unsafe { self.input.offset(row as isize + column as isize * self.input_stride) }
    }

    /// # Safety
    /// The element must lie inside the block.
    #[inline(always)]
    unsafe fn output_at(&self, row: usize, column: usize) -> *mut T {
        // SAFETY: as promised by the caller.
        unsafe { self.output.offset(row as isize * self.output_stride + column as isize) }
    }
}

/// A kernel that transposes a square of elements in registers. Strides are in bytes.
#[derive(Clone, Copy)]
struct Tile {
    side: usize,
    kernel: unsafe fn(*const u8, isize, *mut u8, isize),
}

/// The tile kernel for elements of that size, if the set has one.
fn tile_for<T>(isa: Isa) -> Option<Tile> {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::isa::{avx2, avx512};
        match size_of::<T>() {
            1 if isa.has_avx2() => {
                return Some(Tile { side: 16, kernel: avx2::transpose::bytes_16x16 });
            }
            2 if isa.has_avx2() => {
                return Some(Tile { side: 8, kernel: avx2::transpose::halves_8x8 });
            }
            4 if isa.has_avx512() => {
                return Some(Tile { side: 16, kernel: avx512::transpose::words_16x16 });
            }
            4 if isa.has_avx2() => {
                return Some(Tile { side: 8, kernel: avx2::transpose::words_8x8 });
            }
            _ => {}
        }
    }
    let _ = isa;
    None
}
