//! Steps that copy parts of tensors, one case a row.

use crate::case::check_kernels;

/// Kernels, inputs and constants, results.
const CASES: &[(&str, &str, &str)] = &[
    (
        "slice",
        "input %x: f32[3,5,4] const %f: i64[2] = [-1, 1] const %t: i64[2] = [-10, 5]
         const %a: i64[2] = [1, 2] const %s: i64[2] = [-2, 2]",
        "%y: f32[3,3,2] = Slice(%x, %f, %t, %a, %s)",
    ),
    (
        "slice",
        "input %x: u8[4,6] const %f: i64[1] = [2] const %t: i64[1] = [9]",
        "%y: u8[2,6] = Slice(%x, %f, %t)",
    ),
    (
        "slice",
        "input %x: f32[2,3] const %f: i64[1] = [2] const %t: i64[1] = [1]",
        "%y: f32[0,3] = Slice(%x, %f, %t)",
    ),
    (
        "pad",
        "input %x: f32[2,3,4] const %p: i64[6] = [0, 1, 2, 1, 0, 1] const %v: f32[] = [-2.5]",
        "%y: f32[3,4,7] = Pad(%x, %p, %v)",
    ),
    ("pad", "input %x: i64[3,4] const %p: i64[4] = [-1, 2, 1, -3]", "%y: i64[3,3] = Pad(%x, %p)"),
    (
        "pad",
        "input %x: u8[5] const %p: i64[2] = [2, -4] const %a: i64[1] = [0]
         const %v: u8[] = [9]",
        "%y: u8[3] = Pad(%x, %p, %v, %a)",
    ),
    (
        "concat",
        "input %x: f32[2,3,4] input %u: f32[2,1,4] input %v: f32[2,2,4]",
        "%y: f32[2,6,4] = Concat(%x, %u, %v) {axis=-2}",
    ),
    ("concat", "input %x: u8[2,3] input %u: u8[2,1]", "%y: u8[2,4] = Concat(%x, %u) {axis=1}"),
    (
        "split",
        "input %x: f32[2,6,2] const %l: i64[3] = [1, 3, 2]",
        "%y: f32[2,1,2], %z: f32[2,3,2], %w: f32[2,2,2] = Split(%x, %l) {axis=1}",
    ),
    ("split", "input %x: i64[7]", "%y: i64[4], %z: i64[3] = Split(%x) {parts=2}"),
    ("gather", "input %x: f32[5,3] input %i: i64[2,4]", "%y: f32[2,4,3] = Gather(%x, %i)"),
    ("gather", "input %x: u8[2,5,3] input %i: i32[2]", "%y: u8[2,2,3] = Gather(%x, %i) {axis=-2}"),
    ("gather", "input %x: f32[4,5] input %i: i64[]", "%y: f32[4] = Gather(%x, %i) {axis=1}"),
    (
        "expand",
        "input %x: f32[3,1,2] const %s: i64[4] = [2, 1, 4, 1]",
        "%y: f32[2,3,4,2] = Expand(%x, %s)",
    ),
    ("tile", "input %x: i64[2,3] const %r: i64[2] = [3, 2]", "%y: i64[6,6] = Tile(%x, %r)"),
    ("transpose", "input %x: u8[3,4,5]", "%y: u8[5,3,4] = Transpose(%x) {permutation=[2, 0, 1]}"),
];

#[test]
fn every_part_has_a_kernel() {
    for (kernel, operands, node) in CASES {
        let results: Vec<&str> = ["%y", "%z", "%w"]
            .into_iter()
            .filter(|name| node.contains(&format!("{name}:")))
            .collect();
        let results = results.join(", ");
        check_kernels(
            &format!("graph \"g\" {{ {operands}\n{node}\noutput {results} }}"),
            &[kernel],
        );
    }
}

#[test]
fn an_index_outside_names_its_node() {
    use lepton_runtime::{Session, SessionOptions};
    use lepton_tensor::Tensor;
    let source = "graph \"g\" { input %x: f32[3,2] input %i: i64[2]
        %y: f32[2,2] = Gather(%x, %i) \"pick\"\noutput %y }";
    let graph = lepton_ir::text::parse(source).unwrap();
    let session = Session::new(&graph, SessionOptions::default()).unwrap();
    let x = Tensor::from_slice([3, 2], &[0.0f32; 6]).unwrap();
    let error = session.run(&[x, Tensor::vector(&[0i64, 3])]).unwrap_err().to_string();
    assert!(error.contains("`pick`") && error.contains("outside an axis of 3"), "{error}");
}
