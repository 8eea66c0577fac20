//! The façade's `optimize` and `evaluate` as Python functions.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lepton::{
    DataOptions, DataSet, Error, Goal, Limits, METRICS, Metric, PriceList, Progress, Session,
    SessionOptions, Split, Target,
};
use pyo3::prelude::*;

use crate::errors::raised;
use crate::model::Model;

/// Between two looks at the interpreter: signals, and the caller's progress function.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What unwinds a search that the caller stopped; its journal is whole up to the last step.
struct Stopped;

/// Tells Python how far the search is, and hears whether it shall go on.
struct Listener {
    callback: Option<Py<PyAny>>,
    last: Option<Instant>,
    stopped: Option<PyErr>,
}

impl Listener {
    fn hear(&mut self, progress: &Progress) {
        if self.last.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let told = Python::attach(|py| {
            py.check_signals()?;
            let Some(callback) = &self.callback else { return Ok(()) };
            let arguments = (progress.done, progress.total, progress.step, &progress.candidate);
            callback.call1(py, arguments).map(|_| ())
        });
        if let Err(error) = told {
            self.stopped = Some(error);
            resume_unwind(Box::new(Stopped));
        }
    }
}

/// What a search is asked for, under the names of the command line.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Request {
    metric: Option<String>,
    max_drop: f64,
    max_latency_us: Option<f64>,
    max_size_bytes: Option<u64>,
    max_cost_usd: Option<f64>,
    target: String,
    time_budget_s: Option<f64>,
    threads: usize,
    seed: u64,
    calibration_samples: usize,
    tuning_samples: usize,
    latency_time_s: f64,
    instance: String,
    prices: Option<PathBuf>,
    utilisation: f64,
}

impl Request {
    fn goal(&self) -> Result<Goal, Error> {
        let unknown = || {
            let names: Vec<&str> = Target::NAMES.iter().map(|(name, _)| *name).collect();
            Error::Inputs(format!("no target `{}`; there are {}", self.target, names.join(", ")))
        };
        let target = Target::NAMES.iter().find(|(name, _)| *name == self.target);
        Ok(Goal {
            metric: self.metric.as_deref().map(Metric::find).transpose()?,
            limits: Limits {
                max_drop: Some(self.max_drop),
                max_latency_us: self.max_latency_us,
                max_size_bytes: self.max_size_bytes,
                max_cost_usd: self.max_cost_usd,
            },
            target: target.ok_or_else(unknown)?.1,
            time_budget: self.time_budget_s.map(|s| seconds("time_budget_s", s)).transpose()?,
            seed: self.seed,
            threads: self.threads,
            price: price(&self.instance, self.prices.as_deref())?,
            utilisation: self.utilisation,
            calibration_samples: self.calibration_samples,
            tuning_samples: self.tuning_samples,
            latency_time: seconds("latency_time_s", self.latency_time_s)?,
        })
    }
}

/// The price of an instance type, in the list of the path too if there is one.
pub(crate) fn price(instance: &str, own: Option<&Path>) -> Result<lepton::Price, Error> {
    let mut list = PriceList::shipped();
    if let Some(path) = own {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::File { path: path.to_owned(), error })?;
        list = list.overridden_by(PriceList::parse(&text)?);
    }
    list.find(instance).cloned().ok_or_else(|| {
        let names: Vec<&str> = list.price.iter().map(|p| p.instance.as_str()).collect();
        let names = names.join(", ");
        Error::Inputs(format!("no price for the instance `{instance}`; there are {names}"))
    })
}

pub(crate) fn seconds(name: &str, value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value)
        .map_err(|error| Error::Inputs(format!("{name} is {value}: {error}")))
}

/// Searches for the version of `model` that meets the request; the report as JSON, the steps that
/// the journal had, and those done now.
#[pyfunction]
pub(crate) fn optimize(
    py: Python<'_>,
    model: &Bound<'_, Model>,
    data: PathBuf,
    out: PathBuf,
    request: Request,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, usize, usize)> {
    let model = model.get().model.clone();
    let goal = request.goal().map_err(|error| raised(py, error))?;
    let mut listener = Listener { callback: progress, last: None, stopped: None };
    let outcome = py.detach(|| {
        catch_unwind(AssertUnwindSafe(|| {
            let data = DataSet::open(&data, &DataOptions::default())?;
            lepton::optimize(&model, &data, &goal, &out, &mut |step| listener.hear(step))
        }))
    });
    let finished = match (outcome, listener.stopped) {
        (_, Some(error)) => return Err(error),
        (Ok(finished), None) => finished.map_err(|error| raised(py, error))?,
        (Err(panic), None) => resume_unwind(panic),
    };
    let json = serde_json::to_string(&finished.report).expect("a report is JSON");
    Ok((json, finished.resumed_steps, finished.new_steps))
}

/// Metrics of the model's first output over a part of the data (`train`, `test` or `all`): of each
/// its name, value, and the ends of its confidence interval.
#[pyfunction]
pub(crate) fn evaluate(
    py: Python<'_>,
    model: &Bound<'_, Model>,
    data: PathBuf,
    metrics: Vec<String>,
    part: &str,
    threads: usize,
) -> PyResult<Vec<(String, f64, f64, f64)>> {
    let model = model.get().model.clone();
    let split = match part {
        "train" => Split::Train,
        "test" => Split::Test,
        "all" => Split::All,
        _ => {
            let message = format!("no part `{part}`; there are train, test, all");
            return Err(raised(py, Error::Inputs(message)));
        }
    };
    let measured = py.detach(|| -> Result<_, Error> {
        let metrics: Vec<&'static Metric> =
            metrics.iter().map(|name| Metric::find(name)).collect::<Result<_, _>>()?;
        let subset = DataSet::open(&data, &DataOptions::default())?.split(split)?;
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let session = Session::new(model.graph(), options)?;
        Ok(lepton::evaluate(&session, None, &subset, &metrics, &mut |_| {})?)
    });
    let rows = measured.map_err(|error| raised(py, error))?.into_iter().map(|evaluation| {
        let result = evaluation.result;
        (result.metric.clone(), result.value, result.low, result.high)
    });
    Ok(rows.collect())
}

/// Name and meaning of every metric.
#[pyfunction]
pub(crate) fn metrics() -> Vec<(&'static str, &'static str)> {
    METRICS.iter().map(|metric| (metric.name, metric.about)).collect()
}

/// Names of what a search can make as small as possible.
#[pyfunction]
pub(crate) fn targets() -> Vec<&'static str> {
    Target::NAMES.iter().map(|(name, _)| *name).collect()
}
