//! Which of two ways to run a plan is faster: told by trying the other one now and then, because that
//! depends on how far apart the cores are on which threads happen to run, and who else uses them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A trial takes at least so many runs and so long: the first ones move data to where others find it.
const TRIAL_RUNS: usize = 4;
const TRIAL: Duration = Duration::from_micros(500);

/// So long it waits for threads that have to wake first, and that the system may have put on the core
/// of the caller.
const WAKING: Duration = Duration::from_millis(20);

/// Timed runs whose least time stands for the way in use, and how many runs follow each that are not
/// timed.
const RECENT: usize = 8;
const UNTIMED: u32 = 7;

/// Time between trials, at least, and in times of the last one.
const BETWEEN: Duration = Duration::from_millis(100);
const BETWEEN_TRIALS: u32 = 100;

/// The other way is taken if it takes less than so many hundredths.
const GAIN: u32 = 97;

/// How a plan is run: in which of two ways, and since when.
pub(crate) struct Lap {
    /// True for the second way, for which threads have to come.
    pub second: bool,
    /// Set where the run is timed.
    begin: Option<Instant>,
    came: AtomicBool,
}

impl Lap {
    /// Says that they did.
    pub fn threads_came(&self) {
        self.came.store(true, Ordering::Relaxed);
    }
}

/// Chooses between two ways.
#[derive(Default)]
pub(crate) struct Pace {
    times: Mutex<Times>,
    /// The way in use, and runs until one is timed again.
    second: AtomicBool,
    untimed: AtomicU32,
}

#[derive(Default)]
struct Times {
    /// The way in use.
    second: bool,
    /// What the last runs took that way, and how many there were.
    recent: [Duration; RECENT],
    runs: usize,
    /// The trial that goes on.
    trial: Option<Trial>,
    /// When the next trial begins; at once if there was none.
    next: Option<Instant>,
}

/// Runs the way that is not in use.
struct Trial {
    /// Those for which threads came.
    runs: usize,
    /// The time of all runs and of those, and the least.
    whole: Duration,
    sum: Duration,
    least: Duration,
}

impl Pace {
    /// A run begins.
    pub fn begin(&self) -> Lap {
        let untimed = self.untimed.load(Ordering::Relaxed);
        if untimed > 0 {
            // Should two begin at the same time, one of them does not count.
            self.untimed.store(untimed - 1, Ordering::Relaxed);
            let second = self.second.load(Ordering::Relaxed);
            return Lap { second, begin: None, came: AtomicBool::new(true) };
        }
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let second = times.second != times.trial.is_some();
        Lap { second, begin: Some(Instant::now()), came: AtomicBool::new(!second) }
    }

    /// A run came to its end.
    pub fn end(&self, lap: Lap) {
        let Some(begin) = lap.begin else { return };
        let now = Instant::now();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.took(lap.second, lap.came.into_inner(), now.duration_since(begin), now);
        if times.trial.is_none() && times.runs >= RECENT {
            self.second.store(times.second, Ordering::Relaxed);
            self.untimed.store(UNTIMED, Ordering::Relaxed);
        }
    }
}

impl Times {
    fn took(&mut self, second: bool, came: bool, took: Duration, now: Instant) {
        if second == self.second {
            self.recent[self.runs % RECENT] = took;
            self.runs += 1;
            let waits = self.next.is_some_and(|next| now < next);
            if self.trial.is_none() && self.runs >= RECENT && !waits {
                let [whole, sum] = [Duration::ZERO; 2];
                self.trial = Some(Trial { runs: 0, whole, sum, least: Duration::MAX });
            }
        } else if let Some(trial) = &mut self.trial {
            trial.whole += took;
            if came {
                trial.runs += 1;
                trial.sum += took;
                trial.least = trial.least.min(took);
            }
            if trial.runs >= TRIAL_RUNS && trial.sum >= TRIAL || trial.whole >= WAKING {
                self.decide(now);
            }
        }
    }

    /// Ends a trial.
    fn decide(&mut self, now: Instant) {
        let Some(trial) = self.trial.take() else { return };
        let usual = self.recent.iter().min().copied().unwrap_or_default();
        if trial.least < usual * GAIN / 100 {
            self.second = !self.second;
            self.runs = 0;
        }
        self.next = Some(now + BETWEEN.max(trial.whole * BETWEEN_TRIALS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs that take `took` microseconds each way; which way the last of them went, and how often the
    /// other one was tried.
    fn ways(times: &mut Times, now: &mut Instant, took: [u64; 2], runs: usize) -> (bool, usize) {
        let mut seconds = 0;
        for _ in 0..runs {
            let second = times.second != times.trial.is_some();
            let took = Duration::from_micros(took[usize::from(second)]);
            *now += took;
            times.took(second, true, took, *now);
            seconds += usize::from(second);
        }
        (times.second, seconds)
    }

    #[test]
    fn the_faster_way_is_found_and_found_again() {
        let (mut times, mut now) = (Times::default(), Instant::now());
        assert!(ways(&mut times, &mut now, [100, 50], 8 + 40).0, "after the first trial");
        // Until the next trial, 100 ms later.
        assert!(ways(&mut times, &mut now, [100, 200], 400).0);
        assert!(!ways(&mut times, &mut now, [100, 200], 500).0);
        let (second, tried) = ways(&mut times, &mut now, [100, 100], 10_000);
        assert!(!second, "it stays where it is without a gain");
        assert!((40..=120).contains(&tried), "{tried} runs of trials");
    }

    #[test]
    fn a_trial_waits_for_threads_to_wake() {
        let (mut times, mut now) = (Times::default(), Instant::now());
        ways(&mut times, &mut now, [100, 50], 8);
        let took = Duration::from_micros(120);
        (0..100).for_each(|_| times.took(true, false, took, now));
        assert!(times.trial.is_some());
        assert!(ways(&mut times, &mut now, [100, 50], 10).0);
        // Nor for ever.
        let (mut times, mut now) = (Times::default(), Instant::now());
        ways(&mut times, &mut now, [100, 50], 8);
        (0..170).for_each(|_| times.took(true, false, took, now));
        assert!(times.trial.is_none() && !times.second);
    }

    #[test]
    fn slow_runs_are_tried_less_often() {
        let (mut times, mut now) = (Times::default(), Instant::now());
        ways(&mut times, &mut now, [10_000, 20_000], 20);
        let (_, tried) = ways(&mut times, &mut now, [10_000, 20_000], 1000);
        assert!(tried <= 20, "{tried}");
    }
}
