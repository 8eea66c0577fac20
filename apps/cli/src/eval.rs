//! `lepton eval`.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use lepton::{DataOptions, DataSet, Error, Metric, Model, Session, SessionOptions, Split};
use serde_json::json;

use crate::arguments::Eval;
use crate::output::print_json;

/// Measures accuracy on the test split of a data set.
pub fn eval(arguments: &Eval) -> Result<()> {
    let model = Model::open(&arguments.model)?;
    let metric = Metric::find(&arguments.metric).map_err(Error::from)?;
    let options = SessionOptions { threads: arguments.threads, ..SessionOptions::default() };
    let session = Session::new(model.graph(), options).map_err(Error::from)?;
    let data = DataSet::open(&arguments.data, &DataOptions::default()).map_err(Error::from)?;
    let described = arguments.data.extension().is_some_and(|e| e == "toml");
    let split = if described { Split::Test } else { Split::All };
    let subset = data.split(split).map_err(Error::from)?;
    let terminal = std::io::stderr().is_terminal();
    let done = lepton::evaluate(&session, &subset, metric, arguments.batch, |samples| {
        if terminal {
            eprint!("\r{samples} samples");
            let _ = std::io::stderr().flush();
        }
    })?;
    if terminal {
        eprint!("\r\x1b[K");
    }
    let result = &done.evaluation.result;
    if arguments.json {
        return print_json("eval", json!({ "result": result, "samples": done.samples }));
    }
    println!(
        "{}: {:.4}  [{:.4}, {:.4}] at {:.0} % confidence, {} samples",
        result.metric,
        result.value,
        result.low,
        result.high,
        result.confidence * 100.0,
        done.samples
    );
    Ok(())
}
