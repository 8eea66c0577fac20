//! Chores of the repository: `cargo xtask CHORE`.

mod bench_peers;
mod fuzz;

use std::process::ExitCode;

/// Chores: name, what it does, and its function, which gets the arguments after the name.
type Chore = (&'static str, &'static str, fn(&[String]) -> anyhow::Result<()>);

const CHORES: &[Chore] = &[
    (
        "bench-peers",
        "Measures Lepton beside ONNX Runtime, OpenVINO and LiteRT and writes benches/RESULTS.md; \
         arguments go to benches/peers.py (see --help)",
        bench_peers::run,
    ),
    (
        "fuzz",
        "Fuzzes the readers and shape inference with libFuzzer: [TARGET] [SECONDS], 60 seconds of \
         each target if not said; `fuzz keep` packs what was found into the corpora of the tests",
        fuzz::run,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = arguments.first();
    let Some((_, _, run)) =
        CHORES.iter().find(|(name, ..)| Some(*name) == named.map(String::as_str))
    else {
        eprintln!("usage: cargo xtask CHORE [ARGUMENTS]\n");
        CHORES.iter().for_each(|(name, about, _)| eprintln!("  {name}  {about}"));
        return ExitCode::from(2);
    };
    match run(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
