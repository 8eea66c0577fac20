//! The other official cases: those beside the node cases in ONNX's Python package, as folders;
//! and cases of other domains from ONNX Runtime.
//!
//! `LEPTON_ONNX_DATA` points to `onnx/backend/test/data` of that package.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lepton::{Isa, Lowering};
use lepton_formats::{NoExternalData, onnx};
use lepton_tensor::Tensor;

use crate::{Files, Way, only_elsewhere, outcomes, unpacked};

/// The folders of cases.
const KINDS: &[&str] = &["simple", "pytorch-converted", "pytorch-operator"];
/// Whole networks, whose weights are constants or made by nodes.
const NETWORKS: &str = "light";

fn files_below(folder: &Path, prefix: &str, files: &mut Files) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            files_below(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

fn cases(folder: &Path) -> BTreeMap<String, Files> {
    let mut cases = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let mut files = Files::new();
            files_below(&path, "", &mut files);
            cases.insert(path.file_name().unwrap().to_string_lossy().into_owned(), files);
        }
    }
    cases
}

#[test]
fn the_cases_in_folders_pass() {
    let Some(root) = std::env::var_os("LEPTON_ONNX_DATA").map(PathBuf::from) else {
        println!("skipped: LEPTON_ONNX_DATA is not set");
        return;
    };
    let mut unexpected = Vec::new();
    for kind in KINDS {
        let cases = cases(&root.join(kind));
        let interpreted = outcomes(&cases, Way::Interpreter);
        let failure = |(name, outcome): (&&str, &Result<(), String>)| {
            Some(format!("{name}: {}", outcome.as_ref().err()?))
        };
        let failed: Vec<String> = interpreted.iter().filter_map(failure).collect();
        unexpected.extend(only_elsewhere(&cases, &interpreted));
        println!("{kind}: {} of {} cases pass", cases.len() - failed.len(), cases.len());
        unexpected.extend(failed);
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

/// What ONNX's runner feeds to whole networks: `0, 1/n, 2/n, …`.
fn counting(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| i as f32 / count as f32).collect();
    Tensor::from_slice(shape, &values).unwrap()
}

/// Runs a network on those inputs and compares with the results beside it.
fn run_network(path: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).unwrap();
    let graph = onnx::read(bytes.into(), &NoExternalData).map_err(|error| error.to_string())?;
    let inputs: Vec<Tensor> =
        graph.input_specs().iter().map(|(_, fact)| counting(&fact.shape().unwrap())).collect();
    let found = Way::Session(Isa::best(), Lowering::Full).run(&graph, &inputs)?;
    for (index, found) in found.iter().enumerate() {
        let name = path.file_stem().unwrap().to_string_lossy();
        let beside = path.with_file_name(format!("{name}_output_{index}.pb"));
        let expected = onnx::read_tensor(std::fs::read(beside).unwrap().into()).unwrap();
        crate::compare(found, &expected)?;
    }
    Ok(())
}

#[test]
fn whole_networks_give_their_numbers() {
    let Some(root) = std::env::var_os("LEPTON_ONNX_DATA").map(PathBuf::from) else {
        println!("skipped: LEPTON_ONNX_DATA is not set");
        return;
    };
    let (mut failed, mut count) = (Vec::new(), 0);
    for entry in std::fs::read_dir(root.join(NETWORKS)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            count += 1;
            let error = run_network(&path).err();
            failed.extend(error.map(|why| format!("{}: {why}", path.display())));
        }
    }
    println!("{NETWORKS}: {} of {count} networks pass", count - failed.len());
    assert!(failed.is_empty() && count > 0, "{}", failed.join("\n"));
}

/// Operators of other domains: `make_runtime_cases.py` says how the numbers were made.
#[test]
fn other_domains_give_what_onnx_runtime_gives() {
    let cases = crate::cases(&unpacked(include_bytes!("runtime_cases.tar.xz")));
    let outcomes = outcomes(&cases, Way::Interpreter);
    let elsewhere = only_elsewhere(&cases, &outcomes);
    assert!(elsewhere.is_empty(), "{}", elsewhere.join("\n"));
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
    assert!(failed.is_empty() && cases.len() >= 134, "of {}: {failed:#?}", cases.len());
}
