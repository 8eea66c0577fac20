//! The frontier as a picture: latency across, the metric up, one mark per candidate.

use std::fmt::Write;

use super::html::escape;
use super::{bytes, time};
use crate::outcome::{Candidate, Measured, Report, Verdict};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 52.0;

/// A linear or logarithmic axis from data to picture.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let position = |v: f64| if self.logarithmic { v.max(1e-9).ln() } else { v };
        let (low, high) = (position(self.low), position(self.high));
        let share = (position(value) - low) / (high - low).max(1e-12);
        self.start + share * (self.end - self.start)
    }

    /// Round numbers along the axis.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
            let marks = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(d)));
            return marks.filter(|v| (self.low..=self.high).contains(v)).collect();
        }
        let rough = (self.high - self.low) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        let step = step.into_iter().find(|&s| s >= rough).unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let count = ((self.high - self.low) / step).floor() as i64 + 1;
        let all = (first..first + count).map(|i| i as f64 * step);
        all.filter(|&v| v <= self.high).collect()
    }
}

struct Point<'a> {
    candidate: &'a Candidate,
    measured: &'a Measured,
    latency_us: f64,
    value: f64,
    low: f64,
    high: f64,
}

fn points(report: &Report) -> Vec<Point<'_>> {
    let scale = if shares(report) { 100.0 } else { 1.0 };
    let with = report.candidates.iter().filter_map(|c| Some((c, c.measured.as_ref()?)));
    with.filter_map(|(candidate, measured)| {
        let result = measured.evaluation.first()?;
        Some(Point {
            candidate,
            measured,
            latency_us: measured.latency.p50_us,
            value: result.value * scale,
            low: result.low * scale,
            high: result.high * scale,
        })
    })
    .collect()
}

/// True where the metric is a share, shown in per cent.
pub fn shares(report: &Report) -> bool {
    !matches!(report.metric.as_str(), "mae" | "mse")
}

fn axes(points: &[Point<'_>]) -> (Axis, Axis) {
    let least = |f: &dyn Fn(&Point<'_>) -> f64| points.iter().map(f).fold(f64::MAX, f64::min);
    let most = |f: &dyn Fn(&Point<'_>) -> f64| points.iter().map(f).fold(f64::MIN, f64::max);
    let (fast, slow) = (least(&|p| p.latency_us), most(&|p| p.latency_us));
    let logarithmic = slow / fast.max(1e-9) > 8.0;
    let (left, right) = if logarithmic {
        (fast / 1.25, slow * 1.25)
    } else {
        ((fast - 0.08 * (slow - fast)).max(0.0), slow + 0.08 * (slow - fast) + 1e-9)
    };
    let (low, high) = (least(&|p| p.low), most(&|p| p.high));
    let margin = ((high - low) * 0.08).max(1e-6);
    let x = Axis { low: left, high: right, start: LEFT, end: WIDTH - RIGHT, logarithmic };
    let y = Axis {
        low: low - margin,
        high: high + margin,
        start: HEIGHT - BOTTOM,
        end: TOP,
        logarithmic: false,
    };
    (x, y)
}

/// The picture as SVG; empty where nothing was measured.
pub fn frontier(report: &Report) -> String {
    let points = points(report);
    if points.is_empty() {
        return String::new();
    }
    let (x, y) = axes(&points);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} against latency\">\n",
        escape(&report.metric)
    );
    grid(&mut svg, report, &x, &y);
    limits(&mut svg, report, &points, &x, &y);
    line(&mut svg, report, &points, &x, &y);
    let mut labels: Vec<(f64, f64)> = Vec::new();
    for point in &points {
        mark(&mut svg, point, &x, &y, &mut labels);
    }
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String, report: &Report, x: &Axis, y: &Axis) {
    for tick in y.ticks() {
        let at = y.place(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            number(tick)
        );
    }
    for tick in x.ticks() {
        let at = x.place(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0,
            number(tick)
        );
    }
    let unit = if shares(report) { " (%)" } else { "" };
    let _ = writeln!(
        svg,
        "<text class=\"axis\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">median latency of a \
         run (us)</text><text class=\"axis\" transform=\"translate(18 {:.0}) rotate(-90)\" \
         text-anchor=\"middle\">{}{unit}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 10.0,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escape(&report.metric)
    );
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The limits of drop and latency as dashed lines.
fn limits(svg: &mut String, report: &Report, points: &[Point<'_>], x: &Axis, y: &Axis) {
    if let (Some(drop), Some(original), true) =
        (report.limits.max_drop, points.first(), shares(report))
    {
        let at = y.place((original.value - drop).clamp(y.low, y.high));
        let _ = writeln!(
            svg,
            "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"limit\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">original − {} \
             points</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT - 6.0,
            at - 5.0,
            number(drop)
        );
    }
    if let Some(limit) = report.limits.max_latency_us.filter(|l| (x.low..=x.high).contains(l)) {
        let at = x.place(limit);
        let _ = writeln!(
            svg,
            "<line class=\"limit\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/>",
            HEIGHT - BOTTOM
        );
    }
}

/// Steps through the candidates that no other beats in both latency and metric.
fn line(svg: &mut String, report: &Report, points: &[Point<'_>], x: &Axis, y: &Axis) {
    let sign = if shares(report) { 1.0 } else { -1.0 };
    let beaten = |p: &Point<'_>| {
        points.iter().any(|q| {
            let (better, faster) = (sign * (q.value - p.value), p.latency_us - q.latency_us);
            better >= 0.0 && faster >= 0.0 && (better > 0.0 || faster > 0.0)
        })
    };
    let mut front: Vec<&Point<'_>> = points.iter().filter(|p| !beaten(p)).collect();
    front.sort_by(|a, b| a.latency_us.total_cmp(&b.latency_us));
    let mut path = String::new();
    for (index, point) in front.iter().enumerate() {
        let (px, py) = (x.place(point.latency_us), y.place(point.value));
        let _ = match index {
            0 => write!(path, "M{px:.1} {py:.1}"),
            _ => write!(path, " H{px:.1} V{py:.1}"),
        };
    }
    let _ = writeln!(svg, "<path class=\"front\" d=\"{path}\"/>");
}

fn class(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Chosen => "chosen",
        Verdict::OnFrontier => "on",
        Verdict::Dominated { .. } => "dominated",
        Verdict::Rejected { .. } | Verdict::Failed { .. } => "rejected",
    }
}

fn mark(svg: &mut String, point: &Point<'_>, x: &Axis, y: &Axis, labels: &mut Vec<(f64, f64)>) {
    let (px, py) = (x.place(point.latency_us), y.place(point.value));
    let class = class(&point.candidate.verdict);
    let name = escape(&point.candidate.name);
    let _ = writeln!(
        svg,
        "<g class=\"{class}\"><title>{name}: {}, {}, {} to {}</title>\
         <line class=\"ci\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"{}\"/></g>",
        time(point.latency_us),
        bytes(point.measured.file_bytes),
        number(point.low),
        number(point.high),
        y.place(point.low),
        y.place(point.high),
        if class == "chosen" { 8 } else { 5 }
    );
    // What another candidate beats is named in the table and when pointed at.
    if class == "dominated" && point.measured.speedup.is_some() {
        return;
    }
    // A label moves down until it covers no earlier one.
    let mut at = (px + 10.0, py + 4.0);
    let turned = at.0 > WIDTH - RIGHT - 110.0;
    if turned {
        at.0 = px - 10.0;
    }
    while labels.iter().any(|l| (l.0 - at.0).abs() < 110.0 && (l.1 - at.1).abs() < 13.0) {
        at.1 += 13.0;
    }
    labels.push(at);
    let anchor = if turned { "end" } else { "start" };
    let _ = writeln!(
        svg,
        "<text class=\"name {class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{name}</text>",
        at.0, at.1
    );
}
