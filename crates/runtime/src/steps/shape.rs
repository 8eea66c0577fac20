//! Steps that move elements.

use lepton_ir::Node;
use lepton_ir::ops::transpose::Transpose;
use lepton_kernels::transpose::{permutation, rearrange};

use super::{Choice, Chosen, ELEMENT_WORK, over_rows};
use crate::place::Memory;
use crate::plan::Builder;

/// The same bytes at another place.
pub(crate) fn copy(builder: &mut Builder<'_>, node: &Node) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let (from, to) = (builder.place(x), builder.place(y));
    let bytes = builder.graph.fact(y).byte_size().unwrap_or(0);
    let run = Box::new(move |memory: &Memory<'_>| {
        // SAFETY: the plan holds `bytes` at both places, which are apart.
        unsafe {
            memory.slice_mut::<u8>(to, 0, bytes).copy_from_slice(memory.slice(from, bytes));
        }
        Ok(())
    });
    Ok(Some(Chosen::new("copy", run)))
}

macro_rules! transposed_as {
    ($element:ty, $walk:ident, $from:ident, $to:ident, $count:ident) => {
        Box::new(move |memory: &Memory<'_>| {
            over_rows(memory, $count, $count * ELEMENT_WORK, |range| {
                // SAFETY: the plan holds `count` elements at both places; ranges are disjoint.
                let (input, output) = unsafe {
                    (
                        memory.slice::<$element>($from, $count),
                        memory.slice_mut::<$element>($to, range.start, range.len()),
                    )
                };
                rearrange(memory.isa, &$walk, range, input, output);
            });
            Ok(())
        })
    };
}

/// A permutation of axes.
pub(crate) fn transpose(builder: &mut Builder<'_>, node: &Node, op: &Transpose) -> Choice {
    let (Some(x), Some(y)) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let shape = builder.shape(x);
    let Ok(axes) = op.resolved(shape.len()) else { return Ok(None) };
    let Some(walk) = permutation(&shape, &axes) else { return Ok(None) };
    let (from, to, count) = (builder.place(x), builder.place(y), builder.count(x));
    let run: crate::plan::Run = match builder.graph.fact(x).dtype.size() {
        1 => transposed_as!(u8, walk, from, to, count),
        2 => transposed_as!(u16, walk, from, to, count),
        4 => transposed_as!(u32, walk, from, to, count),
        _ => transposed_as!(u64, walk, from, to, count),
    };
    Ok(Some(Chosen::divided("transpose", run)))
}
