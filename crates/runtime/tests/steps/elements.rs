//! Steps over single elements and rows, one case a row.

use crate::case::check_kernels;

/// Kernel, inputs and constants, result.
const CASES: &[(&str, &str, &str)] = &[
    (
        "layer-normalization",
        "input %x: f32[3,5,21] const %s: f32[21] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2,
         1, 0, -1, -2, -3] const %b: f32[1] = [0.5]",
        "%y: f32[3,5,21] = LayerNormalization(%x, %s)",
    ),
    (
        "layer-normalization",
        "input %x: f32[4,2,3] input %s: f32[2,3] input %b: f32[2,3]",
        "%y: f32[4,2,3] = LayerNormalization(%x, %s, %b) {axis=1, epsilon=0.01}",
    ),
    (
        "instance-normalization",
        "input %x: f32[2,3,5,4] input %s: f32[3] input %b: f32[3]",
        "%y: f32[2,3,5,4] = InstanceNormalization(%x, %s, %b)",
    ),
    (
        "reduce",
        "input %x: f32[2,3,5,7] const %a: i64[2] = [1, -1]",
        "%y: f32[2,5] = Reduce(%x, %a) {keep_dims=0}",
    ),
    (
        "reduce",
        "input %x: f32[2,33,5] const %a: i64[1] = [1]",
        "%y: f32[2,1,5] = Reduce(%x, %a) {function=\"mean\"}",
    ),
    (
        "reduce",
        "input %x: f32[4,19] const %a: i64[1] = [-1]",
        "%y: f32[4,1] = Reduce(%x, %a) {function=\"max\"}",
    ),
    ("reduce", "input %x: f32[4,19]", "%y: f32[1,1] = Reduce(%x) {function=\"l2\"}"),
    (
        "reduce",
        "input %x: i64[4,19] const %a: i64[1] = [0]",
        "%y: i64[19] = Reduce(%x, %a) {function=\"sum\", keep_dims=0}",
    ),
    ("extreme", "input %x: f32[3,17,2]", "%y: i64[3,2] = Arg(%x) {axis=1, keep_dims=0}"),
    (
        "extreme",
        "input %x: f32[3,17]",
        "%y: i64[3,1] = Arg(%x) {function=\"min\", axis=-1, last=1}",
    ),
    (
        "select",
        "input %c: bool[3,1] input %x: f32[4] input %u: f32[2,1,4]",
        "%y: f32[2,3,4] = Where(%c, %x, %u)",
    ),
    ("logic", "input %x: bool[5,3]", "%y: bool[5,3] = Not(%x)"),
    (
        "logic",
        "input %x: bool[5,3] input %u: bool[3]",
        "%y: bool[5,3] = Binary(%x, %u) {function=\"and\"}",
    ),
    (
        "compare",
        "input %x: i64[5,3] input %u: i64[]",
        "%y: bool[5,3] = Binary(%x, %u) {function=\"equal\"}",
    ),
    (
        "compare",
        "input %x: f32[5,3] input %u: f32[5,1]",
        "%y: bool[5,3] = Binary(%x, %u) {function=\"less_or_equal\"}",
    ),
    (
        "integers",
        "input %x: i64[5,3] input %u: i64[3]",
        "%y: i64[5,3] = Binary(%x, %u) {function=\"mul\"}",
    ),
    (
        "integers",
        "input %x: i32[5,3] input %u: i32[3]",
        "%y: i32[5,3] = Binary(%x, %u) {function=\"max\"}",
    ),
    ("cast", "input %x: bool[5,3]", "%y: f32[5,3] = Cast(%x) {to=\"f32\"}"),
    ("cast", "input %x: f32[5,3]", "%y: i64[5,3] = Cast(%x) {to=\"i64\"}"),
    ("cast", "input %x: f32[5,3]", "%y: u8[5,3] = Cast(%x) {to=\"u8\"}"),
    ("cast", "input %x: i64[5,3]", "%y: bool[5,3] = Cast(%x) {to=\"bool\"}"),
    ("cast", "input %x: f32[5,3]", "%y: f16[5,3] = Cast(%x) {to=\"f16\"}"),
    (
        "attention-f32",
        "input %q: f32[2,29,3,7] input %k: f32[2,35,3,7] input %v: f32[2,35,3,5]
         input %m: f32[2,1,1,35]",
        "%y: f32[2,29,3,5] = Attention(%q, %k, %v, %m) {scale=0.5}",
    ),
    (
        "attention-f32",
        "input %q: f32[1,2,4,16] input %k: f32[1,3,4,16] input %v: f32[1,3,4,16]
         input %m: f32[4,2,3]",
        "%y: f32[1,2,4,16] = Attention(%q, %k, %v, %m) {scale=0.25}",
    ),
    (
        "attention-f32",
        "input %q: f32[1,50,1,33] input %k: f32[1,17,1,33] input %v: f32[1,17,1,20]",
        "%y: f32[1,50,1,20] = Attention(%q, %k, %v)",
    ),
    ("cast", "input %x: bf16[5,3]", "%y: f32[5,3] = Cast(%x) {to=\"f32\"}"),
    (
        "binary",
        "input %x: f32[5,3] input %u: f32[2,1,3]",
        "%y: f32[2,5,3] = Binary(%x, %u) {function=\"max\"}",
    ),
    (
        "resize-f32",
        "input %x: f32[2,3,5,7] const %s: i64[4] = [2, 3, 9, 4]",
        "%y: f32[2,3,9,4] = Resize(%x, _, _, %s) {mode=\"linear\"}",
    ),
    (
        "resize-f32",
        "input %x: f32[2,5,7,20] const %s: f32[4] = [1, 2, 1.5, 1]",
        "%y: f32[2,10,10,20] = Resize(%x, _, %s) {mode=\"cubic\", coordinates=\"align_corners\"}",
    ),
    (
        "resize-nearest",
        "input %x: u8[1,3,4,5] const %s: f32[4] = [1, 1, 2, 2]",
        "%y: u8[1,3,8,10] = Resize(%x, _, %s) {coordinates=\"asymmetric\", nearest=\"floor\"}",
    ),
    ("map", "input %x: f32[5,3]", "%y: f32[5,3] = Unary(%x) {function=\"erf\"}"),
    ("softmax", "input %x: f32[5,3,4]", "%y: f32[5,3,4] = Softmax(%x) {axis=1}"),
];

#[test]
fn every_element_has_a_kernel() {
    for (kernel, operands, node) in CASES {
        let source = format!("graph \"g\" {{ {operands}\n{node}\noutput %y }}");
        check_kernels(&source, &[kernel]);
    }
}

#[test]
fn work_is_shared_between_threads() {
    let source = "graph \"g\" { input %x: f32[64,1024] input %s: f32[1024]
        const %a: i64[1] = [1]
        %n: f32[64,1024] = LayerNormalization(%x, %s)
        %m: f32[64,1024] = Binary(%n, %s)
        %r: f32[64,1] = Reduce(%m, %a) {function=\"mean\"}
        output %n, %r }";
    check_kernels(source, &["layer-normalization", "binary", "reduce"]);
}
