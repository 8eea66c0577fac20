//! Labels, categories and words of classical machine learning, as tables from keys to values.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::labels::LabelEncoder;
use lepton_tensor::{DType, Tensor};

use super::NoExternalData;
use super::call::Call;
use super::ops::Row;
use super::tensor;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

fn strings(values: &[String]) -> Tensor {
    Tensor::from_strings([values.len()], values).expect("length is the shape")
}

/// The list in one of the attributes `NAME_tensor`, `NAME_strings`, `NAME_int64s`, `NAME_floats`.
fn listed(call: &Call<'_>, name: &str) -> Result<Option<Tensor>, FormatError> {
    if let Some(proto) = call.attribute(&format!("{name}_tensor")).and_then(|a| a.t.as_deref()) {
        let read = tensor::read(proto, &NoExternalData)?;
        let flat = read.reshaped([read.len()]).map_err(|error| call.error(error.to_string()))?;
        return Ok(Some(flat));
    }
    let of = |kind: &str| call.attribute(&format!("{name}_{kind}"));
    if of("strings").is_some() {
        return Ok(Some(strings(&call.texts(&format!("{name}_strings")))));
    }
    let whole = of("int64s").map(|a| Tensor::vector(&a.ints));
    Ok(whole.or_else(|| of("floats").map(|a| Tensor::vector(&a.floats))))
}

/// What stands for what is not among the keys, of the type of the values.
fn otherwise(call: &Call<'_>, dtype: DType) -> Result<Tensor, FormatError> {
    if let Some(proto) = call.attribute("default_tensor").and_then(|a| a.t.as_deref()) {
        let read = tensor::read(proto, &NoExternalData)?;
        return read.reshaped([1]).map_err(|error| call.error(error.to_string()));
    }
    Ok(match dtype {
        DType::Str => strings(&[call.text("default_string", "_Unused")]),
        DType::F32 => Tensor::vector(&[call.float("default_float", -0.0)]),
        whole => Tensor::from_i64_slice(whole, [1], &[call.int("default_int64", -1)])
            .map_err(|error| call.error(error.to_string()))?,
    })
}

/// Values by keys, of any two types.
pub fn label_encoder(call: &mut Call<'_>) -> Results {
    let x = call.required(0)?;
    let (keys, values) = match call.has("classes_strings") {
        // Version 1: strings and their positions.
        true => {
            let classes = call.texts("classes_strings");
            let positions: Vec<i64> = (0..classes.len() as i64).collect();
            let (words, positions) = (strings(&classes), Tensor::vector(&positions));
            if call.dtype(x) == DType::Str { (words, positions) } else { (positions, words) }
        }
        false => {
            let missing = |what: &str| call.error(format!("it has no {what}"));
            let keys = listed(call, "keys")?.ok_or_else(|| missing("keys"))?;
            (keys, listed(call, "values")?.ok_or_else(|| missing("values"))?)
        }
    };
    let otherwise = otherwise(call, values.dtype())?;
    call.emit(LabelEncoder { keys, values, otherwise }, &[Some(x)])
}

/// Strings from integers or integers from strings, by two lists.
pub fn category_mapper(call: &mut Call<'_>) -> Results {
    let x = call.required(0)?;
    let (whole, words) =
        (Tensor::vector(&call.ints("cats_int64s")), strings(&call.texts("cats_strings")));
    let (keys, values) = if call.dtype(x) == DType::Str { (words, whole) } else { (whole, words) };
    let otherwise = otherwise(call, values.dtype())?;
    call.emit(LabelEncoder { keys, values, otherwise }, &[Some(x)])
}

/// For each element a row that is 1 at the position of its category.
pub fn one_hot_encoder(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["cats_int64s", "cats_strings", "zeros"])?;
    let x = call.required(0)?;
    let (keys, x) = match call.dtype(x) {
        DType::Str => (strings(&call.texts("cats_strings")), x),
        _ => (Tensor::vector(&call.ints("cats_int64s")), call.cast(x, DType::I64)?),
    };
    if call.int("zeros", 1) == 0 {
        return Err(call.error("zeros = 0 is not supported: unknown categories give zeros"));
    }
    let count = keys.len();
    let position = numbered(call, x, keys)?;
    let position = call.unsqueeze(position, &[-1])?;
    let all: Vec<i64> = (0..count as i64).collect();
    let all = call.integers(&all);
    let same = call.pair(B::Equal, position, all)?;
    Ok(vec![call.cast(same, DType::F32)?])
}

/// The positions of elements in a list, −1 for what is not there.
pub fn numbered(call: &mut Call<'_>, x: ValueId, keys: Tensor) -> Made {
    let positions: Vec<i64> = (0..keys.len() as i64).collect();
    let values = Tensor::vector(&positions);
    call.emit_one(LabelEncoder { keys, values, otherwise: Tensor::vector(&[-1i64]) }, &[Some(x)])
}

/// The names of a classifier's classes, as strings or integers.
pub fn class_labels(call: &Call<'_>, whole: &str) -> Tensor {
    let words = call.texts("classlabels_strings");
    if words.is_empty() { Tensor::vector(&call.ints(whole)) } else { strings(&words) }
}

/// What is missing, replaced.
pub fn imputer(call: &mut Call<'_>) -> Results {
    const KNOWN: &[&str] = &[
        "imputed_value_floats",
        "imputed_value_int64s",
        "replaced_value_float",
        "replaced_value_int64",
    ];
    call.check_attributes(&[], KNOWN)?;
    let x = call.required(0)?;
    let dtype = call.dtype(x);
    let (values, missing) = if dtype.is_float() {
        let values = call.attribute("imputed_value_floats").map(|a| a.floats.clone());
        let values: Vec<f64> = values.unwrap_or_default().iter().map(|&v| v.into()).collect();
        (values, f64::from(call.float("replaced_value_float", 0.0)))
    } else {
        let values = call.ints("imputed_value_int64s").iter().map(|&v| v as f64).collect();
        (values, call.int("replaced_value_int64", 0) as f64)
    };
    let values = call.table(dtype, &[values.len()], &values)?;
    let absent = if missing.is_nan() {
        let present = call.pair(B::Equal, x, x)?;
        call.emit_one(lepton_ir::ops::select::Not {}, &[Some(present)])?
    } else {
        let missing = call.scalar(dtype, missing)?;
        call.pair(B::Equal, x, missing)?
    };
    Ok(vec![call.select(absent, values, x)?])
}

/// Columns of several tables, one after the other.
pub fn feature_vectorizer(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["inputdimensions"])?;
    let mut parts = Vec::with_capacity(call.inputs.len());
    for index in 0..call.inputs.len() {
        let x = call.required(index)?;
        let x = if call.fact(index)?.rank() == 1 { call.reshape(x, &[-1, 1])? } else { x };
        parts.push(call.cast(x, DType::F32)?);
    }
    Ok(vec![call.concat(&parts, 1)?])
}

/// Scores by the names of their classes: the table of scores, whose columns are the classes in
/// the order of the file.
pub fn zip_map(call: &mut Call<'_>) -> Results {
    call.check_attributes(&[], &["classlabels_int64s", "classlabels_strings"])?;
    let x = call.input(0);
    call.emit(lepton_ir::ops::unary::Unary::default(), &[x])
}

/// The words of strings; marks before the first and behind the last are not made.
pub fn tokenizer(call: &mut Call<'_>, row: &Row) -> Results {
    if call.int("mark", 0) != 0 {
        return Err(call.error("marks at both ends of a text are not supported"));
    }
    super::rows::direct(call, row)
}
