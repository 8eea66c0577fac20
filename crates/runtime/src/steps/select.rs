//! Steps that compare, choose and convert, of any element type.

use lepton_ir::Node;
use lepton_ir::ops::binary::BinaryFunction;
use lepton_ir::ops::cast::Cast;
use lepton_kernels::binary::{Comparison, IntegerBinary, binary_integer, compare, select, zip};
use lepton_kernels::broadcast::Broadcast;
use lepton_kernels::quantize::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use lepton_tensor::DType;

use super::{Choice, Chosen, by_size};
use crate::place::Memory;
use crate::plan::{Builder, Run};

/// The step `$body` of two operands of type `$T`, read along `$walk`, to results of type `$R`.
macro_rules! pair_step {
    ($builder:ident, $node:ident, $T:ty => $R:ty, $body:expr) => {{
        let (Some(a), Some(b), Some(y)) = ($node.inputs[0], $node.inputs[1], $node.outputs[0])
        else {
            return Ok(None);
        };
        let (shape, sa, sb) = ($builder.shape(y), $builder.shape(a), $builder.shape(b));
        let Some(walk) = Broadcast::dense(&shape, [&sa, &sb]) else { return Ok(None) };
        let places = [$builder.place(a), $builder.place(b), $builder.place(y)];
        let counts = [$builder.count(a), $builder.count(b), $builder.count(y)];
        Box::new(move |memory: &Memory<'_>| {
            // SAFETY: the plan holds these counts of elements of these types at the places; the
            // result is apart from the operands.
            let (a, b, y) = unsafe {
                (
                    memory.slice::<$T>(places[0], counts[0]),
                    memory.slice::<$T>(places[1], counts[1]),
                    memory.slice_mut::<$R>(places[2], 0, counts[2]),
                )
            };
            ($body)(&walk, a, b, y);
            Ok(())
        })
    }};
}

fn comparison(function: BinaryFunction) -> Option<Comparison> {
    use BinaryFunction as F;
    Some(match function {
        F::Equal => Comparison::Equal,
        F::Less => Comparison::Less,
        F::LessOrEqual => Comparison::LessOrEqual,
        F::Greater => Comparison::Greater,
        F::GreaterOrEqual => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn integer_function(function: BinaryFunction) -> Option<IntegerBinary> {
    use BinaryFunction as F;
    Some(match function {
        F::Add => IntegerBinary::Add,
        F::Sub => IntegerBinary::Subtract,
        F::Mul => IntegerBinary::Multiply,
        F::Max => IntegerBinary::Max,
        F::Min => IntegerBinary::Min,
        _ => return None,
    })
}

macro_rules! compared {
    ($builder:ident, $node:ident, $how:ident, $($T:ty)+; $dtype:ident $($D:ident)+) => {
        match $dtype {
            $(DType::$D => pair_step!($builder, $node, $T => u8, |walk: &_, a: &[$T], b: &[$T], y: &mut [u8]| {
                let count = y.len();
                compare($how, walk, 0..count, a, b, y);
            }),)+
            _ => return Ok(None),
        }
    };
}

macro_rules! logic {
    ($builder:ident, $node:ident, |$a:ident, $b:ident| $of:expr) => {
        pair_step!($builder, $node, u8 => u8, |walk: &_, a: &[u8], b: &[u8], y: &mut [u8]| {
            let count = y.len();
            zip(walk, 0..count, a, b, y, |a, b| {
                let ($a, $b) = (a != 0, b != 0);
                u8::from($of)
            });
        })
    };
}

/// Comparisons of any common type, logic of truth values, arithmetic of integers.
pub(crate) fn pair(builder: &mut Builder<'_>, node: &Node, function: BinaryFunction) -> Choice {
    let Some(dtype) = node.inputs[0].map(|id| builder.graph.fact(id).dtype) else {
        return Ok(None);
    };
    if let Some(how) = comparison(function) {
        let run: Run = compared!(builder, node, how, f32 i64 i32 u8; dtype F32 I64 I32 U8);
        return Ok(Some(Chosen::new("compare", run)));
    }
    if dtype == DType::Bool {
        let run: Run = match function {
            BinaryFunction::And => logic!(builder, node, |a, b| a && b),
            BinaryFunction::Or => logic!(builder, node, |a, b| a || b),
            BinaryFunction::Xor => logic!(builder, node, |a, b| a != b),
            _ => return Ok(None),
        };
        return Ok(Some(Chosen::new("logic", run)));
    }
    let Some(how) = integer_function(function) else { return Ok(None) };
    let run: Run = match dtype {
        DType::I64 => {
            pair_step!(builder, node, i64 => i64, |walk: &_, a: &[i64], b: &[i64], y: &mut [i64]| {
                let count = y.len();
                binary_integer(how, walk, 0..count, a, b, y);
            })
        }
        DType::I32 => {
            pair_step!(builder, node, i32 => i32, |walk: &_, a: &[i32], b: &[i32], y: &mut [i32]| {
                let count = y.len();
                binary_integer(how, walk, 0..count, a, b, y);
            })
        }
        _ => return Ok(None),
    };
    Ok(Some(Chosen::new("integers", run)))
}

/// One of two operands, by a truth value.
pub(crate) fn choose(builder: &mut Builder<'_>, node: &Node) -> Choice {
    let [Some(c), Some(a), Some(b)] = node.inputs[..] else { return Ok(None) };
    let Some(y) = node.outputs[0] else { return Ok(None) };
    let shapes = [c, a, b].map(|id| builder.shape(id));
    let operands = [&shapes[0][..], &shapes[1][..], &shapes[2][..]];
    let Some(walk) = Broadcast::dense(&builder.shape(y), operands) else { return Ok(None) };
    let places = [c, a, b, y].map(|id| builder.place(id));
    let counts = [c, a, b, y].map(|id| builder.count(id));
    let run: Run = by_size!(builder.graph.fact(a).dtype.size(), T => Box::new(move |memory: &Memory<'_>| {
        // SAFETY: the plan holds these counts of elements of these sizes at the places; the result
        // is apart from the operands.
        let (condition, yes, no, output) = unsafe {
            (memory.slice::<u8>(places[0], counts[0]),
             memory.slice::<T>(places[1], counts[1]),
             memory.slice::<T>(places[2], counts[2]),
             memory.slice_mut::<T>(places[3], 0, counts[3]))
        };
        select(&walk, 0..counts[3], condition, yes, no, output);
        Ok(())
    }));
    Ok(Some(Chosen::new("select", run)))
}

/// The step that turns all elements of type `$A` into elements of type `$B`.
macro_rules! whole_step {
    ($builder:ident, $node:ident, $A:ty => $B:ty, $body:expr) => {{
        let (Some(x), Some(y)) = ($node.inputs[0], $node.outputs[0]) else { return Ok(None) };
        let (from, to, count) = ($builder.place(x), $builder.place(y), $builder.count(x));
        Box::new(move |memory: &Memory<'_>| {
            // SAFETY: the plan holds `count` elements of these types at places that are apart.
            let input = unsafe { memory.slice::<$A>(from, count) };
            // SAFETY: as above.
            let output = unsafe { memory.slice_mut::<$B>(to, 0, count) };
            ($body)(memory.isa, input, output);
            Ok(())
        })
    }};
}

/// The step that maps each element of type `$A` to one of type `$B`.
macro_rules! each_step {
    ($builder:ident, $node:ident, $A:ty => $B:ty, $f:expr) => {
        whole_step!($builder, $node, $A => $B, |_, input: &[$A], output: &mut [$B]| {
            for (place, &value) in output.iter_mut().zip(input) {
                *place = ($f)(value);
            }
        })
    };
}

/// The opposite of truth values.
pub(crate) fn not(builder: &mut Builder<'_>, node: &Node) -> Choice {
    let run = each_step!(builder, node, u8 => u8, |v: u8| u8::from(v == 0));
    Ok(Some(Chosen::new("logic", run)))
}

/// A change of type: the pairs that occur in models; others run by `eval`.
pub(crate) fn cast(builder: &mut Builder<'_>, node: &Node, op: &Cast) -> Choice {
    use half::{bf16, f16};
    let Some(from) = node.inputs[0].map(|id| builder.graph.fact(id).dtype) else {
        return Ok(None);
    };
    let run: Run = match (from, op.to) {
        (DType::Bool, DType::F32) => {
            each_step!(builder, node, u8 => f32, |v: u8| f32::from(u8::from(v != 0)))
        }
        (DType::Bool, DType::I64) => {
            each_step!(builder, node, u8 => i64, |v: u8| i64::from(v != 0))
        }
        (DType::Bool, DType::I32) => {
            each_step!(builder, node, u8 => i32, |v: u8| i32::from(v != 0))
        }
        (DType::I64, DType::Bool) => {
            each_step!(builder, node, i64 => u8, |v: i64| u8::from(v != 0))
        }
        (DType::I32, DType::Bool) => {
            each_step!(builder, node, i32 => u8, |v: i32| u8::from(v != 0))
        }
        (DType::F32, DType::Bool) => {
            each_step!(builder, node, f32 => u8, |v: f32| u8::from(v != 0.0))
        }
        (DType::U8, DType::F32) => each_step!(builder, node, u8 => f32, f32::from),
        (DType::I8, DType::F32) => each_step!(builder, node, i8 => f32, f32::from),
        (DType::I32, DType::F32) => each_step!(builder, node, i32 => f32, |v| v as f32),
        (DType::I64, DType::F32) => each_step!(builder, node, i64 => f32, |v| v as f64 as f32),
        (DType::F32, DType::I64) => each_step!(builder, node, f32 => i64, |v| v as i64),
        (DType::F32, DType::I32) => each_step!(builder, node, f32 => i32, |v| v as i32),
        (DType::F32, DType::U8) => each_step!(builder, node, f32 => u8, |v| v as u8),
        (DType::F32, DType::I8) => each_step!(builder, node, f32 => i8, |v| v as i8),
        (DType::I32, DType::I64) => each_step!(builder, node, i32 => i64, i64::from),
        (DType::I64, DType::I32) => each_step!(builder, node, i64 => i32, |v| v as i32),
        (DType::U8, DType::I32) => each_step!(builder, node, u8 => i32, i32::from),
        (DType::F16, DType::F32) => whole_step!(builder, node, f16 => f32, f16_to_f32),
        (DType::BF16, DType::F32) => whole_step!(builder, node, bf16 => f32, bf16_to_f32),
        (DType::F32, DType::F16) => whole_step!(builder, node, f32 => f16, f32_to_f16),
        (DType::F32, DType::BF16) => whole_step!(builder, node, f32 => bf16, f32_to_bf16),
        (a, b) if a == b => return super::shape::copy(builder, node),
        _ => return Ok(None),
    };
    Ok(Some(Chosen::new("cast", run)))
}
