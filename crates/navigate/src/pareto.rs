//! The frontier, and the choice on it.

use crate::goal::{Limits, Target};

/// What a candidate is judged by. The drop is in points (see [`crate::drop_in_points`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Loss against the original; negative where the candidate is better.
    pub drop: f64,
    /// Median latency in microseconds, for the limit.
    pub latency_us: f64,
    /// Latency as a share of the original's, from interleaved rounds: what candidates are ordered
    /// by, because a machine that is slower for a while does not change it.
    pub relative_latency: f64,
    /// Bytes of the file.
    pub bytes: u64,
    /// US dollars per million inferences.
    pub cost_usd: f64,
}

impl Standing {
    /// True where `self` is nowhere worse than `other` and somewhere better. Cost follows latency
    /// and is not counted twice.
    pub fn dominates(&self, other: &Standing) -> bool {
        let no_worse = self.drop <= other.drop
            && self.relative_latency <= other.relative_latency
            && self.bytes <= other.bytes;
        let better = self.drop < other.drop
            || self.relative_latency < other.relative_latency
            || self.bytes < other.bytes;
        no_worse && better
    }

    fn amount(&self, target: Target) -> f64 {
        match target {
            Target::Latency | Target::Cost => self.relative_latency,
            Target::Size => self.bytes as f64,
        }
    }
}

/// For each candidate, the first one that dominates it; `None` on the frontier.
pub fn dominated_by(standings: &[Standing]) -> Vec<Option<usize>> {
    let by = |standing: &Standing| standings.iter().position(|other| other.dominates(standing));
    standings.iter().map(by).collect()
}

/// The limits that a candidate breaks, each with its number; empty where it keeps all.
pub fn broken_limits(standing: &Standing, limits: &Limits) -> Vec<String> {
    let mut broken = Vec::new();
    let mut check = |name: &str, unit: &str, value: f64, limit: Option<f64>| {
        if let Some(limit) = limit.filter(|&limit| value > limit) {
            broken.push(format!("{name} {value:.2}{unit} is above {limit:.2}{unit}"));
        }
    };
    // A drop is a difference of shares: 0.005 must keep a limit of 0.5 points.
    check("drop", " points", standing.drop - 1e-9, limits.max_drop);
    check("latency", " us", standing.latency_us, limits.max_latency_us);
    check("size", " bytes", standing.bytes as f64, limits.max_size_bytes.map(|b| b as f64));
    check("cost", " USD per million", standing.cost_usd, limits.max_cost_usd);
    broken
}

/// Candidates whose amounts differ by less are equal: a repeated measurement could swap them.
const NO_DIFFERENCE: f64 = 1.02;

/// The candidate that keeps all limits and has least of the target; of those within 2 % of the
/// least, the one with the smallest drop, then the first. `None` where no candidate keeps all
/// limits.
pub fn choose(standings: &[Standing], limits: &Limits, target: Target) -> Option<usize> {
    let kept = |i: &usize| broken_limits(&standings[*i], limits).is_empty();
    let kept: Vec<usize> = (0..standings.len()).filter(kept).collect();
    let amount = |i: usize| standings[i].amount(target);
    let least = kept.iter().map(|&i| amount(i)).fold(f64::INFINITY, f64::min);
    let near = kept.into_iter().filter(|&i| amount(i) <= least * NO_DIFFERENCE);
    near.min_by(|&a, &b| standings[a].drop.total_cmp(&standings[b].drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(drop: f64, latency_us: f64, bytes: u64) -> Standing {
        Standing {
            drop,
            latency_us,
            relative_latency: latency_us / 100.0,
            bytes,
            cost_usd: latency_us / 1e3,
        }
    }

    #[test]
    fn the_frontier_and_the_choice_on_it() {
        let all = [
            standing(0.0, 100.0, 1000),
            standing(0.4, 40.0, 250),
            standing(0.5, 40.0, 250),
            standing(2.0, 30.0, 250),
            standing(0.1, 120.0, 240),
        ];
        assert_eq!(dominated_by(&all), [None, None, Some(1), None, None]);
        let limits = |max_drop| Limits { max_drop, ..Limits::default() };
        assert_eq!(choose(&all, &limits(Some(0.5)), Target::Latency), Some(1));
        assert_eq!(choose(&all, &limits(None), Target::Latency), Some(3));
        assert_eq!(choose(&all, &limits(Some(0.5)), Target::Size), Some(4));
        assert_eq!(choose(&all, &limits(Some(0.0)), Target::Latency), Some(0));
        let near = [standing(0.3, 40.0, 250), standing(0.1, 40.5, 250), standing(0.0, 41.0, 250)];
        assert_eq!(choose(&near, &limits(None), Target::Latency), Some(1));
        let tight = Limits { max_latency_us: Some(35.0), ..limits(Some(0.5)) };
        assert_eq!(choose(&all, &tight, Target::Latency), None);
        assert_eq!(broken_limits(&all[3], &tight), ["drop 2.00 points is above 0.50 points"]);
    }

    #[test]
    fn equal_candidates_do_not_dominate_each_other() {
        let all = [standing(0.0, 1.0, 1), standing(0.0, 1.0, 1)];
        assert_eq!(dominated_by(&all), [None, None]);
        assert_eq!(choose(&all, &Limits::default(), Target::Cost), Some(0));
    }
}
