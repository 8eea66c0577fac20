//! Recurrent steps in fixed point against their definition, on every instruction set.

use lepton_tensor::Storage;
use proptest::prelude::*;

use super::*;
use crate::stored::Pack;

fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 211) as f32 / 211.0 - 0.5).collect()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The product of a state with one row of the recurrent matrix.
fn dot(r: &[f32], h: &[f64], row: usize) -> f64 {
    r[row * h.len()..][..h.len()].iter().zip(h).map(|(&r, h)| f64::from(r) * h).sum()
}

/// One sequence's next state and cell state by the definition.
fn expected(
    kind: usize,
    r: &[f32],
    b: &[f32],
    x: &[f32],
    h: &[f32],
    [c, bound]: [f32; 2],
    j: usize,
) -> f64 {
    let size = h.len();
    let h: Vec<f64> = h.iter().map(|&v| f64::from(v)).collect();
    let x = |g: usize| f64::from(x[g * size + j]);
    let gate = |g: usize| x(g) + dot(r, &h, g * size + j);
    let bias = |g: usize| f64::from(b[g * size + j]);
    if kind == 0 {
        let cell = logistic(gate(2)) * f64::from(c) + logistic(gate(0)) * gate(3).tanh();
        let bound = f64::from(bound);
        return logistic(gate(1)) * cell.clamp(-bound, bound).tanh();
    }
    let update = logistic(gate(0) + if kind == 1 { bias(0) } else { 0.0 });
    let next = if kind == 1 {
        let reset = logistic(gate(1) + bias(1));
        (x(2) + reset * (dot(r, &h, 2 * size + j) + bias(2))).tanh()
    } else {
        let reset = |k: usize| {
            let product = dot(r, &h, size + k);
            logistic(product + f64::from(b[3 * size + k])) * h[k]
        };
        let scaled: Vec<f64> = (0..size).map(reset).collect();
        (x(2) + dot(r, &scaled, 2 * size + j)).tanh()
    };
    (1.0 - update) * next + update * h[j]
}

/// One layer and its states, and what a step is expected to give.
struct Case {
    kind: usize,
    gates: usize,
    hidden: usize,
    batch: usize,
    product: Vec<f32>,
    bias: Vec<f32>,
    h: Vec<f32>,
    cell: Vec<f32>,
    bound: f32,
}

impl Case {
    fn of(kind: usize, hidden: usize, batch: usize) -> Self {
        let gates = if kind == 0 { 4 } else { 3 };
        Case {
            kind,
            gates,
            hidden,
            batch,
            product: values(batch * gates * hidden, 3),
            bias: values(gates * hidden, 6),
            h: values(batch * hidden, 4),
            cell: values(batch * hidden, 5),
            bound: if batch == 5 { 0.1 } else { f32::INFINITY },
        }
    }

    /// The next state, made in two parts.
    fn step(&self, isa: Isa, weights: RecurrentMatrix<'_>) -> Vec<f32> {
        let (mut next, mut cell) = (vec![0.0; self.h.len()], self.cell.clone());
        let mut scaled = vec![0.0; self.h.len()];
        let blocks = weights.blocks();
        let kernels: &[fn(Isa, RecurrentStep<'_>)] = match self.kind {
            0 => &[lstm_step],
            1 => &[gru_step],
            _ => &[gru_reset, gru_blend],
        };
        for kernel in kernels {
            for blocks in [0..blocks / 2, blocks / 2..blocks] {
                let step = RecurrentStep {
                    isa,
                    weights,
                    blocks,
                    product: &self.product,
                    recurrent_bias: &self.bias,
                    h: &self.h,
                    next: SharedState::of(&mut next),
                    cell: SharedState::of(&mut cell),
                    scaled: SharedState::of(&mut scaled),
                    cell_bound: self.bound,
                };
                kernel(isa, step);
            }
        }
        next
    }

    /// The next state by the definition, with the matrix `r`.
    fn expected(&self, r: &[f32]) -> Vec<f64> {
        let (hidden, each) = (self.hidden, self.gates * self.hidden);
        let mut all = Vec::new();
        for n in 0..self.batch {
            let x = &self.product[n * each..][..each];
            // The reset gate of every unit, for the form that scales h first.
            let mut known = self.bias.clone();
            if self.kind == 2 {
                known.extend_from_slice(&x[hidden..2 * hidden]);
            }
            let h = &self.h[n * hidden..][..hidden];
            all.extend((0..hidden).map(|j| {
                let cell = [self.cell[n * hidden + j], self.bound];
                expected(self.kind, r, &known, x, h, cell, j)
            }));
        }
        all
    }
}

/// What a packed matrix stands for.
fn held(fixed: &PackedI16, gates: usize, hidden: usize) -> Vec<f32> {
    let at = |i: usize| fixed.weight(i / (hidden * hidden), i / hidden % hidden, i % hidden);
    (0..gates * hidden * hidden).map(at).collect()
}

#[test]
fn fixed_point_follows_the_definition_on_every_set() {
    let extents = [(1, 1), (16, 1), (21, 1), (96, 1), (48, 5), (7, 4), (131, 2)];
    for (hidden, batch) in extents {
        for kind in 0..3 {
            let case = Case::of(kind, hidden, batch);
            let r = values(case.gates * hidden * hidden, kind);
            let fixed = PackedI16::pack(&r, &recurrent_order(case.gates, hidden)).unwrap();
            let expected = case.expected(&held(&fixed, case.gates, hidden));
            for isa in Isa::available() {
                let have = case.step(isa, RecurrentMatrix::I16(&fixed));
                for (have, want) in have.iter().zip(&expected) {
                    let error = (f64::from(*have) - want).abs();
                    assert!(error < 2e-6, "{isa} {kind} {hidden} {batch}: {error}");
                }
            }
        }
    }
}

#[test]
fn fixed_point_follows_states_of_any_size() {
    let (hidden, order) = (40, recurrent_order(4, 40));
    let r = values(4 * hidden * hidden, 9);
    let fixed = PackedI16::pack(&r, &order).unwrap();
    let r = held(&fixed, 4, hidden);
    for isa in Isa::available() {
        for size in [0.0, 1e-35, 1e-3, 20.0, 1e30] {
            let mut case = Case::of(0, hidden, 1);
            case.h.iter_mut().for_each(|h| *h *= size);
            let have = case.step(isa, RecurrentMatrix::I16(&fixed));
            for (have, want) in have.iter().zip(case.expected(&r)) {
                let error = (f64::from(*have) - want).abs();
                assert!(error < 4e-6, "{isa} {size}: {error}");
            }
        }
        for broken in [f32::NAN, f32::INFINITY] {
            let mut case = Case::of(0, hidden, 1);
            case.h[17] = broken;
            let have = case.step(isa, RecurrentMatrix::I16(&fixed));
            assert!(have.iter().all(|value| value.is_nan()), "{isa} {broken}");
        }
    }
}

#[test]
fn fixed_point_takes_no_weights_that_it_would_change() {
    let (hidden, order) = (48, recurrent_order(3, 48));
    let good = values(3 * hidden * hidden, 2);
    assert!(PackedI16::pack(&good, &order).is_some());
    for broken in [f32::NAN, f32::INFINITY, 1e-33] {
        let mut weights = good.clone();
        let row = &mut weights[5 * hidden..][..hidden];
        // One that is no number, or all too small for a scale.
        if broken < 1.0 {
            row.fill(broken)
        } else {
            row[3] = broken
        }
        assert!(PackedI16::pack(&weights, &order).is_none(), "{broken}");
    }
    // One of a row so large that the others lose their last digits.
    let mut weights = good;
    weights[5 * hidden..][..hidden].fill(1e-5);
    weights[5 * hidden] = 0.0;
    assert!(PackedI16::pack(&weights, &order).is_some());
    let packed = PackedI16::pack(&weights, &order).unwrap();
    let mut stored = packed.stored();
    let again = PackedI16::load(&order, &stored).unwrap();
    assert_eq!(again.bytes(), packed.bytes());
    stored[0] = Storage::copied(&packed.bytes()[64..]);
    assert!(PackedI16::load(&order, &stored).is_none());
}

proptest! {
    /// Every weight within half a step of its chunk's scale, every row within 2^-14 of its length.
    #[test]
    fn fixed_point_rounds_as_it_says(
        hidden in 1usize..80,
        gates in 3usize..5,
        seed in 0usize..1000,
        spread in 0i32..12,
    ) {
        // Weights of sizes from 1 to 2^-spread.
        let weights: Vec<f32> = values(gates * hidden * hidden, seed)
            .into_iter()
            .enumerate()
            .map(|(i, v)| v * 2f32.powi(-((i * 31 + seed) as i32 % (spread + 1))))
            .collect();
        let order = recurrent_order(gates, hidden);
        if let Some(packed) = PackedI16::pack(&weights, &order) {
            for (row, chosen) in weights.chunks(hidden).zip(held(&packed, gates, hidden).chunks(hidden)) {
                let (mut changed, mut length) = (0.0, 0.0);
                for (of, have) in row.chunks(64).zip(chosen.chunks(64)) {
                    let most = of.iter().fold(0f32, |most, w| most.max(w.abs()));
                    for (w, v) in of.iter().zip(have) {
                        prop_assert!((w - v).abs() <= most / 65_534.0 * 1.01 + f32::MIN_POSITIVE);
                        changed += f64::from(w - v).powi(2);
                        length += f64::from(*w).powi(2);
                    }
                }
                prop_assert!(changed.sqrt() <= length.sqrt() / 16_384.0 * 1.001);
            }
        }
    }
}
