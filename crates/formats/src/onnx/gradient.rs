//! The operator `Gradient`: reverse mode over the nodes between some values and one that follows
//! from them (Linnainmaa 1970), written as ordinary nodes.

use std::collections::{HashMap, HashSet};

use lepton_ir::ops::binary::Binary;
use lepton_ir::ops::generate::ConstantOfShape;
use lepton_ir::ops::shape_of::Shape;
use lepton_ir::{Backward, NodeId, Stops, ValueId};
use lepton_tensor::Tensor;

use super::call::{Call, label};
use super::proto::NodeProto;
use super::read::Reader;
use crate::error::FormatError;

/// The operator's name.
pub const OPERATOR: &str = "ai.onnx.preview.training.Gradient";

fn error(node: &NodeProto, why: impl Into<String>) -> FormatError {
    FormatError::Node { node: label(node), operator: "Gradient".into(), why: why.into() }
}

impl Reader<'_> {
    /// The derivatives of the value `y` with respect to the values `xs`, at the node's inputs, which
    /// take the places of `xs` and `zs`.
    pub fn read_gradient(&mut self, node: &NodeProto) -> Result<(), FormatError> {
        let value = |name: &String| self.names.get(name).copied();
        let values = |names: &[String]| -> Result<Vec<ValueId>, FormatError> {
            let one =
                |name| value(name).ok_or_else(|| error(node, format!("nothing makes `{name}`")));
            names.iter().map(one).collect()
        };
        let inputs = values(&node.input)?;
        let graph = &mut self.graph;
        let (version, budget) = (self.version, self.budget);
        let call = Call { proto: node, version, inputs: Vec::new(), graph, budget };
        let (xs, zs, y) = (call.texts("xs"), call.texts("zs"), call.text("y", ""));
        let places = values(&[xs.as_slice(), zs.as_slice()].concat())?;
        let mut y = values(&[y])?[0];
        if places.len() != inputs.len() {
            return Err(error(node, "its inputs do not go with `xs` and `zs`"));
        }
        let mut nodes = self.between(&places, y);
        if places != inputs {
            let replaced = places.iter().copied().zip(inputs.iter().copied()).collect();
            (nodes, y) = self.again(&nodes, replaced, y)?;
        }
        let grads = self.backward(node, &nodes, y)?;
        for (name, x) in node.output.iter().zip(&inputs[..xs.len()]) {
            let id = match grads.get(x) {
                // A value has one name only.
                Some(&grad) => self.graph.add_node(
                    "",
                    lepton_ir::ops::unary::Unary::default(),
                    &[Some(grad)],
                )?[0],
                None => self.filled(*x, 0.0)?,
            };
            self.graph.set_value_name(id, name.clone());
            self.define(name, id)?;
        }
        Ok(())
    }

    /// The nodes that `y` follows from and that follow from `places`, in order.
    fn between(&self, places: &[ValueId], y: ValueId) -> Vec<NodeId> {
        let mut wanted = HashSet::from([y]);
        let mut nodes = Vec::new();
        for (id, node) in self.graph.nodes().rev() {
            let makes = |id: &ValueId| wanted.contains(id) && !places.contains(id);
            if node.outputs.iter().flatten().any(makes) {
                wanted.extend(node.inputs.iter().flatten());
                nodes.push(id);
            }
        }
        nodes.reverse();
        nodes
    }

    /// The same nodes once more, over other values.
    fn again(
        &mut self,
        nodes: &[NodeId],
        mut replaced: HashMap<ValueId, ValueId>,
        y: ValueId,
    ) -> Result<(Vec<NodeId>, ValueId), FormatError> {
        let mut made = Vec::with_capacity(nodes.len());
        for &id in nodes {
            let node = self.graph.node(id).clone();
            let other = |id: &ValueId| *replaced.get(id).unwrap_or(id);
            let inputs: Vec<_> = node.inputs.iter().map(|id| id.as_ref().map(other)).collect();
            let results = self.graph.add_node("", node.op, &inputs)?;
            let outputs = node.outputs.iter().zip(&results);
            replaced.extend(outputs.filter_map(|(old, new)| Some(((*old)?, *new))));
            let producer = results.first().and_then(|id| self.graph.producer(*id));
            made.extend(producer.map(|(id, _)| id));
        }
        Ok((made, *replaced.get(&y).unwrap_or(&y)))
    }

    /// The derivative of the sum of `y` with respect to every value of the nodes that it reaches.
    fn backward(
        &mut self,
        node: &NodeProto,
        nodes: &[NodeId],
        y: ValueId,
    ) -> Result<HashMap<ValueId, ValueId>, FormatError> {
        let mut grads = HashMap::from([(y, self.filled(y, 1.0)?)]);
        for &id in nodes.iter().rev() {
            let own = self.graph.node(id).clone();
            let of = |id: &Option<ValueId>| id.and_then(|id| grads.get(&id).copied());
            let output_grads: Vec<Option<ValueId>> = own.outputs.iter().map(of).collect();
            if output_grads.iter().all(Option::is_none) {
                continue;
            }
            let mut backward = Backward {
                graph: &mut self.graph,
                inputs: &own.inputs,
                outputs: &own.outputs,
                output_grads: &output_grads,
            };
            let found = own.op.operator().grad(&mut backward).map_err(|stops| match stops {
                Stops::Because(why) => error(node, format!("{} has no gradient: {why}", own.op)),
                Stops::Broken(broken) => broken.into(),
            })?;
            for (x, grad) in own.inputs.iter().zip(found) {
                let (Some(x), Some(grad)) = (*x, grad) else { continue };
                let sum = match grads.get(&x) {
                    Some(&other) => {
                        self.graph.add_node("", Binary::default(), &[Some(other), Some(grad)])?[0]
                    }
                    None => grad,
                };
                grads.insert(x, sum);
            }
        }
        Ok(grads)
    }

    /// A value in the shape and type of `x`.
    fn filled(&mut self, x: ValueId, value: f64) -> Result<ValueId, FormatError> {
        let value = Tensor::from_f64_slice(self.graph.fact(x).dtype, [1], &[value]);
        let value = value.map_err(|why| FormatError::Unsupported(why.to_string()))?;
        let shape = self.graph.add_node("", Shape::default(), &[Some(x)])?[0];
        Ok(self.graph.add_node("", ConstantOfShape { value }, &[Some(shape)])?[0])
    }
}
