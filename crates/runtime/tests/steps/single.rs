//! Linear layers of a single row, whose weights are kept in fewer bits where they are far.

use lepton_ir::{Graph, interpret, text};
use lepton_kernels::Isa;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor};

use crate::case::{close, constant, values};

/// The kernel of a layer of so many rows and columns, whose answer is checked.
fn kernel(rows: usize, columns: usize, options: SessionOptions) -> &'static str {
    kernel_of(&rows.to_string(), &[rows], columns, options)
}

/// The same where the graph has `extents` for the rows, of which there are `rows`.
fn kernel_of(
    extents: &str,
    rows: &[usize],
    columns: usize,
    options: SessionOptions,
) -> &'static str {
    let depth = 600;
    let source = format!(
        "graph \"g\" {{ input %x: f32[{extents},{depth}]\n{}{}
         %y: f32[{extents},{columns}] = Linear(%x, %w, %b) {{activation=\"relu\"}}
         output %y }}",
        constant("w", &[depth, columns], 1),
        constant("b", &[columns], 2),
    );
    let graph: Graph = text::parse(&source).unwrap();
    let shape = [rows, &[depth]].concat();
    let x = values(shape.iter().product(), 3).into_iter().map(f64::from).collect::<Vec<_>>();
    let x = [Tensor::from_f64_slice(DType::F32, shape, &x).unwrap()];
    let want = interpret::run(&graph, &x).unwrap();
    let (found, profile) = Session::new(&graph, options).unwrap().profile(&x).unwrap();
    close(&want[0], &found[0], "a row");
    profile[0].kernel
}

#[test]
fn weights_that_are_far_take_24_bits() {
    for isa in Isa::available() {
        for threads in [1, 2] {
            let options = SessionOptions { isa, threads, ..SessionOptions::default() };
            let far = if isa.has_avx512() { "linear-24-bit" } else { "linear-f32" };
            assert_eq!(kernel(1, 350, options), far, "{isa}");
        }
    }
    let best = SessionOptions::default;
    assert_eq!(kernel(2, 350, best()), "linear-f32", "two rows");
    let far = kernel(1, 350, best());
    assert_eq!(kernel_of("n", &[1], 350, best()), far, "a batch of one");
    let tokens = kernel_of("n,s", &[1, 1], 350, best());
    assert_eq!(tokens, "linear-f32", "tokens of any number share one form");
    assert_eq!(kernel(1, 50, best()), "linear-f32", "few weights");
    assert_eq!(kernel(1, 350, SessionOptions { exact: true, ..best() }), "linear-f32", "exact");
}
