//! What is written as ONNX reads back as the same function.

#[path = "../../ir/tests/sweep/cases.rs"]
#[allow(dead_code)]
mod cases;
#[path = "../../ir/tests/sweep/more.rs"]
#[allow(dead_code)]
mod more;

use lepton_formats::onnx::{self, WriteOptions};
use lepton_formats::{FormatError, NoExternalData};
use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Dim, Fact, Graph, Op, interpret};
use lepton_tensor::{DType, Tensor};

/// Operators that ONNX does not have: gradients, and the forms of the engine.
const WITHOUT_ONNX: &[&str] = &[
    "SumTo",
    "Attention",
    "IntegerConv",
    "IntegerLinear",
    "IntegerLSTM",
    "DetectBoxes",
    "Fourier",
    "DynamicConv",
    "DynamicLinear",
    "Lookup",
    "IntegerBinary",
    "MoveBack",
    "ConvWeightGrad",
    "PoolGrad",
    // Of another domain.
    "TreeEnsemble",
    "LabelEncoder",
    "CouplePairs",
    // Their numbers are of Lepton's own generator.
    "Random",
    "Draw",
    // Of an operator set newer than the one that is written.
    "BitCast",
];

/// A graph of the case's one node: numbers and truths are inputs, integers constants.
fn graph_of(case: &cases::Case) -> (Graph, Vec<Tensor>) {
    let mut graph = Graph::new("case");
    let mut given = Vec::new();
    let mut operands = Vec::new();
    for (index, tensor) in case.inputs.iter().enumerate() {
        operands.push(tensor.as_ref().map(|tensor| {
            let name = format!("x{index}");
            if tensor.dtype().is_integer() {
                return graph.add_constant(name, tensor.clone());
            }
            given.push(tensor.clone());
            graph.add_input(name, Fact::dense(tensor.dtype(), tensor.shape()))
        }));
    }
    let made = graph.add_node("node", case.op.clone(), &operands).unwrap();
    for (index, id) in made.iter().enumerate() {
        graph.set_value_name(*id, format!("y{index}"));
    }
    graph.set_outputs(made);
    (graph, given)
}

fn written(graph: &Graph) -> Result<Vec<u8>, FormatError> {
    onnx::write(graph, &WriteOptions::default())
}

fn read(bytes: Vec<u8>) -> Graph {
    onnx::read(bytes.into(), &NoExternalData).unwrap()
}

/// Equal up to the rounding of sums in another order.
fn assert_close(found: &[Tensor], expected: &[Tensor], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{what}");
        let tolerance = if b.dtype() == DType::F64 { 1e-6 } else { 1e-5 };
        for (x, y) in a.to_f64_vec().into_iter().zip(b.to_f64_vec()) {
            let close = (x - y).abs() <= tolerance * y.abs().max(1.0);
            assert!(close || x == y || x.is_nan() && y.is_nan(), "{what}: {x} for {y}");
        }
    }
}

#[test]
fn every_operator_of_onnx_survives_writing_and_reading() {
    let mut written_names = Vec::new();
    let mut refused = Vec::new();
    for case in cases::all() {
        let (graph, given) = graph_of(&case);
        let what = format!("{} {:?}", case.op, case.op.attributes());
        let bytes = match written(&graph) {
            Ok(bytes) => bytes,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("node"), "{text}");
                refused.push((case.op.name(), what, text));
                continue;
            }
        };
        let back = read(bytes.clone());
        assert_close(
            &interpret::run(&back, &given).unwrap(),
            &interpret::run(&graph, &given).unwrap(),
            &what,
        );
        // Reading does arithmetic on constants; after that it changes nothing.
        let again = written(&back).unwrap();
        assert_eq!(written(&read(again.clone())).unwrap(), again, "{what} is written in two ways");
        written_names.push(case.op.name());
    }
    for name in Op::NAMES {
        assert_eq!(written_names.contains(name), !WITHOUT_ONNX.contains(name), "{name}");
    }
    refused.retain(|(name, ..)| !WITHOUT_ONNX.contains(name));
    for (_, what, why) in &refused {
        println!("refused: {what}: {why}");
    }
    let known = [
        "type of the activations",
        "operator set newer",
        "no attribute like `cell_clip`",
        "form of the engine",
    ];
    assert!(refused.iter().all(|(_, _, why)| known.iter().any(|part| why.contains(part))));
}

#[test]
fn names_symbols_and_notes_are_kept() {
    let mut graph = Graph::new("g");
    let dims = vec![Dim::symbol("batch"), Dim::known(2)];
    let x = graph.add_input("x", Fact::new(DType::F32, dims));
    let y = graph.add_node("rectify", Unary::new(UnaryFunction::Relu), &[Some(x)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    let options = WriteOptions { metadata: vec![("recipe".into(), "none".into())] };
    let bytes = onnx::write(&graph, &options).unwrap();
    assert!(bytes.windows(6).any(|window| window == b"recipe"));
    assert_eq!(read(bytes), graph);
}

#[test]
fn outputs_that_no_node_makes_once_are_copied() {
    let mut graph = Graph::new("g");
    let x = graph.add_input("x", Fact::dense(DType::F32, &[2]));
    let c = graph.add_constant("c", Tensor::vector(&[1f32, 2.0]));
    let add = Binary::new(BinaryFunction::Add);
    let y = graph.add_node("", add, &[Some(x), Some(c)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y, c, x, y]);
    let back = read(written(&graph).unwrap());
    let given = [Tensor::vector(&[3f32, 4.0])];
    assert_eq!(interpret::run(&back, &given).unwrap(), interpret::run(&graph, &given).unwrap());
    let names: Vec<String> = back.output_specs().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..2], ["y", "c"]);
}

#[test]
fn what_onnx_cannot_say_names_the_node() {
    let mut graph = Graph::new("g");
    let x = graph.add_input("x", Fact::dense(DType::U8, &[2]));
    let table = graph.add_constant("table", Tensor::vector(&[0u8; 256]));
    let op = lepton_ir::ops::lookup::Lookup {};
    let y = graph.add_node("squash", op, &[Some(x), Some(table)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    let error = written(&graph).unwrap_err().to_string();
    assert!(error.contains("`squash`") && error.contains("Lookup"), "{error}");
}
