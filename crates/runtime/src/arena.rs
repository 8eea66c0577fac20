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
    let mut placed = Placed::new(intervals);
    let mut total: usize = 0;
    let mut beside: Vec<usize> = Vec::new();
    for i in order {
        beside.clear();
        beside.extend(placed.beside(&intervals[i]));
        // In order of offset, the first gap that fits is the lowest.
        beside.sort_unstable_by_key(|&other| offsets[other]);
        let mut offset: usize = 0;
        for &other in &beside {
            if offset.saturating_add(size(i)) > offsets[other] {
                offset = offset.max(offsets[other].saturating_add(size(other)));
            }
        }
        offsets[i] = offset;
        total = total.max(offset.saturating_add(size(i)));
        placed.add(i, &intervals[i]);
    }
    (offsets, total)
}

/// Lists of intervals, one for each step, in one piece of memory.
struct Lists {
    /// The last link of each step's list, plus one.
    last: Vec<usize>,
    /// An interval, and the link before it, plus one.
    links: Vec<(usize, usize)>,
}

impl Lists {
    fn new(steps: usize) -> Self {
        Lists { last: vec![0; steps], links: Vec::new() }
    }

    fn add(&mut self, step: usize, interval: usize) {
        self.links.push((interval, self.last[step]));
        self.last[step] = self.links.len();
    }

    fn of(&self, step: usize) -> impl Iterator<Item = usize> {
        let link = |next: usize| next.checked_sub(1).map(|at| self.links[at]);
        let links = std::iter::successors(link(self.last[step]), move |&(_, next)| link(next));
        links.map(|(interval, _)| interval)
    }
}

/// The intervals that have an offset.
struct Placed {
    alive: Lists,
    beginning: Lists,
}

impl Placed {
    fn new(intervals: &[Interval]) -> Self {
        let steps = intervals.iter().map(|interval| interval.last + 1).max().unwrap_or(0);
        Placed { alive: Lists::new(steps), beginning: Lists::new(steps) }
    }

    fn add(&mut self, index: usize, interval: &Interval) {
        self.beginning.add(interval.first, index);
        (interval.first..=interval.last).for_each(|step| self.alive.add(step, index));
    }

    /// Those whose lives overlap one: they are alive when it begins, or begin later, while it lives.
    fn beside(&self, interval: &Interval) -> impl Iterator<Item = usize> {
        let later = (interval.first + 1..=interval.last).flat_map(|step| self.beginning.of(step));
        self.alive.of(interval.first).chain(later)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn an_interval_lies_at_the_lowest_offset_beside_those_before(
            list in prop::collection::vec((0_usize..300, 0_usize..20, 0_usize..9), 0..40),
        ) {
            let interval = |&(bytes, first, length): &(usize, usize, usize)| {
                Interval { bytes, first, last: first + length }
            };
            let list: Vec<Interval> = list.iter().map(interval).collect();
            let (offsets, _) = assign(&list);
            let mut order: Vec<usize> = (0..list.len()).collect();
            order.sort_by_key(|&i| (std::cmp::Reverse(list[i].bytes), list[i].first, i));
            let end = |i: usize| offsets[i] + (list[i].bytes + SLACK).next_multiple_of(ALIGNMENT);
            for (position, &i) in order.iter().enumerate() {
                let apart = |offset: usize| {
                    order[..position].iter().all(|&j| {
                        let alive = list[j].first <= list[i].last && list[i].first <= list[j].last;
                        !alive || end(j) <= offset || offset + end(i) - offsets[i] <= offsets[j]
                    })
                };
                let lowest = (0..).step_by(ALIGNMENT).find(|&offset| apart(offset));
                prop_assert_eq!(Some(offsets[i]), lowest);
            }
        }
    }
}
