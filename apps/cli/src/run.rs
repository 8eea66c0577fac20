//! `lepton run`.

use anyhow::Result;
use lepton::{Error, Model, Session, SessionOptions, Tensor};
use serde_json::json;

use crate::arguments::Run;
use crate::output::{print_json, say};

/// Runs the model on the arrays of an .npz file and writes its outputs to another.
pub fn run(arguments: &Run) -> Result<()> {
    let model = Model::open(&arguments.model)?;
    let options = SessionOptions { threads: arguments.threads, ..SessionOptions::default() };
    let session = Session::new(model.graph(), options).map_err(Error::from)?;
    let arrays = lepton::read_npz(&arguments.input).map_err(Error::from)?;
    let inputs = pick(&model, &arrays)?;
    let outputs = session.run(&inputs).map_err(Error::from)?;
    let specs = model.graph().output_specs();
    let named = specs.iter().zip(&outputs).map(|((name, _), tensor)| (name.as_str(), tensor));
    lepton::write_npz(&arguments.output, named).map_err(Error::from)?;
    let shapes: Vec<_> = specs
        .iter()
        .zip(&outputs)
        .map(
            |((name, _), t)| json!({ "name": name, "dtype": t.dtype().name(), "shape": t.shape() }),
        )
        .collect();
    if arguments.json {
        return print_json("run", json!({ "output": arguments.output, "outputs": shapes }));
    }
    for ((name, _), tensor) in specs.iter().zip(&outputs) {
        say!("{name}: {}{:?}", tensor.dtype(), tensor.shape());
    }
    Ok(())
}

fn pick(model: &Model, arrays: &[(String, Tensor)]) -> Result<Vec<Tensor>, Error> {
    let specs = model.graph().input_specs();
    let have: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
    let find = |(name, fact): &(String, lepton::Fact)| {
        let found = arrays.iter().find(|(given, _)| given == name);
        found.map(|(_, tensor)| tensor.clone()).ok_or_else(|| {
            let have = have.join(", ");
            Error::Inputs(format!("no array `{name}` ({fact}) in the input file; it has: {have}"))
        })
    };
    specs.iter().map(find).collect()
}
