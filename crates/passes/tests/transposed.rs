//! Transposed convolutions answer the same as plain ones, whatever their windows.

use lepton_ir::ops::conv_transpose::ConvTranspose;
use lepton_ir::ops::window::AutoPad;
use lepton_ir::{Fact, Graph, Op, interpret};
use lepton_passes::{pipelines, run_pipeline};
use lepton_tensor::{DType, Tensor};

fn numbers(shape: &[usize], salt: usize) -> Tensor {
    let count = shape.iter().product();
    let values: Vec<f32> =
        (0..count).map(|i: usize| ((i * 37 + salt * 11) % 23) as f32 / 7.0 - 1.5).collect();
    Tensor::from_slice(shape, &values).unwrap()
}

/// A graph of one transposed convolution of `[2, channels, …]`.
fn graph(op: &ConvTranspose, extents: [usize; 2], kernel: [usize; 2], bias: bool) -> Graph {
    let mut graph = Graph::new("transposed");
    let x =
        graph.add_input("x", Fact::dense(DType::F32, &[2, 2 * op.group, extents[0], extents[1]]));
    let w = numbers(&[2 * op.group, 3, kernel[0], kernel[1]], 1);
    let w = graph.add_constant("w", w);
    let b = graph.add_constant("b", numbers(&[3 * op.group], 2));
    let y = graph.add_node("y", op.clone(), &[Some(x), Some(w), bias.then_some(b)]).unwrap()[0];
    graph.set_value_name(y, "y");
    graph.set_outputs(vec![y]);
    graph
}

fn is_transposed(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| matches!(node.op, Op::ConvTranspose(_)))
}

/// Whether the pass changed the graph; what it made answers as what it was made of.
fn agrees(op: &ConvTranspose, extents: [usize; 2], kernel: [usize; 2]) -> bool {
    let pass = pipelines::LOWER.iter().find(|pass| pass.name == "transposed-convolutions");
    let pass = std::slice::from_ref(pass.expect("a pass of this name"));
    let before = graph(op, extents, kernel, extents[0].is_multiple_of(2));
    let x = numbers(&[2, 2 * op.group, extents[0], extents[1]], 3);
    let wanted = interpret::run(&before, std::slice::from_ref(&x)).unwrap();
    let mut after = before.clone();
    run_pipeline(pass, &mut after).unwrap();
    let found = interpret::run(&after, &[x]).unwrap();
    assert_eq!(found[0].shape(), wanted[0].shape(), "{op:?} {extents:?} {kernel:?}");
    for (a, b) in found[0].to_f64_vec().iter().zip(wanted[0].to_f64_vec()) {
        assert!((a - b).abs() < 1e-4, "{op:?} {extents:?} {kernel:?}: {a} instead of {b}");
    }
    !is_transposed(&after)
}

#[test]
fn every_window_answers_the_same() {
    let (mut formed, mut all) = (0, 0);
    for stride in [[1, 1], [2, 2], [3, 2], [1, 4]] {
        for kernel in [[1, 1], [2, 2], [3, 3], [4, 4], [5, 2]] {
            for pads in [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 2, 0], [2, 0, 1, 3]] {
                for group in [1, 2] {
                    let op = ConvTranspose {
                        strides: stride.to_vec(),
                        pads: pads.to_vec(),
                        group,
                        ..ConvTranspose::default()
                    };
                    all += 1;
                    formed += usize::from(agrees(&op, [4, 5], kernel));
                    let added =
                        ConvTranspose { output_padding: vec![stride[0] - 1, 0], ..op.clone() };
                    agrees(&added, [3, 4], kernel);
                }
            }
        }
    }
    assert!(formed * 10 > all * 6, "only {formed} of {all} became plain");
}

#[test]
fn padding_by_rule_and_holes_answer_the_same() {
    for auto_pad in [AutoPad::SameUpper, AutoPad::SameLower, AutoPad::Valid] {
        for stride in [1, 2, 3] {
            let strides = vec![stride; 2];
            let op = ConvTranspose { strides, auto_pad, ..ConvTranspose::default() };
            assert!(agrees(&op, [4, 5], [3, 3]), "{op:?}");
        }
    }
    let holes =
        ConvTranspose { dilations: vec![2, 3], pads: vec![1, 2, 0, 1], ..ConvTranspose::default() };
    assert!(agrees(&holes, [5, 6], [3, 2]));
    // A stride over holes stays as it is.
    assert!(!agrees(&ConvTranspose { strides: vec![2, 2], ..holes }, [5, 6], [3, 2]));
}
