//! Rows that need a look at their attributes: order, resampling, layers with state.

use lepton_tensor::Tensor;

use super::call::{Call, Results};
use super::ops::Row;
use super::rows::direct;

/// The number of elements as an attribute (before 10) or an operand.
pub fn top_k(call: &mut Call<'_>, row: &Row) -> Results {
    let op = call.built(row)?;
    let k = if call.has("k") { Some(call.integers(&[call.int("k", 1)])) } else { call.input(1) };
    let x = call.input(0);
    call.emit(op, &[x, k])
}

/// Resampling; version 10 has no region and scales by the asymmetric rule.
pub fn resize(call: &mut Call<'_>, row: &Row) -> Results {
    if call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize" {
        return Err(call.error("cropping is not supported; export a Slice before it"));
    }
    if call.int("antialias", 0) != 0 || call.has("axes") {
        return Err(call.error("antialias and axes are not supported"));
    }
    if call.text("keep_aspect_ratio_policy", "stretch") != "stretch" {
        return Err(call.error("keep_aspect_ratio_policy is not supported"));
    }
    if call.version < 11 {
        return super::decomposed::upsample(call);
    }
    let op = call.built(row)?;
    let mut inputs = call.inputs.clone();
    inputs.resize(inputs.len().max(3), None);
    // Version 11 gives empty scales beside sizes.
    inputs[1] = None;
    if inputs.len() > 3 && inputs[2].is_some_and(|id| call.graph.fact(id).count().is(0)) {
        inputs[2] = None;
    }
    call.emit(op, &inputs)
}

/// The activations that a layer has where it does not name any.
fn usual_activations(name: &str) -> &'static [&'static str] {
    if name == "GRU" { &["sigmoid", "tanh"] } else { &["sigmoid", "tanh", "tanh"] }
}

/// Recurrent layers with the usual activations.
pub fn recurrent(call: &mut Call<'_>, row: &Row) -> Results {
    let usual = usual_activations(row.name).iter().cycle();
    let given = call.texts("activations");
    if given.iter().zip(usual).any(|(given, usual)| given.to_lowercase() != **usual) {
        return Err(call.error(format!("activations {given:?} are not supported")));
    }
    if call.int("layout", 0) != 0 || call.int("input_forget", 0) != 0 {
        return Err(call.error("attributes `layout` and `input_forget` are not supported"));
    }
    if call.input(7).is_some() {
        return Err(call.error("peepholes are not supported"));
    }
    if whole_sequences(call) {
        call.inputs[4] = None;
    }
    direct(call, row)
}

/// True if sequence lengths are given, and every sequence has them all.
fn whole_sequences(call: &Call<'_>) -> bool {
    let Some(lengths) = call.input(4) else { return false };
    let steps = call.fact(0).ok().and_then(|x| x.dims.first()?.as_known());
    let tensor: Option<&Tensor> = call.graph.constant(lengths);
    tensor.is_some_and(|t| t.to_i64_vec().iter().all(|&length| Some(length) == steps))
}
