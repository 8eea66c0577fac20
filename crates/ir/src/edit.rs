//! Edits that keep a graph whole: replacing uses, removing nodes, sorting, dropping what is dead.

use std::sync::Arc;

use crate::dim::Dim;
use crate::error::GraphError;
use crate::fact::Fact;
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::ops::Op;
use crate::users::Users;

impl Graph {
    /// Makes every user of `old` (outputs too) use `new` instead.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for node in self.nodes.iter_mut().flatten() {
            if node.inputs.contains(&Some(old)) {
                let inputs = Arc::make_mut(node).inputs.iter_mut().flatten();
                inputs.filter(|input| **input == old).for_each(|input| *input = new);
            }
        }
        self.replace_output(old, new);
    }

    /// The same where `users` tells who uses `old`.
    pub fn replace_known_uses(&mut self, users: &Users, old: ValueId, new: ValueId) {
        for &(user, position) in &users[old.index()] {
            self.node_mut(user).inputs[position] = Some(new);
        }
        self.replace_output(old, new);
    }

    /// Replaces `old` by `new` among the outputs. The new value takes the name over, because the
    /// names of outputs are the model's interface.
    pub fn replace_output(&mut self, old: ValueId, new: ValueId) {
        if !self.outputs.contains(&old) {
            return;
        }
        for output in self.outputs.iter_mut().filter(|output| **output == old) {
            *output = new;
        }
        let taken =
            self.inputs.contains(&new) || self.outputs.iter().filter(|&&o| o == new).count() > 1;
        if !taken {
            let name = std::mem::take(&mut self.value_mut(old).name);
            self.value_mut(new).name = name;
        }
    }

    /// Removes a node. Its results must have no users left.
    pub fn remove_node(&mut self, id: NodeId) {
        self.order.retain(|&other| other != id);
        if let Some(node) = self.nodes[id.index()].take() {
            for &output in node.outputs.iter().flatten() {
                self.value_mut(output).producer = None;
            }
        }
    }

    /// Replaces the operator and operands of a node and infers its results again. Results keep
    /// their ids, so users need no change.
    pub fn rewrite_node(
        &mut self,
        id: NodeId,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
    ) -> Result<(), GraphError> {
        let op = op.into();
        let old = self.node(id);
        let node = Node {
            name: old.name.clone(),
            op,
            inputs: inputs.to_vec(),
            outputs: old.outputs.clone(),
        };
        let facts = self.infer_node(&node)?;
        let mut outputs = node.outputs.clone();
        outputs.resize(facts.len(), None);
        for (fact, output) in facts.into_iter().zip(&outputs) {
            if let Some(output) = *output {
                self.set_fact(output, fact);
            }
        }
        *self.node_mut(id) = Node { outputs, ..node };
        Ok(())
    }

    /// Marks a result that nobody uses as unwanted.
    pub fn drop_output(&mut self, id: NodeId, position: usize) {
        if let Some(output) = self.node_mut(id).outputs[position].take() {
            self.value_mut(output).producer = None;
        }
    }

    /// Records what is known about a value beyond inference. Known extents must agree; unknown
    /// ones take the declared extent.
    pub fn declare(&mut self, id: ValueId, declared: &Fact) -> Result<(), String> {
        let fact = self.fact(id);
        let conflict = || format!("declared as {declared}, is {fact}");
        if fact.dtype != declared.dtype || fact.rank() != declared.rank() {
            return Err(conflict());
        }
        let pairs = fact.dims.iter().zip(&declared.dims);
        let opaque = |d: &Dim| d.symbols().iter().any(|s| s.starts_with('?'));
        if pairs.clone().any(|(have, want)| have != want && !opaque(have)) {
            return Err(conflict());
        }
        let dims = declared.dims.clone();
        self.value_mut(id).fact.dims = dims;
        Ok(())
    }

    /// Puts the nodes into an order in which every value is made before it is used, keeping the
    /// present order where it is free. An error means a cycle.
    pub fn sort(&mut self) -> Result<(), GraphError> {
        let mut waiting = vec![0usize; self.nodes.len()];
        let mut dependants: Vec<Vec<NodeId>> = vec![Vec::new(); self.nodes.len()];
        for (id, node) in self.nodes() {
            for input in node.inputs.iter().flatten() {
                if let Some((producer, _)) = self.value(*input).producer {
                    waiting[id.index()] += 1;
                    dependants[producer.index()].push(id);
                }
            }
        }
        let mut rank = vec![0usize; self.nodes.len()];
        for (position, id) in self.order.iter().enumerate() {
            rank[id.index()] = position;
        }
        let mut ready: std::collections::BinaryHeap<_> = self
            .order
            .iter()
            .filter(|id| waiting[id.index()] == 0)
            .map(|&id| std::cmp::Reverse((rank[id.index()], id)))
            .collect();
        let mut sorted = Vec::with_capacity(self.order.len());
        while let Some(std::cmp::Reverse((_, id))) = ready.pop() {
            sorted.push(id);
            for &next in &dependants[id.index()] {
                waiting[next.index()] -= 1;
                if waiting[next.index()] == 0 {
                    ready.push(std::cmp::Reverse((rank[next.index()], next)));
                }
            }
        }
        if sorted.len() != self.order.len() {
            let stuck = self.order.iter().find(|id| waiting[id.index()] > 0);
            let label = stuck.map_or(String::new(), |&id| self.node_label(self.node(id)));
            return Err(GraphError::Structure(format!("node `{label}` is part of a cycle")));
        }
        self.order = sorted;
        Ok(())
    }

    /// Removes nodes none of whose results reach an output, and marks unused results. Returns
    /// how many nodes went.
    pub fn remove_dead(&mut self) -> usize {
        let mut live = vec![false; self.values.len()];
        for output in &self.outputs {
            live[output.index()] = true;
        }
        let mut removed = 0;
        for id in self.order().into_iter().rev() {
            let node = self.node(id);
            if node.outputs.iter().flatten().any(|output| live[output.index()]) {
                for input in node.inputs.iter().flatten() {
                    live[input.index()] = true;
                }
            } else {
                self.remove_node(id);
                removed += 1;
            }
        }
        for id in self.order() {
            for position in 0..self.node(id).outputs.len() {
                let unused = self.node(id).outputs[position].filter(|o| !live[o.index()]);
                if unused.is_some() {
                    self.drop_output(id, position);
                }
            }
        }
        removed
    }

    /// The same graph without the slots of removed nodes and without values nobody uses. Ids
    /// change.
    pub fn compacted(&self) -> Graph {
        let mut new = Graph::new(self.name.clone());
        let mut map: Vec<Option<ValueId>> = vec![None; self.values.len()];
        let copy = |new: &mut Graph, map: &mut Vec<Option<ValueId>>, id: ValueId| {
            *map[id.index()].get_or_insert_with(|| {
                let mut value = self.value(id).clone();
                value.producer = None;
                let fresh = ValueId(new.values.len() as u32);
                new.values.push(Arc::new(value));
                fresh
            })
        };
        new.inputs = self.inputs.iter().map(|&id| copy(&mut new, &mut map, id)).collect();
        for (_, node) in self.nodes() {
            let inputs =
                node.inputs.iter().map(|id| id.map(|id| copy(&mut new, &mut map, id))).collect();
            let outputs: Vec<_> =
                node.outputs.iter().map(|id| id.map(|id| copy(&mut new, &mut map, id))).collect();
            let id = NodeId(new.nodes.len() as u32);
            for (position, output) in outputs.iter().enumerate() {
                if let Some(output) = output {
                    new.value_mut(*output).producer = Some((id, position));
                }
            }
            let (name, op) = (node.name.clone(), node.op.clone());
            new.nodes.push(Some(Arc::new(Node { name, op, inputs, outputs })));
            new.order.push(id);
        }
        new.outputs = self.outputs.iter().map(|&id| copy(&mut new, &mut map, id)).collect();
        new
    }
}
