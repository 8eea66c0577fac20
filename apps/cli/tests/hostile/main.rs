//! Files of 100 MB that were made to cost far more than they hold are refused within a second and
//! 200 MB, the bytes of the file that were read among them.

#![cfg(target_os = "linux")]

mod artefact;
mod flat;
mod onnx;
mod parts;

use std::io::BufWriter;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes of each file.
const SIZE: usize = 100_000_000;
const LONGEST: Duration = Duration::from_secs(1);
const MEMORY_KB: usize = 200_000;

/// What a process took.
struct Taken {
    code: Option<i32>,
    told: String,
    /// Processor time: other processes do not count.
    time: Duration,
    /// The most memory that was resident at once.
    memory_kb: usize,
}

/// The number after `name` in the `status` file of a process.
fn status_kb(text: &str, name: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|words| words.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Processor time from the `stat` file of a process, in ticks of 10 ms.
fn processor_time(text: &str) -> Duration {
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|v| v.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Runs the program and looks at it every half millisecond.
fn taken(arguments: &[&str], folder: &Path) -> Taken {
    let told = folder.join("told");
    let mut child = Command::new(env!("CARGO_BIN_EXE_lepton"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&told).unwrap())
        .spawn()
        .expect("it was built");
    let process = Path::new("/proc").join(child.id().to_string());
    let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
    let (mut memory_kb, mut time) = (0, Duration::ZERO);
    while child.try_wait().unwrap().is_none() {
        memory_kb = memory_kb.max(status_kb(&read("status"), "VmHWM:"));
        time = time.max(processor_time(&read("stat")));
        if time > 10 * LONGEST {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let code = child.wait().unwrap().code();
    let told = std::fs::read(told).unwrap();
    Taken { code, told: String::from_utf8_lossy(&told).into_owned(), time, memory_kb }
}

/// Writes each file, checks it, and tells what that took; those that took too much are an error.
fn all_are_refused(kinds: Vec<(&'static str, parts::Parts)>, extension: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("hostile.{extension}"));
    let wanted = std::env::var("LEPTON_HOSTILE").unwrap_or_default();
    let mut bad = Vec::new();
    for (name, parts) in kinds.iter().filter(|(name, _)| name.contains(&wanted)) {
        let mut file = BufWriter::new(std::fs::File::create(&path).unwrap());
        parts::write(parts, &mut file).unwrap();
        drop(file);
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/digits.onnx");
        let taken = match extension {
            "safetensors" => {
                refused(&["check", text(&model), "--weights", text(&path)], name, folder.path())
            }
            _ => refused(&["check", text(&path)], name, folder.path()),
        };
        bad.extend(taken.err());
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn refused(arguments: &[&str], name: &str, folder: &Path) -> Result<(), String> {
    let taken = taken(arguments, folder);
    let told = taken.told.lines().next().unwrap_or_default();
    let told: String = told.chars().take(120).collect();
    let row = format!("{name}: {:?}, {} MB: {told}", taken.time, taken.memory_kb / 1000);
    println!("{row}");
    let refused = matches!(taken.code, Some(1 | 3 | 5)) && !taken.told.contains("panicked");
    let within = taken.time <= LONGEST && taken.memory_kb <= MEMORY_KB;
    if refused && within && taken.told.len() < 20_000 { Ok(()) } else { Err(row) }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the bounds are those of a release build")]
fn onnx_files() {
    all_are_refused(onnx::kinds(SIZE), "onnx");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the bounds are those of a release build")]
fn tflite_files() {
    all_are_refused(flat::kinds(SIZE), "tflite");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the bounds are those of a release build")]
fn artefacts() {
    all_are_refused(artefact::kinds(SIZE), "lepton");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the bounds are those of a release build")]
fn weights() {
    all_are_refused(artefact::weights(SIZE), "safetensors");
}
