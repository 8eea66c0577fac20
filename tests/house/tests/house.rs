//! Holds the repository to the rules of the house.

use std::fs;
use std::process::Command;

use lepton_house::{Finding, RustFile, files, layers, names, root, rust_files, shape, unsafety};

fn none(findings: Vec<Finding>) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

fn hold(rule: impl Fn(&[RustFile]) -> Vec<Finding>) {
    let Some(files) = rust_files() else { return };
    assert!(files.len() > 10, "the repository has more than {} Rust files", files.len());
    none(rule(&files));
}

#[test]
fn arrows_point_down() {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let answer = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs these tests");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let metadata = serde_json::from_slice(&answer.stdout).expect("cargo answers in JSON");
    let manifest = |path: &str| fs::read_to_string(path).expect("cargo lists manifests");
    let packages = layers::packages(&metadata, manifest);
    let arrows: usize = packages.iter().map(|package| package.uses.len()).sum();
    assert!(packages.len() > 2 && arrows > 0, "{packages:?}");
    none(layers::check(&packages));
}

#[test]
fn files_are_short() {
    hold(shape::long_files);
}

#[test]
fn functions_are_short() {
    hold(shape::long_functions);
}

#[test]
fn files_say_what_lives_there() {
    hold(shape::unintroduced_files);
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    hold(unsafety::check);
}

#[test]
fn names_say_something() {
    hold(names::empty_names);
}

#[test]
fn no_file_names_a_machine() {
    let Some(files) = files() else { return };
    let read = |path: &String| {
        let bytes = fs::read(root().join(path)).expect("git lists files that exist");
        names::machine_paths(path, &bytes)
    };
    none(files.iter().flat_map(read).collect());
}
