//! From a model and data to the best version of it.

use std::path::Path;

use lepton_data::DataSet;
use lepton_navigate::{Finished, Goal, Progress, Source};

use crate::error::Error;
use crate::model::Model;

/// Searches for the version of `model` that meets `goal` on `data` and writes it, the report and
/// the journal into `folder`; a search that was interrupted goes on where it was. See
/// [`lepton_navigate::optimize`].
pub fn optimize(
    model: &Model,
    data: &DataSet,
    goal: &Goal,
    folder: &Path,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Finished, Error> {
    let name = model.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let source = Source {
        graph: model.graph(),
        name,
        hash: model.content_hash(),
        file_bytes: model.file_bytes() as u64,
    };
    Ok(lepton_navigate::optimize(&source, data, goal, folder, progress)?)
}
