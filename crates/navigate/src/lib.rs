//! Navigating speed, cost and accuracy: a search over recipes whose candidates are measured on this
//! machine, the frontier, the choice by the user's limits, the journal and the report.

#![forbid(unsafe_code)]
#![allow(clippy::result_large_err)]

mod conclude;
mod error;
mod evaluate;
mod goal;
mod journal;
mod outcome;
mod pareto;
pub mod report;
mod samples;
mod search;
mod setup;
mod space;
mod steps;
mod timing;

pub use error::NavigateError;
pub use evaluate::{Fed, Feed, evaluate};
pub use goal::{Goal, Limits, Target, drop_in_points};
pub use journal::{Journal, key, write_whole};
pub use outcome::{Candidate, Measured, Origin, Report, SCHEMA, Verdict};
pub use pareto::{Standing, broken_limits, choose, dominated_by};
pub use search::{Finished, Progress, Source, optimize};
pub use timing::{Timing, cost_usd, time};
