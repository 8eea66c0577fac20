//! Latency: what a set of times says, and timing several candidates in interleaved rounds, so that
//! a machine that gets slower or faster meanwhile does so for all of them.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::statistics::{CONFIDENCE, Z, bootstrap, median, percentile_interval, quantile};

/// Shorter runs are repeated inside one timing until it takes this long, so that reading the clock
/// (some 25 ns) stays below a thousandth of it.
const SHORTEST_TIMING_US: f64 = 25.0;

/// What a set of run times says, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50_us: f64,
    /// 95th percentile.
    pub p95_us: f64,
    /// Fastest.
    pub min_us: f64,
    /// Mean.
    pub mean_us: f64,
    /// Timings taken (each the mean of several runs where one run takes less than 25 µs).
    pub runs: usize,
}

impl Latency {
    /// Of times in microseconds, in any order; `None` of no times.
    pub fn from_times_us(times_us: &[f64]) -> Option<Self> {
        let mut sorted = times_us.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Latency {
            p50_us: quantile(&sorted, 0.5),
            p95_us: quantile(&sorted, 0.95),
            min_us: *sorted.first()?,
            mean_us: sorted.iter().sum::<f64>() / sorted.len() as f64,
            runs: sorted.len(),
        })
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasureBudget {
    /// Time for all candidates together, warm-up included. At least `min_rounds` are run even if
    /// they take longer.
    pub time: Duration,
    /// Fewest rounds.
    pub min_rounds: usize,
    /// Most rounds.
    pub max_rounds: usize,
    /// Stop early once every median is known to this share of itself (half the width of its 95 %
    /// interval).
    pub precision: f64,
}

impl Default for MeasureBudget {
    /// Two seconds, 10 to 2000 rounds, medians to 0.5 %.
    fn default() -> Self {
        MeasureBudget {
            time: Duration::from_secs(2),
            min_rounds: 10,
            max_rounds: 2000,
            precision: 0.005,
        }
    }
}

/// How many times faster one candidate is than another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speedup {
    /// Median time of the base over that of the candidate; above 1 where the candidate is faster.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Confidence of the interval, 0.95.
    pub confidence: f64,
}

impl Speedup {
    /// True where the whole interval is above 1.
    pub fn is_faster(&self) -> bool {
        self.low > 1.0
    }
}

/// The times of candidates measured in interleaved rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interleaved {
    /// What each candidate's times say, in the order given.
    pub latencies: Vec<Latency>,
    /// The times in microseconds: one row a candidate, one column a round.
    pub times_us: Vec<Vec<f64>>,
}

impl Interleaved {
    /// How many times faster `candidate` is than `base` (indices in the order given); the interval
    /// is a bootstrap over rounds, which keeps the two times of a round together. `None` where an
    /// index is outside.
    pub fn speedup(&self, base: usize, candidate: usize) -> Option<Speedup> {
        let (slow, fast) = (self.times_us.get(base)?, self.times_us.get(candidate)?);
        let ratio = median(&mut slow.clone()) / median(&mut fast.clone());
        let (mut drawn_slow, mut drawn_fast) = (Vec::new(), Vec::new());
        let ratios = bootstrap(slow.len(), |counts| {
            drawn_slow.clear();
            drawn_fast.clear();
            for (round, &count) in counts.iter().enumerate() {
                for _ in 0..count {
                    drawn_slow.push(slow[round]);
                    drawn_fast.push(fast[round]);
                }
            }
            Some(median(&mut drawn_slow) / median(&mut drawn_fast))
        });
        let interval = percentile_interval(&ratios);
        Some(Speedup { ratio, low: interval.low, high: interval.high, confidence: CONFIDENCE })
    }
}

/// Times `candidates` in rounds, each once a round, starting with the next one every round.
///
/// The first, untimed pass warms up and finds how often a very short candidate has to be repeated
/// inside one timing. The first error of a candidate ends the measurement.
///
/// # Panics
/// Without candidates.
pub fn interleaved<E>(
    candidates: &mut [&mut dyn FnMut() -> Result<(), E>],
    budget: MeasureBudget,
) -> Result<Interleaved, E> {
    assert!(!candidates.is_empty(), "nothing to measure");
    let started = Instant::now();
    let repeats =
        candidates.iter_mut().map(|run| repeats_of(run)).collect::<Result<Vec<_>, _>>()?;
    let mut times_us = vec![Vec::new(); candidates.len()];
    let mut check_at = budget.min_rounds.max(1);
    for round in 0..budget.max_rounds.max(1) {
        if round >= budget.min_rounds.max(1) && started.elapsed() >= budget.time {
            break;
        }
        if round == check_at {
            if times_us.iter().all(|times| precision_of(times) <= budget.precision) {
                break;
            }
            check_at += check_at.div_ceil(2);
        }
        for turn in 0..candidates.len() {
            let which = (round + turn) % candidates.len();
            times_us[which].push(time_us(&mut candidates[which], repeats[which])?);
        }
    }
    let latencies = times_us
        .iter()
        .map(|times| Latency::from_times_us(times).expect("at least one round was run"))
        .collect();
    Ok(Interleaved { latencies, times_us })
}

fn repeats_of<E>(run: &mut &mut dyn FnMut() -> Result<(), E>) -> Result<u32, E> {
    run()?;
    let once_us = time_us(run, 1)?.min(time_us(run, 1)?).max(0.01);
    Ok((SHORTEST_TIMING_US / once_us).ceil().max(1.0) as u32)
}

fn time_us<E>(run: &mut &mut dyn FnMut() -> Result<(), E>, repeats: u32) -> Result<f64, E> {
    let started = Instant::now();
    for _ in 0..repeats {
        run()?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(repeats))
}

/// Half the width of the 95 % interval of the median, by order statistics, as a share of it.
fn precision_of(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let reach = Z / 2.0 / (sorted.len() as f64).sqrt();
    let width = quantile(&sorted, 0.5 + reach) - quantile(&sorted, 0.5 - reach);
    width / 2.0 / quantile(&sorted, 0.5).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn latency_of_known_times() {
        let times: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        let latency = Latency::from_times_us(&times).unwrap();
        assert_eq!((latency.p50_us, latency.p95_us, latency.min_us), (51.0, 96.0, 1.0));
        assert_eq!((latency.mean_us, latency.runs), (51.0, 101));
        assert!(Latency::from_times_us(&[]).is_none());
    }

    #[test]
    fn rounds_rotate() {
        let order = RefCell::new(Vec::new());
        let wait = |name: char| {
            order.borrow_mut().push(name);
            std::thread::sleep(Duration::from_micros(60));
            Ok::<(), Infallible>(())
        };
        let budget = MeasureBudget { min_rounds: 4, max_rounds: 4, ..Default::default() };
        let Ok(result) =
            interleaved(&mut [&mut || wait('a'), &mut || wait('b'), &mut || wait('c')], budget);
        assert_eq!(result.latencies.len(), 3);
        assert_eq!(result.times_us[1].len(), 4);
        let order: String = order.into_inner().into_iter().collect();
        assert!(order.ends_with("abcbcacababc"), "{order}");
    }

    #[test]
    fn a_speedup_is_found_with_its_interval() {
        let times = |scale: f64| (0..200).map(|i| scale * (100.0 + (i * 7 % 13) as f64)).collect();
        let times_us: Vec<Vec<f64>> = vec![times(2.0), times(1.0)];
        let latencies =
            times_us.iter().map(|times| Latency::from_times_us(times).unwrap()).collect();
        let result = Interleaved { latencies, times_us };
        let speedup = result.speedup(0, 1).unwrap();
        assert!((speedup.ratio - 2.0).abs() < 1e-9 && speedup.is_faster(), "{speedup:?}");
        assert!(speedup.low > 1.95 && speedup.high < 2.05);
        assert!(!result.speedup(1, 0).unwrap().is_faster());
        assert!(result.speedup(0, 2).is_none());
    }

    #[test]
    fn errors_end_the_measurement() {
        let mut calls = 0;
        let result = interleaved(
            &mut [&mut || {
                calls += 1;
                if calls > 5 { Err("broken") } else { Ok(()) }
            }],
            MeasureBudget::default(),
        );
        assert_eq!(result, Err("broken"));
    }

    #[test]
    fn the_budget_bounds_the_time() {
        let started = Instant::now();
        let budget = MeasureBudget {
            time: Duration::from_millis(30),
            precision: 0.0,
            max_rounds: usize::MAX,
            ..Default::default()
        };
        let mut spin = || {
            std::thread::sleep(Duration::from_micros(200));
            Ok::<(), Infallible>(())
        };
        let Ok(result) = interleaved(&mut [&mut spin], budget);
        assert!(result.latencies[0].runs >= 10);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
