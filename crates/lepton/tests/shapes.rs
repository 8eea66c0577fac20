//! Every ONNX file of the assets at several batches and sizes, also none: a session answers as the
//! reference does, or refuses what the reference refuses.

use std::path::{Path, PathBuf};

use lepton::{Model, Session, SessionOptions};
use lepton_ir::{Dim, Graph, interpret};
use lepton_tensor::Tensor;

/// Batches, and by what the other extents are multiplied. The same ones come again, which is served
/// by what was planned before.
const CASES: &[(usize, usize)] = &[(1, 1), (3, 1), (2, 2), (0, 1), (3, 1)];

/// Largest difference, of the largest output: made-up inputs are alike from place to place, and a
/// normalisation of numbers that are nearly equal magnifies what rounding left between them. Magika
/// takes a variance as E[x²] − E[x]² in f32: on zeros and ones ONNX Runtime is 3.7e-3 from the same
/// model in f64, a session 2.1e-3.
const TOLERANCE: f64 = 1e-2;

/// The reference takes minutes for larger ones.
const LARGEST_FILE: u64 = 8 << 20;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).map(|list| list.flatten().collect::<Vec<_>>());
    for entry in entries.unwrap_or_default() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "onnx") {
            found.push(path);
        }
    }
}

/// The symbols of the inputs, with the extents that go with the graph, and whether each is a batch.
fn extents(graph: &Graph) -> Vec<(String, usize, bool)> {
    let samples = lepton::sample_inputs(graph, &[]).unwrap();
    let mut found: Vec<(String, usize, bool)> = Vec::new();
    for ((_, fact), tensor) in graph.input_specs().iter().zip(&samples) {
        for (axis, (dim, &extent)) in fact.dims.iter().zip(tensor.shape()).enumerate() {
            for symbol in dim.symbols() {
                if *dim == Dim::symbol(symbol.clone()) && !found.iter().any(|s| *s.0 == *symbol) {
                    found.push((symbol.to_string(), extent, axis == 0));
                }
            }
        }
    }
    found
}

fn difference(found: &[Tensor], expected: &[Tensor]) -> f64 {
    let mut largest = 0.0f64;
    for (a, b) in found.iter().zip(expected) {
        assert_eq!(a.shape(), b.shape());
        let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
        let unit = b.iter().filter(|v| v.is_finite()).fold(1e-6f64, |m, v| m.max(v.abs()));
        let apart = |(x, y): (&f64, &f64)| if x == y { 0.0 } else { (x - y).abs() / unit };
        largest = a.iter().zip(&b).map(apart).fold(largest, f64::max);
    }
    largest
}

/// Runs one case; gives the difference, or why both refuse it.
fn case(model: &Model, session: &Session, dims: &[(String, usize)]) -> Result<f64, String> {
    let inputs = lepton::sample_inputs(model.graph(), dims).unwrap();
    let expected = interpret::run(model.graph(), &inputs);
    match (session.run(&inputs), expected) {
        (Ok(found), Ok(expected)) => Ok(difference(&found, &expected)),
        (Err(error), Err(_)) => Err(error.to_string()),
        (Ok(_), Err(error)) => panic!("the session answers what the reference refuses: {error}"),
        (Err(error), Ok(_)) => panic!("the session refuses what the reference answers: {error}"),
    }
}

#[test]
#[ignore = "minutes in debug builds"]
fn models_run_at_any_batch_and_size() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or_else(beside, PathBuf::from);
    let mut found = Vec::new();
    files(&folder, &mut found);
    if found.is_empty() {
        return println!("skipped: no assets");
    }
    found.sort();
    let mut compared = 0;
    for path in found.iter().filter(|path| path.metadata().is_ok_and(|m| m.len() < LARGEST_FILE)) {
        let Ok(model) = Model::open(path) else {
            println!("{}: not read", path.display());
            continue;
        };
        let symbols = extents(model.graph());
        let session = model.session(SessionOptions::default()).unwrap();
        for &(batch, times) in CASES.iter().filter(|_| !symbols.is_empty()) {
            let extent = |(name, extent, is_batch): &(String, usize, bool)| {
                (name.clone(), if *is_batch { batch } else { extent * times })
            };
            let dims: Vec<(String, usize)> = symbols.iter().map(extent).collect();
            let name = path.file_name().unwrap_or_default().display();
            match case(&model, &session, &dims) {
                Ok(difference) => {
                    println!("{name} {dims:?}: {difference:.1e}");
                    assert!(difference <= TOLERANCE, "{name} {dims:?}: {difference}");
                    compared += 1;
                }
                Err(why) => {
                    // Fixed windows, or a branch that was not looked into for the extents.
                    println!("{name} {dims:?}: both refuse: {why}");
                }
            }
        }
    }
    assert!(compared >= 30, "only {compared} runs were compared");
}
