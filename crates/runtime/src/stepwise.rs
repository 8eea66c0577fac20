//! The interpreter for what cannot be planned, with branches that have products in them run as
//! sessions of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lepton_ir::ops::branch::If;
use lepton_ir::{Graph, GraphError, Node, Op, Operands, Problem, interpret};
use lepton_tensor::Tensor;

use crate::error::RuntimeError;
use crate::session::{Session, SessionOptions};

/// A graph for the interpreter, and the sessions of its branches that ran so far.
pub(crate) struct Interpreted {
    graph: Graph,
    options: SessionOptions,
    /// By the place of the node's first result, and which branch it is.
    sessions: Mutex<HashMap<(usize, bool), Arc<Session>>>,
}

fn has_products(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| match &node.op {
        Op::Conv(_) | Op::MatMul(_) | Op::Gemm(_) | Op::Linear(_) | Op::ConvTranspose(_) => true,
        Op::LSTM(_) | Op::GRU(_) | Op::RNN(_) => true,
        Op::If(inner) => is_heavy(inner),
        _ => false,
    })
}

/// True if a branch is worth a session.
pub(crate) fn is_heavy(branches: &If) -> bool {
    has_products(&branches.then_branch) || has_products(&branches.else_branch)
}

impl Interpreted {
    pub(crate) fn new(graph: Graph, options: SessionOptions) -> Self {
        Interpreted { graph, options, sessions: Mutex::default() }
    }

    pub(crate) fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RuntimeError> {
        let run_node = |node: &Node, operands: Operands<'_, Tensor>| match &node.op {
            Op::If(branches) if is_heavy(branches) => Some(self.branch(node, branches, operands)),
            _ => None,
        };
        Ok(interpret::run_with(&self.graph, inputs, run_node)?)
    }

    fn branch(
        &self,
        node: &Node,
        branches: &If,
        operands: Operands<'_, Tensor>,
    ) -> Result<Vec<Tensor>, GraphError> {
        let fail = |problem: Problem| self.graph.node_error(node, problem);
        let truth = branches.holds(operands).map_err(fail)?;
        let given: Option<Vec<Tensor>> = operands.0[1..].iter().map(|t| t.cloned()).collect();
        let given = given.ok_or_else(|| fail(Problem::value("an operand is missing")))?;
        let graph = if truth { &branches.then_branch } else { &branches.else_branch };
        let key = (node.outputs.iter().flatten().next().map_or(0, |id| id.index()), truth);
        let known = self.sessions.lock().unwrap_or_else(|e| e.into_inner()).get(&key).cloned();
        let run = |error: RuntimeError| fail(Problem::value(error.to_string()));
        let session = match known {
            Some(session) => session,
            None => {
                let made = Arc::new(Session::new(graph, self.options.clone()).map_err(run)?);
                let mut sessions = self.sessions.lock().unwrap_or_else(|e| e.into_inner());
                sessions.entry(key).or_insert(made).clone()
            }
        };
        session.run(&given).map_err(run)
    }
}

#[cfg(test)]
mod tests {
    use lepton_ir::ops::matmul::MatMul;
    use lepton_ir::{Fact, ValueId};
    use lepton_tensor::DType;

    use super::*;

    fn branch(factor: f32) -> Graph {
        let mut graph = Graph::new("branch");
        let x = graph.add_input("x", Fact::dense(DType::F32, &[2, 3]));
        let weights: Vec<f32> = (0..12).map(|i| i as f32 * factor).collect();
        let w = graph.add_constant("w", Tensor::from_slice([3, 4], &weights).unwrap());
        let y = graph.add_node("", MatMul {}, &[Some(x), Some(w)]).unwrap()[0];
        graph.set_value_name(y, "y");
        graph.set_outputs(vec![y]);
        graph
    }

    #[test]
    fn both_branches_run_as_sessions_and_give_what_the_interpreter_gives() {
        let mut graph = Graph::new("whole");
        let go = graph.add_input("go", Fact::dense(DType::Bool, &[]));
        let x = graph.add_input("x", Fact::dense(DType::F32, &[2, 3]));
        let op = If { then_branch: branch(1.0), else_branch: branch(-0.5) };
        let inputs: Vec<Option<ValueId>> = vec![Some(go), Some(x)];
        let y = graph.add_node("choice", op, &inputs).unwrap()[0];
        graph.set_value_name(y, "result");
        graph.set_outputs(vec![y]);
        let session = Session::new(&graph, SessionOptions::default()).unwrap();
        let x = Tensor::from_slice([2, 3], &[1.0f32, 2.0, 3.0, -1.0, 0.5, 4.0]).unwrap();
        for truth in [true, false, true] {
            let given = [Tensor::from_bools(Vec::new(), [truth]).unwrap(), x.clone()];
            let found = session.run(&given).unwrap();
            assert_eq!(found, interpret::run(&graph, &given).unwrap());
        }
    }
}
