//! `lepton profile`.

use std::path::Path;

use anyhow::{Context, Result};
use lepton::{Error, Peaks, SessionOptions, StepProfile};
use serde_json::json;

use crate::arguments::Profile;
use crate::bench::warm_up;
use crate::output::{count, print_json, say};

/// Profiled runs; each step's median is shown.
const RUNS: usize = 51;

/// Times every step.
pub fn profile(arguments: &Profile) -> Result<()> {
    let model = arguments.model.open()?;
    let (threads, exact) = (arguments.threads, arguments.exact);
    let options = SessionOptions { threads, exact, ..SessionOptions::default() };
    let session = model.session(options)?;
    let inputs = lepton::sample_inputs(model.graph(), &arguments.dim)?;
    warm_up(&session, &inputs)?;
    let mut runs: Vec<Vec<StepProfile>> = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        runs.push(session.profile(&inputs).map_err(Error::from)?.1);
    }
    let steps = medians(&runs);
    let limits = session.limits();
    if let Some(path) = &arguments.trace {
        write_trace(path, runs.last().map_or(&[], Vec::as_slice))?;
    }
    if arguments.json {
        let list: Vec<_> = steps
            .iter()
            .map(|s| {
                let (share, limit) = limits.share(s);
                json!({ "node": s.node, "op": s.op, "kernel": s.kernel, "runs": s.runs,
                        "time_us": s.time_us, "multiply_adds": s.multiply_adds,
                        "bytes": s.bytes, "constant_bytes": s.constant_bytes,
                        "limit_share": share, "limit": limit.name() })
            })
            .collect();
        let core = limits.core;
        let limits = json!({ "threads": limits.threads, "f32_macs_per_s": core.f32,
            "bf16_macs_per_s": core.bf16, "u8s8_macs_per_s": core.u8s8,
            "cached_bytes_per_s": core.cached_bytes,
            "far_cached_bytes_per_s": core.far_cached_bytes,
            "streamed_bytes_per_s": core.streamed_bytes });
        return print_json("profile", json!({ "runs": RUNS, "limits": limits, "steps": list }));
    }
    let total: f64 = steps.iter().map(|s| s.time_us).sum();
    say!(
        "{:>9} {:>6} {:>9} {:>9} {:>9} {:>16}  step",
        "us",
        "%",
        "MAC",
        "GMAC/s",
        "GB/s",
        "% of limit"
    );
    for step in &steps {
        let (share, limit) = limits.share(step);
        let rate = |amount: u64| amount as f64 / step.time_us.max(1e-3) / 1e3;
        say!(
            "{:>9.2} {:>6.1} {:>9} {:>9.1} {:>9.1} {:>5.0} {:<10}  {} [{}] {}{}",
            step.time_us,
            100.0 * step.time_us / total.max(1e-9),
            count(step.multiply_adds),
            rate(step.multiply_adds),
            rate(step.bytes),
            100.0 * share,
            limit.name(),
            step.op,
            step.kernel,
            step.node,
            if step.runs > 1 { format!(", {} times", step.runs) } else { String::new() }
        );
    }
    say!("{total:>9.2}  total, medians of {RUNS} runs");
    say_limits(&limits.core);
    Ok(())
}

fn say_limits(core: &Peaks) {
    say!(
        "one core at most: f32 {:.0}, bf16 {:.0}, int8 {:.0} GMAC/s; reads {:.0} GB/s from its \
         caches, {:.0} GB/s from the shared one, {:.0} GB/s from beyond",
        core.f32 / 1e9,
        core.bf16 / 1e9,
        core.u8s8 / 1e9,
        core.cached_bytes / 1e9,
        core.far_cached_bytes / 1e9,
        core.streamed_bytes / 1e9
    );
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
