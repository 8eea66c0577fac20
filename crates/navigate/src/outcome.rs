//! What a search found: the report's data, as they are written to `report.json`.

use lepton_compress::Recipe;
use lepton_measure::{Latency, Machine, MetricResult, PairedTest, Price, Speedup};
use serde::{Deserialize, Serialize};

use crate::goal::{Limits, Target};

/// Version of the report's schema.
pub const SCHEMA: &str = "lepton.report/1";

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Verdict {
    /// Written as `best.lepton`.
    Chosen,
    /// No other candidate is better in one respect and nowhere worse.
    OnFrontier,
    /// Another is nowhere worse and somewhere better.
    Dominated {
        /// That other.
        by: String,
    },
    /// Breaks a limit.
    Rejected {
        /// Which limits, with numbers.
        why: Vec<String>,
    },
    /// Could not be made or run.
    Failed {
        /// The error.
        why: String,
    },
}

/// The numbers of a candidate that was made and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The metric on the tuning samples, which the choice is made by.
    pub tuning: MetricResult,
    /// Loss against the original on the tuning samples, in points.
    pub tuning_drop: f64,
    /// The metric, then recall where it makes sense, on the evaluation samples.
    pub evaluation: Vec<MetricResult>,
    /// Loss against the original on the evaluation samples, in points.
    pub drop: f64,
    /// The paired test of that loss (in the metric's own units); none for the original.
    pub paired: Option<PairedTest>,
    /// Time of a run, measured here.
    pub latency: Latency,
    /// How many times faster than the original, in interleaved rounds.
    pub speedup: Option<Speedup>,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the weights and of the arena while it runs.
    pub memory_bytes: u64,
    /// US dollars per million inferences, predicted from the latency and the price list.
    pub cost_usd_per_million: f64,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name, unique in the report.
    pub name: String,
    /// What was done to the model.
    pub recipe: Recipe,
    /// Its file, relative to the report.
    pub file: Option<String>,
    /// Its numbers; none where it failed.
    pub measured: Option<Measured>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What the numbers were taken from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the model's file.
    pub model: String,
    /// BLAKE3 of the model's bytes.
    pub model_hash: String,
    /// BLAKE3 of the calibration, tuning and evaluation samples.
    pub data_hashes: [String; 3],
    /// Number of calibration, tuning and evaluation samples.
    pub samples: [usize; 3],
    /// True where the data had labels.
    pub labelled: bool,
    /// How training and test rows were told apart.
    pub split: String,
    /// The machine of the latencies.
    pub machine: Machine,
    /// The instruction set that ran.
    pub instruction_set: String,
    /// Threads of a run.
    pub threads: usize,
    /// Seed.
    pub seed: u64,
    /// The price behind the costs.
    pub price: Price,
    /// Share of the time a machine is busy.
    pub utilisation: f64,
    /// Version of Lepton.
    pub version: String,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The metric.
    pub metric: String,
    /// What is measured against what, in words.
    pub metric_about: String,
    /// Limits.
    pub limits: Limits,
    /// What the choice has least of.
    pub target: Target,
    /// The candidates, in the order they were proposed; the original first.
    pub candidates: Vec<Candidate>,
    /// Index of the chosen one, if a candidate keeps all limits.
    pub chosen: Option<usize>,
    /// The chosen one as ONNX, relative to the report, where ONNX can say it.
    pub onnx: Option<String>,
    /// True where the chosen one keeps the limit of the drop on the evaluation samples too.
    pub confirmed: bool,
    /// What would have to change, where the goal was missed, and other remarks.
    pub notes: Vec<String>,
    /// Where the numbers come from.
    pub origin: Origin,
}

impl Report {
    /// True where a candidate was chosen and its loss on the evaluation samples is within the limit.
    pub fn met(&self) -> bool {
        self.chosen.is_some() && self.confirmed
    }
}
