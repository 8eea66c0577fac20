//! A real network on real images: accuracy for each calibration, latency, and what runs in int8.
//!
//! ```sh
//! cargo test --release -p lepton-compress --test compress -- resnet20 --ignored --nocapture
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lepton_compress::{Context, ParameterValue as V, Parameters, Recipe, method, simplified};
use lepton_data::{DataOptions, DataSet, Split, read_npz};
use lepton_formats::onnx::{self, NoExternalData};
use lepton_ir::Graph;
use lepton_measure::{Accumulator, MeasureBudget, Metric, interleaved};
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor};

/// The folder of real models and data, or `None` (said on the output) where there is none.
fn assets() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no assets");
    None
}

/// CIFAR-10 images as the ResNets take them, in batches of `size`, with labels.
fn images(assets: &Path, split: Split, limit: usize, size: usize) -> Vec<(Tensor, Vec<i64>)> {
    let file = match split {
        Split::Test => "test_10k_jpeg.tar.gz",
        _ => "train_50k_jpeg.tar.gz",
    };
    let folder = assets.join("image/cifar10");
    let mut text = String::from(
        "layout = \"nchw\"\nscale = \"1/255\"\nmean = [0.485, 0.456, 0.406]\n\
         std = [0.229, 0.224, 0.225]\n",
    );
    let shuffle = split != Split::Test;
    writeln!(
        text,
        "path = {:?}\nshuffle = {shuffle}\nseed = 1\nlimit = {limit}",
        folder.join(file)
    )
    .unwrap();
    let path = std::env::temp_dir().join(format!("lepton-compress-{}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let set = DataSet::open(&path, &DataOptions::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let subset = set.split(Split::All).unwrap();
    let batch = |batch: Result<lepton_data::Batch, _>| {
        let mut batch = batch.unwrap();
        (batch.inputs.remove(0).1, batch.labels.unwrap().to_i64_vec())
    };
    subset.batches(size).map(batch).collect()
}

fn model(assets: &Path, path: &str) -> Graph {
    let bytes = std::fs::read(assets.join(path)).unwrap();
    let graph = onnx::read(bytes.into(), &NoExternalData).unwrap();
    simplified(&graph).unwrap()
}

/// Percentage of images whose largest score is their label's.
fn accuracy(graph: &Graph, images: &[(Tensor, Vec<i64>)]) -> f64 {
    let session = Session::new(graph, SessionOptions::default()).unwrap();
    let (mut right, mut all) = (0, 0);
    for (input, labels) in images {
        let scores = session.run(std::slice::from_ref(input)).unwrap().remove(0);
        let classes = scores.shape()[1];
        for (row, label) in scores.to_f64_vec().chunks(classes).zip(labels) {
            let best = (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            right += usize::from(best as i64 == *label);
            all += 1;
        }
    }
    right as f64 / all as f64 * 100.0
}

fn latency(graphs: &[&Graph], input: &Tensor) {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let sessions: Vec<Session> =
        graphs.iter().map(|g| Session::new(g, options.clone()).unwrap()).collect();
    let mut runs: Vec<_> = sessions
        .iter()
        .map(|session| move || session.run(std::slice::from_ref(input)).map(|_| ()))
        .collect();
    let mut candidates: Vec<&mut dyn FnMut() -> Result<(), lepton_runtime::RuntimeError>> =
        runs.iter_mut().map(|run| run as _).collect();
    let budget = MeasureBudget::default();
    let measured = interleaved(&mut candidates, budget).unwrap();
    for (i, found) in measured.latencies.iter().enumerate() {
        println!("  {i}: median {:.1} us, p95 {:.1} us", found.p50_us, found.p95_us);
    }
    println!("  speed-up of 1 over 0: {:?}", measured.speedup(0, 1));
}

fn profile(graph: &Graph, input: &Tensor) -> Vec<lepton_runtime::StepProfile> {
    let session = Session::new(graph, SessionOptions::default()).unwrap();
    for _ in 0..20 {
        session.run(std::slice::from_ref(input)).unwrap();
    }
    session.profile(std::slice::from_ref(input)).unwrap().1
}

#[test]
#[ignore = "a minute; run by name"]
fn resnet20() {
    let Some(assets) = assets() else { return };
    let graph = model(&assets, "image/resnet_cifar10/resnet20_jpeg_finetuned.onnx");
    let test = images(&assets, Split::Test, 10_000, 250);
    let samples: Vec<Vec<Tensor>> =
        images(&assets, Split::Train, 500, 50).into_iter().map(|(x, _)| vec![x]).collect();
    let context = Context::new(&samples);
    let base = accuracy(&graph, &test);
    println!("f32: {base:.2} %");
    let word = |w: &str| Parameters::new().with("calibration", V::Word(w.into()));
    let variants = [
        word("min-max"),
        word("percentile"),
        word("mse"),
        word("kl"),
        word("mse").with("bias_correction", V::Flag(true)),
        word("mse").with("equalize", V::Flag(true)),
        word("mse").with("keep", V::Count(2)),
        word("mse").with("per_channel", V::Flag(false)),
    ];
    for parameters in variants {
        let recipe = Recipe::new().then("static-int8", parameters);
        let started = std::time::Instant::now();
        let quantised = recipe.apply(&graph, &context).unwrap();
        let took = started.elapsed();
        let found = accuracy(&quantised, &test);
        println!("{recipe}: {found:.2} % (made in {took:.2?})");
        assert!(found > base - 0.5, "{recipe}: {found} against {base}");
    }
    let bf16 = method("bf16").unwrap().apply(&graph, &Parameters::new(), &context).unwrap();
    let found = accuracy(&bf16, &test);
    println!("bf16: {found:.2} %");
    assert!(found > base - 0.5);
}

#[test]
#[ignore = "measures; run by name"]
fn resnet20_runs_in_integers() {
    let Some(assets) = assets() else { return };
    let graph = model(&assets, "image/resnet_cifar10/resnet20_jpeg_finetuned.onnx");
    let first = |size: usize| images(&assets, Split::Test, size, size).remove(0).0;
    let samples = [vec![first(50)]];
    let method = method("static-int8").unwrap();
    let quantised = method.apply(&graph, &Parameters::new(), &Context::new(&samples)).unwrap();
    for size in [1, 16] {
        println!("latency of f32 (0) and int8 (1), batch {size}");
        latency(&[&graph, &quantised], &first(size));
    }
    for (name, graph) in [("f32", &graph), ("int8", &quantised)] {
        let mut steps = profile(graph, &first(1));
        let total: f64 = steps.iter().map(|s| s.time_us).sum();
        println!("{name}: {total:.1} us");
        steps.sort_by(|a, b| b.time_us.total_cmp(&a.time_us));
        for s in &steps {
            let share = s.time_us / total * 100.0;
            println!("{:8.1} us {share:4.1} % {} {} [{}]", s.time_us, s.op, s.node, s.kernel);
        }
    }
    let steps = profile(&quantised, &first(1));
    let float =
        |op: &str| ["Conv", "Linear", "Gemm", "MatMul", "Pool(average)", "Binary"].contains(&op);
    let slow: Vec<_> = steps.iter().filter(|s| s.kernel == "reference" || float(&s.op)).collect();
    assert!(slow.is_empty(), "{slow:#?}");
}

/// Models whose integer form is compared with the original on inputs that look random.
const MODELS: &[&str] = &[
    "image/resnet_cifar10/resnet20.onnx",
    "image/ultraface/version-slim-320_simplified.onnx",
    "image/ultraface/version-RFB-320_without_postprocessing.onnx",
    "image/mnist_models/lenet5_caffe.onnx",
    "image/mnist_models/lenet_300_100.onnx",
    "medical/pneumoniamnist/pneumonia_cnn.onnx",
    "medical/covid_ct/ct_cnn.onnx",
    "finance/uci_credit_default/default_mlp.onnx",
    "finance/ulb_creditcard_sample/fraud_mlp.onnx",
    "nlp/sst2/sst2_transformer.onnx",
];

#[test]
#[ignore = "half a minute; run by name"]
fn real_models_quantise() {
    let Some(assets) = assets() else { return };
    for path in MODELS {
        let graph = model(&assets, path);
        let (_, input) = graph.input_specs().remove(0);
        let shape: Vec<usize> = input.dims.iter().map(|d| d.as_usize().unwrap_or(48)).collect();
        let mut samples = crate::graphs::batches(&shape, 4);
        if input.dtype != DType::F32 {
            let token = |v: f64| (v.abs() * 400.0).floor();
            for sample in &mut samples {
                let tokens: Vec<f64> = sample[0].to_f64_vec().into_iter().map(token).collect();
                sample[0] = Tensor::from_f64_slice(input.dtype, shape.clone(), &tokens).unwrap();
            }
        }
        let context = Context::new(&samples);
        let none = Parameters::new();
        let made = method("static-int8").unwrap().apply(&graph, &none, &context).unwrap();
        let run = |graph: &Graph| {
            let session = Session::new(graph, SessionOptions::default()).unwrap();
            session.run(&samples[0]).unwrap()
        };
        let error = crate::graphs::relative_error(&run(&graph), &run(&made));
        let steps = profile(&made, &samples[0][0]);
        // Products of two activations have no weights and stay.
        let float =
            |s: &&lepton_runtime::StepProfile| ["Conv", "Linear", "Gemm"].contains(&s.op.as_str());
        let float: Vec<&str> = steps.iter().filter(float).map(|s| s.node.as_str()).collect();
        assert!(float.is_empty(), "{path}: {float:?} stay in f32");
        let mut kernels: std::collections::BTreeMap<String, usize> = Default::default();
        for s in &steps {
            *kernels.entry(format!("{}[{}]", s.op, s.kernel)).or_default() += 1;
        }
        println!("{path}: error {error:.4}\n  {kernels:?}");
        assert!(error < 0.15, "{path}: {error}");
    }
}

/// Multiplies the channels between the two convolutions of each residual block by factors from
/// 1/100 to 100 and divides them again: the function stays, the ranges do not.
fn rescaled(graph: &Graph) -> Graph {
    let mut made = graph.clone();
    let convs: Vec<_> =
        made.nodes().filter(|(_, n)| n.op.name() == "Conv").map(|(_, n)| n.clone()).collect();
    let pairs = convs.iter().skip(1).step_by(2).zip(convs.iter().skip(2).step_by(2));
    for (seed, (first, second)) in pairs.enumerate() {
        let channels = made.constant(first.inputs[1].unwrap()).unwrap().shape()[0];
        let random = crate::graphs::values(channels, seed as u32 + 1);
        let factors: Vec<f64> = random.iter().map(|r| 10f64.powf(*r as f64 * 2.0)).collect();
        for (id, axis, invert) in
            [(first.inputs[1], 0, false), (first.inputs[2], 0, false), (second.inputs[1], 1, true)]
        {
            let tensor = made.constant(id.unwrap()).unwrap().clone();
            let stride: usize = tensor.shape()[axis + 1..].iter().product();
            let scale = |(i, v): (usize, f64)| {
                let factor = factors[i / stride % channels];
                if invert { v / factor } else { v * factor }
            };
            let values: Vec<f64> = tensor.to_f64_vec().into_iter().enumerate().map(scale).collect();
            let tensor = Tensor::from_f64_slice(DType::F32, tensor.shape(), &values).unwrap();
            made.set_constant(id.unwrap(), tensor);
        }
    }
    made
}

#[test]
#[ignore = "half a minute; run by name"]
fn rescaled_resnet20_is_repaired_by_equalisation() {
    let Some(assets) = assets() else { return };
    let graph = model(&assets, "image/resnet_cifar10/resnet20_jpeg_finetuned.onnx");
    let graph = rescaled(&graph);
    let test = images(&assets, Split::Test, 2000, 250);
    let samples: Vec<Vec<Tensor>> =
        images(&assets, Split::Train, 250, 50).into_iter().map(|(x, _)| vec![x]).collect();
    let context = Context::new(&samples);
    let base = accuracy(&graph, &test);
    let with = |equalize: bool| {
        let chosen = Parameters::new().with("equalize", V::Flag(equalize));
        let made = method("static-int8").unwrap().apply(&graph, &chosen, &context).unwrap();
        accuracy(&made, &test)
    };
    let (naive, repaired) = (with(false), with(true));
    println!("f32 {base:.2} %, int8 {naive:.2} %, equalised int8 {repaired:.2} %");
    assert!(naive < base - 5.0, "the stress is too weak to show anything");
    assert!(repaired > base - 1.0);
}

#[test]
fn tabular_models_rank_as_before() {
    let Some(assets) = assets() else { return };
    for name in ["uci_credit_default/default_mlp", "ulb_creditcard_sample/fraud_mlp"] {
        let graph = model(&assets, &format!("finance/{name}.onnx"));
        let arrays = read_npz(&assets.join(format!("finance/{name}_test.npz"))).unwrap();
        let array = |wanted: &str| &arrays.iter().find(|(n, _)| n == wanted).unwrap().1;
        let features = array("features");
        let (columns, rows) = (features.shape()[1], features.shape()[0]);
        let values = features.as_slice::<f32>().unwrap();
        // Calibrated on the first rows, judged on the others.
        let part = |from: usize, to: usize| {
            let values = &values[from * columns..to * columns];
            vec![Tensor::from_slice([to - from, columns], values).unwrap()]
        };
        let (samples, test) = ([part(0, 300)], part(300, rows));
        let labels = Tensor::vector(&array("labels").to_i64_vec()[300..]);
        let auc = |graph: &Graph| {
            let session = Session::new(graph, SessionOptions::default()).unwrap();
            let mut accumulator = Accumulator::new(Metric::find("auc").unwrap());
            accumulator.update(&session.run(&test).unwrap()[0], Some(&labels)).unwrap();
            accumulator.finish().unwrap().result.value
        };
        let context = Context::new(&samples);
        let base = auc(&graph);
        for method in lepton_compress::METHODS {
            let made = method.apply(&graph, &Parameters::new(), &context).unwrap();
            let found = auc(&made);
            println!("{name}, {}: AUC {found:.4}, f32 {base:.4}", method.name);
            assert!(found > base - 0.005, "{name}, {}: {found} against {base}", method.name);
        }
    }
}
