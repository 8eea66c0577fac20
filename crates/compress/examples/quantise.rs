//! A file in another arithmetic, for measurements: `quantise METHOD MODEL.onnx OUT.lepton
//! [SAMPLES.npz]`, where METHOD is one of Lepton's, at its defaults.
//!
//! The arrays of SAMPLES are named `0/INPUT`, `1/INPUT` …, one number for each sample.

use std::error::Error;
use std::path::Path;

use lepton_compress::{Context, Parameters, Recipe};
use lepton_formats::{Artefact, NoExternalData, artefact, onnx};
use lepton_ir::Graph;
use lepton_tensor::Tensor;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (method, model, target, samples) = match &arguments[..] {
        [method, model, target] => (method, model, target, None),
        [method, model, target, samples] => (method, model, target, Some(samples)),
        _ => return Err("usage: quantise METHOD MODEL.onnx OUT.lepton [SAMPLES.npz]".into()),
    };
    let graph = onnx::read(std::fs::read(model)?.into(), &NoExternalData)?;
    let batches = match samples {
        Some(path) => batches(&graph, Path::new(path))?,
        None => Vec::new(),
    };
    let recipe = Recipe::new().then(method, Parameters::default());
    let quantised = recipe.apply(&graph, &Context::new(&batches))?;
    let artefact = Artefact {
        provenance: "{}".into(),
        measurements: "{}".into(),
        ..Artefact::from(quantised)
    };
    std::fs::write(target, artefact::write(&artefact)?)?;
    Ok(())
}

/// The samples of a file, each with an array for every input of the graph.
fn batches(graph: &Graph, path: &Path) -> Result<Vec<Vec<Tensor>>, Box<dyn Error>> {
    let arrays = lepton_data::read_npz(path)?;
    let inputs = graph.input_specs();
    let sample = |number: usize| -> Option<Vec<Tensor>> {
        let array = |name: &str| {
            let wanted = format!("{number}/{name}");
            arrays.iter().find(|(given, _)| *given == wanted).map(|(_, tensor)| tensor.clone())
        };
        inputs.iter().map(|(name, _)| array(name)).collect()
    };
    let batches: Vec<Vec<Tensor>> = (0..).map_while(sample).collect();
    if batches.is_empty() {
        return Err(format!("{path:?} has no array for each input of sample 0").into());
    }
    Ok(batches)
}
