//! Batches that run part by part give what images alone give; graphs that mix images stay whole.

use lepton_ir::{Graph, interpret, text};
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor};

use crate::case::constant;

/// A convolution with a residual, averages and a layer, of images of so many pixels down and across.
fn network(extent: usize) -> Graph {
    let source = format!(
        "graph \"net\" {{ input %x: f32[n,16,{extent},{extent}]\n{}{}{}{}
         const %axes: i64[2] = [2, 3]
         %c: f32[n,16,{extent},{extent}] = Conv(%x, %w, %b) {{pads=[1, 1, 1, 1]}}
         %s: f32[n,16,{extent},{extent}] = Binary(%c, %x)
         %r: f32[n,16,{extent},{extent}] = Unary(%s) {{function=\"relu\"}}
         %m: f32[n,16] = Reduce(%r, %axes) {{function=\"mean\", keep_dims=0}}
         %l: f32[n,5] = Linear(%m, %v, %o)
         %y: f32[n,5] = Softmax(%l) {{axis=1}}
         output %y }}",
        constant("w", &[16, 16, 3, 3], 1),
        constant("b", &[16], 2),
        constant("v", &[16, 5], 3),
        constant("o", &[5], 4),
    );
    text::parse(&source).unwrap()
}

fn values(shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|i: usize| (i * 7919 % 211) as f64 / 211.0).collect();
    Tensor::from_f64_slice(DType::F32, shape.to_vec(), &values).unwrap()
}

fn assert_near(found: &Tensor, want: &Tensor) {
    assert_eq!(found.shape(), want.shape());
    for (found, want) in found.to_f64_vec().iter().zip(want.to_f64_vec()) {
        assert!((found - want).abs() < 1e-5, "{found} {want}");
    }
}

fn session(graph: &Graph, threads: usize) -> Session {
    Session::new(graph, SessionOptions { threads, ..SessionOptions::default() }).unwrap()
}

/// How often the first step of a plan runs for these inputs.
fn parts(session: &Session, x: &Tensor) -> u64 {
    session.profile(std::slice::from_ref(x)).unwrap().1[0].runs
}

#[test]
fn parts_of_a_batch_give_what_images_give() {
    let graph = network(64);
    for (images, threads, expected) in
        [(6, 1, 6), (6, 2, 6), (6, 3, 6), (5, 2, 5), (2, 3, 2), (1, 2, 1)]
    {
        let x = values(&[images, 16, 64, 64]);
        let session = session(&graph, threads);
        assert_eq!(parts(&session, &x), expected, "{images} images, {threads} threads");
        let want = interpret::run(&graph, std::slice::from_ref(&x)).unwrap();
        let found = session.run(std::slice::from_ref(&x)).unwrap();
        assert_near(&found[0], &want[0]);
        let (profiled, _) = session.profile(&[x]).unwrap();
        assert_eq!(profiled[0].to_f64_vec(), found[0].to_f64_vec());
    }
}

#[test]
fn small_images_are_divided_between_threads_alone() {
    let graph = network(8);
    let x = values(&[8, 16, 8, 8]);
    assert_eq!(parts(&session(&graph, 1), &x), 1);
    assert_eq!(parts(&session(&graph, 2), &x), 2);
}

#[test]
fn a_run_of_parts_stops_when_told() {
    let session = session(&network(64), 2);
    let stopped = session.run_while(&[values(&[6, 16, 64, 64])], &|| false);
    assert!(stopped.is_err());
    assert_eq!(session.run(&[values(&[6, 16, 64, 64])]).unwrap().len(), 1);
}

#[test]
fn graphs_that_mix_images_stay_whole() {
    let bodies = [
        "%y: f32[n,32] = Softmax(%x) {axis=0}",
        "const %a: i64[1] = [0]
         %m: f32[1,32] = Reduce(%x, %a) {function=\"mean\"}
         %y: f32[n,32] = Binary(%x, %m)",
        "%t: f32[32,n] = Transpose(%x) {permutation=[1, 0]}
         %p: f32[32,32] = MatMul(%t, %x)
         %y: f32[n,32] = MatMul(%x, %p)",
        "%s: i64[2] = Shape(%x)
         %f: f32[2] = Cast(%s) {to=\"f32\"}
         const %i: i64[1] = [0]
         %c: f32[1] = Gather(%f, %i)
         %y: f32[n,32] = Binary(%x, %c)",
    ];
    for body in bodies {
        let source = format!("graph \"net\" {{ input %x: f32[n,32]\n{body}\noutput %y }}");
        let graph: Graph = text::parse(&source).unwrap_or_else(|e| panic!("{body}: {e}"));
        let x = values(&[6, 32]);
        let session = session(&graph, 2);
        let want = interpret::run(&graph, std::slice::from_ref(&x)).unwrap();
        let found = session.run(std::slice::from_ref(&x)).unwrap();
        for (found, want) in found[0].to_f64_vec().iter().zip(want[0].to_f64_vec()) {
            assert!((found - want).abs() <= 1e-5 * want.abs().max(1.0), "{body}: {found} {want}");
        }
        assert_eq!(parts(&session, &x), 1, "{body}");
    }
}
