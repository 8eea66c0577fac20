//! Calibration samples as compression wants them: streamed, and a few of them kept; and what was
//! found with them, on the disk.

use std::collections::BTreeSet;

use lepton_compress::{Batches, CompressError, Context, Observations, Sensitivities};
use lepton_runtime::{Lowering, Session};
use lepton_tensor::Tensor;
use serde::Serialize;

use crate::NavigateError;
use crate::evaluate::Feed;
use crate::journal::write_whole;
use crate::setup::Setup;
use crate::steps::options;

/// Most bytes of samples that are kept.
const KEPT_BYTES: usize = 16 << 20;

/// Most samples that are kept.
const KEPT_SAMPLES: usize = 128;

/// The calibration samples of a search.
pub(crate) struct Samples {
    feed: Feed,
    kept: Vec<Vec<Tensor>>,
}

impl Samples {
    pub fn new(setup: &Setup<'_>) -> Result<Self, NavigateError> {
        let session = Session::new(&setup.base, options(setup, Lowering::Full))?;
        let feed = Feed::new(&session, &setup.calibration)?;
        let mut kept = Vec::new();
        let (mut bytes, mut rows) = (0, 0);
        for fed in feed.runs() {
            let fed = fed?;
            bytes += fed.inputs.iter().map(|tensor| tensor.bytes().len()).sum::<usize>();
            rows += fed.rows;
            if !kept.is_empty() && (bytes > KEPT_BYTES || rows > KEPT_SAMPLES) {
                break;
            }
            kept.push(fed.inputs);
        }
        Ok(Samples { feed, kept })
    }

    /// The few that are kept.
    pub fn kept(&self) -> &[Vec<Tensor>] {
        &self.kept
    }
}

impl Batches for Samples {
    fn batches(&self) -> Box<dyn Iterator<Item = Result<Vec<Tensor>, CompressError>> + '_> {
        Box::new(self.feed.runs().map(|fed| match fed {
            Ok(fed) => Ok(fed.inputs),
            Err(error) => Err(CompressError::Samples(error.to_string())),
        }))
    }
}

/// What was found with the samples, on the disk for a search that goes on later.
#[derive(Default)]
pub(crate) struct Findings {
    saved: BTreeSet<String>,
}

/// The folder of the findings, and what is found.
const FOLDER: &str = "calibration";
const OBSERVATIONS: &str = "observations";
const SENSITIVITIES: &str = "sensitivities";

impl Findings {
    /// Gives the context what an earlier search on the same samples saved; files that cannot be
    /// read are made again.
    pub fn recall(setup: &Setup<'_>, context: &Context<'_>) -> Result<Self, NavigateError> {
        let folder = setup.path(FOLDER);
        std::fs::create_dir_all(&folder).map_err(NavigateError::file(&folder))?;
        let mut findings = Findings::default();
        let prefix = setup.key(&[FOLDER]);
        for entry in std::fs::read_dir(&folder).map_err(NavigateError::file(&folder))? {
            let path = entry.map_err(NavigateError::file(&folder))?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let parts: Vec<&str> = name.split('-').collect();
            let &[kind, search, fingerprint] = &parts[..] else { continue };
            if search != prefix {
                continue;
            }
            let Ok(text) = std::fs::read(&path) else { continue };
            let known = match kind {
                OBSERVATIONS => serde_json::from_slice::<Observations>(&text)
                    .map(|found| context.provide_observations(fingerprint.into(), found)),
                _ => serde_json::from_slice::<Sensitivities>(&text)
                    .map(|found| context.provide_sensitivities(fingerprint.into(), found)),
            };
            if known.is_ok() {
                findings.saved.insert(name);
            }
        }
        Ok(findings)
    }

    /// Saves what the context found since.
    pub fn save(&mut self, setup: &Setup<'_>, context: &Context<'_>) -> Result<(), NavigateError> {
        for (fingerprint, found) in context.known_observations() {
            self.save_one(setup, OBSERVATIONS, &fingerprint, &*found)?;
        }
        for (fingerprint, found) in context.known_sensitivities() {
            self.save_one(setup, SENSITIVITIES, &fingerprint, &*found)?;
        }
        Ok(())
    }

    fn save_one(
        &mut self,
        setup: &Setup<'_>,
        kind: &str,
        fingerprint: &str,
        found: &impl Serialize,
    ) -> Result<(), NavigateError> {
        let name = format!("{kind}-{}-{fingerprint}", setup.key(&[FOLDER]));
        if self.saved.contains(&name) {
            return Ok(());
        }
        let text = serde_json::to_vec(found).expect("numbers and names are JSON");
        write_whole(&setup.path(FOLDER).join(format!("{name}.json")), &text)?;
        self.saved.insert(name);
        Ok(())
    }
}
