//! Inputs for measuring where no data is given.

use lepton_ir::{Dim, Graph};
use lepton_tensor::{DType, Tensor};

use crate::error::Error;

/// Made-up inputs: symbols get the extents in `dims`, or 1. Floats are a fixed pseudo-random
/// sequence in 0..1, integers are 0 or 1.
pub fn sample_inputs(graph: &Graph, dims: &[(String, usize)]) -> Result<Vec<Tensor>, Error> {
    let known: Vec<String> = graph.symbols().iter().map(|s| s.to_string()).collect();
    for (name, _) in dims {
        if !known.contains(name) {
            let list = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            return Err(Error::Inputs(format!(
                "the model has no dimension `{name}`; it has: {list}"
            )));
        }
    }
    let mut bindings = lepton_ir::dim::Bindings::new();
    for symbol in graph.symbols() {
        let given = dims.iter().find(|(name, _)| **name == *symbol);
        let extent = given.map_or(1, |(_, extent)| *extent);
        bindings.insert(symbol, i64::try_from(extent).unwrap_or(i64::MAX));
    }
    let mut state = 0x9e37_79b9_u32;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut inputs = Vec::new();
    for (name, fact) in graph.input_specs() {
        let bound = fact.bind(&bindings);
        let shape: Option<Vec<usize>> = bound.dims.iter().map(Dim::as_usize).collect();
        let shape = shape.ok_or_else(|| Error::Inputs(format!("input `{name}` is {bound}")))?;
        let count: usize = lepton_tensor::checked_product(&shape)
            .ok_or_else(|| Error::Inputs(format!("input `{name}` is too large: {bound}")))?;
        let float = fact.dtype.is_float();
        let value = |bits: u32| {
            if float { f64::from(bits) / f64::from(u32::MAX) } else { f64::from(bits & 1) }
        };
        let values: Vec<f64> = (0..count).map(|_| value(next())).collect();
        if fact.dtype == DType::Str {
            let words: Vec<String> = values.iter().map(|v| format!("word{v}")).collect();
            inputs.push(Tensor::from_strings(shape, &words)?);
            continue;
        }
        inputs.push(Tensor::from_f64_slice(fact.dtype, shape, &values)?);
    }
    Ok(inputs)
}
