//! Threads that do one task at the same time and wait for each other within it: for work of many short
//! steps, each of which needs what all have done in the step before.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::threads::share;

/// How often a thread looks again before it lets others have its core: some microseconds.
const LOOKS: usize = 300;

/// How often who gathers a team looks for members: about two microseconds.
pub(crate) const GATHERING_LOOKS: usize = 100;

/// So many long waits tell that there are fewer free cores than members.
const LONG_WAITS: usize = 4;

/// Set once no more members are taken.
const CLOSED: u64 = 1 << 63;

/// The most members of a team.
pub(crate) const MOST_MEMBERS: usize = 63;

/// Waits for `done`; gives the core away while that takes long. False if it did.
pub(crate) fn wait_until(done: impl Fn() -> bool) -> bool {
    for _ in 0..LOOKS {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    while !done() {
        std::thread::yield_now();
    }
    false
}

/// Meetings a member has come to, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Meetings(AtomicUsize);

/// Those who do a task together, while they do; apart from what else its creator writes meanwhile.
#[repr(align(128))]
pub(crate) struct Team<'a> {
    /// A bit for each that came before it was closed.
    joined: AtomicU64,
    /// Of each member, by rank.
    meetings: &'a [Meetings],
    /// Set when nobody waits for others any more, because one ended or panicked.
    over: AtomicBool,
    broken: AtomicBool,
    long_waits: AtomicUsize,
}

impl<'a> Team<'a> {
    /// A team that nobody has joined; it has the meetings from when it is closed on.
    pub fn new(meetings: &'a [Meetings]) -> Self {
        let [over, broken] = [false; 2].map(AtomicBool::new);
        let (joined, long_waits) = (AtomicU64::new(0), AtomicUsize::new(0));
        Team { joined, meetings, over, broken, long_waits }
    }

    /// Calls `task` as member `index` of at most `most`, unless the team was closed before. Member 0
    /// closes it after so many looks, if not all have come.
    pub fn join(&self, index: usize, most: usize, most_looks: usize, task: &dyn Fn(&Member<'_>)) {
        let own = 1 << index;
        if index == 0 {
            // Nobody has begun before all have come or this closes it.
            for meetings in self.meetings {
                meetings.0.store(0, Ordering::Relaxed);
            }
        }
        let open = |joined: u64| (joined & CLOSED == 0).then_some(joined | own);
        if self.joined.fetch_update(Ordering::AcqRel, Ordering::Acquire, open).is_err() {
            return;
        }
        let joined = || self.joined.load(Ordering::Acquire);
        let is_whole = || joined().count_ones() as usize == most;
        if index == 0 {
            let mut looks = 0;
            while !is_whole() && looks < most_looks {
                match looks < LOOKS {
                    true => std::hint::spin_loop(),
                    false => std::thread::yield_now(),
                }
                looks += 1;
            }
            if looks == most_looks {
                self.joined.fetch_or(CLOSED, Ordering::AcqRel);
            }
        } else {
            wait_until(|| joined() & CLOSED != 0 || is_whole());
        }
        let members = joined() & !CLOSED;
        let [rank, count] = [members & (own - 1), members].map(|bits| bits.count_ones() as usize);
        let _breaks = Breaks(self);
        task(&Member { team: Some(self), rank, count, since: AtomicU8::new(NOTHING) });
    }

    /// False if its members often waited long for each other.
    pub fn was_in_time(&self) -> bool {
        self.long_waits.load(Ordering::Relaxed) < LONG_WAITS
    }
}

/// Says so when its member panics.
struct Breaks<'a>(&'a Team<'a>);

impl Drop for Breaks<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
            self.0.over.store(true, Ordering::Release);
        }
    }
}

/// What members did since they met last: nothing, tasks that the first did alone, or divided ones.
const NOTHING: u8 = 0;
const FIRST: u8 = 1;
const ALL: u8 = 2;

/// One of those who do a task together.
pub(crate) struct Member<'a> {
    /// `None` for who is alone.
    team: Option<&'a Team<'a>>,
    rank: usize,
    count: usize,
    /// One of the three above, the same for all members at the same task.
    since: AtomicU8,
}

impl Member<'_> {
    /// Who does all of a task.
    pub fn alone() -> Self {
        Member { team: None, rank: 0, count: 1, since: AtomicU8::new(NOTHING) }
    }

    /// How many members there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// True for the one who does what is not divided.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Meets before a task, or one that is divided, where it needs what others did, or they what it
    /// will overwrite. All members say the same before the same task.
    pub fn begin(&self, divided: bool) {
        let since = self.since.load(Ordering::Relaxed);
        if since == ALL || divided && since == FIRST {
            self.meet();
        }
        self.since.store(if divided { ALL } else { FIRST }, Ordering::Relaxed);
    }

    /// Its tasks of `task(0) … task(count − 1)`: with all members each runs once. What tasks before
    /// wrote is there.
    ///
    /// # Panics
    /// If a task panics, of this member or another.
    pub fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        self.begin(count > 1);
        (self.rank..count).step_by(self.count).for_each(task);
    }

    /// Calls `task` if this is the first member.
    pub fn first<R>(&self, task: impl FnOnce() -> R) -> Option<R> {
        self.begin(false);
        self.is_first().then(task)
    }

    /// Says that others need not wait any more.
    pub fn end(&self) {
        self.team.iter().for_each(|team| team.over.store(true, Ordering::Release));
    }

    /// True once a member said so: meetings no longer mean that others have come.
    pub fn is_over(&self) -> bool {
        self.team.is_some_and(|team| team.over.load(Ordering::Acquire))
    }

    /// Its part of `0..end`, the same whenever as many come.
    pub fn part(&self, end: usize) -> Range<usize> {
        share(end, self.rank, self.count)
    }

    /// Returns when every member has come to this meeting, and sees all that they wrote before; or when
    /// the team is over.
    ///
    /// # Panics
    /// If another member panics instead of coming.
    pub fn meet(&self) {
        let Some(team) = self.team.filter(|_| self.count > 1) else { return };
        let own = &team.meetings[self.rank].0;
        let meeting = own.load(Ordering::Relaxed) + 1;
        own.store(meeting, Ordering::Release);
        for other in (0..self.count).filter(|&rank| rank != self.rank) {
            let other = &team.meetings[other].0;
            if !wait_until(|| other.load(Ordering::Acquire) >= meeting || self.is_over()) {
                team.long_waits.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.is_over() && team.broken.load(Ordering::Relaxed) {
            // The first panic was reported.
            resume_unwind(Box::new("another member of a team panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::threads::Threads;

    /// Steps of a sum in which every member needs what all have written in the step before.
    fn summed(threads: &Threads, most: usize, width: usize, steps: usize) -> Vec<usize> {
        let states = [0, 1].map(|_| (0..width).map(AtomicUsize::new).collect::<Vec<_>>());
        threads.together(most, GATHERING_LOOKS, &|member| {
            for step in 0..steps {
                let (from, to) = (&states[step % 2], &states[1 - step % 2]);
                let sum: usize = from.iter().map(|v| v.load(Ordering::Relaxed) % 1000).sum();
                for i in member.part(width) {
                    to[i].store(sum + i, Ordering::Relaxed);
                }
                member.meet();
            }
        });
        states[steps % 2].iter().map(|v| v.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn members_see_what_others_wrote() {
        for count in [2, 3] {
            let threads = Threads::new(count);
            // Many short ones: a lost wake-up would never end.
            for round in 0..3000 {
                let (width, steps) = (1 + round % 9, round % 7);
                let want = summed(&Threads::new(1), 1, width, steps);
                assert_eq!(summed(&threads, 1 + round % count, width, steps), want);
                assert_eq!(summed(&threads, count, width, steps), want);
                if round % 500 == 0 {
                    // So long that workers sleep.
                    std::thread::sleep(Duration::from_millis(3));
                }
            }
        }
    }

    #[test]
    fn several_callers_gather_teams() {
        let threads = Threads::new(2);
        let want = summed(&Threads::new(1), 1, 5, 20);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..300).for_each(|_| assert_eq!(summed(&threads, 2, 5, 20), want)));
            }
        });
    }

    #[test]
    fn a_panic_of_a_member_ends_the_team() {
        let threads = Threads::new(2);
        for round in 0..40 {
            let of = round % 2;
            let start = Instant::now();
            let run = || {
                threads.together(2, GATHERING_LOOKS, &|member| {
                    member.meet();
                    assert!(member.count == 1 || member.rank != of);
                    member.meet();
                })
            };
            // Until the worker is in time.
            while catch_unwind(AssertUnwindSafe(run)).is_ok() {
                assert!(start.elapsed().as_secs() < 20, "the worker never came");
                std::thread::yield_now();
            }
            assert_eq!(summed(&threads, 2, 4, 5), summed(&Threads::new(1), 1, 4, 5));
        }
    }

    #[test]
    fn parts_cover_everything() {
        for (count, end) in [(1, 0), (2, 5), (3, 2), (5, 31)] {
            let mut at = 0;
            for rank in 0..count {
                let part = Member { rank, count, ..Member::alone() }.part(end);
                assert_eq!(part.start, at);
                at = part.end;
            }
            assert_eq!(at, end);
        }
    }
}
