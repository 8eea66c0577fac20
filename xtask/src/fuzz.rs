//! Coverage-guided fuzzing with libFuzzer on the stable compiler: the crate in `fuzz/` is built with
//! the instrumentation libFuzzer reads, in a target folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const TARGETS: &[&str] = &["onnx", "tflite", "lepton", "safetensors", "graph"];

const SECONDS: &str = "60";

/// Most bytes of a kept file, and most bytes of memory in MB before a run is a finding.
const LONGEST_FILE: usize = 4096;
const MEMORY_MB: usize = 2048;

/// Flags of the compiler for coverage counters, comparisons and the table of program counters.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Ctarget-cpu=x86-64-v3";

/// The platform, said to the compiler so that build scripts are not instrumented.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The folders of this chore.
struct Places {
    root: PathBuf,
    target: PathBuf,
}

impl Places {
    fn corpus(&self, target: &str) -> PathBuf {
        self.target.join("corpus").join(target)
    }

    fn binary(&self, target: &str) -> PathBuf {
        self.target.join(triple()).join("release").join(target)
    }
}

/// Fuzzes the named target, or every one, or keeps what was found.
pub fn run(arguments: &[String]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let places = Places { target: target.join("fuzz"), root };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    build(&places)?;
    match words.as_slice() {
        ["keep"] => TARGETS.iter().try_for_each(|target| keep(&places, target)),
        ["build"] => Ok(()),
        [] => TARGETS.iter().try_for_each(|target| fuzz(&places, target, SECONDS)),
        [target] if TARGETS.contains(target) => fuzz(&places, target, SECONDS),
        [target, seconds] if TARGETS.contains(target) => fuzz(&places, target, seconds),
        _ => bail!("usage: cargo xtask fuzz [{}|keep] [SECONDS]", TARGETS.join("|")),
    }
}

fn done(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Builds the targets, and writes the files to start from.
fn build(places: &Places) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--release", "--target", &triple(), "--manifest-path"])
        .arg(places.root.join("fuzz/Cargo.toml"));
    done(cargo.env("RUSTFLAGS", COVERAGE).env("CARGO_TARGET_DIR", &places.target))?;
    let mut seeds = Command::new(env!("CARGO"));
    seeds.args(["test", "-q", "-p", "lepton-formats", "--test", "mutations", "--"]);
    seeds.args(["--ignored", "--exact", "write_seeds"]).current_dir(&places.root);
    done(seeds.env("LEPTON_FUZZ_SEEDS", places.target.join("corpus")))
}

fn fuzz(places: &Places, target: &str, seconds: &str) -> Result<()> {
    seconds.parse::<u32>().with_context(|| format!("{seconds} is not a number of seconds"))?;
    let found = places.target.join("found").join(target);
    std::fs::create_dir_all(&found)?;
    let mut run = Command::new(places.binary(target));
    run.arg(format!("-max_total_time={seconds}")).arg(format!("-rss_limit_mb={MEMORY_MB}"));
    run.arg(format!("-artifact_prefix={}/", found.display()));
    run.args(["-timeout=60", "-max_len=16384", "-print_final_stats=1", "-verbosity=0"]);
    done(run.arg(places.corpus(target)))
        .with_context(|| format!("what was found lies in {}", found.display()))
}

/// Packs the smallest set of files that reaches everything the corpus reaches.
fn keep(places: &Places, target: &str) -> Result<()> {
    let smallest = places.target.join("kept").join(target);
    if smallest.exists() {
        std::fs::remove_dir_all(&smallest)?;
    }
    std::fs::create_dir_all(&smallest)?;
    let mut merge = Command::new(places.binary(target));
    merge.arg("-merge=1").arg(format!("-max_len={LONGEST_FILE}")).args(["-verbosity=0"]);
    done(merge.arg(&smallest).arg(places.corpus(target)))?;
    let archive = places.root.join(format!("crates/formats/tests/corpus/{target}.tar.xz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg("-cJf").arg(archive).arg("-C").arg(&smallest).arg(".");
    done(&mut tar)
}
