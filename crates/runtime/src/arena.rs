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
    let mut placed = Placed::new(intervals);
    let mut middles: Vec<usize> = Vec::new();
    let mut total: usize = 0;
    let mut beside: Vec<usize> = Vec::new();
    for i in order {
        let (size, half) = (intervals[i].size(), intervals[i].bytes / 2);
        beside.clear();
        placed.beside(i, &mut beside);
        beside.sort_unstable_by_key(|&other| offsets[other]);
        let taken = || {
            let ends = |&j: &usize| offsets[j]..offsets[j].saturating_add(intervals[j].size());
            beside.iter().map(ends)
        };
        let around = middles.iter().take(MIDDLES).find_map(|middle: &usize| {
            let offset = middle.checked_sub(half)? / ALIGNMENT * ALIGNMENT;
            let end = offset.saturating_add(size);
            let free = taken().all(|of| end <= of.start || of.end <= offset);
            (end <= total && free).then_some(offset)
        });
        let offset = around.unwrap_or_else(|| {
            // In order of offset, the first gap that fits is the lowest.
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
        placed.add(i);
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

/// Intervals live for so many steps in the mean where they are listed by step; beyond, the lists
/// would take more than looking at all.
const MEAN_LIFE: usize = 32;

/// The intervals that have an offset.
struct Placed<'a> {
    intervals: &'a [Interval],
    all: Vec<usize>,
    /// Those that live at each step, and that begin there.
    by_step: Option<[Lists; 2]>,
}

impl<'a> Placed<'a> {
    fn new(intervals: &'a [Interval]) -> Self {
        let steps = intervals.iter().map(|interval| interval.last + 1).max().unwrap_or(0);
        let lives: usize = intervals.iter().map(|i| i.last + 1 - i.first).sum();
        let short = lives <= MEAN_LIFE * intervals.len();
        let by_step = short.then(|| [(); 2].map(|()| Lists::new(steps)));
        Placed { intervals, all: Vec::new(), by_step }
    }

    fn add(&mut self, index: usize) {
        let interval = &self.intervals[index];
        self.all.push(index);
        if let Some([alive, beginning]) = &mut self.by_step {
            beginning.add(interval.first, index);
            (interval.first..=interval.last).for_each(|step| alive.add(step, index));
        }
    }

    /// Adds those whose lives overlap one's: alive when it begins, or beginning later, while it lives.
    fn beside(&self, index: usize, to: &mut Vec<usize>) {
        let interval = &self.intervals[index];
        let Some([alive, beginning]) = &self.by_step else {
            let meets = |&&other: &&usize| self.intervals[other].meets(interval);
            return to.extend(self.all.iter().filter(meets));
        };
        to.extend(alive.of(interval.first));
        to.extend((interval.first + 1..=interval.last).flat_map(|step| beginning.of(step)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn an_interval_lies_at_the_lowest_offset_beside_those_before(
            list in prop::collection::vec((0_usize..300, 0_usize..20, 0_usize..9), 0..40),
            long in any::<bool>(),
        ) {
            let mut list: Vec<Interval> = list
                .iter()
                .map(|&(bytes, first, length)| interval(bytes, first, first + length))
                .collect();
            if long {
                list.push(interval(1, 0, 2000));
            }
            let (offsets, _) = assign(&list, false);
            let mut order: Vec<usize> = (0..list.len()).collect();
            order.sort_by_key(|&i| (std::cmp::Reverse(list[i].bytes), list[i].first, i));
            let end = |i: usize| offsets[i] + list[i].size();
            for (position, &i) in order.iter().enumerate() {
                let apart = |offset: usize| {
                    order[..position].iter().all(|&j| {
                        let beside = end(j) <= offset || offset + list[i].size() <= offsets[j];
                        !list[j].meets(&list[i]) || beside
                    })
                };
                let lowest = (0..).step_by(ALIGNMENT).find(|&offset| apart(offset));
                prop_assert_eq!(Some(offsets[i]), lowest);
            }
        }
    }
}
