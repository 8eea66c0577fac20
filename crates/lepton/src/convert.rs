//! The same model in another file.

use lepton_formats::artefact::{self, Artefact, Golden, Prepared};
use lepton_formats::{Format, FormatError, onnx};
use lepton_runtime::{PREPARED_KEY, Session, SessionOptions};

use crate::error::Error;
use crate::model::Model;
use crate::samples::{long_extents, sample_inputs};

/// The bytes of `model` as a file of another format.
///
/// A prepared `.lepton` holds the graph as the engine lowers it and the weights as its kernels read
/// them beside the plain ones: it is up to twice as large, and starts without doing either again
/// ([`Model::session`]), with the algorithm of each layer that is the fastest on this machine.
/// Shapes that the file leaves open are prepared as 1, with the forms of weights that 2 and long ones ask for, too.
///
/// # Errors
/// A model that cannot run, an operator that the format has not, `prepare` with another format.
pub fn convert(model: &Model, format: Format, prepare: bool) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::Format { path: model.path().to_path_buf(), error };
    match format {
        Format::Lepton => artefact::write(&artefact_of(model, prepare)?).map_err(failed),
        Format::Onnx if prepare => {
            Err(Error::Inputs("only a .lepton file can be prepared".to_string()))
        }
        Format::Tflite => Err(failed(FormatError::Unsupported("writing TFLite files".to_string()))),
        Format::Onnx => onnx::write(model.graph(), &onnx::WriteOptions::default()).map_err(failed),
    }
}

/// Makes the packed forms that other open extents than the smallest ask for: several rows instead of
/// one, and long axes, on which convolutions keep taps that see only padding on short ones.
fn plan_for_several(session: &Session, model: &Model) {
    let symbols = model.graph().symbols();
    let two = symbols.iter().map(|name| (name.to_string(), 2)).collect();
    let two = (!symbols.is_empty()).then_some(two);
    for extents in [two, long_extents(model.graph())].into_iter().flatten() {
        // A model that cannot have these extents has no such forms.
        if let Ok(inputs) = sample_inputs(model.graph(), &extents) {
            let _ = session.summary(&inputs);
        }
    }
}

fn artefact_of(model: &Model, prepare: bool) -> Result<Artefact, Error> {
    let session = Session::new(model.graph(), SessionOptions::default())?;
    let mut artefact = match model.artefact() {
        Some(artefact) => artefact.clone(),
        None => {
            let inputs = sample_inputs(model.graph(), &[])?;
            Artefact {
                golden: Some(Golden { outputs: session.run(&inputs)?, inputs }),
                provenance: model.provenance().to_string(),
                ..Artefact::from(model.graph().clone())
            }
        }
    };
    artefact.prepared = None;
    if prepare {
        let inputs = match &artefact.golden {
            Some(golden) => golden.inputs.clone(),
            None => sample_inputs(model.graph(), &[])?,
        };
        session.choose(&inputs)?;
        session.run(&inputs)?;
        plan_for_several(&session, model);
        artefact.graph = session.lowered().clone().into();
        artefact.prepared =
            Some(Prepared { key: PREPARED_KEY.to_string(), packs: session.packs() });
    }
    Ok(artefact)
}
