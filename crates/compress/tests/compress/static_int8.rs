//! Static quantisation of small graphs: what is inserted, and how far the answer moves.

use std::collections::BTreeSet;

use lepton_compress::{
    Calibration, CompressError, Observations, QuantizeOptions, bias_correction, calibrate,
    equalize, observe, quantisable_nodes, quantize_static, sensitivity, simplified,
};
use lepton_ir::{Graph, interpret, text};
use lepton_tensor::{DType, Tensor};

use crate::graphs::{batches, constant, network, quantised, ranges, relative_error};

#[test]
fn the_answer_moves_little_and_the_interface_not_at_all() {
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 8));
    let made = quantised(&graph, &batches);
    let names = |g: &Graph| (g.input_specs(), g.value(g.outputs()[0]).name.clone());
    assert_eq!(names(&made), names(&graph));
    let want = interpret::run(&graph, &batches[0]).unwrap();
    let have = interpret::run(&made, &batches[0]).unwrap();
    let error = relative_error(&want, &have);
    assert!(error > 0.0 && error < 0.05, "{error}");
}

#[test]
fn what_is_inserted_is_the_standard_form() {
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 2));
    let made = quantised(&graph, &batches);
    for (_, node) in made.nodes() {
        let constant = |i: usize| node.inputs.get(i).copied().flatten().map(|id| made.constant(id));
        match node.op.name() {
            "QuantizeLinear" => {
                let zero = constant(2).unwrap().unwrap();
                assert_eq!((zero.dtype(), zero.len()), (DType::U8, 1), "activations are u8");
            }
            "DequantizeLinear" => match constant(0).unwrap() {
                None => assert_eq!(constant(1).unwrap().unwrap().len(), 1),
                Some(w) if w.dtype() == DType::I8 => {
                    assert!(constant(2).is_none(), "weights are symmetric");
                    assert!(constant(1).unwrap().unwrap().len() > 1, "one step per channel");
                    assert!(w.to_i64_vec().iter().all(|v| v.abs() <= 127));
                }
                Some(b) => assert_eq!(b.dtype(), DType::I32, "biases are i32"),
            },
            _ => {}
        }
    }
    let quantisers = made.nodes().filter(|(_, n)| n.op.name() == "QuantizeLinear");
    for (_, node) in quantisers.filter(|(_, n)| n.name == "r/quantize" || n.name == "e/quantize") {
        let zero = made.constant(node.inputs[2].unwrap()).unwrap();
        assert_eq!(zero.to_i64_vec(), [0], "nothing is below zero after a ReLU");
    }
    // Both operands of the concatenation, its result and the pool before share one step.
    let step = |name: &str| {
        let found = made.nodes().find(|(_, n)| n.name == format!("{name}/quantize"));
        let node = found.unwrap_or_else(|| panic!("{name} is quantised")).1;
        made.constant(node.inputs[1].unwrap()).unwrap().to_f64_vec()[0]
    };
    assert_eq!([step("i"), step("k"), step("l"), step("m")], [step("j"); 4]);
    assert_ne!(step("r"), step("j"));
}

#[test]
fn kept_nodes_stay_as_they_were() {
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 2));
    let ranges = ranges(&graph, &batches, Calibration::MinMax);
    let nodes = quantisable_nodes(&graph);
    assert_eq!(nodes.len(), 7);
    let all: BTreeSet<String> = nodes.iter().cloned().collect();
    let options = QuantizeOptions { keep: &all, ..QuantizeOptions::new(&ranges) };
    assert_eq!(quantize_static(&graph, &options).unwrap(), graph, "nothing is left to quantise");
    let one = BTreeSet::from([nodes[1].clone()]);
    let options = QuantizeOptions { keep: &one, ..QuantizeOptions::new(&ranges) };
    let made = quantize_static(&graph, &options).unwrap();
    let (_, node) = made.nodes().find(|(_, n)| made.node_label(n) == nodes[1]).unwrap();
    assert_eq!(made.constant(node.inputs[1].unwrap()).unwrap().dtype(), DType::F32);
}

#[test]
fn one_pass_serves_every_calibration_and_survives_json() {
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 4));
    let seen = observe(&graph, batches.iter().cloned().map(Ok), &mut |_| true).unwrap();
    let text = serde_json::to_string(&seen).unwrap();
    let read: Observations = serde_json::from_str(&text).unwrap();
    let choices = [
        Calibration::MinMax,
        Calibration::Percentile(99.0),
        Calibration::Mse,
        Calibration::KullbackLeibler,
    ];
    for calibration in choices {
        let direct = ranges(&graph, &batches, calibration);
        assert_eq!(seen.ranges(calibration), direct);
        assert_eq!(read.ranges(calibration), direct, "{calibration:?}");
        let options = QuantizeOptions::new(&direct);
        let made = quantize_static(&graph, &options).unwrap();
        assert_eq!(made, quantize_static(&graph, &options).unwrap(), "repeats");
    }
    // Memory does not grow with the samples.
    let more = batches.iter().chain(&batches).cloned().map(Ok);
    let more = observe(&graph, more, &mut |_| true).unwrap();
    assert_eq!(more.batches, 8);
    let bins = |o: &Observations| o.by_value.values().map(|h| h.counts.len()).sum::<usize>();
    assert_eq!(bins(&more), bins(&seen));
    let early = observe(&graph, batches.iter().cloned().map(Ok), &mut |done| done < 2).unwrap();
    assert_eq!(early.batches, 2);
}

#[test]
fn what_is_not_finite_is_named() {
    let source = "graph \"g\" { input %x: f32[n,4]
        const %w: f32[4,3] = [1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.]
        %l: f32[n,4] = Unary(%x) {function=\"log\"}
        %y: f32[n,3] = MatMul(%l, %w)
        output %y }";
    let graph = simplified(&text::parse(source).unwrap()).unwrap();
    let good = vec![Tensor::from_slice([1, 4], &[1.0f32, 2.0, 3.0, 4.0]).unwrap()];
    let bad = vec![Tensor::from_slice([1, 4], &[1.0f32, -2.0, 3.0, 4.0]).unwrap()];
    let run = |batches: Vec<Vec<Tensor>>| {
        calibrate(&graph, batches.into_iter().map(Ok), Calibration::MinMax, &mut |_| true)
    };
    let ranges = run(vec![good.clone()]).unwrap();
    match run(vec![good, bad]) {
        Err(CompressError::NotFinite { value, batch, .. }) => {
            assert_eq!((value.as_str(), batch), ("l", 1));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(run(vec![]), Err(CompressError::NoSamples { .. })));
    let other = network();
    let refused = quantize_static(&other, &QuantizeOptions::new(&ranges)).unwrap_err();
    assert!(matches!(refused, CompressError::NoRange { .. }), "{refused}");
}

#[test]
fn a_bias_beside_tiny_weights_still_fits() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[n,2,4,4]
         const %w: f32[2,2,1,1] = [1e-12, -1e-12, 0.5, 0.25]
         const %b: f32[2] = [3.0, -2.0]\n{}
         %c: f32[n,2,4,4] = Conv(%x, %w, %b)
         %d: f32[n,3,4,4] = Conv(%c, %w2)
         output %d }}",
        constant("w2", &[3, 2, 1, 1], 1)
    );
    let graph = simplified(&text::parse(&source).unwrap()).unwrap();
    let batches = batches(&[1, 2, 4, 4], 2);
    let made = quantised(&graph, &batches);
    let want = interpret::run(&graph, &batches[0]).unwrap();
    let have = interpret::run(&made, &batches[0]).unwrap();
    let error = relative_error(&want, &have);
    assert!(error < 0.02, "{error}");
}

/// The network with channels of one convolution scaled apart, and the next scaled back.
fn stressed() -> Graph {
    let mut graph = network();
    let find = |graph: &Graph, name: &str| graph.find_value(name).unwrap();
    for (name, stride, invert) in [("w3", 9, false), ("w4", 1, true)] {
        let id = find(&graph, name);
        let tensor = graph.constant(id).unwrap().clone();
        let factor = |i: usize| 10f64.powf(((i / stride % 16) as f64 - 7.5) / 7.5 * 1.5);
        let scale = |(i, v): (usize, f64)| v * if invert { 1.0 / factor(i) } else { factor(i) };
        let values: Vec<f64> = tensor.to_f64_vec().into_iter().enumerate().map(scale).collect();
        graph
            .set_constant(id, Tensor::from_f64_slice(DType::F32, tensor.shape(), &values).unwrap());
    }
    graph
}

#[test]
fn equalisation_keeps_the_function_and_repairs_scales() {
    // Without the clip at 6, which does not commute with scaling.
    let mut graph = stressed();
    for id in graph.order() {
        let inputs = graph.node(id).inputs.clone();
        if graph.node(id).outputs[0] == graph.find_value("e") {
            let relu = lepton_ir::ops::unary::UnaryFunction::Relu;
            graph.rewrite_node(id, lepton_ir::ops::unary::Unary::new(relu), &inputs).unwrap();
        }
    }
    let batches = batches(&[2, 3, 12, 12], 6);
    let equal = equalize(&graph).unwrap();
    assert_ne!(equal, graph);
    let want = interpret::run(&graph, &batches[0]).unwrap();
    let same = interpret::run(&equal, &batches[0]).unwrap();
    assert!(relative_error(&want, &same) < 1e-5);
    let error = |graph: &Graph| {
        let ranges = ranges(graph, &batches, Calibration::MinMax);
        let options = QuantizeOptions { per_channel: false, ..QuantizeOptions::new(&ranges) };
        let made = quantize_static(graph, &options).unwrap();
        relative_error(&want, &interpret::run(&made, &batches[0]).unwrap())
    };
    let (naive, repaired) = (error(&graph), error(&equal));
    assert!(repaired < 0.5 * naive, "{naive} before, {repaired} after");
    assert_eq!(equalize(&graph).unwrap(), equal, "repeats");
}

#[test]
fn bias_correction_takes_out_the_mean_error() {
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 8));
    let ranges = ranges(&graph, &batches, Calibration::Percentile(97.0));
    let options = QuantizeOptions { per_channel: false, ..QuantizeOptions::new(&ranges) };
    let made = quantize_static(&graph, &options).unwrap();
    let corrected = bias_correction(&graph, &made, &batches).unwrap();
    let mean_error = |candidate: &Graph| {
        let mut sums = [0.0; 5];
        for batch in &batches {
            let want = interpret::run(&graph, batch).unwrap()[0].to_f64_vec();
            let have = interpret::run(candidate, batch).unwrap()[0].to_f64_vec();
            want.iter().zip(have).enumerate().for_each(|(i, (w, h))| sums[i % 5] += h - w);
        }
        sums.iter().map(|s| s.abs()).sum::<f64>()
    };
    let (before, after) = (mean_error(&made), mean_error(&corrected));
    assert!(after < 0.1 * before, "{before} before, {after} after");
    let refused = bias_correction(&graph, &made, &[]).unwrap_err();
    assert!(matches!(refused, CompressError::NoSamples { .. }));
}

#[test]
fn the_node_with_scattered_weights_is_the_most_sensitive() {
    let mut graph = network();
    // One weight of %w2 far above the rest of its channel leaves the others no steps.
    let id = graph.find_value("w2").unwrap();
    let tensor = graph.constant(id).unwrap().clone();
    let mut values = tensor.to_f64_vec();
    values.iter_mut().step_by(144).for_each(|v| *v = 60.0);
    graph.set_constant(id, Tensor::from_f64_slice(DType::F32, tensor.shape(), &values).unwrap());
    let batches = batches(&[2, 3, 12, 12], 3);
    let ranges = ranges(&graph, &batches, Calibration::MinMax);
    let mut seen = Vec::new();
    let found = sensitivity(&graph, &ranges, &batches, &mut |done, all| {
        seen.push((done, all));
        true
    })
    .unwrap();
    assert_eq!(seen.last(), Some(&(7, 7)));
    let names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, quantisable_nodes(&graph));
    assert!(found.iter().all(|(_, error)| *error > 0.0), "{found:?}");
}
