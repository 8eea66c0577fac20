//! Random graphs: the interpreter, sessions of every instruction set and pipeline, and the graph
//! written as ONNX and as an artefact and read again say the same.
#![allow(clippy::result_large_err)]

mod bodies;
mod generate;

use std::sync::Arc;

use lepton::{Isa, Lowering, Session, SessionOptions, SmallSteps, Tensor};
use lepton_formats::artefact::{self, Artefact};
use lepton_formats::{NoExternalData, onnx};
use lepton_ir::{Graph, interpret, text};

/// Graphs of each kind in `cargo test`; `LEPTON_RANDOM_GRAPHS` sets another number.
const GRAPHS: u64 = 150;
/// Of the largest value of an output.
const TOLERANCE: f64 = 2e-4;
/// Of the steps of 8 bits, of which one may fall to the other side where reals differ in their
/// last place; what follows it may differ by what it passes on.
const QUANTISED_TOLERANCE: f64 = 0.2;

fn graphs() -> u64 {
    std::env::var("LEPTON_RANDOM_GRAPHS").ok().and_then(|n| n.parse().ok()).unwrap_or(GRAPHS)
}

/// Largest difference, in units of the largest expected value; infinite where shapes differ.
fn difference(expected: &[Tensor], found: &[Tensor]) -> f64 {
    if expected.len() != found.len() {
        return f64::INFINITY;
    }
    let each = expected.iter().zip(found).map(|(want, have)| {
        if (want.shape(), want.dtype()) != (have.shape(), have.dtype()) {
            return f64::INFINITY;
        }
        let (want, have) = (want.to_f64_vec(), have.to_f64_vec());
        let scale = want.iter().fold(1e-3f64, |most, v| most.max(v.abs()));
        let pairs = want.iter().zip(&have);
        pairs.map(|(w, h)| if w == h { 0.0 } else { (w - h).abs() / scale }).fold(0.0, f64::max)
    });
    each.fold(0.0, |most, d| if d.is_nan() { f64::INFINITY } else { most.max(d) })
}

/// Every way to run a graph, by name.
fn ways(graph: &Graph, inputs: &[Tensor]) -> Vec<(String, Result<Vec<Tensor>, String>)> {
    let run = |graph: &Graph, options: SessionOptions| {
        let session = Session::new(graph, options).map_err(|e| e.to_string())?;
        session.run(inputs).map_err(|e| e.to_string())
    };
    let mut ways = Vec::new();
    for isa in Isa::available() {
        for (threads, small_steps) in
            [(1, SmallSteps::Apart), (2, SmallSteps::Apart), (2, SmallSteps::Together)]
        {
            let options = SessionOptions { isa, threads, small_steps, ..SessionOptions::default() };
            let name = format!("{} x {threads}, steps {small_steps:?}", isa.name());
            ways.push((name, run(graph, options)));
        }
    }
    let plain = SessionOptions { lowering: Lowering::Plain, ..SessionOptions::default() };
    ways.push(("without optimisation".into(), run(graph, plain)));
    let again = |graph: Result<Graph, String>| {
        interpret::run(&graph?, inputs).map_err(|error| error.to_string())
    };
    let written = onnx::write(graph, &onnx::WriteOptions::default()).map_err(|e| e.to_string());
    let read =
        |bytes: Vec<u8>| onnx::read(bytes.into(), &NoExternalData).map_err(|e| e.to_string());
    ways.push(("as ONNX".into(), again(written.and_then(read))));
    let whole = Artefact::from(graph.clone());
    let file = artefact::write(&whole).map_err(|e| e.to_string());
    let read = |bytes| Ok(artefact::read(Arc::new(bytes)).map_err(|e| e.to_string())?.graph);
    ways.push(("as artefact".into(), again(file.and_then(read).map(Arc::unwrap_or_clone))));
    ways
}

fn check(quantised: bool, tolerance: f64) {
    let mut failed = Vec::new();
    for seed in 0..graphs() {
        let (graph, inputs) = generate::graph(seed, quantised);
        let expected = interpret::run(&graph, &inputs).expect("the generator makes valid graphs");
        for (way, found) in ways(&graph, &inputs) {
            let wrong = match found {
                Err(why) => Some(why),
                Ok(found) => Some(difference(&expected, &found))
                    .filter(|d| *d > tolerance)
                    .map(|d| format!("differs by {d:.1e}")),
            };
            failed.extend(wrong.map(|why| format!("seed {seed}, {way}: {why}")));
        }
    }
    if let Some(first) = failed.first() {
        let seed = first.split([' ', ',']).nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        let (graph, _) = generate::graph(seed, quantised);
        panic!("{}\n{}", failed.join("\n"), text::print_brief(&graph));
    }
}

#[test]
fn reals_agree() {
    check(false, TOLERANCE);
}

#[test]
fn quantised_graphs_agree() {
    check(true, QUANTISED_TOLERANCE);
}
