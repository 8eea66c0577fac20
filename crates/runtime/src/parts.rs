//! Graphs some of whose extents depend on data: what can be planned before they are known, and the
//! rest. Strings, and branches that run as sessions, are not planned either.

use crate::plan::is_plannable;
use crate::stepwise::is_heavy;
use lepton_ir::{Fact, Graph, NodeId, Op, ValueId};

/// A graph in two parts that run one after the other. The second has the inputs of the graph first,
/// then the outputs of the first; its outputs are those of the graph.
pub(crate) struct Parts {
    /// What has known extents.
    pub planned: Graph,
    /// Everything else.
    pub rest: Graph,
}

/// When a value is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Given,
    Planned,
    Rest,
}

impl Parts {
    /// The parts of a graph that is not static as a whole, at known shapes of its inputs.
    pub fn of(graph: &Graph) -> Parts {
        let mut part = vec![Part::Given; graph.value_count()];
        let mut nodes: Vec<(NodeId, Part)> = Vec::new();
        for (id, node) in graph.nodes() {
            let inputs = node.inputs.iter().flatten().map(|x| part[x.index()]);
            let ready = inputs.max().unwrap_or(Part::Given);
            let mut values = node.inputs.iter().chain(&node.outputs).flatten();
            let own = match ready {
                Part::Given | Part::Planned
                    if values.all(|id| is_plannable(graph, *id))
                        && !matches!(&node.op, Op::If(op) if is_heavy(op)) =>
                {
                    Part::Planned
                }
                _ => Part::Rest,
            };
            node.outputs.iter().flatten().for_each(|y| part[y.index()] = own);
            nodes.push((id, own));
        }
        let planned = crossing(graph, &nodes, &part, Part::Planned);
        Parts { planned: ending(graph, &planned), rest: beginning(graph, &planned) }
    }
}

/// The values of a part that later ones or the outputs use, in order.
fn crossing(graph: &Graph, nodes: &[(NodeId, Part)], part: &[Part], own: Part) -> Vec<ValueId> {
    let mut crossing = Vec::new();
    let later = nodes.iter().filter(|(_, of)| *of > own);
    let used = later.flat_map(|(id, _)| graph.node(*id).inputs.iter().flatten().copied());
    for id in used.chain(graph.outputs().iter().copied()) {
        if part[id.index()] == own && !crossing.contains(&id) {
            crossing.push(id);
        }
    }
    crossing
}

/// The graph up to some values.
fn ending(graph: &Graph, values: &[ValueId]) -> Graph {
    let mut graph = graph.clone();
    graph.set_outputs(values.to_vec());
    graph.remove_dead();
    graph
}

/// The graph from some values on, which become inputs of it.
fn beginning(graph: &Graph, values: &[ValueId]) -> Graph {
    let mut rest = graph.clone();
    for &id in values {
        let fact = graph.fact(id);
        let name = format!("between.{}", id.index());
        let input = rest.add_input(name, Fact::new(fact.dtype, fact.dims.clone()));
        rest.replace_uses(id, input);
    }
    rest.remove_dead();
    rest
}
