//! Inputs for measuring where no data is given.

use std::sync::Arc;

use lepton_ir::dim::Bindings;
use lepton_ir::{Dim, Graph};
use lepton_tensor::{DType, Tensor};

use crate::error::Error;

/// Extents that are tried, until the whole graph can be inferred, for axes that are no batch.
const EXTENTS: &[usize] = &[1, 8, 32, 64, 128, 224, 512, 1024, 4096, 16_000];

/// The largest of them that stands for a long sequence or a large image.
const LONG: usize = 1024;

/// Elements of an input that are made up.
const MOST_ELEMENTS: usize = 1 << 30;

/// The symbols of first axes, which are batches.
fn batches(graph: &Graph) -> Vec<Arc<str>> {
    let specs = graph.input_specs();
    specs.iter().filter_map(|(_, f)| f.dims.first()).flat_map(Dim::symbols).collect()
}

/// A large extent that goes with the graph for each symbol that is no batch; `None` if there is none.
pub(crate) fn long_extents(graph: &Graph) -> Option<Vec<(String, usize)>> {
    let batches = batches(graph);
    let symbols = graph.symbols();
    let open: Vec<_> = symbols.iter().filter(|symbol| !batches.contains(symbol)).collect();
    let extents = EXTENTS.iter().rev().filter(|&&extent| extent > 1 && extent <= LONG);
    let dims = |&extent: &usize| open.iter().map(|name| (name.to_string(), extent)).collect();
    let fits = |dims: &Vec<_>| graph.specialised(&bindings(graph, dims, 1)).is_ok();
    if open.is_empty() { None } else { extents.map(dims).find(fits) }
}

/// The extents of all symbols: those of `dims`, 1 for a batch, and `extent` for the others.
fn bindings(graph: &Graph, dims: &[(String, usize)], extent: usize) -> Bindings {
    let batches = batches(graph);
    let bound = |symbol: Arc<str>| {
        let usual = if batches.contains(&symbol) { 1 } else { extent };
        let given = dims.iter().find(|(name, _)| **name == *symbol);
        let extent = given.map_or(usual, |(_, extent)| *extent);
        (symbol, i64::try_from(extent).unwrap_or(i64::MAX))
    };
    graph.symbols().into_iter().map(bound).collect()
}

/// Made-up inputs: symbols get the extents in `dims`, or small ones that go with the graph. Floats are a fixed pseudo-random
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
    let bindings = EXTENTS.iter().map(|&extent| bindings(graph, dims, extent));
    let fits = |bindings: &Bindings| bindings.is_empty() || graph.specialised(bindings).is_ok();
    let mut fitting = bindings.clone().filter(fits);
    // Where none goes with the graph the smallest says why.
    let bindings = fitting.next().or(bindings.clone().next()).unwrap_or_default();
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
            .filter(|&count| count <= MOST_ELEMENTS)
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
