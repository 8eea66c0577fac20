//! TensorFlow Lite: every operator against its interpreter, through the reference interpreter.

mod cases;

use std::collections::BTreeSet;

use lepton_formats::{FormatError, tflite};
use lepton_ir::interpret;

#[test]
fn operators_give_what_the_interpreter_gives() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let all = cases::all();
    for (name, case) in &all {
        seen.extend(tflite::operators(&case.model).unwrap());
        let outcome = tflite::read(case.model.clone().into()).map_err(|e| e.to_string());
        let outcome = outcome.and_then(|graph| {
            let given = cases::operands(&graph, case);
            let outputs = interpret::run(&graph, &given).map_err(|e| e.to_string())?;
            cases::difference(case, &outputs).map_or(Ok(()), Err)
        });
        if let Err(why) = outcome {
            wrong.push(format!("{name}: {why}"));
        }
    }
    println!("{} cases, {} operators", all.len(), seen.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (name, _) in tflite::operator_names() {
        assert!(seen.contains(name), "{name} has no case");
    }
}

#[test]
fn bytes_of_the_delegate_are_met() {
    let all = cases::all();
    let named = all.iter().filter(|(name, _)| name.starts_with("delegate"));
    for (name, case) in named {
        let graph = tflite::read(case.model.clone().into()).unwrap();
        let outputs = interpret::run(&graph, &cases::operands(&graph, case)).unwrap();
        assert_eq!(outputs[0].to_i64_vec(), case.outputs[0].to_i64_vec(), "{name}");
    }
}

#[test]
fn the_manual_lists_every_operator() {
    let manual = include_str!("../../../../docs/tflite-support.md").replace('\n', " ");
    for (name, newest) in tflite::operator_names() {
        assert!(manual.contains(&format!(" {name} {newest}")), "{name} {newest}");
    }
}

#[test]
fn unknown_operators_are_all_named() {
    let all = cases::all();
    let mut model = all["abs"].model.clone();
    // The number of ABS, 101, is in the only operator code of the file, in both fields.
    let [old, new]: [u8; 2] = [101, 31];
    let places: Vec<usize> = (0..model.len()).filter(|&i| model[i] == old).collect();
    assert_eq!(places.len(), 2, "{places:?}");
    for place in places {
        model[place] = new;
    }
    match tflite::read(model.into()) {
        Err(FormatError::UnknownOperators(list)) => {
            assert_eq!(list[0].to_string(), "CALL (TFLite 1, node `0: y0`)");
        }
        other => panic!("{other:?}"),
    }
}
