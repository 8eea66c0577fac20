//! The metrics, as one list, and what one of them says about a set of samples.

mod accumulate;
mod auc;
mod samples;

use serde::{Deserialize, Serialize};

use crate::MeasureError;
pub use accumulate::Accumulator;
pub(crate) use samples::Samples;

/// What kind of model a metric is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One class a sample.
    Classification,
    /// Two classes; the output is one score, or one for each class.
    BinaryClassification,
    /// Numbers.
    Regression,
}

/// What the outputs are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// The labels (or target values) of the data.
    Labels,
    /// The outputs of the original model on the same inputs.
    Original,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Top(usize),
    Precision,
    Recall,
    F1,
    Auc,
    AbsoluteError,
    SquaredError,
    Agreement,
}

/// One row of [`METRICS`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The name in options and reports.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// What it is for.
    pub task: Task,
    /// What the outputs are held against.
    pub compared: Compared,
    /// True where more is better.
    pub higher_is_better: bool,
    pub(crate) kind: Kind,
}

impl Metric {
    /// The metric of this name.
    pub fn find(name: &str) -> Result<&'static Metric, MeasureError> {
        METRICS.iter().find(|metric| metric.name == name).ok_or_else(|| {
            let known: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
            MeasureError::UnknownMetric { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// True where the data must have labels.
    pub fn needs_labels(&self) -> bool {
        self.compared == Compared::Labels
    }
}

macro_rules! metrics {
    ($($name:literal $kind:expr, $task:ident, $compared:ident, $better:ident, $about:literal;)*) => {
        /// Every metric.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            about: $about,
            task: Task::$task,
            compared: Compared::$compared,
            higher_is_better: metrics!(@$better),
            kind: $kind,
        }),*];
    };
    (@higher) => { true };
    (@lower) => { false };
}

metrics! {
    "top1" Kind::Top(1), Classification, Labels, higher,
        "share of samples whose highest score is the label (accuracy)";
    "top5" Kind::Top(5), Classification, Labels, higher,
        "share of samples whose label is among the five highest scores";
    "precision" Kind::Precision, Classification, Labels, higher,
        "of those called positive, the share that is; more than two classes: mean over classes";
    "recall" Kind::Recall, Classification, Labels, higher,
        "of the positives, the share that is found; more than two classes: mean over classes";
    "f1" Kind::F1, Classification, Labels, higher,
        "harmonic mean of precision and recall; more than two classes: mean over classes";
    "auc" Kind::Auc, BinaryClassification, Labels, higher,
        "chance that a positive scores above a negative (area under the ROC curve)";
    "mae" Kind::AbsoluteError, Regression, Labels, lower,
        "mean absolute difference from the target";
    "mse" Kind::SquaredError, Regression, Labels, lower,
        "mean squared difference from the target";
    "agreement" Kind::Agreement, Classification, Original, higher,
        "share of samples where the highest score is the one of the original model";
}

/// A metric's value over a set of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricResult {
    /// Name of the metric.
    pub metric: String,
    /// Its value: a share in 0..=1, or in the units of the target (squared for `mse`).
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Confidence of the interval, 0.95.
    pub confidence: f64,
    /// Samples it was taken over.
    pub samples: usize,
    /// How the interval was found: "wilson", "delong" or "bootstrap".
    pub interval: String,
}

/// A metric's value, with what each sample contributed, so that two models can be compared sample
/// by sample ([`crate::paired_drop`]). A correct/wrong metric keeps one bit a sample, the others 4
/// to 8 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The value and its interval.
    pub result: MetricResult,
    pub(crate) samples: Samples,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for metric in METRICS {
            assert_eq!(METRICS.iter().filter(|m| m.name == metric.name).count(), 1);
            assert_eq!(Metric::find(metric.name), Ok(metric));
        }
        let error = Metric::find("top2").unwrap_err().to_string();
        assert!(error.contains("top1, top5"), "{error}");
    }
}
