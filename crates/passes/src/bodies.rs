//! Bodies of loops: what no round changes is no state, and constants from around become their own,
//! so that products find their weights.

use lepton_ir::ops::repeat::{Loop, Scan};
use lepton_ir::{Graph, GraphError, Node, NodeId, Op, ValueId, identical};

/// The operands and results of a `Loop` or `Scan`, without its operator.
struct Repeat {
    body: Graph,
    operands: Vec<Option<ValueId>>,
    results: Vec<Option<ValueId>>,
    /// Operands before the states; results of the body before the next states.
    before: [usize; 2],
    states: usize,
    sequences: usize,
}

impl Repeat {
    fn of(node: &Node) -> Option<Self> {
        let (body, before, states, sequences) = match &node.op {
            Op::Loop(op) => (&op.body, [2, 1], op.states, 0),
            Op::Scan(op) => (&op.body, [0, 0], op.states, op.sequences),
            _ => return None,
        };
        let (operands, results) = (node.inputs.clone(), node.outputs.clone());
        Some(Repeat { body: body.clone(), operands, results, before, states, sequences })
    }

    /// The first state that every round leaves as it is, and nobody asks for under a name.
    fn unchanged(&self, graph: &Graph) -> Option<usize> {
        (0..self.states).find(|&state| {
            let made = identical(&self.body, self.body.outputs()[self.before[1] + state]);
            let named = |id: &ValueId| graph.outputs().contains(id);
            made == self.body.inputs()[self.before[0] + state]
                && self.operands[self.before[0] + state].is_some()
                && !self.results.get(state).copied().flatten().as_ref().is_some_and(named)
        })
    }

    /// Makes a state an operand that rounds only read; gives the result that it was and its value.
    fn settle(&mut self, state: usize) -> (Option<ValueId>, Option<ValueId>) {
        let mut inputs = self.body.inputs().to_vec();
        let mut outputs = self.body.outputs().to_vec();
        let input = inputs.remove(self.before[0] + state);
        inputs.push(input);
        outputs.remove(self.before[1] + state);
        self.body.set_inputs(inputs);
        self.body.set_outputs(outputs);
        let operand = self.operands.remove(self.before[0] + state);
        self.operands.push(operand);
        self.states -= 1;
        let result = if state < self.results.len() { self.results.remove(state) } else { None };
        (result, operand)
    }

    /// Gives the body the constants among what it takes from around; how many there were.
    fn enclose(&mut self, graph: &Graph) -> usize {
        let first = self.before[0] + self.states + self.sequences;
        let mut inputs = self.body.inputs().to_vec();
        let before = inputs.len();
        for position in (first..before).rev() {
            let constant = self.operands[position].and_then(|id| graph.constant(id));
            let Some(constant) = constant else { continue };
            let name = self.body.value(inputs[position]).name.clone();
            let own = self.body.add_constant("", constant.clone());
            self.body.replace_uses(inputs[position], own);
            self.body.set_value_name(inputs[position], "");
            self.body.set_value_name(own, name);
            inputs.remove(position);
            self.operands.remove(position);
        }
        let taken = before - inputs.len();
        self.body.set_inputs(inputs);
        taken
    }

    /// Puts the node that this has become in the place of the one it was.
    fn replace(self, graph: &mut Graph, id: NodeId) -> Result<(), GraphError> {
        let old = graph.node(id).clone();
        let (body, states) = (self.body, self.states);
        let op = match old.op {
            Op::Scan(op) => Op::from(Scan { body, states, ..*op }),
            _ => Op::from(Loop { body, states }),
        };
        let made = graph.add_node(old.name, op, &self.operands)?;
        for (result, made) in self.results.into_iter().zip(made) {
            let Some(result) = result else { continue };
            // What the file said of it; no more than a hint.
            let _ = graph.declare(made, &graph.fact(result).clone());
            graph.replace_uses(result, made);
        }
        graph.remove_node(id);
        Ok(())
    }
}

/// Takes states that no round changes, and constants, out of the operands of bodies.
pub fn enclose(graph: &mut Graph) -> Result<usize, GraphError> {
    let mut changes = 0;
    for id in graph.order() {
        let Some(mut repeat) = Repeat::of(graph.node(id)) else { continue };
        let mut own = 0;
        while let Some(state) = repeat.unchanged(graph) {
            let (result, operand) = repeat.settle(state);
            if let (Some(result), Some(operand)) = (result, operand) {
                graph.replace_uses(result, operand);
                let outputs = &mut graph.node_mut(id).outputs;
                outputs.iter_mut().filter(|o| **o == Some(result)).for_each(|o| *o = None);
            }
            own += 1;
        }
        own += repeat.enclose(graph);
        if own > 0 {
            repeat.replace(graph, id)?;
            changes += own;
        }
    }
    Ok(changes)
}
