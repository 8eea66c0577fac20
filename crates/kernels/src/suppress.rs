//! Non-maximum suppression: boxes in the order of their scores, without those that overlap an
//! earlier one too much (Neubeck and Van Gool 2006).
//!
//! Kept boxes lie in cells along the axis on which boxes spread most, each as long as the longest
//! box: only those of neighbouring cells can overlap. Classes that were moved apart, as exporters
//! write batched suppression, so never meet.

use crate::isa::Isa;

/// What remains.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most so many boxes.
    pub most: usize,
    /// Boxes whose intersection over union with a kept one is at most this.
    pub overlap: f32,
    /// Boxes of a higher score only.
    pub least: Option<f32>,
}

/// Lower and upper corners of boxes.
#[derive(Clone, Debug)]
pub struct Boxes {
    corners: Vec<[f32; 4]>,
    /// 0 or 1: the axis on which they spread most, in units of their longest side.
    axis: usize,
    /// The least coordinate on that axis, and the longest side.
    least: f32,
    longest: f32,
    /// One more than the last cell of a box.
    cells: usize,
}

/// Coordinates beyond which areas are not finite.
const LARGEST: f32 = 1e15;
/// Most cells.
const MOST_CELLS: usize = 4096;
/// Boxes that are compared at once.
const LANES: usize = 16;

/// Kept boxes of a cell, each coordinate in a list of its own, of a multiple of [`LANES`]; what is
/// left over overlaps nothing.
#[derive(Clone, Default)]
struct Cell {
    count: usize,
    lists: [Vec<f32>; 4],
}

impl Boxes {
    /// Boxes `[count,4]`: two opposite corners, or with `centres` centre and sides. `None` if a
    /// coordinate is not a number or very large.
    pub fn new(values: &[f32], centres: bool) -> Option<Self> {
        let corner = |v: &[f32; 4]| match centres {
            true => {
                let [x, y, w, h] = *v;
                [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
            }
            false => [v[0].min(v[2]), v[1].min(v[3]), v[0].max(v[2]), v[1].max(v[3])],
        };
        let corners: Vec<[f32; 4]> = values.as_chunks::<4>().0.iter().map(corner).collect();
        let strange = corners.iter().flatten().any(|v| v.is_nan() || v.abs() > LARGEST);
        if strange || u32::try_from(corners.len()).is_err() {
            return None;
        }
        let mut made = Boxes { corners, axis: 0, least: 0.0, longest: 0.0, cells: 1 };
        let mut spread = -1.0;
        for axis in [0, 1] {
            let lower = || made.corners.iter().map(|corner| corner[axis]);
            let least = lower().fold(f32::INFINITY, f32::min);
            let range = lower().fold(least, f32::max) - least;
            let sides = made.corners.iter().map(|corner| corner[axis + 2] - corner[axis]);
            let longest = sides.fold(0.0, f32::max);
            if range / longest.max(f32::MIN_POSITIVE) > spread {
                spread = range / longest.max(f32::MIN_POSITIVE);
                (made.axis, made.least, made.longest) = (axis, least, longest);
            }
        }
        made.cells = (0..made.corners.len()).map(|i| made.cell(i) + 1).max().unwrap_or(1);
        Some(made)
    }

    /// The boxes that remain, in the order of `scores` and, of equal scores, of their positions.
    /// `None` if boxes that share nothing would overlap too much.
    ///
    /// # Panics
    /// If there is not one score for each box.
    pub fn suppress(&self, isa: Isa, scores: &[f32], limits: Limits) -> Option<Vec<usize>> {
        assert!(scores.len() == self.corners.len(), "a score for each box");
        if limits.overlap.is_nan() || limits.overlap < 0.0 {
            return None;
        }
        let good = |score: f32| limits.least.is_none_or(|least| score > least);
        let all = scores.iter().enumerate().filter(|(_, score)| good(**score));
        let mut order: Vec<u64> =
            all.map(|(i, score)| descending(*score) << 32 | i as u64).collect();
        order.sort_unstable();
        let mut cells = vec![Cell::default(); self.cells];
        let mut kept = Vec::new();
        for key in order {
            if kept.len() >= limits.most {
                break;
            }
            let i = key as u32 as usize;
            let (own, at) = (&self.corners[i], self.cell(i));
            let near = &cells[at.saturating_sub(1)..self.cells.min(at + 2)];
            if !near.iter().any(|cell| overlaps(isa, cell, own, limits.overlap)) {
                cells[at].push(own);
                kept.push(i);
            }
        }
        Some(kept)
    }

    /// The cell of a box; boxes that share anything are at most one cell apart.
    fn cell(&self, i: usize) -> usize {
        let distance = f64::from(self.corners[i][self.axis]) - f64::from(self.least);
        // A little longer than the longest box, for the rounding of its side.
        let length = f64::from(self.longest) * 1.001 + f64::from(f32::MIN_POSITIVE);
        ((distance / length) as usize).min(MOST_CELLS - 1)
    }
}

/// A number that is the smaller, the larger the score.
fn descending(score: f32) -> u64 {
    let bits = score.to_bits() as i32;
    let ordered = bits ^ (((bits >> 31) as u32) >> 1) as i32;
    u64::from(!(ordered as u32 ^ 1 << 31))
}

impl Cell {
    fn push(&mut self, corner: &[f32; 4]) {
        for (axis, (list, &value)) in self.lists.iter_mut().zip(corner).enumerate() {
            if self.count == list.len() {
                list.resize(
                    self.count + LANES,
                    if axis < 2 { f32::INFINITY } else { -f32::INFINITY },
                );
            }
            list[self.count] = value;
        }
        self.count += 1;
    }
}

/// True if a kept box overlaps another too much.
fn overlaps(isa: Isa, cell: &Cell, own: &[f32; 4], limit: f32) -> bool {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        // SAFETY: the token proves the instruction set.
        return unsafe { overlaps_avx512(cell, own, limit) };
    } else if isa.has_avx2() {
        // SAFETY: as above.
        return unsafe { overlaps_avx2(cell, own, limit) };
    }
    let _ = isa;
    any_overlaps(cell, own, limit)
}

/// # Safety
/// The machine has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn overlaps_avx512(cell: &Cell, own: &[f32; 4], limit: f32) -> bool {
    any_overlaps(cell, own, limit)
}

/// # Safety
/// The machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn overlaps_avx2(cell: &Cell, own: &[f32; 4], limit: f32) -> bool {
    any_overlaps(cell, own, limit)
}

#[inline(always)]
fn any_overlaps(cell: &Cell, own: &[f32; 4], limit: f32) -> bool {
    let least = |a: f32, b: f32| if a < b { a } else { b };
    let most = |a: f32, b: f32| if a > b { a } else { b };
    let own_area = (own[2] - own[0]) * (own[3] - own[1]);
    let [low0, low1, high0, high1] = cell.lists.each_ref().map(|list| list.as_chunks::<LANES>().0);
    for (((a, b), c), d) in low0.iter().zip(low1).zip(high0).zip(high1) {
        let mut common = [0.0; LANES];
        for i in 0..LANES {
            let sides = [
                least(c[i], own[2]) - most(a[i], own[0]),
                least(d[i], own[3]) - most(b[i], own[1]),
            ];
            common[i] = most(sides[0], 0.0) * most(sides[1], 0.0);
        }
        if common.iter().fold(0, |all, common| all | common.to_bits()) == 0 {
            continue;
        }
        let mut over = false;
        for i in 0..LANES {
            let all = (c[i] - a[i]) * (d[i] - b[i]) + own_area - common[i];
            over |= all > 0.0 && common[i] / all > limit;
        }
        if over {
            return true;
        }
    }
    false
}
