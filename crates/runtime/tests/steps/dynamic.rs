//! What follows extents that depend on data, and operators that look for something, give what the
//! interpreter gives.

use lepton_ir::{Graph, interpret, text};
use lepton_kernels::Isa;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::Tensor;
use proptest::prelude::*;

use crate::case::{check_kernels, constant, values};

fn session(source: &str, isa: Isa, threads: usize) -> (Graph, Session) {
    let graph = text::parse(source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let options = SessionOptions { isa, threads, ..SessionOptions::default() };
    let session = Session::new(&graph, options).unwrap();
    (graph, session)
}

/// Checks one session on several inputs after one another: plans that it kept must not matter.
fn check_all(source: &str, inputs: &[Vec<Tensor>]) {
    for isa in Isa::available() {
        let (graph, session) = session(source, isa, 2);
        for inputs in inputs {
            let want = interpret::run(&graph, inputs).unwrap();
            let have = session.run(inputs).unwrap();
            for (want, have) in want.iter().zip(&have) {
                assert_eq!((want.shape(), want.dtype()), (have.shape(), have.dtype()));
                let limit = if want.dtype().is_float() { 1e-4 } else { 0.0 };
                for (w, h) in want.to_f64_vec().iter().zip(have.to_f64_vec()) {
                    let near = *w == h || (w - h).abs() <= limit * w.abs().max(1.0);
                    assert!(near, "{isa}: {w} and {h}\n{source}");
                }
            }
        }
    }
}

fn tensor(shape: &[usize], list: &[f32]) -> Tensor {
    Tensor::from_slice(shape.to_vec(), list).unwrap()
}

/// Boxes that lie close together, in groups that were moved apart.
fn boxes(count: usize, groups: usize, seed: u32) -> Vec<f32> {
    let noise = values(count * 4, seed);
    let corner = |(i, v): (usize, &[f32])| {
        let apart = (i % groups) as f32 * 12.0;
        [v[0] * 5.0 + apart, v[1] * 5.0 + apart, v[2] * 5.0 + apart, v[3] * 5.0 + apart]
    };
    noise.chunks(4).enumerate().flat_map(corner).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn boxes_that_remain(
        count in 0..150_usize,
        groups in 1..6_usize,
        classes in 1..3_usize,
        centres in 0..2_usize,
        limit in 0..5_usize,
        most in 0..40_usize,
        seed in 1..1000_u32,
    ) {
        let source = format!(
            "graph \"g\" {{ input %b: f32[2,k,4] input %s: f32[2,c,k]
             const %m: i64[] = [{most}] const %l: f32[] = [0.{limit}] const %t: f32[] = [-0.8]
             %y: i64[n,3] = NonMaxSuppression(%b, %s, %m, %l, %t) {{centres={centres}}}
             output %y }}"
        );
        let scores = values(2 * classes * count, seed + 1);
        // Few different scores, so that equal ones meet.
        let scores: Vec<f32> = scores.iter().map(|s| (s * 20.0).round() / 20.0).collect();
        let inputs = vec![
            tensor(&[2, count, 4], &boxes(2 * count, groups, seed)),
            tensor(&[2, classes, count], &scores),
        ];
        check_all(&source, &[inputs]);
    }

    #[test]
    fn the_first_in_order(
        rows in 1..5_usize,
        extent in 1..60_usize,
        inner in 1..4_usize,
        share in 0.0..1.0_f64,
        largest in 0..2_usize,
        seed in 1..1000_u32,
    ) {
        let wanted = 1 + (share * (extent - 1) as f64) as usize;
        let source = format!(
            "graph \"g\" {{ input %x: f32[{rows},{extent},{inner}] const %k: i64[1] = [{wanted}]
             %v: f32[{rows},{wanted},{inner}], %p: i64[{rows},{wanted},{inner}] =
             TopK(%x, %k) {{axis=1, largest={largest}}}
             output %v, %p }}"
        );
        let mut list = values(rows * extent * inner, seed);
        list.iter_mut().for_each(|v| *v = (*v * 9.0).round());
        check_all(&source, &[vec![tensor(&[rows, extent, inner], &list)]]);
    }
}

#[test]
fn extents_that_change_from_run_to_run() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[n,6]\n{}{}
         const %least: f32[] = [0.2]
         %m: bool[n,6] = Binary(%x, %least) {{function=\"greater\"}}
         %p: i64[2,f] = NonZero(%m)
         %t: i64[f,2] = Transpose(%p)
         %v: f32[f] = GatherND(%x, %t)
         %s: f32[f] = Unary(%v) {{function=\"exp\"}}
         %r: f32[f,1] = Reshape(%s, %shape)
         %e: f32[f,20] = MatMul(%r, %w)
         %b: f32[f,20] = Unary(%e) {{function=\"sigmoid\"}}
         %o: f32[f,20], %q: i64[f,20] = TopK(%b, %kk) {{axis=1}}
         output %o, %q, %t }}",
        constant("w", &[1, 20], 3),
        "const %shape: i64[2] = [-1, 1] const %kk: i64[1] = [20]\n",
    );
    let inputs: Vec<Vec<Tensor>> = [40, 3, 40, 1, 60, 40]
        .iter()
        .enumerate()
        .map(|(i, &rows)| vec![tensor(&[rows, 6], &values(rows * 6, i as u32 + 1))])
        .collect();
    check_all(&source, &inputs);
}

/// Kernel, inputs and constants, result.
const CASES: &[(&str, &str, &str)] = &[
    ("gather", "input %x: f32[5,4,3] input %i: i64[6,2]", "%y: f32[6,3] = GatherND(%x, %i)"),
    ("gather", "input %x: u8[5,4] input %i: i32[2,3,2]", "%y: u8[2,3] = GatherND(%x, %i)"),
    (
        "gather",
        "input %x: f32[4,5,3] input %i: i64[4,7,3]",
        "%y: f32[4,7,3] = GatherElements(%x, %i) {axis=1}",
    ),
    (
        "scatter",
        "input %x: f32[5,4,3] input %i: i64[2,1] input %u: f32[2,4,3]",
        "%y: f32[5,4,3] = ScatterND(%x, %i, %u)",
    ),
    (
        "scatter",
        "input %x: f32[4,5,3] input %i: i64[4,2,3] input %u: f32[4,2,3]",
        "%y: f32[4,5,3] = ScatterElements(%x, %i, %u) {axis=-2}",
    ),
    ("couple", "input %x: f32[6,3]", "%y: f32[6,3] = CouplePairs(%x) {classes=3}"),
    ("couple", "input %x: f32[40,10]", "%y: f32[40,5] = CouplePairs(%x) {classes=5}"),
    (
        "regions",
        "input %x: f32[1,5,9,7] input %b: f32[6,4] const %i: i64[6] = [0, 0, 0, 0, 0, 0]",
        "%y: f32[6,5,3,2] = RoiAlign(%x, %b, %i) {height=3, width=2, samples=2}",
    ),
    (
        "regions",
        "input %x: f32[2,3,4,4] input %b: f32[3,4] const %i: i64[3] = [1, 0, 1]",
        "%y: f32[3,3,2,2] = RoiAlign(%x, %b, %i)
         {height=2, width=2, spatial_scale=0.75, centres=\"wholes\"}",
    ),
];

#[test]
fn places_that_are_data_have_kernels() {
    for (kernel, operands, node) in CASES {
        let source = format!("graph \"g\" {{ {operands}\n{node}\noutput %y }}");
        check_kernels(&source, &[kernel]);
    }
}

#[test]
fn an_index_outside_names_its_node() {
    let source = "graph \"g\" { input %x: f32[3,2] input %i: i64[2,1]
        %y: f32[2,2] = GatherND(%x, %i) \"pick\"\noutput %y }";
    let (_, session) = session(source, Isa::best(), 1);
    let inputs = [tensor(&[3, 2], &[0.0; 6]), Tensor::from_slice([2, 1], &[0i64, 3]).unwrap()];
    let error = session.run(&inputs).unwrap_err().to_string();
    assert!(error.contains("`pick`") && error.contains("outside an axis of 3"), "{error}");
}

#[test]
fn a_run_that_is_watched_stops_after_the_plan() {
    let source = "graph \"g\" { input %x: f32[n,6]
        %p: i64[2,f] = NonZero(%x)
        %t: i64[f,2] = Transpose(%p)
        %y: f32[f] = GatherND(%x, %t)\noutput %y }";
    let (_, session) = session(source, Isa::best(), 1);
    let inputs = [tensor(&[20, 6], &values(120, 5))];
    assert_eq!(session.run(&inputs).unwrap()[0].shape(), [120]);
    let stopped = session.run_while(&inputs, &|| false).unwrap_err();
    assert!(matches!(stopped, lepton_runtime::RuntimeError::Stopped), "{stopped}");
}

#[test]
fn a_profile_shows_what_runs_node_by_node() {
    let source = "graph \"g\" { input %x: f32[n,6]
        %p: i64[2,f] = NonZero(%x) \"places\"
        %t: i64[f,2] = Transpose(%p)
        %v: f32[f] = GatherND(%x, %t) \"pick\"
        %y: f32[f] = Unary(%v) {function=\"exp\"} \"power\"\noutput %y }";
    let (_, session) = session(source, Isa::best(), 1);
    let inputs = [tensor(&[20, 6], &values(120, 5))];
    let (outputs, steps) = session.profile(&inputs).unwrap();
    assert_eq!(outputs, session.run(&inputs).unwrap());
    let kernel = |node: &str| {
        let own: Vec<_> = steps.iter().filter(|step| step.node == node).collect();
        assert!(own.len() == 1 && own[0].runs == 1 && own[0].bytes > 0, "{node}: {steps:?}");
        own[0].kernel
    };
    assert_eq!([kernel("places"), kernel("pick"), kernel("power")], ["places", "gather", "map"]);
}
