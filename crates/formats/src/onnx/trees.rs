//! Trees, linear models and the scaling of features, of the domain `ai.onnx.ml`.

use std::collections::HashMap;

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::order::Arg;
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::ops::trees::{TreeAggregate, TreeEnsemble};
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_tensor::{DType, Tensor};

use super::NoExternalData;
use super::call::Call;
use super::labels::class_labels;
use super::tensor;
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

/// A list of floats; empty where absent.
pub fn floats(call: &Call<'_>, name: &str) -> Vec<f32> {
    call.attribute(name).map(|a| a.floats.clone()).unwrap_or_default()
}

fn counts(call: &Call<'_>, name: &str) -> Result<Vec<usize>, FormatError> {
    let convert =
        |v: i64| usize::try_from(v).map_err(|_| call.error(format!("attribute `{name}` has {v}")));
    call.ints(name).into_iter().map(convert).collect()
}

fn table(call: &Call<'_>, name: &str) -> Result<Tensor, FormatError> {
    match call.attribute(name).and_then(|a| a.t.as_deref()) {
        Some(proto) => tensor::read(proto, &NoExternalData),
        None => Ok(Tensor::vector::<f32>(&[])),
    }
}

/// Trees as since version 5 of the domain: leaves are listed apart from nodes.
pub fn ensemble(call: &mut Call<'_>) -> Results {
    let sides = |call: &Call<'_>, ids: &str, leaves: &str| -> Vec<i64> {
        let leaves = call.ints(leaves);
        let side = |(i, id): (usize, i64)| if leaves.get(i) == Some(&1) { -1 - id } else { id };
        call.ints(ids).into_iter().enumerate().map(side).collect()
    };
    if call.int("post_transform", 0) != 0 {
        return Err(call.error("post_transform is not supported"));
    }
    let aggregates =
        [TreeAggregate::Average, TreeAggregate::Sum, TreeAggregate::Min, TreeAggregate::Max];
    let aggregate = usize::try_from(call.int("aggregate_function", 1)).ok();
    let aggregate = aggregate.and_then(|index| aggregates.get(index));
    let targets = counts(call, "leaf_targetids")?;
    let true_sides = sides(call, "nodes_truenodeids", "nodes_trueleafs");
    let false_sides = sides(call, "nodes_falsenodeids", "nodes_falseleafs");
    let op = TreeEnsemble {
        targets: usize::try_from(call.int("n_targets", 1)).unwrap_or(0),
        aggregate: *aggregate.ok_or_else(|| call.error("unknown aggregate_function"))?,
        // A tree of one leaf is a node both of whose sides are that leaf.
        roots: call.ints("tree_roots"),
        features: counts(call, "nodes_featureids")?,
        modes: table(call, "nodes_modes")?.to_i64_vec(),
        splits: table(call, "nodes_splits")?,
        true_sides,
        false_sides,
        missing_true: call.ints("nodes_missing_value_tracks_true"),
        sets: table(call, "membership_values")?,
        leaf_starts: (0..targets.len()).collect(),
        leaf_targets: targets,
        leaf_weights: table(call, "leaf_weights")?,
        base: Vec::new(),
    };
    let x = call.input(0);
    call.emit(op, &[x])
}

/// Trees as before version 5: nodes by the numbers of their tree and themselves, leaves among
/// them; `kind` is `target` or `class`.
fn older(call: &Call<'_>, kind: &str, targets: usize) -> Result<TreeEnsemble, FormatError> {
    let (trees, nodes) = (call.ints("nodes_treeids"), call.ints("nodes_nodeids"));
    let words = call.texts("nodes_modes");
    if nodes.len() != trees.len() || words.len() != trees.len() {
        return Err(call.error("its lists of nodes differ in length"));
    }
    let known = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"];
    let mut places: HashMap<(i64, i64), i64> = HashMap::new();
    let (mut branches, mut leaves, mut roots) = (Vec::new(), 0i64, Vec::new());
    let mut modes = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let place = match known.iter().position(|name| name == word) {
            Some(mode) => {
                branches.push(i);
                modes.push(mode as i64);
                branches.len() as i64 - 1
            }
            None if word == "LEAF" => {
                leaves += 1;
                -leaves
            }
            None => return Err(call.error(format!("unknown mode `{word}`"))),
        };
        if i == 0 || trees[i] != trees[i - 1] {
            roots.push(place);
        }
        places.insert((trees[i], nodes[i]), place);
    }
    let side = |name: &str| -> Result<Vec<i64>, FormatError> {
        let ids = call.ints(name);
        let place = |&i: &usize| places.get(&(trees[i], *ids.get(i)?)).copied();
        let all: Option<Vec<i64>> = branches.iter().map(place).collect();
        all.ok_or_else(|| call.error(format!("`{name}` names a node that is not there")))
    };
    let mut weights: Vec<(i64, usize, f32)> = Vec::new();
    let owners = call.ints(&format!("{kind}_treeids"));
    let own_nodes = call.ints(&format!("{kind}_nodeids"));
    let ids = counts(call, &format!("{kind}_ids"))?;
    let given = floats(call, &format!("{kind}_weights"));
    for (((tree, node), id), weight) in owners.iter().zip(&own_nodes).zip(&ids).zip(&given) {
        let leaf = places.get(&(*tree, *node)).filter(|place| **place < 0);
        let leaf = leaf.ok_or_else(|| call.error("a weight of a node that is no leaf"))?;
        weights.push((-1 - leaf, *id, *weight));
    }
    weights.sort_by_key(|(leaf, ..)| *leaf);
    let starts = (0..leaves).map(|leaf| weights.partition_point(|(own, ..)| *own < leaf));
    let pick = |name: &str| {
        let all = call.ints(name);
        branches.iter().filter_map(|&i| all.get(i).copied()).collect::<Vec<i64>>()
    };
    let values = floats(call, "nodes_values");
    let splits: Vec<f32> = branches.iter().filter_map(|&i| values.get(i).copied()).collect();
    let features = pick("nodes_featureids").into_iter().map(|v| usize::try_from(v).unwrap_or(0));
    Ok(TreeEnsemble {
        targets,
        features: features.collect(),
        modes,
        roots,
        splits: Tensor::vector(&splits),
        true_sides: side("nodes_truenodeids")?,
        false_sides: side("nodes_falsenodeids")?,
        missing_true: pick("nodes_missing_value_tracks_true"),
        leaf_starts: starts.collect(),
        leaf_targets: weights.iter().map(|(_, id, _)| *id).collect(),
        leaf_weights: Tensor::vector(&weights.iter().map(|(.., w)| *w).collect::<Vec<f32>>()),
        base: floats(call, "base_values"),
        ..TreeEnsemble::default()
    })
}

/// Scores through the function in an attribute.
pub fn transformed(call: &mut Call<'_>, x: ValueId) -> Made {
    match call.text("post_transform", "NONE").as_str() {
        "NONE" => Ok(x),
        "SOFTMAX" => call.emit_one(Softmax { axis: -1, log: false }, &[Some(x)]),
        "LOGISTIC" => call.map(U::Sigmoid, x),
        other => Err(call.error(format!("post_transform `{other}` is not supported"))),
    }
}

/// Trees that give numbers.
pub fn regressor(call: &mut Call<'_>) -> Results {
    let targets = usize::try_from(call.int("n_targets", 1)).unwrap_or(0);
    let aggregate = match call.text("aggregate_function", "SUM").as_str() {
        "SUM" => TreeAggregate::Sum,
        "AVERAGE" => TreeAggregate::Average,
        "MIN" => TreeAggregate::Min,
        "MAX" => TreeAggregate::Max,
        other => return Err(call.error(format!("unknown aggregate_function `{other}`"))),
    };
    let op = TreeEnsemble { aggregate, ..older(call, "target", targets)? };
    let x = as_reals(call)?;
    let y = call.emit_one(op, &[Some(x)])?;
    Ok(vec![transformed(call, y)?])
}

fn as_reals(call: &mut Call<'_>) -> Made {
    let x = call.required(0)?;
    if call.dtype(x).is_float() { Ok(x) } else { call.cast(x, DType::F32) }
}

/// The label of the largest score, and the scores.
fn labelled(call: &mut Call<'_>, scores: ValueId, labels: Tensor) -> Results {
    let best =
        call.emit_one(Arg { axis: 1, keep_dims: false, ..Arg::default() }, &[Some(scores)])?;
    let labels = call.constant(labels);
    let label = call.emit_one(Gather { axis: 0 }, &[Some(labels), Some(best)])?;
    Ok(vec![label, transformed(call, scores)?])
}

/// Trees that give classes.
pub fn classifier(call: &mut Call<'_>) -> Results {
    let labels = class_labels(call, "classlabels_int64s");
    let ids = counts(call, "class_ids")?;
    let one = ids.first().copied().filter(|first| ids.iter().all(|id| id == first));
    let x = as_reals(call)?;
    match one {
        _ if labels.len() < 2 => Err(call.error("it has fewer than two labels")),
        // Trees that score one of two classes only.
        Some(class @ 0..2) if labels.len() == 2 => {
            let mut op = older(call, "class", 2)?;
            let is_share = op.leaf_weights.to_f64_vec().iter().all(|&weight| weight >= 0.0);
            op.targets = 1;
            op.leaf_targets.fill(0);
            op.base = op.base.get(class).or(op.base.first()).into_iter().copied().collect();
            let score = call.emit_one(op, &[Some(x)])?;
            two_classes(call, score, labels, is_share)
        }
        _ => {
            let op = older(call, "class", labels.len())?;
            let scores = call.emit_one(op, &[Some(x)])?;
            labelled(call, scores, labels)
        }
    }
}

/// The label and the scores of two classes from the score `[N,1]` of the second: a share of 1, or
/// a number that is positive for the second class.
fn two_classes(call: &mut Call<'_>, score: ValueId, labels: Tensor, is_share: bool) -> Results {
    let limit = call.scalar(call.dtype(score), if is_share { 0.5 } else { 0.0 })?;
    let second = call.pair(B::Greater, score, limit)?;
    let second = call.cast(second, DType::I64)?;
    let second = call.reshape(second, &[-1])?;
    let labels = call.constant(labels);
    let label = call.emit_one(Gather { axis: 0 }, &[Some(labels), Some(second)])?;
    let negative = call.map(U::Neg, score)?;
    let is_logistic = call.text("post_transform", "NONE") == "LOGISTIC";
    let other = match is_share && !is_logistic {
        true => call.shifted(negative, 1.0)?,
        false => negative,
    };
    let mut both = call.concat(&[other, score], 1)?;
    if is_logistic {
        both = call.map(U::Sigmoid, both)?;
    }
    Ok(vec![label, both])
}

/// `x·coefficientsᵀ + intercepts`, a row of coefficients for each result.
fn linear(call: &mut Call<'_>, results: usize) -> Made {
    let coefficients = floats(call, "coefficients");
    if results == 0 || !coefficients.len().is_multiple_of(results) {
        return Err(call.error("the coefficients do not go with the number of results"));
    }
    let shape = [results, coefficients.len() / results];
    let values: Vec<f64> = coefficients.iter().map(|&v| f64::from(v)).collect();
    let (x, matrix) = (as_reals(call)?, call.table(DType::F32, &shape, &values)?);
    let matrix = call.transpose(matrix, &[1, 0])?;
    let mut y = call.product(x, matrix)?;
    let intercepts: Vec<f64> = floats(call, "intercepts").iter().map(|&v| f64::from(v)).collect();
    if !intercepts.is_empty() {
        let intercepts = call.table(DType::F32, &[intercepts.len()], &intercepts)?;
        y = call.pair(B::Add, y, intercepts)?;
    }
    Ok(y)
}

/// A linear model of numbers.
pub fn linear_regressor(call: &mut Call<'_>) -> Results {
    let y = linear(call, usize::try_from(call.int("targets", 1)).unwrap_or(0))?;
    Ok(vec![transformed(call, y)?])
}

/// A linear model of classes.
pub fn linear_classifier(call: &mut Call<'_>) -> Results {
    let labels = class_labels(call, "classlabels_ints");
    if labels.len() < 2 {
        return Err(call.error("it has fewer than two labels"));
    }
    let results = floats(call, "intercepts").len();
    if results == 1 && labels.len() == 2 {
        let score = linear(call, 1)?;
        let label = two_classes(call, score, labels, false)?[0];
        let negative = call.map(U::Neg, score)?;
        let other = call.shifted(negative, 1.0)?;
        return Ok(vec![label, call.concat(&[other, score], 1)?]);
    }
    let scores = linear(call, labels.len())?;
    labelled(call, scores, labels)
}

/// `(x − offset)·scale`, per feature.
pub fn scaler(call: &mut Call<'_>) -> Results {
    let mut x = as_reals(call)?;
    for (name, function) in [("offset", B::Sub), ("scale", B::Mul)] {
        let values: Vec<f64> = floats(call, name).iter().map(|&v| f64::from(v)).collect();
        if !values.is_empty() {
            let values = call.table(call.dtype(x), &[values.len()], &values)?;
            x = call.pair(function, x, values)?;
        }
    }
    Ok(vec![call.map(U::Identity, x)?])
}

/// Rows divided by their norm.
pub fn normalizer(call: &mut Call<'_>) -> Results {
    let x = as_reals(call)?;
    let norm = match call.text("norm", "MAX").as_str() {
        "MAX" => call.reduced(R::Max, x, &[-1], true)?,
        "L1" => call.reduced(R::L1, x, &[-1], true)?,
        "L2" => call.reduced(R::L2, x, &[-1], true)?,
        other => return Err(call.error(format!("unknown norm `{other}`"))),
    };
    let zero = call.scalar(call.dtype(x), 0.0)?;
    let none = call.pair(B::Equal, norm, zero)?;
    let one = call.cast(none, call.dtype(x))?;
    let norm = call.pair(B::Add, norm, one)?;
    Ok(vec![call.pair(B::Div, x, norm)?])
}
