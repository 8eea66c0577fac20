//! What methods may ask for besides the graph; computed once per graph, when first asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lepton_ir::Graph;
use lepton_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::CompressError;
use crate::quantize::{Calibration, Observations, observe, sensitivity};

/// How much each quantisable node suffers from quantisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sensitivities {
    /// Label and error of each node, in execution order; the unit is that of [`sensitivity`].
    pub nodes: Vec<(String, f64)>,
}

impl Sensitivities {
    /// The labels of the `count` nodes with the largest error; the earlier of equals first.
    pub fn most(&self, count: usize) -> std::collections::BTreeSet<String> {
        let mut order: Vec<&(String, f64)> = self.nodes.iter().collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        order.into_iter().take(count).map(|(name, _)| name.clone()).collect()
    }
}

/// Rows from which sensitivities are judged: enough to rank layers, and each layer costs a run.
const SENSITIVITY_ROWS: usize = 128;

/// The first batches that together have `rows` rows, at least one batch.
fn first_rows(samples: &[Vec<Tensor>], rows: usize) -> &[Vec<Tensor>] {
    let mut seen = 0;
    for (i, sample) in samples.iter().enumerate() {
        seen += sample.first().and_then(|t| t.shape().first().copied()).unwrap_or(1);
        if seen >= rows {
            return &samples[..=i];
        }
    }
    samples
}

/// A hash of everything that determines what a graph computes, constants included, in hex.
pub fn fingerprint(graph: &Graph) -> String {
    let mut hasher = blake3::Hasher::new();
    for &id in graph.inputs() {
        hasher.update(format!("input {id:?} {}\n", graph.value(id).name).as_bytes());
        hasher.update(graph.fact(id).to_string().as_bytes());
    }
    for id in graph.constants() {
        let tensor = graph.constant(id).expect("listed as a constant");
        hasher.update(format!("constant {id:?} {:?}\n", graph.fact(id)).as_bytes());
        hasher.update(tensor.bytes());
    }
    for (_, node) in graph.nodes() {
        hasher.update(format!("{node:?}\n").as_bytes());
    }
    hasher.update(format!("outputs {:?}", graph.outputs()).as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// Batches that can be read as often as wanted, without all being in memory at once.
pub trait Batches {
    /// The batches, one tensor per graph input each; the same ones every time.
    fn batches(&self) -> Box<dyn Iterator<Item = Result<Vec<Tensor>, CompressError>> + '_>;
}

/// Calibration samples, and what was found with them.
pub struct Context<'a> {
    samples: &'a [Vec<Tensor>],
    batches: Option<&'a dyn Batches>,
    observations: Mutex<BTreeMap<String, Arc<Observations>>>,
    sensitivities: Mutex<BTreeMap<String, Arc<Sensitivities>>>,
}

impl<'a> Context<'a> {
    /// `samples`: batches of one tensor per graph input; may be empty for methods that need none.
    pub fn new(samples: &'a [Vec<Tensor>]) -> Self {
        Context {
            samples,
            batches: None,
            observations: Mutex::default(),
            sensitivities: Mutex::default(),
        }
    }

    /// The same with calibration on `batches`, of which `samples` is a part small enough to keep.
    pub fn with_batches(self, batches: &'a dyn Batches) -> Self {
        Context { batches: Some(batches), ..self }
    }

    /// The samples.
    pub fn samples(&self) -> &'a [Vec<Tensor>] {
        self.samples
    }

    /// The samples.
    ///
    /// # Errors
    /// There are none.
    pub fn required_samples(&self, what: &'static str) -> Result<&'a [Vec<Tensor>], CompressError> {
        if self.samples.is_empty() {
            return Err(CompressError::NoSamples { what });
        }
        Ok(self.samples)
    }

    /// Gives observations made earlier on a graph with this [`fingerprint`].
    pub fn provide_observations(&self, fingerprint: String, observations: Observations) {
        let mut known = self.observations.lock().unwrap_or_else(|e| e.into_inner());
        known.insert(fingerprint, Arc::new(observations));
    }

    /// Gives sensitivities found earlier on a graph with this [`fingerprint`].
    pub fn provide_sensitivities(&self, fingerprint: String, sensitivities: Sensitivities) {
        let mut known = self.sensitivities.lock().unwrap_or_else(|e| e.into_inner());
        known.insert(fingerprint, Arc::new(sensitivities));
    }

    /// Every graph's observations so far, by its [`fingerprint`].
    pub fn known_observations(&self) -> Vec<(String, Arc<Observations>)> {
        let known = self.observations.lock().unwrap_or_else(|e| e.into_inner());
        known.iter().map(|(key, found)| (key.clone(), found.clone())).collect()
    }

    /// Every graph's sensitivities so far, by its [`fingerprint`].
    pub fn known_sensitivities(&self) -> Vec<(String, Arc<Sensitivities>)> {
        let known = self.sensitivities.lock().unwrap_or_else(|e| e.into_inner());
        known.iter().map(|(key, found)| (key.clone(), found.clone())).collect()
    }

    /// What the samples show of the activations of a simplified graph.
    ///
    /// # Errors
    /// Those of [`observe`].
    pub fn observations(&self, graph: &Graph) -> Result<Arc<Observations>, CompressError> {
        let key = fingerprint(graph);
        let mut known = self.observations.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(found) = known.get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(match self.batches {
            Some(batches) => observe(graph, batches.batches(), &mut |_| true)?,
            None => {
                let samples = self.required_samples("calibration")?;
                observe(graph, samples.iter().cloned().map(Ok), &mut |_| true)?
            }
        });
        known.insert(key, made.clone());
        Ok(made)
    }

    /// How much each node of a simplified graph suffers, ranges chosen by least squared error;
    /// judged from the first samples, about 128 rows.
    ///
    /// # Errors
    /// Those of [`observe`] and [`sensitivity`].
    pub fn sensitivities(&self, graph: &Graph) -> Result<Arc<Sensitivities>, CompressError> {
        let key = fingerprint(graph);
        let mut known = self.sensitivities.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(found) = known.get(&key) {
            return Ok(found.clone());
        }
        let ranges = self.observations(graph)?.ranges(Calibration::Mse);
        let samples = first_rows(self.required_samples("sensitivity")?, SENSITIVITY_ROWS);
        let nodes = sensitivity(graph, &ranges, samples, &mut |_, _| true)?;
        let made = Arc::new(Sensitivities { nodes });
        known.insert(key, made.clone());
        Ok(made)
    }
}
