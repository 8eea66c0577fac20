//! The official node cases of ONNX, in every way a graph can be run.
//!
//! `failures.txt` lists every case that does not pass, under the reason; it may only shrink.
//! `docs/onnx-support.md` is written from the same run.
#![allow(clippy::result_large_err)]

mod chance;
mod folders;
mod report;

use std::collections::BTreeMap;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lepton::{Isa, Lowering, Session, SessionOptions};
use lepton_formats::onnx::Slot;
use lepton_formats::{FormatError, NoExternalData, onnx};
use lepton_ir::{Graph, interpret};
use lepton_tensor::{DType, Tensor};

const ARCHIVE: &str = "conformance/onnx_1.23.2_node_tests_1884.tar.xz";
/// Those of ONNX's own runner of these cases.
const RELATIVE_TOLERANCE: f64 = 1e-3;
const ABSOLUTE_TOLERANCE: f64 = 1e-7;
/// That runner allows two units in the last place of the short type.
const TOLERANCE_OF_BF16: f64 = 1.0 / 64.0;

/// How a graph is run.
#[derive(Clone, Copy)]
enum Way {
    Interpreter,
    Session(Isa, Lowering),
}

impl Way {
    /// Every way on this machine, the interpreter first.
    fn all() -> Vec<Way> {
        let full = Isa::available().into_iter().map(|isa| Way::Session(isa, Lowering::Full));
        let plain = Way::Session(Isa::best(), Lowering::Plain);
        [Way::Interpreter].into_iter().chain(full).chain([plain]).collect()
    }

    fn name(self) -> String {
        match self {
            Way::Interpreter => "the interpreter".into(),
            Way::Session(isa, Lowering::Full) => format!("sessions on {}", isa.name()),
            Way::Session(isa, Lowering::Plain) => {
                format!("sessions on {} without optimisation", isa.name())
            }
        }
    }

    fn run(self, graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let Way::Session(isa, lowering) = self else {
            return interpret::run(graph, inputs).map_err(|error| format!("RUN: {error}"));
        };
        let options = SessionOptions { isa, lowering, ..SessionOptions::default() };
        let session = Session::new(graph, options);
        let found = session.and_then(|session| session.run(inputs));
        found.map_err(|error| format!("RUN: {error}"))
    }
}

/// The files of one case, by their path below it.
type Files = BTreeMap<String, Vec<u8>>;

fn archive() -> Option<Vec<u8>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or(beside, PathBuf::from);
    let Ok(bytes) = std::fs::read(folder.join(ARCHIVE)) else {
        println!("skipped: no assets");
        return None;
    };
    Some(unpacked(&bytes))
}

fn unpacked(mut bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut bytes, &mut unpacked).unwrap();
    unpacked
}

fn cases(archive: &[u8]) -> BTreeMap<String, Files> {
    let mut cases: BTreeMap<String, Files> = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut parts = path.splitn(3, '/').skip(1);
        let (Some(case), Some(file)) = (parts.next(), parts.next()) else { continue };
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            cases.entry(case.to_string()).or_default().insert(file.to_string(), bytes);
        }
    }
    cases
}

/// What the files `kind_0.pb`, `kind_1.pb`, … of a set of data give for each slot.
fn given(
    files: &Files,
    set: usize,
    kind: &str,
    slots: &[Slot],
) -> Result<Vec<Option<Vec<Tensor>>>, String> {
    let name = |index: usize| format!("test_data_set_{set}/{kind}_{index}.pb");
    let read = |(index, slot): (usize, &Slot)| {
        let bytes = files.get(&name(index)).cloned().ok_or("a file is missing")?;
        onnx::read_slot(slot, bytes.into()).map_err(|error| error.to_string())
    };
    slots.iter().enumerate().map(read).collect()
}

/// The tensors of a set, those of sequences one by one.
fn tensors(files: &Files, set: usize, kind: &str, slots: &[Slot]) -> Result<Vec<Tensor>, String> {
    Ok(given(files, set, kind, slots)?.into_iter().flatten().flatten().collect())
}

fn compare(found: &Tensor, expected: &Tensor) -> Result<(), String> {
    if (found.dtype(), found.shape()) != (expected.dtype(), expected.shape()) {
        return Err(format!("WRONG: {found:?} for {expected:?}"));
    }
    if expected.dtype() == DType::Str {
        let same = found == expected;
        return if same { Ok(()) } else { Err(format!("WRONG: {found:?} for {expected:?}")) };
    }
    let relative = match expected.dtype() {
        DType::BF16 => TOLERANCE_OF_BF16,
        _ => RELATIVE_TOLERANCE,
    };
    for (i, (x, y)) in found.to_f64_vec().into_iter().zip(expected.to_f64_vec()).enumerate() {
        let close = (x - y).abs() <= ABSOLUTE_TOLERANCE + relative * y.abs();
        if !(close || x == y || x.is_nan() && y.is_nan()) {
            return Err(format!("WRONG: element {i} is {x} for {y}"));
        }
    }
    Ok(())
}

/// Axes, shapes, lengths, scales: what Lepton must know before it runs.
fn decides_shapes(tensor: &Tensor) -> bool {
    let listed = tensor.dtype() == DType::I64 || tensor.len() <= 8;
    tensor.rank() <= 1 && listed || tensor.len() == 1
}

/// What is fixed about the lists among the inputs: how long they are, and the shapes in them.
fn lists(inputs: &[Slot], given: &[Option<Vec<Tensor>>]) -> onnx::Fixed {
    let mut fixed = onnx::Fixed::default();
    for (slot, value) in inputs.iter().zip(given).filter(|(s, _)| s.is_list || s.is_optional) {
        fixed.counts.insert(slot.name.clone(), value.as_ref().map(Vec::len));
        for (index, tensor) in value.iter().flatten().enumerate() {
            fixed.shapes.insert(format!("{}.{index}", slot.name), tensor.shape().to_vec());
        }
    }
    fixed
}

/// The graph, and what had to be fixed to read it: operands that decide shapes are tried second.
fn read(files: &Files, inputs: &[Slot]) -> Result<(Graph, onnx::Fixed), String> {
    let model = Bytes::from(files.get("model.onnx").ok_or("no model")?.clone());
    let given = given(files, 0, "input", inputs);
    let mut fixed = given.as_ref().map(|given| lists(inputs, given)).unwrap_or_default();
    let error = match onnx::read_fixed(model.clone(), &NoExternalData, &fixed) {
        Ok(graph) => return Ok((graph, fixed)),
        Err(FormatError::UnknownOperators(list)) => {
            let names: Vec<String> = list.into_iter().map(|u| u.operator).collect();
            return Err(format!("operator {}", names.join(", ")));
        }
        Err(error) => error.to_string(),
    };
    for (slot, value) in inputs.iter().zip(given.map_err(|_| error)?) {
        if let (false, Some([tensor])) = (slot.is_list, value.as_deref())
            && decides_shapes(tensor)
        {
            fixed.tensors.insert(slot.name.clone(), tensor.clone());
        }
    }
    let graph = onnx::read_fixed(model, &NoExternalData, &fixed);
    graph.map(|graph| (graph, fixed)).map_err(|error| error.to_string())
}

fn run(files: &Files, way: Way) -> Result<(), String> {
    let model = Bytes::from(files.get("model.onnx").ok_or("no model")?.clone());
    let [inputs, outputs] = onnx::slots(model).map_err(|error| error.to_string())?;
    let (graph, fixed) = read(files, &inputs)?;
    let mut sets = 0;
    while files.contains_key(&format!("test_data_set_{sets}/output_0.pb")) {
        let open = |slot: &Slot| !fixed.tensors.contains_key(&slot.name);
        let given = given(files, sets, "input", &inputs)?.into_iter().zip(&inputs);
        let given = given.filter(|(_, slot)| open(slot)).filter_map(|(value, _)| value);
        let given: Vec<Tensor> = given.flatten().collect();
        let found = way.run(&graph, &given)?;
        let expected = tensors(files, sets, "output", &outputs)?;
        if found.len() != expected.len() {
            return Err(format!("WRONG: {} results for {}", found.len(), expected.len()));
        }
        found.iter().zip(&expected).try_for_each(|(x, y)| compare(x, y))?;
        sets += 1;
    }
    if sets > 0 { Ok(()) } else { Err("no data".into()) }
}

/// Every case and what became of it.
fn outcomes(cases: &BTreeMap<String, Files>, way: Way) -> BTreeMap<&str, Result<(), String>> {
    let outcome = |files| {
        let panicked = |_| Err("PANIC".to_string());
        catch_unwind(AssertUnwindSafe(|| run(files, way))).unwrap_or_else(panicked)
    };
    cases.iter().map(|(name, files)| (name.as_str(), outcome(files))).collect()
}

/// The cases that pass in the interpreter and not in another way.
fn only_elsewhere(
    cases: &BTreeMap<String, Files>,
    interpreted: &BTreeMap<&str, Result<(), String>>,
) -> Vec<String> {
    let mut failed = Vec::new();
    for way in &Way::all()[1..] {
        let outcomes = outcomes(cases, *way);
        let passed = outcomes.values().filter(|outcome| outcome.is_ok()).count();
        println!("{passed} of {} cases pass with {}", cases.len(), way.name());
        failed.extend(outcomes.into_iter().filter_map(|(name, outcome)| {
            let why = outcome.err().filter(|_| interpreted[name].is_ok())?;
            Some(format!("{name} with {}: {why}", way.name()))
        }));
    }
    failed
}

/// The list of failures and the page of what is supported are those of this run. Where
/// `LEPTON_BLESS` is set they are written instead.
#[test]
fn the_cases_that_fail_are_the_listed_ones() {
    let Some(archive) = archive() else { return };
    let cases = cases(&archive);
    let outcomes = outcomes(&cases, Way::Interpreter);
    let passed = outcomes.values().filter(|outcome| outcome.is_ok()).count();
    println!("{passed} of {} cases pass", cases.len());
    let others = only_elsewhere(&cases, &outcomes);
    assert!(others.is_empty(), "{}", others.join("\n"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = root.join("tests/conformance/failures.txt");
    let page = root.join("../../docs/onnx-support.md");
    let texts = [(list, report::failures(&outcomes)), (page, report::page(&cases, &outcomes))];
    for (path, text) in texts {
        if std::env::var_os("LEPTON_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let differ = |(a, b): &(&str, &str)| a != b;
        let first = found.lines().zip(text.lines()).find(differ);
        let same = found == text;
        let name = path.file_name().unwrap();
        assert!(same, "{name:?} is not of this run (LEPTON_BLESS=1 writes it): {first:?}");
    }
}
