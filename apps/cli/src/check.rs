//! `lepton check`.

use anyhow::Result;
use lepton::{Error, Model, Session, SessionOptions};
use serde_json::json;

use crate::arguments::Check;
use crate::output::print_json;

/// Reads, verifies, plans and runs the model once on made-up inputs.
pub fn check(arguments: &Check) -> Result<()> {
    let model = Model::open(&arguments.model)?;
    let session = Session::new(model.graph(), SessionOptions::default()).map_err(Error::from)?;
    let inputs = lepton::sample_inputs(model.graph(), &[])?;
    let (_, steps) = session.profile(&inputs).map_err(Error::from)?;
    let mut missing: Vec<String> =
        steps.iter().filter(|s| s.kernel == "reference").map(|s| s.op.clone()).collect();
    missing.sort();
    missing.dedup();
    if arguments.json {
        return print_json("check", json!({ "ok": true, "without_kernel": missing }));
    }
    println!("{}: ok, {} nodes", arguments.model.display(), model.graph().node_count());
    println!("  ran once on made-up inputs");
    if !missing.is_empty() {
        println!("  without a fast kernel: {}", missing.join(" "));
    }
    Ok(())
}
