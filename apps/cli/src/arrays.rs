//! Inputs from, and outputs to, `.npz` files.

use std::path::Path;

use anyhow::Result;
use lepton::{Error, Fact, Model, Tensor};

/// The arrays of a file in the order of the model's inputs, found by name.
pub fn inputs(model: &Model, path: &Path) -> Result<Vec<Tensor>> {
    let arrays = lepton::read_npz(path).map_err(Error::from)?;
    let have: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
    let find = |(name, fact): &(String, Fact)| {
        let found = arrays.iter().find(|(given, _)| given == name);
        found.map(|(_, tensor)| tensor.clone()).ok_or_else(|| {
            let have = if have.is_empty() { "none".to_string() } else { have.join(", ") };
            let file = path.display();
            Error::Inputs(format!("{file}: no array `{name}` ({fact}); it has: {have}"))
        })
    };
    let found: Result<Vec<Tensor>, Error> = model.graph().input_specs().iter().map(find).collect();
    Ok(found?)
}

/// Refuses an output that would take the place of a file it is made of.
pub fn apart(output: &Path, read: &[&Path]) -> Result<()> {
    let place = output.canonicalize();
    let taken =
        |path: &&&Path| place.is_ok() && path.canonicalize().ok() == place.as_ref().ok().cloned();
    match read.iter().find(taken) {
        None => Ok(()),
        Some(_) => {
            let why = "is read, and would be overwritten; give the output another name";
            Err(Error::Inputs(format!("{}: {why}", output.display())).into())
        }
    }
}

/// Writes the outputs, each under its name.
pub fn write_outputs(model: &Model, outputs: &[Tensor], path: &Path) -> Result<()> {
    let specs = model.graph().output_specs();
    let named = specs.iter().zip(outputs).map(|((name, _), tensor)| (name.as_str(), tensor));
    Ok(lepton::write_npz(path, named).map_err(Error::from)?)
}
