//! What can be measured: accuracy with its uncertainty, paired differences, latency, error between
//! tensors, memory, cost, and the machine a measurement holds for.
//!
//! Every estimate comes with a 95 % confidence interval. Everything random is seeded, so the same
//! samples always give the same numbers.

#![forbid(unsafe_code)]

mod comparison;
mod cost;
mod error;
mod latency;
mod layers;
mod machine;
mod memory;
pub mod metrics;
mod paired;
mod statistics;

pub use comparison::{Comparison, Difference};
pub use cost::{Price, PriceList, machines_needed, usd_per_million};
pub use error::MeasureError;
pub use latency::{Interleaved, Latency, MeasureBudget, Speedup, interleaved};
pub use layers::{LayerDifference, compare_layers};
pub use machine::Machine;
pub use memory::{peak_resident_bytes, reset_peak_resident, resident_bytes};
pub use metrics::{Accumulator, Compared, Evaluation, METRICS, Metric, MetricResult, Task};
pub use paired::{PairedTest, paired_drop};
pub use statistics::{CONFIDENCE, Interval, mcnemar_exact, median, quantile, wilson};
