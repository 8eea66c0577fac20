//! Who does the tasks of a step: threads that the caller calls for each step, or the members of a
//! team that go through many small steps together.

use crate::team::{GATHERING_LOOKS, Member};
use crate::threads::Threads;

/// Work that is worth calling a thread for: about four microseconds of multiply–adds.
pub(crate) const PARALLEL_WORK: usize = 200_000;

/// Work that is worth a member of a team, who is there already.
pub(crate) const MEMBER_WORK: usize = 16_000;

/// Who does the tasks of a step.
#[derive(Clone, Copy)]
pub(crate) enum Workers<'a> {
    /// The caller, and threads it calls.
    Pool(&'a Threads),
    /// One of a team, whose others call the same steps; for so much work each is worth it.
    Member { member: &'a Member<'a>, worth: usize },
}

impl Workers<'_> {
    /// How many there are, the caller included.
    pub fn count(&self) -> usize {
        match self {
            Workers::Pool(threads) => threads.count(),
            Workers::Member { member, .. } => member.count(),
        }
    }

    /// For how many of them so many multiply-adds are worth it, the caller included.
    pub fn parts(&self, work: usize) -> usize {
        if self.count() == 1 {
            return 1;
        }
        let worth = match self {
            Workers::Pool(_) => PARALLEL_WORK,
            Workers::Member { worth, .. } => *worth,
        };
        self.count().min(work / worth + 1)
    }

    /// Calls `task(0) … task(count − 1)`, each once; what they write is there for who runs tasks
    /// later. See [`Threads::run`] and [`Member::run`].
    ///
    /// # Panics
    /// If a task panics.
    pub fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        match self {
            Workers::Pool(_) if count == 1 => task(0),
            Workers::Pool(threads) => threads.run(count, task),
            Workers::Member { member, .. } => member.run(count, task),
        }
    }

    /// Calls `task` at the same time on as many as come at once; see [`Threads::together`].
    ///
    /// # Panics
    /// If a member panics.
    pub fn together(&self, most: usize, task: &(dyn Fn(&Member<'_>) + Sync)) -> bool {
        match self {
            Workers::Pool(threads) => threads.together(most, GATHERING_LOOKS, task),
            Workers::Member { member, .. } => {
                member.begin(true);
                task(member);
                true
            }
        }
    }
}
