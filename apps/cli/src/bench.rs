//! `lepton bench`.

use std::time::{Duration, Instant};

use anyhow::Result;
use lepton::{Error, Isa, Latency, PlanSummary, Session, SessionOptions, Tensor};
use serde_json::json;

use crate::arguments::Bench;
use crate::arrays;
use crate::output::{bytes, print_json, say};

/// Runs before the clock counts, and how long they take at least: a session tries the ways it can run.
const WARM_UP: usize = 10;
const LEAST_WARM_UP: Duration = Duration::from_millis(20);
/// No further such run after this time.
const WARM_UP_TIME: Duration = Duration::from_millis(300);

/// Runs until caches are warm and the session has settled.
pub fn warm_up(session: &Session, inputs: &[Tensor]) -> Result<()> {
    let (begin, mut runs) = (Instant::now(), 0);
    while begin.elapsed() < if runs < WARM_UP { WARM_UP_TIME } else { LEAST_WARM_UP } {
        session.run(inputs).map_err(Error::from)?;
        runs += 1;
    }
    Ok(())
}

/// Measures load time, first run and steady latency.
pub fn bench(arguments: &Bench) -> Result<()> {
    if let Some(output) = &arguments.output {
        let inputs = arguments.input.as_deref();
        let read: Vec<_> = inputs.into_iter().chain([arguments.model.path.as_path()]).collect();
        arrays::apart(output, &read)?;
    }
    let start = Instant::now();
    let model = arguments.model.open()?;
    let (threads, exact) = (arguments.threads, arguments.exact);
    let options = SessionOptions { threads, exact, ..SessionOptions::default() };
    let session = model.session(options)?;
    let load_us = micros(start.elapsed());
    let inputs = match &arguments.input {
        Some(path) => arrays::inputs(&model, path)?,
        None => lepton::sample_inputs(model.graph(), &arguments.dim)?,
    };
    let first = Instant::now();
    let outputs = session.run(&inputs).map_err(Error::from)?;
    let first_us = micros(first.elapsed());
    if let Some(path) = &arguments.output {
        arrays::write_outputs(&model, &outputs, path)?;
    }
    warm_up(&session, &inputs)?;
    let budget = Duration::from_secs_f64(arguments.seconds.clamp(0.01, 3600.0));
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < budget || times.is_empty() {
        let run = Instant::now();
        session.run(&inputs).map_err(Error::from)?;
        times.push(micros(run.elapsed()));
    }
    let latency = Latency::from_times_us(&times).expect("at least one run");
    let plan = session.summary(&inputs).map_err(Error::from)?;
    if arguments.json {
        return print_json(
            "bench",
            json!({
                "load_us": load_us, "first_run_us": first_us, "latency": latency,
                "threads": arguments.threads, "instruction_set": session.isa().name(),
                "steps": plan.steps, "arena_bytes": plan.arena_bytes,
                "unshared_bytes": plan.unshared_bytes, "weight_bytes": plan.weight_bytes,
                "numerics": plan.numerics,
            }),
        );
    }
    tell(&latency, &plan, arguments.threads, session.isa());
    say!("load {:.1} ms, first run {:.1} ms", load_us / 1e3, first_us / 1e3);
    Ok(())
}

/// Latency, sizes and numerics, for people.
fn tell(latency: &Latency, plan: &PlanSummary, threads: usize, isa: Isa) {
    say!(
        "p50 {:.1} us, p95 {:.1} us, min {:.1} us over {} runs, {} thread(s), {}",
        latency.p50_us,
        latency.p95_us,
        latency.min_us,
        latency.runs,
        threads,
        isa
    );
    say!(
        "{} steps, arena {} (unshared {}), weights {}",
        plan.steps,
        bytes(plan.arena_bytes),
        bytes(plan.unshared_bytes),
        bytes(plan.weight_bytes)
    );
    if !plan.numerics.is_empty() {
        say!("numerics that --exact forbids: {}", plan.numerics.join(", "));
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
