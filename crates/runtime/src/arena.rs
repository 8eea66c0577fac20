//! Where in the arena each intermediate lies: intervals of steps, largest first, each at an offset
//! that is free during its life.

/// Bytes every intermediate is aligned to.
pub(crate) const ALIGNMENT: usize = 64;
/// Bytes after each intermediate that vector kernels may read (never write) beyond its end.
const SLACK: usize = 64;

/// An intermediate that lives from step `first` to step `last`, both included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
}

impl Interval {
    /// Bytes of arena it takes.
    fn size(&self) -> usize {
        self.bytes.saturating_add(SLACK).div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
    }

    /// True if both live at some step.
    fn meets(&self, other: &Interval) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Middles that are looked at, at most, for a place around one of them.
const MIDDLES: usize = 16;

/// Offsets for the intervals, and the bytes they take together. With `around_middles` intervals lie
/// around the middle of a larger one where they can, instead of lowest: two threads that each write
/// a half of every value then meet lines of their own cache again.
pub(crate) fn assign(intervals: &[Interval], around_middles: bool) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(intervals[i].bytes), intervals[i].first, i));
    let mut offsets: Vec<usize> = vec![0; intervals.len()];
    // In order of offset.
    let mut placed: Vec<usize> = Vec::new();
    let mut middles: Vec<usize> = Vec::new();
    let mut total: usize = 0;
    for i in order {
        let (size, half) = (intervals[i].size(), intervals[i].bytes / 2);
        let meanwhile = || placed.iter().filter(|&&other| intervals[other].meets(&intervals[i]));
        let taken =
            || meanwhile().map(|&j| offsets[j]..offsets[j].saturating_add(intervals[j].size()));
        let around = middles.iter().take(MIDDLES).find_map(|middle: &usize| {
            let offset = middle.checked_sub(half)? / ALIGNMENT * ALIGNMENT;
            let end = offset.saturating_add(size);
            let free = taken().all(|of| end <= of.start || of.end <= offset);
            (end <= total && free).then_some(offset)
        });
        let offset = around.unwrap_or_else(|| {
            // The first gap that fits is the lowest.
            taken().fold(0, |offset: usize, of| match offset.saturating_add(size) > of.start {
                true => offset.max(of.end),
                false => offset,
            })
        });
        if around_middles && around.is_none() {
            middles.push(offset.saturating_add(half));
        }
        total = total.max(offset.saturating_add(size));
        offsets[i] = offset;
        let at = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(at, i);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(bytes: usize, first: usize, last: usize) -> Interval {
        Interval { bytes, first, last }
    }

    #[test]
    fn lives_that_overlap_do_not_share_bytes() {
        let list = [
            interval(1000, 0, 2),
            interval(500, 1, 3),
            interval(700, 3, 5),
            interval(100, 0, 5),
            interval(64, 4, 4),
            interval(3000, 6, 7),
        ];
        for around_middles in [false, true] {
            let (offsets, total) = assign(&list, around_middles);
            for (i, a) in list.iter().enumerate() {
                assert!(offsets[i] % ALIGNMENT == 0 && offsets[i] + a.bytes <= total);
                for (j, b) in list.iter().enumerate().skip(i + 1) {
                    let apart =
                        offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    assert!(!a.meets(b) || apart, "{i} and {j}");
                }
            }
            let sum: usize = list.iter().map(|i| i.bytes).sum();
            assert!(total < sum, "memory is shared: {total} of {sum}");
        }
    }

    #[test]
    fn halves_of_values_that_do_not_meet_lie_on_the_same_side() {
        let list = [
            interval(64000, 0, 1),
            interval(32000, 1, 2),
            interval(16000, 2, 3),
            interval(8000, 3, 4),
            interval(4000, 4, 5),
        ];
        let (offsets, _) = assign(&list, true);
        let middle = |i: usize| offsets[i] + list[i].bytes / 2;
        for (i, j) in [(0, 2), (2, 4), (1, 3)] {
            assert!(middle(i).abs_diff(middle(j)) <= ALIGNMENT, "{offsets:?}");
        }
    }
}
