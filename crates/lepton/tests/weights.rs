//! Weights from safetensors files in place of a model's own.

use std::path::{Path, PathBuf};

use lepton::{Error, Graph, Model, Session, SessionOptions, Tensor, sample_inputs};
use lepton_formats::onnx::{WriteOptions, write};
use lepton_formats::safetensors;
use lepton_ir::Fact;
use lepton_ir::ops::matmul::MatMul;
use lepton_tensor::DType;

fn assets() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or_else(beside, PathBuf::from);
    if folder.join("CATALOGUE.md").exists() {
        return Some(folder.canonicalize().expect("it exists"));
    }
    println!("skipped: no assets");
    None
}

fn run(graph: &Graph, inputs: &[Tensor]) -> Vec<f64> {
    let session = Session::new(graph, SessionOptions::default()).unwrap();
    session.run(inputs).unwrap().iter().flat_map(Tensor::to_f64_vec).collect()
}

/// The graph with every constant in floating point of more than one element zero.
fn emptied(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    for id in graph.constants() {
        let own = graph.constant(id).unwrap();
        if own.dtype().is_float() && own.len() > 1 {
            let zero = Tensor::zeros(own.dtype(), own.shape()).unwrap();
            graph.set_constant(id, zero);
        }
    }
    graph
}

fn same_after_replacing(model: &Path, weights: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let original = Model::open(model).unwrap();
    let inputs = sample_inputs(original.graph(), &[]).unwrap();
    let expected = run(original.graph(), &inputs);
    let path = folder.path().join("empty.onnx");
    std::fs::write(&path, write(&emptied(original.graph()), &WriteOptions::default()).unwrap())
        .unwrap();
    let empty = Model::open(&path).unwrap();
    let apart = |found: &[f64]| {
        let each = expected.iter().zip(found).map(|(e, f)| (e - f).abs());
        each.fold(0.0, |most, next| if next.is_nan() { f64::INFINITY } else { next.max(most) })
    };
    assert!(apart(&run(empty.graph(), &inputs)) > 1e-3);
    let filled = Model::open_with(&path, Some(weights)).unwrap();
    assert_ne!(filled.content_hash(), empty.content_hash());
    let found = run(filled.graph(), &inputs);
    assert_eq!(found.len(), expected.len());
    assert!(apart(&found) <= 1e-6, "{}: {}", model.display(), apart(&found));
    // What is written is taken again.
    let written = folder.path().join("own.safetensors");
    std::fs::write(&written, original.weights().unwrap()).unwrap();
    let again = run(Model::open_with(&path, Some(&written)).unwrap().graph(), &inputs);
    assert_eq!(again, expected);
}

#[test]
fn models_get_their_weights_back() {
    let Some(assets) = assets() else { return };
    for name in [
        "finance/uci_credit_default/default_mlp",
        "finance/ulb_creditcard_sample/fraud_mlp",
        "image/mnist_models/lenet_300_100",
    ] {
        let file = |extension: &str| assets.join(format!("{name}.{extension}"));
        same_after_replacing(&file("onnx"), &file("safetensors"));
    }
}

#[test]
fn weights_of_another_network_are_refused_by_name() {
    let Some(assets) = assets() else { return };
    // Its exporter stored transposed matrices under numbers.
    let folder = assets.join("lm/stories260k");
    let numbered = Model::open_with(
        folder.join("stories260k.onnx"),
        Some(folder.join("stories260k.safetensors")),
    );
    assert!(numbered.err().unwrap().to_string().contains("`ls.0.wq.weight` [64, 64] of the file"));
    let folder = assets.join("medical/covid_ct");
    // Its batch normalisation was folded into the convolutions, under other names.
    let refused =
        Model::open_with(folder.join("ct_cnn.onnx"), Some(folder.join("ct_cnn.safetensors")));
    let Err(error @ Error::Format { .. }) = refused else { panic!("it was accepted") };
    assert_eq!(error.exit_code(), 3);
    let told = error.to_string();
    for part in ["`onnx::Conv_45` [16, 1, 3, 3] of the model", "`0.weight` [16, 1, 3, 3]"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!told.contains("num_batches_tracked` [] "), "{told}");
}

/// x·a·b with a `[2,3]` and b of the extents given.
fn products(b: [usize; 2], first: &str, second: &str) -> Graph {
    let mut graph = Graph::new("products");
    let x = graph.add_input("x", Fact::dense(DType::F32, &[1, 2]));
    let one = Tensor::from_slice([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let two: Vec<f32> = (0..b[0] * b[1]).map(|i| i as f32).collect();
    let one = graph.add_constant(first, one);
    let two = graph.add_constant(second, Tensor::from_slice(b, &two).unwrap());
    let made = graph.add_node("", MatMul {}, &[Some(x), Some(one)]).unwrap();
    let made = graph.add_node("", MatMul {}, &[Some(made[0]), Some(two)]).unwrap();
    graph.set_value_name(made[0], "y");
    graph.set_outputs(made);
    graph
}

fn half(shape: &[usize]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i: usize| i as f64 / 2.0).collect();
    Tensor::from_f64_slice(DType::F16, shape, &values).unwrap()
}

#[test]
fn names_extents_and_types_decide() {
    // A transposed matrix by the end of its name, a straight one, both converted to f32.
    let mut graph = products([3, 4], "decoder/fc/Weight", "head");
    let file = vec![("fc.weight".to_string(), half(&[3, 2])), ("head".into(), half(&[3, 4]))];
    safetensors::replace(&mut graph, &file).unwrap();
    let found = |name: &str| graph.constant(graph.find_value(name).unwrap()).unwrap().clone();
    let turned = Tensor::from_slice([2, 3], &[0f32, 1.0, 2.0, 0.5, 1.5, 2.5]).unwrap();
    assert_eq!(found("decoder/fc/Weight"), turned);
    assert_eq!(found("head").to_f64_vec(), half(&[3, 4]).to_f64_vec());

    let refused = |mut graph: Graph, file: Vec<(String, Tensor)>| {
        let before = graph.clone();
        let told = safetensors::replace(&mut graph, &file).unwrap_err().to_string();
        assert_eq!(graph, before, "nothing is replaced");
        told
    };
    // A square matrix beside a transposed one.
    let file = vec![("a".to_string(), half(&[3, 2])), ("b".into(), half(&[3, 3]))];
    assert!(refused(products([3, 3], "a", "b"), file).contains("`b` [3, 3] is square"));
    // Two that may be meant, extents that do not fit, and nothing of that name.
    let file = vec![("x.a".to_string(), half(&[2, 3])), ("y.a".into(), half(&[2, 3]))];
    let told = refused(products([3, 4], "a", "b"), file);
    for part in ["`a` [2, 3] of the model", "`b` [3, 4] of the model", "`x.a`", "nearest: "] {
        assert!(told.contains(part), "{told}");
    }
    let file = vec![("a".to_string(), half(&[2, 4])), ("b".into(), half(&[3, 4]))];
    assert!(refused(products([3, 4], "a", "b"), file).contains("its extents are [2, 4]"));
}
