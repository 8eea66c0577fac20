//! Artefacts round-trip, are small, aligned and canonical; damage to one is always noticed.

use std::sync::Arc;

use lepton_formats::artefact::{Artefact, Golden, Prepared, read, write};
use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::concat::Concat;
use lepton_ir::ops::labels::LabelEncoder;
use lepton_ir::ops::matmul::{Gemm, MatMul};
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Dim, Fact, Graph, StoredPack};
use lepton_tensor::{DType, Storage, Tensor};
use proptest::prelude::*;

fn sample() -> Artefact {
    let mut graph = Graph::new("tiny");
    let dims = vec![Dim::symbol("batch"), Dim::known(2)];
    let x = graph.add_input("x", Fact::new(DType::F32, dims));
    let w = Tensor::from_slice([2, 1], &[0.5f32, -1.0]).unwrap();
    let w = graph.add_constant("w", w);
    let y = graph.add_node("product", MatMul {}, &[Some(x), Some(w)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    let golden = Golden {
        inputs: vec![Tensor::from_slice([1, 2], &[2.0f32, 1.0]).unwrap()],
        outputs: vec![Tensor::from_slice([1, 1], &[0.0f32]).unwrap()],
    };
    Artefact {
        golden: Some(golden),
        provenance: "{}".into(),
        measurements: "{}".into(),
        ..Artefact::from(graph)
    }
}

/// Fully connected layers with rectifiers, named as exporters do.
fn perceptron(widths: &[usize]) -> Artefact {
    let mut graph = Graph::new("main_graph");
    let dims = vec![Dim::symbol("batch"), Dim::from(widths[0])];
    let mut x = graph.add_input("input", Fact::new(DType::F32, dims));
    for (layer, pair) in widths.windows(2).enumerate() {
        let numbers = |count: usize| (0..count).map(|i| i as f32 * 1e-3 - 0.5).collect::<Vec<_>>();
        let w = Tensor::from_slice([pair[1], pair[0]], &numbers(pair[0] * pair[1])).unwrap();
        let w = graph.add_constant(format!("layers.{layer}.weight"), w);
        let b =
            graph.add_constant(format!("layers.{layer}.bias"), Tensor::vector(&numbers(pair[1])));
        let gemm = Gemm { trans_b: true, ..Gemm::default() };
        let name = format!("/layers.{layer}/Gemm");
        x = graph.add_node(name.clone(), gemm, &[Some(x), Some(w), Some(b)]).unwrap()[0];
        graph.set_value_name(x, format!("{name}_output_0"));
        let relu = Unary::new(UnaryFunction::Relu);
        x = graph.add_node(format!("/layers.{layer}/Relu"), relu, &[Some(x)]).unwrap()[0];
        graph.set_value_name(x, format!("/layers.{layer}/Relu_output_0"));
    }
    graph.set_value_name(x, "output");
    graph.set_outputs(vec![x]);
    Artefact::from(graph)
}

#[test]
fn writing_and_reading_are_inverse_and_canonical() {
    for artefact in [sample(), perceptron(&[16, 64, 16, 4])] {
        let bytes = write(&artefact).unwrap();
        assert_eq!(bytes, write(&artefact).unwrap());
        let back = read(Arc::new(bytes.clone())).unwrap();
        assert_eq!(write(&back).unwrap(), bytes);
        assert_eq!(back.golden, artefact.golden);
        assert_eq!(back.graph.input_specs(), artefact.graph.input_specs());
        assert_eq!(back.graph.output_specs(), artefact.graph.output_specs());
        assert_eq!(back.graph.operator_counts(), artefact.graph.operator_counts());
        if let Some(golden) = back.golden {
            let found = lepton_ir::interpret::run(&back.graph, &golden.inputs).unwrap();
            assert_eq!(found, golden.outputs);
        }
    }
}

#[test]
fn bytes_do_not_depend_on_the_order_of_edits() {
    let add = Binary::new(BinaryFunction::Add);
    let build = |unused: bool| {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", Fact::dense(DType::F32, &[2]));
        if unused {
            let c = graph.add_constant("unused", Tensor::vector(&[9f32, 9.0]));
            graph.add_node("dead", add.clone(), &[Some(x), Some(c)]).unwrap();
        }
        let c = graph.add_constant("c", Tensor::vector(&[1f32, 2.0]));
        let y = graph.add_node("sum", add.clone(), &[Some(x), Some(c)]).unwrap()[0];
        graph.set_value_name(y, "y");
        graph.set_outputs(vec![y]);
        graph.remove_dead();
        Artefact::from(graph)
    };
    assert_eq!(write(&build(true)).unwrap(), write(&build(false)).unwrap());
}

/// Bytes besides the elements of the weights.
fn overhead(artefact: &Artefact) -> usize {
    write(artefact).unwrap().len() - artefact.graph.constant_bytes()
}

#[test]
fn a_small_model_stays_small() {
    let mut artefact = perceptron(&[16, 64, 16, 4]);
    let (weights, model) = (artefact.graph.constant_bytes(), overhead(&artefact));
    artefact.golden = Some(Golden {
        inputs: vec![Tensor::zeros(DType::F32, [1, 16]).unwrap()],
        outputs: vec![Tensor::zeros(DType::F32, [1, 4]).unwrap()],
    });
    let golden = overhead(&artefact) - model;
    artefact.provenance = r#"{"source":"blake3:0123456789abcdef","tool":"lepton 0.1.0"}"#.into();
    let provenance = overhead(&artefact) - model - golden;
    println!("weights {weights}, model {model}, golden {golden}, provenance {provenance} bytes");
    assert!(weights < 10_240 && model < 1024, "{model} bytes besides the weights");
    // Each may move the weights to the next multiple of 64.
    assert!(golden <= 20 * 4 + 32 + 63 && provenance <= artefact.provenance.len() + 63);
}

#[test]
fn large_tensors_are_aligned_and_not_copied() {
    let artefact = perceptron(&[500, 600, 30, 3]);
    let bytes: Arc<Vec<u8>> = Arc::new(write(&artefact).unwrap());
    let back = read(bytes.clone()).unwrap();
    let file = bytes.as_ptr_range();
    let mut shared = 0;
    for id in back.graph.constants() {
        let tensor = back.graph.constant(id).unwrap();
        let length = tensor.bytes().len();
        let at = tensor.bytes().as_ptr() as usize;
        let unit = match length {
            1_048_576.. => 4096,
            4096.. => 64,
            _ => continue,
        };
        assert!(file.contains(&tensor.bytes().as_ptr()), "{length} bytes were copied");
        assert_eq!((at - file.start as usize) % unit, 0, "{length} bytes");
        shared += 1;
    }
    assert_eq!(shared, 2, "the weights of two layers are large");
    // A page for the section, 63 bytes for a tensor of 64-byte alignment.
    assert!(overhead(&artefact) < 1024 + 4096 + 63);
}

#[test]
fn any_change_of_a_byte_and_any_cut_is_noticed() {
    let original = sample();
    let bytes = write(&original).unwrap();
    for length in 0..bytes.len() {
        assert!(read(Arc::new(bytes[..length].to_vec())).is_err(), "cut to {length}");
    }
    // The minor version and the optional features do not change what a reader does.
    let ignored = [10..12, 24..32];
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        match read(Arc::new(changed)) {
            Err(_) => {}
            Ok(same) => {
                assert!(ignored.iter().any(|range| range.contains(&(bit / 8))), "bit {bit}");
                assert_eq!(same, original);
            }
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(read(Arc::new(longer)).is_err());
}

#[test]
fn what_a_newer_program_requires_is_named() {
    let mut bytes = write(&sample()).unwrap();
    bytes[16] = 0b100;
    let error = read(Arc::new(bytes.clone())).unwrap_err().to_string();
    assert!(error.contains("feature bit 2"), "{error}");
    bytes[8] = 2;
    let error = read(Arc::new(bytes)).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_of_a_larger_artefact_are_noticed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 1..8),
    ) {
        let original = perceptron(&[16, 64, 16, 4]);
        let bytes = write(&original).unwrap();
        let mut changed = bytes.clone();
        for (index, change) in changes {
            changed[index.index(bytes.len())] ^= change;
        }
        match read(Arc::new(changed)) {
            Ok(same) => prop_assert_eq!(write(&same).unwrap(), bytes),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// A layer of int8 weights most of which are zero, as training under compression leaves it.
fn sparse() -> Artefact {
    let mut graph = Graph::new("sparse");
    let dims = vec![Dim::symbol("batch"), Dim::known(200)];
    let x = graph.add_input("x", Fact::new(DType::F32, dims));
    let weight = |at: usize| match at * 2654435761 % 1000 {
        0..15 => 1 + (at % 3) as i8,
        15..30 => -1 - (at % 2) as i8,
        _ => 0,
    };
    let weights: Vec<i8> = (0..200 * 300).map(weight).collect();
    let w = graph.add_constant("w", Tensor::from_slice([200, 300], &weights).unwrap());
    let scale = graph.add_constant("scale", Tensor::from_slice([], &[0.1f32]).unwrap());
    let op = lepton_ir::ops::quantize::DequantizeLinear::default();
    let w = graph.add_node("weights", op, &[Some(w), Some(scale)]).unwrap()[0];
    let y = graph.add_node("product", MatMul {}, &[Some(x), Some(w)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    Artefact::from(graph)
}

#[test]
fn sparse_bytes_are_coded_and_decoded_exactly() {
    let artefact = sparse();
    let bytes = write(&artefact).unwrap();
    // 3 % of 60 000 weights in five values: an entropy of 0.26 bits each, 1950 bytes.
    assert!(bytes.len() < 2800, "{}", bytes.len());
    assert_eq!(bytes[16], 1, "the required feature of coded tensors");
    let back = read(Arc::new(bytes.clone())).unwrap();
    let weights = |artefact: &Artefact| {
        let id = artefact.graph.find_value("w").expect("it is named");
        artefact.graph.constant(id).expect("a constant").bytes().to_vec()
    };
    assert_eq!(weights(&back), weights(&artefact));
    assert_eq!(write(&back).unwrap(), bytes);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        // Only the minor version and the optional features mean nothing to a reader.
        assert!(read(Arc::new(damaged)).is_err() || matches!(at, 10..12 | 24..32), "byte {at}");
    }
}

#[test]
fn strings_survive() {
    let mut graph = Graph::new("labels");
    let words = Tensor::from_strings([3], &["cat", "", "naïve"]).unwrap();
    let keys = Tensor::vector(&[1i64, 2, 3]);
    let otherwise = Tensor::from_strings([1], &["none"]).unwrap();
    let x = graph.add_input("x", Fact::dense(DType::I64, &[2]));
    let op = LabelEncoder { keys, values: words.clone(), otherwise };
    let y = graph.add_node("", op, &[Some(x)]).unwrap()[0];
    let all = graph.add_constant("all", words);
    let joined = graph.add_node("", Concat { axis: 0 }, &[Some(y), Some(all)]).unwrap()[0];
    graph.set_value_name(joined, "joined");
    graph.set_outputs(vec![joined]);
    let bytes = write(&Artefact::from(graph)).unwrap();
    let back = read(Arc::new(bytes)).unwrap().graph;
    let given = [Tensor::vector(&[3i64, 9])];
    let found = lepton_ir::interpret::run(&back, &given).unwrap();
    assert_eq!(found[0].strings().unwrap(), ["naïve", "none", "cat", "", "naïve"]);
}

#[test]
fn constants_that_are_read_where_they_lie_are_side_by_side_in_a_prepared_file() {
    let mut artefact = perceptron(&[64, 64, 64, 64, 64]);
    let constants = artefact.graph.constants();
    let weights = |&index: &usize| artefact.graph.constant(constants[index]).unwrap().rank() == 2;
    let pack = |constant| {
        let parts = vec![Storage::copied(&[7; 100])];
        StoredPack { constant, form: "dense".into(), parts }
    };
    let packs = (0..constants.len()).filter(weights).map(pack).collect();
    artefact.prepared = Some(Prepared { key: "test".into(), packs });
    let bytes = write(&artefact).unwrap();
    let found = read(Arc::new(bytes)).unwrap();
    assert_eq!(found.prepared, artefact.prepared);
    let graph = &found.graph;
    assert_eq!(graph.operator_counts(), artefact.graph.operator_counts());
    for (id, before) in graph.constants().into_iter().zip(constants) {
        assert_eq!(graph.constant(id), artefact.graph.constant(before));
    }
    let addresses = |rank: usize| -> Vec<usize> {
        let constants = graph.constants().into_iter().filter_map(|id| graph.constant(id));
        constants.filter(|t| t.rank() == rank).map(|t| t.bytes().as_ptr().addr()).collect()
    };
    let (biases, weights) = (addresses(1), addresses(2));
    assert!(biases.windows(2).all(|pair| pair[1] - pair[0] == 64 * size_of::<f32>()));
    assert!(biases.iter().max() < weights.iter().min());
}
