//! The step of attention: one head of one image at a time.

use half::bf16;
use lepton_ir::ops::attention::Attention;
use lepton_ir::{Graph, Node, Op, Users, ValueId};
use lepton_kernels::attention::{Head, HeadRows, attention_head};
use lepton_kernels::epilogue::Output;
use lepton_kernels::quantize::f32_to_bf16;
use lepton_kernels::real::Real;

use super::product::{self, operand};
use super::{Choice, Chosen, ELEMENT_WORK, is_f32, over_rows};
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

/// What makes the operands of an attention whose products are of bf16.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Makers {
    /// Products of bf16, which write it.
    Halves,
    /// Products of integers, whose reals are rounded to bf16.
    Integers,
}

/// What makes an operand for this node alone.
fn maker(graph: &Graph, users: &Users, mut value: ValueId) -> Option<Makers> {
    loop {
        let (_, node) = graph.producer(value)?;
        let alone = users[value.index()].len() == 1 && !graph.outputs().contains(&value);
        match node.op {
            _ if !alone => return None,
            Op::Reshape(_) => value = node.inputs[0].expect("has an operand"),
            Op::IntegerLinear(_) | Op::DynamicLinear(_) => return Some(Makers::Integers),
            _ => return product::writes_bf16(graph, node).then_some(Makers::Halves),
        }
    }
}

/// What makes the operands of an attention that multiplies as bf16: one between products of bf16
/// or of integers, unless the answer must be exact.
fn makers(graph: &Graph, node: &Node, demands: Demands<'_>) -> Option<Makers> {
    if demands.exact || !demands.isa.has_bf16() || !matches!(node.op, Op::Attention(_)) {
        return None;
    }
    let users = graph.users();
    let whole = operand(node, 3).is_none_or(|id| {
        let columns = operand(node, 1).and_then(|k| graph.fact(k).shape()).map(|k| k[1]);
        graph.fact(id).shape().is_some_and(|shape| shape.last().copied() == columns)
    });
    let of = |index| operand(node, index).and_then(|id| maker(graph, &users, id));
    let first = of(0).filter(|_| whole)?;
    (of(1) == Some(first) && of(2) == Some(first)).then_some(first)
}

/// True for attention that multiplies as bf16, and may write it.
pub(crate) fn writes_bf16(graph: &Graph, node: &Node, demands: Demands<'_>) -> bool {
    makers(graph, node, demands).is_some()
}

/// True for attention whose queries, keys and values are to come as bf16.
pub(crate) fn takes_bf16(graph: &Graph, node: &Node, demands: Demands<'_>) -> bool {
    makers(graph, node, demands) == Some(Makers::Halves)
}

/// Bytes of queries, keys and values as bf16, where they come as reals that are rounded.
pub(crate) fn scratch_bytes(graph: &Graph, node: &Node, demands: Demands<'_>) -> Vec<usize> {
    if makers(graph, node, demands) != Some(Makers::Integers) {
        return Vec::new();
    }
    let half = |id: ValueId| graph.fact(id).byte_size().unwrap_or(0) / 2;
    (0..3).filter_map(|index| operand(node, index).map(half)).collect()
}

/// The step of one kind of numbers.
struct Heads {
    /// q, k, v and the result.
    places: [Place; 4],
    /// Where q, k and v of f32 lie that are rounded first, and their elements.
    rounded: Option<[(Place, usize); 3]>,
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

    /// Rounds q, k and v, where they come as f32.
    fn round(&self, memory: &Memory<'_>) {
        let reals = self.rounded.iter().flatten();
        for (&to, &(from, count)) in self.places.iter().zip(reals) {
            over_rows(memory, count, count * ELEMENT_WORK, |range| {
                // SAFETY: the plan holds `count` elements at both places, which are apart; ranges
                // are disjoint.
                unsafe {
                    let to = memory.slice_mut::<bf16>(to, range.start, range.len());
                    f32_to_bf16(memory.isa, &memory.slice::<f32>(from, count)[range], to);
                }
            });
        }
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

/// Attention of f32, or of bf16 between products of fewer bits.
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
    let [q_place, k_place, v_place, y_place] = [q, k, v, y].map(|id| builder.place(id));
    let reals =
        [(q_place, builder.count(q)), (k_place, builder.count(k)), (v_place, builder.count(v))];
    let rounds = !scratch_bytes(builder.graph, node, builder.demands).is_empty();
    let operands = match rounds {
        true => [0, 1, 2].map(|index| builder.scratch(index)),
        false => [q_place, k_place, v_place],
    };
    let step = Heads {
        places: [operands[0], operands[1], operands[2], y_place],
        rounded: rounds.then_some(reals),
        mask,
        scale: op.scale,
        counts: [images, heads],
        extents: [rows, columns, depth, width],
    };
    let narrow = [rounds || builder.is_narrow(q), builder.is_narrow(y)];
    let run = Box::new(move |memory: &Memory<'_>| {
        step.round(memory);
        match narrow {
            [false, _] => step.run::<f32, f32>(memory),
            [true, false] => step.run::<bf16, f32>(memory),
            [true, true] => step.run::<bf16, bf16>(memory),
        }
        Ok(())
    });
    Ok(Some(Chosen::divided(if narrow[0] { "attention-bf16" } else { "attention-f32" }, run)))
}
