//! The pipelines: which passes run, in which order.

use crate::integers::{self, moves, pools, products, tables, weights};
use crate::{
    Pass, attention, bodies, constants, epilogue, extents, identity, layout, linear, patterns,
    scale, sequences, sink, transposed, windows,
};

/// Makes a graph smaller without naming any kernel: what every later step starts from.
pub const SIMPLIFY: &[Pass] = &[
    Pass { name: "fold-constants", run: constants::fold },
    Pass { name: "remove-identities", run: identity::remove },
    Pass { name: "fold-batch-norm", run: scale::fold },
];

/// [`SIMPLIFY`] for a graph that was lowered before its extents were known.
pub const SPECIALISE: &[Pass] = &[
    Pass { name: "fold-constants", run: constants::fold },
    Pass { name: "remove-identities", run: identity::remove },
    Pass { name: "fold-batch-norm", run: scale::fold },
    Pass { name: "transposed-convolutions", run: transposed::form },
    Pass { name: "merge-transposes", run: layout::merge },
    Pass { name: "trim-windows", run: windows::trim },
];

/// Gives matrix products with constant weights their one form, [`Linear`](lepton_ir::ops::matmul::Linear)
/// with its bias: what changes the storage of weights starts from.
pub const PRODUCTS: &[Pass] = &[
    Pass { name: "fold-constants", run: constants::fold },
    Pass { name: "linear", run: linear::form },
    Pass { name: "fuse-bias", run: epilogue::fuse_bias },
];

/// [`PRODUCTS`] that have taken the sums behind them: a product of bf16 rounds all its operands.
pub const SUMS: &[Pass] = &[
    Pass { name: "fold-constants", run: constants::fold },
    Pass { name: "linear", run: linear::form },
    Pass { name: "fuse-bias", run: epilogue::fuse_bias },
    Pass { name: "fuse-residual", run: epilogue::fuse_residual },
];

/// The least that kernels need: channels-last layout and linear layers, every operator of the
/// graph still a step of its own. What graph optimisation gives is measured against it.
pub const PLAIN: &[Pass] = &[
    Pass { name: "fold-constants", run: constants::fold },
    Pass { name: "linear", run: linear::form },
    Pass { name: "channels-last", run: layout::channels_last },
    Pass { name: "sink-transposes", run: sink::sink },
    Pass { name: "merge-transposes", run: layout::merge },
];

/// Gives the engine what it has kernels for: fused products in channels-last
/// layout, and integer products where the graph is quantised.
pub const LOWER: &[Pass] = &[
    Pass { name: "fold-constants", run: constants::fold },
    Pass { name: "remove-identities", run: identity::remove },
    Pass { name: "copy-extents", run: extents::copy },
    Pass { name: "enclose-bodies", run: bodies::enclose },
    Pass { name: "fold-batch-norm", run: scale::fold },
    Pass { name: "spread-batch-norm", run: scale::spread },
    Pass { name: "bounds", run: patterns::bounds },
    Pass { name: "gates", run: patterns::gates },
    Pass { name: "layer-normalization", run: patterns::layer_normalization },
    Pass { name: "transposed-convolutions", run: transposed::form },
    Pass { name: "attention", run: attention::form },
    Pass { name: "linear", run: linear::form },
    Pass { name: "fuse-bias", run: epilogue::fuse_bias },
    Pass { name: "fuse-residual", run: epilogue::fuse_residual },
    Pass { name: "fuse-activation", run: epilogue::fuse_activation },
    Pass { name: "sequences-as-images", run: sequences::as_images },
    Pass { name: "channels-last", run: layout::channels_last },
    Pass { name: "sink-transposes", run: sink::sink },
    Pass { name: "merge-transposes", run: layout::merge },
    Pass { name: "trim-windows", run: windows::trim },
    Pass { name: "unsigned-activations", run: integers::unsign },
    Pass { name: "cancel-quantisations", run: moves::cancel },
    Pass { name: "move-bytes", run: moves::lower },
    Pass { name: "integer-products", run: products::form },
    Pass { name: "integer-averages", run: pools::averages },
    Pass { name: "integer-pairs", run: moves::pairs },
    Pass { name: "tables", run: tables::form },
    Pass { name: "compose-tables", run: tables::compose },
    Pass { name: "fuse-tables", run: products::fuse_tables },
    Pass { name: "weights-in-groups", run: weights::groups },
    Pass { name: "fold-dequantised-weights", run: weights::fold },
    Pass { name: "quantise-tables", run: weights::quantise_tables },
];
