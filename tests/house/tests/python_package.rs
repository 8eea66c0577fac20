//! The tests of the Python package, `bindings/python/test.sh`, where `LEPTON_PYTHON_TESTS` is 1 or `CI` is
//! true: the script builds the wheel, makes virtual environments from PyPI and takes minutes.

use std::path::Path;
use std::process::Command;

#[test]
fn the_python_package() {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if !is("LEPTON_PYTHON_TESTS", "1") && !is("CI", "true") {
        println!("skipped: LEPTON_PYTHON_TESTS is not 1");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bindings/python/test.sh");
    let status = Command::new("bash").arg(script).args(["-q", "--durations=10"]).status();
    let status = status.expect("bash starts");
    assert!(status.success(), "the tests of the Python package failed: {status}");
}
