//! What each sample contributed to a metric, kept small, and the metric of any weighting of them.

use serde::{Deserialize, Serialize};

use super::auc::Ranking;
use super::{Kind, Metric, MetricResult};
use crate::MeasureError;
use crate::statistics::{CONFIDENCE, bootstrap, percentile_interval, wilson};

/// From how often each sample counts (`None`: each once) to a value, if there is one.
pub(crate) type Statistic<'a> = dyn Fn(Option<&[u32]>) -> Option<f64> + 'a;

/// One bit a sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.words[self.len / 64] |= u64::from(bit) << (self.len % 64);
        self.len += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn ones(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Samples set here and not in `other`, which must be as long.
    pub(crate) fn ones_not_in(&self, other: &Bits) -> usize {
        self.words.iter().zip(&other.words).map(|(a, b)| (a & !b).count_ones() as usize).sum()
    }
}

impl Extend<bool> for Bits {
    fn extend<I: IntoIterator<Item = bool>>(&mut self, bits: I) {
        bits.into_iter().for_each(|bit| self.push(bit));
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<I: IntoIterator<Item = bool>>(bits: I) -> Self {
        let mut all = Bits::default();
        all.extend(bits);
        all
    }
}

/// What each sample contributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Samples {
    /// Right or wrong.
    Hits(Bits),
    /// Class predicted and class given, of so many classes.
    Classes { predicted: Vec<u32>, given: Vec<u32>, classes: u32 },
    /// Score of the positive class, and whether it is.
    Scores { scores: Vec<f32>, positive: Vec<bool> },
    /// Error of the sample.
    Errors(Vec<f32>),
}

impl Samples {
    pub(crate) fn len(&self) -> usize {
        match self {
            Samples::Hits(bits) => bits.len(),
            Samples::Classes { predicted, .. } => predicted.len(),
            Samples::Scores { scores, .. } => scores.len(),
            Samples::Errors(errors) => errors.len(),
        }
    }

    /// True where both hold the same targets, as far as targets are kept.
    pub(crate) fn same_targets(&self, other: &Samples) -> bool {
        match (self, other) {
            (Samples::Hits(a), Samples::Hits(b)) => a.len() == b.len(),
            (Samples::Classes { given: a, .. }, Samples::Classes { given: b, .. }) => a == b,
            (Samples::Scores { positive: a, .. }, Samples::Scores { positive: b, .. }) => a == b,
            (Samples::Errors(a), Samples::Errors(b)) => a.len() == b.len(),
            _ => false,
        }
    }

    /// A function from how often each sample counts (`None`: once) to the metric's value.
    pub(crate) fn statistic(&self, kind: Kind) -> Box<Statistic<'_>> {
        match self {
            Samples::Hits(bits) => {
                Box::new(|_| (bits.len() > 0).then(|| bits.ones() as f64 / bits.len() as f64))
            }
            Samples::Errors(errors) => Box::new(|weights| mean(errors, weights)),
            Samples::Scores { scores, positive } => {
                let ranking = Ranking::new(scores, positive);
                Box::new(move |weights| ranking.area(weights))
            }
            Samples::Classes { predicted, given, classes } => {
                Box::new(move |weights| by_class(kind, predicted, given, *classes, weights))
            }
        }
    }

    pub(crate) fn result(&self, metric: &'static Metric) -> Result<MetricResult, MeasureError> {
        let undefined = |why| MeasureError::Undefined { metric: metric.name, why };
        if self.len() == 0 {
            return Err(undefined("there are no samples"));
        }
        let statistic = self.statistic(metric.kind);
        let value = statistic(None).ok_or_else(|| undefined("all labels are of one class"))?;
        let (interval, method) = match self {
            Samples::Hits(bits) => (wilson(bits.ones(), bits.len()), "wilson"),
            Samples::Scores { scores, positive } => (
                Ranking::new(scores, positive).interval().expect("the area exists, see above"),
                "delong",
            ),
            Samples::Classes { .. } | Samples::Errors(_) => {
                let values = bootstrap(self.len(), |weights| statistic(Some(weights)));
                (percentile_interval(&values), "bootstrap")
            }
        };
        Ok(MetricResult {
            metric: metric.name.to_owned(),
            value,
            low: interval.low,
            high: interval.high,
            confidence: CONFIDENCE,
            samples: self.len(),
            interval: method.to_owned(),
        })
    }
}

fn mean(errors: &[f32], weights: Option<&[u32]>) -> Option<f64> {
    let (mut sum, mut total) = (0.0, 0.0);
    for (i, &error) in errors.iter().enumerate() {
        let weight = weights.map_or(1.0, |w| w[i] as f64);
        sum += weight * error as f64;
        total += weight;
    }
    (total > 0.0).then(|| sum / total)
}

/// Precision, recall or F1: of class 1 where there are two classes, else the mean over the classes
/// that occur (given or predicted). A class with nothing to divide by counts 0.
fn by_class(
    kind: Kind,
    predicted: &[u32],
    given: &[u32],
    classes: u32,
    weights: Option<&[u32]>,
) -> Option<f64> {
    let classes = classes as usize;
    let (mut right, mut called, mut there) =
        (vec![0u64; classes], vec![0u64; classes], vec![0u64; classes]);
    for (i, (&p, &g)) in predicted.iter().zip(given).enumerate() {
        let weight = weights.map_or(1, |w| w[i] as u64);
        called[p as usize] += weight;
        there[g as usize] += weight;
        if p == g {
            right[p as usize] += weight;
        }
    }
    let share = |numerator: u64, denominator: u64| match denominator {
        0 => 0.0,
        _ => numerator as f64 / denominator as f64,
    };
    let value = |class: usize| match kind {
        Kind::Precision => share(right[class], called[class]),
        Kind::Recall => share(right[class], there[class]),
        _ => share(2 * right[class], called[class] + there[class]),
    };
    if classes <= 2 {
        return (classes == 2).then(|| value(1));
    }
    let occurring: Vec<usize> = (0..classes).filter(|&c| called[c] + there[c] > 0).collect();
    (!occurring.is_empty())
        .then(|| occurring.iter().map(|&c| value(c)).sum::<f64>() / occurring.len() as f64)
}
