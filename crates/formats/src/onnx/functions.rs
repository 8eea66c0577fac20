//! Writing the families: functions of one and two elements, reductions.

use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::reduce::Reduce;
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_tensor::DType;

use super::emit::{Emit, Written};
use super::families::{BINARY, REDUCE, UNARY};
use super::link::{float, int, word};
use super::proto::AttributeProto;
use super::tensor::number_of;
use crate::error::FormatError;

/// A function of one element.
pub fn unary(emit: &mut Emit<'_>, op: &Unary) -> Written {
    let x = emit.inputs[0].clone();
    ending(emit, op, &x)
}

/// The results as the value `x` after `op`.
pub fn ending(emit: &mut Emit<'_>, op: &Unary, x: &str) -> Written {
    let dtype = emit.fact(0)?.dtype;
    let (name, inputs, attributes) = single(emit, op, x, dtype)?;
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    emit.last(name, &inputs, attributes)
}

/// The value `x` after `op`, as another step.
pub fn applied(emit: &mut Emit<'_>, op: &Unary, x: &str) -> Result<String, FormatError> {
    let dtype = emit.fact(0)?.dtype;
    let (name, inputs, attributes) = single(emit, op, x, dtype)?;
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    Ok(emit.step(name, &inputs, attributes))
}

type Single = (&'static str, Vec<String>, Vec<AttributeProto>);

/// The node that ends a function of one element; steps before it are added.
fn single(emit: &mut Emit<'_>, op: &Unary, x: &str, dtype: DType) -> Result<Single, FormatError> {
    let x = x.to_string();
    match op.function {
        UnaryFunction::Clip => {
            let bound = |emit: &mut Emit<'_>, value: f32| match value.is_finite() {
                true => emit.scalar(dtype, value as f64),
                false => Ok(String::new()),
            };
            let (low, high) = (bound(emit, op.alpha)?, bound(emit, op.beta)?);
            Ok(("Clip", vec![x, low, high], Vec::new()))
        }
        UnaryFunction::Gelu => Ok(("Gelu", vec![x], Vec::new())),
        UnaryFunction::GeluTanh => Ok(("Gelu", vec![x], vec![word("approximate", "tanh")])),
        // `Swish` is younger than the operator set that is written.
        UnaryFunction::Silu => {
            let mut scaled = x.clone();
            if op.alpha != 1.0 {
                let alpha = emit.scalar(dtype, op.alpha as f64)?;
                scaled = emit.step("Mul", &[&x, &alpha], Vec::new());
            }
            let gate = emit.step("Sigmoid", &[&scaled], Vec::new());
            Ok(("Mul", vec![x, gate], Vec::new()))
        }
        function => {
            let row = UNARY.iter().find(|row| row.1 == function);
            let Some(&(name, _, alpha, beta)) = row else {
                return Err(emit.error("ONNX has no such function"));
            };
            let mut attributes = Vec::new();
            for (parameter, value) in [(alpha, op.alpha), (beta, op.beta)] {
                attributes.extend(parameter.map(|(name, _)| float(name, value)));
            }
            Ok((name, vec![x], attributes))
        }
    }
}

/// A function of two elements.
pub fn binary(emit: &mut Emit<'_>, op: &Binary) -> Written {
    let (mut a, mut b) = (emit.inputs[0].clone(), emit.inputs[1].clone());
    match op.function {
        // Lepton's take numbers too.
        BinaryFunction::And | BinaryFunction::Or | BinaryFunction::Xor => {
            for (index, name) in [&mut a, &mut b].into_iter().enumerate() {
                if emit.fact(index)?.dtype != DType::Bool {
                    let to = vec![int("to", number_of(DType::Bool) as i64)];
                    *name = emit.step("Cast", &[&*name], to);
                }
            }
            by_table(emit, op, &a, &b)
        }
        BinaryFunction::Fmod => emit.last("Mod", &[&a, &b], vec![int("fmod", 1)]),
        BinaryFunction::Mod if emit.fact(0)?.dtype.is_float() => {
            let rest = emit.step("Mod", &[&a, &b], vec![int("fmod", 1)]);
            let dtype = emit.fact(0)?.dtype;
            let zero = emit.scalar(dtype, 0.0)?;
            let below = emit.step("Less", &[&rest, &zero], Vec::new());
            let down = emit.step("Less", &[&b, &zero], Vec::new());
            let differ = emit.step("Xor", &[&below, &down], Vec::new());
            let none = emit.step("Equal", &[&rest, &zero], Vec::new());
            let some = emit.step("Not", &[&none], Vec::new());
            let wrong = emit.step("And", &[&differ, &some], Vec::new());
            let other = emit.step("Add", &[&rest, &b], Vec::new());
            emit.last("Where", &[&wrong, &other, &rest], Vec::new())
        }
        BinaryFunction::Mod => emit.last("Mod", &[&a, &b], Vec::new()),
        _ => by_table(emit, op, &a, &b),
    }
}

fn by_table(emit: &mut Emit<'_>, op: &Binary, a: &str, b: &str) -> Written {
    match BINARY.iter().find(|row| row.1 == op.function) {
        Some((name, _)) => emit.last(name, &[a, b], Vec::new()),
        None => Err(emit.error("ONNX has no such function")),
    }
}

/// A reduction.
pub fn reduce(emit: &mut Emit<'_>, op: &Reduce) -> Written {
    let Some((name, _)) = REDUCE.iter().find(|row| row.1 == op.function) else {
        return Err(emit.error("ONNX has no such reduction"));
    };
    let mut attributes = Vec::new();
    if !op.keep_dims {
        attributes.push(int("keepdims", 0));
    }
    if op.noop_if_empty {
        attributes.push(int("noop_with_empty_axes", 1));
    }
    let inputs = emit.inputs.clone();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    emit.last(name, &inputs, attributes)
}
