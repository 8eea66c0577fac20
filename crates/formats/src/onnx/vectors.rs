//! Support vector machines, of the domain `ai.onnx.ml`.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::couple::CouplePairs;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::order::Arg;
use lepton_ir::ops::reduce::ReduceFunction as R;
use lepton_ir::ops::unary::UnaryFunction as U;
use lepton_tensor::{DType, Tensor};

use super::call::Call;
use super::labels::class_labels;
use super::trees::{floats, transformed};
use crate::error::FormatError;
use crate::steps::{Made, Results, Steps};

/// A table of floats as a constant.
fn rows(call: &mut Call<'_>, shape: [usize; 2], values: &[f32]) -> Made {
    if lepton_tensor::checked_product(&shape) != Some(values.len()) {
        return Err(call.error(format!("{} numbers for a table of {shape:?}", values.len())));
    }
    let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    call.table(DType::F32, &shape, &values)
}

/// The kernel of every row of the first operand with `count` vectors: `[N,count]`.
fn kernels(call: &mut Call<'_>, vectors: &[f32], count: usize) -> Made {
    let x = call.required(0)?;
    let x = call.cast(x, DType::F32)?;
    if count == 0 || !vectors.len().is_multiple_of(count) {
        return Err(call.error("the vectors do not go with their number"));
    }
    let shape = [count, vectors.len() / count];
    let kind = call.text("kernel_type", "LINEAR");
    let parameters = floats(call, "kernel_params");
    let at = |i: usize, default: f32| f64::from(parameters.get(i).copied().unwrap_or(default));
    let (gamma, offset, degree) = (at(0, 1.0), at(1, 0.0), at(2, 3.0));
    if kind == "RBF" {
        return radial(call, x, shape, vectors, gamma);
    }
    let vectors = rows(call, shape, vectors)?;
    let turned = call.transpose(vectors, &[1, 0])?;
    let product = call.product(x, turned)?;
    if kind == "LINEAR" {
        return Ok(product);
    }
    let scaled = call.scaled(product, gamma)?;
    let moved = call.shifted(scaled, offset)?;
    match kind.as_str() {
        "SIGMOID" => call.map(U::Tanh, moved),
        "POLY" if degree.fract() == 0.0 && (1.0..=8.0).contains(&degree) => {
            let mut power = moved;
            for _ in 1..degree as usize {
                power = call.pair(B::Mul, power, moved)?;
            }
            Ok(power)
        }
        "POLY" => {
            let degree = call.scalar(DType::F32, degree)?;
            call.pair(B::Pow, moved, degree)
        }
        other => Err(call.error(format!("unknown kernel_type `{other}`"))),
    }
}

/// `exp(−gamma·|x − vector|²)` by a product of matrices. All is moved so that the middle of the vectors
/// is 0: what tells vectors apart then is not small beside their squares.
fn radial(call: &mut Call<'_>, x: ValueId, shape: [usize; 2], vectors: &[f32], gamma: f64) -> Made {
    let [count, width] = shape;
    let column = |i: usize| vectors.iter().skip(i).step_by(width.max(1)).map(|&v| f64::from(v));
    let middle: Vec<f64> = (0..width).map(|i| column(i).sum::<f64>() / count as f64).collect();
    let place = |(i, &v): (usize, &f32)| f64::from(v) - middle[i % width];
    let moved: Vec<f64> = vectors.iter().enumerate().map(place).collect();
    let squares: Vec<f64> =
        moved.chunks(width.max(1)).map(|row| row.iter().map(|v| v * v).sum()).collect();
    let middle = call.table(DType::F32, &[width], &middle)?;
    let x = call.pair(B::Sub, x, middle)?;
    let own = call.reduced(R::SumSquare, x, &[-1], true)?;
    let twice: Vec<f64> = moved.iter().map(|v| -2.0 * v).collect();
    let twice = call.table(DType::F32, &shape, &twice)?;
    let turned = call.transpose(twice, &[1, 0])?;
    let product = call.product(x, turned)?;
    let squares = call.table(DType::F32, &[count], &squares)?;
    let sum = call.pair(B::Add, product, squares)?;
    let distance = call.pair(B::Add, sum, own)?;
    let distance = call.map(U::Relu, distance)?;
    let scaled = call.scaled(distance, -gamma)?;
    call.map(U::Exp, scaled)
}

/// A number for each row: a weighted sum of kernels, or of the features themselves.
pub fn regressor(call: &mut Call<'_>) -> Results {
    const KNOWN: &[&str] = &[
        "coefficients",
        "kernel_params",
        "kernel_type",
        "n_supports",
        "one_class",
        "post_transform",
        "rho",
        "support_vectors",
    ];
    call.check_attributes(&[], KNOWN)?;
    let coefficients = floats(call, "coefficients");
    let kernels = match usize::try_from(call.int("n_supports", 0)).unwrap_or(0) {
        0 => {
            let x = call.required(0)?;
            call.cast(x, DType::F32)?
        }
        count => kernels(call, &floats(call, "support_vectors"), count)?,
    };
    let weights = rows(call, [coefficients.len(), 1], &coefficients)?;
    let sum = call.product(kernels, weights)?;
    let rho = floats(call, "rho").first().copied().unwrap_or(0.0);
    let sum = call.shifted(sum, f64::from(rho))?;
    if call.int("one_class", 0) == 0 {
        return Ok(vec![transformed(call, sum)?]);
    }
    let zero = call.scalar(DType::F32, 0.0)?;
    let inside = call.pair(B::Greater, sum, zero)?;
    let [yes, no] = [1.0, -1.0].map(|v| call.scalar(DType::F32, v));
    Ok(vec![call.select(inside, yes?, no?)?])
}

/// Each two of some classes.
fn pairs_of(classes: usize) -> Vec<(usize, usize)> {
    (0..classes).flat_map(|i| (i + 1..classes).map(move |j| (i, j))).collect()
}

/// How the kernels of support vectors weigh in the decision between each two classes: a row for
/// each vector and a column for each pair.
fn weights(
    call: &Call<'_>,
    sizes: &[usize],
    coefficients: &[f32],
) -> Result<Vec<f32>, FormatError> {
    let (classes, count) = (sizes.len(), sizes.iter().sum::<usize>());
    if coefficients.len() != (classes - 1) * count {
        return Err(call.error("the coefficients do not go with the vectors of each class"));
    }
    let start = |class: usize| sizes[..class].iter().sum::<usize>();
    let pairs = pairs_of(classes);
    let mut table = vec![0f32; count * pairs.len()];
    for (column, &(i, j)) in pairs.iter().enumerate() {
        // The coefficients of a class leave out itself: those against a later one are a row before.
        for (class, row) in [(i, j - 1), (j, i)] {
            for vector in start(class)..start(class) + sizes[class] {
                table[vector * pairs.len() + column] = coefficients[row * count + vector];
            }
        }
    }
    Ok(table)
}

/// The class with the most decisions for it: `[N]` positions.
fn voted(
    call: &mut Call<'_>,
    decisions: ValueId,
    pairs: &[(usize, usize)],
    classes: usize,
) -> Made {
    let zero = call.scalar(DType::F32, 0.0)?;
    let first = call.pair(B::Greater, decisions, zero)?;
    let first = call.cast(first, DType::F32)?;
    let (mut gains, mut sums) = (vec![0.0; pairs.len() * classes], vec![0.0; classes]);
    for (row, &(i, j)) in pairs.iter().enumerate() {
        gains[row * classes + i] += 1.0;
        gains[row * classes + j] -= 1.0;
        sums[j] += 1.0;
    }
    let gains = call.table(DType::F32, &[pairs.len(), classes], &gains)?;
    let sums = call.table(DType::F32, &[classes], &sums)?;
    let votes = call.product(first, gains)?;
    let votes = call.pair(B::Add, votes, sums)?;
    call.emit_one(Arg { axis: 1, keep_dims: false, ..Arg::default() }, &[Some(votes)])
}

fn named(call: &mut Call<'_>, labels: Tensor, positions: ValueId) -> Made {
    let labels = call.constant(labels);
    call.emit_one(Gather { axis: 0 }, &[Some(labels), Some(positions)])
}

/// A class for each row: that of the most decisions between two classes, and its scores.
pub fn classifier(call: &mut Call<'_>) -> Results {
    const KNOWN: &[&str] = &[
        "classlabels_ints",
        "classlabels_strings",
        "coefficients",
        "kernel_params",
        "kernel_type",
        "post_transform",
        "prob_a",
        "prob_b",
        "rho",
        "support_vectors",
        "vectors_per_class",
    ];
    call.check_attributes(&[], KNOWN)?;
    let labels = class_labels(call, "classlabels_ints");
    let sizes: Option<Vec<usize>> =
        call.ints("vectors_per_class").into_iter().map(|v| usize::try_from(v).ok()).collect();
    let sizes = sizes.ok_or_else(|| call.error("a class has fewer than no vectors"))?;
    let (coefficients, rho) = (floats(call, "coefficients"), floats(call, "rho"));
    if sizes.iter().all(|&size| size == 0) {
        return linear(call, labels, &coefficients, rho.first().copied().unwrap_or(0.0));
    }
    if sizes.len() != labels.len() || labels.len() < 2 {
        return Err(call.error("its vectors do not go with its labels"));
    }
    let pairs = pairs_of(sizes.len());
    let table = weights(call, &sizes, &coefficients)?;
    let count = sizes.iter().sum();
    let kernels = kernels(call, &floats(call, "support_vectors"), count)?;
    let table = rows(call, [count, pairs.len()], &table)?;
    let sums = call.product(kernels, table)?;
    let rho = rows(call, [1, pairs.len()], &rho)?;
    let decisions = call.pair(B::Add, sums, rho)?;
    let best = voted(call, decisions, &pairs, labels.len())?;
    let classes = labels.len();
    let label = named(call, labels, best)?;
    let scores = match (call.has("prob_a"), classes) {
        (true, _) => probabilities(call, decisions, classes, pairs.len())?,
        (false, 2) => {
            let negative = call.map(U::Neg, decisions)?;
            match call.text("post_transform", "NONE").as_str() {
                "NONE" => return Ok(vec![label, call.concat(&[negative, decisions], 1)?]),
                _ => {
                    let other = call.shifted(negative, 1.0)?;
                    return Ok(vec![label, call.concat(&[other, decisions], 1)?]);
                }
            }
        }
        (false, _) => decisions,
    };
    Ok(vec![label, transformed(call, scores)?])
}

/// Platt's sigmoids of the decisions, coupled to probabilities of the classes.
fn probabilities(call: &mut Call<'_>, decisions: ValueId, classes: usize, pairs: usize) -> Made {
    let [a, b] = [floats(call, "prob_a"), floats(call, "prob_b")];
    let (a, b) = (rows(call, [1, pairs], &a)?, rows(call, [1, pairs], &b)?);
    let scaled = call.pair(B::Mul, decisions, a)?;
    let moved = call.pair(B::Add, scaled, b)?;
    let negative = call.map(U::Neg, moved)?;
    let shares = call.map(U::Sigmoid, negative)?;
    call.emit_one(CouplePairs { classes }, &[Some(shares)])
}

fn linear(call: &mut Call<'_>, labels: Tensor, coefficients: &[f32], rho: f32) -> Results {
    let classes = labels.len();
    if classes == 0 || !coefficients.len().is_multiple_of(classes) {
        return Err(call.error("the coefficients do not go with the labels"));
    }
    let x = call.required(0)?;
    let x = call.cast(x, DType::F32)?;
    let table = rows(call, [classes, coefficients.len() / classes], coefficients)?;
    let turned = call.transpose(table, &[1, 0])?;
    let product = call.product(x, turned)?;
    let scores = call.shifted(product, f64::from(rho))?;
    let best =
        call.emit_one(Arg { axis: 1, keep_dims: false, ..Arg::default() }, &[Some(scores)])?;
    Ok(vec![named(call, labels, best)?, transformed(call, scores)?])
}
