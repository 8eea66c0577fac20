//! Static int8 quantisation of a file, for measurements: `quantise MODEL.onnx SAMPLES.npz OUT.lepton`.
//!
//! The arrays of SAMPLES are named `0/INPUT`, `1/INPUT` …, one number for each sample.

use std::error::Error;
use std::path::Path;

use lepton_compress::{Context, Parameters, Recipe};
use lepton_formats::{Artefact, NoExternalData, artefact, onnx};
use lepton_tensor::Tensor;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, samples, target] = &arguments[..] else {
        return Err("usage: quantise MODEL.onnx SAMPLES.npz OUT.lepton".into());
    };
    let graph = onnx::read(std::fs::read(model)?.into(), &NoExternalData)?;
    let arrays = lepton_data::read_npz(Path::new(samples))?;
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
        return Err(format!("{samples} has no array for each input of sample 0").into());
    }
    let recipe = Recipe::new().then("static-int8", Parameters::default());
    let quantised = recipe.apply(&graph, &Context::new(&batches))?;
    let artefact = Artefact {
        prepared: None,
        graph: quantised,
        golden: None,
        provenance: "{}".into(),
        measurements: "{}".into(),
    };
    std::fs::write(target, artefact::write(&artefact)?)?;
    Ok(())
}
