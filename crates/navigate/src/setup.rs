//! What a search starts from: the samples and their parts, the metrics, the simplified graph.

use std::path::{Path, PathBuf};

use lepton_data::{DataSet, Split, SplitOrigin, Subset};
use lepton_ir::Graph;
use lepton_measure::{Machine, Metric, Task};
use lepton_passes::{pipelines, run_pipeline};
use lepton_runtime::SessionOptions;

use crate::goal::Goal;
use crate::journal::key;
use crate::outcome::Origin;
use crate::{NavigateError, Source};

/// Samples that calibration takes before tuning gets any.
const CALIBRATION_SHARE: usize = 2;

/// Everything that does not change during a search.
pub(crate) struct Setup<'a> {
    pub source: &'a Source<'a>,
    pub goal: &'a Goal,
    pub folder: PathBuf,
    /// The graph that recipes are applied to.
    pub base: Graph,
    pub metric: &'static Metric,
    /// The metric, then those that are reported beside it.
    pub metrics: Vec<&'static Metric>,
    pub calibration: Subset,
    pub tuning: Subset,
    pub evaluation: Subset,
    pub origin: Origin,
    pub notes: Vec<String>,
}

impl<'a> Setup<'a> {
    pub fn new(
        source: &'a Source<'a>,
        data: &DataSet,
        goal: &'a Goal,
        folder: &Path,
    ) -> Result<Self, NavigateError> {
        goal.check()?;
        let mut notes = Vec::new();
        let evaluation = data.split(Split::Test)?;
        let (calibration, tuning) = divide(&data.split(Split::Train)?, goal, &mut notes);
        let labelled = evaluation.has_labels() && tuning.has_labels();
        let metric = metric(goal, labelled, &mut notes)?;
        if metric.needs_labels() {
            evaluation.require_labels()?;
            tuning.require_labels()?;
        }
        if evaluation.split_origin() == SplitOrigin::Assumed {
            let note = "the data says nothing of training and test rows; half of the rows, drawn \
                        by the seed, were kept for the evaluation";
            notes.push(note.into());
        }
        let mut base = source.graph.clone();
        run_pipeline(pipelines::SIMPLIFY, &mut base)?;
        let base = base.compacted();
        let parts = [&calibration, &tuning, &evaluation];
        let mut data_hashes = [String::new(), String::new(), String::new()];
        for (hash, part) in data_hashes.iter_mut().zip(parts) {
            *hash = part.content_hash()?;
        }
        let origin = Origin {
            model: source.name.clone(),
            model_hash: source.hash.clone(),
            data_hashes,
            samples: parts.map(Subset::len),
            labelled,
            split: match evaluation.split_origin() {
                SplitOrigin::Tables => "the description's [train] and [test]".into(),
                SplitOrigin::Share(share) => format!("{:.0} % for training", share * 100.0),
                SplitOrigin::Assumed => "half for training".into(),
            },
            machine: Machine::host(),
            instruction_set: SessionOptions::default().isa.name().to_string(),
            threads: goal.threads,
            seed: goal.seed,
            price: goal.price.clone(),
            utilisation: goal.utilisation,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let recall = Metric::find("recall")?;
        let beside = labelled && metric.task != Task::Regression && metric.name != recall.name;
        let metrics = if beside { vec![metric, recall] } else { vec![metric] };
        Ok(Setup {
            source,
            goal,
            folder: folder.to_owned(),
            base,
            metric,
            metrics,
            calibration,
            tuning,
            evaluation,
            origin,
            notes,
        })
    }

    /// The key of a step whose result depends on the model, the training rows, the seed and
    /// `parts`.
    pub fn key(&self, parts: &[&str]) -> String {
        let origin = &self.origin;
        let seed = origin.seed.to_string();
        let common = [
            origin.version.as_str(),
            &origin.model_hash,
            &origin.data_hashes[0],
            &origin.data_hashes[1],
            &seed,
        ];
        key(&[&common[..], parts].concat())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Calibration and tuning samples, apart from each other where there are enough of them.
fn divide(train: &Subset, goal: &Goal, notes: &mut Vec<String>) -> (Subset, Subset) {
    let calibration = goal.calibration_samples.min((train.len() / CALIBRATION_SHARE).max(1));
    let Some((calibration, rest)) = train.divide(calibration, goal.seed) else {
        notes.push("one training sample only: it serves for calibration and tuning".into());
        return (train.clone(), train.clone());
    };
    let tuning = rest.divide(goal.tuning_samples, goal.seed ^ 1).map_or(rest, |(some, _)| some);
    (calibration, tuning)
}

fn metric(
    goal: &Goal,
    labelled: bool,
    notes: &mut Vec<String>,
) -> Result<&'static Metric, NavigateError> {
    if let Some(metric) = goal.metric {
        return Ok(metric);
    }
    if labelled {
        return Ok(Metric::find("top1")?);
    }
    let note = "the data has no labels: the metric is agreement with the original model, not \
                accuracy";
    notes.push(note.into());
    Ok(Metric::find("agreement")?)
}
