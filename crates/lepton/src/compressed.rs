//! A recipe applied without a search.

use lepton_compress::{Context, Recipe};
use lepton_formats::artefact::{self, Artefact, Golden};
use lepton_navigate::NavigateError;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::Tensor;

use crate::error::Error;
use crate::model::Model;
use crate::samples::sample_inputs;

/// Golden input and output may take this part of the file.
const GOLDEN_SHARE: usize = 100;

/// Golden input and output of up to this many bytes are always kept.
const SMALL_GOLDEN_BYTES: usize = 1024;

/// The bytes of the `.lepton` artefact of `model` after `recipe`.
///
/// `samples` are runs of one tensor per input, for methods that calibrate; may be empty for others.
/// The artefact's golden input is the first of them, or a made-up one where there are none; it is left
/// out where it would take more than a hundredth of the file.
///
/// # Errors
/// A recipe that cannot be applied, samples that do not fit the model.
pub fn compressed(
    model: &Model,
    recipe: &Recipe,
    samples: &[Vec<Tensor>],
) -> Result<Vec<u8>, Error> {
    let graph = recipe.apply(model.graph(), &Context::new(samples)).map_err(NavigateError::from)?;
    let inputs = match samples.first() {
        Some(inputs) => inputs.clone(),
        None => sample_inputs(model.graph(), &[])?,
    };
    let outputs = Session::new(&graph, SessionOptions::default())?.run(&inputs)?;
    let mut provenance = model.provenance();
    provenance["recipe"] = serde_json::json!(recipe);
    let mut artefact = Artefact { provenance: provenance.to_string(), ..Artefact::from(graph) };
    let golden_bytes: usize =
        inputs.iter().chain(&outputs).map(|tensor| tensor.bytes().len()).sum();
    // Coding the weights takes long, so they are coded twice only where their bytes decide.
    if golden_bytes > SMALL_GOLDEN_BYTES {
        let bare = artefact::write(&artefact).map_err(NavigateError::from)?;
        if golden_bytes > bare.len() / GOLDEN_SHARE {
            return Ok(bare);
        }
    }
    artefact.golden = Some(Golden { inputs, outputs });
    Ok(artefact::write(&artefact).map_err(NavigateError::from)?)
}
