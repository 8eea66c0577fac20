//! How long a step of a recurrent layer takes, beside the time of reading its matrix from L2:
//! `cargo run --release -p lepton-kernels --example recurrent_speed`.

use std::time::Instant;

use lepton_kernels::Isa;
use lepton_kernels::pack::PackedF32;
use lepton_kernels::recurrent::{
    RecurrentMatrix, RecurrentStep, gru_step, gru_step_reset_first, lstm_step, recurrent_order,
};

fn main() {
    let isa = Isa::best();
    println!("{isa}; sixteen units of a block at a time, minima of 20");
    println!("{:>24} {:>7} {:>6} {:>9} {:>7}", "layer", "hidden", "batch", "us/step", "GB/s");
    let kinds = [("lstm", 4), ("gru, reset after", 3), ("gru, reset first", 3)];
    for (kind, (name, gates)) in kinds.into_iter().enumerate() {
        for (hidden, batch) in [(64, 1), (128, 1), (256, 1), (256, 4), (256, 16), (512, 1)] {
            let us = step_us(isa, kind, gates, hidden, batch);
            let bytes = 4 * gates * hidden * hidden;
            println!(
                "{name:>24} {hidden:>7} {batch:>6} {us:>9.2} {:>7.0}",
                bytes as f64 / us / 1e3
            );
        }
    }
}

fn step_us(isa: Isa, kind: usize, gates: usize, hidden: usize, batch: usize) -> f64 {
    let weights = vec![0.01; gates * hidden * hidden];
    let weights = PackedF32::pack(&weights, &recurrent_order(gates, hidden));
    let steps = 200;
    let each = batch * gates * hidden;
    let products = vec![0.1; steps * each];
    let bias = vec![0.1; gates * hidden];
    let state = batch * hidden;
    let (mut h, mut next) = (vec![0.1; state], vec![0.1; state]);
    let (mut cell, mut scaled) = (vec![0.1; state], vec![0.1; state]);
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        for product in products.chunks_exact(each) {
            let step = RecurrentStep {
                isa,
                weights: RecurrentMatrix::F32(&weights),
                product,
                recurrent_bias: &bias,
                h: &h,
                next: &mut next,
                cell: &mut cell,
                scaled: &mut scaled,
                cell_bound: f32::INFINITY,
            };
            [lstm_step, gru_step, gru_step_reset_first][kind](isa, step);
            std::mem::swap(&mut h, &mut next);
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / steps as f64);
    }
    best
}
