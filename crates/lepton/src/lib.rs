//! Lepton's façade: open a model, run it, measure it. The only Rust surface under semver.
//!
//! ```no_run
//! let model = lepton::Model::open("model.onnx")?;
//! let session = lepton::Session::new(model.graph(), lepton::SessionOptions::default())?;
//! # Ok::<(), lepton::Error>(())
//! ```
#![allow(clippy::result_large_err)]

mod compressed;
mod convert;
mod diff;
mod error;
mod foreign;
mod mapped;
mod model;
mod optimize;
mod samples;
mod side_by_side;

pub use compressed::compressed;
pub use convert::convert;
pub use diff::diff;
pub use error::Error;
pub use lepton_compress::Recipe;
pub use lepton_data::{Batch, DataOptions, DataSet, Split, Subset, read_npz, write_npz};
pub use lepton_formats::artefact::coded_bytes;
pub use lepton_formats::safetensors::EXTENSION as WEIGHTS_EXTENSION;
pub use lepton_formats::{Format, FormatError};
pub use lepton_ir::text::print_brief as print_graph;
pub use lepton_ir::{Dim, Fact, Graph, GraphError, Operands};
pub use lepton_kernels::Isa;
pub use lepton_kernels::peak::Peaks;
pub use lepton_measure::{
    Comparison, Latency, LayerDifference, METRICS, Machine, Metric, MetricResult, Price, PriceList,
    peak_resident_bytes,
};
pub use lepton_navigate::{
    Candidate, Finished, Goal, Limits, Measured, NavigateError, Progress, Report, Target, Verdict,
    evaluate, report, write_whole,
};
pub use lepton_runtime::{
    Limits as MachineLimits, Lowering, PlanSummary, RuntimeError, Session, SessionOptions,
    SmallSteps, StartHeap, StepProfile,
};
pub use lepton_tensor::{DType, Storage, Tensor, TensorError};
pub use model::Model;
pub use optimize::optimize;
pub use samples::sample_inputs;
pub use side_by_side::{Conditions, Side, side_by_side};
