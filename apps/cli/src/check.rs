//! `lepton check`.

use std::collections::BTreeMap;

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
        None => lepton::sample_inputs(model.graph(), &arguments.dim)?,
    };
    let run = session.profile(&inputs).map_err(lepton::Error::from);
    let (outputs, steps) = match run {
        Ok(run) => run,
        // Extents that were made up may not go with what the model does, which is no fault of it.
        Err(error) if golden.is_none() && !model.graph().symbols().is_empty() => {
            return not_run(arguments, &model, &error);
        }
        Err(error) => return Err(error.into()),
    };
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
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.kernel == "reference") {
        *missing.entry(step.op.clone()).or_default() += 1;
    }
    if arguments.json {
        return print_json(
            "check",
            json!({
                "ok": true, "ran": true, "golden_difference": difference,
                "without_kernel": missing,
            }),
        );
    }
    say!("{}: ok, {} nodes", arguments.model.path.display(), model.graph().node_count());
    match difference {
        Some(found) => say!("  golden output reproduced, largest difference {found:.1e}"),
        None => say!("  ran once on made-up inputs"),
    }
    if !missing.is_empty() {
        let each = |(op, count): (&String, &usize)| match count {
            1 => op.clone(),
            _ => format!("{op} ×{count}"),
        };
        let list: Vec<String> = missing.iter().map(each).collect();
        say!("  without a fast kernel: {}", list.join(", "));
    }
    Ok(())
}

/// Says that a model was read but refused the inputs that were made up for it.
fn not_run(arguments: &Check, model: &lepton::Model, error: &lepton::Error) -> Result<()> {
    if arguments.json {
        return print_json("check", json!({ "ok": true, "ran": false, "why": error.to_string() }));
    }
    say!("{}: read, {} nodes", arguments.model.path.display(), model.graph().node_count());
    say!("  not run: made-up inputs do not go with it: {error}");
    let known: Vec<String> = model.graph().symbols().iter().map(|name| name.to_string()).collect();
    let known = known.join(", ");
    say!("  `--dim NAME=N` sets an extent ({known}); `lepton run` takes inputs of your own");
    Ok(())
}
