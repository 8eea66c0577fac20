//! The step of attention: one head of one image at a time.

use half::bf16;
use lepton_ir::ops::attention::Attention;
use lepton_ir::{Graph, Node, Op, Users, ValueId};
use lepton_kernels::attention::{Head, HeadRows, attention_head};
use lepton_kernels::epilogue::Output;
use lepton_kernels::real::Real;

use super::product::{self, operand};
use super::{Choice, Chosen, is_f32, over_rows};
use crate::place::{Memory, Place};
use crate::plan::{Builder, Demands};

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

/// True for an operand that a product of bf16 makes for this node alone.
fn is_made_in_bf16(graph: &Graph, users: &Users, mut value: ValueId) -> bool {
    loop {
        let Some((_, node)) = graph.producer(value) else { return false };
        let alone = users[value.index()].len() == 1 && !graph.outputs().contains(&value);
        match node.op {
            _ if !alone => return false,
            Op::Reshape(_) => value = node.inputs[0].expect("has an operand"),
            _ => return product::writes_bf16(graph, node),
        }
    }
}

/// True for attention between products of bf16, which multiplies as they do unless the answer
/// must be exact.
pub(crate) fn rounds(graph: &Graph, node: &Node, demands: Demands<'_>) -> bool {
    if demands.exact || !demands.isa.has_bf16() || !matches!(node.op, Op::Attention(_)) {
        return false;
    }
    let users = graph.users();
    let whole = operand(node, 3).is_none_or(|id| {
        let columns = operand(node, 1).and_then(|k| graph.fact(k).shape()).map(|k| k[1]);
        graph.fact(id).shape().is_some_and(|shape| shape.last().copied() == columns)
    });
    let made = |index| operand(node, index).is_some_and(|id| is_made_in_bf16(graph, &users, id));
    whole && (0..3).all(made)
}

/// The step of one kind of numbers.
struct Heads {
    /// q, k, v and the result.
    places: [Place; 4],
    mask: Option<Mask>,
    scale: f32,
    /// Images and heads of an image.
    counts: [usize; 2],
    /// S, T, D and E.
    extents: [usize; 4],
}

impl Heads {
    /// Multiply-adds.
    fn work(&self) -> usize {
        let [rows, columns, depth, width] = self.extents;
        self.counts[0] * self.counts[1] * rows * columns * (depth + width)
    }

    fn run<T: Real, R: Real>(&self, memory: &Memory<'_>) {
        let ([images, heads], [rows, columns, depth, width]) = (self.counts, self.extents);
        let [q, k, v, y] = self.places;
        over_rows(memory, images * heads, self.work(), |range| {
            for lane in range {
                let (n, h) = (lane / heads, lane % heads);
                let of = |place: Place, rows: usize, width: usize| HeadRows {
                    pointer: memory.read::<T>(place).wrapping_add((n * rows * heads + h) * width),
                    stride: heads * width,
                };
                let mask = self.mask.map(|Mask { place, strides }| HeadRows {
                    pointer: memory
                        .read::<f32>(place)
                        .wrapping_add(n * strides[0] + h * strides[1]),
                    stride: strides[2],
                });
                let (q, k, v) = (of(q, rows, depth), of(k, columns, depth), of(v, columns, width));
                let head = Head { q, k, v, mask, scale: self.scale, extents: self.extents };
                let pointer = memory.write::<R>(y).wrapping_add((n * rows * heads + h) * width);
                let output = Output { pointer, row_stride: heads * width };
                // SAFETY: the plan holds these extents at the places; heads are disjoint.
                unsafe { attention_head(memory.isa, &head, &output) };
            }
        });
    }
}

/// Attention of f32, or of bf16 between products of bf16.
pub(crate) fn attention(builder: &mut Builder<'_>, node: &Node, op: &Attention) -> Choice {
    let (Some(q), Some(k), Some(v), Some(y)) =
        (operand(node, 0), operand(node, 1), operand(node, 2), node.outputs[0])
    else {
        return Ok(None);
    };
    let (qs, ks, vs) = (builder.shape(q), builder.shape(k), builder.shape(v));
    let [images, rows, heads, depth] = qs[..] else { return Ok(None) };
    let (columns, width) = (ks[1], vs[3]);
    let mask = match operand(node, 3) {
        None => None,
        Some(id) => match mask(builder.place(id), &builder.shape(id), columns) {
            None => return Ok(None),
            found => found,
        },
    };
    if !is_f32(builder, node, 0) || builder.count(y) == 0 || columns == 0 || depth == 0 {
        return Ok(None);
    }
    let step = Heads {
        places: [q, k, v, y].map(|id| builder.place(id)),
        mask,
        scale: op.scale,
        counts: [images, heads],
        extents: [rows, columns, depth, width],
    };
    let narrow = [q, y].map(|id| builder.is_narrow(id));
    let run = Box::new(move |memory: &Memory<'_>| {
        match narrow {
            [false, _] => step.run::<f32, f32>(memory),
            [true, false] => step.run::<bf16, f32>(memory),
            [true, true] => step.run::<bf16, bf16>(memory),
        }
        Ok(())
    });
    Ok(Some(Chosen { kernel: if narrow[0] { "attention-bf16" } else { "attention-f32" }, run }))
}
