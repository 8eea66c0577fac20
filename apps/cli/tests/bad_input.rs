//! Bad input gets a message that names the culprit and the documented exit code, and never a panic.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits").join(name)
}

fn lepton(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lepton")).args(arguments).output().expect("it was built")
}

/// Runs and checks exit code and message; nothing may be said of a panic.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = lepton(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert!(!told.contains("panicked"), "{told}");
    for word in words {
        assert!(told.contains(word), "{arguments:?}: no `{word}` in: {told}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

#[test]
fn models_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let (model, at) = (std::fs::read(example("digits.onnx")).unwrap(), folder.path());
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(at.join(name), bytes).unwrap();
        at.join(name)
    };
    refused(&["check", text(&at.join("absent.onnx"))], 1, &["absent.onnx", "No such file"]);
    refused(&["check", text(at)], 1, &["a directory"]);
    let near = write("model.onnx", &model).with_file_name("modle.onnx");
    refused(&["check", text(&near)], 1, &["No such file", "did you mean", "model.onnx"]);
    refused(&["check", text(&write("empty.onnx", b""))], 3, &["empty.onnx", "is empty"]);
    refused(&["check", text(&write("text.onnx", b"hello, world"))], 3, &["text.onnx"]);
    let half = write("half.onnx", &model[..model.len() / 2]);
    refused(&["check", text(&half)], 3, &["half.onnx"]);
    // An operator nobody knows, of the same length as the one in the file.
    let at = model.windows(7).position(|w| w == b"MaxPool").expect("the example pools");
    let mut unknown = model.clone();
    unknown[at..at + 7].copy_from_slice(b"MixPool");
    let unknown = write("unknown.onnx", &unknown);
    refused(&["check", text(&unknown)], 5, &["MixPool", "pool"]);
}

#[test]
fn files_of_other_programs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused_as = |name: &str, bytes: &[u8], words: &[&str]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        refused(&["inspect", text(&path)], 3, words);
    };
    refused_as("net.pt", b"PK\x03\x04..........archive/data.pkl", &["net.pt", "torch.onnx.export"]);
    refused_as("old.pth", b"\x80\x02}q\x00.", &["PyTorch", "torch.onnx.export"]);
    refused_as("net.keras", b"PK\x03\x04....metadata.json..config.json", &["Keras", "lepton_ai"]);
    refused_as("net.h5", b"\x89HDF\r\n\x1a\n....", &["Keras", "model.export"]);
    refused_as("graph.pb", b"\n\x10\n\x05input\x12\x0bPlaceholder", &["TensorFlow", "tf2onnx"]);
    refused_as("w.safetensors", b"\x40\0\0\0\0\0\0\0{\"a\":{}}", &["without a graph", "--weights"]);
    refused_as("in.npz", b"PK\x03\x04......features.npy", &["NumPy", "--input"]);
    refused_as("lfs.onnx", b"version https://git-lfs.github.com/spec/v1\n", &["git lfs pull"]);
    let saved = folder.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    std::fs::write(saved.join("saved_model.pb"), b"..").unwrap();
    refused(&["inspect", text(&saved)], 1, &["a directory", "TFLiteConverter"]);
}

#[test]
fn what_is_read_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (model, given) = (folder.path().join("m.onnx"), folder.path().join("in.npz"));
    std::fs::copy(example("digits.onnx"), &model).unwrap();
    npz(&given, &[("image", tensor(&[1, 1, 8, 8], 0.5))]);
    for output in [&model, &given] {
        let run = ["run", text(&model), "--input", text(&given), "--output", text(output)];
        refused(&run, 2, &["would be overwritten", "another name"]);
    }
    let bench = ["bench", text(&model), "--seconds", "0.01", "--output", text(&model)];
    refused(&bench, 2, &["would be overwritten"]);
    assert_eq!(std::fs::read(&model).unwrap(), std::fs::read(example("digits.onnx")).unwrap());
}

#[test]
fn flipped_bits_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let model = std::fs::read(example("digits.onnx")).unwrap();
    let path = folder.path().join("flipped.onnx");
    for step in 0..40usize {
        let mut flipped = model.clone();
        // Half of the flips hit the structure at both ends of the file.
        let at = match step % 4 {
            0 => step * 11,
            1 => model.len() - 1 - step * 5,
            _ => step * model.len() / 40,
        };
        flipped[at] ^= 1 << (step % 8);
        std::fs::write(&path, &flipped).unwrap();
        let output = lepton(&["check", text(&path)]);
        let told = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1 | 3 | 5)), "{at}: {code:?} {told}");
        assert!(!told.contains("panicked"), "{at}: {told}");
    }
}

#[test]
fn arguments_that_make_no_sense() {
    refused(&["optimise", "x"], 2, &["optimize"]);
    refused(&["check"], 2, &["MODEL"]);
    for threads in ["0", "100000", "two"] {
        refused(&["bench", "m.onnx", "--threads", threads], 2, &["--threads", "from 1 to 1024"]);
    }
    let model = example("digits.onnx");
    let data = example("digits.toml");
    let (model, data) = (text(&model), text(&data));
    refused(&["bench", model, "--dim", "batches=2"], 2, &["batches", "batch"]);
    let huge = ["bench", model, "--dim", "batch=100000000000"];
    refused(&huge, 2, &["image", "too large"]);
    refused(&["eval", model, "--data", data, "--metric", "top2"], 2, &["top2", "top1"]);
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out");
    let optimize = ["optimize", model, "--data", data, "--out", text(&out)];
    let with = |more: &[&'static str]| [&optimize[..], more].concat();
    refused(&with(&["--max-latency", "5"]), 2, &["2ms"]);
    refused(&with(&["--max-drop", "-1"]), 2, &["max-drop"]);
    refused(&with(&["--instance", "z9"]), 2, &["z9", "--prices"]);
    refused(&with(&["--target", "speed"]), 2, &["latency"]);
}

fn npz(path: &Path, arrays: &[(&str, lepton::Tensor)]) {
    lepton::write_npz(path, arrays.iter().map(|(name, t)| (*name, t))).unwrap();
}

fn tensor(shape: &[usize], value: f64) -> lepton::Tensor {
    let count = shape.iter().product();
    lepton::Tensor::from_f64_slice(lepton::DType::F32, shape.to_vec(), &vec![value; count]).unwrap()
}

#[test]
fn data_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let model = example("digits.onnx");
    let (model, given) = (text(&model), folder.path().join("in.npz"));
    let out = folder.path().join("out.npz");
    let run = ["run", model, "--input", text(&given), "--output", text(&out)];
    npz(&given, &[("picture", tensor(&[1, 1, 8, 8], 0.0))]);
    refused(&run, 2, &["image"]);
    npz(&given, &[("image", tensor(&[1, 1, 9, 8], 0.0))]);
    refused(&run, 2, &["image", "9"]);
    npz(&given, &[("image", tensor(&[40, 1, 8, 8], f64::NAN))]);
    let eval = ["eval", model, "--data", text(&given)];
    refused(&[&eval[..], &["--metric", "top1"]].concat(), 2, &["labels"]);
    let goal = folder.path().join("goal");
    let optimize = ["optimize", model, "--data", text(&given), "--out", text(&goal)];
    refused(&optimize, 1, &["NaN", "row"]);
    refused(&[&optimize[..], &["--metric", "top1"]].concat(), 2, &["labels"]);
}

#[test]
fn goals_that_cannot_be_met_exit_with_4_and_say_what_is_closest() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (example("digits.onnx"), example("digits.toml"));
    let output = lepton(&[
        "optimize",
        text(&model),
        "--data",
        text(&data),
        "--out",
        text(folder.path()),
        "--max-size",
        "1KB",
        "--tuning-samples",
        "64",
        "--calibration-samples",
        "32",
        "--latency-time",
        "10ms",
    ]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("the closest is") && told.contains("size"), "{told}");
    assert!(!folder.path().join("best.lepton").exists());
    assert!(folder.path().join("report.html").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn disks_that_are_full_and_folders_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (example("digits.onnx"), example("digits.toml"));
    let given = folder.path().join("in.npz");
    npz(&given, &[("image", tensor(&[1, 1, 8, 8], 0.5))]);
    let run = ["run", text(&model), "--input", text(&given), "--output", "/dev/full"];
    refused(&run, 1, &["/dev/full", "No space left"]);
    let optimize = ["optimize", text(&model), "--data", text(&data), "--out"];
    refused(&[&optimize[..], &["/proc/lepton"]].concat(), 1, &["/proc/lepton"]);
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    refused(&[&optimize[..], &[text(&file)]].concat(), 1, &["file"]);
    // A limit on the size of files stands for the full disk: writing beyond it fails.
    let out = folder.path().join("out");
    let limited = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "bash"])
        .arg(env!("CARGO_BIN_EXE_lepton"))
        .args(optimize)
        .arg(&out)
        .output()
        .expect("bash is there");
    let told = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert_eq!(limited.status.code(), Some(1), "{told}");
    assert!(told.contains("File too large") && told.contains("candidates"), "{told}");
    assert!(!out.join("candidates/f32-optimized.lepton").exists());
}
