//! Products of pixels by a gate for each channel between products of bf16.

use half::bf16;
use lepton_ir::ops::binary::BinaryFunction;
use lepton_ir::{Graph, Node, Op};
use lepton_kernels::gate::gate_bf16;
use lepton_kernels::real::Real;
use lepton_tensor::DType;

use super::product::operand;
use super::{Chosen, ELEMENT_WORK, over_rows};
use crate::place::{Memory, Place};
use crate::plan::Builder;

/// Which operand of a product is the pixels, channels last, if the other has one gate for each of
/// their channels, of each image or of all.
pub(crate) fn gated(graph: &Graph, node: &Node) -> Option<usize> {
    if !matches!(&node.op, Op::Binary(op) if op.function == BinaryFunction::Mul) {
        return None;
    }
    let fact = |id| Some((graph.fact(id).dtype, graph.fact(id).shape()?));
    let (result, shape) = fact((*node.outputs.first()?)?)?;
    (0..2).find(|&index| {
        let of = |index| operand(node, index).and_then(fact);
        let (Some((x, own)), Some((gate, gates))) = (of(index), of(1 - index)) else {
            return false;
        };
        let float = [x, gate, result] == [DType::F32; 3];
        let [images, .., channels] = shape[..] else { return false };
        let [first, ref between @ .., last] = gates[..] else { return false };
        float
            && own == shape
            && !shape.contains(&0)
            && gates.len() == shape.len()
            && (first == images || first == 1)
            && between.iter().all(|&extent| extent == 1)
            && last == channels
    })
}

/// True for the pixels of a product whose result is kept as bf16.
pub(crate) fn takes_bf16(graph: &Graph, node: &Node, index: usize, narrow: &[bool]) -> bool {
    let result = node.outputs.first().copied().flatten();
    gated(graph, node) == Some(index) && result.is_some_and(|y| narrow[y.index()])
}

/// Pixels and their gates.
struct Gated {
    x: Place,
    gates: Place,
    y: Place,
    channels: usize,
    /// Rows of channels, and those that share their gates.
    rows: usize,
    rows_each: usize,
}

impl Gated {
    fn run<T: Real>(&self, memory: &Memory<'_>) {
        let Gated { channels, rows, rows_each, .. } = *self;
        over_rows(memory, rows, rows * channels * ELEMENT_WORK, |range| {
            let mut row = range.start;
            while row < range.end {
                let image = row / rows_each;
                let count = range.end.min((image + 1) * rows_each) - row;
                // SAFETY: the plan holds `rows` of pixels and results, and a row of gates for each
                // image; ranges of the output are disjoint and it is apart from both operands.
                unsafe {
                    let x = memory.slice::<T>(self.x, rows * channels);
                    let gates = memory.slice::<f32>(self.gates, rows / rows_each * channels);
                    let part = row * channels..(row + count) * channels;
                    let y = memory.slice_mut::<bf16>(self.y, part.start, part.len());
                    let gates = &gates[image * channels..][..channels];
                    gate_bf16(memory.isa, &x[part], gates, y);
                }
                row += count;
            }
        });
    }
}

/// The step of a product of pixels by gates whose result is kept as bf16.
pub(crate) fn gate(builder: &Builder<'_>, node: &Node) -> Option<Chosen> {
    let y = (*node.outputs.first()?)?;
    let index = gated(builder.graph, node).filter(|_| builder.is_narrow(y))?;
    let (x, gates) = (operand(node, index)?, operand(node, 1 - index)?);
    let channels = *builder.shape(y).last()?;
    let rows = builder.count(y) / channels;
    let gated = Gated {
        x: builder.place(x),
        gates: builder.place(gates),
        y: builder.place(y),
        channels,
        rows,
        rows_each: rows / (builder.count(gates) / channels),
    };
    Some(match builder.is_narrow(x) {
        true => Chosen::divided(
            "gate-bf16",
            Box::new(move |memory| {
                gated.run::<bf16>(memory);
                Ok(())
            }),
        ),
        false => Chosen::divided(
            "gate",
            Box::new(move |memory| {
                gated.run::<f32>(memory);
                Ok(())
            }),
        ),
    })
}
