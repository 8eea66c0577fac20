//! Sequences and optional values. A graph of Lepton holds tensors only, so lists are resolved
//! while reading: their lengths must follow from the file and from what is fixed about its inputs.

use lepton_ir::ValueId;
use lepton_ir::ops::gather::Gather;
use lepton_ir::ops::reshape::Unsqueeze;
use lepton_tensor::Tensor;

use super::branches::attribute_graph;
use super::call::{Call, label};
use super::proto::{GraphProto, NodeProto, TypeProto, ValueInfoProto};
use super::read::{Reader, tensor_fact};
use crate::error::{FormatError, at_most};
use crate::limits;
use crate::steps::Steps;

/// The operators on lists, and those whose graphs are read in place.
pub const OPERATORS: &[&str] = &[
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceInsert",
    "SequenceErase",
    "SequenceAt",
    "SequenceLength",
    "SequenceMap",
    "ConcatFromSequence",
    "SplitToSequence",
    "Optional",
    "OptionalHasElement",
    "OptionalGetElement",
    "ai.onnx.preview.FlexAttention",
];

/// What a name in a file stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A tensor.
    Value(ValueId),
    /// A sequence of tensors.
    List(Vec<ValueId>),
    /// An optional value that is not there.
    Absent,
}

impl Item {
    /// The tensors it consists of.
    pub fn values(&self) -> Vec<ValueId> {
        match self {
            Item::Value(id) => vec![*id],
            Item::List(list) => list.clone(),
            Item::Absent => Vec::new(),
        }
    }
}

/// What a value of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tensor, also one that may be absent.
    Tensor,
    /// A sequence, also one that may be absent.
    List,
}

/// What a declared value is, and whether it may be absent.
pub fn kind(declared: &ValueInfoProto) -> (Kind, bool) {
    let of = |r#type: &TypeProto| match r#type.sequence_type {
        Some(_) => Kind::List,
        None => Kind::Tensor,
    };
    let Some(r#type) = &declared.r#type else { return (Kind::Tensor, false) };
    match r#type.optional_type.as_ref().and_then(|optional| optional.elem_type.as_ref()) {
        Some(inner) => (of(inner), true),
        None => (of(r#type), false),
    }
}

/// The tensor type inside a type.
fn element_type(r#type: &TypeProto) -> Option<&TypeProto> {
    if r#type.tensor_type.is_some() {
        return Some(r#type);
    }
    let inner = r#type.sequence_type.as_ref().or(r#type.optional_type.as_ref())?;
    element_type(inner.elem_type.as_ref()?)
}

fn error(node: &NodeProto, why: impl Into<String>) -> FormatError {
    let operator = node.op_type.clone().unwrap_or_default();
    FormatError::Node { node: label(node), operator, why: why.into() }
}

impl Reader<'_> {
    /// What a name stands for; an empty one for nothing.
    pub fn item(&self, name: &str) -> Option<Item> {
        if name.is_empty() {
            return Some(Item::Absent);
        }
        let value = self.names.get(name).map(|&id| Item::Value(id));
        value.or_else(|| self.lists.get(name).cloned())
    }

    /// Gives a name to a tensor, a list or nothing.
    pub fn define_item(&mut self, name: &str, item: Item) -> Result<(), FormatError> {
        match item {
            _ if name.is_empty() => Ok(()),
            Item::Value(id) => {
                let value = self.graph.value(id);
                if value.producer.is_some() || value.name.is_empty() {
                    self.graph.set_value_name(id, name);
                }
                self.define(name, id)
            }
            list => {
                let elements = list.values().len();
                if !self.budget.take(&[elements]) {
                    let why = format!("`{name}` and the lists before it have too many elements");
                    return Err(FormatError::Unsupported(why));
                }
                if self.lists.insert(name.to_string(), list).is_none() {
                    self.given.push(name.to_string());
                }
                Ok(())
            }
        }
    }

    /// Adds the inputs that a list or an optional value consists of.
    pub fn read_list_input(&mut self, input: &ValueInfoProto) -> Result<(), FormatError> {
        let name = input.name.clone().unwrap_or_default();
        let why = "the number of its elements must be fixed before reading";
        let count = *self.fixed.counts.get(&name).ok_or_else(|| FormatError::tensor(&name, why))?;
        let Some(count) = count else { return self.define_item(&name, Item::Absent) };
        at_most("elements of a list", count, limits::ELEMENTS)?;
        let inner = input.r#type.as_ref().and_then(element_type);
        let element = inner.ok_or_else(|| FormatError::tensor(&name, "its type is not known"))?;
        let mut list = Vec::with_capacity(count);
        for index in 0..count {
            let own = format!("{name}.{index}");
            let fact = tensor_fact(&own, element, self.fixed.shapes.get(&own))?;
            list.push(self.graph.add_input(own, fact));
        }
        let item = match (kind(input).0, list.as_slice()) {
            (Kind::Tensor, [one]) => Item::Value(*one),
            (Kind::Tensor, _) => return Err(FormatError::tensor(&name, "it is one element")),
            (Kind::List, _) => Item::List(list),
        };
        self.define_item(&name, item)
    }

    /// Reads a node of [`OPERATORS`], or an `Identity` of a list.
    pub fn read_list_node(&mut self, node: &NodeProto) -> Result<(), FormatError> {
        let mut items = Vec::with_capacity(node.input.len());
        for name in &node.input {
            let item = self.item(name);
            items.push(item.ok_or_else(|| error(node, format!("nothing makes `{name}`")))?);
        }
        let made = self.list_results(node, &items)?;
        for (name, item) in node.output.iter().zip(made) {
            // An element keeps its own name where it came from elsewhere.
            match item {
                Item::Value(id) if self.names.get(&self.graph.value(id).name) == Some(&id) => {
                    self.define(name, id)?;
                }
                item => self.define_item(name, item)?,
            }
        }
        Ok(())
    }

    fn list_results(&mut self, node: &NodeProto, items: &[Item]) -> Result<Vec<Item>, FormatError> {
        let list = |index: usize| match items.get(index) {
            Some(Item::List(list)) => Ok(list.clone()),
            _ => Err(error(node, format!("input {index} is not a sequence"))),
        };
        let tensor = |index: usize| match items.get(index) {
            Some(Item::Value(id)) => Ok(*id),
            _ => Err(error(node, format!("input {index} is not a tensor"))),
        };
        let one = |item| Ok(vec![item]);
        match node.op_type.as_deref().unwrap_or_default() {
            "SequenceConstruct" => {
                one(Item::List((0..items.len()).map(tensor).collect::<Result<_, _>>()?))
            }
            "SequenceEmpty" => one(Item::List(Vec::new())),
            "SequenceInsert" => {
                let (mut list, element) = (list(0)?, tensor(1)?);
                let at = self.position(node, items.get(2), list.len(), list.len())?;
                list.insert(at, element);
                one(Item::List(list))
            }
            "SequenceErase" | "SequenceAt" => {
                let mut list = list(0)?;
                let last = list.len().checked_sub(1);
                let last = last.ok_or_else(|| error(node, "the sequence is empty"))?;
                let at = self.position(node, items.get(1), list.len(), last)?;
                let element =
                    *list.get(at).ok_or_else(|| error(node, "there is no such element"))?;
                if node.op_type.as_deref() == Some("SequenceAt") {
                    return one(Item::Value(element));
                }
                list.remove(at);
                one(Item::List(list))
            }
            "SequenceLength" => {
                let count = Tensor::scalar(list(0)?.len() as i64);
                one(Item::Value(self.graph.add_constant("", count)))
            }
            "SequenceMap" => self.mapped(node, items),
            "ConcatFromSequence" => one(Item::Value(self.joined(node, list(0)?)?)),
            "SplitToSequence" => one(Item::List(self.split(node, tensor(0)?, items.get(1))?)),
            "Optional" if node.input.is_empty() => one(Item::Absent),
            "OptionalHasElement" => {
                let has = items.first().is_some_and(|item| *item != Item::Absent);
                let has = Tensor::from_bools(Vec::new(), [has])
                    .map_err(|e| error(node, e.to_string()))?;
                one(Item::Value(self.graph.add_constant("", has)))
            }
            "OptionalGetElement" if items.first() == Some(&Item::Absent) => {
                Err(error(node, "the optional value is absent"))
            }
            "FlexAttention" => self.flex_attention(node, items),
            _ => one(items.first().cloned().ok_or_else(|| error(node, "it has no input"))?),
        }
    }

    /// A position in a list of `count`, `usual` where it is not given; at most `count`.
    fn position(
        &self,
        node: &NodeProto,
        item: Option<&Item>,
        count: usize,
        usual: usize,
    ) -> Result<usize, FormatError> {
        let Some(Item::Value(id)) = item else { return Ok(usual) };
        let known =
            crate::steps::known(&self.graph, *id).and_then(|t| t.to_i64_vec().first().copied());
        let at = known.ok_or_else(|| error(node, "the position must be a constant"))?;
        let at = if at < 0 { at.saturating_add(count as i64) } else { at };
        let found = usize::try_from(at).ok().filter(|&at| at <= count);
        found.ok_or_else(|| error(node, format!("there is no position {at} of {count}")))
    }

    fn call<'a>(&'a mut self, node: &'a NodeProto, inputs: &[ValueId]) -> Call<'a> {
        let inputs = inputs.iter().copied().map(Some).collect();
        Call {
            proto: node,
            version: self.version,
            inputs,
            graph: &mut self.graph,
            budget: self.budget,
        }
    }

    fn joined(&mut self, node: &NodeProto, list: Vec<ValueId>) -> Result<ValueId, FormatError> {
        let mut call = self.call(node, &list);
        let axis = call.int("axis", 0);
        if call.int("new_axis", 0) == 0 {
            return call.concat(&list, axis);
        }
        let at = call.integers(&[axis]);
        let mut wider = Vec::with_capacity(list.len());
        for element in list {
            wider.push(call.emit_one(Unsqueeze {}, &[Some(element), Some(at)])?);
        }
        call.concat(&wider, axis)
    }

    fn split(
        &mut self,
        node: &NodeProto,
        x: ValueId,
        lengths: Option<&Item>,
    ) -> Result<Vec<ValueId>, FormatError> {
        let lengths = match lengths {
            Some(Item::Value(id)) => {
                let known = crate::steps::known(&self.graph, *id);
                let known = known.ok_or_else(|| error(node, "the split must be a constant"))?;
                Some((known.rank(), known.to_i64_vec()))
            }
            _ => None,
        };
        let mut call = self.call(node, &[x]);
        let axis = call.axis("axis", 0)?;
        let extent = call.graph.fact(x).dims.get(axis).and_then(|d| d.as_known());
        let extent = extent.ok_or_else(|| call.error("the extent of its axis must be known"))?;
        let keep = lengths.is_some() || call.int("keepdims", 1) != 0;
        let extent = extent.max(0);
        let lengths = match lengths {
            None => {
                let count = usize::try_from(extent).unwrap_or(usize::MAX);
                at_most("elements of a list", count, limits::ELEMENTS)?;
                vec![1; count]
            }
            Some((0, length)) if length[0] > 0 => {
                let parts = (extent as u64).div_ceil(length[0] as u64) as i64;
                at_most("elements of a list", parts as usize, limits::ELEMENTS)?;
                (0..parts).map(|i| length[0].min(extent - i * length[0])).collect()
            }
            Some((_, lengths)) => lengths,
        };
        at_most("elements of a list", lengths.len(), limits::ELEMENTS)?;
        let (mut made, mut start) = (Vec::with_capacity(lengths.len()), 0);
        for length in lengths {
            made.push(if keep {
                call.slice(x, axis, start, start.saturating_add(length))?
            } else {
                let at = call.constant(Tensor::scalar(start));
                call.emit_one(Gather { axis: axis as i64 }, &[Some(x), Some(at)])?
            });
            start = start.saturating_add(length);
        }
        Ok(made)
    }

    /// A body for every element of the first sequence; other sequences go along.
    fn mapped(&mut self, node: &NodeProto, items: &[Item]) -> Result<Vec<Item>, FormatError> {
        let body = attribute_graph(node, "body")?;
        let Some(Item::List(first)) = items.first() else {
            return Err(error(node, "its first input is not a sequence"));
        };
        let mut lists = vec![Vec::new(); body.output.len()];
        let around = std::mem::replace(&mut self.fold_outputs, true);
        for index in 0..first.len() {
            let mut operands = Vec::with_capacity(items.len());
            for item in items {
                operands.push(match item {
                    Item::List(list) => {
                        let element = list.get(index).copied();
                        Item::Value(element.ok_or_else(|| error(node, "a sequence is shorter"))?)
                    }
                    other => other.clone(),
                });
            }
            let made = self.inline(body, &operands)?;
            for (list, item) in lists.iter_mut().zip(made) {
                list.extend(item.values());
            }
        }
        self.fold_outputs = around;
        Ok(lists.into_iter().map(Item::List).collect())
    }

    /// Attention whose products and weights go through graphs of the file (Dong et al. 2024).
    fn flex_attention(
        &mut self,
        node: &NodeProto,
        items: &[Item],
    ) -> Result<Vec<Item>, FormatError> {
        let operands: Vec<ValueId> = items.iter().flat_map(Item::values).collect();
        let &[query, key, value] = operands.as_slice() else {
            return Err(error(node, "takes queries, keys and values"));
        };
        let graph = |name: &str| {
            let found = node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
            found.and_then(|a| a.g.as_deref())
        };
        let mut call = self.call(node, &operands);
        let mut scores = super::attention::flexible_scores(&mut call, query, key)?;
        scores = self.through(graph("score_mod"), scores)?;
        let mut call = self.call(node, &operands);
        let softmax = lepton_ir::ops::softmax::Softmax { axis: -1, log: false };
        let mut weights = call.emit_one(softmax, &[Some(scores)])?;
        weights = self.through(graph("prob_mod"), weights)?;
        let mut call = self.call(node, &operands);
        let y = super::attention::flexible_result(&mut call, query, weights, value)?;
        Ok(vec![Item::Value(y)])
    }

    /// A value through a graph of one input and one output, if there is one.
    fn through(&mut self, graph: Option<&GraphProto>, x: ValueId) -> Result<ValueId, FormatError> {
        let Some(graph) = graph else { return Ok(x) };
        let made = self.inline(graph, &[Item::Value(x)])?;
        match made.first() {
            Some(Item::Value(id)) => Ok(*id),
            _ => Err(FormatError::Unsupported("a graph in place of a function of a tensor".into())),
        }
    }
}
