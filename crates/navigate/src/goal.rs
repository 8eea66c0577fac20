//! What the user asks for: a metric, limits, and what to make as small as possible.

use std::time::Duration;

use lepton_measure::{Metric, Price};
use serde::{Deserialize, Serialize};

use crate::NavigateError;

/// What the chosen candidate has least of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Median time of a run.
    #[default]
    Latency,
    /// Bytes of the file.
    Size,
    /// US dollars per million inferences.
    Cost,
}

impl Target {
    /// Every target, by its name.
    pub const NAMES: &'static [(&'static str, Target)] =
        &[("latency", Target::Latency), ("size", Target::Size), ("cost", Target::Cost)];
}

/// Limits a candidate has to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Most loss of the metric: in points (hundredths) for metrics that are shares, in per cent
    /// of the original's value for errors.
    pub max_drop: Option<f64>,
    /// Most median latency in microseconds.
    pub max_latency_us: Option<f64>,
    /// Most bytes of the file.
    pub max_size_bytes: Option<u64>,
    /// Most US dollars per million inferences.
    pub max_cost_usd: Option<f64>,
}

/// Everything a search is asked for.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The metric; `None` for `top1` where the data has labels and `agreement` where not.
    pub metric: Option<&'static Metric>,
    /// Limits.
    pub limits: Limits,
    /// What the chosen one has least of.
    pub target: Target,
    /// No new candidate is begun after this time.
    pub time_budget: Option<Duration>,
    /// Seed of everything drawn at random.
    pub seed: u64,
    /// Threads of a run.
    pub threads: usize,
    /// The instance whose price counts.
    pub price: Price,
    /// Share of the time a machine is busy, for the cost.
    pub utilisation: f64,
    /// Samples for calibration, at most.
    pub calibration_samples: usize,
    /// Samples for tuning, at most.
    pub tuning_samples: usize,
    /// Time spent on the latency of each candidate.
    pub latency_time: Duration,
}

impl Goal {
    /// Refuses limits that are not positive numbers.
    pub fn check(&self) -> Result<(), NavigateError> {
        let wrong = |name: &str, value: f64| {
            let text = format!("{name} is {value}; it must be a number, 0 or above");
            Err(NavigateError::Goal(text))
        };
        let limits = [
            ("max-drop", self.limits.max_drop),
            ("max-latency", self.limits.max_latency_us),
            ("max-cost", self.limits.max_cost_usd),
        ];
        for (name, value) in limits {
            if let Some(value) = value
                && !(value.is_finite() && value >= 0.0)
            {
                return wrong(name, value);
            }
        }
        if self.calibration_samples == 0 || self.tuning_samples == 0 || self.threads == 0 {
            let text = "calibration samples, tuning samples and threads must be at least 1";
            return Err(NavigateError::Goal(text.into()));
        }
        Ok(())
    }
}

/// A loss in the metric's own units as the user counts it: points for shares, per cent of the
/// original's value for errors.
pub fn drop_in_points(metric: &Metric, original: f64, drop: f64) -> f64 {
    if metric.higher_is_better {
        return drop * 100.0;
    }
    if drop == 0.0 { 0.0 } else { drop / original.abs().max(f64::MIN_POSITIVE) * 100.0 }
}
