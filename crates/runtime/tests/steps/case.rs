//! How a graph is checked against the interpreter.

use lepton_ir::{Fact, Graph, interpret, text};
use lepton_kernels::Isa;
use lepton_runtime::{Session, SessionOptions, SmallSteps};
use lepton_tensor::{DType, Tensor};

/// Integers that look random and never change.
fn noise(count: usize, seed: u32) -> impl Iterator<Item = u32> {
    let mut state = seed.wrapping_mul(2654435761).max(1);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..count).map(move |_| next())
}

/// Values between −1 and 1.
pub fn values(count: usize, seed: u32) -> Vec<f32> {
    noise(count, seed).map(|n| n as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

/// The text of a constant of reals.
pub fn constant(name: &str, shape: &[usize], seed: u32) -> String {
    let list: Vec<String> =
        values(shape.iter().product(), seed).iter().map(|v| format!("{v:?}")).collect();
    format!("const %{name}: f32{shape:?} = [{}]\n", list.join(", "))
}

/// The text of a constant of integers from `low` to `high`.
pub fn integers(
    name: &str,
    dtype: &str,
    shape: &[usize],
    seed: u32,
    [low, high]: [i64; 2],
) -> String {
    let list: Vec<String> = noise(shape.iter().product(), seed)
        .map(|n| (low + i64::from(n) % (high - low + 1)).to_string())
        .collect();
    format!("const %{name}: {dtype}{shape:?} = [{}]\n", list.join(", "))
}

/// A tensor for an input: reals between −3 and 3, bytes, truth values, integers from −2 to 2.
fn filled(fact: &Fact, shape: Vec<usize>, seed: u32) -> Tensor {
    let count = shape.iter().product();
    let integers = |span: u32, least: i64| -> Vec<f64> {
        noise(count, seed).map(|n| (i64::from(n % span) + least) as f64).collect()
    };
    let list = match fact.dtype {
        DType::U8 => integers(256, 0),
        DType::I8 => integers(256, -128),
        DType::Bool => integers(2, 0),
        dtype if dtype.is_float() => {
            values(count, seed).iter().map(|&v| f64::from(v) * 3.0).collect()
        }
        _ => integers(5, -2),
    };
    Tensor::from_f64_slice(fact.dtype, shape, &list).unwrap()
}

/// Runs the graph by the interpreter and in every way a session can; integers must agree exactly.
/// Gives the kernels of the steps.
pub fn check(source: &str, shapes: &[&[usize]]) -> Vec<&'static str> {
    let graph: Graph = text::parse(source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let specs = graph.input_specs();
    let inputs: Vec<Tensor> = specs
        .iter()
        .enumerate()
        .map(|(i, (_, fact))| {
            let given = shapes.get(i).map(|shape| shape.to_vec());
            filled(fact, given.unwrap_or_else(|| fact.shape().unwrap()), 77 + i as u32)
        })
        .collect();
    let expected = interpret::run(&graph, &inputs).unwrap();
    let mut kernels = Vec::new();
    for isa in Isa::available() {
        for (threads, small_steps) in
            [(1, SmallSteps::Apart), (2, SmallSteps::Apart), (2, SmallSteps::Together)]
        {
            let options = SessionOptions { isa, threads, small_steps, ..SessionOptions::default() };
            let session = Session::new(&graph, options).unwrap();
            let lowered = interpret::run(session.lowered(), &inputs).unwrap();
            let (found, profile) = session.profile(&inputs).unwrap();
            assert_eq!(found, session.run(&inputs).unwrap(), "runs repeat");
            assert!(!profile.is_empty());
            for ((want, low), have) in expected.iter().zip(&lowered).zip(&found) {
                close(want, low, &format!("lowered:\n{source}"));
                close(want, have, &format!("{} {threads}:\n{source}", isa.name()));
            }
            kernels = profile.iter().map(|step| step.kernel).collect();
        }
    }
    kernels
}

/// [`check`] for a graph in which exactly these kernels run.
pub fn check_kernels(source: &str, kernels: &[&str]) {
    assert_eq!(check(source, &[]), kernels, "{source}");
}

/// Fails where elements differ: integers at all, reals by more than 1e-4 of the larger of 1 and them.
pub fn close(want: &Tensor, have: &Tensor, what: &str) {
    assert_eq!((want.shape(), want.dtype()), (have.shape(), have.dtype()), "{what}");
    let limit = if want.dtype().is_float() { 1e-4 } else { 0.0 };
    for (i, (w, h)) in want.to_f64_vec().into_iter().zip(have.to_f64_vec()).enumerate() {
        let near = w == h || (w - h).abs() <= limit * w.abs().max(1.0);
        assert!(near, "{what}: element {i}: {w} and {h}");
    }
}
