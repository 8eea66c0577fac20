//! Where in the arena each intermediate lies: intervals of steps, largest first, each at the
//! lowest offset that is free during its life.

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

/// Offsets for the intervals, and the bytes they take together.
pub(crate) fn assign(intervals: &[Interval]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(intervals[i].bytes), intervals[i].first, i));
    let size = |i: usize| {
        intervals[i].bytes.saturating_add(SLACK).div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
    };
    let mut offsets = vec![0; intervals.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total: usize = 0;
    for i in order {
        let mut offset: usize = 0;
        // `placed` is kept in order of offset, so the first gap that fits is the lowest.
        for &other in &placed {
            let overlaps = intervals[other].first <= intervals[i].last
                && intervals[i].first <= intervals[other].last;
            if overlaps && offset.saturating_add(size(i)) > offsets[other] {
                offset = offset.max(offsets[other].saturating_add(size(other)));
            }
        }
        offsets[i] = offset;
        total = total.max(offset.saturating_add(size(i)));
        let at = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(at, i);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_that_overlap_do_not_share_bytes() {
        let interval = |bytes, first, last| Interval { bytes, first, last };
        let list = [
            interval(1000, 0, 2),
            interval(500, 1, 3),
            interval(700, 3, 5),
            interval(100, 0, 5),
            interval(64, 4, 4),
            interval(3000, 6, 7),
        ];
        let (offsets, total) = assign(&list);
        for (i, a) in list.iter().enumerate() {
            assert!(offsets[i] % ALIGNMENT == 0 && offsets[i] + a.bytes <= total);
            for (j, b) in list.iter().enumerate().skip(i + 1) {
                let alive = a.first <= b.last && b.first <= a.last;
                let apart =
                    offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                assert!(!alive || apart, "{i} and {j}");
            }
        }
        let sum: usize = list.iter().map(|i| i.bytes).sum();
        assert!(total < sum, "memory is shared: {total} of {sum}");
    }
}
