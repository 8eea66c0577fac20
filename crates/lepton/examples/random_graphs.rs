//! `random_graphs FOLDER COUNT` writes random graphs as ONNX files, each with its inputs and what
//! Lepton answers as `.npz`, for `benches/random_graphs.py` to compare with ONNX Runtime.
#![allow(clippy::result_large_err)]

#[path = "../tests/random/bodies.rs"]
mod bodies;
#[path = "../tests/random/generate.rs"]
mod generate;

use std::path::PathBuf;

use lepton::{Session, SessionOptions, Tensor, write_npz};
use lepton_formats::onnx;

fn named<'a>(prefix: &str, tensors: &'a [Tensor]) -> Vec<(String, &'a Tensor)> {
    tensors.iter().enumerate().map(|(i, tensor)| (format!("{prefix}{i}"), tensor)).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count] = &arguments[..] else { return Err("usage: FOLDER COUNT".into()) };
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    for seed in 0..count.parse()? {
        for quantised in [false, true] {
            let (graph, inputs) = generate::graph(seed, quantised);
            let outputs = Session::new(&graph, SessionOptions::default())?.run(&inputs)?;
            let kind = if quantised { "q" } else { "f" };
            let bytes = onnx::write(&graph, &onnx::WriteOptions::default())?;
            std::fs::write(folder.join(format!("{kind}{seed}.onnx")), bytes)?;
            let mut arrays = named("x", &inputs);
            arrays.extend(named("y", &outputs));
            let arrays = arrays.iter().map(|(name, tensor)| (name.as_str(), *tensor));
            write_npz(&folder.join(format!("{kind}{seed}.npz")), arrays)?;
        }
    }
    Ok(())
}
