//! Neighbours in a plan that run as one step.

use lepton_ir::{Graph, Node, NodeId, ValueId};

use super::pixels::Pixels;
use super::strips::{self, Strips};
use super::{Choice, pixels};
use crate::plan::Builder;

/// Two nodes, one behind the other, of which the second alone reads what the first makes.
pub(crate) struct Pair {
    /// Position of the first; the second is the next node.
    pub position: usize,
    /// The value between them.
    pub between: ValueId,
    kind: Kind,
}

enum Kind {
    /// A pointwise and a depthwise convolution.
    Strips(Strips),
    /// Planes that are quantised, and put channels-last.
    Pixels(Pixels),
}

impl Pair {
    /// Bytes that the two keep between them on so many threads.
    pub fn bytes_between(&self, threads: usize) -> usize {
        match &self.kind {
            Kind::Strips(strips) => strips.ring_bytes(threads),
            Kind::Pixels(_) => 0,
        }
    }

    /// The kernel of both.
    pub fn build(&self, builder: &mut Builder<'_>, nodes: [&Node; 2]) -> Choice {
        match &self.kind {
            Kind::Strips(strips) => strips::build(builder, nodes, strips, self.between),
            Kind::Pixels(pixels) => Ok(Some(pixels::build(builder, nodes, pixels))),
        }
    }
}

/// The pairs of neighbours in `order` that are worth it.
pub(crate) fn find(graph: &Graph, order: &[(NodeId, &Node)]) -> Vec<Pair> {
    let users = graph.users();
    let mut pairs: Vec<Pair> = Vec::new();
    for (position, neighbours) in order.windows(2).enumerate() {
        let (first, second) = (neighbours[0].1, neighbours[1].1);
        let Some(between) = first.outputs[0] else { continue };
        let sole = users[between.index()].len() == 1 && !graph.outputs().contains(&between);
        let follows = second.inputs.first() == Some(&Some(between));
        let free = pairs.last().is_none_or(|pair| pair.position + 1 < position);
        if !sole || !follows || !free {
            continue;
        }
        let strips = strips::strips(graph, first, second).map(Kind::Strips);
        let kind = strips.or_else(|| pixels::pixels(graph, first, second).map(Kind::Pixels));
        pairs.extend(kind.map(|kind| Pair { position, between, kind }));
    }
    pairs
}
