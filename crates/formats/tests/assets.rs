//! Reading every model of the assets folder, where there is one.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lepton_formats::{ExternalData, FormatError, NoExternalData, onnx};
use lepton_ir::{Graph, interpret};
use lepton_tensor::{DType, Tensor};

struct Folder(PathBuf);

impl ExternalData for Folder {
    fn load(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, String> {
        let all = std::fs::read(self.0.join(location)).map_err(|e| e.to_string())?;
        let start = usize::try_from(offset).map_err(|e| e.to_string())?;
        let end = length.map_or(all.len(), |length| start.saturating_add(length as usize));
        all.get(start..end).map(Bytes::copy_from_slice).ok_or("range outside the file".into())
    }
}

fn assets() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or(beside, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: no assets");
        return None;
    }
    Some(folder)
}

fn models(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            models(&path, found);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            found.push(path);
        }
    }
}

fn load(path: &Path) -> Result<Graph, FormatError> {
    let folder = Folder(path.parent().unwrap().to_path_buf());
    onnx::read(std::fs::read(path).unwrap().into(), &folder)
}

/// Models that are refused, and a part of why.
const REFUSED: &[(&str, &str)] = &[
    // PyTorch's `squeeze` of an axis of unknown extent: the branches differ in rank.
    ("audio/silero_vad/silero_vad.onnx", "branches that give"),
    ("audio/silero_vad/silero_vad_16k_op15.onnx", "branches that give"),
];

#[test]
fn every_model_reads_or_names_what_is_missing() {
    let Some(folder) = assets() else { return };
    let mut paths = Vec::new();
    models(&folder, &mut paths);
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        match load(&path) {
            Ok(graph) => {
                let bytes = onnx::write(&graph, &onnx::WriteOptions::default()).unwrap();
                let back = onnx::read(bytes.clone().into(), &NoExternalData).unwrap();
                let again = onnx::write(&back, &onnx::WriteOptions::default()).unwrap();
                assert_eq!(again, bytes, "{name} is not written the same again");
                println!("{name}: {} nodes, {} bytes as ONNX", graph.node_count(), bytes.len());
            }
            Err(FormatError::UnknownOperators(list)) => println!("{name}: missing {list:?}"),
            Err(error) => {
                let why = REFUSED.iter().find(|(refused, _)| *refused == name);
                let expected = why.is_some_and(|(_, why)| error.to_string().contains(why));
                assert!(expected, "{name}: {error}");
            }
        }
    }
}

/// Models whose operators are all there, and that are cheap to run by the interpreter.
const EVALUATED: &[&str] = &[
    "finance/uci_credit_default/default_mlp.onnx",
    "finance/ulb_creditcard_sample/fraud_mlp.onnx",
    "image/mnist_models/lenet_300_100.onnx",
    "image/mnist_models/lenet5_caffe.onnx",
    "image/mnist_models/rten_mnist_external/mnist.onnx",
    "medical/covid_ct/ct_cnn.onnx",
    "medical/pneumoniamnist/pneumonia_cnn.onnx",
];

#[test]
fn small_models_give_finite_results() {
    let Some(folder) = assets() else { return };
    for name in EVALUATED {
        let graph = load(&folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let fact = graph.fact(graph.inputs()[0]).clone();
        assert_eq!(fact.dtype, DType::F32);
        let bytes = onnx::write(&graph, &onnx::WriteOptions::default()).unwrap();
        let back = onnx::read(bytes.into(), &NoExternalData).unwrap();
        let shape: Vec<usize> = fact.dims.iter().map(|d| d.as_usize().unwrap_or(1)).collect();
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i % 17) as f32 / 17.0).collect();
        let x = Tensor::from_slice(shape, &values).unwrap();
        let results = interpret::run(&graph, std::slice::from_ref(&x)).unwrap();
        assert_eq!(interpret::run(&back, &[x]).unwrap(), results, "{name} after writing");
        let all = results[0].to_f64_vec();
        assert!(!all.is_empty() && all.iter().all(|v| v.is_finite()), "{name}: {all:?}");
    }
}

/// The branches of silero's detector of speech depend on the sampling rate and on extents.
#[test]
fn branches_that_are_decided_go() {
    let Some(folder) = assets() else { return };
    let name = "audio/silero_vad/silero_vad.onnx";
    let bytes = std::fs::read(folder.join(name)).unwrap();
    let shapes = [("input".into(), vec![1, 576]), ("state".into(), vec![2, 1, 128])].into();
    let tensors = [("sr".into(), Tensor::scalar(16000i64))].into();
    let fixed = onnx::Fixed { tensors, shapes, ..onnx::Fixed::default() };
    let graph = onnx::read_fixed(bytes.into(), &NoExternalData, &fixed).unwrap();
    assert!(graph.nodes().all(|(_, node)| node.op.name() != "If"), "{:?}", graph.operator_counts());
    let samples: Vec<f32> = (0..576).map(|i| (i as f32 * 0.3).sin() * 0.1).collect();
    let x = Tensor::from_slice([1, 576], &samples).unwrap();
    let state = Tensor::zeros(DType::F32, [2, 1, 128]).unwrap();
    let results = interpret::run(&graph, &[x, state]).unwrap();
    // ONNX Runtime 1.32 for the same input.
    let expected = 0.005_966_07;
    let found = results[0].to_f64_vec()[0];
    assert!((found - expected).abs() < 1e-5, "{found}");
}
