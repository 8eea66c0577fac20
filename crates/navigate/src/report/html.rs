//! The page: headline, picture, table, what was measured on what.

use std::fmt::Write;

use super::plot::{frontier, shares};
use super::{bytes, time};
use crate::outcome::{Candidate, Measured, Report, Verdict};

const STYLE: &str = include_str!("style.css");

/// Text that may stand in HTML: names come from files and are not to be trusted.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// The whole report as one HTML page that refers to nothing outside itself.
pub fn page(report: &Report) -> String {
    let model = escape(&report.origin.model);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{model}: Lepton report</title><style>{STYLE}</style></head><body><main>\n\
         <h1>{model}</h1>\n"
    );
    headline(&mut page, report);
    notes(&mut page, report);
    page.push_str("<figure>\n");
    page.push_str(&frontier(report));
    let _ = writeln!(
        page,
        "<figcaption>{} on {} evaluation samples against the median latency of a run; bars are \
         95 % confidence intervals. Filled: on the frontier. Hollow: another candidate is nowhere \
         worse. Crossed limits in red.</figcaption></figure>",
        escape(&report.metric),
        report.origin.samples[2]
    );
    table(&mut page, report);
    origin(&mut page, report);
    page.push_str("</main></body></html>\n");
    page
}

/// A metric's value as it is shown.
fn value(report: &Report, value: f64) -> String {
    if shares(report) { format!("{:.2} %", value * 100.0) } else { format!("{value:.5}") }
}

fn headline(page: &mut String, report: &Report) {
    let chosen = report.chosen.and_then(|at| report.candidates.get(at));
    let Some((candidate, measured)) = chosen.and_then(|c| Some((c, c.measured.as_ref()?))) else {
        page.push_str("<p class=\"missed\">No candidate meets the goal.</p>\n");
        return;
    };
    let original = report.candidates.first().and_then(|c| c.measured.as_ref());
    let tile = |page: &mut String, big: String, small: String| {
        let _ = writeln!(page, "<div><b>{big}</b><span>{small}</span></div>");
    };
    let state = if report.confirmed { "met" } else { "missed" };
    let _ = write!(
        page,
        "<p class=\"{state}\">Chosen: <strong>{}</strong>{}</p>\n<div class=\"tiles\">\n",
        escape(&candidate.name),
        if report.confirmed { "" } else { " (not confirmed on the evaluation samples)" }
    );
    if let Some(speedup) = measured.speedup {
        let interval = format!("{:.2} to {:.2}", speedup.low, speedup.high);
        let small =
            format!("as fast as the original ({interval}); {}", time(measured.latency.p50_us));
        tile(page, format!("{:.2}×", speedup.ratio), small);
    }
    if let Some(original) = original {
        let share = measured.file_bytes as f64 / original.file_bytes.max(1) as f64;
        let sizes = format!(
            "of the bytes: {} of {}",
            bytes(measured.file_bytes),
            bytes(original.file_bytes)
        );
        tile(page, format!("{share:.3}×"), sizes);
    }
    if let Some(result) = measured.evaluation.first() {
        let unit = if shares(report) { "points" } else { "% of the error" };
        let small =
            format!("{}; change {:+.2} {unit}", escape(&report.metric), 0.0 - measured.drop);
        tile(page, value(report, result.value), small);
    }
    let small = format!("per million inferences on {}", escape(&report.origin.price.instance));
    tile(page, format!("${:.4}", measured.cost_usd_per_million), small);
    page.push_str("</div>\n");
}

fn notes(page: &mut String, report: &Report) {
    if report.notes.is_empty() {
        return;
    }
    page.push_str("<ul class=\"notes\">\n");
    for note in &report.notes {
        let _ = writeln!(page, "<li>{}</li>", escape(note));
    }
    page.push_str("</ul>\n");
}

fn table(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Candidates</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>candidate</th><th>verdict</th>",
    );
    let metrics = report.candidates.iter().find_map(|c| c.measured.as_ref());
    for result in metrics.map_or(&[][..], |m| &m.evaluation) {
        let _ = write!(page, "<th>{}</th>", escape(&result.metric));
    }
    page.push_str(
        "<th>drop</th><th>p50</th><th>p95</th><th>faster</th><th>file</th><th>memory</th>\
         <th>$ / million</th></tr></thead>\n<tbody>\n",
    );
    let columns = metrics.map_or(0, |m| m.evaluation.len()) + 9;
    for candidate in &report.candidates {
        row(page, report, candidate, columns);
    }
    page.push_str("</tbody></table></div>\n");
}

fn row(page: &mut String, report: &Report, candidate: &Candidate, columns: usize) {
    let (class, verdict) = verdict(&candidate.verdict);
    let (name, verdict) = (escape(&candidate.name), escape(&verdict));
    let _ = write!(page, "<tr class=\"{class}\"><th>{name}</th>");
    match &candidate.measured {
        None => {
            let _ = write!(page, "<td colspan=\"{}\">{verdict}</td>", columns - 1);
        }
        Some(measured) => {
            let _ = write!(page, "<td class=\"text\">{verdict}</td>");
            numbers(page, report, measured);
        }
    }
    page.push_str("</tr>\n");
}

fn numbers(page: &mut String, report: &Report, measured: &Measured) {
    for result in &measured.evaluation {
        let _ = write!(
            page,
            "<td>{}<small>{} to {}</small></td>",
            value(report, result.value),
            value(report, result.low),
            value(report, result.high)
        );
    }
    let faster = measured.speedup.map_or(String::from("1"), |s| {
        format!("{:.2}×<small>{:.2} to {:.2}</small>", s.ratio, s.low, s.high)
    });
    let p_value = measured
        .paired
        .as_ref()
        .map_or(String::new(), |test| format!("<small>p = {:.3}</small>", test.p_value));
    let _ = write!(
        page,
        "<td>{:.2}{p_value}</td><td>{}</td><td>{}</td><td>{faster}</td><td>{}</td><td>{}</td>\
         <td>{:.4}</td>",
        measured.drop + 0.0,
        time(measured.latency.p50_us),
        time(measured.latency.p95_us),
        bytes(measured.file_bytes),
        bytes(measured.memory_bytes),
        measured.cost_usd_per_million
    );
}

/// The row's class, and the verdict in words.
pub fn verdict(verdict: &Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Chosen => ("chosen", "chosen".into()),
        Verdict::OnFrontier => ("on", "on the frontier".into()),
        Verdict::Dominated { by } => ("dominated", format!("dominated by {by}")),
        Verdict::Rejected { why } => ("rejected", format!("rejected: {}", why.join("; "))),
        Verdict::Failed { why } => ("rejected", format!("failed: {why}")),
    }
}

fn origin(page: &mut String, report: &Report) {
    let origin = &report.origin;
    let machine = &origin.machine;
    let price = &origin.price;
    let rows = [
        ("Metric", format!("{}: {}", report.metric, report.metric_about)),
        (
            "Samples",
            format!(
                "{} for calibration, {} for tuning, {} for the evaluation ({}); the choice was \
                 made on the tuning samples, the table shows the evaluation samples, which \
                 nothing was chosen by",
                origin.samples[0], origin.samples[1], origin.samples[2], origin.split
            ),
        ),
        (
            "Latency",
            format!(
                "measured here: {}, {} thread(s), {}; each candidate in rounds interleaved with \
                 the original, which runs operator by operator as its file has them",
                machine.cpu, origin.threads, origin.instruction_set
            ),
        ),
        (
            "Cost",
            format!(
                "predicted from the latency measured here and the price list: {} in {}, {} USD \
                 an hour as of {}, busy {:.0} % of the time, one run per physical core at once",
                price.instance,
                price.region,
                price.usd_hour,
                price.as_of,
                origin.utilisation * 100.0
            ),
        ),
        ("Memory", "weights and arena of the plan".to_string()),
        ("Model", format!("{}, BLAKE3 {}", origin.model, origin.model_hash)),
        ("Seed", origin.seed.to_string()),
        ("Lepton", origin.version.clone()),
    ];
    page.push_str("<h2>What was measured on what</h2>\n<dl>\n");
    for (name, text) in rows {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escape(&text));
    }
    page.push_str("</dl>\n");
}
