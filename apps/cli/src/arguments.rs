//! The arguments of every verb: help text, completion and parsing come from here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lepton::{Error, Model};

use crate::units;

const EXAMPLES: &str = "\
Examples:
  lepton optimize model.onnx --data data.toml --max-drop 0.5 --target latency --out out/
  lepton inspect model.onnx
  lepton diff model.onnx out/best.lepton --data data.toml
  lepton run model.onnx --input in.npz --output out.npz
  lepton eval model.onnx --data test.toml --metric top1 --json
  lepton bench model.onnx --threads 1 --dim batch=1
  lepton convert out/best.lepton --prepare -o model.lepton

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 invalid model, 4 goal not met, 5 unsupported model.";

/// Runs, checks and measures trained models.
#[derive(Parser)]
#[command(name = "lepton", version, about, before_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Inputs, outputs, operators, parameters, multiply-adds and bytes of a model.
    Inspect(Inspect),
    /// Reads and verifies a model, plans it, and runs it once.
    Check(Check),
    /// Runs a model on the arrays of an .npz file.
    Run(Run),
    /// Accuracy of a model on a data set.
    Eval(Eval),
    /// Load time, first run, and latency.
    Bench(Bench),
    /// How two versions of a model differ, layer by layer, the worst first.
    Diff(Diff),
    /// The same model in another format; can prepare it to start at once.
    Convert(Convert),
    /// Finds the fastest or smallest version of a model that keeps its accuracy.
    Optimize(Box<Optimize>),
    /// Time, multiply-adds and bytes of each step.
    Profile(Profile),
}

/// A model, and where its weights are if not in its file.
#[derive(Args)]
pub struct ModelFile {
    /// The model.
    #[arg(id = "model", value_name = "MODEL")]
    pub path: PathBuf,
    /// Weights in place of the model's own, a .safetensors file.
    #[arg(long)]
    pub weights: Option<PathBuf>,
}

impl ModelFile {
    /// Reads it.
    pub fn open(&self) -> Result<Model, Error> {
        Model::open_with(&self.path, self.weights.as_ref())
    }
}

#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    pub model: ModelFile,
    /// Print the graph in its text form.
    #[arg(long)]
    pub graph: bool,
    /// Extent of a dimension, as NAME=N; may be repeated.
    #[arg(long, value_parser = dimension)]
    pub dim: Vec<(String, usize)>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    pub model: ModelFile,
    /// Extent of a dimension of the made-up inputs, as NAME=N; may be repeated.
    #[arg(long, value_parser = dimension)]
    pub dim: Vec<(String, usize)>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub model: ModelFile,
    /// An .npz file with an array for each input, named like it.
    #[arg(long)]
    pub input: PathBuf,
    /// Where the outputs go, an .npz file.
    #[arg(long)]
    pub output: PathBuf,
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Forbid algorithms that change the last digits of the answer.
    #[arg(long)]
    pub exact: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    pub model: ModelFile,
    /// A data set: .npz, .csv, folder of images, archive, or .toml description.
    #[arg(long)]
    pub data: PathBuf,
    /// The metric: top1, top5, precision, recall, f1, auc, mae, mse.
    #[arg(long, default_value = "top1")]
    pub metric: String,
    /// Samples per run, where the model leaves it open.
    #[arg(long, default_value_t = 32)]
    pub batch: usize,
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Forbid algorithms that change the last digits of the answer.
    #[arg(long)]
    pub exact: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    pub model: ModelFile,
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Forbid algorithms that change the last digits of the answer.
    #[arg(long)]
    pub exact: bool,
    /// Extent of a dimension, as NAME=N; may be repeated. Others are 1.
    #[arg(long, value_parser = dimension)]
    pub dim: Vec<(String, usize)>,
    /// An .npz file with an array for each input, named like it; without one, made-up values.
    #[arg(long)]
    pub input: Option<PathBuf>,
    /// Write the outputs of the first run to this .npz file.
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Seconds to measure.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Convert {
    #[command(flatten)]
    pub model: ModelFile,
    /// The file to write; its extension names the format: .lepton, .onnx, or .safetensors for
    /// the weights alone.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Put the lowered graph and the packed weights into the .lepton file: up to twice the
    /// bytes, and it starts without making them again.
    #[arg(long)]
    pub prepare: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Profile {
    #[command(flatten)]
    pub model: ModelFile,
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Forbid algorithms that change the last digits of the answer.
    #[arg(long)]
    pub exact: bool,
    /// Extent of a dimension, as NAME=N; may be repeated. Others are 1.
    #[arg(long, value_parser = dimension)]
    pub dim: Vec<(String, usize)>,
    /// Write a Chrome trace (open it in Perfetto).
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Diff {
    /// The reference.
    pub first: PathBuf,
    /// The version that is compared with it.
    pub second: PathBuf,
    /// A data set; its test rows are used.
    #[arg(long)]
    pub data: PathBuf,
    /// Samples, at least.
    #[arg(long, default_value_t = 32)]
    pub samples: usize,
    /// Layers to print.
    #[arg(long, default_value_t = 20)]
    pub top: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Optimize {
    #[command(flatten)]
    pub model: ModelFile,
    /// A data set with training rows (for calibration and tuning) and test rows (for the result).
    #[arg(long)]
    pub data: PathBuf,
    /// The metric. Default: top1 where the data has labels, else agreement with the original.
    #[arg(long)]
    pub metric: Option<String>,
    /// Most loss of the metric, in points (hundredths); for errors in per cent of the original's.
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    pub max_drop: f64,
    /// Most median latency, such as 800us or 2ms.
    #[arg(long, value_parser = units::duration)]
    pub max_latency: Option<Duration>,
    /// Most bytes of the file, such as 300KB.
    #[arg(long, value_parser = units::bytes)]
    pub max_size: Option<u64>,
    /// Most US dollars per million inferences.
    #[arg(long)]
    pub max_cost: Option<f64>,
    /// What to make as small as possible.
    #[arg(long, value_parser = ["latency", "size", "cost"], default_value = "latency")]
    pub target: String,
    /// Try no new candidate after this time, such as 10m.
    #[arg(long, value_parser = units::duration)]
    pub time_budget: Option<Duration>,
    /// Folder for best.lepton, report.html, report.json and the journal; an interrupted search
    /// goes on from it.
    #[arg(long)]
    pub out: PathBuf,
    /// Threads of a run.
    #[arg(long, default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Seed of everything drawn at random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Samples for calibration, at most.
    #[arg(long, default_value_t = 512)]
    pub calibration_samples: usize,
    /// Samples for tuning, at most.
    #[arg(long, default_value_t = 2000)]
    pub tuning_samples: usize,
    /// Time to measure the latency of each candidate.
    #[arg(long, value_parser = units::duration, default_value = "2s")]
    pub latency_time: Duration,
    /// Instance type whose price counts.
    #[arg(long, default_value = "c7i.large")]
    pub instance: String,
    /// A price list of your own, as TOML.
    #[arg(long)]
    pub prices: Option<PathBuf>,
    /// Share of the time a machine is busy.
    #[arg(long, default_value_t = 0.5)]
    pub utilisation: f64,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Threads that a machine may have.
const MOST_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST_THREADS).contains(count));
    count.ok_or_else(|| format!("expected a number from 1 to {MOST_THREADS}"))
}

fn dimension(text: &str) -> Result<(String, usize), String> {
    let (name, extent) = text.split_once('=').ok_or("expected NAME=N, such as batch=1")?;
    let extent = extent.parse().map_err(|_| format!("`{extent}` is not a number"))?;
    Ok((name.to_string(), extent))
}
