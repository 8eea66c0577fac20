//! Paired tests: is a candidate worse than the original on the same samples?

use serde::{Deserialize, Serialize};

use crate::metrics::{Evaluation, Metric, Samples};
use crate::statistics::{
    CONFIDENCE, bootstrap, mcnemar_exact, paired_proportions, percentile_interval,
};
use crate::{Interval, MeasureError};

/// How much worse a candidate is than the original on the same samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedTest {
    /// Name of the metric.
    pub metric: String,
    /// The loss: positive where the candidate is worse, whichever way the metric runs.
    pub drop: f64,
    /// Lower end of the interval of the drop.
    pub low: f64,
    /// Upper end of the interval of the drop.
    pub high: f64,
    /// Confidence of the interval, 0.95.
    pub confidence: f64,
    /// Two-sided p-value of "no difference".
    pub p_value: f64,
    /// Samples compared.
    pub samples: usize,
    /// "mcnemar_exact" (interval: Bonett and Price 2012) or "paired_bootstrap".
    pub test: String,
    /// Samples only the original got right, for a right/wrong metric.
    pub only_original: Option<usize>,
    /// Samples only the candidate got right, for a right/wrong metric.
    pub only_candidate: Option<usize>,
}

impl PairedTest {
    /// True where the interval of the drop stays at or below `limit` (in the metric's units).
    pub fn within(&self, limit: f64) -> bool {
        self.high <= limit
    }

    /// True where the candidate is worse beyond chance.
    pub fn is_worse(&self) -> bool {
        self.low > 0.0
    }
}

/// The drop from `original` to `candidate`. Both must come from the same samples in the same order
/// under the same metric.
pub fn paired_drop(
    original: &Evaluation,
    candidate: &Evaluation,
) -> Result<PairedTest, MeasureError> {
    let (a, b) = (&original.result, &candidate.result);
    if a.metric != b.metric {
        return Err(MeasureError::Unpaired(format!("`{}` against `{}`", a.metric, b.metric)));
    }
    if original.samples.len() != candidate.samples.len() {
        let message = format!("{} samples against {}", a.samples, b.samples);
        return Err(MeasureError::Unpaired(message));
    }
    if !original.samples.same_targets(&candidate.samples) {
        return Err(MeasureError::Unpaired("the labels differ".into()));
    }
    let metric = Metric::find(&a.metric)?;
    let sign = if metric.higher_is_better { 1.0 } else { -1.0 };
    let mut test = PairedTest {
        metric: a.metric.clone(),
        drop: sign * (a.value - b.value),
        low: 0.0,
        high: 0.0,
        confidence: CONFIDENCE,
        p_value: 1.0,
        samples: a.samples,
        test: String::new(),
        only_original: None,
        only_candidate: None,
    };
    let interval = match (&original.samples, &candidate.samples) {
        (Samples::Hits(x), Samples::Hits(y)) => {
            let (only_x, only_y) = (x.ones_not_in(y), y.ones_not_in(x));
            test.p_value = mcnemar_exact(only_x, only_y);
            test.test = "mcnemar_exact".into();
            (test.only_original, test.only_candidate) = (Some(only_x), Some(only_y));
            paired_proportions(only_x, only_y, x.len())
        }
        (x, y) => {
            test.test = "paired_bootstrap".into();
            let (before, after) = (x.statistic(metric.kind), y.statistic(metric.kind));
            let drops = bootstrap(x.len(), |weights| {
                Some(sign * (before(Some(weights))? - after(Some(weights))?))
            });
            test.p_value = bootstrap_p(&drops);
            percentile_interval(&drops)
        }
    };
    Interval { low: test.low, high: test.high } = interval;
    Ok(test)
}

/// Twice the smaller tail at zero, counting the observed sample itself (Davison and Hinkley 1997).
fn bootstrap_p(sorted: &[f64]) -> f64 {
    let below = sorted.iter().filter(|&&drop| drop <= 0.0).count();
    let above = sorted.iter().filter(|&&drop| drop >= 0.0).count();
    let tail = (below.min(above) + 1) as f64 / (sorted.len() + 1) as f64;
    (2.0 * tail).min(1.0)
}
