//! Transposed convolutions of images as plain ones whose channels hold the phases of the stride
//! (Shi and others, "Is the deconvolution layer the same as a convolutional layer?", 2016).

use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::conv_transpose::ConvTranspose;
use lepton_ir::ops::reshape::Reshape;
use lepton_ir::ops::slice::Slice;
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::window::Window;
use lepton_ir::{Graph, GraphError, Node, Op, ValueId};
use lepton_tensor::{DType, Layout, Tensor};

use crate::layout::transposed;

/// Spatial axes of an image.
const AXES: usize = 2;

/// Where the results of a transposed convolution come from along one axis: result `o` is phase
/// `(o + cut) mod stride` of position `(o + cut) / stride` of the plain convolution.
struct Axis {
    stride: usize,
    /// Taps of the transposed convolution, and of each phase.
    taps: usize,
    taps_a_phase: usize,
    /// Padding of the plain convolution.
    pads: [usize; 2],
    /// Positions of the plain convolution.
    positions: usize,
    /// Results before the first that is wanted, and how many are.
    cut: usize,
    wanted: usize,
}

impl Axis {
    /// `None` where the plain convolution would need negative padding.
    fn of(window: &Window, axis: usize, extent: usize, wanted: usize) -> Option<Axis> {
        let (stride, dilation) = (window.strides[axis], window.dilations[axis]);
        if wanted == 0 || extent == 0 || (stride > 1 && dilation > 1) {
            return None;
        }
        let taps_a_phase = window.kernel[axis].div_ceil(stride);
        let reach = (taps_a_phase - 1) * dilation;
        let cut = window.pads[axis];
        let (first, last) = (cut / stride, (cut + wanted - 1) / stride);
        let positions = last + 1 - first;
        let before = reach.checked_sub(first)?;
        let after = (positions + reach).checked_sub(extent + before)?;
        let pads = [before, after];
        let (taps, cut) = (window.kernel[axis], cut - first * stride);
        Some(Axis { stride, taps, taps_a_phase, pads, positions, cut, wanted })
    }

    /// The tap of the transposed convolution that a phase reads at a tap of its own.
    fn tap(&self, phase: usize, own: usize) -> Option<usize> {
        let tap = phase + self.stride * (self.taps_a_phase - 1 - own);
        (tap < self.taps).then_some(tap)
    }
}

/// Makes plain convolutions of the transposed ones of f32 images with constant weights.
pub fn form(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Op::ConvTranspose(op) = &node.op else { continue };
        let Some((window, axes)) = axes_of(graph, &node, op) else { continue };
        let made = plain(graph, &node, op.group, &window, &axes)?;
        if let Some(old) = node.outputs[0] {
            graph.replace_uses(old, made);
        }
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

fn axes_of(graph: &Graph, node: &Node, op: &ConvTranspose) -> Option<(Window, [Axis; AXES])> {
    let (x, w, y) = (node.inputs[0]?, node.inputs[1]?, node.outputs[0]?);
    let weights = graph.constant(w)?;
    let bias_is_known =
        node.inputs.get(2).copied().flatten().is_none_or(|b| graph.constant(b).is_some());
    if graph.fact(x).rank() != AXES + 2 || weights.dtype() != DType::F32 || !bias_is_known {
        return None;
    }
    let spatial = |id: ValueId| -> Option<Vec<usize>> {
        graph.fact(id).dims[2..].iter().map(|d| d.as_usize()).collect()
    };
    let (from, to) = (spatial(x)?, spatial(y)?);
    let window = op.resolved(graph.fact(w), &from).ok()?;
    let axes = [Axis::of(&window, 0, from[0], to[0])?, Axis::of(&window, 1, from[1], to[1])?];
    Some((window, axes))
}

/// Adds the convolution and what spreads its phases over the image; the result, channels first.
fn plain(
    graph: &mut Graph,
    node: &Node,
    group: usize,
    window: &Window,
    axes: &[Axis; AXES],
) -> Result<ValueId, GraphError> {
    let [rows, columns] = axes;
    let phases = rows.stride * columns.stride;
    let weights = node.inputs[1].and_then(|w| graph.constant(w)).expect("a constant, as asked");
    let outputs = weights.shape()[1];
    let phased = phased_weights(weights, group, axes);
    let bias = node.inputs.get(2).copied().flatten().and_then(|b| graph.constant(b).cloned());
    let mut inputs = vec![node.inputs[0], Some(graph.add_constant("", phased))];
    if let Some(bias) = bias {
        let bias = phased_bias(&bias, group, phases);
        inputs.push(Some(graph.add_constant("", bias)));
    }
    let conv = Conv {
        pads: vec![rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]],
        dilations: window.dilations.clone(),
        group,
        layout: Layout::Nhwc,
        ..Conv::default()
    };
    inputs[0] = Some(transposed(graph, node.inputs[0].expect("x"), vec![0, 2, 3, 1])?);
    let mut made = graph.add_node(node.name.clone(), conv, &inputs)?[0];
    if phases > 1 {
        let spread =
            [0, rows.positions, columns.positions, group, rows.stride, columns.stride, outputs];
        made = reshaped(graph, made, &spread)?;
        let permutation = vec![0, 1, 4, 2, 5, 3, 6];
        made = graph.add_node("", Transpose { permutation }, &[Some(made)])?[0];
        let whole =
            [0, rows.positions * rows.stride, columns.positions * columns.stride, group * outputs];
        made = reshaped(graph, made, &whole)?;
        made = cropped(graph, made, axes)?;
    }
    transposed(graph, made, vec![0, 3, 1, 2])
}

fn reshaped(graph: &mut Graph, x: ValueId, dims: &[usize]) -> Result<ValueId, GraphError> {
    let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
    let shape = graph.add_constant("", Tensor::vector(&dims));
    Ok(graph.add_node("", Reshape::default(), &[Some(x), Some(shape)])?[0])
}

fn cropped(graph: &mut Graph, x: ValueId, axes: &[Axis; AXES]) -> Result<ValueId, GraphError> {
    if axes.iter().all(|a| a.cut == 0 && a.wanted == a.positions * a.stride) {
        return Ok(x);
    }
    let starts = axes.each_ref().map(|a| a.cut as i64);
    let ends = axes.each_ref().map(|a| (a.cut + a.wanted) as i64);
    let mut inputs = vec![Some(x)];
    for list in [starts, ends, [1, 2]] {
        inputs.push(Some(graph.add_constant("", Tensor::vector(&list))));
    }
    Ok(graph.add_node("", Slice {}, &inputs)?[0])
}

/// `[C, M/group, kernel…]` as `[group·phases·M/group, taps of a phase…, C/group]`.
fn phased_weights(weights: &Tensor, group: usize, [rows, columns]: &[Axis; AXES]) -> Tensor {
    let values = weights.as_slice::<f32>().expect("f32, as asked");
    let (channels, outputs) = (weights.shape()[0] / group, weights.shape()[1]);
    let at = |c: usize, m: usize, [row, column]: [usize; AXES]| {
        values[((c * outputs + m) * rows.taps + row) * columns.taps + column]
    };
    let shape = [
        group * rows.stride * columns.stride * outputs,
        rows.taps_a_phase,
        columns.taps_a_phase,
        channels,
    ];
    let mut phased = Vec::with_capacity(shape.iter().product());
    for output in 0..shape[0] {
        let (m, phase) = (output % outputs, output / outputs);
        let (of, phase) =
            (phase / (rows.stride * columns.stride), phase % (rows.stride * columns.stride));
        for own in 0..rows.taps_a_phase * columns.taps_a_phase {
            let row = rows.tap(phase / columns.stride, own / columns.taps_a_phase);
            let column = columns.tap(phase % columns.stride, own % columns.taps_a_phase);
            let tap = row.zip(column);
            let value =
                |c: usize| tap.map_or(0.0, |(row, column)| at(of * channels + c, m, [row, column]));
            phased.extend((0..channels).map(value));
        }
    }
    Tensor::from_slice(shape, &phased).expect("as many values as the shape has")
}

/// A bias `[M]` for each phase of each group.
fn phased_bias(bias: &Tensor, group: usize, phases: usize) -> Tensor {
    let values = bias.as_slice::<f32>().expect("f32, as the weights");
    let outputs = values.len() / group;
    let each: Vec<f32> = values.chunks(outputs.max(1)).flat_map(|one| one.repeat(phases)).collect();
    Tensor::vector(&each)
}
