//! Steps that gather statistics: reductions, normalisation, positions of extremes.

use half::bf16;
use lepton_ir::ops::normalize::{InstanceNormalization, LayerNormalization};
use lepton_ir::ops::order::{Arg, ArgFunction};
use lepton_ir::ops::reduce::{Reduce, ReduceFunction};
use lepton_ir::ops::walk::resolve_axis;
use lepton_ir::{Graph, Node, Op, ValueId};
use lepton_kernels::normalize::{
    GroupNormalization, RowNormalization, normalize_groups, normalize_rows,
};
use lepton_kernels::quantize::f32_to_bf16;
use lepton_kernels::reduce::{
    Reduce as Walk, Reduction, Tie, arg_extreme, reduce_f32, reduce_with,
};
use lepton_tensor::DType;

use super::product::operand;
use super::{Choice, Chosen, ELEMENT_WORK, is_f32, over_rows};
use crate::place::{Memory, Place};
use crate::plan::Builder;

fn reduction(function: ReduceFunction) -> Reduction {
    match function {
        ReduceFunction::Sum => Reduction::Sum,
        ReduceFunction::Mean => Reduction::Mean,
        ReduceFunction::Max => Reduction::Max,
        ReduceFunction::Min => Reduction::Min,
        ReduceFunction::Prod => Reduction::Product,
        ReduceFunction::L1 => Reduction::L1,
        ReduceFunction::L2 => Reduction::L2,
        ReduceFunction::SumSquare => Reduction::SumSquares,
        ReduceFunction::LogSum => Reduction::LogSum,
        ReduceFunction::LogSumExp => Reduction::LogSumExp,
    }
}

/// One value from all elements along some axes: reals, and sums and extremes of i64.
pub(crate) fn reduce(builder: &mut Builder<'_>, node: &Node, op: &Reduce) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let shape = builder.shape(x);
    let axes = operand(node, 1).map(|id| builder.graph.fact(id));
    let Ok(axes) = op.axes_of(axes, shape.len()) else { return Ok(None) };
    let reduced: Vec<bool> = (0..shape.len()).map(|axis| axes.contains(&axis)).collect();
    let Some(walk) = Walk::new(&shape, &reduced) else { return Ok(None) };
    if shape.contains(&0) {
        return Ok(None);
    }
    let places = (builder.place(x), builder.place(y));
    let counts = (builder.count(x), builder.count(y));
    match builder.graph.fact(x).dtype {
        DType::F32 => Ok(Some(reals(walk, reduction(op.function), places, counts))),
        DType::I64 => Ok(integers(walk, op.function, places, counts)),
        _ => Ok(None),
    }
}

fn reals(
    walk: Walk,
    how: Reduction,
    places: (Place, Place),
    (read, written): (usize, usize),
) -> Chosen {
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, written, read * ELEMENT_WORK, |range| {
            // SAFETY: the plan holds these counts of floats at places that are apart; ranges of
            // results are disjoint.
            let (input, output) = unsafe {
                let output = memory.slice_mut::<f32>(places.1, range.start, range.len());
                (memory.slice::<f32>(places.0, read), output)
            };
            reduce_f32(memory.isa, how, &walk, range, input, output);
        });
        Ok(())
    });
    Chosen::divided("reduce", run)
}

fn integers(
    walk: Walk,
    function: ReduceFunction,
    places: (Place, Place),
    (read, written): (usize, usize),
) -> Option<Chosen> {
    let (start, step): (i64, fn(i64, i64) -> i64) = match function {
        ReduceFunction::Sum => (0, i64::wrapping_add),
        ReduceFunction::Max => (i64::MIN, i64::max),
        ReduceFunction::Min => (i64::MAX, i64::min),
        _ => return None,
    };
    let run = Box::new(move |memory: &Memory<'_>| {
        // SAFETY: the plan holds these counts of integers at places that are apart.
        let (input, output) =
            unsafe { (memory.slice(places.0, read), memory.slice_mut(places.1, 0, written)) };
        reduce_with(&walk, 0..written, input, output, start, step);
        Ok(())
    });
    Some(Chosen::new("reduce", run))
}

/// Elements of a row that is normalised, where there is a kernel: reals, and parameters as long as
/// a row, which would otherwise repeat inside it.
fn normalised_row(graph: &Graph, node: &Node) -> Option<usize> {
    let Op::LayerNormalization(op) = &node.op else { return None };
    let x = graph.fact(operand(node, 0)?);
    let shape = x.shape()?;
    let axis = resolve_axis(op.axis, shape.len()).ok()?;
    let columns: usize = shape[axis..].iter().product();
    let fits = |id: ValueId| {
        let Some(own) = graph.fact(id).shape() else { return false };
        let leading = own.iter().skip_while(|&&extent| extent == 1).product::<usize>();
        leading == columns && (own.len() <= shape.len() - axis || columns == 1)
    };
    let parameters = [1, 2].into_iter().filter_map(|index| operand(node, index));
    let served = x.dtype == DType::F32 && !shape.contains(&0) && parameters.into_iter().all(fits);
    served.then_some(columns)
}

/// True for a normalisation that can write its result as bf16.
pub(crate) fn writes_bf16(graph: &Graph, node: &Node) -> bool {
    normalised_row(graph, node).is_some()
}

/// What is normalised, and how.
struct Rows {
    /// x and the result.
    places: [Place; 2],
    gamma: Option<Place>,
    beta: Option<Place>,
    epsilon: f32,
    /// Elements of a row, and of all rows.
    columns: usize,
    count: usize,
}

impl Rows {
    /// # Safety
    /// The plan holds the floats of x and of the parameters.
    unsafe fn operands<'a>(&self, memory: &'a Memory<'_>) -> (RowNormalization<'a>, &'a [f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            let parameter = |p: Option<Place>| p.map(|p| memory.slice::<f32>(p, self.columns));
            let (gamma, beta) = (parameter(self.gamma), parameter(self.beta));
            let how = RowNormalization { centre: true, gamma, beta, epsilon: self.epsilon };
            (how, memory.slice::<f32>(self.places[0], self.count))
        }
    }

    fn run(&self, memory: &Memory<'_>) {
        let columns = self.columns;
        over_rows(memory, self.count / columns, self.count * 8, |range| {
            let (start, length) = (range.start * columns, range.len() * columns);
            // SAFETY: the plan holds `count` floats at both places, which are apart, and
            // `columns` of each parameter; ranges of rows are disjoint.
            unsafe {
                let (how, input) = self.operands(memory);
                let output = memory.slice_mut(self.places[1], start, length);
                normalize_rows(memory.isa, how, columns, &input[start..start + length], output);
            }
        });
    }

    /// The same, rounded to bf16 row by row.
    fn run_rounded(&self, memory: &Memory<'_>) {
        let columns = self.columns;
        over_rows(memory, self.count / columns, self.count * 8, |range| {
            let mut finished = vec![0.0; columns];
            for row in range {
                let start = row * columns;
                // SAFETY: as for `run`, with bf16 at the place of the result.
                unsafe {
                    let (how, input) = self.operands(memory);
                    let input = &input[start..start + columns];
                    normalize_rows(memory.isa, how, columns, input, &mut finished);
                    let output = memory.slice_mut::<bf16>(self.places[1], start, columns);
                    f32_to_bf16(memory.isa, &finished, output);
                }
            }
        });
    }
}

/// Normalisation of rows.
pub(crate) fn layer_normalization(
    builder: &mut Builder<'_>,
    node: &Node,
    op: &LayerNormalization,
) -> Choice {
    let Some(columns) = normalised_row(builder.graph, node) else { return Ok(None) };
    let (x, y) = (node.inputs[0].expect("checked"), node.outputs[0]);
    let Some(y) = y else { return Ok(None) };
    let place = |index| operand(node, index).map(|id| builder.place(id));
    let rows = Rows {
        places: [x, y].map(|id| builder.place(id)),
        gamma: place(1),
        beta: place(2),
        epsilon: op.epsilon,
        columns,
        count: builder.count(x),
    };
    let narrow = builder.is_narrow(y);
    let run = Box::new(move |memory: &Memory<'_>| {
        if narrow {
            rows.run_rounded(memory)
        } else {
            rows.run(memory)
        }
        Ok(())
    });
    Ok(Some(Chosen::divided("layer-normalization", run)))
}

/// Normalisation of each channel of each image.
pub(crate) fn instance_normalization(
    builder: &mut Builder<'_>,
    node: &Node,
    op: &InstanceNormalization,
) -> Choice {
    let [Some(x), Some(gamma), Some(beta)] = node.inputs[..] else { return Ok(None) };
    let Some(y) = node.outputs[0] else { return Ok(None) };
    let (shape, count) = (builder.shape(x), builder.count(x));
    if !is_f32(builder, node, 0) || count == 0 {
        return Ok(None);
    }
    let (channels, pixels) = (shape[1], shape[2..].iter().product::<usize>());
    let places = [x, gamma, beta, y].map(|id| builder.place(id));
    let epsilon = op.epsilon;
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, shape[0] * channels, count * 8, |range| {
            let (start, length) = (range.start * pixels, range.len() * pixels);
            // SAFETY: the plan holds `count` floats at both places, which are apart, and
            // `channels` of each parameter; ranges of channels are disjoint.
            unsafe {
                let how = GroupNormalization {
                    groups: channels,
                    gamma: memory.slice(places[1], channels),
                    beta: memory.slice(places[2], channels),
                    epsilon,
                };
                let input = &memory.slice::<f32>(places[0], count)[start..start + length];
                let output = memory.slice_mut(places[3], start, length);
                normalize_groups(memory.isa, how, pixels, range.start, input, output);
            }
        });
        Ok(())
    });
    Ok(Some(Chosen::divided("instance-normalization", run)))
}

/// Where the extreme lies along an axis.
pub(crate) fn arg(builder: &mut Builder<'_>, node: &Node, op: &Arg) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let (shape, count, results) = (builder.shape(x), builder.count(x), builder.count(y));
    let Ok(axis) = resolve_axis(op.axis, shape.len()) else { return Ok(None) };
    if !is_f32(builder, node, 0) || count == 0 {
        return Ok(None);
    }
    let (extent, inner) = (shape[axis], shape[axis + 1..].iter().product());
    let (least, tie) =
        (op.function == ArgFunction::Min, if op.last { Tie::Last } else { Tie::First });
    let (from, to) = (builder.place(x), builder.place(y));
    let run = Box::new(move |memory: &Memory<'_>| {
        // SAFETY: the plan holds `count` floats and `results` integers at places that are apart.
        let (input, output) =
            unsafe { (memory.slice::<f32>(from, count), memory.slice_mut(to, 0, results)) };
        arg_extreme(least, tie, extent, inner, input, output);
        Ok(())
    });
    Ok(Some(Chosen::new("extreme", run)))
}
