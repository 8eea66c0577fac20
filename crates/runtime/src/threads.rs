//! The engine's own pool: the caller is worker 0, workers spin for a moment inside a run and park
//! between runs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, TryLockError};
use std::thread::JoinHandle;

use crate::team::{MOST_MEMBERS, Meetings, Member, Team, wait_until};

/// How often a waiting worker looks again before it parks: some hundred microseconds between runs,
/// and ten times as long while one goes on, because waking takes longer than most steps.
const SPINS: [usize; 2] = [4_000, 40_000];

/// Tasks that have a bit of their own, so that each can be taken by a certain thread.
const BITS: usize = u64::BITS as usize;

/// A task of the current job, erased to a pointer that outlives the job.
#[derive(Clone, Copy)]
struct Job {
    run: *const (dyn Fn(usize) + Sync),
    count: usize,
}

// SAFETY: the closure is Sync, and `Threads::run` does not return before every worker has left it.
unsafe impl Send for Job {}

struct Shared {
    /// Counts jobs; a change wakes spinning workers.
    generation: AtomicUsize,
    /// Of the first tasks, a bit for each that somebody has taken.
    taken: AtomicU64,
    /// The next of the others.
    next_task: AtomicUsize,
    /// Workers that wait for `wake`, or are about to.
    parked: AtomicUsize,
    workers_inside: AtomicUsize,
    /// Runs that go on: more jobs are likely to come at once.
    runs: AtomicUsize,
    stop: AtomicBool,
    failed: AtomicBool,
    job: Mutex<Option<Job>>,
    wake: Condvar,
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
            generation: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            next_task: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            workers_inside: AtomicUsize::new(0),
            runs: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            job: Mutex::new(None),
            wake: Condvar::new(),
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
    /// begins with the task of its own number, whose data its cache may hold from the job before,
    /// and takes those of others that are late. While another caller has the workers, the caller does all of it.
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
    /// so the caller may be alone. False if members waited long for each other, because they have to share
    /// cores: alone, the caller would be faster.
    ///
    /// # Panics
    /// If a member panics.
    pub(crate) fn together(&self, most: usize, task: &(dyn Fn(&Member<'_>) + Sync)) -> bool {
        let most = most.min(self.count()).min(MOST_MEMBERS);
        let team = Team::new(&self.shared.meetings);
        if !self.offer(most, &|index| team.join(index, most, task)) {
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
        // SAFETY: only the lifetime changes; this function waits until no worker uses the pointer.
        let run: *const (dyn Fn(usize) + Sync) = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(
                task,
            )
        };
        let shared = &*self.shared;
        {
            let mut job = shared.job.lock().unwrap_or_else(|e| e.into_inner());
            shared.failed.store(false, Ordering::Relaxed);
            shared.taken.store(0, Ordering::Relaxed);
            shared.next_task.store(BITS, Ordering::Relaxed);
            *job = Some(Job { run, count });
        }
        // Behind the lock, so that spinning workers find it free. Either this sees a worker that
        // is about to park, or that worker sees the new generation.
        shared.generation.fetch_add(1, Ordering::SeqCst);
        if shared.parked.load(Ordering::SeqCst) > 0 {
            let _guard = shared.job.lock().unwrap_or_else(|e| e.into_inner());
            shared.wake.notify_all();
        }
        let leave = Leave { shared };
        take_tasks(shared, count, 0, task);
        drop(leave);
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

/// Closes the job and waits for the workers inside it, also while unwinding.
struct Leave<'a> {
    shared: &'a Shared,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        *self.shared.job.lock().unwrap_or_else(|e| e.into_inner()) = None;
        wait_until(|| self.shared.workers_inside.load(Ordering::Acquire) == 0);
    }
}

fn take_tasks(shared: &Shared, count: usize, own: usize, task: &dyn Fn(usize)) {
    let first = count.min(BITS);
    for index in (0..first).map(|i| (own + i) % first) {
        let bit = 1 << index;
        if shared.taken.load(Ordering::Relaxed) & bit == 0
            && shared.taken.fetch_or(bit, Ordering::Relaxed) & bit == 0
        {
            task(index);
        }
    }
    loop {
        let index = shared.next_task.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return;
        }
        task(index);
    }
}

fn work(shared: &Shared, own: usize) {
    let mut seen = 0;
    while !shared.stop.load(Ordering::Acquire) {
        let mut spins = 0;
        let most = || SPINS[usize::from(shared.runs.load(Ordering::Relaxed) > 0)];
        while shared.generation.load(Ordering::Acquire) == seen && spins < most() {
            std::hint::spin_loop();
            spins += 1;
        }
        let mut guard = shared.job.lock().unwrap_or_else(|e| e.into_inner());
        shared.parked.fetch_add(1, Ordering::SeqCst);
        while shared.generation.load(Ordering::SeqCst) == seen
            && !shared.stop.load(Ordering::Acquire)
        {
            guard = shared.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
        }
        shared.parked.fetch_sub(1, Ordering::SeqCst);
        seen = shared.generation.load(Ordering::Acquire);
        let job = *guard;
        if job.is_some() {
            shared.workers_inside.fetch_add(1, Ordering::AcqRel);
        }
        drop(guard);
        let Some(job) = job else { continue };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // SAFETY: the job was open when `workers_inside` was raised under the lock, and
            // `Leave` waits for it to fall again.
            take_tasks(shared, job.count, own, unsafe { &*job.run });
        }));
        if outcome.is_err() {
            shared.failed.store(true, Ordering::Relaxed);
        }
        shared.workers_inside.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        {
            let _guard = self.shared.job.lock().unwrap_or_else(|e| e.into_inner());
            self.shared.wake.notify_all();
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
