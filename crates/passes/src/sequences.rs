//! Convolutions and pools over sequences become ones over images of one line, which have kernels.

use lepton_ir::ops::reshape::{Squeeze, Unsqueeze};
use lepton_ir::{Graph, GraphError, Op, ValueId};
use lepton_tensor::{Layout, Tensor};

/// Batch, channels, and one axis to walk along.
const SEQUENCE_RANK: usize = 3;
/// Where the axis of extent 1 goes.
const LINE_AXIS: i64 = 2;

/// Gives `Conv` with constant weights and `Pool` of rank 3 a second spatial axis of extent 1.
pub fn as_images(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let node = graph.shared_node(id);
        let Some(x) = node.inputs.first().copied().flatten() else { continue };
        let Some(op) = over_images(&node.op) else { continue };
        let weights = node.inputs.get(1).copied().flatten();
        let known = weights.is_none_or(|w| graph.constant(w).is_some());
        if graph.fact(x).rank() != SEQUENCE_RANK || !known {
            continue;
        }
        let axes = graph.add_constant("", Tensor::vector(&[LINE_AXIS]));
        let mut inputs = node.inputs.clone();
        for input in inputs.iter_mut().flatten() {
            if graph.fact(*input).rank() == SEQUENCE_RANK {
                *input = lifted(graph, *input, axes)?;
            }
        }
        let made = graph.add_node(node.name.clone(), op, &inputs)?[0];
        let made = graph.add_node("", Squeeze {}, &[Some(made), Some(axes)])?[0];
        graph.replace_uses(node.outputs[0].expect("a used result"), made);
        graph.remove_node(id);
        changes += 1;
    }
    Ok(changes)
}

/// The value with the new axis; constants are reshaped here and now.
fn lifted(graph: &mut Graph, value: ValueId, axes: ValueId) -> Result<ValueId, GraphError> {
    if let Some(constant) = graph.constant(value) {
        let mut shape = constant.shape().to_vec();
        shape.insert(LINE_AXIS as usize, 1);
        let reshaped = constant.reshaped(shape).expect("as many elements");
        return Ok(graph.add_constant("", reshaped));
    }
    Ok(graph.add_node("", Unsqueeze {}, &[Some(value), Some(axes)])?[0])
}

/// The operator with attributes for one more axis before its own.
fn over_images(op: &Op) -> Option<Op> {
    let mut op = op.clone();
    let (layout, steps, pads) = match &mut op {
        Op::Conv(conv) => {
            (conv.layout, vec![&mut conv.strides, &mut conv.dilations], &mut conv.pads)
        }
        Op::Pool(pool) => {
            let steps = vec![&mut pool.kernel, &mut pool.strides, &mut pool.dilations];
            (pool.layout, steps, &mut pool.pads)
        }
        _ => return None,
    };
    for list in steps.into_iter().filter(|list| !list.is_empty()) {
        list.insert(0, 1);
    }
    if let [before, after] = pads[..] {
        *pads = vec![0, before, 0, after];
    }
    (layout == Layout::Nchw).then_some(op)
}
