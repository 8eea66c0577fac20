//! A sub-graph again and again: while a condition holds, or for every slice of its operands.

use lepton_tensor::Tensor;

use super::facets::facets;
use super::walk::{pick, require_same, resolve_axis};
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::graph::Graph;
use crate::interpret;
use crate::operator::{Arity, Cost, Operands, Operator, Quant};

/// Most operands and results.
const MAX_OPERANDS: usize = 65536;
/// Most times a body runs: beyond that the operands are broken.
pub const MAX_ROUNDS: usize = 1 << 24;

attributes! {
    /// Runs `body` while its condition holds, at most as often as the trip count says: operands
    /// trip count (i64, optional), condition (bool, optional), the states, and what else the body
    /// takes. The body takes the round (i64 `[]`), the condition (bool `[]`), the states and the
    /// rest; it gives the next condition, the next states, and results that are stacked along a
    /// new first axis. The results are the last states and the stacks.
    pub struct Loop {
        /// What runs.
        pub body: Graph = Graph::default(),
        /// Number of states.
        pub states: usize = 0,
    }
}

attributes! {
    /// Runs `body` once for each slice of its sequences: operands the states, the sequences, and
    /// what else the body takes. The body takes the states, a slice of each sequence and the rest;
    /// it gives the next states, and results that are stacked. The results are the last states and
    /// the stacks.
    pub struct Scan {
        /// What runs.
        pub body: Graph = Graph::default(),
        /// Number of states.
        pub states: usize = 0,
        /// Number of sequences.
        pub sequences: usize = 1,
        /// Axis each sequence is cut along; empty means 0.
        pub axes: Vec<i64> = Vec::new(),
        /// 1 for each sequence that is read from its end; empty means 0.
        pub reversed: Vec<i64> = Vec::new(),
        /// Axis each stack has its slices along; empty means 0.
        pub stack_axes: Vec<i64> = Vec::new(),
        /// 1 for each stack that is built from its end; empty means 0.
        pub stack_reversed: Vec<i64> = Vec::new(),
    }
}

/// Facts of the last states and the stacks of a body whose first `skip` results are neither.
fn results(
    body: &Graph,
    skip: usize,
    states: &[&Fact],
    rounds: &Dim,
    stack_axis: impl Fn(usize) -> i64,
) -> Result<Vec<Fact>, Problem> {
    let specs = body.output_specs();
    if specs.len() < skip + states.len() {
        return Err(Problem::shape("the body has fewer results than states"));
    }
    let mut facts = Vec::with_capacity(specs.len());
    for (position, (_, made)) in specs.iter().enumerate().skip(skip) {
        // Symbols inside a body mean nothing outside.
        let mut dims: Vec<Dim> = made
            .dims
            .iter()
            .map(|dim| dim.as_known().map_or_else(Dim::unknown, Dim::known))
            .collect();
        match states.get(position - skip) {
            Some(state) => {
                require_same("a next state", state.dtype, made.dtype)?;
                let own = |(axis, dim): (usize, &Dim)| {
                    let kept = state.dims.get(axis).is_some_and(|start| start == dim);
                    if kept { dim.clone() } else { Dim::unknown() }
                };
                dims = dims.iter().enumerate().map(own).collect();
            }
            None => {
                let axis = stack_axis(position - skip - states.len());
                let axis = resolve_axis(axis, dims.len() + 1)?;
                dims.insert(axis, rounds.clone());
            }
        }
        facts.push(Fact::new(made.dtype, dims));
    }
    Ok(facts)
}

/// The slices as one tensor with them along `axis`.
fn stacked(slices: &[Tensor], axis: usize, reversed: bool) -> Result<Tensor, Problem> {
    let Some(first) = slices.first() else {
        return Err(Problem::value("nothing to stack: the body never ran"));
    };
    if slices.iter().any(|slice| slice.shape() != first.shape()) {
        return Err(Problem::shape("the slices of a stack differ in shape"));
    }
    let slices = Tensor::with_shared_words(&slices.iter().collect::<Vec<&Tensor>>())?;
    let inner: usize = first.shape()[axis..].iter().product();
    let outer: usize = first.shape()[..axis].iter().product();
    let mut shape = first.shape().to_vec();
    shape.insert(axis, slices.len());
    let size = inner * first.dtype().size();
    let mut made = Tensor::zeros(first.dtype(), shape)?;
    let bytes = made.bytes_mut();
    for o in 0..outer {
        for i in 0..slices.len() {
            let slice = &slices[if reversed { slices.len() - 1 - i } else { i }];
            let to = (o * slices.len() + i) * size;
            bytes[to..to + size].copy_from_slice(&slice.bytes()[o * size..(o + 1) * size]);
        }
    }
    Ok(made.with_words_of(&slices[0]))
}

/// Slice `index` of `x` along `axis`, without that axis.
fn slice_at(x: &Tensor, axis: usize, index: usize) -> Result<Tensor, Problem> {
    let mut shape = x.shape().to_vec();
    let extent = shape.remove(axis);
    let inner: usize = shape[axis..].iter().product();
    let count: usize = shape.iter().product();
    let at = |i: usize| (i / inner.max(1) * extent + index) * inner + i % inner.max(1);
    pick(x, shape, &(0..count).map(at).collect::<Vec<usize>>())
}

/// An empty stack of what the body gives as `result`.
fn nothing(body: &Graph, result: usize) -> Result<Tensor, Problem> {
    let specs = body.output_specs();
    let fact = &specs[result].1;
    let shape: Vec<usize> = fact.dims.iter().map(|dim| dim.as_usize().unwrap_or(0)).collect();
    Ok(Tensor::zeros(fact.dtype, [&[0], shape.as_slice()].concat())?)
}

fn operands_from(inputs: Operands<'_, Tensor>, first: usize) -> Result<Vec<Tensor>, Problem> {
    (first..inputs.len()).map(|i| inputs.required(i, "an operand").cloned()).collect()
}

fn body_cost(body: &Graph, rounds: &Dim) -> Cost {
    let mut sum = Cost::free();
    for (_, node) in body.nodes() {
        let facts = body.input_facts(node);
        let own = node.op.operator().cost(Operands(&facts), &body.output_facts(node));
        sum.multiply_adds = sum.multiply_adds + own.multiply_adds;
        sum.element_ops = sum.element_ops + own.element_ops;
    }
    Cost {
        multiply_adds: sum.multiply_adds * rounds.clone(),
        element_ops: sum.element_ops * rounds.clone(),
    }
}

fn run_body(body: &Graph, operands: &[Tensor]) -> Result<Vec<Tensor>, Problem> {
    interpret::run(body, operands).map_err(|error| Problem::value(error.to_string()))
}

/// What runs a body once: its operands to its results.
pub type RunBody<'a> = dyn FnMut(&[Tensor]) -> Result<Vec<Tensor>, Problem> + 'a;

impl Loop {
    /// Most rounds its operands allow, 0 if it does not begin; more than [`MAX_ROUNDS`] is an
    /// error once they are done.
    pub fn most_rounds(&self, inputs: Operands<'_, Tensor>) -> usize {
        let first = |i: usize| inputs.optional(i).and_then(|t| t.to_i64_vec().first().copied());
        let limit = first(0).map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(0));
        if first(1).is_none_or(|truth| truth != 0) { limit } else { 0 }
    }

    /// The results, where `run_body` runs the body.
    ///
    /// # Errors
    /// Those of `run_body`, and operands that do not fit.
    pub fn run_with(
        &self,
        inputs: Operands<'_, Tensor>,
        run_body: &mut RunBody<'_>,
    ) -> Result<Vec<Tensor>, Problem> {
        let limit = self.most_rounds(inputs);
        let mut holds = limit > 0;
        let mut rest = operands_from(inputs, 2)?;
        let stacks = self.body.outputs().len().saturating_sub(1 + self.states);
        let mut slices: Vec<Vec<Tensor>> = vec![Vec::new(); stacks];
        let mut round = 0;
        while holds && round < limit {
            if round == MAX_ROUNDS {
                return Err(still_running());
            }
            let mut operands =
                vec![Tensor::scalar(round as i64), Tensor::from_bools(Vec::new(), [true])?];
            operands.extend(rest.iter().cloned());
            let mut made = run_body(&operands)?.into_iter();
            holds = made.next().is_some_and(|t| t.to_i64_vec().first() != Some(&0));
            for (state, next) in rest.iter_mut().take(self.states).zip(made.by_ref()) {
                *state = next;
            }
            slices.iter_mut().zip(made).for_each(|(list, slice)| list.push(slice));
            round += 1;
        }
        rest.truncate(self.states);
        for (i, list) in slices.iter().enumerate() {
            rest.push(match list.is_empty() {
                true => nothing(&self.body, 1 + self.states + i)?,
                false => stacked(list, 0, false)?,
            });
        }
        Ok(rest)
    }

    /// The number of rounds, where it follows from the trip count because no condition ends them.
    fn rounds(&self, inputs: Operands<'_, Fact>) -> Dim {
        let holds = |fact: &Fact| {
            fact.constant.as_ref().is_some_and(|t| t.to_i64_vec().first().is_some_and(|v| *v != 0))
        };
        let begins = inputs.optional(1).is_none_or(holds);
        let goes_on = self.body.outputs().first().is_some_and(|&next| {
            let source = crate::users::identical(&self.body, next);
            self.body.inputs().get(1) == Some(&source) || holds(self.body.fact(source))
        });
        let count = inputs.optional(0).and_then(|fact| fact.integers.as_ref()?.first().cloned());
        match count.filter(|_| begins && goes_on) {
            // A symbol is an extent, and never negative.
            Some(count) if matches!(&count.symbols()[..], [s] if count == Dim::symbol(s.clone())) => {
                count
            }
            // Too many are an error when they run.
            Some(count) if count.as_usize().is_none_or(|n| n <= MAX_ROUNDS) => {
                count.larger(&Dim::known(0))
            }
            _ => Dim::unknown(),
        }
    }
}

fn still_running() -> Problem {
    Problem::value(format!("still running after {MAX_ROUNDS} rounds"))
}

impl Operator for Loop {
    facets! {
        arity = Arity::between(2, MAX_OPERANDS).outputs(1, MAX_OPERANDS),
        stops = "loops are not trained through",
        frozen = "what happens inside a body is not followed",
        quant = Quant::FloatOnly("bodies stay as they are"),
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (expected, found) = (self.body.inputs().len(), inputs.len());
        if expected != found || found < 2 + self.states {
            let expected = format!("{expected}, as its body");
            return Err(Problem::Count { what: "inputs", expected, found });
        }
        let states: Result<Vec<&Fact>, Problem> =
            (0..self.states).map(|i| inputs.required(2 + i, "a state")).collect();
        results(&self.body, 1, &states?, &self.rounds(inputs), |_| 0)
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        self.run_with(inputs, &mut |operands| run_body(&self.body, operands))
    }

    fn cost(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        body_cost(&self.body, &self.rounds(inputs))
    }
}

impl Scan {
    fn axis(&self, list: &[i64], index: usize) -> i64 {
        list.get(index).copied().unwrap_or(0)
    }

    /// The axis that a sequence of that rank is cut along, and whether from its end.
    ///
    /// # Errors
    /// An axis that it does not have.
    pub fn cut(&self, sequence: usize, rank: usize) -> Result<(usize, bool), Problem> {
        let axis = resolve_axis(self.axis(&self.axes, sequence), rank)?;
        Ok((axis, self.axis(&self.reversed, sequence) != 0))
    }

    /// The axis that a stack of that rank has its slices along, and whether it is built from its
    /// end.
    ///
    /// # Errors
    /// An axis that it does not have.
    pub fn stacking(&self, stack: usize, rank: usize) -> Result<(usize, bool), Problem> {
        let axis = resolve_axis(self.axis(&self.stack_axes, stack), rank)?;
        Ok((axis, self.axis(&self.stack_reversed, stack) != 0))
    }

    /// The results, where `run_body` runs the body.
    ///
    /// # Errors
    /// Those of `run_body`, and operands that do not fit.
    pub fn run_with(
        &self,
        inputs: Operands<'_, Tensor>,
        run_body: &mut RunBody<'_>,
    ) -> Result<Vec<Tensor>, Problem> {
        let all = operands_from(inputs, 0)?;
        if self.sequences == 0 || all.len() < self.states + self.sequences {
            return Err(Problem::shape("there is no sequence"));
        }
        let (states, rest) = all.split_at(self.states);
        let (sequences, rest) = rest.split_at(self.sequences);
        let mut states = states.to_vec();
        let cut = |i: usize| self.cut(i, sequences[i].rank());
        let cuts: Vec<(usize, bool)> = (0..self.sequences).map(cut).collect::<Result<_, _>>()?;
        let extent = |i: usize| sequences[i].shape().get(cuts[i].0).copied().unwrap_or(0);
        let rounds = extent(0);
        if (0..self.sequences).any(|i| extent(i) != rounds || sequences[i].rank() == 0) {
            return Err(Problem::shape("the sequences differ in length"));
        }
        let stacks = self.body.outputs().len().saturating_sub(self.states);
        let mut slices: Vec<Vec<Tensor>> = vec![Vec::new(); stacks];
        for round in 0..rounds {
            let mut operands = states.clone();
            for (sequence, &(axis, backward)) in sequences.iter().zip(&cuts) {
                let at = if backward { rounds - 1 - round } else { round };
                operands.push(slice_at(sequence, axis, at)?);
            }
            operands.extend(rest.iter().cloned());
            let mut made = run_body(&operands)?.into_iter();
            for (state, next) in states.iter_mut().zip(made.by_ref()) {
                *state = next;
            }
            slices.iter_mut().zip(made).for_each(|(list, slice)| list.push(slice));
        }
        for (i, list) in slices.iter().enumerate() {
            states.push(match list.first() {
                None => nothing(&self.body, self.states + i)?,
                Some(slice) => {
                    let (axis, backward) = self.stacking(i, slice.rank() + 1)?;
                    stacked(list, axis, backward)?
                }
            });
        }
        Ok(states)
    }

    /// Number of slices.
    fn rounds(&self, inputs: Operands<'_, Fact>) -> Result<Dim, Problem> {
        let sequence = inputs.required(self.states, "a sequence")?;
        let axis = resolve_axis(self.axis(&self.axes, 0), sequence.rank())?;
        let extent = sequence.dims.get(axis).cloned();
        extent.ok_or_else(|| Problem::shape("a scalar has no slices"))
    }
}

impl Operator for Scan {
    facets! {
        arity = Arity::between(1, MAX_OPERANDS).outputs(1, MAX_OPERANDS),
        stops = "loops are not trained through",
        frozen = "what happens inside a body is not followed",
        quant = Quant::FloatOnly("bodies stay as they are"),
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let (expected, found) = (self.body.inputs().len(), inputs.len());
        if expected != found || self.sequences == 0 || found < self.states + self.sequences {
            let expected = format!("{expected}, as its body, with a sequence");
            return Err(Problem::Count { what: "inputs", expected, found });
        }
        let states: Result<Vec<&Fact>, Problem> =
            (0..self.states).map(|i| inputs.required(i, "a state")).collect();
        let rounds = self.rounds(inputs)?;
        results(&self.body, 0, &states?, &rounds, |i| self.axis(&self.stack_axes, i))
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        self.run_with(inputs, &mut |operands| run_body(&self.body, operands))
    }

    fn cost(&self, inputs: Operands<'_, Fact>, _outputs: &[Fact]) -> Cost {
        body_cost(&self.body, &self.rounds(inputs).unwrap_or_else(|_| Dim::unknown()))
    }
}
