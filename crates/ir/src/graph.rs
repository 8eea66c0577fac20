//! The graph: values, nodes that make them, and an execution order.

use std::collections::HashMap;
use std::sync::Arc;

use lepton_tensor::Tensor;

use crate::error::{GraphError, Problem};
use crate::fact::Fact;
use crate::operator::Operands;
use crate::ops::Op;
use crate::users::Users;

/// A value of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

/// A node of one graph; stays valid while other nodes come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl ValueId {
    /// Position in arrays that run parallel to the graph's values.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// Position in arrays that run parallel to the graph's node slots.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Something that flows along an edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The name it had in the source; may be empty.
    pub name: String,
    /// What is known about it. Constants carry their tensor here.
    pub fact: Fact,
    /// The node and result position that make it; `None` for inputs and constants.
    pub producer: Option<(NodeId, usize)>,
}

/// An operator applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The name it had in the source; may be empty.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Operands; `None` where an optional one is absent.
    pub inputs: Vec<Option<ValueId>>,
    /// Results; `None` where nobody wants one.
    pub outputs: Vec<Option<ValueId>>,
}

impl Node {
    /// Its name, or one made from its first result.
    pub fn label(&self, first: Option<(ValueId, &Value)>) -> String {
        match first {
            _ if !self.name.is_empty() => self.name.clone(),
            Some((id, value)) => value.label(id),
            None => self.op.to_string(),
        }
    }
}

impl Value {
    /// Its name, or its number.
    fn label(&self, id: ValueId) -> String {
        if self.name.is_empty() { id.0.to_string() } else { self.name.clone() }
    }
}

/// A typed graph in execution order. A clone shares nodes and values until one of both writes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Its name; may be empty.
    pub name: String,
    pub(crate) values: Vec<Arc<Value>>,
    pub(crate) nodes: Vec<Option<Arc<Node>>>,
    pub(crate) order: Vec<NodeId>,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) outputs: Vec<ValueId>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph { name: name.into(), ..Graph::default() }
    }

    fn push_value(&mut self, value: Value) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).expect("fewer than 2^32 values"));
        self.values.push(Arc::new(value));
        id
    }

    /// Adds an input. Its type and dimensions are kept; no value of it is known.
    pub fn add_input(&mut self, name: impl Into<String>, fact: Fact) -> ValueId {
        let fact = Fact::new(fact.dtype, fact.dims);
        let id = self.push_value(Value { name: name.into(), fact, producer: None });
        self.inputs.push(id);
        id
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: Tensor) -> ValueId {
        self.push_value(Value { name: name.into(), fact: Fact::holding(tensor), producer: None })
    }

    /// Adds a node at the end of the execution order and infers its results, one value each.
    pub fn add_node(
        &mut self,
        name: impl Into<String>,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<ValueId>, GraphError> {
        let id = self.append_node(name.into(), op.into(), inputs.to_vec())?;
        Ok(self.node(id).outputs.iter().flatten().copied().collect())
    }

    /// [`Graph::add_node`] for a list that the node may keep.
    pub fn append_node(
        &mut self,
        name: String,
        op: Op,
        inputs: Vec<Option<ValueId>>,
    ) -> Result<NodeId, GraphError> {
        let mut node = Node { name, op, inputs, outputs: Vec::new() };
        let facts = self.infer_node(&node)?;
        let id = NodeId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes"));
        node.outputs.reserve_exact(facts.len());
        for (position, fact) in facts.into_iter().enumerate() {
            let producer = Some((id, position));
            let value = self.push_value(Value { name: String::new(), fact, producer });
            self.rename_unknown(value);
            node.outputs.push(Some(value));
        }
        self.nodes.push(Some(Arc::new(node)));
        self.order.push(id);
        Ok(id)
    }

    /// The facts a node's results would have.
    pub fn infer_node(&self, node: &Node) -> Result<Vec<Fact>, GraphError> {
        self.check_arity(node)
            .and_then(|()| {
                let made = self.with_input_facts(node, |facts| {
                    facts.iter().flatten().try_for_each(|fact| fact.check_extents())?;
                    node.op.infer(Operands(facts))
                })?;
                made.iter().try_for_each(Fact::check_extents)?;
                let most = node.op.operator().arity().max_outputs;
                if made.len() > most {
                    let expected = format!("at most {most}");
                    return Err(Problem::Count { what: "outputs", expected, found: made.len() });
                }
                Ok(made)
            })
            .map_err(|problem| self.node_error(node, problem))
    }

    fn check_arity(&self, node: &Node) -> Result<(), Problem> {
        let arity = node.op.operator().arity();
        if (arity.min_inputs..=arity.max_inputs).contains(&node.inputs.len()) {
            return Ok(());
        }
        let expected = if arity.min_inputs == arity.max_inputs {
            arity.min_inputs.to_string()
        } else {
            format!("{} to {}", arity.min_inputs, arity.max_inputs)
        };
        Err(Problem::Count { what: "inputs", expected, found: node.inputs.len() })
    }

    /// The facts of a node's operands.
    pub fn input_facts(&self, node: &Node) -> Vec<Option<&Fact>> {
        node.inputs.iter().map(|id| id.map(|id| self.fact(id))).collect()
    }

    /// Calls `body` with the facts of a node's operands; few of them need no memory.
    pub fn with_input_facts<R>(&self, node: &Node, body: impl FnOnce(&[Option<&Fact>]) -> R) -> R {
        let mut few = [None; 8];
        let Some(facts) = few.get_mut(..node.inputs.len()) else {
            return body(&self.input_facts(node));
        };
        for (fact, id) in facts.iter_mut().zip(&node.inputs) {
            *fact = id.map(|id| self.fact(id));
        }
        body(facts)
    }

    /// The facts of a node's results; a placeholder stands for those nobody wants.
    pub fn output_facts(&self, node: &Node) -> Vec<Fact> {
        let unwanted = || Fact::new(lepton_tensor::DType::F32, Vec::new());
        node.outputs.iter().map(|id| id.map_or_else(unwanted, |id| self.fact(id).clone())).collect()
    }

    /// An error that names the node, its operator and its operands.
    pub fn node_error(&self, node: &Node, problem: Problem) -> GraphError {
        let inputs: Vec<String> = node
            .inputs
            .iter()
            .map(|id| {
                id.map_or("absent".to_string(), |id| {
                    format!("{}: {}", self.value_label(id), self.fact(id))
                })
            })
            .collect();
        GraphError::Node {
            node: self.node_label(node),
            op: node.op.to_string(),
            inputs: if inputs.is_empty() { "none".to_string() } else { inputs.join(", ") },
            problem,
        }
    }

    /// The node's name, or one made from its first result.
    pub fn node_label(&self, node: &Node) -> String {
        let first = node.outputs.iter().flatten().next();
        node.label(first.map(|&id| (id, self.value(id))))
    }

    /// The value's name, or its number.
    pub fn value_label(&self, id: ValueId) -> String {
        self.value(id).label(id)
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// A value, for as long as it is held, whatever happens to the graph.
    pub fn shared_value(&self, id: ValueId) -> Arc<Value> {
        self.values[id.index()].clone()
    }

    /// What is known about a value.
    pub fn fact(&self, id: ValueId) -> &Fact {
        &self.values[id.index()].fact
    }

    /// The tensor, if the value is a constant.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        let value = self.value(id);
        value.fact.constant.as_ref().filter(|_| value.producer.is_none())
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].as_deref().expect("the node was not removed")
    }

    /// A node, for as long as it is held, whatever happens to the graph.
    pub fn shared_node(&self, id: NodeId) -> Arc<Node> {
        self.nodes[id.index()].clone().expect("the node was not removed")
    }

    /// A node, for writing. Call [`Graph::refresh_from`] if the change alters its results.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        Arc::make_mut(self.nodes[id.index()].as_mut().expect("the node was not removed"))
    }

    /// A value, for writing.
    pub(crate) fn value_mut(&mut self, id: ValueId) -> &mut Value {
        Arc::make_mut(&mut self.values[id.index()])
    }

    /// Records what is known about a value; one that others share is not copied for it, nor where
    /// it is known already.
    pub(crate) fn set_fact(&mut self, id: ValueId, fact: Fact) {
        let value = &mut self.values[id.index()];
        if let Some(own) = Arc::get_mut(value) {
            own.fact = fact;
        } else if value.fact != fact {
            let (name, producer) = (value.name.clone(), value.producer);
            *value = Arc::new(Value { name, fact, producer });
        }
        self.rename_unknown(id);
    }

    /// True if the node is still there.
    pub fn contains(&self, id: NodeId) -> bool {
        self.nodes.get(id.index()).is_some_and(Option::is_some)
    }

    /// The node that makes a value.
    pub fn producer(&self, id: ValueId) -> Option<(NodeId, &Node)> {
        self.value(id).producer.map(|(node, _)| (node, self.node(node)))
    }

    /// Every node in execution order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.order.iter().map(|&id| (id, self.node(id)))
    }

    /// The ids of every node in execution order.
    pub fn order(&self) -> Vec<NodeId> {
        self.order.clone()
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.order.len()
    }

    /// Number of node slots: one more than the largest node index.
    pub fn node_slots(&self) -> usize {
        self.nodes.len()
    }

    /// Number of values, unused ones counted.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Every value id.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Sets the inputs, all of which were inputs before. One that is left out must have no users.
    pub fn set_inputs(&mut self, inputs: Vec<ValueId>) {
        self.inputs = inputs;
    }

    /// Sets the outputs. A value may be an output more than once.
    pub fn set_outputs(&mut self, outputs: Vec<ValueId>) {
        self.outputs = outputs;
    }

    /// Names a value.
    pub fn set_value_name(&mut self, id: ValueId, name: impl Into<String>) {
        self.value_mut(id).name = name.into();
    }

    /// Replaces the tensor of a constant.
    pub fn set_constant(&mut self, id: ValueId, tensor: Tensor) {
        assert!(self.constant(id).is_some(), "only a constant has a tensor to replace");
        self.value_mut(id).fact = Fact::holding(tensor);
    }

    /// Who uses each value: node and operand position, in execution order.
    pub fn users(&self) -> Users {
        Users::of(self)
    }

    /// The constants that some node or output uses, each once, in order of first use.
    pub fn constants(&self) -> Vec<ValueId> {
        let mut seen = vec![false; self.values.len()];
        let used = self.nodes().flat_map(|(_, node)| node.inputs.iter().flatten().copied());
        used.chain(self.outputs.iter().copied())
            .filter(|&id| {
                self.constant(id).is_some() && !std::mem::replace(&mut seen[id.index()], true)
            })
            .collect()
    }

    /// The value of that name.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.value_ids().find(|&id| self.value(id).name == name)
    }

    /// Number of elements of all constants in floating point, which is what people call
    /// parameters; integer constants count only if they feed a dequantisation or a product.
    pub fn parameter_count(&self) -> usize {
        self.constants().into_iter().filter_map(|id| self.constant(id)).map(Tensor::len).sum()
    }

    /// Bytes of all constants.
    pub fn constant_bytes(&self) -> usize {
        let bytes = |t: &Tensor| t.bytes().len();
        self.constants().into_iter().filter_map(|id| self.constant(id)).map(bytes).sum()
    }

    /// How often each operator occurs, most frequent first.
    pub fn operator_counts(&self) -> Vec<(String, usize)> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (_, node) in self.nodes() {
            *counts.entry(node.op.to_string()).or_default() += 1;
        }
        let mut list: Vec<_> = counts.into_iter().collect();
        list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::ops::unary::{Unary, UnaryFunction};

    #[test]
    fn what_is_written_in_a_clone_stays_in_it() {
        let mut graph = Graph::new("");
        let fact = Fact::new(lepton_tensor::DType::F32, vec![Dim::symbol("n")]);
        let x = graph.add_input("x", fact);
        let y = graph.add_node("", Unary::new(UnaryFunction::Exp), &[Some(x)]).unwrap()[0];
        graph.set_value_name(y, "y");
        graph.set_outputs(vec![y]);
        let before = format!("{graph:?}");
        let mut clone = graph.clone();
        clone.set_value_name(y, "z");
        let id = clone.order()[0];
        clone.rewrite_node(id, Unary::new(UnaryFunction::Log), &[Some(x)]).unwrap();
        let bound = graph.specialised(&[("n".into(), 3)].into()).unwrap();
        assert_eq!(bound.fact(y).shape(), Some(vec![3]));
        clone.replace_uses(x, y);
        clone.remove_node(id);
        assert_eq!(format!("{graph:?}"), before);
    }
}
