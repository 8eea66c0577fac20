//! One of two sub-graphs.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::graph::Graph;
use crate::interpret;
use crate::operator::{Arity, Cost, Operands, Operator, Quant};

/// Most operands and results of a branch.
const MAX_OPERANDS: usize = 65536;

attributes! {
    /// The results of `then_branch` if the first operand (bool, one element) is true, else those
    /// of `else_branch`. The other operands are the inputs of both; a branch sees nothing else.
    pub struct If {
        /// What runs if the condition holds.
        pub then_branch: Graph = Graph::default(),
        /// What runs if it does not.
        pub else_branch: Graph = Graph::default(),
    }
}

/// What two branches agree on.
fn common(a: &Fact, b: &Fact) -> Result<Fact, Problem> {
    super::walk::require_same("a result of else_branch", a.dtype, b.dtype)?;
    if a.rank() != b.rank() {
        return Err(Problem::Unsupported(format!("branches that give {a} and {b}")));
    }
    // Symbols inside a branch mean nothing outside.
    let agreed = |(x, y): (&Dim, &Dim)| match (x.as_known(), y.as_known()) {
        (Some(x), Some(y)) if x == y => Dim::known(x),
        _ => Dim::unknown(),
    };
    Ok(Fact::new(a.dtype, a.dims.iter().zip(&b.dims).map(agreed).collect()))
}

impl If {
    /// Whether the condition, the first operand, is true.
    pub fn holds(&self, inputs: Operands<'_, Tensor>) -> Result<bool, Problem> {
        match inputs.required(0, "condition")?.to_i64_vec().as_slice() {
            [truth] => Ok(*truth != 0),
            _ => Err(Problem::shape("the condition must be one element")),
        }
    }
}

impl Operator for If {
    facets! {
        arity = Arity::between(1, MAX_OPERANDS).outputs(1, MAX_OPERANDS),
        stops = "branches are not trained through",
        frozen = "what happens inside a branch is not followed",
        quant = Quant::FloatOnly("branches stay as they are"),
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let condition = inputs.required(0, "condition")?;
        if condition.dtype != DType::Bool {
            return Err(Problem::dtype("condition", "bool", condition.dtype));
        }
        let (first, second) = (self.then_branch.output_specs(), self.else_branch.output_specs());
        for branch in [&self.then_branch, &self.else_branch] {
            let (expected, found) = (branch.inputs().len(), inputs.len() - 1);
            if expected != found {
                let expected = format!("{expected} besides the condition");
                return Err(Problem::Count { what: "inputs", expected, found });
            }
        }
        if first.len() != second.len() {
            return Err(Problem::shape("the branches have different numbers of results"));
        }
        first.iter().zip(&second).map(|((_, a), (_, b))| common(a, b)).collect()
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let branch = if self.holds(inputs)? { &self.then_branch } else { &self.else_branch };
        let operands = (1..inputs.len()).map(|i| inputs.required(i, "an operand").cloned());
        let operands = operands.collect::<Result<Vec<Tensor>, Problem>>()?;
        interpret::run(branch, &operands).map_err(|error| Problem::value(error.to_string()))
    }

    fn cost(&self, _inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        let cost = |graph: &Graph| {
            let mut sum = Cost::free();
            for (_, node) in graph.nodes() {
                let facts = graph.input_facts(node);
                let own = node.op.operator().cost(Operands(&facts), &graph.output_facts(node));
                sum.multiply_adds = sum.multiply_adds + own.multiply_adds;
                sum.element_ops = sum.element_ops + own.element_ops;
            }
            sum
        };
        let (first, second) = (cost(&self.then_branch), cost(&self.else_branch));
        Cost {
            multiply_adds: first.multiply_adds.larger(&second.multiply_adds),
            element_ops: first.element_ops.larger(&second.element_ops),
        }
    }
}
