//! Which of several algorithms computes a layer, chosen by measurement.

use std::collections::HashMap;
use std::time::Instant;

use lepton_ir::{StoredPack, ValueId};
use lepton_kernels::winograd::Tile;
use lepton_tensor::Tensor;

use crate::error::RuntimeError;
use crate::plan::Plan;
use crate::session::Session;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// The sum as it is written.
    Direct,
    /// Winograd's, on tiles.
    Tiles(Tile),
}

impl Algorithm {
    /// Every algorithm, the one that changes nothing first.
    pub const ALL: &'static [Algorithm] =
        &[Algorithm::Direct, Algorithm::Tiles(Tile::Two), Algorithm::Tiles(Tile::Four)];

    /// The name of the packed form it reads.
    pub fn form(self) -> &'static str {
        match self {
            Algorithm::Direct => "dense",
            Algorithm::Tiles(Tile::Two) => "winograd-2x2",
            Algorithm::Tiles(Tile::Four) => "winograd-4x4",
        }
    }
}

/// What was chosen for each layer, by its weights; the others follow the expected cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    /// For all layers that it serves.
    every: Option<Algorithm>,
    measured: HashMap<ValueId, Algorithm>,
}

impl Choices {
    /// The choices of a prepared model: the forms its weights were kept in.
    pub fn of_packs(constants: &[ValueId], packs: &[StoredPack]) -> Self {
        let measured = packs.iter().filter_map(|pack| {
            let algorithm = Algorithm::ALL.iter().find(|a| a.form() == pack.form)?;
            Some((*constants.get(pack.constant)?, *algorithm))
        });
        Choices { every: None, measured: measured.collect() }
    }

    /// The algorithm for the layer of these weights, if one was chosen.
    pub fn of(&self, weights: ValueId) -> Option<Algorithm> {
        self.every.or_else(|| self.measured.get(&weights).copied())
    }

    /// The forms that nobody will ask for.
    pub fn is_unused(&self, weights: ValueId, form: &str) -> bool {
        let known = Algorithm::ALL.iter().any(|algorithm| algorithm.form() == form);
        known && self.measured.get(&weights).is_some_and(|chosen| chosen.form() != form)
    }
}

/// Runs of each algorithm; the shortest time of a layer counts.
const ROUNDS: usize = 7;
/// What another algorithm must gain to replace an earlier one of the list.
const LEAST_GAIN: f64 = 0.97;

/// Times each algorithm on every layer it serves, as part of whole runs on `inputs`, and gives
/// the fastest ones.
pub(crate) fn measure(session: &Session, inputs: &[Tensor]) -> Result<Choices, RuntimeError> {
    let mut plans: Vec<(Algorithm, Plan)> = Vec::new();
    for &algorithm in Algorithm::ALL {
        let choices = Choices { every: Some(algorithm), measured: HashMap::new() };
        plans.extend(session.plan(inputs, &choices)?.map(|plan| (algorithm, plan)));
    }
    let mut best: HashMap<ValueId, Vec<(Algorithm, f64)>> = HashMap::new();
    for _ in 0..ROUNDS {
        for (algorithm, plan) in &plans {
            session.execute(plan, inputs, |step, memory| {
                let began = Instant::now();
                (step.run)(memory)?;
                let seconds = began.elapsed().as_secs_f64();
                if let Some(weights) = step.chosen {
                    let times = best.entry(weights).or_default();
                    match times.iter_mut().find(|(known, _)| known == algorithm) {
                        Some((_, shortest)) => *shortest = shortest.min(seconds),
                        None => times.push((*algorithm, seconds)),
                    }
                }
                Ok(())
            })?;
        }
    }
    let fastest = |times: Vec<(Algorithm, f64)>| {
        times.into_iter().reduce(
            |best, next| {
                if next.1 < best.1 * LEAST_GAIN { next } else { best }
            },
        )
    };
    let measured = best
        .into_iter()
        .filter_map(|(weights, times)| Some((weights, fastest(times)?.0)))
        .collect();
    Ok(Choices { every: None, measured })
}
