//! The arguments of every verb: help text, completion and parsing come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  lepton inspect model.onnx
  lepton run model.onnx --input in.npz --output out.npz
  lepton eval model.onnx --data test.toml --metric top1 --json
  lepton bench model.onnx --threads 1 --dim batch=1

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 invalid model, 5 unsupported model.";

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
    /// Time, multiply-adds and bytes of each step.
    Profile(Profile),
}

#[derive(Args)]
pub struct Inspect {
    /// The model.
    pub model: PathBuf,
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
    /// The model.
    pub model: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Run {
    /// The model.
    pub model: PathBuf,
    /// An .npz file with an array for each input, named like it.
    #[arg(long)]
    pub input: PathBuf,
    /// Where the outputs go, an .npz file.
    #[arg(long)]
    pub output: PathBuf,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Eval {
    /// The model.
    pub model: PathBuf,
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
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Bench {
    /// The model.
    pub model: PathBuf,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Extent of a dimension, as NAME=N; may be repeated. Others are 1.
    #[arg(long, value_parser = dimension)]
    pub dim: Vec<(String, usize)>,
    /// Seconds to measure.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Profile {
    /// The model.
    pub model: PathBuf,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
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

fn dimension(text: &str) -> Result<(String, usize), String> {
    let (name, extent) = text.split_once('=').ok_or("expected NAME=N, such as batch=1")?;
    let extent = extent.parse().map_err(|_| format!("`{extent}` is not a number"))?;
    Ok((name.to_string(), extent))
}
