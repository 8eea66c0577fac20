//! Which nodes suffer most from quantisation: each quantised alone, everything else in f32.

use std::collections::BTreeSet;

use lepton_ir::Graph;
use lepton_runtime::{Session, SessionOptions};
use lepton_tensor::{DType, Tensor};

use super::calibrate::Ranges;
use super::insert::{QuantizeOptions, quantisable_nodes, quantize_static};
use crate::error::CompressError;

/// Label and error of each quantisable node, in execution order.
///
/// The error is the distance of the graph's outputs with only that node quantised from the f32
/// outputs, over all samples: for rows of class scores (`[N, classes]`, two classes or more) the
/// mean Kullback–Leibler divergence of their softmax in nats, else the squared error relative to
/// the squared f32 outputs. Several outputs add up. `progress` is told the nodes done and their
/// number, and stops with what there is by returning false.
///
/// # Errors
/// No samples, samples that do not fit, activations without a range.
pub fn sensitivity(
    graph: &Graph,
    ranges: &Ranges,
    samples: &[Vec<Tensor>],
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Vec<(String, f64)>, CompressError> {
    if samples.is_empty() {
        return Err(CompressError::NoSamples { what: "sensitivity" });
    }
    let outputs = |graph: &Graph| -> Result<Vec<Vec<Tensor>>, CompressError> {
        let session = Session::new(graph, SessionOptions::default())?;
        samples.iter().map(|sample| Ok(session.run(sample)?)).collect()
    };
    let reference = outputs(graph)?;
    let nodes = quantisable_nodes(graph);
    let mut found = Vec::with_capacity(nodes.len());
    for (done, node) in nodes.iter().enumerate() {
        let keep: BTreeSet<String> = nodes.iter().filter(|n| *n != node).cloned().collect();
        let options = QuantizeOptions { keep: &keep, ..QuantizeOptions::new(ranges) };
        let changed = outputs(&quantize_static(graph, &options)?)?;
        found.push((node.clone(), distance(&reference, &changed)));
        if !progress(done + 1, nodes.len()) {
            break;
        }
    }
    Ok(found)
}

/// Distance between runs over the same samples.
fn distance(reference: &[Vec<Tensor>], changed: &[Vec<Tensor>]) -> f64 {
    let count = reference.first().map_or(0, Vec::len);
    let mut sum = 0.0;
    for output in 0..count {
        let pairs: Vec<(&Tensor, &Tensor)> =
            reference.iter().zip(changed).map(|(r, c)| (&r[output], &c[output])).collect();
        if pairs.iter().any(|(r, _)| !r.dtype().is_float()) {
            continue;
        }
        let scores = |t: &Tensor| t.rank() == 2 && t.shape()[1] > 1 && t.dtype() == DType::F32;
        sum += if pairs.iter().all(|(r, _)| scores(r)) {
            mean_divergence(&pairs)
        } else {
            relative_error(&pairs)
        };
    }
    sum
}

fn relative_error(pairs: &[(&Tensor, &Tensor)]) -> f64 {
    let (mut error, mut energy) = (0.0, 0.0);
    for (reference, changed) in pairs {
        for (r, c) in reference.to_f64_vec().into_iter().zip(changed.to_f64_vec()) {
            error += (r - c).powi(2);
            energy += r * r;
        }
    }
    if energy > 0.0 { error / energy } else { error }
}

fn mean_divergence(pairs: &[(&Tensor, &Tensor)]) -> f64 {
    let (mut sum, mut rows) = (0.0, 0usize);
    for (reference, changed) in pairs {
        let classes = reference.shape()[1];
        let (r, c) = (reference.to_f64_vec(), changed.to_f64_vec());
        for (r, c) in r.chunks(classes).zip(c.chunks(classes)) {
            let (p, q) = (log_softmax(r), log_softmax(c));
            sum += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            rows += 1;
        }
    }
    sum / rows.max(1) as f64
}

fn log_softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln() + largest;
    scores.iter().map(|s| s - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_compared_as_distributions() {
        let scores = Tensor::from_slice([1, 2], &[1.0f32, 3.0]).unwrap();
        let shifted = Tensor::from_slice([1, 2], &[11.0f32, 13.0]).unwrap();
        let other = Tensor::from_slice([1, 2], &[3.0f32, 1.0]).unwrap();
        let of = |t: &Tensor| distance(&[vec![scores.clone()]], &[vec![t.clone()]]);
        assert!(of(&shifted).abs() < 1e-9);
        // Two nats apart in odds: (p − q)·2 with p = σ(2).
        let p = 1.0 / (1.0 + (-2.0f64).exp());
        assert!((of(&other) - (2.0 * p - 1.0) * 2.0).abs() < 1e-6);
    }
}
