//! The step of attention: one head of one image at a time.

use lepton_ir::Node;
use lepton_ir::ops::attention::Attention;
use lepton_kernels::attention::{Head, HeadRows, attention_head};
use lepton_kernels::epilogue::Output;

use super::product::operand;
use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::{Memory, Place};
use crate::plan::Builder;

/// Where a mask lies, and elements between its images, heads and rows.
#[derive(Clone, Copy)]
struct Mask {
    place: Place,
    strides: [usize; 3],
}

/// The mask of shape `shape` for scores `[N,H,S,T]`; `None` where its rows do not lie whole.
fn mask(place: Place, shape: &[usize], columns: usize) -> Option<Mask> {
    let mut whole = [1; 4];
    whole[4 - shape.len()..].copy_from_slice(shape);
    if whole[3] != columns {
        return None;
    }
    let stride = |axis: usize| whole[axis + 1..].iter().product::<usize>();
    let strides = [0, 1, 2].map(|axis| if whole[axis] == 1 { 0 } else { stride(axis) });
    Some(Mask { place, strides })
}

/// Attention of f32.
pub(crate) fn attention(builder: &mut Builder<'_>, node: &Node, op: &Attention) -> Choice {
    let (Some(q), Some(k), Some(v), Some(y)) =
        (operand(node, 0), operand(node, 1), operand(node, 2), node.outputs[0])
    else {
        return Ok(None);
    };
    let (qs, ks, vs) = (builder.shape(q), builder.shape(k), builder.shape(v));
    let [images, rows, heads, depth] = qs[..] else { return Ok(None) };
    let (columns, width) = (ks[1], vs[3]);
    let added = match operand(node, 3) {
        None => None,
        Some(id) => match mask(builder.place(id), &builder.shape(id), columns) {
            None => return Ok(None),
            found => found,
        },
    };
    if !is_f32(builder, node, 0) || builder.count(y) == 0 || columns == 0 || depth == 0 {
        return Ok(None);
    }
    let [q, k, v, y] = [q, k, v, y].map(|id| builder.place(id));
    let (scale, extents) = (op.scale, [rows, columns, depth, width]);
    let work = images * heads * rows * columns * (depth + width);
    let run = Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, images * heads, work, |range| {
            for lane in range {
                let (n, h) = (lane / heads, lane % heads);
                let of = |place: Place, rows: usize, width: usize| HeadRows {
                    pointer: memory.read::<f32>(place).wrapping_add((n * rows * heads + h) * width),
                    stride: heads * width,
                };
                let mask = added.map(|Mask { place, strides }| HeadRows {
                    pointer: memory
                        .read::<f32>(place)
                        .wrapping_add(n * strides[0] + h * strides[1]),
                    stride: strides[2],
                });
                let (q, k, v) = (of(q, rows, depth), of(k, columns, depth), of(v, columns, width));
                let head = Head { q, k, v, mask, scale, extents };
                let pointer = memory.write::<f32>(y).wrapping_add((n * rows * heads + h) * width);
                let output = Output { pointer, row_stride: heads * width };
                // SAFETY: the plan holds these extents at the places; heads are disjoint.
                unsafe { attention_head(memory.isa, &head, &output) };
            }
        });
        Ok(())
    });
    Ok(Some(Chosen { kernel: "attention-f32", run }))
}
