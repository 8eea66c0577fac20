//! The official node cases of ONNX, by the reference interpreter.
//!
//! `failures.txt` lists every case that does not pass, under the reason; it may only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lepton_formats::{FormatError, NoExternalData, onnx};
use lepton_ir::{Graph, interpret};
use lepton_tensor::{DType, Tensor};

const ARCHIVE: &str = "conformance/onnx_1.23.2_node_tests_1884.tar.xz";
/// Those of ONNX's own runner of these cases.
const RELATIVE_TOLERANCE: f64 = 1e-3;
const ABSOLUTE_TOLERANCE: f64 = 1e-7;

/// The files of one case, by their path below it.
type Files = BTreeMap<String, Vec<u8>>;

fn archive() -> Option<Vec<u8>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let folder = std::env::var_os("LEPTON_ASSETS").map_or(beside, PathBuf::from);
    let Ok(bytes) = std::fs::read(folder.join(ARCHIVE)) else {
        println!("skipped: no assets");
        return None;
    };
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut bytes.as_slice(), &mut unpacked).unwrap();
    Some(unpacked)
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

/// The tensors `kind_0.pb`, `kind_1.pb`, … of a set of data.
fn tensors(files: &Files, set: usize, kind: &str) -> Result<Vec<Tensor>, String> {
    let name = |index: usize| format!("test_data_set_{set}/{kind}_{index}.pb");
    (0..)
        .map_while(|index| files.get(&name(index)))
        .map(|bytes| onnx::read_tensor(bytes.clone().into()).map_err(|error| error.to_string()))
        .collect()
}

fn compare(found: &Tensor, expected: &Tensor) -> Result<(), String> {
    if (found.dtype(), found.shape()) != (expected.dtype(), expected.shape()) {
        return Err(format!("WRONG: {found:?} for {expected:?}"));
    }
    for (i, (x, y)) in found.to_f64_vec().into_iter().zip(expected.to_f64_vec()).enumerate() {
        let close = (x - y).abs() <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * y.abs();
        if !(close || x == y || x.is_nan() && y.is_nan()) {
            return Err(format!("WRONG: element {i} is {x} for {y}"));
        }
    }
    Ok(())
}

/// Axes, shapes, lengths: what Lepton must know before it runs.
fn decides_shapes(tensor: &Tensor) -> bool {
    tensor.dtype() == DType::I64 && tensor.rank() <= 1 || tensor.len() == 1
}

/// The graph, and whether operands that decide shapes were fixed, which is tried second.
fn read(files: &Files) -> Result<(Graph, bool), String> {
    let model = Bytes::from(files.get("model.onnx").ok_or("no model")?.clone());
    let error = match onnx::read(model.clone(), &NoExternalData) {
        Ok(graph) => return Ok((graph, false)),
        Err(FormatError::UnknownOperators(list)) => {
            let names: Vec<String> = list.into_iter().map(|u| u.operator).collect();
            return Err(format!("operator {}", names.join(", ")));
        }
        Err(error) => error.to_string(),
    };
    if !error.contains("be a constant") {
        return Err(error);
    }
    let names = onnx::input_names(model.clone()).map_err(|error| error.to_string())?;
    let given = tensors(files, 0, "input")?;
    let fixed = names.into_iter().zip(given).filter(|(_, tensor)| decides_shapes(tensor)).collect();
    let fixed = onnx::Fixed { tensors: fixed, ..onnx::Fixed::default() };
    let graph = onnx::read_fixed(model, &NoExternalData, &fixed);
    graph.map(|graph| (graph, true)).map_err(|error| error.to_string())
}

fn run(files: &Files) -> Result<(), String> {
    let (graph, fixed) = read(files)?;
    let mut sets = 0;
    while files.contains_key(&format!("test_data_set_{sets}/output_0.pb")) {
        let mut given = tensors(files, sets, "input")?;
        if fixed {
            given.retain(|tensor| !decides_shapes(tensor));
        }
        let found = interpret::run(&graph, &given).map_err(|error| format!("RUN: {error}"))?;
        let expected = tensors(files, sets, "output")?;
        if found.len() != expected.len() {
            return Err(format!("WRONG: {} results for {}", found.len(), expected.len()));
        }
        found.iter().zip(&expected).try_for_each(|(x, y)| compare(x, y))?;
        sets += 1;
    }
    if sets > 0 { Ok(()) } else { Err("no data".into()) }
}

/// The cases that are known to fail.
fn listed() -> BTreeSet<&'static str> {
    let lines = include_str!("failures.txt").lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn the_cases_that_fail_are_the_listed_ones() {
    let Some(archive) = archive() else { return };
    let cases = cases(&archive);
    let listed = listed();
    let (mut news, mut passed) = (Vec::new(), 0);
    for (name, files) in &cases {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(files)))
            .unwrap_or_else(|_| Err("PANIC".to_string()));
        passed += outcome.is_ok() as usize;
        match (outcome, listed.contains(name.as_str())) {
            (Ok(()), true) => news.push(format!("{name} passes now: take it off the list")),
            (Err(why), false) => news.push(format!("{name}: {why}")),
            _ => {}
        }
    }
    println!("{passed} of {} cases pass", cases.len());
    let gone = listed.iter().filter(|name| !cases.contains_key(**name));
    news.extend(gone.map(|name| format!("{name} is listed, but there is no such case")));
    assert!(news.is_empty(), "{} cases:\n{}", news.len(), news.join("\n"));
}
