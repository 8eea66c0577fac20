//! The candidates that are tried, in order: which recipes, and what follows from their results.

use lepton_compress::{ParameterValue, Parameters, Recipe};
use lepton_runtime::Lowering;

/// A candidate that is to be tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Its name, unique in a search.
    pub name: String,
    /// What is done to the simplified graph; nothing for the first two.
    pub recipe: Recipe,
    /// True for the model as it was given.
    pub original: bool,
}

impl Proposal {
    fn new(name: &str, recipe: Recipe) -> Self {
        Proposal { name: name.to_owned(), recipe, original: false }
    }

    /// True where activations become int8 with ranges found beforehand.
    pub fn is_static_int8(&self) -> bool {
        self.recipe.steps.iter().any(|step| step.method == STATIC_INT8)
    }

    /// How a session prepares it: the original runs each operator as the file has it.
    pub fn lowering(&self) -> Lowering {
        if self.original { Lowering::Plain } else { Lowering::Full }
    }
}

const STATIC_INT8: &str = "static-int8";

/// How ranges are chosen from histograms, in the order they are tried.
const CALIBRATIONS: &[(&str, &str)] = &[
    ("mse", "int8-mse"),
    ("min-max", "int8-min-max"),
    ("percentile", "int8-percentile"),
    ("kl", "int8-kl"),
];

/// One method with its defaults.
fn plain(method: &str) -> Recipe {
    Recipe::new().then(method, Parameters::new())
}

/// The recipe with one more choice in its last step.
fn chosen(recipe: &Recipe, parameter: &str, value: ParameterValue) -> Recipe {
    let mut recipe = recipe.clone();
    if let Some(step) = recipe.steps.last_mut() {
        step.parameters.values.insert(parameter.to_owned(), value);
    }
    recipe
}

/// What every model is tried with.
pub fn first(bf16_is_native: bool) -> Vec<Proposal> {
    let original = Proposal { original: true, ..Proposal::new("original", Recipe::default()) };
    let mut all = vec![original, Proposal::new("f32-optimized", Recipe::default())];
    if bf16_is_native {
        all.push(Proposal::new("bf16", plain("bf16")));
    }
    all.push(Proposal::new("int8-dynamic", plain("dynamic-int8")));
    for (calibration, name) in CALIBRATIONS {
        let word = ParameterValue::Word((*calibration).into());
        let parameters = Parameters::new().with("calibration", word);
        let recipe = Recipe::new().then(STATIC_INT8, parameters);
        all.push(Proposal::new(name, recipe));
    }
    all
}

/// Repairs of the best static int8 candidate.
pub fn repairs(best: &Proposal) -> Vec<Proposal> {
    let repair = |suffix: &str, parameter: &str| {
        Proposal::new(
            &format!("{}-{suffix}", best.name),
            chosen(&best.recipe, parameter, ParameterValue::Flag(true)),
        )
    };
    vec![repair("bias", "bias_correction"), repair("equal", "equalize")]
}

/// The best static int8 candidate with its 1, 2, 4 … most sensitive of `layers` layers kept in f32,
/// up to a half of them.
pub fn mixed(best: &Proposal, layers: usize) -> Vec<Proposal> {
    let counts = std::iter::successors(Some(1usize), |n| Some(n * 2));
    let counts = counts.take_while(|&n| n <= 8 && n * 2 <= layers);
    let keep = |n: usize| {
        Proposal::new(
            &format!("int8-mixed-{n}"),
            chosen(&best.recipe, "keep", ParameterValue::Count(n as u64)),
        )
    };
    counts.map(keep).collect()
}
