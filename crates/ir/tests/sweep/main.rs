//! One sweep over all operators: inference against evaluation, gradients against finite
//! differences, and the text form there and back.

mod cases;
mod more;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cases::Case;
use lepton_ir::{Backward, Dim, Fact, Graph, Op, Operands, Stops, ValueId, interpret, text};
use lepton_tensor::{DType, Tensor};

/// Runs `check` on every case and reports all that fail.
fn for_every_case(check: impl Fn(&Case)) {
    let mut failed = Vec::new();
    for case in cases::all() {
        if catch_unwind(AssertUnwindSafe(|| check(&case))).is_err() {
            failed.push(format!("{} {:?}", case.op, case.op.attributes()));
        }
    }
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

fn eval(case: &Case) -> Vec<Tensor> {
    let operands: Vec<Option<&Tensor>> = case.inputs.iter().map(Option::as_ref).collect();
    case.op.eval(Operands(&operands)).unwrap()
}

fn infer(case: &Case, facts: &[Option<Fact>]) -> Vec<Fact> {
    let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
    case.op.infer(Operands(&facts)).unwrap()
}

/// The facts of the operands: numbers are values that vary, integers and truths are constants.
fn facts(case: &Case) -> Vec<Option<Fact>> {
    let fact = |tensor: &Tensor| {
        if tensor.dtype().is_float() {
            Fact::dense(tensor.dtype(), tensor.shape())
        } else {
            Fact::of(tensor)
        }
    };
    case.inputs.iter().map(|tensor| tensor.as_ref().map(fact)).collect()
}

#[test]
fn every_operator_has_a_case() {
    let cases = cases::all();
    let missing: Vec<&str> = Op::NAMES
        .iter()
        .copied()
        .filter(|name| !cases.iter().any(|case| case.op.name() == *name))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn inference_agrees_with_evaluation() {
    for_every_case(|case| {
        let made = eval(case);
        // With every operand known the shapes are; with numbers that vary (scales, bounds of a
        // range) an extent may be unknown, but what is known holds.
        let constants: Vec<Option<Fact>> =
            case.inputs.iter().map(|tensor| tensor.as_ref().map(Fact::of)).collect();
        // What is inside a graph, an image or strings is not looked at.
        let hidden = ["If", "Loop", "ImageDecoder", "StringSplit", "Tokenizer"];
        let hidden = hidden.contains(&case.op.name());
        for (operands, all_known) in [(constants, !hidden), (facts(case), false)] {
            let inferred = infer(case, &operands);
            assert_eq!(made.len(), inferred.len());
            for (tensor, fact) in made.iter().zip(&inferred) {
                assert_eq!(tensor.dtype(), fact.dtype);
                assert_eq!(tensor.rank(), fact.rank());
                assert!(!all_known || fact.shape().is_some(), "{fact}");
                for (dim, &extent) in fact.dims.iter().zip(tensor.shape()) {
                    assert!(dim.is_unknown() || *dim == Dim::from(extent), "{fact}");
                }
                if let Some(values) = fact.known_integers() {
                    assert_eq!(tensor.to_i64_vec(), values);
                }
            }
        }
    });
}

#[test]
fn symbolic_inference_binds_to_the_same_extents() {
    for_every_case(|case| {
        let mut symbolic = facts(case);
        let Some(Some(first)) = symbolic.first_mut() else { return };
        let Some(extent) = first.dims.first().cloned() else { return };
        if !first.dtype.is_float() || extent.is(1) {
            return;
        }
        first.dims[0] = Dim::symbol("n");
        let bindings = lepton_ir::dim::Bindings::from([("n".into(), extent.as_known().unwrap())]);
        for (tensor, fact) in eval(case).iter().zip(infer(case, &symbolic)) {
            assert_eq!(fact.rank(), tensor.rank());
            for (dim, &extent) in fact.dims.iter().zip(tensor.shape()) {
                if !dim.is_unknown() {
                    assert_eq!(dim.bind(&bindings), Dim::from(extent), "{fact}");
                }
            }
        }
    });
}

/// The case as a graph: numbers are inputs, the rest constants.
fn graph_of(case: &Case) -> (Graph, Vec<Option<ValueId>>, Vec<ValueId>) {
    let mut graph = Graph::new("case");
    let mut operands = Vec::new();
    for (i, tensor) in case.inputs.iter().enumerate() {
        operands.push(tensor.as_ref().map(|tensor| {
            if tensor.dtype().is_float() {
                graph.add_input(format!("x{i}"), Fact::dense(tensor.dtype(), tensor.shape()))
            } else {
                graph.add_constant(format!("k{i}"), tensor.clone())
            }
        }));
    }
    let made = graph.add_node("", case.op.clone(), &operands).unwrap();
    for (i, &id) in made.iter().enumerate() {
        graph.set_value_name(id, format!("y{i}"));
    }
    graph.set_outputs(made.clone());
    (graph, operands, made)
}

#[test]
fn the_text_form_is_there_and_back() {
    for_every_case(|case| {
        let graph = graph_of(case).0;
        let printed = text::print(&graph);
        let parsed = text::parse(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(text::print(&parsed), printed);
        let (_, node) = parsed.nodes().next().unwrap();
        assert_eq!(node.op, case.op);
    });
}

/// `Σ y·weight` for operands that replace those of the case.
fn loss(case: &Case, inputs: &[Option<Tensor>], weights: &[f64]) -> f64 {
    let operands: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
    let made = case.op.eval(Operands(&operands)).unwrap();
    made[0].to_f64_vec().iter().zip(weights).map(|(y, w)| y * w).sum()
}

fn numeric_gradient(case: &Case, operand: usize, weights: &[f64]) -> Vec<f64> {
    const STEP: f64 = 1e-6;
    let tensor = case.inputs[operand].as_ref().unwrap();
    let moved = |element: usize, by: f64| {
        let mut inputs = case.inputs.clone();
        let mut tensor = tensor.clone();
        tensor.as_mut_slice::<f64>().unwrap()[element] += by;
        inputs[operand] = Some(tensor);
        loss(case, &inputs, weights)
    };
    (0..tensor.len()).map(|i| (moved(i, STEP) - moved(i, -STEP)) / (2.0 * STEP)).collect()
}

#[test]
fn gradients_agree_with_finite_differences() {
    let differentiated = std::cell::RefCell::new(std::collections::BTreeSet::new());
    for_every_case(|case| {
        let is_f64 = |t: &Tensor| t.dtype() == DType::F64 || !t.dtype().is_float();
        let made = eval(case);
        if made[0].dtype() != DType::F64 || !case.inputs.iter().flatten().all(is_f64) {
            return;
        }
        let (mut graph, operands, outputs) = graph_of(case);
        let weights: Vec<f64> = (0..made[0].len()).map(|i| 0.4 + (i % 5) as f64 * 0.3).collect();
        let weight = Tensor::from_slice(made[0].shape(), &weights).unwrap();
        let mut output_grads = vec![None; outputs.len()];
        output_grads[0] = Some(graph.add_constant("dy", weight));
        let outputs: Vec<Option<ValueId>> = outputs.into_iter().map(Some).collect();
        let mut backward = Backward {
            graph: &mut graph,
            inputs: &operands,
            outputs: &outputs,
            output_grads: &output_grads,
        };
        let grads = match case.op.operator().grad(&mut backward) {
            Ok(grads) => grads,
            Err(Stops::Because(_)) => return,
            Err(broken) => panic!("{broken:?}"),
        };
        assert_eq!(grads.len(), operands.len());
        let inputs: Vec<Tensor> =
            case.inputs.iter().flatten().filter(|t| t.dtype().is_float()).cloned().collect();
        for (operand, grad) in grads.iter().enumerate() {
            let Some(grad) = grad else { continue };
            graph.set_outputs(vec![*grad]);
            let analytic = interpret::run(&graph, &inputs).unwrap().remove(0);
            assert_eq!(analytic.shape(), case.inputs[operand].as_ref().unwrap().shape());
            let numeric = numeric_gradient(case, operand, &weights);
            for (a, b) in analytic.to_f64_vec().iter().zip(&numeric) {
                let close = (a - b).abs() <= 1e-5 * (1.0 + a.abs().max(b.abs()));
                assert!(close, "{} operand {operand}: {a} but {b}", case.op);
            }
            differentiated.borrow_mut().insert(case.op.name());
        }
    });
    // The check must not pass because nothing was compared.
    let names = differentiated.into_inner();
    assert!(names.contains("Conv") && names.len() >= 25, "only {names:?} were compared");
}
