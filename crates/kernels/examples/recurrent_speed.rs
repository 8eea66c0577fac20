//! How long a step of a recurrent layer takes, beside the time of reading its matrix from L2:
//! `cargo run --release -p lepton-kernels --example recurrent_speed`.

use std::time::Instant;

use lepton_kernels::Isa;
use lepton_kernels::pack::PackedF32;
use lepton_kernels::recurrent::{
    PackedI16, RecurrentMatrix, RecurrentStep, SharedState, gru_blend, gru_reset, gru_step,
    lstm_step, recurrent_order,
};

fn main() {
    let isa = std::env::args().nth(1).and_then(|name| Isa::named(&name)).unwrap_or(Isa::best());
    println!("{isa}; sixteen units of a block at a time, minima of 20 turns, f32 beside i16");
    println!(
        "{:>24} {:>7} {:>6} {:>9} {:>6} {:>9} {:>6} {:>6}",
        "layer", "hidden", "batch", "us/step", "GB/s", "us/step", "GB/s", "ratio"
    );
    let kinds = [("lstm", 4), ("gru, reset after", 3), ("gru, reset first", 3)];
    for (kind, (name, gates)) in kinds.into_iter().enumerate() {
        for (hidden, batch) in [(64, 1), (128, 1), (256, 1), (256, 4), (256, 16), (512, 1)] {
            let order = recurrent_order(gates, hidden);
            let weights: Vec<f32> = (0..gates * hidden * hidden)
                .map(|i| ((i * 7919) % 211) as f32 / 2110.0 - 0.05)
                .collect();
            let wide = PackedF32::pack(&weights, &order);
            let fixed = PackedI16::pack(&weights, &order).expect("weights of one size");
            let forms = [RecurrentMatrix::F32(&wide), RecurrentMatrix::I16(&fixed)];
            let mut layers = forms.map(|weights| Layer::of(isa, weights, gates, hidden, batch));
            let mut best = [f64::INFINITY; 2];
            for _ in 0..20 {
                for (layer, best) in layers.iter_mut().zip(&mut best) {
                    *best = best.min(layer.step_us(kind));
                }
            }
            let [of_wide, of_fixed] = best;
            println!(
                "{name:>24} {hidden:>7} {batch:>6} {of_wide:>9.2} {:>6.0} {of_fixed:>9.2} {:>6.0} {:>6.2}",
                wide.bytes().len() as f64 / of_wide / 1e3,
                fixed.bytes().len() as f64 / of_fixed / 1e3,
                of_wide / of_fixed,
            );
        }
    }
}

/// A layer and its states.
struct Layer<'a> {
    isa: Isa,
    weights: RecurrentMatrix<'a>,
    products: Vec<f32>,
    /// Values of the product of one step.
    each: usize,
    bias: Vec<f32>,
    /// h, the next h, cell state and scratch.
    states: [Vec<f32>; 4],
}

impl<'a> Layer<'a> {
    fn of(
        isa: Isa,
        weights: RecurrentMatrix<'a>,
        gates: usize,
        hidden: usize,
        batch: usize,
    ) -> Self {
        let each = batch * gates * hidden;
        let states = [0; 4].map(|_| vec![0.1; batch * hidden]);
        let bias = vec![0.1; gates * hidden];
        Layer { isa, weights, products: vec![0.1; 200 * each], each, bias, states }
    }

    /// The time of a step of a sequence.
    fn step_us(&mut self, kind: usize) -> f64 {
        let start = Instant::now();
        let [h, next, cell, scaled] = &mut self.states;
        let kernels: &[fn(Isa, RecurrentStep<'_>)] = match kind {
            0 => &[lstm_step],
            1 => &[gru_step],
            _ => &[gru_reset, gru_blend],
        };
        for product in self.products.chunks_exact(self.each) {
            for kernel in kernels {
                let step = RecurrentStep {
                    isa: self.isa,
                    weights: self.weights,
                    blocks: 0..self.weights.blocks(),
                    product,
                    recurrent_bias: &self.bias,
                    h,
                    next: SharedState::of(next),
                    cell: SharedState::of(cell),
                    scaled: SharedState::of(scaled),
                    cell_bound: f32::INFINITY,
                };
                kernel(self.isa, step);
            }
            std::mem::swap(h, next);
        }
        start.elapsed().as_secs_f64() * 1e6 / (self.products.len() / self.each) as f64
    }
}
