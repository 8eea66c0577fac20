//! `If`: its graphs see every value of the graphs around them; Lepton's take them as operands.

use std::collections::{HashMap, HashSet};

use lepton_ir::ops::branch::If;
use lepton_ir::{Dim, Fact, Graph, ValueId};

use super::call::label;
use super::emit::{Emit, Written};
use super::link::graph;
use super::lists::{Item, Kind, kind};
use super::proto::{GraphProto, NodeProto};
use super::read::Reader;
use crate::error::FormatError;
use crate::problems::Problems;

/// A tensor that is always there.
const PLAIN: (Kind, bool) = (Kind::Tensor, false);

/// The graphs in a node's attributes.
pub fn graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().filter_map(|attribute| attribute.g.as_deref())
}

/// Every name the node reads: its operands, and what its graphs take from around them.
pub fn names_used(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).collect();
    for inner in graphs(node) {
        names.extend(captured(inner));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The names a graph uses and does not define, each once, in order of use.
pub fn captured(proto: &GraphProto) -> Vec<&str> {
    let constants = proto.initializer.iter().filter_map(|t| t.name.as_deref());
    let inputs = proto.input.iter().filter_map(|i| i.name.as_deref());
    let made = proto.node.iter().flat_map(|n| n.output.iter().map(String::as_str));
    let own: HashSet<&str> = constants.chain(inputs).chain(made).collect();
    let mut seen = HashSet::new();
    let outputs = proto.output.iter().filter_map(|o| o.name.as_deref());
    let used = proto.node.iter().flat_map(names_used).chain(outputs);
    used.filter(|name| !own.contains(name) && seen.insert(*name)).collect()
}

/// The graph in an attribute of a node.
pub fn attribute_graph<'a>(node: &'a NodeProto, name: &str) -> Result<&'a GraphProto, FormatError> {
    let found = node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
    let graph = found.and_then(|a| a.g.as_deref());
    graph.ok_or_else(|| problem(node, format!("it has no {name}")))
}

/// True if all a graph does is to drop axes.
fn only_squeezes(proto: &GraphProto) -> bool {
    let is = |node: &NodeProto, name: &str| node.op_type.as_deref() == Some(name);
    let plain = |node: &NodeProto| ["Squeeze", "Constant", "Identity"].iter().any(|n| is(node, n));
    proto.node.iter().all(plain) && proto.node.iter().any(|node| is(node, "Squeeze"))
}

/// An error that names the node.
pub fn problem(node: &NodeProto, why: impl Into<String>) -> FormatError {
    let operator = node.op_type.clone().unwrap_or_default();
    FormatError::Node { node: label(node), operator, why: why.into() }
}

impl Reader<'_> {
    /// Reads an `If`. One whose condition is known is replaced by the branch it takes.
    pub fn read_if(&mut self, node: &NodeProto) -> Result<(), FormatError> {
        let first = attribute_graph(node, "then_branch")?;
        let second = attribute_graph(node, "else_branch")?;
        if !first.input.is_empty() || !second.input.is_empty() {
            return Err(problem(node, "its graphs must not have inputs"));
        }
        let condition = node.input.first().map_or("", String::as_str);
        let condition =
            *self.names.get(condition).ok_or_else(|| problem(node, "it has no condition"))?;
        let truth = crate::steps::known(&self.graph, condition).map(|tensor| tensor.to_i64_vec());
        let results = match truth {
            Some(truth) if truth.len() == 1 => {
                self.inline(if truth[0] != 0 { first } else { second }, &[])?
            }
            _ => {
                let lists = |proto: &GraphProto| proto.output.iter().any(|o| kind(o) != PLAIN);
                if lists(first) || lists(second) {
                    let why = "its condition must be a constant where branches give lists";
                    return Err(problem(node, why));
                }
                let mut outer: Vec<&str> = captured(first);
                outer.extend(captured(second));
                let mut seen = HashSet::new();
                outer.retain(|name| seen.insert(*name));
                match self.both(node, condition, [first, second], &outer) {
                    Ok(made) => made.into_iter().map(Item::Value).collect(),
                    // An axis is dropped if its extent is one, which nobody knows yet: taken to be
                    // so, because the branch itself refuses any other extent.
                    Err(_) if only_squeezes(first) => self.inline(first, &[])?,
                    Err(_) if only_squeezes(second) => self.inline(second, &[])?,
                    Err(problem) => return Err(problem),
                }
            }
        };
        for (name, item) in node.output.iter().zip(results) {
            self.define_item(name, item)?;
        }
        Ok(())
    }

    /// The nodes of `proto` as part of this graph, its inputs being `operands`; gives its results.
    pub fn inline(
        &mut self,
        proto: &GraphProto,
        operands: &[Item],
    ) -> Result<Vec<Item>, FormatError> {
        if proto.input.len() != operands.len() {
            let (takes, given) = (proto.input.len(), operands.len());
            let why = format!("a graph that takes {takes} values and is given {given}");
            return Err(FormatError::Unsupported(why));
        }
        let around = self.given.len();
        for (input, item) in proto.input.iter().zip(operands) {
            let name = input.name.as_deref().unwrap_or_default();
            match item {
                Item::Value(id) => self.define(name, *id)?,
                list => self.define_item(name, list.clone())?,
            }
        }
        let outside = std::mem::take(&mut self.problems);
        let done = self.read_body(proto).and_then(|()| self.results(proto));
        self.problems = outside;
        self.forget(around);
        done
    }

    fn both(
        &mut self,
        node: &NodeProto,
        condition: ValueId,
        protos: [&GraphProto; 2],
        outer: &[&str],
    ) -> Result<Vec<ValueId>, FormatError> {
        let mut operands = vec![Some(condition)];
        let taken = self.taken(node, outer, &mut operands)?;
        let [first, second] = protos;
        let op = If {
            then_branch: self.body(first, &[], &taken)?,
            else_branch: self.body(second, &[], &taken)?,
        };
        Ok(self.graph.add_node(node.name.clone().unwrap_or_default(), op, &operands)?)
    }

    /// What is known about the values of those names; those that are not constants become operands.
    pub fn taken<'a>(
        &self,
        node: &NodeProto,
        outer: &[&'a str],
        operands: &mut Vec<Option<ValueId>>,
    ) -> Result<Vec<(&'a str, Fact)>, FormatError> {
        let mut taken: Vec<(&str, Fact)> = Vec::with_capacity(outer.len());
        for name in outer {
            let id = *self
                .names
                .get(*name)
                .ok_or_else(|| problem(node, format!("nothing makes `{name}`, which it uses")))?;
            let fact = self.graph.fact(id).clone();
            if fact.constant.is_none() {
                operands.push(Some(id));
            }
            taken.push((*name, fact));
        }
        Ok(taken)
    }

    /// A graph of its own, whose inputs are its own, of the given facts, then what it takes from
    /// around it.
    pub fn body(
        &self,
        proto: &GraphProto,
        own: &[Fact],
        taken: &[(&str, Fact)],
    ) -> Result<Graph, FormatError> {
        let graph = Graph::new(proto.name.clone().unwrap_or_default());
        let (names, lists, given) = (HashMap::new(), HashMap::new(), Vec::new());
        let problems = Problems::default();
        let mut reader =
            Reader { graph, names, lists, given, fold_outputs: false, problems, ..*self };
        for (input, fact) in proto.input.iter().zip(own) {
            let name = input.name.clone().unwrap_or_default();
            let id = reader.graph.add_input(name.clone(), opened(&name, fact));
            reader.define(&name, id)?;
        }
        for (name, fact) in taken {
            let id = match &fact.constant {
                Some(tensor) => reader.graph.add_constant(*name, tensor.clone()),
                None => reader.graph.add_input(*name, opened(name, fact)),
            };
            reader.define(name, id)?;
        }
        reader.read_body(proto)?;
        let outputs = reader.outputs(proto)?;
        reader.graph.set_outputs(outputs);
        reader.graph.verify()?;
        Ok(reader.graph)
    }
}

/// The fact as one of an input: an extent is a number or a symbol.
pub fn opened(name: &str, fact: &Fact) -> Fact {
    let open = |(axis, dim): (usize, &Dim)| match dim.as_known() {
        Some(_) => dim.clone(),
        None => Dim::symbol(format!("{name}.{axis}")),
    };
    Fact::new(fact.dtype, fact.dims.iter().enumerate().map(open).collect())
}

/// Writes an `If`: what its graphs take as inputs they see by name.
pub fn write(emit: &mut Emit<'_>, op: &If) -> Written {
    let operands = emit.inputs[1..].to_vec();
    let mut attributes = Vec::new();
    for (name, branch) in [("then_branch", &op.then_branch), ("else_branch", &op.else_branch)] {
        let outer = branch.inputs().iter().copied().zip(operands.iter().cloned()).collect();
        attributes.push(graph(name, emit.writer.graph(branch, &outer)?));
    }
    let condition = emit.inputs[0].clone();
    emit.last("If", &[&condition], attributes)
}
