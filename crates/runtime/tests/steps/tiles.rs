//! 3×3 convolutions by transformed tiles: chosen where they pay, and forbidden on request.

use lepton_ir::{Graph, interpret, text};
use lepton_kernels::Isa;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor};

use crate::case::constant;

/// A convolution of channels and an image's extent, with a residual and a clamp.
fn source(channels: usize, extent: usize) -> String {
    format!(
        "graph \"net\" {{ input %x: f32[n,{channels},{extent},{extent}]\n{}{}
         %c: f32[n,{channels},{extent},{extent}] = Conv(%x, %w, %b) {{pads=[1, 1, 1, 1]}}
         %s: f32[n,{channels},{extent},{extent}] = Binary(%c, %x)
         %y: f32[n,{channels},{extent},{extent}] = Unary(%s) {{function=\"relu\"}}
         output %y }}",
        constant("w", &[channels, channels, 3, 3], 1),
        constant("b", &[channels], 2),
    )
}

/// Differences are measured by the largest output: small ones are sums that cancel.
#[test]
fn tiles_serve_images_whose_weights_are_few() {
    // Of the last, threads divide the weights.
    let images = [(32, 18, 1), (32, 18, 3), (64, 9, 1), (64, 9, 3), (96, 12, 1)];
    for (channels, extent, batch) in images {
        let graph: Graph = text::parse(&source(channels, extent)).unwrap();
        let shape = vec![batch, channels, extent, extent];
        let count = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|i: usize| (i * 7919 % 211) as f64 / 211.0).collect();
        let x = [Tensor::from_f64_slice(DType::F32, shape, &values).unwrap()];
        let want = interpret::run(&graph, &x).unwrap()[0].to_f64_vec();
        let largest = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        for isa in Isa::available() {
            for threads in [1, 2] {
                let options = SessionOptions { isa, threads, ..SessionOptions::default() };
                let (found, profile) = Session::new(&graph, options).unwrap().profile(&x).unwrap();
                let tiles = profile.iter().any(|step| step.kernel.starts_with("conv-winograd"));
                assert!(tiles, "{isa} {channels} {extent}");
                let pairs = want.iter().zip(found[0].to_f64_vec());
                let far = pairs.fold(0.0, |most: f64, (w, f)| most.max((w - f).abs()));
                assert!(far < 1e-5 * largest, "{isa} {channels} {extent}: {far} of {largest}");
            }
        }
    }
}

#[test]
fn exact_sessions_take_the_direct_sum() {
    let graph: Graph = text::parse(&source(32, 18)).unwrap();
    let options = SessionOptions { exact: true, ..SessionOptions::default() };
    let session = Session::new(&graph, options).unwrap();
    let x = Tensor::zeros(DType::F32, vec![1, 32, 18, 18]).unwrap();
    let (_, profile) = session.profile(&[x]).unwrap();
    let kernels: Vec<&str> = profile.iter().map(|step| step.kernel).collect();
    assert!(kernels.contains(&"conv-f32"), "{kernels:?}");
}

#[test]
fn a_convolution_that_reads_its_neighbours_is_no_strip() {
    let source = format!(
        "graph \"g\" {{ input %x: f32[1,3,160,160]\n{}{}
         %a: f32[1,32,160,160] = Conv(%x, %w) {{pads=[1, 1, 1, 1]}}
         %y: f32[1,32,160,160] = Conv(%a, %d) {{group=32, pads=[1, 1, 1, 1]}}
         output %y }}",
        crate::case::constant("w", &[32, 3, 3, 3], 1),
        crate::case::constant("d", &[32, 1, 3, 3], 2),
    );
    crate::case::check(&source, &[]);
}
