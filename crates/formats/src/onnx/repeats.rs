//! `Loop` and `Scan`: bodies as graphs of their own, or in place where they work on lists.

use std::collections::HashSet;

use lepton_ir::ops::repeat::{Loop, Scan};
use lepton_ir::ops::reshape::{Squeeze, Unsqueeze};
use lepton_ir::{Dim, Fact, Graph, ValueId};
use lepton_tensor::{DType, Tensor};

use super::branches::{attribute_graph, captured, problem};
use super::emit::{Emit, Written};
use super::link::{graph, int, ints};
use super::lists::Item;
use super::proto::{GraphProto, NodeProto};
use super::read::Reader;
use crate::error::{FormatError, at_most};
use crate::limits;
use crate::steps::Steps;

/// The integers of an attribute; empty where absent.
fn integers(node: &NodeProto, name: &str) -> Vec<i64> {
    let found = node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
    found.map(|a| a.ints.clone()).unwrap_or_default()
}

fn distinct(names: Vec<&str>) -> Vec<&str> {
    let mut seen = HashSet::new();
    names.into_iter().filter(|name| seen.insert(*name)).collect()
}

impl Reader<'_> {
    fn items(&self, node: &NodeProto) -> Result<Vec<Item>, FormatError> {
        let item = |name: &String| {
            self.item(name).ok_or_else(|| problem(node, format!("nothing makes `{name}`")))
        };
        node.input.iter().map(item).collect()
    }

    /// A body whose first `first` inputs are of fixed facts, then states, then the rest: an extent
    /// of a state that one round changes is not known.
    fn settled(
        &self,
        proto: &GraphProto,
        first: usize,
        own: &mut [Fact],
        results: std::ops::Range<usize>,
        taken: &[(&str, Fact)],
    ) -> Result<Graph, FormatError> {
        loop {
            let body = self.body(proto, own, taken)?;
            let mut changed = false;
            let specs = body.output_specs();
            for (state, result) in results.clone().enumerate() {
                let Some((_, made)) = specs.get(result) else { continue };
                let entered = body.fact(body.inputs()[first + state]).clone();
                let own = &mut own[first + state];
                for (axis, dim) in own.dims.iter_mut().enumerate() {
                    let stays = made.dims.get(axis) == entered.dims.get(axis);
                    if !stays && dim.as_known().is_some() {
                        *dim = Dim::unknown();
                        changed = true;
                    }
                }
            }
            if !changed {
                return Ok(body);
            }
        }
    }

    /// Reads a `Loop`. One that works on lists is read in place, round by round.
    pub fn read_loop(&mut self, node: &NodeProto) -> Result<(), FormatError> {
        let proto = attribute_graph(node, "body")?;
        let items = self.items(node)?;
        let outer = distinct(captured(proto));
        let is_list = |item: &Item| !matches!(item, Item::Value(_));
        let lists = items.iter().skip(2).any(is_list)
            || outer.iter().any(|name| self.lists.contains_key(*name));
        let results = if lists {
            self.unrolled(node, proto, &items)?
        } else {
            let made = self.looped(node, proto, &items, &outer)?;
            made.into_iter().map(Item::Value).collect()
        };
        for (name, item) in node.output.iter().zip(results) {
            self.define_item(name, item)?;
        }
        Ok(())
    }

    fn looped(
        &mut self,
        node: &NodeProto,
        proto: &GraphProto,
        items: &[Item],
        outer: &[&str],
    ) -> Result<Vec<ValueId>, FormatError> {
        let id = |item: &Item| item.values().first().copied();
        let mut operands: Vec<Option<ValueId>> = items.iter().map(id).collect();
        operands.resize(operands.len().max(2), None);
        let states = operands.len() - 2;
        let mut own = vec![Fact::dense(DType::I64, &[]), Fact::dense(DType::Bool, &[])];
        for state in operands[2..].iter().flatten() {
            own.push(plain(self.graph.fact(*state)));
        }
        let taken = self.taken(node, outer, &mut operands)?;
        let body = self.settled(proto, 2, &mut own, 1..1 + states, &taken)?;
        let op = Loop { body, states };
        Ok(self.graph.add_node(node.name.clone().unwrap_or_default(), op, &operands)?)
    }

    fn unrolled(
        &mut self,
        node: &NodeProto,
        proto: &GraphProto,
        items: &[Item],
    ) -> Result<Vec<Item>, FormatError> {
        let known = |reader: &Self, item: Option<&Item>| match item {
            Some(Item::Value(id)) => {
                let tensor = crate::steps::known(&reader.graph, *id);
                tensor.and_then(|tensor| tensor.to_i64_vec().first().copied()).map(Some)
            }
            _ => Some(None),
        };
        let why = "with lists, its trip count and condition must be a constant";
        let rounds = known(self, items.first()).ok_or_else(|| problem(node, why))?;
        let rounds = rounds.ok_or_else(|| problem(node, "with lists it needs a trip count"))?;
        let mut holds = known(self, items.get(1)).ok_or_else(|| problem(node, why))?;
        let mut states: Vec<Item> = items.iter().skip(2).cloned().collect();
        let stacks = proto.output.len().saturating_sub(1 + states.len());
        let mut slices: Vec<Vec<ValueId>> = vec![Vec::new(); stacks];
        at_most("rounds", usize::try_from(rounds).unwrap_or(0), limits::ELEMENTS)?;
        let around = std::mem::replace(&mut self.fold_outputs, true);
        for round in 0..rounds.max(0) {
            if holds == Some(0) {
                break;
            }
            let yes = Tensor::from_bools(Vec::new(), [true]);
            let yes = yes.map_err(|e| problem(node, e.to_string()))?;
            let mut operands = vec![
                Item::Value(self.graph.add_constant("", Tensor::scalar(round))),
                Item::Value(self.graph.add_constant("", yes)),
            ];
            operands.append(&mut states);
            let mut made = self.inline(proto, &operands)?.into_iter();
            holds = known(self, made.next().as_ref()).ok_or_else(|| problem(node, why))?;
            states = made.by_ref().take(operands.len() - 2).collect();
            for (list, slice) in slices.iter_mut().zip(made) {
                list.extend(slice.values());
            }
        }
        self.fold_outputs = around;
        for list in slices {
            states.push(Item::Value(self.stack(node, &list)?));
        }
        Ok(states)
    }

    /// Slices one after the other along a new first axis.
    fn stack(&mut self, node: &NodeProto, slices: &[ValueId]) -> Result<ValueId, FormatError> {
        let inputs = slices.iter().copied().map(Some).collect();
        let graph = &mut self.graph;
        let mut call = super::call::Call {
            proto: node,
            version: self.version,
            inputs,
            graph,
            budget: self.budget,
        };
        let mut wider = Vec::with_capacity(slices.len());
        for &slice in slices {
            wider.push(call.unsqueeze(slice, &[0])?);
        }
        call.concat(&wider, 0)
    }

    /// Reads a `Scan`; before version 9 it had a batch, which must be one.
    pub fn read_scan(&mut self, node: &NodeProto) -> Result<(), FormatError> {
        let proto = attribute_graph(node, "body")?;
        let batched = self.version < 9;
        let skip = usize::from(batched);
        let items = self.items(node)?;
        if batched && items.first() != Some(&Item::Absent) {
            return Err(problem(node, "sequences of different lengths are not supported"));
        }
        let mut operands = Vec::with_capacity(items.len());
        for item in items.iter().skip(skip) {
            let Item::Value(id) = item else {
                return Err(problem(node, "its inputs must be tensors"));
            };
            operands.push(Some(if batched { self.edge(Squeeze {}, *id)? } else { *id }));
        }
        let count = node.attribute.iter().find(|a| a.name.as_deref() == Some("num_scan_inputs"));
        let count = count.and_then(|a| usize::try_from(a.i?).ok()).unwrap_or(0);
        let states = operands.len().checked_sub(count).filter(|_| count > 0);
        let states = states.ok_or_else(|| problem(node, "it has no sequences"))?;
        let op = Scan {
            states,
            sequences: count,
            axes: if batched { Vec::new() } else { integers(node, "scan_input_axes") },
            reversed: integers(node, if batched { "directions" } else { "scan_input_directions" }),
            stack_axes: integers(node, "scan_output_axes"),
            stack_reversed: integers(node, "scan_output_directions"),
            ..Scan::default()
        };
        let made = self.scanned(node, proto, op, operands)?;
        for (name, id) in node.output.iter().zip(made) {
            let id = if batched { self.edge(Unsqueeze {}, id)? } else { id };
            self.define_item(name, Item::Value(id))?;
        }
        Ok(())
    }

    /// Takes or adds a first axis of extent 1.
    fn edge(&mut self, op: impl Into<lepton_ir::Op>, x: ValueId) -> Result<ValueId, FormatError> {
        let first = self.graph.add_constant("", Tensor::vector(&[0i64]));
        Ok(self.graph.add_node("", op, &[Some(x), Some(first)])?[0])
    }

    fn scanned(
        &mut self,
        node: &NodeProto,
        proto: &GraphProto,
        mut op: Scan,
        mut operands: Vec<Option<ValueId>>,
    ) -> Result<Vec<ValueId>, FormatError> {
        let mut own = Vec::with_capacity(operands.len());
        for (index, id) in operands.iter().flatten().enumerate() {
            let mut fact = plain(self.graph.fact(*id));
            if let Some(sequence) = index.checked_sub(op.states) {
                let axis = op.axes.get(sequence).copied().unwrap_or(0);
                let rank = fact.rank() as i64;
                let axis = usize::try_from(if axis < 0 { axis + rank } else { axis });
                let axis = axis.ok().filter(|&axis| axis < fact.rank());
                fact.dims.remove(axis.ok_or_else(|| problem(node, "an axis is outside"))?);
            }
            own.push(fact);
        }
        let outer = distinct(captured(proto));
        let taken = self.taken(node, &outer, &mut operands)?;
        op.body = self.settled(proto, 0, &mut own, 0..op.states, &taken)?;
        Ok(self.graph.add_node(node.name.clone().unwrap_or_default(), op, &operands)?)
    }
}

/// Type and extents, without what is known about the elements.
fn plain(fact: &Fact) -> Fact {
    Fact::new(fact.dtype, fact.dims.clone())
}

/// A body as an attribute: what it takes besides its own `count` inputs it sees by name.
fn body(emit: &mut Emit<'_>, body: &Graph, count: usize) -> Result<GraphProto, FormatError> {
    let rest = emit.inputs[count..].to_vec();
    let outer = body.inputs()[count..].iter().copied().zip(rest).collect();
    emit.writer.graph(body, &outer)
}

/// Writes a `Loop`.
pub fn write_loop(emit: &mut Emit<'_>, op: &Loop) -> Written {
    let count = 2 + op.states;
    let attribute = graph("body", body(emit, &op.body, count)?);
    let inputs = emit.inputs[..count].to_vec();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    emit.last("Loop", &inputs, vec![attribute])
}

/// Writes a `Scan`.
pub fn write_scan(emit: &mut Emit<'_>, op: &Scan) -> Written {
    let count = op.states + op.sequences;
    let mut attributes = vec![graph("body", body(emit, &op.body, count)?)];
    attributes.push(int("num_scan_inputs", op.sequences as i64));
    let lists = [
        ("scan_input_axes", &op.axes),
        ("scan_input_directions", &op.reversed),
        ("scan_output_axes", &op.stack_axes),
        ("scan_output_directions", &op.stack_reversed),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        attributes.push(ints(name, list.clone()));
    }
    let inputs = emit.inputs[..count].to_vec();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    emit.last("Scan", &inputs, attributes)
}
