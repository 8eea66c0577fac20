//! Rows that need a look at their attributes: order, resampling, layers with state.

use lepton_ir::ops::rnn::RecurrentActivation;
use lepton_ir::ops::sample::PixelCentres;
use lepton_ir::{Op, ValueId};
use lepton_tensor::Tensor;

use super::call::Call;
use super::ops::Row;
use crate::error::FormatError;
use crate::steps::{Results, Steps};

/// The number of elements as an attribute (before 10) or an operand.
pub fn top_k(call: &mut Call<'_>, row: &Row) -> Results {
    let op = call.built(row)?;
    let k = if call.has("k") { Some(call.integers(&[call.int("k", 1)])) } else { call.input(1) };
    let x = call.input(0);
    call.emit(op, &[x, k])
}

/// Resampling; version 10 has no region and scales by the asymmetric rule.
pub fn resize(call: &mut Call<'_>, row: &Row) -> Results {
    if call.version < 11 {
        return super::decomposed::upsample(call);
    }
    let op = call.built(row)?;
    let mut inputs = call.inputs.clone();
    inputs.resize(inputs.len().max(3), None);
    let empty = |call: &Call<'_>, id| call.graph.fact(id).count().is(0);
    // Version 11 gives an empty region, and empty scales beside sizes.
    let cropped = call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize";
    inputs[1] = inputs[1].filter(|&id| cropped && !empty(call, id));
    if inputs.len() > 3 && inputs[2].is_some_and(|id| empty(call, id)) {
        inputs[2] = None;
    }
    if call.has("axes") {
        let own = call.fact(0)?.dims.clone();
        inputs[1] =
            for_every_axis(call, inputs[1], |index| Some((index >= own.len()) as i64 as f64))?;
        inputs[2] = for_every_axis(call, inputs[2], |_| Some(1.0))?;
        let sizes = inputs.get(3).copied().flatten();
        let sizes = for_every_axis(call, sizes, |axis| own[axis].as_known().map(|d| d as f64))?;
        inputs.truncate(3);
        inputs.push(sizes);
    }
    if call.text("keep_aspect_ratio_policy", "stretch") != "stretch" {
        let sizes = inputs.get(3).copied().flatten();
        inputs[3] = Some(same_ratio(call, sizes)?);
    }
    call.emit(op, &inputs)
}

/// Sizes whose ratio is that of x, none larger or none smaller than those given.
fn same_ratio(call: &mut Call<'_>, sizes: Option<ValueId>) -> Result<ValueId, FormatError> {
    let known = sizes.and_then(|id| call.graph.constant(id)).map(Tensor::to_f64_vec);
    let wanted = known.ok_or_else(|| call.error("to keep a ratio, sizes must be a constant"))?;
    let own = call.extents(call.required(0)?)?;
    let axes: Vec<usize> = if call.has("axes") {
        call.ints("axes").iter().map(|&a| call.axis_of(a, own.len())).collect::<Result<_, _>>()?
    } else {
        (0..own.len()).collect()
    };
    let ratios = axes.iter().map(|&axis| wanted[axis] / own[axis] as f64);
    let ratio = match call.text("keep_aspect_ratio_policy", "").as_str() {
        "not_larger" => ratios.fold(f64::INFINITY, f64::min),
        "not_smaller" => ratios.fold(0.0, f64::max),
        other => return Err(call.error(format!("unknown keep_aspect_ratio_policy `{other}`"))),
    };
    let mut sizes: Vec<i64> = own.iter().map(|&extent| extent as i64).collect();
    for axis in axes {
        sizes[axis] = (own[axis] as f64 * ratio + 0.5).floor() as i64;
    }
    Ok(call.integers(&sizes))
}

/// Numbers of the axes in attribute `axes` as those of all axes; others have the usual one. There
/// may be several for each axis, first one of each.
fn for_every_axis(
    call: &mut Call<'_>,
    given: Option<ValueId>,
    usual: impl Fn(usize) -> Option<f64>,
) -> Result<Option<ValueId>, FormatError> {
    let Some(given) = given else { return Ok(None) };
    let known = call.graph.constant(given).map(|tensor| (tensor.dtype(), tensor.to_f64_vec()));
    let (dtype, given) = known.ok_or_else(|| call.error("with axes, scales must be a constant"))?;
    let rank = call.fact(0)?.rank();
    let axes = call.ints("axes");
    if axes.is_empty() || !given.len().is_multiple_of(axes.len()) {
        return Err(call.error(format!("{} numbers for {} axes", given.len(), axes.len())));
    }
    let mut all: Vec<Option<f64>> = (0..given.len() / axes.len() * rank).map(usual).collect();
    for (index, value) in given.iter().enumerate() {
        let axis = call.axis_of(axes[index % axes.len()], rank)?;
        all[index / axes.len() * rank + axis] = Some(*value);
    }
    let all: Option<Vec<f64>> = all.into_iter().collect();
    let all = all.ok_or_else(|| call.error("the extents of the other axes must be known"))?;
    Ok(Some(call.table(dtype, &[all.len()], &all)?))
}

/// Parts of an image; before version 16 pixel centres are at whole numbers.
pub fn roi_align(call: &mut Call<'_>, row: &Row) -> Results {
    let mut op = call.built(row)?;
    if let (Op::RoiAlign(op), true) = (&mut op, call.version < 16) {
        op.centres = PixelCentres::Wholes;
    }
    let inputs = call.inputs.clone();
    call.emit(op, &inputs)
}

/// The activations that a layer has where it does not name any.
fn usual_activations(name: &str) -> &'static [&'static str] {
    match name {
        "GRU" => &["sigmoid", "tanh"],
        "RNN" => &["tanh"],
        _ => &["sigmoid", "tanh", "tanh"],
    }
}

/// Recurrent layers with the usual activations.
pub fn recurrent(call: &mut Call<'_>, row: &Row) -> Results {
    let mut op = call.built(row)?;
    let given: Vec<String> =
        call.texts("activations").iter().map(|name| name.to_lowercase()).collect();
    let single = given.first().filter(|first| given.iter().all(|name| name == *first));
    let plain = single.and_then(|name| RecurrentActivation::from_word(name));
    let usual = usual_activations(row.name).iter().cycle();
    if let (Op::RNN(op), Some(plain)) = (&mut op, plain) {
        op.activation = plain;
    } else if given.iter().zip(usual).any(|(given, usual)| given != usual) {
        return Err(call.error(format!("activations {given:?} are not supported")));
    }
    if call.int("input_forget", 0) != 0 {
        return Err(call.error("attribute `input_forget` is not supported"));
    }
    if whole_sequences(call) {
        call.inputs[4] = None;
    }
    let batch_first = call.int("layout", 0) != 0;
    let mut inputs = call.inputs.clone();
    if batch_first {
        for index in [0, 5, 6] {
            if let Some(input) = inputs.get_mut(index).and_then(Option::as_mut) {
                *input = call.transpose(*input, &[1, 0, 2])?;
            }
        }
    }
    let mut results = call.emit(op, &inputs)?;
    if batch_first {
        for (index, result) in results.iter_mut().enumerate() {
            let order: &[usize] = if index == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] };
            *result = call.transpose(*result, order)?;
        }
    }
    Ok(results)
}

/// True if sequence lengths are given, and every sequence has them all.
fn whole_sequences(call: &Call<'_>) -> bool {
    let Some(lengths) = call.input(4) else { return false };
    let steps = call.fact(0).ok().and_then(|x| x.dims.first()?.as_known());
    let tensor: Option<&Tensor> = call.graph.constant(lengths);
    tensor.is_some_and(|t| t.to_i64_vec().iter().all(|&length| Some(length) == steps))
}
