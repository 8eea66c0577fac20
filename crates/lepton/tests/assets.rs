//! Real models on real data, against accuracies and outputs of ONNX Runtime 1.32. The accuracies are
//! those of the assets' catalogue, found again by `benches/parity.py`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lepton::{
    DataOptions, DataSet, Goal, Limits, Metric, Model, PriceList, Session, SessionOptions, Split,
    Target,
};

fn assets() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or_else(beside, PathBuf::from);
    if folder.join("CATALOGUE.md").exists() {
        return Some(folder.canonicalize().expect("it exists"));
    }
    println!("skipped: no assets");
    None
}

const CIFAR: &str = r#"
layout = "nchw"
scale = "1/255"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
classes = "ASSETS/image/cifar10/classes.txt"
[train]
path = "ASSETS/image/cifar10/train_50k_jpeg.tar.gz"
shuffle = true
limit = 2500
[test]
path = "ASSETS/image/cifar10/test_10k_jpeg.tar.gz"
"#;

const MNIST: &str = r#"
layout = "nchw"
scale = "1/255"
[test]
path = "ASSETS/image/mnist/t10k-images-idx3-ubyte.gz"
"#;

const LUNG_CT: &str = r#"
array = "images"
layout = "nchw"
scale = "1/255"
[test]
path = "ASSETS/medical/covid_ct/test_64x64.npz"
"#;

const FRAUD: &str = r#"
array = "features"
[test]
path = "ASSETS/finance/ulb_creditcard_sample/fraud_mlp_test.npz"
"#;

const SENTIMENT: &str = r#"
array = "input_ids"
dtype = "i64"
[test]
path = "ASSETS/nlp/sst2/sst2_transformer_test_ids.npz"
"#;

/// Model, data, metric, and what ONNX Runtime reaches.
const MODELS: &[(&str, &str, &str, f64)] = &[
    ("image/resnet_cifar10/resnet20_jpeg_finetuned.onnx", CIFAR, "top1", 0.8701),
    ("image/resnet_cifar10/resnet32.onnx", CIFAR, "top1", 0.8256),
    ("image/mnist_models/lenet_300_100.onnx", MNIST, "top1", 0.9836),
    ("image/mnist_models/lenet5_caffe.onnx", MNIST, "top1", 0.9931),
    ("medical/covid_ct/ct_cnn.onnx", LUNG_CT, "top1", 585.0 / 690.0),
    ("finance/ulb_creditcard_sample/fraud_mlp.onnx", FRAUD, "top1", 1325.0 / 1349.0),
    ("nlp/sst2/sst2_transformer.onnx", SENTIMENT, "top1", 1417.0 / 1821.0),
];

fn data(assets: &Path, folder: &Path, description: &str) -> DataSet {
    let path = folder.join("data.toml");
    let text = description.replace("ASSETS", assets.to_str().expect("a UTF-8 path"));
    std::fs::write(&path, text).unwrap();
    DataSet::open(&path, &DataOptions::default()).unwrap()
}

#[test]
#[ignore = "ten seconds in release, minutes otherwise; .ci/run runs it by name"]
fn accuracies_are_those_of_onnx_runtime() {
    let Some(assets) = assets() else { return };
    let folder = tempfile::tempdir().unwrap();
    for &(model, description, metric, expected) in MODELS {
        let model = Model::open(assets.join(model)).unwrap();
        let session = Session::new(model.graph(), SessionOptions::default()).unwrap();
        let rows = data(&assets, folder.path(), description).split(Split::Test).unwrap();
        let metric = Metric::find(metric).unwrap();
        let found = lepton::evaluate(&session, None, &rows, &[metric], &mut |_| {}).unwrap();
        let found = found[0].result.value;
        println!("{}: {found:.4}, expected {expected:.4}", model.path().display());
        assert!((found - expected).abs() <= 0.0002, "{found} {expected}");
    }
}

#[test]
#[ignore = "half a minute in release; .ci/run runs it by name"]
fn resnet20_is_optimised_within_its_limits() {
    let Some(assets) = assets() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model =
        Model::open(assets.join("image/resnet_cifar10/resnet20_jpeg_finetuned.onnx")).unwrap();
    let data = data(&assets, folder.path(), CIFAR);
    let goal = Goal {
        metric: Some(Metric::find("top1").unwrap()),
        limits: Limits { max_drop: Some(0.5), ..Limits::default() },
        target: Target::Latency,
        time_budget: None,
        seed: 0,
        threads: 1,
        price: PriceList::shipped().price[0].clone(),
        utilisation: 0.5,
        calibration_samples: 512,
        tuning_samples: 1000,
        latency_time: Duration::from_millis(500),
    };
    let out = folder.path().join("out");
    let report = lepton::optimize(&model, &data, &goal, &out, &mut |_| {}).unwrap().report;
    assert!(report.met(), "{:?}", report.notes);
    let chosen = &report.candidates[report.chosen.unwrap()];
    let measured = chosen.measured.as_ref().unwrap();
    assert!(measured.drop <= 0.5, "{}", measured.drop);
    let share = measured.file_bytes as f64 / model.file_bytes() as f64;
    assert!(share <= 0.30, "{share}");
    // What the candidate gains over Lepton's own f32 is the least of what it gains.
    assert!(measured.speedup.unwrap().low > 1.5, "{:?}", measured.speedup);
    let peak = lepton::peak_resident_bytes().unwrap_or(0);
    assert!(peak < 4 * model.file_bytes() as u64 + (500 << 20), "{peak}");
}
