//! `If`: its graphs see every value of the graphs around them; Lepton's take them as operands.

use std::collections::{HashMap, HashSet};

use lepton_ir::ops::branch::If;
use lepton_ir::{Dim, Fact, Graph, ValueId};

use super::call::label;
use super::emit::{Emit, Written};
use super::folded;
use super::link::graph;
use super::proto::{GraphProto, NodeProto};
use super::read::Reader;
use crate::error::FormatError;

/// The graphs in a node's attributes.
pub fn graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().filter_map(|attribute| attribute.g.as_ref())
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
fn captured(proto: &GraphProto) -> Vec<&str> {
    let constants = proto.initializer.iter().filter_map(|t| t.name.as_deref());
    let inputs = proto.input.iter().filter_map(|i| i.name.as_deref());
    let made = proto.node.iter().flat_map(|n| n.output.iter().map(String::as_str));
    let own: HashSet<&str> = constants.chain(inputs).chain(made).collect();
    let mut seen = HashSet::new();
    let outputs = proto.output.iter().filter_map(|o| o.name.as_deref());
    let used = proto.node.iter().flat_map(names_used).chain(outputs);
    used.filter(|name| !own.contains(name) && seen.insert(*name)).collect()
}

impl Reader<'_> {
    /// Reads an `If`. One whose condition is known is replaced by the branch it takes.
    pub fn read_if(&mut self, node: &NodeProto) -> Result<(), FormatError> {
        let error = |why: &str| FormatError::Node {
            node: label(node),
            operator: "If".into(),
            why: why.to_string(),
        };
        let branch = |name: &str| {
            let found = node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
            found.and_then(|a| a.g.as_ref()).ok_or_else(|| error(&format!("it has no {name}")))
        };
        let (first, second) = (branch("then_branch")?, branch("else_branch")?);
        if !first.input.is_empty() || !second.input.is_empty() {
            return Err(error("its graphs must not have inputs"));
        }
        let condition = node.input.first().map_or("", String::as_str);
        let condition = *self.names.get(condition).ok_or_else(|| error("it has no condition"))?;
        let truth = folded::known(&self.graph, condition).map(|tensor| tensor.to_i64_vec());
        let results = match truth {
            Some(truth) if truth.len() == 1 => {
                self.inline(if truth[0] != 0 { first } else { second })?
            }
            _ => {
                let mut outer: Vec<&str> = captured(first);
                outer.extend(captured(second));
                let mut seen = HashSet::new();
                outer.retain(|name| seen.insert(*name));
                self.both(node, condition, [first, second], &outer)?
            }
        };
        for (name, id) in node.output.iter().zip(results) {
            if !name.is_empty() {
                if self.graph.value(id).producer.is_some() {
                    self.graph.set_value_name(id, name.clone());
                }
                self.define(name, id)?;
            }
        }
        Ok(())
    }

    /// The nodes of `proto` as part of this graph; gives its results.
    fn inline(&mut self, proto: &GraphProto) -> Result<Vec<ValueId>, FormatError> {
        let around = self.names.clone();
        self.read_body(proto)?;
        let results = self.results(proto)?;
        self.names = around;
        Ok(results)
    }

    fn both(
        &mut self,
        node: &NodeProto,
        condition: ValueId,
        protos: [&GraphProto; 2],
        outer: &[&str],
    ) -> Result<Vec<ValueId>, FormatError> {
        let mut operands = vec![Some(condition)];
        let mut taken: Vec<(&str, Fact)> = Vec::with_capacity(outer.len());
        for name in outer {
            let id = *self.names.get(*name).ok_or_else(|| FormatError::Node {
                node: label(node),
                operator: "If".into(),
                why: format!("nothing makes `{name}`, which a branch uses"),
            })?;
            let fact = self.graph.fact(id).clone();
            if fact.constant.is_none() {
                operands.push(Some(id));
            }
            taken.push((*name, fact));
        }
        let [first, second] = protos;
        let op = If {
            then_branch: self.branch(first, &taken)?,
            else_branch: self.branch(second, &taken)?,
        };
        Ok(self.graph.add_node(node.name.clone().unwrap_or_default(), op, &operands)?)
    }

    /// A branch as a graph of its own, whose inputs are what it may take from around it.
    fn branch(&self, proto: &GraphProto, taken: &[(&str, Fact)]) -> Result<Graph, FormatError> {
        let graph = Graph::new(proto.name.clone().unwrap_or_default());
        let mut reader = Reader { graph, names: HashMap::new(), ..*self };
        for (name, fact) in taken {
            let id = match &fact.constant {
                Some(tensor) => reader.graph.add_constant(*name, tensor.clone()),
                None => reader.graph.add_input(*name, opened(name, fact)),
            };
            reader.define(name, id)?;
        }
        reader.read_body(proto)?;
        let outputs = reader.results(proto)?;
        reader.graph.set_outputs(outputs);
        reader.graph.verify()?;
        Ok(reader.graph)
    }
}

/// The fact as one of an input: an extent is a number or a symbol.
fn opened(name: &str, fact: &Fact) -> Fact {
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
