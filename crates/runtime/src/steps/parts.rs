//! How a product is split over threads: by rows, or by columns where the weights are most of what
//! is read and rows are few.

use std::ops::Range;

use crate::place::Memory;
use crate::threads::share;

/// Weights that stay in the cache of a thread while rows pass by: more of them are split.
const WEIGHTS_IN_CACHE: usize = 512 << 10;
/// Columns that kernels take at once, at best and at least.
const COLUMNS_AT_ONCE: [usize; 3] = [64, 32, 16];
/// Rows for each thread below which rows do not fall into even tiles.
const FEW_ROWS: usize = 12;
/// Rows for each thread during which all of the weights are read without waiting for them.
const MANY_ROWS: usize = 64;

/// What a product reads and computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extents {
    pub rows: usize,
    pub columns: usize,
    /// Bytes of x.
    pub row_bytes: usize,
    /// Bytes of weights that can be read by ranges of columns, otherwise none.
    pub weight_bytes: usize,
    /// Multiply-adds.
    pub work: usize,
}

/// What one thread computes of a product.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    index: usize,
    count: usize,
}

impl Part {
    /// What this thread brings near of the weights that follow: its part where they are likely to
    /// be split.
    pub fn of_next<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let from =
            if bytes.len() > WEIGHTS_IN_CACHE { bytes.len() / self.count * self.index } else { 0 };
        &bytes[from..]
    }
}

/// How a product falls into parts.
struct Division {
    count: usize,
    /// Columns that stay together, where it is not rows that are divided.
    step: Option<usize>,
}

impl Division {
    /// Into at most `count` parts.
    fn of(extents: &Extents, count: usize) -> Self {
        let Extents { rows, columns, row_bytes, weight_bytes, .. } = *extents;
        if count == 1 {
            return Division { count, step: None };
        }
        let few = rows < FEW_ROWS * count && weight_bytes > 0;
        let by_columns = few
            || weight_bytes > WEIGHTS_IN_CACHE
                && weight_bytes > row_bytes
                && rows < MANY_ROWS * count;
        let even = |&step: &usize| columns >= 4 * count * step;
        let step = COLUMNS_AT_ONCE.into_iter().find(even).unwrap_or(16);
        if by_columns && columns.div_ceil(step) >= count {
            return Division { count, step: Some(step) };
        }
        Division { count: count.min(rows.max(1)), step: None }
    }

    fn part(&self, extents: &Extents, index: usize) -> Part {
        let (count, Extents { rows, columns, .. }) = (self.count, *extents);
        if count == 1 {
            return Part { rows: 0..rows, columns: 0..columns, index, count };
        }
        let of = |whole: usize| share(whole, index, count);
        let (rows, columns) = match self.step {
            Some(step) => {
                let steps = of(columns.div_ceil(step));
                (0..rows, steps.start * step..columns.min(steps.end * step))
            }
            None => (of(rows), 0..columns),
        };
        Part { rows, columns, index, count }
    }
}

/// Rows of a piece, at least: enough that reading the weights again costs nothing beside them.
pub(crate) const PIECE_ROWS: usize = 256;

/// Calls `body` with the parts of a product, over the threads if the work is worth it, until the run
/// is stopped.
pub(crate) fn over_parts(memory: &Memory<'_>, extents: &Extents, body: impl Fn(&Part) + Sync) {
    let pieces = |part: &Part| {
        let (rows, columns) = (part.rows.clone(), part.columns.clone());
        let piece = |rows| body(&Part { rows, columns: columns.clone(), ..*part });
        memory.watch.in_pieces(rows, extents.work / part.count, PIECE_ROWS, piece);
    };
    let division = Division::of(extents, memory.threads.parts(extents.work));
    memory.threads.run(division.count, &|index| pieces(&division.part(extents, index)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(extents: &Extents, count: usize) -> Vec<Part> {
        let division = Division::of(extents, count);
        (0..division.count).map(|index| division.part(extents, index)).collect()
    }

    #[test]
    fn parts_cover_every_result_once() {
        for rows in [1, 5, 49, 196] {
            for columns in [1, 16, 80, 160, 1000, 1280] {
                for weight_bytes in [0, 1 << 16, 4 << 20] {
                    for threads in 1..5 {
                        let extents = Extents {
                            rows,
                            columns,
                            row_bytes: rows * 512,
                            weight_bytes,
                            work: 1 << 30,
                        };
                        let parts = parts(&extents, threads);
                        assert!(!parts.is_empty() && parts.len() <= threads);
                        let mut seen = vec![0; rows * columns];
                        for part in &parts {
                            assert!(part.columns.start.is_multiple_of(16));
                            for row in part.rows.clone() {
                                part.columns.clone().for_each(|c| seen[row * columns + c] += 1);
                            }
                        }
                        assert!(seen.iter().all(|&times| times == 1), "{extents:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn large_weights_and_single_rows_are_split_by_columns() {
        let extents = |rows, row_bytes, weight_bytes| Extents {
            rows,
            columns: 512,
            row_bytes,
            weight_bytes,
            work: 1 << 30,
        };
        let columns = |extents| parts(&extents, 2)[0].columns.end;
        assert_eq!(columns(extents(49, 400 << 10, 4 << 20)), 256);
        assert_eq!(columns(extents(1, 4 << 10, 256 << 10)), 256);
        assert_eq!(columns(extents(3136, 800 << 10, 64 << 10)), 512);
        assert_eq!(columns(extents(196, 200 << 10, 1 << 20)), 512);
    }
}
