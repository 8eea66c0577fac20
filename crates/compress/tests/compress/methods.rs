//! The list of methods, recipes, and the methods that need no samples.

use lepton_compress::{
    CompressError, Context, Kind, METHODS, ParameterValue as V, Parameters, Recipe, Sensitivities,
    fingerprint, method, quantize_dynamic, simplified, to_bf16,
};
use lepton_ir::{Op, interpret};
use lepton_tensor::DType;

use crate::graphs::{batches, network, relative_error};

#[test]
fn every_method_applies_with_its_defaults_and_repeats() {
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 3));
    let want = interpret::run(&graph, &batches[0]).unwrap();
    for method in METHODS {
        let none = Parameters::new();
        let made = method.apply(&graph, &none, &Context::new(&batches)).unwrap();
        let again = method.apply(&graph, &none, &Context::new(&batches)).unwrap();
        assert_eq!(made, again, "{}", method.name);
        assert_eq!(fingerprint(&made), fingerprint(&again));
        assert!(made.constant_bytes() < graph.constant_bytes() * 3 / 5, "{}", method.name);
        let error = relative_error(&want, &interpret::run(&made, &batches[0]).unwrap());
        assert!(error > 0.0 && error < 0.05, "{}: {error}", method.name);
        let empty = method.apply(&graph, &none, &Context::new(&[]));
        assert_eq!(empty.is_err(), method.needs.samples, "{}", method.name);
    }
}

#[test]
fn every_grid_value_is_accepted() {
    let (graph, batches) = (network(), batches(&[1, 3, 12, 12], 2));
    let context = Context::new(&batches);
    for method in METHODS {
        for parameter in method.params {
            for value in parameter.grid() {
                let chosen = Parameters::new().with(parameter.name, value);
                method.apply(&graph, &chosen, &context).unwrap();
            }
            if let Kind::Count { max, .. } = parameter.kind {
                let chosen = Parameters::new().with(parameter.name, V::Count(max + 1));
                let refused = method.apply(&graph, &chosen, &context).unwrap_err();
                assert!(matches!(refused, CompressError::Parameter { .. }), "{refused}");
            }
        }
        let unknown = Parameters::new().with("colour", V::Flag(true));
        let refused = method.apply(&graph, &unknown, &context).unwrap_err();
        assert!(refused.to_string().contains("colour"), "{refused}");
    }
}

#[test]
fn recipes_survive_json_and_replay() {
    let chosen = Parameters::new()
        .with("calibration", V::Word("percentile".into()))
        .with("percentile", V::Number(99.5))
        .with("keep", V::Count(2))
        .with("bias_correction", V::Flag(true));
    let recipe = Recipe::new().then("static-int8", chosen);
    let text = serde_json::to_string(&recipe).unwrap();
    let read: Recipe = serde_json::from_str(&text).unwrap();
    assert_eq!(read, recipe);
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 2));
    let made = recipe.apply(&graph, &Context::new(&batches)).unwrap();
    assert_eq!(made, read.apply(&graph, &Context::new(&batches)).unwrap());
    let float = made.nodes().filter(|(_, n)| matches!(n.op, Op::Conv(_) | Op::Gemm(_)));
    let float = float.filter(|(_, n)| made.constant(n.inputs[1].unwrap()).is_some());
    assert_eq!(float.count(), 2, "two layers are kept");
    let missing = Recipe::new().then("shrink", Parameters::new());
    let refused = missing.apply(&graph, &Context::new(&batches)).unwrap_err();
    assert!(refused.to_string().contains("static-int8"), "{refused}");
    assert_eq!(Recipe::new().apply(&graph, &Context::new(&[])).unwrap(), graph);
}

#[test]
fn what_is_provided_is_used() {
    let (graph, batches) = (network(), batches(&[2, 3, 12, 12], 2));
    let seen = Context::new(&batches).observations(&graph).unwrap();
    let context = Context::new(&[]);
    context.provide_observations(fingerprint(&graph), seen.as_ref().clone());
    let nodes = lepton_compress::quantisable_nodes(&graph);
    let errors = nodes.iter().enumerate().map(|(i, name)| (name.clone(), i as f64)).collect();
    context.provide_sensitivities(fingerprint(&graph), Sensitivities { nodes: errors });
    let chosen = Parameters::new().with("keep", V::Count(1));
    let made = method("static-int8").unwrap().apply(&graph, &chosen, &context).unwrap();
    let gemm = made.nodes().find(|(_, n)| matches!(n.op, Op::Gemm(_))).unwrap().1;
    assert_eq!(made.constant(gemm.inputs[1].unwrap()).unwrap().dtype(), DType::F32);
}

#[test]
fn weights_change_their_storage() {
    let graph = simplified(&network()).unwrap();
    let weights = |graph: &lepton_ir::Graph, dtype: DType| {
        let constants = graph.constants();
        constants.iter().filter(|id| graph.fact(**id).dtype == dtype).count()
    };
    let short = to_bf16(&graph).unwrap();
    assert_eq!(weights(&short, DType::BF16), 7);
    let dynamic = quantize_dynamic(&graph).unwrap();
    assert_eq!(weights(&dynamic, DType::I8), 7);
    let float = |op: &Op| matches!(op, Op::Conv(_) | Op::Linear(_) | Op::Gemm(_) | Op::MatMul(_));
    assert_eq!(dynamic.nodes().filter(|(_, n)| float(&n.op)).count(), 0);
}

#[test]
fn weights_on_a_grid_keep_their_values() {
    let graph = network();
    let none = Parameters::new();
    let exact = Parameters::new().with("exact", V::Flag(true));
    let method = method("weight-int8").unwrap();
    let untouched = method.apply(&graph, &exact, &Context::new(&[])).unwrap();
    assert!(untouched.nodes().all(|(_, node)| !matches!(node.op, Op::DequantizeLinear(_))));
    let rounded = method.apply(&graph, &none, &Context::new(&[])).unwrap();
    let mut on_grid = rounded.clone();
    for id in on_grid.order() {
        let node = on_grid.node(id).clone();
        let Op::DequantizeLinear(op) = &node.op else { continue };
        let constants: Vec<_> = node.inputs.iter().map(|x| on_grid.constant(x.unwrap())).collect();
        let operands = lepton_ir::Operands(&constants);
        let mut real = lepton_ir::Operator::eval(op, operands).unwrap().remove(0);
        // A channel without any weight is on every grid.
        if op.axis == 0 {
            let row = real.len() / real.shape()[0];
            real.as_mut_slice::<f32>().unwrap()[..row].fill(0.0);
        }
        let constant = on_grid.add_constant("", real);
        on_grid.replace_uses(node.outputs[0].unwrap(), constant);
        on_grid.remove_node(id);
    }
    let again = method.apply(&on_grid, &exact, &Context::new(&[])).unwrap();
    let batch = &batches(&[2, 3, 12, 12], 1)[0];
    let want = interpret::run(&on_grid, batch).unwrap();
    let error = relative_error(&want, &interpret::run(&again, batch).unwrap());
    assert!(error < 1e-6, "{error}");
    assert!(again.constant_bytes() < graph.constant_bytes() * 3 / 5);
}
