//! Metrics of a session over a part of the data.

use lepton_data::{Batch, Subset};
use lepton_measure::{Accumulator, Compared, Evaluation, Metric};
use lepton_runtime::Session;
use lepton_tensor::{DType, Storage, Tensor};

use crate::NavigateError;

/// Most bytes of intermediates of a batch.
const BATCH_BYTES: usize = 32 << 20;

/// Most samples of a batch.
const MOST_SAMPLES: usize = 64;

/// How the rows of a data set become the inputs of a model.
pub struct Feed {
    subset: Subset,
    names: Vec<String>,
    dtypes: Vec<DType>,
    /// Rows a run takes, where the model fixes it.
    fixed: Option<usize>,
    rows: usize,
}

/// The inputs of one run.
pub struct Fed {
    /// One tensor per input of the model.
    pub inputs: Vec<Tensor>,
    /// Rows that are data; the rest repeats the last to fill a fixed batch.
    pub rows: usize,
    /// Labels of those rows.
    pub labels: Option<Tensor>,
}

impl Feed {
    /// Feeds `session` from `subset`, in batches that keep the memory of a run small.
    pub fn new(session: &Session, subset: &Subset) -> Result<Self, NavigateError> {
        let specs = session.lowered().input_specs();
        let names: Vec<String> = specs.iter().map(|(name, _)| name.clone()).collect();
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let subset = subset.for_inputs(&wanted)?;
        let fixed = specs.first().and_then(|(_, fact)| fact.dims.first()?.as_usize());
        let dtypes = specs.iter().map(|(_, fact)| fact.dtype).collect();
        let mut feed = Feed { subset, names, dtypes, fixed, rows: fixed.unwrap_or(1) };
        if fixed.is_none() {
            let one = feed.first(1)?;
            let bytes = session.summary(&one)?.unshared_bytes.max(1);
            feed.rows = (BATCH_BYTES / bytes).clamp(1, MOST_SAMPLES);
        }
        Ok(feed)
    }

    /// Samples in the part.
    pub fn samples(&self) -> usize {
        self.subset.len()
    }

    /// The inputs of the first `rows` rows (as many as the model fixes).
    pub fn first(&self, rows: usize) -> Result<Vec<Tensor>, NavigateError> {
        let rows = self.fixed.unwrap_or(rows);
        let batch = self.subset.batches(rows).next().transpose()?;
        let batch = batch.ok_or_else(|| NavigateError::Inputs("no rows".into()))?;
        Ok(self.fed(batch)?.inputs)
    }

    /// The inputs of every run, in order.
    pub fn runs(&self) -> impl Iterator<Item = Result<Fed, NavigateError>> + '_ {
        self.subset.batches(self.rows).map(|batch| self.fed(batch?))
    }

    fn fed(&self, batch: Batch) -> Result<Fed, NavigateError> {
        let missing =
            |name: &String| NavigateError::Inputs(format!("no array for the input `{name}`"));
        let mut inputs = Vec::with_capacity(self.names.len());
        let mut rows = 0;
        for (name, &dtype) in self.names.iter().zip(&self.dtypes) {
            let found = batch.inputs.iter().find(|(given, _)| given == name);
            let tensor = &found.ok_or_else(|| missing(name))?.1;
            if tensor.dtype() != dtype {
                return Err(NavigateError::Inputs(format!(
                    "input `{name}` takes {dtype}, the rows are {}; describe them in a .toml file \
                     with `scale` or `dtype = \"{dtype}\"`",
                    tensor.dtype()
                )));
            }
            rows = tensor.shape().first().copied().unwrap_or(0);
            inputs.push(match self.fixed {
                Some(fixed) if fixed > rows => filled(tensor, fixed)?,
                _ => tensor.clone(),
            });
        }
        Ok(Fed { inputs, rows, labels: batch.labels })
    }
}

/// The tensor with its last row repeated until it has `rows`.
fn filled(tensor: &Tensor, rows: usize) -> Result<Tensor, NavigateError> {
    let given = tensor.shape().first().copied().unwrap_or(0);
    if given == 0 {
        return Err(NavigateError::Inputs("an empty batch".into()));
    }
    let row = tensor.bytes().len() / given;
    let mut bytes = tensor.bytes().to_vec();
    for _ in given..rows {
        bytes.extend_from_within((given - 1) * row..given * row);
    }
    let mut shape = tensor.shape().to_vec();
    shape[0] = rows;
    Ok(Tensor::new(tensor.dtype(), shape, Storage::copied(&bytes))?)
}

/// The first `rows` of `of` rows of an output; outputs without a row for each stay whole.
fn cut(output: &Tensor, rows: usize, of: usize) -> Result<Tensor, NavigateError> {
    if rows == of || output.shape().first() != Some(&of) {
        return Ok(output.clone());
    }
    let bytes = output.bytes().len() / of * rows;
    let mut shape = output.shape().to_vec();
    shape[0] = rows;
    Ok(Tensor::new(output.dtype(), shape, Storage::copied(&output.bytes()[..bytes]))?)
}

/// Evaluates several metrics of the session's first output in one pass. `original` gives what
/// metrics compare with that need no labels. `progress` gets the number of samples done.
pub fn evaluate(
    session: &Session,
    original: Option<&Session>,
    subset: &Subset,
    metrics: &[&'static Metric],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Evaluation>, NavigateError> {
    if metrics.iter().any(|metric| metric.needs_labels()) {
        subset.require_labels()?;
    }
    let feed = Feed::new(session, subset)?;
    let mut accumulators: Vec<_> = metrics.iter().map(|metric| Accumulator::new(metric)).collect();
    let compares = metrics.iter().any(|metric| metric.compared == Compared::Original);
    let mut samples = 0;
    for fed in feed.runs() {
        let fed = fed?;
        let of = fed.inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(0);
        let run = |session: &Session| -> Result<Tensor, NavigateError> {
            let outputs = session.run(&fed.inputs)?;
            let first = outputs.first();
            cut(first.ok_or_else(|| NavigateError::Inputs("no outputs".into()))?, fed.rows, of)
        };
        let output = run(session)?;
        let reference = original.filter(|_| compares).map(run).transpose()?;
        for accumulator in &mut accumulators {
            let target = match accumulator.metric().compared {
                Compared::Labels => fed.labels.as_ref(),
                Compared::Original => reference.as_ref(),
            };
            accumulator.update(&output, target)?;
        }
        samples += fed.rows;
        progress(samples);
    }
    accumulators.into_iter().map(|a| Ok(a.finish()?)).collect()
}
