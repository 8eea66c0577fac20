//! Steps over bytes: exactly what the interpreter gives, so the same on every instruction set.

use crate::case::{check, check_kernels, constant, integers};

/// Scales that keep sums of some dozens of products of bytes within a byte.
fn multipliers(count: usize) -> String {
    let list: Vec<String> =
        (0..count).map(|n| format!("{:?}", 0.0011 + n as f32 * 0.0001)).collect();
    format!("const %m: f32[{count}] = [{}]\n", list.join(", "))
}

/// Weights shape, group, rest of the attributes, extents of the result `[H, W]`.
type Window<'a> = (&'a [usize], usize, &'a str, [usize; 2]);

/// Windows over images of 7 by 6 with as many channels as the weights see.
const WINDOWS: &[Window<'_>] = &[
    (&[16, 3, 3, 3], 1, "pads=[1, 1, 1, 1]", [7, 6]),
    (&[5, 3, 3, 3], 1, "pads=[1, 0, 2, 1], strides=[2, 1]", [4, 5]),
    (&[20, 1, 1, 7], 1, "strides=[2, 2]", [4, 3]),
    (&[33, 3, 3, 16], 1, "pads=[1, 1, 1, 1]", [7, 6]),
    (&[7, 3, 2, 5], 1, "dilations=[2, 3]", [3, 3]),
    (&[8, 3, 3, 1], 8, "pads=[1, 1, 1, 1]", [7, 6]),
    (&[21, 5, 5, 1], 21, "pads=[2, 2, 2, 2], strides=[2, 2]", [4, 3]),
    (&[6, 3, 3, 2], 3, "pads=[1, 1, 1, 1]", [7, 6]),
    (&[64, 3, 3, 32], 1, "pads=[1, 1, 1, 1]", [7, 6]),
];

fn conv(window: Window<'_>, epilogue: &str, to: &str, residual: &str, table: bool) {
    let (shape, group, attributes, [height, width]) = window;
    let (m, channels) = (shape[0], shape[3] * group);
    let result = format!("{to}[2,{height},{width},{m}]");
    let (r, t) = (if residual.is_empty() { "_" } else { "%r" }, if table { "%t" } else { "_" });
    let input = if residual.is_empty() { String::new() } else { format!("input %r: {result}") };
    let source = format!(
        "graph \"g\" {{ input %x: u8[2,7,6,{channels}] {input}\n{}{}{}{}
         %y: {result} = IntegerConv(%x, %w, %b, %m, {r}, {t})
           {{{attributes}, group={group}, x_zero=7{epilogue}{residual}}}
         output %y }}",
        integers("w", "i8", shape, 3, [-127, 127]),
        integers("b", "i32", &[m], 4, [-3000, 3000]),
        multipliers(m),
        integers("t", "u8", &[256], 5, [0, 255]),
    );
    let kernels = check(&source, &[]);
    assert!(!kernels.contains(&"reference"), "{kernels:?} {source}");
}

#[test]
fn convolutions() {
    let residual = ", residual_zero=3, residual_scale=0.4";
    for &window in WINDOWS {
        conv(window, ", zero=120", "u8", "", false);
        conv(window, ", zero=100, low=100", "u8", residual, false);
        conv(window, ", zero=9, high=200", "u8", "", true);
        conv(window, ", zero=9", "u8", residual, true);
        conv(window, ", output=\"f32\"", "f32", "", false);
    }
}

#[test]
fn linear_layers() {
    for (k, n) in [(3, 5), (64, 32), (130, 33), (16, 64)] {
        for (to, attributes, kind) in
            [("u8", "zero=130, low=20", "%t"), ("f32", "output=\"f32\"", "_")]
        {
            let source = format!(
                "graph \"g\" {{ input %x: u8[3,2,{k}]\n{}{}{}{}
                 %y: {to}[3,2,{n}] = IntegerLinear(%x, %w, %b, %m, _, {kind}) {{{attributes}}}
                 output %y }}",
                integers("w", "i8", &[k, n], 3, [-127, 127]),
                integers("b", "i32", &[n], 4, [-3000, 3000]),
                multipliers(n),
                integers("t", "u8", &[256], 5, [0, 255]),
            );
            check_kernels(&source, &["linear-u8s8"]);
        }
    }
}

#[test]
fn linear_layers_of_bytes_through_a_function() {
    for function in ["gelu", "gelu_tanh", "sigmoid", "tanh"] {
        let (k, n) = (64, 33);
        let source = format!(
            "graph \"g\" {{ input %x: u8[3,2,{k}]\n{}{}{}
             %y: u8[3,2,{n}] = IntegerLinear(%x, %w, %b, %m) {{zero=9, activation=\"{function}\", step=0.013}}
             output %y }}",
            integers("w", "i8", &[k, n], 3, [-127, 127]),
            integers("b", "i32", &[n], 4, [-3000, 3000]),
            multipliers(n),
        );
        check_kernels(&source, &["linear-u8s8"]);
    }
}

#[test]
fn pairs_and_tables() {
    for (function, kernel) in [("add", "add-u8"), ("mul", "multiply-u8")] {
        for other in ["2,5,33", "33", "5,1", ""] {
            let source = format!(
                "graph \"g\" {{ input %a: u8[2,5,33] input %b: u8[{other}]\n{}
                 %s: u8[2,5,33] = IntegerBinary(%a, %b) {{function=\"{function}\", a_scale=0.3,
                   a_zero=120, b_scale=0.07, b_zero=17, zero=40, low=3, high=250}}
                 %y: u8[2,5,33] = Lookup(%s, %t)
                 output %s, %y }}",
                integers("t", "u8", &[256], 5, [0, 255]),
            );
            check_kernels(&source, &[kernel, "table"]);
        }
    }
}

#[test]
fn activations_quantised_at_run_time() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[2,3,37] input %r: f32[2,3,20]\n{}{}{}
         %y: f32[2,3,20] = DynamicLinear(%x, %w, %s, %b, %r)
         %z: f32[2,3,20] = DynamicLinear(%x, %w, %s)
         output %y, %z }}",
        integers("w", "i8", &[37, 20], 3, [-127, 127]),
        constant("s", &[20], 6),
        constant("b", &[20], 7),
    );
    check_kernels(&source, &["linear-dynamic-u8s8"; 2]);
    // Few channels, a whole window of many, and single pixels.
    for (kernel, channels, window, stride) in [
        ("stem-dynamic-u8s8", 3, 3, 2),
        ("conv-dynamic-u8s8", 24, 3, 2),
        ("conv-dynamic-u8s8", 24, 1, 1),
    ] {
        let [height, width] = [7, 6].map(|extent: usize| extent.div_ceil(stride));
        let pad = window / 2;
        let source = format!(
            "graph \"g\" {{ input %x: f32[2,{channels},7,6]\n{}{}{}
             %y: f32[2,20,{height},{width}] = DynamicConv(%x, %w, %s, %b)
             {{pads=[{pad}, {pad}, {pad}, {pad}], strides=[{stride}, {stride}]}}
             output %y }}",
            integers("w", "i8", &[20, channels, window, window], 3, [-127, 127]),
            constant("s", &[20], 6),
            constant("b", &[20], 7),
        );
        let kernels = check(&source, &[]);
        assert!(kernels.contains(&kernel) && !kernels.contains(&"reference"), "{kernels:?}");
    }
}

#[test]
fn weights_in_groups() {
    let kinds = [("u4", [0, 15]), ("i4", [-8, 7]), ("u8", [0, 255]), ("i8", [-128, 127])];
    for (k, n, group) in [(32, 5, 8), (64, 33, 32), (64, 130, 64)] {
        for (kind, range) in kinds {
            for (lead, zero) in [("", "_"), ("3", "%z"), ("2,9", "%z"), ("2,9", "_")] {
                let rows = if lead.is_empty() { "1" } else { lead };
                let source = format!(
                    "graph \"g\" {{ input %x: f32[{rows},{k}] input %r: f32[{rows},{n}]\n{}{}{}{}
                     %d: f32[{k},{n}] = DequantizeLinear(%w, %s, {zero}) {{axis=0}}
                     %p: f32[{rows},{n}] = MatMul(%x, %d)
                     %q: f32[{rows},{n}] = Binary(%p, %b)
                     %t: f32[{rows},{n}] = Binary(%q, %r)
                     %y: f32[{rows},{n}] = Unary(%t) {{function=\"gelu\"}}
                     output %y }}",
                    integers("w", kind, &[k, n], 3, range),
                    integers("z", kind, &[k / group, n], 4, range),
                    constant("s", &[k / group, n], 6),
                    constant("b", &[n], 7),
                );
                let kernel = if kind.ends_with('4') { "linear-4-bit" } else { "linear-8-bit" };
                check_kernels(&source, &[kernel]);
            }
        }
    }
}

#[test]
fn in_and_out_of_bytes() {
    let source = "graph \"g\" { input %x: f32[3,37]
        const %s: f32[] = [0.037] const %z: u8[] = [131] const %i: i8[] = [-5]
        %q: u8[3,37] = QuantizeLinear(%x, %s, %z)
        %d: f32[3,37] = DequantizeLinear(%q, %s, %z)
        %p: i8[3,37] = QuantizeLinear(%x, %s, %i)
        output %q, %d, %p }";
    let kernels = check(source, &[]);
    assert!(!kernels.contains(&"reference"), "{kernels:?}");
}

#[test]
fn images_are_quantised_and_put_channels_last_at_once() {
    for channels in 2..=4 {
        for (kind, zero) in [("u8", 131), ("i8", -5)] {
            let source = format!(
                "graph \"g\" {{ input %x: f32[2,{channels},5,7]
                 const %s: f32[] = [0.037] const %z: {kind}[] = [{zero}]
                 %q: {kind}[2,{channels},5,7] = QuantizeLinear(%x, %s, %z)
                 %y: {kind}[2,5,7,{channels}] = Transpose(%q) {{permutation=[0, 2, 3, 1]}}
                 output %y }}"
            );
            check_kernels(&source, &["quantize-pixels"]);
        }
    }
}
