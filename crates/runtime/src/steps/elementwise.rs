//! Steps over single elements.

use lepton_ir::ops::binary::{Binary, BinaryFunction};
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Node, ValueId};
use lepton_kernels::binary::{Binary as Kernel, binary_f32};
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::map::{Unary as Map, map_f32, map_f32_in_place};

use super::{Choice, Chosen, ELEMENT_WORK, is_f32, over_rows};
use crate::place::Memory;
use crate::plan::Builder;

/// The kernel's name of a function, where it has one.
fn map_function(op: &Unary) -> Option<Map> {
    use UnaryFunction as F;
    let (alpha, beta) = (op.alpha, op.beta);
    Some(match op.function {
        F::Neg => Map::Neg,
        F::Abs => Map::Abs,
        F::Sqrt => Map::Sqrt,
        F::Reciprocal => Map::Reciprocal,
        F::Exp => Map::Exp,
        F::Log => Map::Log,
        F::Sigmoid => Map::Sigmoid,
        F::Tanh => Map::Tanh,
        F::Relu => Map::Relu,
        F::LeakyRelu => Map::LeakyRelu { alpha },
        F::ThresholdedRelu => Map::ThresholdedRelu { alpha },
        F::Elu => Map::Elu { alpha },
        F::Selu => Map::Selu { alpha, gamma: beta },
        F::Clip => Map::Clip { low: alpha, high: beta },
        F::Gelu => Map::Gelu,
        F::GeluTanh => Map::GeluTanh,
        F::Silu if alpha == 1.0 => Map::Silu,
        F::Silu => Map::Swish { alpha },
        F::HardSigmoid => Map::HardSigmoid { alpha, beta },
        F::HardSwish => Map::HardSwish,
        F::Mish => Map::Mish,
        F::Softplus => Map::Softplus,
        F::Softsign => Map::Softsign,
        F::Erf => Map::Erf,
        F::Floor => Map::Floor,
        F::Ceil => Map::Ceil,
        F::Round => Map::Round,
        F::Sign => Map::Sign,
        _ => return None,
    })
}

/// A function of one element, in place where the plan says so.
pub(crate) fn unary(builder: &mut Builder<'_>, node: &Node, op: &Unary) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let Some(function) = map_function(op).filter(|_| is_f32(builder, node, 0)) else {
        return Ok(None);
    };
    let (from, to, count) = (builder.place(x), builder.place(y), builder.count(x));
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, count, count * ELEMENT_WORK, |range| {
            // SAFETY: the plan holds `count` floats at both places; ranges are disjoint, and the
            // input is not borrowed where it is the output.
            unsafe {
                let output = memory.slice_mut::<f32>(to, range.start, range.len());
                if from == to {
                    map_f32_in_place(memory.isa, function, output);
                } else {
                    let input = &memory.slice::<f32>(from, count)[range];
                    map_f32(memory.isa, function, input, output);
                }
            }
        });
        Ok(())
    });
    Ok(Some(Chosen::divided("map", run)))
}

fn binary_function(function: BinaryFunction) -> Option<Kernel> {
    use BinaryFunction as F;
    Some(match function {
        F::Add => Kernel::Add,
        F::Sub => Kernel::Subtract,
        F::Mul => Kernel::Multiply,
        F::Div => Kernel::Divide,
        F::Max => Kernel::Max,
        F::Min => Kernel::Min,
        F::Pow => Kernel::Power,
        F::Prelu => Kernel::Prelu,
        _ => return None,
    })
}

/// True for a constant of 2.
fn is_two(builder: &Builder<'_>, id: ValueId) -> bool {
    let constant = builder.graph.constant(id).and_then(|constant| constant.as_slice::<f32>().ok());
    constant == Some(&[2.0])
}

/// A function of two elements with broadcasting.
pub(crate) fn binary(builder: &mut Builder<'_>, node: &Node, op: &Binary) -> Choice {
    let (Some(a), Some(b), Some(y)) = (node.inputs[0], node.inputs[1], node.outputs[0]) else {
        return Ok(None);
    };
    if let Some(chosen) = super::gate::gate(builder, node) {
        return Ok(Some(chosen));
    }
    let float = is_f32(builder, node, 0) && is_f32(builder, node, 1);
    let Some(function) = binary_function(op.function).filter(|_| float) else {
        return super::select::pair(builder, node, op.function);
    };
    let squares = function == Kernel::Power && is_two(builder, b);
    let (function, b) = if squares { (Kernel::Multiply, a) } else { (function, b) };
    let (shape, sa, sb) = (builder.shape(y), builder.shape(a), builder.shape(b));
    let Some(walk) = Broadcast::dense(&shape, [&sa, &sb]) else { return Ok(None) };
    let places = [builder.place(a), builder.place(b), builder.place(y)];
    let (count_a, count_b, count) = (builder.count(a), builder.count(b), builder.count(y));
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, count, count * ELEMENT_WORK, |range| {
            // SAFETY: the plan holds these counts of floats; ranges of the output are disjoint
            // and the output is apart from both operands.
            let (a, b, output) = unsafe {
                (
                    memory.slice::<f32>(places[0], count_a),
                    memory.slice::<f32>(places[1], count_b),
                    memory.slice_mut::<f32>(places[2], range.start, range.len()),
                )
            };
            let open = [f32::NEG_INFINITY, f32::INFINITY];
            binary_f32(memory.isa, function, &walk, range, a, b, open, output);
        });
        Ok(())
    });
    Ok(Some(Chosen::divided("binary", run)))
}
