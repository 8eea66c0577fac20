//! Taps of convolutions that only ever see padding, as dilated windows on small images have.

use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::slice::Slice;
use lepton_ir::ops::window::AutoPad;
use lepton_ir::{Graph, GraphError, Node, Op, Operands, Operator};
use lepton_tensor::Tensor;

/// Cuts the outermost taps of convolutions with constant weights that read nothing but padding at
/// every position of the result.
pub fn trim(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some((conv, weights)) = trimmed(graph, &node) else { continue };
        let mut inputs = node.inputs.clone();
        inputs[1] = Some(graph.add_constant("", weights));
        let made = graph.add_node(node.name.clone(), conv, &inputs)?;
        if let (Some(old), Some(&new)) = (node.outputs[0], made.first()) {
            graph.replace_uses(old, new);
        }
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

/// The taps along an axis that read the image somewhere.
fn live(
    [taps, dilation, stride, before]: [usize; 4],
    [extent, positions]: [usize; 2],
) -> Option<(usize, usize)> {
    let reads = |tap: &usize| {
        let inside = |o: usize| (before..before + extent).contains(&(o * stride + tap * dilation));
        (0..positions).any(inside)
    };
    let first = (0..taps).find(reads)?;
    Some((first, (0..taps).rfind(reads)? + 1))
}

fn trimmed(graph: &Graph, node: &Node) -> Option<(Conv, Tensor)> {
    let Op::Conv(conv) = &node.op else { return None };
    let (x, w, y) = (node.inputs[0]?, node.inputs[1]?, node.outputs[0]?);
    let weights = graph.constant(w)?;
    let (from, to) = (graph.fact(x).shape()?, graph.fact(y).shape()?);
    let first = conv.layout.spatial_axis();
    let axes = from.len().checked_sub(2)?;
    let whole = |list: &[usize], i: usize, default| list.get(i).copied().unwrap_or(default);
    if conv.auto_pad != AutoPad::Explicit || conv.pads.is_empty() {
        return None;
    }
    let mut cut = conv.clone();
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for i in 0..axes {
        let (taps, dilation) = (weights.shape()[first + i], whole(&conv.dilations, i, 1));
        let (before, after) = (conv.pads[i], conv.pads[axes + i]);
        let window = [taps, dilation, whole(&conv.strides, i, 1), before];
        let (start, end) = live(window, [from[first + i], to[first + i]])?;
        // Padding cannot become less than none.
        let start = start.min(before / dilation);
        let end = end.max(taps - (taps - end).min(after / dilation));
        cut.pads[i] = before - start * dilation;
        cut.pads[axes + i] = after - (taps - end) * dilation;
        starts.push(start as i64);
        ends.push(end as i64);
    }
    if starts.iter().all(|&start| start == 0)
        && (0..axes).all(|i| ends[i] as usize == weights.shape()[first + i])
    {
        return None;
    }
    let along: Vec<i64> = (0..axes).map(|i| (first + i) as i64).collect();
    let bounds = [starts, ends, along].map(|list| Tensor::vector(&list));
    let operands = [Some(weights), Some(&bounds[0]), Some(&bounds[1]), Some(&bounds[2])];
    let made = Slice {}.eval(Operands(&operands)).ok()?;
    Some((cut, made.into_iter().next()?))
}
