//! Operators of classical machine learning.

use std::collections::HashMap;

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::ngram::{NgramWeight, Ngrams};
use lepton_tensor::{DType, Tensor};

use super::call::Call;
use super::emit::{Emit, Written};
use super::labels;
use super::link::{floats, int, ints, word};
use crate::error::FormatError;
use crate::steps::{Results, Steps};

fn counts(call: &Call<'_>, name: &str) -> Result<Vec<usize>, FormatError> {
    let convert =
        |v: i64| usize::try_from(v).map_err(|_| call.error(format!("attribute `{name}` has {v}")));
    call.ints(name).into_iter().map(convert).collect()
}

/// Counts of n-grams of numbers or strings.
pub fn tf_idf(call: &mut Call<'_>) -> Results {
    const KNOWN: &[&str] = &[
        "max_gram_length",
        "max_skip_count",
        "min_gram_length",
        "mode",
        "ngram_counts",
        "ngram_indexes",
        "pool_int64s",
        "pool_strings",
        "weights",
    ];
    call.check_attributes(&[], KNOWN)?;
    let weight = match call.text("mode", "TF").as_str() {
        "TF" => NgramWeight::Count,
        "IDF" => NgramWeight::Weight,
        "TFIDF" => NgramWeight::Both,
        other => return Err(call.error(format!("unknown mode `{other}`"))),
    };
    let count = |call: &Call<'_>, name| usize::try_from(call.int(name, 1)).unwrap_or(0);
    let (x, pool) = numbered_words(call)?;
    let op = Ngrams {
        shortest: count(call, "min_gram_length"),
        longest: count(call, "max_gram_length"),
        skips: count(call, "max_skip_count"),
        weight,
        starts: counts(call, "ngram_counts")?,
        pool,
        features: counts(call, "ngram_indexes")?,
        weights: call.attribute("weights").map(|a| a.floats.clone()).unwrap_or_default(),
    };
    call.emit(op, &[Some(x)])
}

/// The words as numbers, and the pool: strings are numbered by their first place in the pool.
fn numbered_words(call: &mut Call<'_>) -> Result<(ValueId, Vec<i64>), FormatError> {
    let x = call.required(0)?;
    if call.dtype(x) != DType::Str {
        return Ok((x, call.ints("pool_int64s")));
    }
    let pool = call.texts("pool_strings");
    let mut places: HashMap<&str, i64> = HashMap::new();
    let mut place = |(i, word)| *places.entry(word).or_insert(i as i64);
    let numbers = pool.iter().map(String::as_str).enumerate().map(&mut place).collect();
    let keys = Tensor::from_strings([pool.len()], &pool);
    let keys = keys.map_err(|error| call.error(error.to_string()))?;
    Ok((labels::numbered(call, x, keys)?, numbers))
}

/// Columns of the last axis.
pub fn array_features(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &[])?;
    let (x, y) = (call.input(0), call.required(1)?);
    let y = call.reshape(y, &[-1])?;
    call.emit(Gather { axis: -1 }, &[x, Some(y)])
}

/// 1 above a threshold, else 0.
pub fn binarizer(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["threshold"])?;
    let x = call.required(0)?;
    let threshold = call.scalar(call.dtype(x), f64::from(call.float("threshold", 0.0)))?;
    let above = call.pair(B::Greater, x, threshold)?;
    Ok(vec![call.cast(above, call.dtype(x))?])
}

/// Writes counts of n-grams.
pub fn write_ngrams(emit: &mut Emit<'_>, op: &Ngrams) -> Written {
    let mode = match op.weight {
        NgramWeight::Count => "TF",
        NgramWeight::Weight => "IDF",
        NgramWeight::Both => "TFIDF",
    };
    let whole = |list: &[usize]| list.iter().map(|&v| v as i64).collect();
    let mut attributes = vec![
        int("max_gram_length", op.longest as i64),
        int("max_skip_count", op.skips as i64),
        int("min_gram_length", op.shortest as i64),
        word("mode", mode),
        ints("ngram_counts", whole(&op.starts)),
        ints("ngram_indexes", whole(&op.features)),
        ints("pool_int64s", op.pool.clone()),
    ];
    if !op.weights.is_empty() {
        attributes.push(floats("weights", op.weights.clone()));
    }
    let x = emit.inputs[0].clone();
    emit.last("TfIdfVectorizer", &[&x], attributes)
}
