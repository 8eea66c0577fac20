//! Batches that run part by part: images whose values do not fit a core's cache together are faster
//! one after the other, and threads that have images of their own never wait for each other.

use std::collections::HashMap;

use lepton_ir::{AxisLink, Fact, Graph, Node, Op, Operands, ValueId};
use lepton_tensor::Tensor;

use crate::plan::Sizes;

/// Bytes of values that a core's cache holds beside weights.
const CACHE_BYTES: usize = 1 << 20;
/// Weights that are so many times what an image's values take are better read once for all images.
const MANY_WEIGHTS: usize = 8;

/// How a batch is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Parts, each of as many images.
    pub parts: usize,
    /// True if each thread has parts of its own; otherwise all threads share each.
    pub apart: bool,
}

impl Division {
    /// Of `images` on so many threads, where values and weights of all of them take these sizes; `None` where
    /// they are better done at once.
    pub fn of(images: usize, threads: usize, sizes: Sizes, weights: usize) -> Option<Self> {
        if images < 2 || weights / MANY_WEIGHTS > sizes.unshared / images {
            return None;
        }
        let apart = threads > 1 && (images.is_multiple_of(threads) || images >= 4 * threads);
        let most = if apart { images.div_ceil(threads) } else { images };
        let fits = |&each: &usize| each == 1 || sizes.arena / images * each <= CACHE_BYTES;
        let divisors = (1..=most).rev().filter(|each| images.is_multiple_of(*each));
        let each = divisors.into_iter().find(fits)?;
        (each < images).then_some(Division { parts: images / each, apart })
    }
}

/// The images of a batch, where every input has them along its first axis.
pub(crate) fn images(inputs: &[Tensor]) -> Option<usize> {
    let first = *inputs.first()?.shape().first()?;
    inputs.iter().all(|x| x.shape().first() == Some(&first)).then_some(first)
}

/// True if a graph at the extents of a whole batch computes for each of `times` parts of it, one after
/// the other in memory, what the same graph at the extents of a part computes.
pub(crate) fn is_independent(whole: &Graph, part: &Graph, times: usize) -> bool {
    let mut pairs = Pairs { whole, part, times, of: HashMap::new() };
    let nodes = || whole.nodes().zip(part.nodes());
    whole.nodes().count() == part.nodes().count()
        && whole.inputs().iter().zip(part.inputs()).all(|(&w, &p)| pairs.add(w, p))
        && nodes().all(|((_, w), (_, p))| pairs.are_alike(w, p))
        && whole.outputs().iter().all(|&id| pairs.is_divided(id))
}

/// Values of a whole batch, and those of a part that they are made of.
struct Pairs<'a> {
    whole: &'a Graph,
    part: &'a Graph,
    times: usize,
    of: HashMap<ValueId, ValueId>,
}

impl Pairs<'_> {
    /// A value that has the part's along its first axis; false if extents do not say so.
    fn add(&mut self, whole: ValueId, part: ValueId) -> bool {
        let facts = (self.whole.fact(whole), self.part.fact(part));
        let (Some(w), Some(p)) = (facts.0.shape(), facts.1.shape()) else { return false };
        self.of.insert(whole, part);
        facts.0.dtype == facts.1.dtype
            && !w.is_empty()
            && w.len() == p.len()
            && w[0] == self.times * p[0]
            && w[1..] == p[1..]
    }

    fn is_divided(&self, id: ValueId) -> bool {
        self.of.contains_key(&id)
    }

    /// True if a node does for each part what its fellow does, by operands that are divided, or the
    /// same for all parts.
    fn are_alike(&mut self, whole: &Node, part: &Node) -> bool {
        let operands = whole.inputs.len() == part.inputs.len()
            && whole.inputs.iter().zip(&part.inputs).enumerate().all(|(i, pair)| match pair {
                (None, None) => true,
                (Some(w), Some(p)) => match self.of.get(w) {
                    Some(known) => known == p,
                    None => i > 0 && only_shapes(&whole.op) || self.is_same_constant(*w, *p),
                },
                _ => false,
            });
        operands
            && whole.op == part.op
            && self.keeps_parts_apart(whole)
            && whole.outputs.len() == part.outputs.len()
            && whole.outputs.iter().zip(&part.outputs).all(|pair| match pair {
                (Some(w), Some(p)) => self.add(*w, *p),
                (None, None) => true,
                _ => false,
            })
    }

    fn is_same_constant(&self, whole: ValueId, part: ValueId) -> bool {
        let constants = (self.whole.constant(whole), self.part.constant(part));
        let (Some(w), Some(p)) = constants else { return false };
        let alike = w.dtype() == p.dtype() && w.shape() == p.shape();
        alike && (w.bytes().as_ptr() == p.bytes().as_ptr() || w.bytes() == p.bytes())
    }

    /// True if the first axis of every output depends, index by index, on that of every divided
    /// operand, and on no other operand.
    fn keeps_parts_apart(&self, node: &Node) -> bool {
        if only_shapes(&node.op) {
            // The same elements in the same order; extents are checked of every value.
            return node.inputs[0].is_some_and(|id| self.is_divided(id));
        }
        let facts: Vec<Option<&Fact>> =
            node.inputs.iter().map(|id| id.map(|id| self.whole.fact(id))).collect();
        let results: Option<Vec<Fact>> =
            node.outputs.iter().map(|id| id.map(|id| self.whole.fact(id).clone())).collect();
        let Some(results) = results.filter(|_| is_known(&node.op)) else { return false };
        let links = node.op.operator().axes(Operands(&facts), &results);
        let follows = |input: usize, rank: usize| {
            if has_rows(&node.op, input) {
                return rank == results[0].rank();
            }
            (0..results.len()).all(|output| {
                links.contains(&AxisLink::Same { output, output_axis: 0, input, input_axis: 0 })
            })
        };
        let mut any = false;
        let apart = node.inputs.iter().enumerate().all(|(input, id)| {
            let (Some(id), Some(fact)) = (*id, facts[input]) else { return true };
            if self.is_divided(id) {
                any = true;
                return follows(input, fact.rank());
            }
            let broadcast = links.iter().all(|link| match link {
                AxisLink::Same { output_axis: 0, input: of, input_axis, .. } if *of == input => {
                    fact.dims[*input_axis].is(1)
                }
                _ => true,
            });
            let shorter = fact.rank() < results[0].rank();
            broadcast && (!has_rows(&node.op, input) || shorter || fact.dims[0].is(1))
        });
        any && apart
    }
}

/// Operands that have no link, but go along with the first axis of the result: residuals of integer
/// products of matrices, masks of attention.
fn has_rows(op: &Op, input: usize) -> bool {
    match op {
        Op::IntegerLinear(_) => input == 4,
        Op::Attention(_) => input == 3,
        _ => false,
    }
}

/// Operators that give the elements of their first operand other extents, or the same.
fn only_shapes(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_))
}

/// Operators whose links tell all of what an index of their first axis depends on.
fn is_known(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv(_)
            | Op::IntegerConv(_)
            | Op::Linear(_)
            | Op::IntegerLinear(_)
            | Op::MatMul(_)
            | Op::Attention(_)
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::IntegerBinary(_)
            | Op::Where(_)
            | Op::Not(_)
            | Op::Cast(_)
            | Op::Lookup(_)
            | Op::QuantizeLinear(_)
            | Op::DequantizeLinear(_)
            | Op::Pool(_)
            | Op::Softmax(_)
            | Op::LayerNormalization(_)
            | Op::InstanceNormalization(_)
            | Op::Transpose(_)
            | Op::Concat(_)
            | Op::Gather(_)
            | Op::Expand(_)
            | Op::Reduce(_)
            | Op::Resize(_)
    )
}
