//! `lepton check`.

use anyhow::Result;
use lepton::SessionOptions;
use serde_json::json;

use crate::arguments::Check;
use crate::output::{print_json, say};

/// Largest difference from the golden output that still passes.
const GOLDEN_TOLERANCE: f64 = 1e-3;

/// Reads, verifies, plans and runs the model once; an artefact must give its golden output. Every
/// problem of a file that cannot be read is told.
pub fn check(arguments: &Check) -> Result<()> {
    let model = arguments.model.open().inspect_err(|error| {
        if let (true, lepton::Error::Format { error, .. }) = (arguments.json, error) {
            let problems: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
            // What fails here fails again when the error is told.
            let _ = print_json("check", json!({ "ok": false, "problems": problems }));
        }
    })?;
    model.check_bytes()?;
    let session = model.session(SessionOptions::default())?;
    let golden = model.artefact().and_then(|artefact| artefact.golden.as_ref());
    let inputs = match golden {
        Some(golden) => golden.inputs.clone(),
        None => lepton::sample_inputs(model.graph(), &[])?,
    };
    let (outputs, steps) = session.profile(&inputs).map_err(lepton::Error::from)?;
    let difference = golden.map(|golden| {
        let pairs = outputs.iter().zip(&golden.outputs);
        let each = pairs.flat_map(|(a, b)| {
            a.to_f64_vec().into_iter().zip(b.to_f64_vec()).map(|(x, y)| (x - y).abs())
        });
        each.fold(0.0, f64::max)
    });
    if let Some(found) = difference.filter(|d| *d > GOLDEN_TOLERANCE || d.is_nan()) {
        let why = format!(
            "the golden output differs by {found}; the file was damaged or made by another version"
        );
        return Err(lepton::Error::Inputs(why).into());
    }
    let missing: Vec<String> =
        steps.iter().filter(|s| s.kernel == "reference").map(|s| s.op.clone()).collect();
    if arguments.json {
        return print_json(
            "check",
            json!({ "ok": true, "golden_difference": difference, "without_kernel": missing }),
        );
    }
    say!("{}: ok, {} nodes", arguments.model.path.display(), model.graph().node_count());
    match difference {
        Some(found) => say!("  golden output reproduced, largest difference {found:.1e}"),
        None => say!("  ran once on made-up inputs"),
    }
    if !missing.is_empty() {
        say!("  without a fast kernel: {}", missing.join(" "));
    }
    Ok(())
}
