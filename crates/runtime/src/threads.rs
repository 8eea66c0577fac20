//! The engine's own pool: the caller is worker 0, workers spin for a moment inside a run and park
//! between runs.
//!
//! What a thread writes and another reads costs the time a cache line takes from core to core, and a
//! job is some microseconds long. So a worker has a desk, one line with its task and whether it is
//! taken: the line goes there and back, and nothing else does.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::JoinHandle;

use crate::cores;
use crate::team::{MOST_MEMBERS, Meetings, Member, Team, wait_until};

/// How often a waiting worker looks again before it parks: some hundred microseconds between runs,
/// and ten times as long while one goes on, because waking takes longer than most steps.
const SPINS: [usize; 2] = [4_000, 40_000];

/// What one of `count` has of `0..whole`: all of them together cover it, as evenly as can be.
pub(crate) fn share(whole: usize, index: usize, count: usize) -> Range<usize> {
    whole * index / count..whole * (index + 1) / count
}

/// Tasks of a job, erased to a pointer that outlives it.
#[derive(Clone, Copy)]
struct Job {
    run: *const (dyn Fn(usize) + Sync),
    /// The first of the tasks that belong to no worker, and the end of all.
    common: usize,
    end: usize,
}

/// What a desk is in: nothing to do, a job is offered, its worker does it, its worker shall end.
const IDLE: usize = 0;
const OFFERED: usize = 1;
const TAKEN: usize = 2;
const ENDS: usize = 3;

/// A worker's desk. Cache lines are brought in pairs.
#[repr(align(128))]
struct Desk {
    state: AtomicUsize,
    /// Written by the caller while the desk is idle, read by whoever took the offer.
    job: UnsafeCell<Job>,
    /// Set by a worker that looks no longer; on the second line, because it changes seldom.
    sleeps: Sleeps,
}

#[repr(align(64))]
struct Sleeps(AtomicBool);

// SAFETY: the job is written and read as the state says, by one thread at a time; its closure is
// `Sync`, and `Threads::offer` does not return before every desk is idle again.
unsafe impl Sync for Desk {}
// SAFETY: as above.
unsafe impl Send for Desk {}

impl Desk {
    fn new() -> Self {
        let job = Job { run: &|_| {}, common: 0, end: 0 };
        let sleeps = Sleeps(AtomicBool::new(false));
        Desk { state: AtomicUsize::new(IDLE), job: UnsafeCell::new(job), sleeps }
    }

    /// True if nobody has taken what is offered: nobody will.
    fn take_back(&self) -> bool {
        // Sees what a worker that is done wrote.
        self.state.load(Ordering::Acquire) == OFFERED
            && self
                .state
                .compare_exchange(OFFERED, IDLE, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// Takes what is offered, or gives the state that the desk is in instead. Asks for the line as if to
    /// write it: it then is where it is needed when something is offered.
    fn take(&self) -> Result<Job, usize> {
        self.state.compare_exchange(OFFERED, TAKEN, Ordering::Acquire, Ordering::Relaxed)?;
        // SAFETY: it was written before it was offered, and stays until the desk is idle.
        Ok(unsafe { *self.job.get() })
    }
}

struct Shared {
    /// Of each worker.
    desks: Box<[Desk]>,
    /// The next task that belongs to no worker.
    next_task: AtomicUsize,
    /// Runs that go on: more jobs are likely to come at once.
    runs: AtomicUsize,
    failed: AtomicBool,
    /// Where the caller ran that woke a worker last.
    waking: AtomicUsize,
    /// Of a team's members: there is one team at a time, as there is one job.
    meetings: Box<[Meetings]>,
}

/// A pool of threads, owned by one session.
pub struct Threads {
    shared: Arc<Shared>,
    /// Held while a job is open: the pool does one job at a time.
    occupied: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

impl Threads {
    /// A pool of `count` threads, the caller of [`Threads::run`] included.
    pub fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            desks: (1..count).map(|_| Desk::new()).collect(),
            next_task: AtomicUsize::new(0),
            runs: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            waking: AtomicUsize::new(usize::MAX),
            meetings: (0..count).map(|_| Meetings::default()).collect(),
        });
        let spawn = |index: usize| {
            let shared = shared.clone();
            let name = format!("lepton-{index}");
            std::thread::Builder::new().name(name).spawn(move || work(&shared, index)).ok()
        };
        let workers = (1..count.max(1)).map_while(spawn).collect();
        Threads { shared, occupied: Mutex::new(()), workers }
    }

    /// Number of threads, the caller included.
    pub fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Says that a run goes on until what comes back is dropped: workers wait longer for its jobs.
    pub fn run_begins(&self) -> RunGoesOn<'_> {
        self.shared.runs.fetch_add(1, Ordering::Relaxed);
        RunGoesOn { shared: &self.shared }
    }

    /// Calls `task(0) … task(count − 1)`, each once, and returns when all are done. Every thread
    /// begins with the task of its own number, whose data its cache may hold from the job before, and
    /// takes those of others that are late. While another caller has the workers, the caller does all of it.
    ///
    /// # Panics
    /// If a task panics.
    pub fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        if !self.offer(count, task) {
            (0..count).for_each(task);
        }
    }

    /// Calls `task` at the same time on as many threads as come at once, at most `most`: each does its
    /// part, and they wait for each other where the task says so. Workers that come late are left out,
    /// so the caller, who looks for them so many times, may be alone. False if members waited long for
    /// each other, because they have to share cores: alone, the caller would be faster.
    ///
    /// # Panics
    /// If a member panics.
    pub(crate) fn together(
        &self,
        most: usize,
        looks: usize,
        task: &(dyn Fn(&Member<'_>) + Sync),
    ) -> bool {
        let most = most.min(self.count()).min(MOST_MEMBERS);
        let team = Team::new(&self.shared.meetings);
        if !self.offer(most, &|index| team.join(index, most, looks, task)) {
            task(&Member::alone());
        }
        team.was_in_time()
    }

    /// [`Threads::run`] with the workers; false, and nothing done, where there are none or another
    /// caller has them.
    fn offer(&self, count: usize, task: &(dyn Fn(usize) + Sync)) -> bool {
        if self.workers.is_empty() || count <= 1 {
            return false;
        }
        let _occupied = match self.occupied.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let shared = &*self.shared;
        let common = count.min(self.count());
        if count > common {
            shared.next_task.store(common, Ordering::Relaxed);
        }
        // What panicked with a caller that unwound.
        if shared.failed.load(Ordering::Relaxed) {
            shared.failed.store(false, Ordering::Relaxed);
        }
        // SAFETY: only the lifetime changes; this function waits until no worker uses the pointer.
        let run: *const (dyn Fn(usize) + Sync) = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(
                task,
            )
        };
        let offered = Offered(&shared.desks[..common - 1]);
        for desk in offered.0 {
            // SAFETY: the desk is idle, so its worker does not look at the job.
            unsafe { *desk.job.get() = Job { run, common, end: count } };
            desk.state.store(OFFERED, Ordering::Release);
        }
        // Either this sees that a worker sleeps, or that worker sees the offer before it does.
        fence(Ordering::SeqCst);
        for (desk, worker) in offered.0.iter().zip(&self.workers) {
            if desk.sleeps.0.load(Ordering::Relaxed) {
                shared.waking.store(cores::current(), Ordering::Relaxed);
                worker.thread().unpark();
            }
        }
        task(0);
        shared.common_tasks(common..count, task);
        tasks_of_late(offered.0, 0, task);
        drop(offered);
        if shared.failed.load(Ordering::Relaxed) {
            panic!("a task of a parallel step panicked");
        }
        true
    }
}

/// A run that goes on; see [`Threads::run_begins`].
pub struct RunGoesOn<'a> {
    shared: &'a Shared,
}

impl Drop for RunGoesOn<'_> {
    fn drop(&mut self) {
        self.shared.runs.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Desks with an open job. Takes back what is still offered and waits for the others, also while
/// unwinding.
struct Offered<'a>(&'a [Desk]);

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        for desk in self.0 {
            if !desk.take_back() {
                wait_until(|| desk.state.load(Ordering::Acquire) == IDLE);
            }
        }
    }
}

/// Does what is still offered at the desks of a job, from that of thread `own + 1` on.
fn tasks_of_late(desks: &[Desk], own: usize, task: &dyn Fn(usize)) {
    for index in (own + 1..=desks.len()).chain(1..own) {
        if desks[index - 1].take_back() {
            task(index);
        }
    }
}

impl Shared {
    /// Calls `task` for those of the tasks that nobody has taken yet.
    fn common_tasks(&self, tasks: Range<usize>, task: &dyn Fn(usize)) {
        if tasks.is_empty() {
            return;
        }
        loop {
            let index = self.next_task.fetch_add(1, Ordering::Relaxed);
            if index >= tasks.end {
                return;
            }
            task(index);
        }
    }

    /// Waits until there is something to do; `None` when the worker shall end.
    fn wait(&self, desk: &Desk) -> Option<Job> {
        let goes_on = || self.runs.load(Ordering::Relaxed) > 0;
        let mut spins = 0;
        loop {
            match desk.take() {
                Ok(job) => return Some(job),
                Err(ENDS) => return None,
                Err(_) if spins < SPINS[0] || spins < SPINS[1] && goes_on() => {
                    spins += 1;
                    std::hint::spin_loop();
                }
                Err(_) => {
                    desk.sleeps.0.store(true, Ordering::Relaxed);
                    fence(Ordering::SeqCst);
                    while desk.state.load(Ordering::Relaxed) == IDLE {
                        std::thread::park();
                    }
                    desk.sleeps.0.store(false, Ordering::Relaxed);
                    cores::leave(self.waking.load(Ordering::Relaxed));
                    spins = 0;
                }
            }
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let desk = &shared.desks[index - 1];
    while let Some(job) = shared.wait(desk) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // SAFETY: the caller waits until the desk is idle again.
            let task = unsafe { &*job.run };
            task(index);
            shared.common_tasks(job.common..job.end, task);
            tasks_of_late(&shared.desks[..job.common - 1], index, task);
        }));
        if outcome.is_err() {
            shared.failed.store(true, Ordering::Relaxed);
        }
        desk.state.store(IDLE, Ordering::Release);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for (desk, worker) in self.shared.desks.iter().zip(&self.workers) {
            desk.state.store(ENDS, Ordering::Release);
            worker.thread().unpark();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for count in [1, 2, 3] {
            let threads = Threads::new(count);
            assert_eq!(threads.count(), count);
            for round in 0..200 {
                let hits: Vec<AtomicUsize> = (0..round % 7).map(|_| AtomicUsize::new(0)).collect();
                threads.run(hits.len(), &|i| {
                    hits[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn several_callers_share_a_pool() {
        let threads = Threads::new(2);
        let rounds = || {
            for _ in 0..2000 {
                let hits: [AtomicUsize; 6] = Default::default();
                threads.run(hits.len(), &|i| {
                    hits[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(rounds);
            }
        });
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_survives() {
        let threads = Threads::new(2);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            threads.run(8, &|i| assert!(i != 5));
        }));
        assert!(broken.is_err());
        let sum = AtomicUsize::new(0);
        threads.run(4, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 6);
    }
}
