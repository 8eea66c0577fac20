//! From what is known of the candidates to the choice, the verdicts and `best.lepton`.

use lepton_formats::{artefact, onnx};
use lepton_measure::{Evaluation, paired_drop};
use serde_json::json;

use crate::NavigateError;
use crate::goal::drop_in_points;
use crate::journal::write_whole;
use crate::outcome::{Candidate, Measured, Report, SCHEMA, Verdict};
use crate::pareto::{Standing, broken_limits, choose, dominated_by};
use crate::search::{Known, Search};
use crate::setup::Setup;
use crate::steps;
use crate::timing::cost_usd;

/// Makes the report and writes the chosen candidate as `best.lepton`, its measurements inside.
pub(crate) fn conclude(search: &mut Search<'_, '_>) -> Result<Report, NavigateError> {
    let setup = &search.setup;
    let original = search.tried.first().and_then(|tried| tried.result.as_ref().ok());
    let original = original.expect("the original was measured or the search ended");
    let mut candidates = Vec::with_capacity(search.tried.len());
    for tried in &search.tried {
        let mut candidate = Candidate {
            name: tried.proposal.name.clone(),
            recipe: tried.proposal.recipe.clone(),
            file: None,
            measured: None,
            verdict: Verdict::OnFrontier,
        };
        match &tried.result {
            Err(why) => candidate.verdict = Verdict::Failed { why: why.clone() },
            Ok(known) => {
                candidate.file = known.made.file.clone();
                let is_original = std::ptr::eq(known, original);
                candidate.measured = Some(measured(setup, original, known, is_original)?);
            }
        }
        candidates.push(candidate);
    }
    let mut report = Report {
        schema: SCHEMA.into(),
        metric: setup.metric.name.into(),
        metric_about: setup.metric.about.into(),
        limits: setup.goal.limits,
        target: setup.goal.target,
        candidates,
        chosen: None,
        onnx: None,
        confirmed: false,
        notes: setup.notes.clone(),
        origin: setup.origin.clone(),
    };
    decide(&mut report);
    write_best(setup, &mut report)?;
    Ok(report)
}

fn measured(
    setup: &Setup<'_>,
    original: &Known,
    known: &Known,
    is_original: bool,
) -> Result<Measured, NavigateError> {
    let (Some(timing), Some(evaluation), Some(reference)) =
        (&known.timing, &known.evaluation, &original.evaluation)
    else {
        unreachable!("every candidate that could be made was timed and evaluated");
    };
    let drop = |original: &[Evaluation], candidate: &[Evaluation]| {
        let test = paired_drop(&original[0], &candidate[0])?;
        let points = drop_in_points(setup.metric, original[0].result.value, test.drop);
        Ok::<_, NavigateError>((test, points))
    };
    let (_, tuning_drop) = drop(&original.tuning, &known.tuning)?;
    let (paired, points) = drop(reference, evaluation)?;
    let goal = setup.goal;
    let latency_us = timing.latency.p50_us;
    let rows = steps::samples_per_run(setup);
    Ok(Measured {
        tuning: known.tuning[0].result.clone(),
        tuning_drop,
        evaluation: evaluation.iter().map(|e| e.result.clone()).collect(),
        drop: points,
        paired: (!is_original).then_some(paired),
        latency: timing.latency,
        speedup: timing.speedup,
        file_bytes: known.made.bytes,
        memory_bytes: timing.memory_bytes,
        cost_usd_per_million: cost_usd(
            &goal.price,
            latency_us,
            rows,
            goal.threads,
            goal.utilisation,
        )?,
    })
}

/// What a candidate is judged by: the tuning samples for the choice, the evaluation samples for
/// the frontier that is shown.
fn standing(measured: &Measured, drop: f64) -> Standing {
    Standing {
        drop,
        latency_us: measured.latency.p50_us,
        relative_latency: measured.speedup.map_or(1.0, |speedup| 1.0 / speedup.ratio),
        bytes: measured.file_bytes,
        cost_usd: measured.cost_usd_per_million,
    }
}

/// Sets the choice, the verdicts, and the notes on a missed goal.
fn decide(report: &mut Report) {
    let rows: Vec<usize> =
        (0..report.candidates.len()).filter(|&i| report.candidates[i].measured.is_some()).collect();
    let of = |i: usize| report.candidates[i].measured.as_ref().expect("filtered");
    let tuned: Vec<Standing> = rows.iter().map(|&i| standing(of(i), of(i).tuning_drop)).collect();
    let shown: Vec<Standing> = rows.iter().map(|&i| standing(of(i), of(i).drop)).collect();
    let limits = report.limits;
    // The original has no file of its own to write; its optimised form always stands beside it.
    let chosen = choose(&tuned[1..], &limits, report.target).map(|at| at + 1);
    let dominated = dominated_by(&shown);
    let verdicts: Vec<Verdict> = (0..rows.len())
        .map(|at| {
            let broken = broken_limits(&tuned[at], &limits);
            match (broken.is_empty(), dominated[at]) {
                _ if Some(at) == chosen => Verdict::Chosen,
                (false, _) => Verdict::Rejected { why: broken },
                (true, Some(by)) => {
                    Verdict::Dominated { by: report.candidates[rows[by]].name.clone() }
                }
                (true, None) => Verdict::OnFrontier,
            }
        })
        .collect();
    let confirmed = chosen.is_some_and(|at| broken_limits(&shown[at], &limits).is_empty());
    let note = match chosen {
        None => Some(missed(report, &rows, &tuned)),
        Some(at) if !confirmed => Some(format!(
            "`{}` keeps every limit on the tuning samples but not on the evaluation samples: {}",
            report.candidates[rows[at]].name,
            broken_limits(&shown[at], &limits).join("; ")
        )),
        Some(_) => None,
    };
    for (&row, verdict) in rows.iter().zip(verdicts) {
        report.candidates[row].verdict = verdict;
    }
    report.chosen = chosen.map(|at| rows[at]);
    report.confirmed = confirmed;
    report.notes.extend(note);
}

/// What must change to meet the goal: the candidate that breaks the fewest limits, and by how much.
fn missed(report: &Report, rows: &[usize], tuned: &[Standing]) -> String {
    let broken: Vec<Vec<String>> =
        tuned.iter().map(|standing| broken_limits(standing, &report.limits)).collect();
    let closest = (1..rows.len()).min_by_key(|&at| broken[at].len()).unwrap_or(0);
    format!(
        "no candidate keeps every limit; the closest is `{}`: {}",
        report.candidates[rows[closest]].name,
        broken[closest].join("; ")
    )
}

const BEST: &str = "best.lepton";
const BEST_ONNX: &str = "best.onnx";

/// Writes the chosen candidate, as an artefact and, where ONNX can say it, as ONNX.
fn write_best(setup: &Setup<'_>, report: &mut Report) -> Result<(), NavigateError> {
    let Some(candidate) = report.chosen.map(|at| &report.candidates[at]) else {
        // A result of an earlier goal must not pass for one of this goal.
        return remove(setup, BEST).and_then(|()| remove(setup, BEST_ONNX));
    };
    let file = candidate.file.as_ref().expect("the original is never chosen");
    let mut best = steps::load(setup, file)?;
    let origin = &report.origin;
    best.measurements = json!({
        "machine": origin.machine,
        "instruction_set": origin.instruction_set,
        "threads": origin.threads,
        "evaluation": { "blake3": origin.data_hashes[2], "samples": origin.samples[2] },
        "measured": candidate.measured,
    })
    .to_string();
    write_whole(&setup.path(BEST), &artefact::write(&best)?)?;
    match onnx::write(&best.graph, &onnx::WriteOptions::default()) {
        Ok(bytes) => {
            write_whole(&setup.path(BEST_ONNX), &bytes)?;
            report.onnx = Some(BEST_ONNX.into());
            Ok(())
        }
        Err(why) => {
            report.notes.push(format!("not written as ONNX: {why}"));
            remove(setup, BEST_ONNX)
        }
    }
}

fn remove(setup: &Setup<'_>, name: &str) -> Result<(), NavigateError> {
    let path = setup.path(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(NavigateError::File { path, error })
        }
        _ => Ok(()),
    }
}
