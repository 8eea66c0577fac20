//! Who uses each value of a graph, and which are only other names.

use std::ops::Index;

use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::Op;
use crate::ops::unary::UnaryFunction;

/// For each value, by its index, the nodes that use it and the positions of the operand, in
/// execution order; as the graph was when they were listed.
#[derive(Clone, Debug)]
pub struct Users {
    /// Where each value's uses start in `list`; one more at the end.
    starts: Vec<u32>,
    list: Vec<(NodeId, usize)>,
}

impl Users {
    pub(crate) fn of(graph: &Graph) -> Users {
        let uses = || {
            graph.nodes().flat_map(|(id, node)| {
                let inputs = node.inputs.iter().enumerate();
                inputs.filter_map(move |(position, x)| Some(((*x)?.index(), (id, position))))
            })
        };
        let mut starts = vec![0u32; graph.value_count() + 1];
        uses().for_each(|(value, _)| starts[value + 1] += 1);
        for value in 1..starts.len() {
            starts[value] += starts[value - 1];
        }
        let mut next = starts.clone();
        let first = uses().next().map(|(_, at)| at);
        let mut list =
            first.map_or_else(Vec::new, |at| vec![at; starts[starts.len() - 1] as usize]);
        for (value, at) in uses() {
            list[next[value] as usize] = at;
            next[value] += 1;
        }
        Users { starts, list }
    }
}

impl Index<usize> for Users {
    type Output = [(NodeId, usize)];

    /// The uses of the value of that index; none for a value made later.
    fn index(&self, value: usize) -> &[(NodeId, usize)] {
        match (self.starts.get(value), self.starts.get(value + 1)) {
            (Some(&first), Some(&end)) => &self.list[first as usize..end as usize],
            _ => &[],
        }
    }
}

/// The value that `value` is another name of.
pub fn identical(graph: &Graph, mut value: ValueId) -> ValueId {
    while let Some((_, node)) = graph.producer(value)
        && matches!(&node.op, Op::Unary(op) if op.function == UnaryFunction::Identity)
        && let Some(source) = node.inputs[0]
    {
        value = source;
    }
    value
}
