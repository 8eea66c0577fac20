//! Feeding a metric: a batch of outputs and a batch of labels at a time.

use lepton_tensor::Tensor;

use super::samples::{Bits, Samples};
use super::{Compared, Evaluation, Kind, Metric};
use crate::MeasureError;

/// Collects what a metric needs, batch by batch, in 1 bit to 8 bytes a sample.
///
/// Outputs are `[N, C]` scores (more leading axes make more samples, trailing axes of extent 1 are
/// ignored), or one score a sample for a binary model. Labels are class indices of any number
/// type; regression targets have as many elements as the outputs. For `agreement` the second
/// tensor is the original model's outputs.
#[derive(Clone, Debug)]
pub struct Accumulator {
    metric: &'static Metric,
    threshold: Option<f32>,
    seen: Seen,
}

#[derive(Clone, Debug)]
enum Seen {
    Nothing,
    Ready(Samples),
    /// One-score models of which the side of the threshold matters: whether scores are logits or
    /// probabilities shows only when all are seen.
    Sides {
        scores: Vec<f32>,
        targets: Vec<f32>,
    },
}

impl Accumulator {
    /// An empty accumulator.
    pub fn new(metric: &'static Metric) -> Self {
        Accumulator { metric, threshold: None, seen: Seen::Nothing }
    }

    /// The score from which a one-score model says "class 1". Without it: 0.5 where every score
    /// lies in 0..=1 (probabilities), else 0 (logits).
    pub fn with_threshold(mut self, threshold: f32) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// The metric.
    pub fn metric(&self) -> &'static Metric {
        self.metric
    }

    /// Samples seen so far.
    pub fn len(&self) -> usize {
        match &self.seen {
            Seen::Nothing => 0,
            Seen::Ready(samples) => samples.len(),
            Seen::Sides { scores, .. } => scores.len(),
        }
    }

    /// True before the first sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a batch. `target` is what [`Metric::compared`] says: labels, or the original's
    /// outputs.
    pub fn update(&mut self, output: &Tensor, target: Option<&Tensor>) -> Result<(), MeasureError> {
        let target = target.ok_or_else(|| match self.metric.compared {
            Compared::Labels => MeasureError::MissingLabels { metric: self.metric.name },
            Compared::Original => self.shape_error("the original's outputs are missing".into()),
        })?;
        let scores = self.finite(output, "output")?;
        let targets = self.finite(target, "label")?;
        if targets.is_empty() && scores.is_empty() {
            return Ok(());
        }
        match self.metric.kind {
            Kind::AbsoluteError | Kind::SquaredError => self.add_errors(output, &scores, &targets),
            Kind::Agreement => self.add_agreement(output, target, &scores, &targets),
            _ => self.add_labelled(output, &scores, &targets),
        }
    }

    /// The metric's value with its interval, and what each sample contributed.
    pub fn finish(self) -> Result<Evaluation, MeasureError> {
        let samples = match self.seen {
            Seen::Nothing => Samples::Hits(Bits::default()),
            Seen::Ready(samples) => samples,
            Seen::Sides { scores, targets } => {
                sides(self.metric.kind, self.threshold, &scores, &targets)
            }
        };
        Ok(Evaluation { result: samples.result(self.metric)?, samples })
    }

    fn finite(&self, tensor: &Tensor, what: &'static str) -> Result<Vec<f64>, MeasureError> {
        let values = tensor.to_f64_vec();
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let rows = tensor.shape().first().copied().unwrap_or(1).max(1);
                let sample = self.len() + at / (values.len() / rows).max(1);
                Err(MeasureError::NotFinite { metric: self.metric.name, what, sample })
            }
        }
    }

    fn shape_error(&self, message: String) -> MeasureError {
        MeasureError::Shape { metric: self.metric.name, message }
    }

    /// Scores a sample has, given how many samples there are.
    fn width(&self, output: &Tensor, samples: usize) -> Result<usize, MeasureError> {
        let mut shape = output.shape();
        while let [rest @ .., 1] = shape
            && output.len() > samples
        {
            shape = rest;
        }
        let width = if output.len() == samples { 1 } else { shape.last().copied().unwrap_or(0) };
        if samples == 0 || width == 0 || width.checked_mul(samples) != Some(output.len()) {
            return Err(self.shape_error(format!(
                "outputs of shape {:?} do not belong to {samples} labels; expected [samples, classes]",
                output.shape()
            )));
        }
        Ok(width)
    }

    fn label(&self, label: f64, at: usize, classes: usize) -> Result<u32, MeasureError> {
        if label.fract() == 0.0 && label >= 0.0 && label < classes as f64 {
            return Ok(label as u32);
        }
        Err(MeasureError::LabelOutside { label, sample: self.len() + at, classes })
    }

    fn add_labelled(
        &mut self,
        output: &Tensor,
        scores: &[f64],
        targets: &[f64],
    ) -> Result<(), MeasureError> {
        let width = self.width(output, targets.len())?;
        let classes = width.max(2);
        let kind = self.metric.kind;
        if kind == Kind::Auc && width > 2 {
            return Err(self.shape_error(format!(
                "needs one score or two a sample, the model gives {width}; use f1 or recall"
            )));
        }
        let labels = targets
            .iter()
            .enumerate()
            .map(|(i, &label)| self.label(label, i, classes))
            .collect::<Result<Vec<_>, _>>()?;
        let rows = || scores.chunks_exact(width).zip(&labels);
        match kind {
            Kind::Auc => {
                let (all, positive) = self.scores()?;
                all.extend(
                    rows()
                        .map(|(row, _)| (if width == 2 { row[1] - row[0] } else { row[0] }) as f32),
                );
                positive.extend(labels.iter().map(|&label| label == 1));
            }
            // Among k scores or fewer the label cannot be missed.
            Kind::Top(k) if k >= classes => self.hits()?.extend(rows().map(|_| true)),
            _ if width == 1 => {
                let (all, given) = self.sides()?;
                all.extend(scores.iter().map(|&score| score as f32));
                given.extend(labels.iter().map(|&label| label as f32));
            }
            Kind::Top(k) => {
                let hits = rows().map(|(row, &label)| rank(row, label as usize) < k);
                self.hits()?.extend(hits);
            }
            _ => {
                let (predicted, given) = self.classes(classes as u32)?;
                predicted.extend(rows().map(|(row, _)| argmax(row)));
                given.extend(&labels);
            }
        }
        Ok(())
    }

    fn add_agreement(
        &mut self,
        output: &Tensor,
        target: &Tensor,
        scores: &[f64],
        originals: &[f64],
    ) -> Result<(), MeasureError> {
        if output.len() != target.len() {
            return Err(self.shape_error(format!(
                "outputs of shape {:?} and the original's of shape {:?} differ in size",
                output.shape(),
                target.shape()
            )));
        }
        let width = match output.shape() {
            [] | [_] => 1,
            [n, rest @ ..] if rest.iter().filter(|&&extent| extent > 1).count() <= 1 => {
                scores.len() / n
            }
            shape => shape[shape.len() - 1],
        };
        if width == 1 {
            let (all, given) = self.sides()?;
            all.extend(scores.iter().map(|&score| score as f32));
            given.extend(originals.iter().map(|&score| score as f32));
            return Ok(());
        }
        let rows = scores.chunks_exact(width).zip(originals.chunks_exact(width));
        self.hits()?.extend(rows.map(|(row, original)| argmax(row) == argmax(original)));
        Ok(())
    }

    fn add_errors(
        &mut self,
        output: &Tensor,
        scores: &[f64],
        targets: &[f64],
    ) -> Result<(), MeasureError> {
        if scores.len() != targets.len() {
            let message =
                format!("{} outputs do not belong to {} targets", scores.len(), targets.len());
            return Err(self.shape_error(message));
        }
        let rows = output.shape().first().copied().unwrap_or(1);
        let width = scores.len() / rows;
        let squared = self.metric.kind == Kind::SquaredError;
        let error = |(a, b): (&f64, &f64)| match squared {
            true => (a - b).powi(2),
            false => (a - b).abs(),
        };
        let samples = scores.chunks_exact(width).zip(targets.chunks_exact(width));
        let errors =
            samples.map(|(a, b)| (a.iter().zip(b).map(error).sum::<f64>() / width as f64) as f32);
        match &mut self.seen {
            Seen::Ready(Samples::Errors(all)) => all.extend(errors),
            seen => *seen = Seen::Ready(Samples::Errors(errors.collect())),
        }
        Ok(())
    }

    fn changed(&self) -> MeasureError {
        self.shape_error("the number of scores a sample changed between batches".into())
    }

    fn hits(&mut self) -> Result<&mut Bits, MeasureError> {
        if matches!(self.seen, Seen::Nothing) {
            self.seen = Seen::Ready(Samples::Hits(Bits::default()));
        }
        let error = self.changed();
        match &mut self.seen {
            Seen::Ready(Samples::Hits(bits)) => Ok(bits),
            _ => Err(error),
        }
    }

    fn sides(&mut self) -> Result<(&mut Vec<f32>, &mut Vec<f32>), MeasureError> {
        if matches!(self.seen, Seen::Nothing) {
            self.seen = Seen::Sides { scores: Vec::new(), targets: Vec::new() };
        }
        let error = self.changed();
        match &mut self.seen {
            Seen::Sides { scores, targets } => Ok((scores, targets)),
            _ => Err(error),
        }
    }

    fn scores(&mut self) -> Result<(&mut Vec<f32>, &mut Vec<bool>), MeasureError> {
        if matches!(self.seen, Seen::Nothing) {
            self.seen = Seen::Ready(Samples::Scores { scores: Vec::new(), positive: Vec::new() });
        }
        let error = self.changed();
        match &mut self.seen {
            Seen::Ready(Samples::Scores { scores, positive }) => Ok((scores, positive)),
            _ => Err(error),
        }
    }

    fn classes(&mut self, count: u32) -> Result<(&mut Vec<u32>, &mut Vec<u32>), MeasureError> {
        if matches!(self.seen, Seen::Nothing) {
            let (predicted, given) = (Vec::new(), Vec::new());
            self.seen = Seen::Ready(Samples::Classes { predicted, given, classes: count });
        }
        let error = self.changed();
        match &mut self.seen {
            Seen::Ready(Samples::Classes { predicted, given, classes }) if *classes == count => {
                Ok((predicted, given))
            }
            _ => Err(error),
        }
    }
}

/// The first of the highest scores.
fn argmax(row: &[f64]) -> u32 {
    let mut best = 0;
    for (i, &score) in row.iter().enumerate() {
        if score > row[best] {
            best = i;
        }
    }
    best as u32
}

/// How many scores come before that of `label`; of equal scores the first index comes first.
fn rank(row: &[f64], label: usize) -> usize {
    let own = row[label];
    let before = |(i, &score): (usize, &f64)| score > own || (score == own && i < label);
    row.iter().enumerate().filter(|&entry| before(entry)).count()
}

fn sides(kind: Kind, threshold: Option<f32>, scores: &[f32], targets: &[f32]) -> Samples {
    let side = |values: &[f32]| {
        let probabilities = values.iter().all(|value| (0.0..=1.0).contains(value));
        threshold.unwrap_or(if probabilities { 0.5 } else { 0.0 })
    };
    let positive = side(scores);
    match kind {
        Kind::Agreement => {
            let original = side(targets);
            let pairs = scores.iter().zip(targets);
            Samples::Hits(pairs.map(|(a, b)| (*a > positive) == (*b > original)).collect())
        }
        Kind::Top(_) => {
            let pairs = scores.iter().zip(targets);
            Samples::Hits(
                pairs.map(|(score, &label)| (*score > positive) == (label == 1.0)).collect(),
            )
        }
        _ => Samples::Classes {
            predicted: scores.iter().map(|&score| u32::from(score > positive)).collect(),
            given: targets.iter().map(|&label| label as u32).collect(),
            classes: 2,
        },
    }
}
