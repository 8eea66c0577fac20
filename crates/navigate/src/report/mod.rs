//! The report's files: JSON for machines, one HTML page without any outside reference for people.

mod html;
mod plot;

use std::path::Path;

pub use html::{page, verdict};

use crate::NavigateError;
use crate::journal::write_whole;
use crate::outcome::Report;

/// Writes `report.json` and `report.html` into the folder.
pub fn write(folder: &Path, report: &Report) -> Result<(), NavigateError> {
    let mut json = serde_json::to_vec_pretty(report).expect("a report is JSON");
    json.push(b'\n');
    write_whole(&folder.join("report.json"), &json)?;
    write_whole(&folder.join("report.html"), page(report).as_bytes())
}

/// A number of bytes as people write it.
pub fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} KB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// A time in microseconds as people write it.
pub fn time(us: f64) -> String {
    match us {
        _ if us < 1000.0 => format!("{us:.1} us"),
        _ if us < 1e6 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}
