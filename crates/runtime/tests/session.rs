//! The runtime gives what the reference interpreter gives, on every instruction set.

use lepton_ir::{Graph, interpret, text};
use lepton_kernels::Isa;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::Tensor;

/// Values between −1 and 1 that look random and never change.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2654435761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn constant(name: &str, shape: &[usize], seed: u32) -> String {
    let count = shape.iter().product();
    let list: Vec<String> = values(count, seed).iter().map(|v| format!("{v:?}")).collect();
    format!("const %{name}: f32{shape:?} = [{}]\n", list.join(", "))
}

fn check(source: &str, shapes: &[&[usize]]) {
    let graph: Graph = text::parse(source).unwrap();
    let inputs: Vec<Tensor> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let count = shape.iter().product();
            Tensor::from_slice(shape.to_vec(), &values(count, 77 + i as u32)).unwrap()
        })
        .collect();
    let expected = interpret::run(&graph, &inputs).unwrap();
    for isa in Isa::available() {
        for threads in [1, 2] {
            let options = SessionOptions { isa, threads, ..SessionOptions::default() };
            let session = Session::new(&graph, options).unwrap();
            let lowered = interpret::run(session.lowered(), &inputs).unwrap();
            let (found, profile) = session.profile(&inputs).unwrap();
            assert_eq!(found, session.run(&inputs).unwrap(), "runs repeat");
            assert!(!profile.is_empty());
            for ((want, low), have) in expected.iter().zip(&lowered).zip(&found) {
                close(want, low, "lowered");
                close(want, have, isa.name());
            }
        }
    }
}

fn close(want: &Tensor, have: &Tensor, what: &str) {
    assert_eq!((want.shape(), want.dtype()), (have.shape(), have.dtype()), "{what}");
    for (i, (w, h)) in want.to_f64_vec().into_iter().zip(have.to_f64_vec()).enumerate() {
        assert!((w - h).abs() <= 1e-4 * w.abs().max(1.0), "{what}: element {i}: {w} and {h}");
    }
}

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
