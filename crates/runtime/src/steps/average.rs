//! Integer convolutions that are averages: every weight is one, every channel for itself.

use lepton_ir::ops::integer::{IntegerConv, IntegerEpilogue};
use lepton_ir::{Node, ValueId};
use lepton_kernels::conv::Window;
use lepton_kernels::pool::{AverageRequantization, Pool, PoolAxis, average_pool_bytes};
use lepton_kernels::quantize::Rounding;
use lepton_tensor::DType;

use super::product::operand;
use super::rows::{Windows, over_windows};
use super::{Chosen, ELEMENT_WORK};
use crate::place::Memory;
use crate::plan::Builder;

/// The one value of a constant vector.
fn uniform<T: lepton_tensor::Element + PartialEq>(
    builder: &Builder<'_>,
    id: Option<ValueId>,
) -> Option<T> {
    let values = builder.graph.constant(id?)?.as_slice::<T>().ok()?;
    let first = *values.first()?;
    // Blocks without an end in between, which are compared as vectors.
    let alike = |block: &[T]| block.iter().fold(true, |alike, &value| alike & (value == first));
    values.chunks(256).all(alike).then_some(first)
}

/// The pool that gives the same bytes as the convolution `op` of `window`, if there is one: what
/// padding reads is the zero point, which counts for nothing.
pub(crate) fn average(
    builder: &Builder<'_>,
    node: &Node,
    op: &IntegerConv,
    epilogue: &IntegerEpilogue,
    window: &Window,
) -> Option<Chosen> {
    let (x, y) = (operand(node, 0)?, node.outputs[0]?);
    let (shape, out) = (builder.shape(x), builder.shape(y));
    let each = op.group == shape[3] && op.group == out[3];
    let plain = operand(node, 4).is_none() && operand(node, 5).is_none();
    let sums = each && plain && epilogue.output == DType::U8;
    if !sums {
        return None;
    }
    // The weights last, which others may not read at all.
    let bias: i32 = uniform(builder, operand(node, 2))?;
    let all_ones = i64::from(bias) == -(window.taps() as i64) * op.x_zero;
    if !all_ones || uniform::<i8>(builder, operand(node, 1))? != 1 {
        return None;
    }
    let byte = |value: i32| u8::try_from(value).ok();
    let rounding =
        Rounding::clamped(byte(epilogue.zero)?, byte(epilogue.low)?, byte(epilogue.high)?);
    let factor = uniform(builder, operand(node, 3))?;
    let how = AverageRequantization { factor, zero: op.x_zero as i32, rounding };
    let axis = |i: usize| PoolAxis {
        input: shape[i + 1],
        output: out[i + 1],
        kernel: window.kernel[i],
        stride: window.stride[i],
        dilation: window.dilation[i],
        padding_before: window.pad_before[i],
        padding_after: window.pad_after[i],
    };
    let pool = Pool::new(axis(0), axis(1), shape[3]);
    let (from, to, count) = (builder.place(x), builder.place(y), builder.count(x));
    let rows = out[0] * out[1];
    let run = Box::new(move |memory: &Memory<'_>| {
        over_windows(
            memory,
            &pool,
            rows,
            count * ELEMENT_WORK,
            |pool, Windows { rows, input, output }| {
                // SAFETY: the plan holds these counts; outputs are disjoint.
                unsafe {
                    let output = memory.slice_mut(to, output.start, output.len());
                    let input = &memory.slice::<u8>(from, count)[input..];
                    average_pool_bytes(memory.isa, pool, how, rows, input, output);
                }
            },
        );
        Ok(())
    });
    Some(Chosen::divided("average-pool-u8", run))
}
