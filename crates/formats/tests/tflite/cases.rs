//! The stored cases: a model of one operator each, with inputs and outputs of TensorFlow Lite's
//! interpreter. `make_cases.py` makes them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use lepton_tensor::{DType, Storage, Tensor};

/// A model, what it is given and what it gives.
#[derive(Default)]
pub struct Case {
    pub model: Vec<u8>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
}

/// Every case by its name.
pub fn all() -> BTreeMap<String, Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/tflite/cases.tar.xz");
    let packed = std::fs::read(path).unwrap();
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut packed.as_slice(), &mut unpacked).unwrap();
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for entry in tar::Archive::new(unpacked.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let (folder, file) = path.to_str().unwrap().split_once('/').unwrap();
        let case = cases.entry(folder.to_string()).or_default();
        let mut parts = file.split('.');
        let (kind, dtype, shape) = (parts.next().unwrap(), parts.next(), parts.next());
        if kind == "model" {
            case.model = content;
            continue;
        }
        let dtype: DType = dtype.unwrap().parse().unwrap();
        let extents = shape.unwrap_or_default().split('x').filter(|text| !text.is_empty());
        let shape: Vec<usize> = extents.map(|extent| extent.parse().unwrap()).collect();
        let tensor = Tensor::new(dtype, shape, Storage::copied(&content)).unwrap();
        // The archive has them in order.
        if kind.starts_with("input") { &mut case.inputs } else { &mut case.outputs }.push(tensor);
    }
    cases
}

/// What is given to a model: the inputs of the case, zeros for states.
pub fn operands(graph: &lepton_ir::Graph, case: &Case) -> Vec<Tensor> {
    let mut given = case.inputs.clone();
    for &state in graph.inputs().iter().skip(given.len()) {
        let fact = graph.fact(state);
        given.push(Tensor::zeros(fact.dtype, fact.shape().unwrap()).unwrap());
    }
    given
}

/// Why the outputs are not those of the case: reals may differ by 10⁻⁴ (relative to what is above
/// 1), integers that stand for reals by one step.
pub fn difference(case: &Case, outputs: &[Tensor]) -> Option<String> {
    for (index, (expected, found)) in case.outputs.iter().zip(outputs).enumerate() {
        if (expected.dtype(), expected.shape()) != (found.dtype(), found.shape()) {
            return Some(format!("output {index}: {found:?} for {expected:?}"));
        }
        let steps = matches!(expected.dtype(), DType::I8 | DType::U8);
        for (e, f) in expected.to_f64_vec().into_iter().zip(found.to_f64_vec()) {
            let allowed = if steps { 1.0 } else { 1e-4 * e.abs().max(1.0) };
            if (e - f).abs() > allowed || e.is_nan() != f.is_nan() {
                return Some(format!("output {index}: {f} for {e}"));
            }
        }
    }
    (outputs.len() < case.outputs.len()).then(|| "outputs are missing".to_string())
}
