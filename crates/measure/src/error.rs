//! Why something could not be measured.

/// Why something could not be measured; each message names the culprit and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// No metric has this name.
    #[error("unknown metric `{name}`; known: {known}")]
    UnknownMetric {
        /// Name asked for.
        name: String,
        /// Every name there is.
        known: String,
    },
    /// The metric compares with labels and the batch had none.
    #[error(
        "metric `{metric}` needs labels, but the data has none; add `labels = …` to the data \
         description or choose a metric without labels (agreement)"
    )]
    MissingLabels {
        /// The metric.
        metric: &'static str,
    },
    /// Two models cannot be run side by side.
    #[error("{0}")]
    Run(String),
    /// A label is not a class of the model.
    #[error("label {label} of sample {sample} is outside the model's {classes} classes")]
    LabelOutside {
        /// The label.
        label: f64,
        /// Index of the sample, from 0.
        sample: usize,
        /// Classes the model tells apart.
        classes: usize,
    },
    /// Outputs and targets do not belong together.
    #[error("metric `{metric}`: {message}")]
    Shape {
        /// The metric.
        metric: &'static str,
        /// What does not fit.
        message: String,
    },
    /// An output or a target is NaN or infinite.
    #[error("metric `{metric}`: the {what} of sample {sample} is not a finite number")]
    NotFinite {
        /// The metric.
        metric: &'static str,
        /// "output" or "label".
        what: &'static str,
        /// Index of the sample, from 0.
        sample: usize,
    },
    /// There is nothing to take a mean of.
    #[error("metric `{metric}`: no value: {why}")]
    Undefined {
        /// The metric.
        metric: &'static str,
        /// Why there is none.
        why: &'static str,
    },
    /// Two evaluations that are not of the same samples under the same metric.
    #[error("a paired test needs the same samples under the same metric: {0}")]
    Unpaired(String),
    /// Two tensors cannot be compared.
    #[error("cannot compare tensors of shapes {reference:?} and {other:?}")]
    Incomparable {
        /// Shape of the reference.
        reference: Vec<usize>,
        /// Shape of the other.
        other: Vec<usize>,
    },
    /// A price list that cannot be read.
    #[error("price list: {0}")]
    PriceList(String),
    /// A number that makes no sense where it stands.
    #[error("{0}")]
    Argument(String),
}
