//! `lepton diff`.

use anyhow::Result;
use lepton::{Comparison, LayerDifference, Model};
use serde_json::json;

use crate::arguments::Diff;
use crate::output::{print_json, say};
use crate::rows::evaluation_rows;

/// Compares two models layer by layer, the worst first.
pub fn diff(arguments: &Diff) -> Result<()> {
    let (first, second) = (Model::open(&arguments.first)?, Model::open(&arguments.second)?);
    let rows = evaluation_rows(&arguments.data)?;
    let mut layers = lepton::diff(&first, &second, &rows, arguments.samples)?;
    if arguments.json {
        return print_json("diff", json!({ "samples": arguments.samples, "layers": layers }));
    }
    let last = layers.last().cloned();
    layers.sort_by(|a, b| decibels(&a.local).total_cmp(&decibels(&b.local)));
    say!(
        "{:>10} {:>10} {:>10}  {:>10} {:>10} {:>10}  tensor (node, operator)",
        "local dB",
        "cosine",
        "max",
        "total dB",
        "cosine",
        "max"
    );
    layers.iter().take(arguments.top).for_each(row);
    if layers.len() > arguments.top {
        say!("… {} more; --top {} shows all", layers.len() - arguments.top, layers.len());
    }
    if let Some(last) = last {
        say!("\nlast layer:");
        row(&last);
    }
    Ok(())
}

/// Signal to noise; equal tensors come last.
fn decibels(comparison: &Comparison) -> f64 {
    match comparison.sqnr_db {
        Some(value) => value,
        None if comparison.is_equal() => f64::INFINITY,
        None => f64::NEG_INFINITY,
    }
}

fn row(layer: &LayerDifference) {
    let side = |c: &Comparison| {
        let db = if c.is_equal() { "exact".into() } else { format!("{:.1}", decibels(c)) };
        format!("{db:>10} {:>10.6} {:>10.4}", c.cosine, c.max_abs)
    };
    say!(
        "{}  {}  {} ({}, {})",
        side(&layer.local),
        side(&layer.accumulated),
        layer.value,
        layer.node,
        layer.op
    );
}
