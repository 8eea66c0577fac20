//! Quantised graphs before and after lowering: the operators that remain, and the same answer.

use lepton_ir::{Graph, Node, interpret, text};
use lepton_passes::{pipelines, run_pipeline};
use lepton_tensor::{DType, Tensor};

/// Integers in `-limit..=limit` that look random and never change.
fn integers(count: usize, seed: u32, limit: i64) -> Vec<i64> {
    let mut state = seed.wrapping_mul(2654435761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        i64::from(state)
    };
    (0..count).map(|_| next() % (2 * limit + 1) - limit).collect()
}

fn constant(name: &str, dtype: &str, shape: &[usize], seed: u32, limit: i64) -> String {
    let list: Vec<String> =
        integers(shape.iter().product(), seed, limit).iter().map(|v| v.to_string()).collect();
    format!("const %{name}: {dtype}{shape:?} = [{}]\n", list.join(", "))
}

/// Scales that differ from channel to channel.
fn scales(name: &str, count: usize) -> String {
    let list: Vec<String> = (0..count).map(|n| format!("{:?}", 0.004 + n as f32 * 0.001)).collect();
    format!("const %{name}: f32[{count}] = [{}]\n", list.join(", "))
}

/// Step and zero point shared by the cases.
const SHARED: &str = "const %s: f32[] = [0.05]\nconst %t: f32[] = [0.04]\n
    const %z: u8[] = [3]\nconst %y: u8[] = [128]\nconst %i: i8[] = [-7]\n";

fn lowered(source: &str) -> (Graph, Graph) {
    let before = text::parse(source).unwrap();
    let mut after = before.clone();
    run_pipeline(pipelines::LOWER, &mut after).unwrap();
    // Sessions leave these out where no extent is open.
    for pass in pipelines::SPECIALISE {
        assert_eq!((pass.run)(&mut after).unwrap(), 0, "{}", pass.name);
    }
    (before, after.compacted())
}

/// Lowers, checks which operators remain, and that results differ by at most one step (`step` for
/// reals, 1 for bytes).
fn check(source: &str, remaining: &[(&str, usize)], step: f64) {
    let (before, after) = lowered(source);
    let found = after.operator_counts();
    let mut wanted: Vec<(String, usize)> =
        remaining.iter().map(|(name, count)| (name.to_string(), *count)).collect();
    wanted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    assert_eq!(found, wanted, "{}", text::print_brief(&after));
    let inputs: Vec<Tensor> = before
        .input_specs()
        .iter()
        .enumerate()
        .map(|(i, (_, fact))| {
            let shape = fact.shape().unwrap();
            let values = integers(shape.iter().product(), 90 + i as u32, 1000);
            let real: Vec<f64> = values.iter().map(|v| *v as f64 / 250.0).collect();
            let byte: Vec<f64> = values.iter().map(|v| (v % 127) as f64).collect();
            let of = if fact.dtype == DType::F32 { real } else { byte };
            Tensor::from_f64_slice(fact.dtype, shape, &of).unwrap()
        })
        .collect();
    let want = interpret::run(&before, &inputs).unwrap();
    let have = interpret::run(&after, &inputs).unwrap();
    for (w, h) in want.iter().zip(&have) {
        assert_eq!((w.shape(), w.dtype()), (h.shape(), h.dtype()));
        let limit = if w.dtype() == DType::F32 { step } else { 1.0 };
        let (w, h) = (w.to_f64_vec(), h.to_f64_vec());
        assert!(w.iter().any(|v| *v != w[0]), "a constant result shows nothing");
        for (a, b) in w.iter().zip(&h) {
            assert!((a - b).abs() <= limit, "{a} and {b} differ by more than {limit}");
        }
    }
}

/// A table over the integers of a byte is one over the byte.
#[test]
fn gathers_of_bytes_are_tables() {
    let source = format!(
        "graph \"g\" {{ input %x: u8[2,4,4]\n{}
        %i: i64[2,4,4] = Cast(%x) {{to=\"i64\"}}
        %y: u8[2,4,4] = Gather(%table, %i)\noutput %y }}",
        constant("table", "u8", &[256], 5, 100).replace("-", "")
    );
    check(&source, &[("Lookup", 1)], 0.0);
}

/// A shape that is an input: the extents are named after the node, which stays.
#[test]
fn reshapes_whose_extents_a_run_tells_stay() {
    let source = format!(
        "graph \"g\" {{ input %x: i8[2,6]\ninput %shape: i64[2]\n{SHARED}
        %a: f32[2,6] = DequantizeLinear(%x, %s, %i)
        %b: f32[?1.0,?1.1] = Reshape(%a, %shape)
        %c: i8[?1.0,?1.1] = QuantizeLinear(%b, %s, %i)
        output %c }}"
    );
    let (_, after) = lowered(&source);
    let bytes: Vec<i64> = (-6..6).collect();
    let x = Tensor::from_i64_slice(DType::I8, vec![2, 6], &bytes).unwrap();
    let shape = Tensor::from_i64_slice(DType::I64, vec![2], &[4, 3]).unwrap();
    let made = interpret::run(&after, &[x, shape]).unwrap();
    assert_eq!((made[0].shape(), made[0].to_i64_vec()), (&[4, 3][..], bytes));
}

#[test]
fn a_residual_block_with_one_padded_convolution_runs_on_bytes() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[2,3,6,5]\n{SHARED}{}{}{}{}{}
         const %bs: f32[4] = [0.0002, 0.00025, 0.0003, 0.00035]
         const %zw: i8[4] = [0, 0, 0, 0]
         %q0: u8[2,3,6,5] = QuantizeLinear(%x, %s, %y)
         %d0: f32[2,3,6,5] = DequantizeLinear(%q0, %s, %y)
         %w1: f32[4,3,3,3] = DequantizeLinear(%v1, %k, %zw) {{axis=0}}
         %w2: f32[4,4,1,1] = DequantizeLinear(%v2, %k) {{axis=0}}
         %b1: f32[4] = DequantizeLinear(%vb, %bs) {{axis=0}}
         %c1: f32[2,4,6,5] = Conv(%d0, %w1, %b1) {{pads=[1, 1, 1, 1]}}
         %r1: f32[2,4,6,5] = Unary(%c1) {{function=\"relu\"}}
         %q1: u8[2,4,6,5] = QuantizeLinear(%r1, %t, %z)
         %d1: f32[2,4,6,5] = DequantizeLinear(%q1, %t, %z)
         %c2: f32[2,4,6,5] = Conv(%d1, %w2, %fb)
         %a: f32[2,4,6,5] = Binary(%c2, %d1)
         %q2: u8[2,4,6,5] = QuantizeLinear(%a, %t, %y)
         %d2: f32[2,4,6,5] = DequantizeLinear(%q2, %t, %y)
         %m: f32[2,4,3,2] = Pool(%d2) {{kernel=[2, 2], strides=[2, 2]}}
         %q3: u8[2,4,3,2] = QuantizeLinear(%m, %t, %y)
         %d3: f32[2,4,3,2] = DequantizeLinear(%q3, %t, %y)
         output %d3 }}",
        constant("v1", "i8", &[4, 3, 3, 3], 1, 127),
        constant("v2", "i8", &[4, 4, 1, 1], 2, 127),
        constant("vb", "i32", &[4], 3, 900),
        scales("k", 4),
        "const %fb: f32[4] = [0.1, -0.2, 0.3, 0.4]\n",
    );
    let remaining = [
        ("IntegerConv", 2),
        ("Transpose", 2),
        ("QuantizeLinear", 1),
        ("DequantizeLinear", 1),
        ("Pool", 1),
    ];
    check(&source, &remaining, 0.041);
}

#[test]
fn linear_layers_of_signed_bytes_become_unsigned() {
    let source = format!(
        "graph \"g\" {{ input %x: i8[3,2,4]\n{SHARED}{}{}{}
         %d: f32[3,2,4] = DequantizeLinear(%x, %s, %i)
         %f: f32[3,8] = Flatten(%d)
         %w1: f32[6,8] = DequantizeLinear(%v1, %k) {{axis=0}}
         %w2: f32[6,5] = DequantizeLinear(%v2, %s)
         %g: f32[3,6] = Gemm(%f, %w1, %b) {{trans_b=1}}
         %h: f32[3,6] = Unary(%g) {{function=\"clip\", alpha=-0.5, beta=6.0}}
         %q: i8[3,6] = QuantizeLinear(%h, %t, %i)
         %e: f32[3,6] = DequantizeLinear(%q, %t, %i)
         %o: f32[3,5] = MatMul(%e, %w2)
         output %o }}",
        constant("v1", "i8", &[6, 8], 4, 127),
        constant("v2", "i8", &[6, 5], 5, 127),
        scales("k", 6) + "const %b: f32[6] = [0.1, 0.2, 0.3, -0.1, -0.2, -0.3]\n",
    );
    let remaining = [("IntegerLinear", 2), ("Lookup", 1), ("Flatten", 1)];
    // The second layer sums over bytes that may differ by a step: Σ|w|·0.04 at most.
    check(&source, &remaining, 0.04 * 6.0 * 127.0 * 0.05);
}

#[test]
fn a_function_between_a_linear_layer_and_bytes_is_part_of_the_layer() {
    let source = format!(
        "graph \"g\" {{ input %x: u8[3,6]\n{SHARED}{}
         %d: f32[3,6] = DequantizeLinear(%x, %s, %y)
         %w: f32[6,8] = DequantizeLinear(%v, %t)
         %g: f32[3,8] = MatMul(%d, %w)
         %h: f32[3,8] = Unary(%g) {{function=\"gelu\"}}
         %q: u8[3,8] = QuantizeLinear(%h, %t, %z)
         output %q }}",
        constant("v", "i8", &[6, 8], 4, 127),
    );
    check(&source, &[("IntegerLinear", 1)], 0.0);
}

#[test]
fn signed_bytes_that_are_only_counted_become_unsigned() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[3,4]\n{SHARED}
         %q: i8[3,4] = QuantizeLinear(%x, %s, %i)
         %c: f32[3,4] = Cast(%q)
         output %c }}"
    );
    let (_, low) = lowered(&source);
    let unsigned = |node: &Node| low.fact(node.outputs[0].expect("a result")).dtype == DType::U8;
    assert!(low.nodes().any(|(_, node)| unsigned(node)), "{}", text::print_brief(&low));
    check(&source, &[("DequantizeLinear", 1), ("QuantizeLinear", 1)], 0.0);
}

#[test]
fn moves_sums_and_tables_run_on_bytes() {
    let source = format!(
        "graph \"g\" {{ input %x: u8[2,4,4]\n input %u: u8[2,4,4]\n{SHARED}
         const %from: i64[1] = [1]\nconst %to: i64[1] = [4]\nconst %axes: i64[1] = [1]
         const %pads: i64[6] = [0, 1, 0, 0, 0, 1]\nconst %half: f32[] = [0.5]
         %d: f32[2,4,4] = DequantizeLinear(%x, %s, %y)
         %e: f32[2,4,4] = DequantizeLinear(%u, %t, %y)
         %a: f32[2,4,4] = Binary(%d, %e)
         %r: f32[2,4,4] = Unary(%a) {{function=\"relu\"}}
         %qa: u8[2,4,4] = QuantizeLinear(%r, %t, %z)
         %da: f32[2,4,4] = DequantizeLinear(%qa, %t, %z)
         %c: f32[2,3,4] = Slice(%da, %from, %to, %axes)
         %qc: u8[2,3,4] = QuantizeLinear(%c, %t, %z)
         %dc: f32[2,3,4] = DequantizeLinear(%qc, %t, %z)
         %p: f32[2,4,5] = Pad(%dc, %pads)
         %qp: u8[2,4,5] = QuantizeLinear(%p, %t, %z)
         %dp: f32[2,4,5] = DequantizeLinear(%qp, %t, %z)
         %m: f32[2,4,4] = Binary(%d, %e) {{function=\"mul\"}}
         %qm: u8[2,4,4] = QuantizeLinear(%m, %s, %y)
         %dm: f32[2,4,4] = DequantizeLinear(%qm, %s, %y)
         %h: f32[2,4,4] = Unary(%dm) {{function=\"silu\", alpha=1.0}}
         %l: f32[2,4,4] = Binary(%h, %half) {{function=\"mul\"}}
         %ql: u8[2,4,4] = QuantizeLinear(%l, %t, %y)
         %dl: f32[2,4,4] = DequantizeLinear(%ql, %t, %y)
         %j: f32[2,4,9] = Concat(%dp, %dl) {{axis=2}}
         %qj: u8[2,4,9] = QuantizeLinear(%j, %t, %z)
         output %qj }}"
    );
    let remaining = [("IntegerBinary", 1), ("IntegerBinary(mul)", 1), ("Slice", 1), ("Pad", 1)];
    let remaining: Vec<_> = remaining.into_iter().chain([("Lookup", 1), ("Concat", 1)]).collect();
    check(&source, &remaining, 0.0);
}

#[test]
fn a_byte_times_its_own_sigmoid_is_a_table() {
    let source = format!(
        "graph \"g\" {{ input %x: u8[4,64]\n{SHARED}
         %d: f32[4,64] = DequantizeLinear(%x, %s, %y)
         %g: f32[4,64] = Unary(%d) {{function=\"sigmoid\"}}
         %qg: u8[4,64] = QuantizeLinear(%g, %t, %z)
         %dg: f32[4,64] = DequantizeLinear(%qg, %t, %z)
         %m: f32[4,64] = Binary(%dg, %d) {{function=\"mul\"}}
         %qm: u8[4,64] = QuantizeLinear(%m, %t, %y)
         output %qm }}"
    );
    check(&source, &[("Lookup", 1)], 0.0);
}

#[test]
fn what_does_not_fit_is_dequantised_and_stays() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[3,4]\n{SHARED}{}
         const %odd: i8[] = [5]
         %w: f32[4,2] = DequantizeLinear(%v, %s, %odd)
         %q: u8[3,4] = QuantizeLinear(%x, %s, %y)
         %d: f32[3,4] = DequantizeLinear(%q, %s, %y)
         %o: f32[3,2] = MatMul(%d, %w)
         %o2: f32[3,2] = MatMul(%x, %w)
         output %o, %o2 }}",
        constant("v", "i8", &[4, 2], 6, 127),
    );
    let remaining = [("Linear", 2), ("QuantizeLinear", 1), ("DequantizeLinear", 1)];
    check(&source, &remaining, 1e-4);
}
