//! Graphs that run node by node, for what follows extents that depend on data: each node by the
//! kernel a plan would take, else by its `eval`; branches as graphs of their own.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lepton_ir::interpret::Made;
use lepton_ir::ops::branch::If;
use lepton_ir::{Graph, GraphError, Node, Op, Operands, Problem, interpret};
use lepton_tensor::Tensor;

use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::packs::Packs;
use crate::rounds::{Body, Repeating};
use crate::session::Session;
use crate::single::{Served, Single};
use crate::steps::found;
use crate::trace::StepProfile;
use crate::watch::Watch;

/// A graph that runs node by node.
pub(crate) struct Stepwise {
    graph: Arc<Graph>,
    engine: Arc<Engine>,
    packs: Arc<Packs>,
    /// By the place of each node's first result.
    singles: HashMap<usize, Single>,
    /// By the place of the node's first result, and which branch it is.
    branches: Mutex<HashMap<(usize, bool), Arc<Branch>>>,
}

/// What runs a branch.
enum Branch {
    /// A plan for each set of shapes, for products.
    Planned(Session),
    Stepwise(Stepwise),
}

fn has_products(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| match &node.op {
        Op::Conv(_) | Op::MatMul(_) | Op::Gemm(_) | Op::Linear(_) | Op::ConvTranspose(_) => true,
        Op::LSTM(_) | Op::GRU(_) | Op::RNN(_) => true,
        Op::Loop(_) | Op::Scan(_) => true,
        Op::If(inner) => is_heavy(inner),
        _ => false,
    })
}

/// True if a branch is worth a session.
pub(crate) fn is_heavy(branches: &If) -> bool {
    has_products(&branches.then_branch) || has_products(&branches.else_branch)
}

/// The place of a node's first result.
fn place(node: &Node) -> usize {
    node.outputs.iter().flatten().next().map_or(0, |id| id.index())
}

impl Stepwise {
    /// A graph whose constants have these packs.
    pub(crate) fn new(
        graph: impl Into<Arc<Graph>>,
        packs: &Arc<Packs>,
        engine: Arc<Engine>,
    ) -> Self {
        let graph = graph.into();
        let single = |node: &Node| (place(node), Single::new(node, packs));
        let singles = graph.nodes().map(|(_, node)| single(node)).collect();
        let packs = packs.clone();
        Stepwise { graph, engine, packs, singles, branches: Mutex::default() }
    }

    /// Runs the graph for as long as it is to go on.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let stopped = Cell::new(false);
        let run_node = |node: &Node, operands: Operands<'_, Tensor>| {
            stopped.set(watch.stops());
            if stopped.get() {
                return Some(Err(self.graph.node_error(node, Problem::value("it was stopped"))));
            }
            self.node(node, operands, watch)
        };
        let made = interpret::run_with(&self.graph, inputs, run_node);
        // A branch that was stopped says so as an error of its node.
        let stopped = stopped.get() || made.is_err() && watch.stops();
        if stopped { Err(RuntimeError::Stopped) } else { Ok(made?) }
    }

    /// The results of a node; `None` where only its `eval` gives them.
    fn node(&self, node: &Node, operands: Operands<'_, Tensor>, watch: &Watch<'_>) -> Made {
        let about = |kernel| move || StepProfile::of_node(&self.graph, node, operands, kernel);
        match &node.op {
            Op::Loop(_) | Op::Scan(_) => {
                let run = || self.repeated(node, operands, watch);
                return Some(watch.timed(about("rounds"), run));
            }
            Op::If(branches) => {
                let run = || self.branch(node, branches, operands, watch);
                return Some(watch.timed(about("branch"), run));
            }
            Op::NonMaxSuppression(op) => {
                let run = || found::boxes(self.engine.options.isa, op, operands);
                if let Some(found) = watch.timed(about("boxes"), run) {
                    return Some(Ok(vec![found]));
                }
            }
            Op::NonZero(_) => {
                if let Some(found) = watch.timed(about("places"), || found::non_zero(operands)) {
                    return Some(Ok(vec![found]));
                }
            }
            _ => {}
        }
        let kernel = match self.singles.get(&place(node)) {
            Some(single) => match single.run(&self.engine, &self.graph, node, operands, watch) {
                Ok(Served::Made(made)) => return Some(Ok(made)),
                Ok(Served::Eval(kernel)) => kernel,
                Err(error) => return Some(Err(self.named(node, error))),
            },
            None => "reference",
        };
        if !watch.records() {
            return None;
        }
        let made = watch.timed(about(kernel), || node.op.eval(operands));
        Some(made.map_err(|problem| self.graph.node_error(node, problem)))
    }

    /// An error of a node as one of the graph.
    fn named(&self, node: &Node, error: RuntimeError) -> GraphError {
        match error {
            RuntimeError::Graph(error) => error,
            RuntimeError::Data { why, .. } => self.graph.node_error(node, Problem::value(why)),
            other => self.graph.node_error(node, Problem::value(other.to_string())),
        }
    }

    fn repeated(
        &self,
        node: &Node,
        operands: Operands<'_, Tensor>,
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, GraphError> {
        let body = Body::shared(&self.packs, &self.engine, node);
        body.run(&node.op, operands, watch).map_err(|error| {
            self.graph.node_error(
                node,
                match error {
                    // Whoever runs the graph asks again.
                    Repeating::Stopped => Problem::value("it was stopped"),
                    Repeating::Problem(problem) => problem,
                },
            )
        })
    }

    fn branch(
        &self,
        node: &Node,
        branches: &If,
        operands: Operands<'_, Tensor>,
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, GraphError> {
        let fail = |problem: Problem| self.graph.node_error(node, problem);
        let truth = branches.holds(operands).map_err(fail)?;
        let given: Option<Vec<Tensor>> = operands.0[1..].iter().map(|t| t.cloned()).collect();
        let given = given.ok_or_else(|| fail(Problem::value("an operand is missing")))?;
        let graph = if truth { &branches.then_branch } else { &branches.else_branch };
        let key = (place(node), truth);
        let known = self.branches.lock().unwrap_or_else(|e| e.into_inner()).get(&key).cloned();
        let run = |error: RuntimeError| fail(Problem::value(error.to_string()));
        let branch = match known {
            Some(branch) => branch,
            None => {
                let engine = self.engine.clone();
                let made = Arc::new(match has_products(graph) {
                    true => Branch::Planned(Session::within(graph, engine).map_err(run)?),
                    false => {
                        let graph = Arc::new(graph.clone());
                        let packs = Arc::new(Packs::of(&graph));
                        Branch::Stepwise(Stepwise::new(graph, &packs, engine))
                    }
                });
                let mut branches = self.branches.lock().unwrap_or_else(|e| e.into_inner());
                branches.entry(key).or_insert(made).clone()
            }
        };
        match &*branch {
            Branch::Planned(session) => session.run_watched(&given, watch).map_err(run),
            Branch::Stepwise(graph) => graph.run(&given, watch).map_err(run),
        }
    }
}

#[cfg(test)]
mod tests {
    use lepton_ir::ops::matmul::MatMul;
    use lepton_ir::{Fact, ValueId};
    use lepton_tensor::DType;

    use super::*;
    use crate::session::SessionOptions;

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
