//! Small networks: products, their epilogues, and what lies between them.

use lepton_ir::{interpret, text};
use lepton_kernels::Isa;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::Tensor;

use crate::case::{check, check_kernels, close, constant, values};

#[test]
fn a_residual_network() {
    let source = format!(
        "graph \"net\" {{ input %x: f32[n,3,9,7]\n{}{}{}{}{}
         %a: f32[n,20,9,7] = Conv(%x, %w1, %b1) {{pads=[1, 1, 1, 1]}}
         %r: f32[n,20,9,7] = Unary(%a) {{function=\"relu\"}}
         %c: f32[n,20,9,7] = Conv(%r, %w2) {{pads=[1, 1, 1, 1]}}
         %s: f32[n,20,9,7] = Binary(%c, %r)
         %t: f32[n,20,9,7] = Unary(%s) {{function=\"relu\"}}
         %d: f32[n,20,5,4] = Conv(%t, %w3) {{pads=[1, 1, 1, 1], strides=[2, 2], group=20}}
         %m: f32[n,20,3,2] = Pool(%d) {{kernel=[2, 2], strides=[2, 2], ceil=1}}
         %g: f32[n,20,1,1] = Pool(%m) {{function=\"average\", global=1}}
         %f: f32[n,20] = Flatten(%g)
         %y: f32[n,5] = Gemm(%f, %w4) {{trans_b=1}}
         %p: f32[n,5] = Softmax(%y)
         output %p, %y }}",
        constant("w1", &[20, 3, 3, 3], 1),
        constant("b1", &[20], 2),
        constant("w2", &[20, 20, 3, 3], 3),
        constant("w3", &[20, 1, 3, 3], 4),
        constant("w4", &[5, 20], 5),
    );
    for batch in [1, 3] {
        check(&source, &[&[batch, 3, 9, 7]]);
    }
}

#[test]
fn large_images_pass_in_strips() {
    for (stride, kernel, pad, h, w) in [(1, 3, 1, 71, 75), (2, 5, 2, 36, 38)] {
        let source = format!(
            "graph \"net\" {{ input %x: f32[n,4,71,75]\n{}{}{}
             %a: f32[n,52,71,75] = Conv(%x, %w, %b)
             %r: f32[n,52,71,75] = Unary(%a) {{function=\"relu\"}}
             %y: f32[n,52,{h},{w}] = Conv(%r, %d) {{pads=[{pad}, {pad}, {pad}, {pad}], strides=[{stride}, {stride}], group=52}}
             output %y }}",
            constant("w", &[52, 4, 1, 1], 1),
            constant("b", &[52], 2),
            constant("d", &[52, 1, kernel, kernel], 3),
        );
        for batch in [1, 2] {
            let kernels = check(&source, &[&[batch, 4, 71, 75]]);
            assert_eq!(kernels, ["transpose", "conv-depthwise-f32", "transpose"]);
        }
    }
}

#[test]
fn products_and_broadcasts() {
    let source = format!(
        "graph \"net\" {{ input %x: f32[n,6,8] input %k: f32[n,8,6]\n{}{}
         %q: f32[n,6,12] = MatMul(%x, %w)
         %h: f32[n,6,12] = Binary(%q, %b)
         %e: f32[n,6,12] = Unary(%h) {{function=\"gelu\"}}
         %s: f32[n,6,6] = MatMul(%x, %k)
         %p: f32[n,6,6] = Softmax(%s)
         %z: f32[n,6,12] = MatMul(%p, %e)
         %t: f32[12,6,n] = Transpose(%z)
         output %t }}",
        constant("w", &[8, 12], 1),
        constant("b", &[12], 2),
    );
    check(&source, &[&[2, 6, 8], &[2, 8, 6]]);
}

#[test]
fn outputs_may_be_inputs_or_constants() {
    let source = "graph \"net\" { input %x: f32[n,2]
        const %c: f32[2] = [1., 2.]
        %y: f32[2,n] = Transpose(%x)
        output %x, %c, %y, %y }";
    check(source, &[&[3, 2]]);
}

#[test]
fn shortcuts_without_weights_stay_channels_last() {
    let source = format!(
        "graph \"net\" {{ input %x: f32[1,3,8,8]\n{}{}
         const %from: i64[2] = [0, 0]\nconst %to: i64[2] = [8, 8]
         const %axes: i64[2] = [2, 3]\nconst %steps: i64[2] = [2, 2]
         const %pads: i64[8] = [0, 2, 0, 0, 0, 2, 0, 0]\nconst %last: i64[2] = [2, 3]
         %a: f32[1,4,8,8] = Conv(%x, %w1) {{pads=[1, 1, 1, 1]}}
         %s: f32[1,4,4,4] = Slice(%a, %from, %to, %axes, %steps)
         %p: f32[1,8,4,4] = Pad(%s, %pads)
         %c: f32[1,8,4,4] = Conv(%a, %w2) {{pads=[1, 1, 1, 1], strides=[2, 2]}}
         %t: f32[1,8,4,4] = Binary(%c, %p)
         %r: f32[1,8,4,4] = Unary(%t) {{function=\"relu\"}}
         %m: f32[1,8] = Reduce(%r, %last) {{function=\"mean\", keep_dims=0}}
         output %m }}",
        constant("w1", &[4, 3, 3, 3], 1),
        constant("w2", &[8, 4, 3, 3], 2),
    );
    let kernels = ["transpose", "stem-f32", "slice", "pad", "conv-f32", "reduce"];
    check_kernels(&source, &kernels);
}

#[test]
fn recurrent_layers() {
    for (op, gates, attributes) in [
        ("LSTM", 4, ""),
        ("LSTM", 4, "direction=\"bidirectional\""),
        ("LSTM", 4, "direction=\"reverse\""),
        ("GRU", 3, ""),
        ("GRU", 3, "direction=\"bidirectional\", linear_before_reset=1"),
    ] {
        let directions = if attributes.contains("bidirectional") { 2 } else { 1 };
        let state = format!("f32[{directions},3,5]");
        let cells =
            if op == "LSTM" { [", %c0", ", %c", &format!(", %c: {state}")] } else { [""; 3] };
        let braces =
            if attributes.is_empty() { String::new() } else { format!("{{{attributes}}}") };
        let source = format!(
            "graph \"g\" {{ input %x: f32[7,3,6] input %h0: {state} input %c0: {state}\n{}{}{}
             %y: f32[7,{directions},3,5], %h: {state}{} = {op}(%x, %w, %r, %b, _, %h0{}) {braces}
             output %y, %h{} }}",
            constant("w", &[directions, gates * 5, 6], 1),
            constant("r", &[directions, gates * 5, 5], 2),
            constant("b", &[directions, gates * 10], 3),
            cells[2],
            cells[0],
            cells[1],
        );
        check_kernels(&source, &[if op == "LSTM" { "lstm-f32" } else { "gru-f32" }]);
    }
}

/// A layer whose recurrent matrix is larger than L1.
fn large_layer(op: &str, batch: usize) -> String {
    let (gates, hidden) = (if op == "LSTM" { 4 } else { 3 }, 70);
    let result = format!("f32[1,{batch},{hidden}]");
    let cells = if op == "LSTM" { format!(", %c: {result}") } else { String::new() };
    // So small that differences die out from step to step.
    let r: Vec<String> =
        values(gates * hidden * hidden, 2).iter().map(|v| format!("{:?}", v / 8.0)).collect();
    format!(
        "graph \"g\" {{ input %x: f32[9,{batch},6]\n{}
         const %r: f32[1,{},{hidden}] = [{}]
         %y: f32[9,1,{batch},{hidden}], %h: {result}{cells} = {op}(%x, %w, %r)
         output %y, %h }}",
        constant("w", &[1, gates * hidden, 6], 1),
        gates * hidden,
        r.join(", "),
    )
}

#[test]
fn large_recurrent_matrices_are_in_fixed_point() {
    for (op, names) in [("LSTM", ["lstm-f32", "lstm-i16-f32"]), ("GRU", ["gru-f32", "gru-i16-f32"])]
    {
        for isa in Isa::available() {
            // What several sequences share is f32, and so is what has to be exact.
            for (batch, exact) in [(1, false), (4, false), (1, true)] {
                let graph = text::parse(&large_layer(op, batch)).unwrap();
                let options = || SessionOptions { isa, exact, ..SessionOptions::default() };
                let input = Tensor::from_slice([9, batch, 6], &values(54 * batch, 3)).unwrap();
                let inputs = [input];
                let session = Session::new(&graph, options()).unwrap();
                let (found, profile) = session.profile(&inputs).unwrap();
                let fixed = isa.has_avx512() && batch == 1 && !exact;
                assert_eq!(profile[0].kernel, names[usize::from(fixed)], "{isa} {batch} {exact}");
                for (want, have) in interpret::run(&graph, &inputs).unwrap().iter().zip(&found) {
                    close(want, have, op);
                }
                // A file keeps the form; one that was made without it is still read.
                let mut packs = session.packs();
                let has = packs.iter().any(|pack| pack.form == "recurrent-i16");
                assert_eq!(has, fixed, "{isa} {batch} {exact}");
                for _ in 0..2 {
                    let lowered = session.lowered().clone();
                    let again = Session::prepared(lowered, &packs, options()).unwrap();
                    assert_eq!(again.run(&inputs).unwrap(), found, "{isa} {batch} {exact}");
                    packs.retain(|pack| pack.form != "recurrent-i16");
                }
            }
        }
    }
}

/// Layers of an odd number of units, large enough to be divided, in one and both directions.
#[test]
fn threads_do_not_change_recurrent_layers() {
    let forms = [
        ("LSTM", 4, "direction=\"reverse\"", 1, 1),
        ("LSTM", 4, "", 1, 5),
        ("GRU", 3, "linear_before_reset=1", 1, 1),
        ("GRU", 3, "direction=\"reverse\"", 1, 1),
        ("GRU", 3, "direction=\"bidirectional\"", 2, 1),
    ];
    for ((op, gates, attributes, directions, batch), half) in
        forms.into_iter().flat_map(|form| [(form, false), (form, true)])
    {
        // Pairs of bf16 are whole.
        let hidden = if half { 254 } else { 253 };
        let dtype = if half { "bf16" } else { "f32" };
        let rows = gates * hidden;
        let braces =
            if attributes.is_empty() { String::new() } else { format!("{{{attributes}}}") };
        let state = format!("f32[{directions},{batch},{hidden}]");
        let cells = if op == "LSTM" { format!(", %c: {state}") } else { String::new() };
        let weights = |name: &str, width: usize| {
            let values = values(directions * rows * width, width as u32);
            let values: Vec<String> = values.iter().map(|v| format!("{:?}", v / 64.0)).collect();
            let values = values.join(", ");
            format!("const %{name}: {dtype}[{directions},{rows},{width}] = [{values}]\n")
        };
        let source = format!(
            "graph \"g\" {{ input %x: f32[71,{batch},3]\n{}{}
             %y: f32[71,{directions},{batch},{hidden}], %h: {state}{cells} = {op}(%x, %w, %r) {braces}
             output %y, %h }}",
            weights("w", 3),
            weights("r", hidden),
        );
        let graph = text::parse(&source).unwrap();
        let input = Tensor::from_slice([71, batch, 3], &values(213 * batch, 3)).unwrap();
        let run = |threads: usize, exact: bool| {
            let options = SessionOptions { threads, exact, ..SessionOptions::default() };
            let session = Session::new(&graph, options).unwrap();
            // Later runs find workers awake.
            [0; 4].map(|_| session.run(std::slice::from_ref(&input)).unwrap())
        };
        for exact in [false, true] {
            let alone = run(1, exact);
            for threads in [2, 3, 4] {
                assert!(run(threads, exact) == alone, "{op} {attributes} {dtype} {threads}");
            }
        }
    }
}

#[test]
fn sequences() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[2,3,20]\n{}{}{}
         %c: f32[2,8,10] = Conv(%x, %w, %b) {{pads=[1, 1], strides=[2]}}
         %r: f32[2,8,10] = Unary(%c) {{function=\"relu\"}}
         %p: f32[2,8,5] = Pool(%r) {{kernel=[2], strides=[2]}}
         %d: f32[2,4,5] = Conv(%p, %v)
         %y: f32[2,4,1] = Pool(%d) {{function=\"average\", global=1}}
         output %d, %y }}",
        constant("w", &[8, 3, 3], 1),
        constant("b", &[8], 2),
        constant("v", &[4, 8, 1], 3),
    );
    let kernels = check(&source, &[]);
    assert!(!kernels.contains(&"reference"), "{kernels:?}");
    let convolutions = ["conv-f32", "stem-f32"];
    assert_eq!(kernels.iter().filter(|kernel| convolutions.contains(kernel)).count(), 2);
}
