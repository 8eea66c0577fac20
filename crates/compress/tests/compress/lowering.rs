//! Quantised graphs in the engine: nothing is left in f32, and every instruction set gives the
//! same bits.

use std::collections::BTreeSet;

use lepton_compress::{Calibration, QuantizeOptions, quantize_static, simplified};
use lepton_ir::{Graph, Op, interpret, text};
use lepton_kernels::Isa;
use lepton_passes::{pipelines, run_pipeline};
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::Tensor;

use crate::graphs::{batches, constant, network, quantised, ranges, relative_error};

fn lowered(graph: &Graph) -> Graph {
    let mut made = graph.clone();
    run_pipeline(pipelines::LOWER, &mut made).unwrap();
    made.compacted()
}

fn count(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> usize {
    graph.nodes().filter(|(_, node)| wanted(&node.op)).count()
}

/// Products and sums that are left in f32.
fn float_work(graph: &Graph) -> usize {
    count(graph, |op| {
        matches!(op, Op::Conv(_) | Op::Linear(_) | Op::Gemm(_) | Op::MatMul(_) | Op::Binary(_))
    })
}

/// Every instruction set and one and two threads against each other, bit by bit.
fn same_bits(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut all = Vec::new();
    for isa in Isa::available() {
        for threads in [1, 2] {
            let options = SessionOptions { isa, threads, ..SessionOptions::default() };
            let session = Session::new(graph, options).unwrap();
            all.push((isa, session.run(inputs).unwrap()));
        }
    }
    for (isa, outputs) in &all {
        assert_eq!(*outputs, all[0].1, "{}", isa.name());
    }
    all.remove(0).1
}

#[test]
fn everything_becomes_integers() {
    let batches = batches(&[2, 3, 12, 12], 4);
    let made = quantised(&network(), &batches);
    let low = lowered(&made);
    let shown = text::print_brief(&low);
    assert_eq!(float_work(&low), 0, "{shown}");
    assert_eq!(count(&low, |op| matches!(op, Op::IntegerConv(_))), 6, "{shown}");
    assert_eq!(count(&low, |op| matches!(op, Op::IntegerLinear(_))), 1, "{shown}");
    let sums = count(&low, |op| matches!(op, Op::IntegerBinary(_)));
    assert_eq!(sums, 0, "sums are part of convolutions: {shown}");
    let residuals = low.nodes().filter(|(_, n)| matches!(n.op, Op::IntegerConv(_)));
    let residuals = residuals.filter(|(_, n)| n.inputs.get(4).copied().flatten().is_some());
    assert_eq!(residuals.count(), 2, "{shown}");
    let edges = count(&low, |op| matches!(op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_)));
    assert_eq!(edges, 1, "only the input is quantised: {shown}");
    assert_eq!(count(&low, |op| matches!(op, Op::Lookup(_))), 0, "{shown}");
}

#[test]
fn lowered_is_within_a_step_and_the_same_everywhere() {
    let batches = batches(&[2, 3, 12, 12], 4);
    let graph = network();
    let made = quantised(&graph, &batches);
    let want = interpret::run(&made, &batches[1]).unwrap();
    let integers = interpret::run(&lowered(&made), &batches[1]).unwrap();
    let ran = same_bits(&made, &batches[1]);
    assert_eq!(integers, ran, "the interpreter gives the bits of the engine");
    // A step more or less in the last u8 layer is at most this much of the answer.
    let error = relative_error(&want, &ran);
    assert!(error < 0.02, "{error}");
}

#[test]
fn each_layer_is_within_a_step() {
    let batches = batches(&[2, 3, 12, 12], 4);
    let made = quantised(&network(), &batches);
    for (_, node) in made.nodes() {
        let (Op::DequantizeLinear(_), Some(bytes)) = (&node.op, node.inputs[0]) else { continue };
        if made.constant(bytes).is_some() {
            continue;
        }
        let step = made.constant(node.inputs[1].unwrap()).unwrap().to_f64_vec()[0];
        let mut watched = made.clone();
        let real = node.outputs[0].unwrap();
        watched.set_value_name(real, "watched");
        watched.set_outputs(vec![real]);
        watched.remove_dead();
        let want = interpret::run(&watched, &batches[1]).unwrap();
        let have = same_bits(&watched, &batches[1]);
        let pairs = want[0].to_f64_vec().into_iter().zip(have[0].to_f64_vec());
        let differences: Vec<f64> = pairs.map(|(w, h)| (w - h).abs() / step).collect();
        let most = differences.iter().copied().fold(0.0, f64::max);
        let apart = differences.iter().filter(|d| **d > 0.5).count();
        assert!(most < 1.01, "{}: {most} steps", node.name);
        assert!(apart * 50 < differences.len(), "{}: {apart} values differ", node.name);
    }
}

#[test]
fn kept_layers_run_in_f32_and_the_rest_in_integers() {
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 2));
    let ranges = ranges(&graph, &batches, Calibration::Mse);
    let (_, second) = graph.nodes().filter(|(_, n)| matches!(n.op, Op::Conv(_))).nth(1).unwrap();
    let keep = BTreeSet::from([graph.node_label(second)]);
    let options = QuantizeOptions { keep: &keep, ..QuantizeOptions::new(&ranges) };
    let low = lowered(&quantize_static(&graph, &options).unwrap());
    assert_eq!(count(&low, |op| matches!(op, Op::Conv(_))), 1, "{}", text::print_brief(&low));
    assert_eq!(count(&low, |op| matches!(op, Op::IntegerConv(_))), 5);
}

#[test]
fn functions_become_tables_and_gates_integer_products() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[n,4,8,8]\n{}{}{}
         %a: f32[n,8,8,8] = Conv(%x, %w1) {{pads=[1, 1, 1, 1]}}
         %b: f32[n,8,8,8] = Unary(%a) {{function=\"hard_swish\"}}
         %c: f32[n,8,8,8] = Conv(%b, %w2)
         %d: f32[n,8,8,8] = Unary(%c) {{function=\"sigmoid\"}}
         %e: f32[n,8,8,8] = Binary(%c, %d) {{function=\"mul\"}}
         %f: f32[n,8,4,4] = Pool(%e) {{function=\"average\", kernel=[2, 2], strides=[2, 2]}}
         %g: f32[n,6,4,4] = Conv(%f, %w3)
         output %g }}",
        constant("w1", &[8, 4, 3, 3], 1),
        constant("w2", &[8, 8, 1, 1], 2),
        constant("w3", &[6, 8, 1, 1], 3),
    );
    let graph = simplified(&text::parse(&source).unwrap()).unwrap();
    let batches = batches(&[2, 4, 8, 8], 4);
    let made = quantised(&graph, &batches);
    let low = lowered(&made);
    let shown = text::print_brief(&low);
    assert_eq!(float_work(&low), 0, "{shown}");
    assert_eq!(count(&low, |op| matches!(op, Op::Unary(_))), 0, "{shown}");
    // Three products and the average.
    assert_eq!(count(&low, |op| matches!(op, Op::IntegerConv(_))), 4, "{shown}");
    let ran = same_bits(&made, &batches[0]);
    let error = relative_error(&interpret::run(&graph, &batches[0]).unwrap(), &ran);
    assert!(error < 0.05, "{error}");
}

#[test]
fn linear_layers_keep_their_biases() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[n,7,16]\n{}{}{}{}
         %a: f32[n,7,24] = MatMul(%x, %w1)
         %b: f32[n,7,24] = Binary(%a, %b1)
         %c: f32[n,7,24] = Unary(%b) {{function=\"relu\"}}
         %d: f32[n,7,16] = MatMul(%c, %w2)
         %e: f32[n,7,16] = Binary(%d, %b2)
         %f: f32[n,7,16] = Binary(%e, %x)
         output %f }}",
        constant("w1", &[16, 24], 1),
        constant("b1", &[24], 2),
        constant("w2", &[24, 16], 3),
        constant("b2", &[16], 4),
    );
    let graph = simplified(&text::parse(&source).unwrap()).unwrap();
    let batches = batches(&[2, 7, 16], 4);
    let made = quantised(&graph, &batches);
    let low = lowered(&made);
    let shown = text::print_brief(&low);
    assert_eq!(count(&low, |op| matches!(op, Op::IntegerLinear(_))), 2, "{shown}");
    assert_eq!(float_work(&low), 0, "biases and the residual are part of the products: {shown}");
    let ran = same_bits(&made, &batches[0]);
    let error = relative_error(&interpret::run(&graph, &batches[0]).unwrap(), &ran);
    assert!(error < 0.02, "{error}");
}

#[test]
fn grouped_convolutions_become_integers_too() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[n,8,6,6]\n{}{}{}
         %a: f32[n,8,6,6] = Conv(%x, %w1)
         %b: f32[n,16,6,6] = Conv(%a, %w2) {{pads=[1, 1, 1, 1], group=4}}
         %c: f32[n,4,6,6] = Conv(%b, %w3)
         output %c }}",
        constant("w1", &[8, 8, 1, 1], 1),
        constant("w2", &[16, 2, 3, 3], 2),
        constant("w3", &[4, 16, 1, 1], 3),
    );
    let graph = simplified(&text::parse(&source).unwrap()).unwrap();
    let batches = batches(&[2, 8, 6, 6], 4);
    let made = quantised(&graph, &batches);
    let session = Session::new(&made, SessionOptions::default()).unwrap();
    let (ran, steps) = session.profile(&batches[0]).unwrap();
    let kernels: Vec<&str> = steps.iter().map(|s| s.kernel).collect();
    assert!(!kernels.contains(&"reference"), "{kernels:?}");
    assert_eq!(float_work(session.lowered()), 0);
    assert_eq!(same_bits(&made, &batches[0]), ran);
    let error = relative_error(&interpret::run(&graph, &batches[0]).unwrap(), &ran);
    assert!(error < 0.02, "{error}");
}

#[test]
fn averages_become_integer_convolutions() {
    let pools = [
        ("{function=\"average\", kernel=[3, 2], strides=[2, 1]}", "[n,8,3,7]"),
        ("{function=\"average\", kernel=[2, 2], pads=[1, 1, 0, 0], count_padding=1}", "[n,8,8,8]"),
        ("{function=\"average\", global=1}", "[n,8,1,1]"),
    ];
    for (pool, shape) in pools {
        let out = shape.replace("[n,8,", "[n,4,");
        let source = format!(
            "graph \"g\" {{ input %x: f32[n,4,8,8]\n{}{}
             %a: f32[n,8,8,8] = Conv(%x, %w1)
             %b: f32{shape} = Pool(%a) {pool}
             %c: f32{out} = Conv(%b, %w2)
             output %c }}",
            constant("w1", &[8, 4, 1, 1], 1),
            constant("w2", &[4, 8, 1, 1], 2),
        );
        let graph = simplified(&text::parse(&source).unwrap()).unwrap();
        let batches = batches(&[2, 4, 8, 8], 4);
        let made = quantised(&graph, &batches);
        let low = lowered(&made);
        let shown = text::print_brief(&low);
        assert_eq!(count(&low, |op| matches!(op, Op::IntegerConv(_))), 3, "{shown}");
        assert_eq!(count(&low, |op| matches!(op, Op::Pool(_))), 0, "{shown}");
        let ran = same_bits(&made, &batches[0]);
        let want = interpret::run(&made, &batches[0]).unwrap();
        let error = relative_error(&want, &ran);
        assert!(error < 0.02, "{pool}: {error}");
    }
}
