//! `lepton eval`.

use anyhow::Result;
use lepton::{Error, Metric, SessionOptions};
use serde_json::json;

use crate::arguments::Eval;
use crate::output::{Bar, print_json, say};
use crate::rows::evaluation_rows;

/// Measures accuracy on the test split of a data set.
pub fn eval(arguments: &Eval) -> Result<()> {
    let model = arguments.model.open()?;
    let metric = Metric::find(&arguments.metric).map_err(Error::from)?;
    let (threads, exact) = (arguments.threads, arguments.exact);
    let options = SessionOptions { threads, exact, ..SessionOptions::default() };
    let session = model.session(options)?;
    let subset = evaluation_rows(&arguments.data)?;
    let bar = Bar::new(subset.len() as u64, "samples");
    let mut evaluations = lepton::evaluate(&session, None, &subset, &[metric], &mut |samples| {
        bar.at(samples as u64);
    })
    .map_err(Error::from)?;
    bar.finish();
    let result = evaluations.remove(0).result;
    if arguments.json {
        return print_json("eval", json!({ "result": result, "samples": subset.len() }));
    }
    say!(
        "{}: {:.4}  [{:.4}, {:.4}] at {:.0} % confidence, {} samples",
        result.metric,
        result.value,
        result.low,
        result.high,
        result.confidence * 100.0,
        subset.len()
    );
    Ok(())
}
