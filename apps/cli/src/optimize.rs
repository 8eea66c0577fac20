//! `lepton optimize`.

use anyhow::{Context, Result};
use lepton::report::{bytes, time, verdict};
use lepton::{DataOptions, DataSet, Error, Goal, Limits, Metric, Price, PriceList, Report, Target};

use crate::arguments::Optimize;
use crate::output::{Bar, print_json, say, say_part};

/// Searches, shows the table, and says whether the goal was met.
pub fn optimize(arguments: &Optimize) -> Result<bool> {
    let model = arguments.model.open()?;
    let goal = goal(arguments)?;
    let data = DataSet::open(&arguments.data, &DataOptions::default()).map_err(Error::from)?;
    let bar = Bar::new(0, "");
    let finished = lepton::optimize(&model, &data, &goal, &arguments.out, &mut |progress| {
        let message = format!("{} {}", progress.step, progress.candidate);
        bar.tell(progress.done, progress.total, message);
    })?;
    bar.finish();
    if finished.resumed_steps > 0 {
        eprintln!(
            "{} steps were in the journal, {} were done now",
            finished.resumed_steps, finished.new_steps
        );
    }
    let report = &finished.report;
    if arguments.json {
        print_json("optimize", serde_json::to_value(report)?)?;
    } else {
        print_table(report);
        print_choice(report, arguments);
    }
    Ok(report.met())
}

fn goal(arguments: &Optimize) -> Result<Goal> {
    let target = Target::NAMES.iter().find(|(name, _)| *name == arguments.target);
    let metric = arguments.metric.as_deref().map(Metric::find).transpose().map_err(Error::from)?;
    Ok(Goal {
        metric,
        limits: Limits {
            max_drop: Some(arguments.max_drop),
            max_latency_us: arguments.max_latency.map(|d| d.as_secs_f64() * 1e6),
            max_size_bytes: arguments.max_size,
            max_cost_usd: arguments.max_cost,
        },
        target: target.map(|(_, target)| *target).unwrap_or_default(),
        time_budget: arguments.time_budget,
        seed: arguments.seed,
        threads: arguments.threads,
        price: price(arguments)?,
        utilisation: arguments.utilisation,
        calibration_samples: arguments.calibration_samples,
        tuning_samples: arguments.tuning_samples,
        latency_time: arguments.latency_time,
    })
}

fn price(arguments: &Optimize) -> Result<Price> {
    let mut list = PriceList::shipped();
    if let Some(path) = &arguments.prices {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::File { path: path.clone(), error })?;
        list = list.overridden_by(PriceList::parse(&text).map_err(Error::from)?);
    }
    let known = || {
        let names: Vec<&str> = list.price.iter().map(|p| p.instance.as_str()).collect();
        Error::Inputs(format!(
            "no price for the instance `{}`; there are {}; --prices adds your own",
            arguments.instance,
            names.join(", ")
        ))
    };
    list.find(&arguments.instance).cloned().ok_or_else(known).context("--instance")
}

fn print_table(report: &Report) {
    let names = report.candidates.iter().map(|c| c.name.chars().count()).max().unwrap_or(9).max(9);
    let first = report.candidates.iter().find_map(|c| c.measured.as_ref());
    let metrics: Vec<&str> =
        first.map_or(vec![], |m| m.evaluation.iter().map(|e| e.metric.as_str()).collect());
    say_part!("{:<names$}", "candidate");
    metrics.iter().for_each(|metric| say_part!("  {metric:>20}"));
    say!(
        "  {:>6}  {:>9}  {:>9}  {:>7}  {:>9}  {:>9}  {:>9}  verdict",
        "drop",
        "p50",
        "p95",
        "faster",
        "file",
        "memory",
        "$/million"
    );
    for candidate in &report.candidates {
        let (_, verdict) = verdict(&candidate.verdict);
        let Some(m) = &candidate.measured else {
            say!("{:<names$}  {verdict}", candidate.name);
            continue;
        };
        say_part!("{:<names$}", candidate.name);
        for result in &m.evaluation {
            let text = format!("{:.4} [{:.4},{:.4}]", result.value, result.low, result.high);
            say_part!("  {text:>20}");
        }
        say!(
            "  {:>6.2}  {:>9}  {:>9}  {:>6.2}x  {:>9}  {:>9}  {:>9.4}  {verdict}",
            m.drop + 0.0,
            time(m.latency.p50_us),
            time(m.latency.p95_us),
            m.speedup.map_or(1.0, |s| s.ratio),
            bytes(m.file_bytes),
            bytes(m.memory_bytes),
            m.cost_usd_per_million
        );
    }
}

fn print_choice(report: &Report, arguments: &Optimize) {
    for note in &report.notes {
        say!("note: {note}");
    }
    let out = |name: &str| arguments.out.join(name).display().to_string();
    match report.chosen.map(|at| &report.candidates[at]) {
        Some(chosen) => say!("\nchosen: {} -> {}", chosen.name, out("best.lepton")),
        None => say!("\nno candidate meets the goal"),
    }
    say!("report: {}, {}", out("report.html"), out("report.json"));
}
