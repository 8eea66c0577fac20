//! Products of bf16 and what lies between them: values stay bf16 where only products read them.

use lepton_ir::{Graph, interpret, text};
use lepton_kernels::Isa;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::Tensor;

use crate::case::{constant, values};

/// A constant of bf16.
fn weights(name: &str, shape: &[usize], seed: u32) -> String {
    constant(name, shape, seed).replace(": f32", ": bf16")
}

/// One layer of a transformer: 5 rows of 32, 2 heads of 16.
fn layer() -> Graph {
    let source = format!(
        "graph \"layer\" {{ input %x: f32[n,5,32] input %m: f32[n,1,1,5]
         const %s: i64[4] = [0, 0, 2, 16]
         const %t: i64[3] = [0, 0, 32]\n{}{}{}{}{}{}
         %n: f32[n,5,32] = LayerNormalization(%x, %g, %e)
         %q: f32[n,5,32] = Linear(%n, %wq)
         %k: f32[n,5,32] = Linear(%n, %wk)
         %v: f32[n,5,32] = Linear(%n, %wv)
         %qh: f32[n,5,2,16] = Reshape(%q, %s)
         %kh: f32[n,5,2,16] = Reshape(%k, %s)
         %vh: f32[n,5,2,16] = Reshape(%v, %s)
         %a: f32[n,5,2,16] = Attention(%qh, %kh, %vh, %m) {{scale=0.25}}
         %c: f32[n,5,32] = Reshape(%a, %t)
         %y: f32[n,5,32] = Linear(%c, %wo)
         output %y }}",
        constant("g", &[32], 1),
        constant("e", &[32], 2),
        weights("wq", &[32, 32], 3),
        weights("wk", &[32, 32], 4),
        weights("wv", &[32, 32], 5),
        weights("wo", &[32, 32], 6),
    );
    text::parse(&source).unwrap_or_else(|e| panic!("{e}\n{source}"))
}

fn run(graph: &Graph, inputs: &[Tensor], isa: Isa, exact: bool) -> (Vec<f64>, Vec<&'static str>) {
    let options = SessionOptions { isa, exact, ..SessionOptions::default() };
    let (found, profile) = Session::new(graph, options).unwrap().profile(inputs).unwrap();
    (found[0].to_f64_vec(), profile.iter().map(|step| step.kernel).collect())
}

#[test]
fn attention_between_products_of_bf16_multiplies_as_they_do() {
    let graph = layer();
    let inputs = [
        Tensor::from_slice([2, 5, 32], &values(320, 7)).unwrap(),
        Tensor::from_slice([2, 1, 1, 5], &values(10, 8)).unwrap(),
    ];
    let expected = interpret::run(&graph, &inputs).unwrap()[0].to_f64_vec();
    let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    for isa in Isa::available() {
        for exact in [true, false] {
            let (found, kernels) = run(&graph, &inputs, isa, exact);
            let rounds = isa.has_bf16() && !exact;
            let name = if rounds { "attention-bf16" } else { "attention-f32" };
            assert!(kernels.contains(&name), "{isa}: {kernels:?}");
            for (want, have) in expected.iter().zip(&found) {
                let limit = largest * 0.01;
                assert!((want - have).abs() < limit, "{isa} {exact}: {want} and {have}");
            }
        }
    }
}

/// Pixels whose maxima are squeezed, and excited by gates of their channels, between products.
fn gated(swapped: bool) -> Graph {
    let operands = if swapped { "%g, %d" } else { "%d, %g" };
    let source = format!(
        "graph \"gated\" {{ input %x: f32[n,3,5,20]\n{}{}{}{}
         %c: f32[n,3,5,20] = Conv(%x, %wc) {{layout=\"nhwc\"}}
         %k: f32[n,3,5,20] = Pool(%c) {{kernel=[3, 3], pads=[1, 1, 1, 1], layout=\"nhwc\"}}
         %d: f32[n,3,5,20] = Conv(%k, %wd) {{group=20, pads=[1, 1, 1, 1], layout=\"nhwc\"}}
         %p: f32[n,1,1,20] = Pool(%d) {{function=\"average\", global=1, layout=\"nhwc\"}}
         %g: f32[n,1,1,20] = Conv(%p, %wg) {{layout=\"nhwc\"}}
         %m: f32[n,3,5,20] = Binary({operands}) {{function=\"mul\"}}
         %y: f32[n,3,5,24] = Conv(%m, %wy) {{layout=\"nhwc\"}}
         output %y }}",
        weights("wc", &[20, 1, 1, 20], 4),
        weights("wd", &[20, 3, 3, 1], 1),
        weights("wg", &[20, 1, 1, 20], 2),
        weights("wy", &[24, 1, 1, 20], 3),
    );
    text::parse(&source).unwrap_or_else(|e| panic!("{e}\n{source}"))
}

#[test]
fn gated_pixels_stay_bf16_between_products() {
    let inputs = [Tensor::from_slice([2, 3, 5, 20], &values(600, 7)).unwrap()];
    for swapped in [false, true] {
        let graph = gated(swapped);
        let expected = interpret::run(&graph, &inputs).unwrap()[0].to_f64_vec();
        let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        for isa in Isa::available() {
            for exact in [true, false] {
                let (found, kernels) = run(&graph, &inputs, isa, exact);
                let names = match exact {
                    true => ["average-pool", "gate"],
                    false => ["average-pool-bf16", "gate-bf16"],
                };
                assert!(names.iter().all(|name| kernels.contains(name)), "{isa}: {kernels:?}");
                for (want, have) in expected.iter().zip(&found) {
                    let limit = largest * 0.01;
                    assert!((want - have).abs() < limit, "{isa} {exact}: {want} and {have}");
                }
            }
        }
    }
}
