//! Kernels from planes of images to pixels.

use lepton_kernels::Isa;
use lepton_kernels::pixels::quantize_pixels;

use crate::elements::{round, scaled};
use crate::frame::{Compare, Row, Values, on_slices};

pub const ROWS: &[Row] = &[Row {
    name: "pixels::quantize_pixels",
    compare: Compare::Bits,
    run: |row| row.run(scaled(), to_pixels, defined_pixels),
}];

/// Channels of the image that a list is made into.
fn channels_of((x, _, zero): &(Vec<f32>, f32, u8)) -> usize {
    (1 + usize::from(*zero) % 4).min(x.len().max(1))
}

fn to_pixels(case: &(Vec<f32>, f32, u8), isa: Isa, threads: usize) -> Vec<Values> {
    let ((x, scale, zero), channels) = (case, channels_of(case));
    let pixels = x.len() / channels;
    let planes = &x[..pixels * channels];
    let mut bytes = vec![7u8; planes.len()];
    on_slices(threads, &mut bytes, channels, u64::from(*zero), |range, y| {
        let range = range.start / channels..range.end / channels;
        quantize_pixels(isa, (*scale, *zero), channels, planes, range, y);
    });
    vec![Values::integers(&bytes)]
}

fn defined_pixels(case: &(Vec<f32>, f32, u8)) -> Option<Vec<Values>> {
    let ((x, scale, zero), channels) = (case, channels_of(case));
    let pixels = x.len() / channels;
    let of = |at: usize| x[at % channels * pixels + at / channels];
    let byte = |at: usize| round(of(at) / scale, i32::from(*zero), 0, 255);
    Some(vec![Values::integers(&(0..pixels * channels).map(byte).collect::<Vec<i32>>())])
}
