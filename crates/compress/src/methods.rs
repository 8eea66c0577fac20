//! The methods: the one list of what compression can do.

use std::collections::BTreeSet;

use lepton_ir::Graph;

use crate::context::Context;
use crate::error::CompressError;
use crate::parameters::{Complete, Kind, Parameter, Parameters};
use crate::quantize::{
    Calibration, QuantizeOptions, bias_correction, equalize, quantize_dynamic, quantize_static,
    quantize_weights, simplified, to_bf16,
};

/// What a method must be given besides the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Samples of the inputs.
    pub samples: bool,
    /// Their labels.
    pub labels: bool,
    /// Gradients of the model.
    pub gradients: bool,
}

/// Nothing but the graph.
const NOTHING: Needs = Needs { samples: false, labels: false, gradients: false };
/// Samples without labels.
const SAMPLES: Needs = Needs { samples: true, ..NOTHING };

/// A way to compress.
pub struct Method {
    /// Its name in recipes.
    pub name: &'static str,
    /// What it does, for whom.
    pub about: &'static str,
    /// What there is to choose.
    pub params: &'static [Parameter],
    /// What it must be given.
    pub needs: Needs,
    run: fn(&Graph, &Complete, &Context<'_>) -> Result<Graph, CompressError>,
}

impl Method {
    /// Applies the method to a graph as it was read.
    ///
    /// # Errors
    /// Parameters it does not have, and what its documentation says.
    pub fn apply(
        &self,
        graph: &Graph,
        parameters: &Parameters,
        context: &Context<'_>,
    ) -> Result<Graph, CompressError> {
        let complete = parameters.complete(self.name, self.params)?;
        Ok((self.run)(&simplified(graph)?, &complete, context)?.compacted())
    }
}

/// Every method, in order.
pub const METHODS: &[Method] = &[
    Method {
        name: "static-int8",
        about: "int8 weights and activations with ranges found from samples; the fastest form of \
                convolutional networks",
        params: &[
            Parameter {
                name: "calibration",
                about: "how the range of an activation is chosen",
                kind: Kind::Choice {
                    words: &["mse", "min-max", "percentile", "kl"],
                    default: "mse",
                },
            },
            Parameter {
                name: "percentile",
                about: "percentage of the values inside the range, for calibration `percentile`",
                kind: Kind::Number {
                    min: 50.0,
                    max: 100.0,
                    default: 99.99,
                    grid: &[99.9, 99.99, 99.999],
                },
            },
            Parameter {
                name: "per_channel",
                about: "one weight step per output channel instead of one per tensor",
                kind: Kind::Flag { default: true },
            },
            Parameter {
                name: "equalize",
                about: "first move scale between neighbouring layers so that their channels are \
                        alike",
                kind: Kind::Flag { default: false },
            },
            Parameter {
                name: "bias_correction",
                about: "afterwards remove the mean error of each channel",
                kind: Kind::Flag { default: false },
            },
            Parameter {
                name: "keep",
                about: "number of most sensitive layers kept in f32",
                kind: Kind::Count { min: 0, max: 100_000, default: 0, grid: &[0, 1, 2, 4, 8] },
            },
        ],
        needs: SAMPLES,
        run: static_int8,
    },
    Method {
        name: "dynamic-int8",
        about: "int8 weights; activations become int8 with a range found at each run; for matrix \
                products, where there are no samples",
        params: &[],
        needs: NOTHING,
        run: |graph, _, _| quantize_dynamic(graph),
    },
    Method {
        name: "weight-int8",
        about: "int8 weights, everything else f32: the smallest file of sparse weights, and the same \
                answers where the weights lie on a grid already",
        params: &[Parameter {
            name: "exact",
            about: "leave weights that lie on no grid of 4 to 8 bits in f32",
            kind: Kind::Flag { default: false },
        }],
        needs: NOTHING,
        run: |graph, chosen, _| quantize_weights(graph, chosen.flag("exact")),
    },
    Method {
        name: "bf16",
        about: "weights in bf16, sums in f32: half the bytes, almost the same answer",
        params: &[],
        needs: NOTHING,
        run: |graph, _, _| to_bf16(graph),
    },
];

/// The method of that name.
///
/// # Errors
/// There is none.
pub fn method(name: &str) -> Result<&'static Method, CompressError> {
    METHODS.iter().find(|method| method.name == name).ok_or_else(|| {
        let known: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
        CompressError::UnknownMethod { name: name.into(), known: known.join(", ") }
    })
}

fn static_int8(
    graph: &Graph,
    parameters: &Complete,
    context: &Context<'_>,
) -> Result<Graph, CompressError> {
    let equalised = parameters.flag("equalize").then(|| equalize(graph)).transpose()?;
    let graph = equalised.as_ref().unwrap_or(graph);
    let calibration = match parameters.word("calibration") {
        "min-max" => Calibration::MinMax,
        "percentile" => Calibration::Percentile(parameters.number("percentile")),
        "kl" => Calibration::KullbackLeibler,
        _ => Calibration::Mse,
    };
    let ranges = context.observations(graph)?.ranges(calibration);
    let keep = match parameters.count("keep") {
        0 => BTreeSet::new(),
        count => context.sensitivities(graph)?.most(count),
    };
    let per_channel = parameters.flag("per_channel");
    let options = QuantizeOptions { per_channel, keep: &keep, ..QuantizeOptions::new(&ranges) };
    let quantised = quantize_static(graph, &options)?;
    if !parameters.flag("bias_correction") {
        return Ok(quantised);
    }
    let samples = context.required_samples("bias correction")?;
    bias_correction(graph, &quantised, samples)
}
