//! Steps over windows and rows: pooling, softmax.

use std::ops::Range;

use half::bf16;
use lepton_ir::ops::pool::{Pool, PoolFunction};
use lepton_ir::ops::softmax::Softmax;
use lepton_ir::{Dim, Graph, Node, Op};
use lepton_kernels::pool::{
    Pool as Geometry, PoolAxis, average_pool_f32, max_pool_bytes, max_pool_f32,
};
use lepton_kernels::softmax::{Softmax as Kind, softmax as softmax_rows, softmax_strided};
use lepton_tensor::{DType, Layout};

use super::{Choice, Chosen, ELEMENT_WORK, is_f32, over_rows};
use crate::place::Memory;
use crate::plan::Builder;

/// The pool of a step over channels-last images of f32.
fn of_floats<'a>(graph: &Graph, node: &'a Node) -> Option<&'a Pool> {
    let Op::Pool(op) = &node.op else { return None };
    let x = graph.fact((*node.inputs.first()?)?);
    geometry(op, &x.shape()?, &graph.fact((*node.outputs.first()?)?).shape()?)?;
    (x.dtype == DType::F32).then_some(op)
}

/// True for an average of whole images, which may be kept as bf16.
pub(crate) fn averages(graph: &Graph, node: &Node) -> bool {
    of_floats(graph, node).is_some_and(|op| op.global && op.function == PoolFunction::Average)
}

/// True for a maximum, which can be written as bf16.
pub(crate) fn writes_bf16(graph: &Graph, node: &Node) -> bool {
    of_floats(graph, node).is_some_and(|op| op.function == PoolFunction::Max)
}

/// True for the images of a maximum that is kept as bf16.
pub(crate) fn takes_bf16(graph: &Graph, node: &Node, narrow: &[bool]) -> bool {
    let result = node.outputs.first().copied().flatten();
    writes_bf16(graph, node) && result.is_some_and(|y| narrow[y.index()])
}

/// How a pool of channels-last images lies, if it has a kernel.
fn geometry(op: &Pool, shape: &[usize], out: &[usize]) -> Option<Geometry> {
    if op.layout != Layout::Nhwc || shape.len() != 4 || op.function == PoolFunction::Lp {
        return None;
    }
    let window = op.window(&[Dim::from(shape[1]), Dim::from(shape[2])]).ok()?;
    let (_, before) = window.resolve(&shape[1..3]).ok()?;
    let axis = |i: usize| PoolAxis {
        input: shape[i + 1],
        output: out[i + 1],
        kernel: window.kernel[i],
        stride: window.strides[i],
        dilation: window.dilations[i],
        padding_before: before[i],
        padding_after: window.pads[i + 2],
    };
    Some(Geometry::new(axis(0), axis(1), shape[3]))
}

/// Channels of a part of a pixel: as many as a pool reads at once.
const CHANNELS_AT_ONCE: usize = 64;

/// A part of a pool: output rows, the first element of the input that it reads, and its outputs.
pub(super) struct Windows {
    pub rows: Range<usize>,
    pub input: usize,
    pub output: Range<usize>,
}

/// Calls `body` with the parts of a pool of so many output rows, over the threads if the work is worth it:
/// rows of it, or channels where an image becomes one pixel.
pub(super) fn over_windows(
    memory: &Memory<'_>,
    pool: &Geometry,
    rows: usize,
    work: usize,
    body: impl Fn(&Geometry, Windows) + Sync,
) {
    let length = pool.row_len();
    if pool.height.output * pool.width.output != 1 {
        return over_rows(memory, rows, work, |rows| {
            let output = rows.start * length..rows.end * length;
            body(pool, Windows { rows, input: 0, output });
        });
    }
    let blocks = pool.channels.div_ceil(CHANNELS_AT_ONCE);
    over_rows(memory, rows * blocks, work, |range| {
        let mut at = range.start;
        while at < range.end {
            let (image, first) = (at / blocks, at % blocks);
            let end = (first + range.end - at).min(blocks);
            let channels = first * CHANNELS_AT_ONCE..pool.channels.min(end * CHANNELS_AT_ONCE);
            let output = image * length + channels.start..image * length + channels.end;
            let part = Windows { rows: image..image + 1, input: channels.start, output };
            body(&pool.of_channels(channels.len()), part);
            at += end - first;
        }
    });
}

/// Pooling of channels-last images.
pub(crate) fn pool(builder: &mut Builder<'_>, node: &Node, op: &Pool) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let (shape, out) = (builder.shape(x), builder.shape(y));
    let Some(geometry) = geometry(op, &shape, &out) else { return Ok(None) };
    let (from, to) = (builder.place(x), builder.place(y));
    let (count, rows) = (builder.count(x), out[0] * out[1]);
    let dtype = builder.graph.fact(x).dtype;
    let narrow = [builder.is_narrow(x), builder.is_narrow(y)];
    let (max, padded) = (op.function == PoolFunction::Max, op.count_padding);
    let served = dtype == DType::F32 || (dtype == DType::U8 && max);
    if !served {
        return Ok(None);
    }
    let work = count * ELEMENT_WORK;
    let run = Box::new(move |memory: &Memory<'_>| {
        over_windows(memory, &geometry, rows, work, |pool, Windows { rows, input, output }| {
            // SAFETY: the plan holds these counts; outputs are disjoint.
            unsafe {
                macro_rules! pool {
                    ($pool:ident, $x:ty, $y:ty $(, $padded:ident)?) => {{
                        let output = memory.slice_mut::<$y>(to, output.start, output.len());
                        let input = &memory.slice::<$x>(from, count)[input..];
                        $pool(memory.isa, pool, $($padded,)? rows, input, output);
                    }};
                }
                if dtype == DType::U8 {
                    return pool!(max_pool_bytes, u8, u8);
                }
                match (max, narrow) {
                    (true, [false, false]) => pool!(max_pool_f32, f32, f32),
                    (true, [false, true]) => pool!(max_pool_f32, f32, bf16),
                    (true, [true, _]) => pool!(max_pool_f32, bf16, bf16),
                    (false, [false, _]) => pool!(average_pool_f32, f32, f32, padded),
                    (false, [true, _]) => pool!(average_pool_f32, bf16, f32, padded),
                }
            }
        });
        Ok(())
    });
    let kernel = match (max, narrow[0]) {
        (true, _) => "max-pool",
        (false, false) => "average-pool",
        (false, true) => "average-pool-bf16",
    };
    Ok(Some(Chosen::divided(kernel, run)))
}

/// Softmax along any axis.
pub(crate) fn softmax(builder: &mut Builder<'_>, node: &Node, op: &Softmax) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let shape = builder.shape(x);
    let rank = shape.len();
    let Ok(axis) = lepton_ir::ops::walk::resolve_axis(op.axis, rank) else { return Ok(None) };
    if !is_f32(builder, node, 0) || rank == 0 || shape.contains(&0) {
        return Ok(None);
    }
    let columns = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let kind = if op.log { Kind::Log } else { Kind::Plain };
    let (from, to, count) = (builder.place(x), builder.place(y), builder.count(x));
    let rows = count / columns;
    let run = Box::new(move |memory: &Memory<'_>| {
        if inner > 1 {
            memory.threads.run(1, &|_| {
                // SAFETY: the plan holds `count` floats at both places, which are apart.
                let (input, output) =
                    unsafe { (memory.slice(from, count), memory.slice_mut(to, 0, count)) };
                softmax_strided(memory.isa, kind, columns, inner, input, output);
            });
            return Ok(());
        }
        over_rows(memory, rows, count * 8, |range| {
            let (start, length) = (range.start * columns, range.len() * columns);
            // SAFETY: as above; ranges of rows are disjoint.
            let (input, output) = unsafe {
                (
                    &memory.slice(from, count)[start..start + length],
                    memory.slice_mut(to, start, length),
                )
            };
            softmax_rows(memory.isa, kind, columns, input, output);
        });
        Ok(())
    });
    Ok(Some(Chosen::divided("softmax", run)))
}
