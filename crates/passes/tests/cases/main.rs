//! Every pass on a small graph: the text before, the text after, and the same answer.

mod table;

use lepton_ir::{Graph, interpret, text};
use lepton_passes::{Pass, pipelines, run_pipeline};
use lepton_tensor::Tensor;
use table::CASES;

fn framed(body: &str) -> Graph {
    text::parse(&format!("graph \"g\" {{ {body} }}")).unwrap_or_else(|e| panic!("{e}\n{body}"))
}

/// The text without names, which say nothing about what is computed.
fn anonymous(graph: &Graph) -> String {
    let mut graph = graph.compacted();
    for id in graph.value_ids().collect::<Vec<_>>() {
        graph.set_value_name(id, "");
    }
    for id in graph.order() {
        graph.node_mut(id).name.clear();
    }
    text::print(&graph)
}

/// Values that look random and never change.
fn input(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let value = |i: usize| ((i * 7919 + seed * 104729) % 2003) as f32 / 500.0 - 2.0;
    Tensor::from_slice(shape.to_vec(), &(0..count).map(value).collect::<Vec<_>>()).unwrap()
}

fn same_answer(before: &Graph, after: &Graph, what: &str) {
    let inputs: Vec<Tensor> = before
        .input_specs()
        .iter()
        .enumerate()
        .map(|(seed, (_, fact))| {
            let extent = |d: &lepton_ir::Dim| d.as_usize().unwrap_or(2);
            input(&fact.dims.iter().map(extent).collect::<Vec<_>>(), seed + 1)
        })
        .collect();
    let want = interpret::run(before, &inputs).unwrap();
    let have = interpret::run(after, &inputs).unwrap();
    for (w, h) in want.iter().zip(&have) {
        assert_eq!((w.shape(), w.dtype()), (h.shape(), h.dtype()), "{what}");
        for (a, b) in w.to_f64_vec().into_iter().zip(h.to_f64_vec()) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{what}: {a} became {b}");
        }
    }
}

fn pass_named(name: &str) -> &'static [Pass] {
    let at = pipelines::LOWER.iter().position(|pass| pass.name == name);
    let at = at.unwrap_or_else(|| panic!("no pass is called {name}"));
    &pipelines::LOWER[at..=at]
}

#[test]
fn each_pass_gives_the_text_after() {
    for (name, before, after) in CASES {
        let (before, wanted) = (framed(before), framed(after));
        let mut found = before.clone();
        run_pipeline(pass_named(name), &mut found).unwrap();
        assert_eq!(anonymous(&found), anonymous(&wanted), "{name}");
        same_answer(&before, &found, name);
    }
}

#[test]
fn every_pass_over_reals_has_a_case() {
    let reals = pipelines::LOWER.iter().take_while(|pass| pass.name != "unsigned-activations");
    for pass in reals.chain(pipelines::SIMPLIFY) {
        assert!(CASES.iter().any(|(name, ..)| *name == pass.name), "{} has no case", pass.name);
    }
}

#[test]
fn pipelines_keep_the_answer_of_every_case() {
    for (name, before, after) in CASES {
        for graph in [framed(before), framed(after)] {
            for pipeline in [pipelines::SIMPLIFY, pipelines::LOWER] {
                let mut found = graph.clone();
                run_pipeline(pipeline, &mut found).unwrap();
                same_answer(&graph, &found, name);
            }
        }
    }
}

/// Nodes over `[1,4,6,6]` that keep that shape, so that any sequence of them is a graph.
const LINKS: &[&str] = &[
    "%y: f32[1,4,6,6] = Conv(%x, %w, %b) {pads=[1, 1, 1, 1]}",
    "%y: f32[1,4,6,6] = Conv(%x, %d) {pads=[1, 1, 1, 1], group=4}",
    "%y: f32[1,4,6,6] = BatchNormalization(%x, %b, %b, %b, %v)",
    "%y: f32[1,4,6,6] = Unary(%x) {function=\"relu\"}",
    "%y: f32[1,4,6,6] = Binary(%x, %p)",
    "%y: f32[1,4,6,6] = Binary(%x, %c) {function=\"mul\"}",
    "%y: f32[1,4,6,6] = Clip(%x, %l, %h)",
    "%y: f32[1,4,6,6] = Pool(%x) {kernel=[3, 3], pads=[1, 1, 1, 1]}",
    "%m: f32[1,4,1,1] = Reduce(%x, %r) {function=\"mean\"}\n%y: f32[1,4,6,6] = Binary(%x, %m)",
    "%m: f32[1,4,5,6] = Slice(%x, %f, %t, %k)\n%y: f32[1,4,6,6] = Pad(%m, %q)",
    "%m: f32[1,4,3,6], %n: f32[1,4,3,6] = Split(%x) {axis=2, parts=2}
     %y: f32[1,4,6,6] = Concat(%n, %m) {axis=2}",
    "%m: f32[1,2,6,6], %n: f32[1,2,6,6] = Split(%x) {axis=1, parts=2}
     %y: f32[1,4,6,6] = Concat(%n, %m) {axis=1}",
    "%m: f32[1,6,6,4] = Transpose(%x) {permutation=[0, 2, 3, 1]}
     %n: f32[1,6,6,4] = Softmax(%m)
     %y: f32[1,4,6,6] = Transpose(%n) {permutation=[0, 3, 1, 2]}",
    "%m: f32[1,4,6,6] = Transpose(%x) {permutation=[0, 1, 3, 2]}
     %y: f32[1,4,6,6] = MatMul(%m, %g)",
    "%m: f32[1,4,6,6] = Unary(%x) {function=\"sigmoid\"}
     %y: f32[1,4,6,6] = Binary(%m, %x) {function=\"mul\"}",
];

/// A graph of links picked by the digits of `seed`, each applied to the result before.
fn chained(seed: usize) -> String {
    let list = |count: usize, salt: usize| -> String {
        let value = |i: usize| ((i * 31 + salt * 17) % 23) as f32 / 23.0 - 0.45;
        (0..count).map(|i| format!("{:?}", value(i))).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!(
        "input %v0: f32[1,4,6,6] const %w: f32[4,4,3,3] = [{}] const %b: f32[4] = [{}]
         const %d: f32[4,1,3,3] = [{}] const %v: f32[4] = [1, 2, 0.5, 1.5]
         const %c: f32[4,1,1] = [{}] const %l: f32[] = [-0.8] const %h: f32[] = [0.9]
         const %g: f32[6,6] = [{}] const %r: i64[2] = [2, 3] const %f: i64[1] = [1]
         const %t: i64[1] = [6] const %k: i64[1] = [2]
         const %q: i64[8] = [0, 0, 1, 0, 0, 0, 0, 0]\n",
        list(144, 1),
        list(4, 2),
        list(36, 3),
        list(4, 4),
        list(36, 5),
    );
    let mut rest = seed;
    for step in 0..6 {
        let link = LINKS[rest % LINKS.len()];
        rest /= LINKS.len();
        let earlier = rest % (step + 1);
        text += &link
            .replace("%x", &format!("%v{step}"))
            .replace("%p", &format!("%v{earlier}"))
            .replace("%y", &format!("%v{}", step + 1))
            .replace("%m", &format!("%m{step}"))
            .replace("%n", &format!("%n{step}"));
        text.push('\n');
    }
    text + "output %v6"
}

#[test]
fn pipelines_keep_the_answer_of_chains_of_nodes() {
    for i in 0..150 {
        let source = chained(i * 75_577 + i);
        let before = framed(&source);
        let mut after = before.clone();
        run_pipeline(pipelines::LOWER, &mut after).unwrap();
        same_answer(&before, &after, &text::print_brief(&before));
    }
}
