//! `lepton profile`.

use std::path::Path;

use anyhow::{Context, Result};
use lepton::{Error, Model, Session, SessionOptions, StepProfile};
use serde_json::json;

use crate::arguments::Profile;
use crate::output::{count, print_json, say};

/// Profiled runs; each step's median is shown.
const RUNS: usize = 51;

/// Times every step of the plan.
pub fn profile(arguments: &Profile) -> Result<()> {
    let model = Model::open(&arguments.model)?;
    let options = SessionOptions { threads: arguments.threads, ..SessionOptions::default() };
    let session = Session::new(model.graph(), options).map_err(Error::from)?;
    let inputs = lepton::sample_inputs(model.graph(), &arguments.dim)?;
    let mut runs: Vec<Vec<StepProfile>> = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        runs.push(session.profile(&inputs).map_err(Error::from)?.1);
    }
    let steps = medians(&runs);
    if let Some(path) = &arguments.trace {
        write_trace(path, runs.last().map_or(&[], Vec::as_slice))?;
    }
    if arguments.json {
        let list: Vec<_> = steps
            .iter()
            .map(|s| {
                json!({ "node": s.node, "op": s.op, "kernel": s.kernel, "time_us": s.time_us,
                        "multiply_adds": s.multiply_adds, "bytes": s.bytes })
            })
            .collect();
        return print_json("profile", json!({ "runs": RUNS, "steps": list }));
    }
    let total: f64 = steps.iter().map(|s| s.time_us).sum();
    say!("{:>9} {:>6} {:>9} {:>9} {:>9}  step", "us", "%", "MAC", "GMAC/s", "GB/s");
    for step in &steps {
        let rate = |amount: u64| amount as f64 / step.time_us.max(1e-3) / 1e3;
        say!(
            "{:>9.2} {:>6.1} {:>9} {:>9.1} {:>9.1}  {} [{}] {}",
            step.time_us,
            100.0 * step.time_us / total.max(1e-9),
            count(step.multiply_adds),
            rate(step.multiply_adds),
            rate(step.bytes),
            step.op,
            step.kernel,
            step.node
        );
    }
    say!("{total:>9.2}  total, medians of {RUNS} runs");
    Ok(())
}

fn medians(runs: &[Vec<StepProfile>]) -> Vec<StepProfile> {
    let Some(first) = runs.first() else { return Vec::new() };
    let median = |index: usize| {
        let mut times: Vec<f64> =
            runs.iter().filter_map(|run| run.get(index)).map(|s| s.time_us).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let step = |(index, step): (usize, &StepProfile)| StepProfile {
        time_us: median(index),
        ..step.clone()
    };
    first.iter().enumerate().map(step).collect()
}

/// Chrome's trace format, complete events.
fn write_trace(path: &Path, steps: &[StepProfile]) -> Result<()> {
    let event = |s: &StepProfile| {
        json!({ "name": s.op, "cat": s.kernel, "ph": "X", "ts": s.start_us, "dur": s.time_us,
                "pid": 1, "tid": 1, "args": { "node": s.node, "multiply_adds": s.multiply_adds,
                "bytes": s.bytes } })
    };
    let events: Vec<_> = steps.iter().map(event).collect();
    let text = serde_json::to_string(&json!({ "traceEvents": events }))?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
