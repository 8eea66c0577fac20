//! `lepton optimize` on the shipped example: repeatable, resumable after a kill, the same bits on
//! every instruction set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits").join(name)
}

/// The main job on the example with few samples, so that it takes seconds.
fn optimize(out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lepton"));
    command.arg("optimize").arg(example("digits.onnx")).arg("--data").arg(example("digits.toml"));
    command.args(["--calibration-samples", "64", "--tuning-samples", "128"]);
    command.args(["--latency-time", "50ms", "--seed", "7", "--json", "--out"]).arg(out);
    command
}

fn done(command: &mut Command) -> Output {
    let output = command.output().expect("the binary was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn candidates(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder.join("candidates"))
        .expect("the folder was made")
        .map(|entry| entry.expect("it can be listed").path())
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("it can be read"))
        })
        .collect();
    all.sort();
    all
}

/// The artefact without its section of measurements and the entries of the table after it, whose
/// offsets follow from that section's length.
fn without_measurements(bytes: &[u8]) -> Vec<u8> {
    let number =
        |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) as usize;
    // docs/artefact.md: a header of 32 bytes, entries of 40; measurements are the fourth.
    let entry = |index: usize| 32 + 40 * index;
    let (start, length) = (number(entry(3) + 8), number(entry(3) + 16));
    let weights = number(entry(4) + 8);
    let mut kept = bytes[..entry(3)].to_vec();
    kept.extend_from_slice(&bytes[entry(4) + 24..start]);
    assert!(start + length <= weights);
    kept.extend_from_slice(&bytes[weights..]);
    kept
}

#[test]
fn the_same_seed_gives_the_same_candidates_and_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a"), folder.path().join("b"));
    let report = done(&mut optimize(&first));
    done(&mut optimize(&second));
    let (a, b) = (candidates(&first), candidates(&second));
    assert!(a.len() >= 8, "{}", a.len());
    assert_eq!(a, b);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["schema"], "lepton.report/1");
    let chosen = report["chosen"].as_u64().expect("the goal can be met") as usize;
    let name = report["candidates"][chosen]["file"].as_str().unwrap();
    let best = std::fs::read(first.join("best.lepton")).unwrap();
    let plain = std::fs::read(first.join(name)).unwrap();
    assert_eq!(without_measurements(&best), without_measurements(&plain));
    let page = std::fs::read_to_string(first.join("report.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("https://"));
}

#[test]
fn a_killed_search_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let journal = out.join("journal.jsonl");
    let lines = || std::fs::read_to_string(&journal).unwrap_or_default();
    let mut child = optimize(&out).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while lines().lines().count() < 9 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        assert!(begun.elapsed() < Duration::from_secs(300), "no progress: {}", lines());
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = lines();
    let whole = &before[..before.rfind('\n').map_or(0, |at| at + 1)];
    assert!(whole.lines().count() >= 9);
    done(&mut optimize(&out));
    let after = lines();
    assert!(after.starts_with(whole), "finished steps stay as they were");
    let keys: Vec<String> = after
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["key"].to_string())
        .collect();
    let unique: BTreeSet<&String> = keys.iter().collect();
    assert_eq!(unique.len(), keys.len(), "no step was done twice");
    let fresh = folder.path().join("fresh");
    done(&mut optimize(&fresh));
    assert_eq!(candidates(&out), candidates(&fresh));
    let again = done(&mut optimize(&out));
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(told.contains("0 were done now"), "{told}");
}

#[test]
fn integer_results_are_the_same_bits_on_every_instruction_set() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    done(&mut optimize(&out));
    let model = out.join("candidates/int8-mse.lepton");
    let mut results = Vec::new();
    for isa in ["portable", "avx2", "avx512"] {
        for threads in ["1", "2"] {
            let made = folder.path().join(format!("{isa}-{threads}.npz"));
            let mut command = Command::new(env!("CARGO_BIN_EXE_lepton"));
            command.env("LEPTON_ISA", isa).arg("run").arg(&model);
            command.arg("--input").arg(images(folder.path())).arg("--output").arg(&made);
            done(command.args(["--threads", threads]));
            results.push(std::fs::read(&made).unwrap());
        }
    }
    assert!(results.iter().all(|result| *result == results[0]));
}

/// The test images as the model wants them.
fn images(folder: &Path) -> PathBuf {
    let path = folder.join("images.npz");
    let data = lepton::DataSet::open(&example("digits.toml"), &lepton::DataOptions::default());
    let rows = data.unwrap().split(lepton::Split::Test).unwrap();
    let batch = rows.batches(100).next().unwrap().unwrap();
    lepton::write_npz(&path, batch.inputs.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    path
}
