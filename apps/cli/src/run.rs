//! `lepton run`.

use anyhow::Result;
use lepton::{Error, SessionOptions};
use serde_json::json;

use crate::arguments::Run;
use crate::arrays;
use crate::output::{print_json, say};

/// Runs the model on the arrays of an .npz file and writes its outputs to another.
pub fn run(arguments: &Run) -> Result<()> {
    arrays::apart(&arguments.output, &[&arguments.model.path, &arguments.input])?;
    let model = arguments.model.open()?;
    let (threads, exact) = (arguments.threads, arguments.exact);
    let options = SessionOptions { threads, exact, ..SessionOptions::default() };
    let session = model.session(options)?;
    let inputs = arrays::inputs(&model, &arguments.input)?;
    let outputs = session.run(&inputs).map_err(Error::from)?;
    arrays::write_outputs(&model, &outputs, &arguments.output)?;
    let specs = model.graph().output_specs();
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
