//! The invariants of a graph, checked after reading and after every pass.

use std::collections::HashSet;

use crate::dim::Dim;
use crate::error::GraphError;
use crate::fact::Fact;
use crate::graph::{Graph, Node, NodeId, ValueId};

impl Graph {
    /// Checks every invariant: ids in range, values made before they are used, arities, unique
    /// interface names, and facts that agree with inference.
    pub fn verify(&self) -> Result<(), GraphError> {
        self.verify_interface()?;
        let mut defined = vec![false; self.values.len()];
        for id in self.value_ids() {
            let value = self.value(id);
            let constant = value.producer.is_none() && value.fact.constant.is_some();
            defined[id.index()] = constant || self.inputs.contains(&id);
        }
        for (id, node) in self.nodes() {
            self.verify_node(id, node, &mut defined)?;
        }
        for &output in &self.outputs {
            if !defined.get(output.index()).copied().unwrap_or(false) {
                let label = self.value_label(output);
                return Err(structure(format!("output `{label}` is not made by any node")));
            }
        }
        Ok(())
    }

    /// Checks what holds of any graph to which nodes were only added, each inferred then, but for its
    /// interface: inputs and outputs exist and have names, those of inputs no name twice.
    pub fn verify_interface(&self) -> Result<(), GraphError> {
        let mut names = HashSet::new();
        for &id in &self.inputs {
            if id.index() >= self.values.len() {
                return Err(structure(format!("input {} does not exist", id.0)));
            }
            let name = &self.value(id).name;
            if name.is_empty() {
                return Err(structure("an input has no name".into()));
            }
            if !names.insert(name) {
                return Err(structure(format!("two inputs are named `{name}`")));
            }
        }
        for &id in &self.outputs {
            if id.index() >= self.values.len() {
                return Err(structure(format!("output {} does not exist", id.0)));
            }
            if self.value(id).name.is_empty() {
                return Err(structure("an output has no name".into()));
            }
        }
        Ok(())
    }

    fn verify_node(&self, id: NodeId, node: &Node, defined: &mut [bool]) -> Result<(), GraphError> {
        let label = || self.node_label(node);
        for input in node.inputs.iter().flatten() {
            if !defined.get(input.index()).copied().unwrap_or(false) {
                let why = format!("node `{}` uses a value before it is made", label());
                return Err(structure(why));
            }
        }
        let facts = self.infer_node(node)?;
        if node.outputs.len() != facts.len() {
            let (found, made) = (node.outputs.len(), facts.len());
            return Err(structure(format!(
                "node `{}` lists {found} results, makes {made}",
                label()
            )));
        }
        for (position, (output, fact)) in node.outputs.iter().zip(&facts).enumerate() {
            let Some(output) = *output else { continue };
            self.verify_result(id, node, position, output, fact)?;
            defined[output.index()] = true;
        }
        Ok(())
    }

    fn verify_result(
        &self,
        id: NodeId,
        node: &Node,
        position: usize,
        output: ValueId,
        inferred: &Fact,
    ) -> Result<(), GraphError> {
        let label = || self.node_label(node);
        if output.index() >= self.values.len() {
            return Err(structure(format!("node `{}` makes a value that is not there", label())));
        }
        if self.value(output).producer != Some((id, position)) {
            let why = format!("result {position} of node `{}` names another producer", label());
            return Err(structure(why));
        }
        let recorded = self.fact(output);
        let agree = |a: &Dim, b: &Dim| a == b || b.is_unknown();
        let same = recorded.dtype == inferred.dtype
            && recorded.rank() == inferred.rank()
            && recorded.dims.iter().zip(&inferred.dims).all(|(a, b)| agree(a, b));
        if same {
            return Ok(());
        }
        let why = format!("result of node `{}` is recorded as {recorded}, is {inferred}", label());
        Err(structure(why))
    }
}

fn structure(why: String) -> GraphError {
    GraphError::Structure(why)
}
