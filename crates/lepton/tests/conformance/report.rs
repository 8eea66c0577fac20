//! What a run of the cases says: the list of failures by reason, and the page of what is supported.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use lepton_formats::onnx;

use crate::Files;

/// Reasons that the error of a run does not say: the start of a case's name, and why.
const NOTES: &[(&str, &str)] = &[
    (
        "test_resize_downsample_scales_",
        "numbers differ: ONNX's reference keeps the unrounded extent of the result here; \
         ONNX Runtime and PyTorch give what Lepton gives",
    ),
    ("test_attention_", "numbers differ by one or two units in the last place of a 16-bit float"),
    (
        "test_dft_inverse",
        "numbers differ: ONNX's reference keeps a rounding error of 1.9e-7 where the exact result \
         is 0, which is what Lepton gives",
    ),
    ("test_bernoulli", "the result is random: any outcome of the right distribution is right"),
];

/// Why a case fails, without what differs from case to case.
fn reason(name: &str, why: &str) -> String {
    let note = NOTES.iter().find(|(start, _)| name.starts_with(start));
    if let Some((_, note)) = note.filter(|_| why.starts_with("WRONG: element")) {
        return note.to_string();
    }
    if why.starts_with("WRONG") {
        return "numbers differ".to_string();
    }
    // The name of a node says nothing.
    let mut parts = why.splitn(3, '`');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("node " | "RUN: node " | "tensor "), Some(_), Some(rest)) => {
            rest.trim_start_matches([':', ' ']).to_string()
        }
        _ => why.to_string(),
    }
}

/// The cases that fail, by reason: the reason of most cases first.
fn by_reason<'a>(
    outcomes: &BTreeMap<&'a str, Result<(), String>>,
) -> Vec<(String, BTreeSet<&'a str>)> {
    let mut groups: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (name, outcome) in outcomes {
        if let Err(why) = outcome {
            groups.entry(reason(name, why)).or_default().insert(name);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    groups
}

/// The text of `failures.txt`.
pub fn failures(outcomes: &BTreeMap<&str, Result<(), String>>) -> String {
    let mut text = String::from(
        "# Cases of ONNX's node tests that do not pass, under the reason. The list may only shrink.\n",
    );
    for (reason, names) in by_reason(outcomes) {
        writeln!(text, "\n# {reason}").unwrap();
        for name in names {
            writeln!(text, "{name}").unwrap();
        }
    }
    text
}

/// Cases of one operator.
#[derive(Default)]
struct Row {
    passed: usize,
    cases: usize,
    opsets: BTreeSet<i64>,
}

/// The operator a case is about, and its operator set. Cases of operators that are functions come
/// twice; the expanded one is about the same operator.
fn subject(cases: &BTreeMap<String, Files>, name: &str) -> Option<(String, i64)> {
    let plain = name.split("_expanded").next().unwrap_or(name);
    let model = |name: &str| cases.get(name)?.get("model.onnx").cloned();
    let own = onnx::operators(model(name)?.into()).ok()?;
    let about = model(plain).and_then(|bytes| onnx::operators(bytes.into()).ok());
    let (operators, _) = about.unwrap_or_else(|| own.clone());
    let operator = operators.iter().find(|operator| !operator.ends_with("Constant"))?;
    Some((operator.clone(), own.1))
}

/// The text of `docs/onnx-support.md`.
pub fn page(
    cases: &BTreeMap<String, Files>,
    outcomes: &BTreeMap<&str, Result<(), String>>,
) -> String {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (name, outcome) in outcomes {
        let (operator, opset) = subject(cases, name).unwrap_or(("other".into(), 0));
        let row = rows.entry(operator).or_default();
        row.cases += 1;
        row.passed += outcome.is_ok() as usize;
        row.opsets.insert(opset);
    }
    let passed = outcomes.values().filter(|outcome| outcome.is_ok()).count();
    let mut text = format!(
        "# ONNX operators\n\nThe official node cases of ONNX (release 1.23.2), run by the \
         reference interpreter: {passed} of {} pass. Sessions pass the same cases, with and \
         without optimisation, on every instruction set. `crates/lepton/tests/conformance` makes \
         this page and fails where it is out of date.\n\n\
         | operator | operator sets of the cases | passed | cases |\n|---|---|---:|---:|\n",
        outcomes.len()
    );
    for (operator, row) in rows {
        let opsets: Vec<String> = row.opsets.iter().map(i64::to_string).collect();
        let (opsets, Row { passed, cases, .. }) = (opsets.join(", "), row);
        writeln!(text, "| {operator} | {opsets} | {passed} | {cases} |").unwrap();
    }
    text.push_str("\n## What does not pass, and why\n\n");
    for (reason, names) in by_reason(outcomes) {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        writeln!(text, "- {reason} ({} cases): {}", names.len(), names.join(", ")).unwrap();
    }
    text
}
