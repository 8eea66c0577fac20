//! `cargo xtask bench-peers`: a throw-away environment with the peers, filled models, and the
//! driver that measures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What the driver needs from PyPI.
const PACKAGES: &[&str] = &["numpy", "onnx", "onnxruntime", "openvino", "nncf", "ai-edge-litert"];

/// Builds Lepton, makes what is missing under `target/peers`, and runs `benches/peers.py`.
pub fn run(arguments: &[String]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has a parent")?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    };
    let folder = target.join("peers");
    std::fs::create_dir_all(&folder)?;
    let build = ["build", "--release", "-p", "lepton-cli", "-p", "lepton", "-p", "lepton-compress"];
    call(Command::new(env!("CARGO")).args(build).args(["--bins", "--examples"]).current_dir(root))?;
    // Installed, as the peers are: files that the linker wrote bit by bit take longer to map.
    let program = format!("lepton{}", std::env::consts::EXE_SUFFIX);
    let installed = folder.join(&program);
    std::fs::copy(target.join("release").join(&program), &installed)?;
    let python = environment(&folder)?;
    let zoo = folder.join("zoo");
    let fill = beside(root, "LEPTON_ZOO", "../shared/zoo").join("fill.py");
    if fill.exists() {
        call(Command::new(&python).arg(fill).arg(&zoo))?;
    } else {
        println!("no zoo: {} does not exist; only the assets are measured", fill.display());
    }
    call(
        Command::new(&python)
            .arg(root.join("benches/peers.py"))
            .args(arguments)
            .env("LEPTON_RELEASE", target.join("release"))
            .env("LEPTON_INSTALLED", &installed)
            .env("LEPTON_ZOO_FILLED", &zoo)
            .env("LEPTON_ASSETS", beside(root, "LEPTON_ASSETS", "../shared/assets"))
            .current_dir(root),
    )
}

/// The Python of a virtual environment that has the packages, made the first time.
fn environment(folder: &Path) -> Result<PathBuf> {
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    let whole = folder.join("installed");
    if !whole.exists() {
        call(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let install = ["-m", "pip", "install", "--quiet"];
        call(Command::new(&python).args(install).args(PACKAGES))?;
        std::fs::write(whole, PACKAGES.join("\n"))?;
    }
    Ok(python)
}

/// The folder an environment variable names, else one relative to the repository.
fn beside(root: &Path, variable: &str, fallback: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| root.join(fallback), PathBuf::from)
}

fn call(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
