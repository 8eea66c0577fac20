//! Weights of a model written to safetensors, taken again with `--weights`, and refused by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn lepton(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lepton")).args(arguments).output().expect("it was built")
}

fn succeeds(arguments: &[&Path]) {
    let output = lepton(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
}

#[test]
fn weights_are_written_taken_and_refused() {
    let digits =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/digits.onnx");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (weights, same) = (file("digits.safetensors"), file("same.onnx"));
    let word = Path::new;
    succeeds(&[word("convert"), &digits, word("-o"), &weights]);
    let from = [word("convert"), &digits, word("--weights"), &weights, word("-o"), &same];
    succeeds(&from);
    succeeds(&[word("check"), &same]);
    let again = file("again.safetensors");
    succeeds(&[word("convert"), &same, word("-o"), &again]);
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&weights).unwrap());
    // The header gets another name of the same length.
    let mut bytes = std::fs::read(&weights).unwrap();
    let at = bytes.windows(9).position(|part| part == b"{\"dtype\":").expect("a tensor");
    bytes[at - 3] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let output = lepton(&[word("check"), &digits, word("--weights"), &weights]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    for part in ["of the model is not in the file", "of the file is not in the model", "nearest"] {
        assert!(told.contains(part), "{told}");
    }
}
