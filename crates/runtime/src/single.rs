//! Nodes whose operands are there, each run as a plan of one step.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use lepton_ir::{Fact, Graph, Node, Op, Operands};
use lepton_tensor::{DType, Tensor};

use crate::choices::Choices;
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::packs::Packs;
use crate::plan::{self, Draft, Plan};
use crate::watch::Watch;

/// Plans kept of a node.
const KEPT_PLANS: usize = 4;
/// Elements of all operands up to which nothing is faster than `eval`.
const FEW: usize = 48;
/// Most integers that can be extents, axes or the like.
const MOST_VALUES: usize = 16;

/// What a plan was made for.
#[derive(PartialEq)]
struct Known {
    shape: Vec<usize>,
    /// The integers that extents follow from.
    values: Option<Vec<i64>>,
}

/// What serves a node; without a plan `eval` does.
#[derive(Clone)]
struct Server {
    plan: Option<Arc<Plan>>,
    /// Operands that are inputs of the plan.
    given: Arc<[usize]>,
}

/// What became of a node.
pub(crate) enum Served {
    /// Its results.
    Made(Vec<Tensor>),
    /// Nothing: its `eval` is as fast, or all there is; by the name it has in a profile.
    Eval(&'static str),
}

/// What serves a node with certain operands.
struct Kept {
    operands: Vec<Option<Known>>,
    by: Server,
}

/// The plans of a node. Packed weights are shared by all of them: operands have the same numbers
/// in each, whether they are known or not.
pub(crate) struct Single {
    packs: Packs,
    kept: Mutex<VecDeque<Kept>>,
}

/// True for an operand that extents may follow from.
fn is_small(tensor: &Tensor) -> bool {
    matches!(tensor.dtype(), DType::I64 | DType::I32)
        && tensor.len() <= MOST_VALUES
        && tensor.rank() <= 1
}

impl Known {
    fn of(tensor: &Tensor, with_values: bool) -> Self {
        let values = (with_values && is_small(tensor)).then(|| tensor.to_i64_vec());
        Known { shape: tensor.shape().to_vec(), values }
    }

    fn serves(&self, tensor: &Tensor) -> bool {
        self.shape == tensor.shape()
            && self.values.as_ref().is_none_or(|values| match tensor.as_slice::<i64>() {
                Ok(own) => own == values,
                Err(_) => tensor.to_i64_vec() == *values,
            })
    }
}

impl Kept {
    fn serves(&self, operands: Operands<'_, Tensor>) -> bool {
        self.operands.len() == operands.len()
            && self.operands.iter().zip(operands.0).all(|pair| match pair {
                (Some(known), Some(tensor)) => known.serves(tensor),
                (None, None) => true,
                _ => false,
            })
    }
}

impl Single {
    /// Room for the plans of a node of a graph with these packs.
    pub fn new(node: &Node, packs: &Arc<Packs>) -> Self {
        // The order in which a graph of the node alone numbers its values.
        let operands = node.inputs.iter().filter(|id| id.is_some());
        let names = operands.chain(&node.outputs).copied().collect();
        Single { packs: Packs::within(packs.clone(), names), kept: Mutex::default() }
    }

    /// The results of a node of `graph`, where something other than its `eval` gives them.
    pub fn run(
        &self,
        engine: &Arc<Engine>,
        graph: &Graph,
        node: &Node,
        operands: Operands<'_, Tensor>,
        watch: &Watch<'_>,
    ) -> Result<Served, RuntimeError> {
        let tensors = || operands.0.iter().flatten();
        let renames = matches!(
            node.op,
            Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Shape(_)
        );
        let few = tensors().map(|tensor| tensor.len()).sum::<usize>() <= FEW;
        let strange = tensors().any(|tensor| tensor.is_empty() || tensor.dtype() == DType::Str);
        if renames || few || strange {
            return Ok(Served::Eval("eval"));
        }
        let Server { plan, given } = self.served(engine, graph, node, operands)?;
        let Some(plan) = plan else { return Ok(Served::Eval("reference")) };
        let given: Vec<&Tensor> = given.iter().filter_map(|&at| operands.optional(at)).collect();
        engine.execute(&plan, &given, watch).map(Served::Made)
    }

    /// What serves these operands.
    fn served(
        &self,
        engine: &Arc<Engine>,
        graph: &Graph,
        node: &Node,
        operands: Operands<'_, Tensor>,
    ) -> Result<Server, RuntimeError> {
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(at) = kept.iter().position(|kept| kept.serves(operands)) {
            kept.swap(0, at);
            return Ok(kept[0].by.clone());
        }
        let constant = |at: &usize| {
            let id = node.inputs.get(*at).copied().flatten();
            id.is_none_or(|id| graph.constant(id).is_some())
        };
        let all: Vec<usize> = (0..operands.len()).filter(|at| !constant(at)).collect();
        let mut given = all.clone();
        let mut made = self.build(engine, graph, node, operands, &given)?;
        // Without the values of some, extents or kernels cannot be told.
        given.retain(|&at| !operands.optional(at).is_some_and(is_small));
        let with_values = made.is_none() && given.len() < all.len();
        if with_values {
            made = self.build(engine, graph, node, operands, &given)?;
        } else {
            given = all;
        }
        let by = Server { plan: made.map(Arc::new), given: given.into() };
        let known = |tensor: &Option<&Tensor>| tensor.map(|t| Known::of(t, with_values));
        let operands = operands.0.iter().map(known).collect();
        kept.push_front(Kept { operands, by: by.clone() });
        kept.truncate(KEPT_PLANS);
        Ok(by)
    }

    /// A plan of the node alone, of which the operands `given` are inputs and the others constants;
    /// `None` where extents stay unknown or no kernel serves it.
    fn build(
        &self,
        engine: &Arc<Engine>,
        graph: &Graph,
        node: &Node,
        operands: Operands<'_, Tensor>,
        given: &[usize],
    ) -> Result<Option<Plan>, RuntimeError> {
        let mut single = Graph::new("node");
        let mut inputs = Vec::with_capacity(operands.len());
        for (at, tensor) in operands.0.iter().enumerate() {
            let fact = |tensor: &Tensor| Fact::dense(tensor.dtype(), tensor.shape());
            inputs.push(tensor.map(|tensor| match given.contains(&at) {
                true => single.add_input("", fact(tensor)),
                false => single.add_constant("", tensor.clone()),
            }));
        }
        // The error of `eval` names the node as the graph does.
        let Ok(made) = single.add_node(node.name.clone(), node.op.clone(), &inputs) else {
            return Ok(None);
        };
        if let Some(&first) = made.first() {
            single.set_value_name(first, graph.node_label(node));
        }
        single.set_outputs(made);
        let empty = |id: &lepton_ir::ValueId| single.fact(*id).byte_size() == Some(0);
        if !plan::is_static(&single) || single.outputs().iter().any(empty) {
            return Ok(None);
        }
        let choices = Choices::default();
        let single = Arc::new(single);
        let plan = Draft::of(&single, engine.demands(&choices)).build(&self.packs)?;
        let served = plan.steps.iter().all(|step| step.kernel != "reference");
        let fits = plan.arena_bytes <= engine.options.memory_limit;
        Ok((served && fits).then_some(plan))
    }
}
