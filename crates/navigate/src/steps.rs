//! The steps of a search, each done once and remembered in the journal.

use std::sync::Arc;

use lepton_compress::Context;
use lepton_formats::artefact::{self, Artefact, Golden};
use lepton_ir::Graph;
use lepton_measure::{Evaluation, Machine};
use lepton_runtime::{Lowering, Session, SessionOptions};
use serde::{Deserialize, Serialize};

use crate::NavigateError;
use crate::evaluate::{Feed, evaluate};
use crate::journal::{Journal, write_whole};
use crate::setup::Setup;
use crate::space::Proposal;
use crate::timing::{self, Timing};

/// A candidate's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Relative to the folder; none for the original.
    pub file: Option<String>,
    pub hash: String,
    pub bytes: u64,
}

pub(crate) fn options(setup: &Setup<'_>, lowering: Lowering) -> SessionOptions {
    SessionOptions { threads: setup.goal.threads, lowering, ..SessionOptions::default() }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn recipe_text(proposal: &Proposal) -> String {
    serde_json::to_string(&proposal.recipe).expect("a recipe is JSON")
}

/// Applies the recipe and writes the candidate's file, unless it is there.
pub(crate) fn make(
    setup: &Setup<'_>,
    journal: &mut Journal,
    context: &Context<'_>,
    proposal: &Proposal,
) -> Result<Made, NavigateError> {
    if proposal.original {
        let Setup { source, .. } = setup;
        return Ok(Made { file: None, hash: source.hash.clone(), bytes: source.file_bytes });
    }
    let key = setup.key(&["make", &recipe_text(proposal)]);
    if let Some(made) = journal.get::<Made>(&key)
        && let Some(file) = &made.file
        && std::fs::read(setup.path(file)).is_ok_and(|bytes| hash(&bytes) == made.hash)
    {
        return Ok(made);
    }
    let graph = proposal.recipe.apply(&setup.base, context)?;
    let bytes = artefact::write(&artefact_of(setup, proposal, graph)?)?;
    let file = format!("candidates/{}.lepton", proposal.name);
    write_whole(&setup.path(&file), &bytes)?;
    let made = Made { file: Some(file), hash: hash(&bytes), bytes: bytes.len() as u64 };
    journal.put(&key, &format!("make {}", proposal.name), &made)?;
    Ok(made)
}

/// The artefact without measurements: the same for the same model, samples and recipe.
fn artefact_of(
    setup: &Setup<'_>,
    proposal: &Proposal,
    graph: Graph,
) -> Result<Artefact, NavigateError> {
    let session = Session::new(&graph, options(setup, Lowering::Full))?;
    let inputs = Feed::new(&session, &setup.tuning)?.first(1)?;
    let outputs = session.run(&inputs)?;
    let origin = &setup.origin;
    let provenance = serde_json::json!({
        "source": { "name": origin.model, "blake3": origin.model_hash },
        "recipe": proposal.recipe,
        "calibration": { "blake3": origin.data_hashes[0], "samples": origin.samples[0] },
        "seed": origin.seed,
        "lepton": origin.version,
    });
    Ok(Artefact {
        golden: Some(Golden { inputs, outputs }),
        provenance: provenance.to_string(),
        ..Artefact::from(graph)
    })
}

/// The candidate's artefact, weights shared with the file's bytes.
pub(crate) fn load(setup: &Setup<'_>, file: &str) -> Result<Artefact, NavigateError> {
    let path = setup.path(file);
    let bytes = std::fs::read(&path).map_err(NavigateError::file(&path))?;
    Ok(artefact::read(Arc::new(bytes))?)
}

/// A session of the candidate as it will be used.
pub(crate) fn session(
    setup: &Setup<'_>,
    proposal: &Proposal,
    made: &Made,
) -> Result<Session, NavigateError> {
    let options = options(setup, proposal.lowering());
    Ok(match &made.file {
        None => Session::new(setup.source.graph, options)?,
        Some(file) => Session::new(&load(setup, file)?.graph, options)?,
    })
}

/// Which samples a candidate is evaluated on.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum On {
    Tuning,
    Evaluation,
}

/// The metrics of a candidate.
pub(crate) fn measure(
    setup: &Setup<'_>,
    journal: &mut Journal,
    proposal: &Proposal,
    made: &Made,
    on: On,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Evaluation>, NavigateError> {
    let (subset, which, rows) = match on {
        On::Tuning => (&setup.tuning, "tune", &setup.origin.data_hashes[1]),
        On::Evaluation => (&setup.evaluation, "evaluate", &setup.origin.data_hashes[2]),
    };
    let names: Vec<&str> = setup.metrics.iter().map(|metric| metric.name).collect();
    let lowering = format!("{:?}", proposal.lowering());
    let set = &setup.origin.instruction_set;
    let key = setup.key(&[which, &made.hash, rows, &names.join(" "), &lowering, set]);
    if let Some(done) = journal.get(&key) {
        return Ok(done);
    }
    let session = session(setup, proposal, made)?;
    let compared = setup.metrics.iter().any(|metric| !metric.needs_labels());
    let original = compared
        .then(|| Session::new(setup.source.graph, options(setup, Lowering::Full)))
        .transpose()?;
    let done = evaluate(&session, original.as_ref(), subset, &setup.metrics, progress)?;
    journal.put(&key, &format!("{which} {}", proposal.name), &done)?;
    Ok(done)
}

/// The latency of a candidate.
pub(crate) fn time(
    setup: &Setup<'_>,
    journal: &mut Journal,
    proposal: &Proposal,
    made: &Made,
) -> Result<Timing, NavigateError> {
    let machine = Machine::host().fingerprint();
    let threads = setup.goal.threads.to_string();
    let set = &setup.origin.instruction_set;
    let lowering = format!("{:?}", proposal.lowering());
    let key = setup.key(&["time", &made.hash, &machine, &threads, set, &lowering]);
    if let Some(done) = journal.get(&key) {
        return Ok(done);
    }
    let candidate = session(setup, proposal, made)?;
    let inputs = Feed::new(&candidate, &setup.tuning)?.first(1)?;
    let original = (!proposal.original)
        .then(|| Session::new(setup.source.graph, options(setup, Lowering::Plain)))
        .transpose()?;
    let budget = setup.goal.latency_time;
    let sessions: Vec<&Session> = original.iter().chain([&candidate]).collect();
    let timed = timing::time(&sessions, &inputs, budget)?;
    let done = timed.into_iter().next_back().expect("the candidate was timed");
    journal.put(&key, &format!("time {}", proposal.name), &done)?;
    Ok(done)
}

/// Samples that one timed run has.
pub(crate) fn samples_per_run(setup: &Setup<'_>) -> usize {
    let specs = setup.source.graph.input_specs();
    specs.first().and_then(|(_, fact)| fact.dims.first()?.as_usize()).unwrap_or(1).max(1)
}
