//! Bodies of `Loop` and `Scan`: a plan that runs again and again, each round on what the one
//! before left, where no shape changes from round to round; else node by node.

use std::sync::{Arc, OnceLock};

use lepton_ir::ops::repeat::{Loop, MAX_ROUNDS, Scan};
use lepton_ir::{Dim, Fact, Graph, Node, Op, Operands, Problem};
use lepton_tensor::{DType, Storage, Tensor};

use crate::engine::{self, Engine};
use crate::error::RuntimeError;
use crate::packs::Packs;
use crate::place::Memory;
use crate::plan::Plan;
use crate::session::{Ready, Session};
use crate::stepwise::Stepwise;
use crate::watch::Watch;
use crate::workers::Workers;

/// Rounds that a stack has room for at first, where nobody knows how many there will be.
const FIRST_ROUNDS: usize = 64;
/// Most bytes that a stack takes for rounds that may never come.
const MOST_AHEAD: usize = 1 << 22;

/// Why a body did not run to its end.
pub(crate) enum Repeating {
    Stopped,
    Problem(Problem),
}

impl From<Problem> for Repeating {
    fn from(problem: Problem) -> Self {
        Repeating::Problem(problem)
    }
}

impl From<RuntimeError> for Repeating {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Stopped => Repeating::Stopped,
            other => Repeating::Problem(Problem::value(other.to_string())),
        }
    }
}

impl From<lepton_tensor::TensorError> for Repeating {
    fn from(error: lepton_tensor::TensorError) -> Self {
        Repeating::Problem(error.into())
    }
}

/// What runs the body of a node.
pub(crate) struct Body {
    /// None where the body cannot be lowered, so that only the interpreter takes it.
    session: Option<Session>,
    /// For states whose shapes change from round to round.
    stepwise: OnceLock<Stepwise>,
    engine: Arc<Engine>,
}

/// What a run begins with.
struct Given {
    /// True for a `Loop`, whose body takes the round and a condition first and gives a condition.
    counts: bool,
    /// Most rounds.
    limit: usize,
    states: Vec<Tensor>,
    sequences: Vec<Slices>,
    rest: Vec<Tensor>,
}

/// Slices one after the other.
struct Slices {
    all: Tensor,
    /// Type, shape and bytes of one.
    one: Tensor,
    backward: bool,
}

/// Results of rounds, one after the other.
struct Stack {
    bytes: Storage,
    /// Bytes of one.
    size: usize,
}

impl Body {
    /// The body of a node, one for all plans that share these packs.
    pub fn shared(packs: &Packs, engine: &Arc<Engine>, node: &Node) -> Arc<Body> {
        let graph = match &node.op {
            Op::Loop(op) => &op.body,
            Op::Scan(op) => &op.body,
            _ => unreachable!("only these have bodies"),
        };
        let make = || {
            let session = settled(graph).and_then(|g| Session::within(&g, engine.clone()).ok());
            Body { session, stepwise: OnceLock::new(), engine: engine.clone() }
        };
        match node.outputs.iter().flatten().next() {
            Some(&first) => packs.get_or_pack(first, "body", make),
            None => Arc::new(make()),
        }
    }

    /// The results of a `Loop` or `Scan` that has this body.
    pub fn run(
        &self,
        op: &Op,
        operands: Operands<'_, Tensor>,
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, Repeating> {
        let given = match op {
            Op::Loop(op) => Given::of_loop(op, operands)?,
            Op::Scan(op) => Given::of_scan(op, operands)?,
            _ => None,
        };
        let Some((given, session)) = given.zip(self.session.as_ref()) else {
            return Ok(op.eval(operands)?);
        };
        let first = given.first()?;
        let Ready { plan, rest, .. } = session.ready(&first)?;
        if rest.is_none() && given.stays(&plan) {
            let made = self.rounds(&plan, given, watch)?;
            return match op {
                Op::Scan(op) => Ok(stacked(op, made)?),
                _ => Ok(made),
            };
        }
        self.one_by_one(session, op, operands, &first, watch)
    }

    /// Rounds of which each may find other shapes than the one before.
    fn one_by_one(
        &self,
        session: &Session,
        op: &Op,
        operands: Operands<'_, Tensor>,
        first: &[Tensor],
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, Repeating> {
        let stepwise = self.stepwise.get_or_init(|| {
            let graph = session.lowered().clone();
            Stepwise::new(graph, session.shared_packs(), self.engine.clone())
        });
        let mut stopped = false;
        let mut run = |given: &[Tensor]| {
            let same = given.iter().zip(first).all(|(a, b)| a.shape() == b.shape());
            let made = match same {
                true => session.run_watched(given, watch),
                false => stepwise.run(given, watch),
            };
            stopped = matches!(made, Err(RuntimeError::Stopped));
            made.map_err(|error| Problem::value(error.to_string()))
        };
        let made = match op {
            Op::Loop(op) => op.run_with(operands, &mut run),
            Op::Scan(op) => op.run_with(operands, &mut run),
            _ => op.eval(operands),
        };
        if stopped { Err(Repeating::Stopped) } else { Ok(made?) }
    }

    /// Runs the plan until its condition or the sequences end: the last states, then the stacks
    /// with their rounds along the first axis.
    fn rounds(
        &self,
        plan: &Plan,
        given: Given,
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, Repeating> {
        let head = usize::from(given.counts);
        let (first_state, first_stack) = (2 * head, head + given.states.len());
        let sizes: Vec<usize> = plan.outputs.iter().map(|(d, s)| d.size() * count(s)).collect();
        let room = || sizes[head..first_stack].iter().map(|&n| Storage::zeroed(n)).collect();
        // What the rounds before left, and what this one makes.
        let mut states: [Vec<Storage>; 2] = [room(), room()];
        let mut stacks: Vec<Stack> =
            sizes[first_stack..].iter().map(|&size| Stack::new(size, given.limit)).collect();
        let mut arena = self.engine.take_arena(plan.arena_bytes);
        // A body runs only while its condition is true.
        let (mut round, yes) = (0i64, 1u8);
        let mut inputs = given.pointers(&yes);
        let mut outputs: Vec<*mut u8> = vec![std::ptr::null_mut(); plan.outputs.len()];
        let arena_base = arena.make_mut().as_mut_ptr();
        let mut step = watch.steps();
        let mut next = yes;
        while next != 0 && (round as usize) < given.limit {
            let at = round as usize;
            if given.counts && at == MAX_ROUNDS {
                let why = format!("still running after {MAX_ROUNDS} rounds");
                return Err(Problem::value(why).into());
            }
            if given.counts {
                outputs[0] = &raw mut next;
                inputs[0] = (&raw const round).cast();
            }
            let own = &mut states[at % 2];
            for (output, state) in outputs[head..].iter_mut().zip(own.iter_mut()) {
                *output = state.make_mut().as_mut_ptr();
            }
            for (output, stack) in outputs[first_stack..].iter_mut().zip(&mut stacks) {
                *output = stack.room(at);
            }
            for (i, slices) in given.sequences.iter().enumerate() {
                inputs[first_state + given.states.len() + i] = slices.at(at, given.limit);
            }
            let memory = Memory {
                isa: self.engine.options.isa,
                threads: Workers::Pool(&self.engine.threads),
                watch,
                arena: arena_base,
                inputs: &inputs,
                outputs: &outputs,
            };
            engine::run_in(plan, &memory, &mut step)?;
            for (input, &output) in
                inputs[first_state..].iter_mut().zip(&outputs[head..first_stack])
            {
                *input = output;
            }
            round += 1;
        }
        self.engine.return_arena(arena);
        let rounds = round as usize;
        let last = std::mem::take(&mut states[(rounds + 1) % 2]);
        let mut made = Vec::with_capacity(plan.outputs.len() - head);
        for ((dtype, shape), storage) in plan.outputs[head..].iter().zip(last) {
            made.push(Tensor::new(*dtype, shape.clone(), storage)?);
        }
        for ((dtype, shape), stack) in plan.outputs[first_stack..].iter().zip(stacks) {
            made.push(stack.tensor(*dtype, shape, rounds)?);
        }
        Ok(made)
    }
}

impl Given {
    /// None where the body does not run.
    fn of_loop(op: &Loop, operands: Operands<'_, Tensor>) -> Result<Option<Given>, Problem> {
        let limit = op.most_rounds(operands);
        if limit == 0 {
            return Ok(None);
        }
        let mut states = taken(operands, 2)?;
        if states.len() < op.states {
            return Ok(None);
        }
        let rest = states.split_off(op.states);
        Ok(Some(Given { counts: true, limit, states, sequences: Vec::new(), rest }))
    }

    /// None where the body does not run, or the sequences do not go together.
    fn of_scan(op: &Scan, operands: Operands<'_, Tensor>) -> Result<Option<Given>, Problem> {
        let mut states = taken(operands, 0)?;
        if op.sequences == 0 || states.len() < op.states + op.sequences {
            return Ok(None);
        }
        let mut sequences = states.split_off(op.states);
        let rest = sequences.split_off(op.sequences);
        let cuts: Result<Vec<(usize, bool)>, Problem> =
            sequences.iter().enumerate().map(|(i, s)| op.cut(i, s.rank())).collect();
        let cuts = cuts?;
        let extent = |(tensor, cut): (&Tensor, &(usize, bool))| tensor.shape().get(cut.0).copied();
        let mut extents = sequences.iter().zip(&cuts).map(extent);
        let Some(limit) = extents.next().flatten() else { return Ok(None) };
        if limit == 0 || extents.any(|other| other != Some(limit)) {
            return Ok(None);
        }
        let slices = sequences.into_iter().zip(cuts).map(|(all, cut)| Slices::of(all, cut));
        let sequences = slices.collect::<Result<_, _>>()?;
        Ok(Some(Given { counts: false, limit, states, sequences, rest }))
    }

    /// The operands of the first round.
    fn first(&self) -> Result<Vec<Tensor>, Problem> {
        let mut operands = Vec::new();
        if self.counts {
            operands.push(Tensor::scalar(0i64));
            operands.push(Tensor::from_bools(Vec::new(), [true])?);
        }
        operands.extend(self.states.iter().cloned());
        operands.extend(self.sequences.iter().map(|slices| slices.one.clone()));
        operands.extend(self.rest.iter().cloned());
        Ok(operands)
    }

    /// Their addresses, the condition at `holds`, the round nowhere yet.
    fn pointers(&self, holds: &u8) -> Vec<*const u8> {
        let head = [std::ptr::null(), &raw const *holds];
        let mut pointers: Vec<*const u8> = head[..if self.counts { 2 } else { 0 }].to_vec();
        pointers.extend(self.states.iter().map(|t| t.bytes().as_ptr()));
        pointers.extend(self.sequences.iter().map(|slices| slices.all.bytes().as_ptr()));
        pointers.extend(self.rest.iter().map(|t| t.bytes().as_ptr()));
        pointers
    }

    /// True if a round leaves states as it finds them, and the condition is one truth value.
    fn stays(&self, plan: &Plan) -> bool {
        let head = usize::from(self.counts);
        let condition =
            |(dtype, shape): &(DType, Vec<usize>)| *dtype == DType::Bool && count(shape) == 1;
        let own = plan.outputs.iter().skip(head).zip(&self.states);
        plan.outputs.len() >= head + self.states.len()
            && (!self.counts || condition(&plan.outputs[0]))
            && own
                .into_iter()
                .all(|((dtype, shape), t)| (*dtype, &shape[..]) == (t.dtype(), t.shape()))
    }
}

impl Slices {
    fn of(sequence: Tensor, (axis, backward): (usize, bool)) -> Result<Self, Problem> {
        let all = moved(&sequence, axis, 0)?;
        let one = Tensor::zeros(all.dtype(), all.shape()[1..].to_vec())?;
        Ok(Slices { all, one, backward })
    }

    /// The slice of a round.
    fn at(&self, round: usize, rounds: usize) -> *const u8 {
        let index = if self.backward { rounds - 1 - round } else { round };
        self.all.bytes()[index * self.one.bytes().len()..].as_ptr()
    }
}

impl Stack {
    /// Room for some rounds of at most `limit`.
    fn new(size: usize, limit: usize) -> Self {
        let most = FIRST_ROUNDS.max(MOST_AHEAD / size.max(1));
        let rounds = if limit <= most { limit } else { FIRST_ROUNDS };
        Stack { bytes: Storage::zeroed(rounds * size), size }
    }

    /// Where the result of a round goes; twice as much room is made where there is none.
    fn room(&mut self, round: usize) -> *mut u8 {
        let from = round * self.size;
        if from + self.size > self.bytes.len() {
            let mut wider = Storage::zeroed(2 * from + self.size);
            wider.make_mut()[..from].copy_from_slice(&self.bytes.bytes()[..from]);
            self.bytes = wider;
        }
        self.bytes.make_mut()[from..].as_mut_ptr()
    }

    fn tensor(self, dtype: DType, shape: &[usize], rounds: usize) -> Result<Tensor, Repeating> {
        let shape = [&[rounds], shape].concat();
        let used = rounds * self.size;
        let bytes = match self.bytes.len() == used {
            true => self.bytes,
            false => Storage::copied(&self.bytes.bytes()[..used]),
        };
        Ok(Tensor::new(dtype, shape, bytes)?)
    }
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The operands from `first` on.
fn taken(operands: Operands<'_, Tensor>, first: usize) -> Result<Vec<Tensor>, Problem> {
    (first..operands.len()).map(|i| operands.required(i, "an operand").cloned()).collect()
}

/// The body with a symbol of its own for every extent of its operands that nobody knows, so that a
/// session can be asked for any; none where it does not hold together then.
fn settled(body: &Graph) -> Option<Graph> {
    let mut graph = body.clone();
    for id in body.inputs().iter().copied() {
        let fact = body.fact(id);
        let own =
            |(axis, dim): (usize, &Dim)| match dim.symbols().iter().any(|s| s.starts_with('?')) {
                true => Dim::symbol(format!("operand {}.{axis}", id.index())),
                false => dim.clone(),
            };
        let dims = fact.dims.iter().enumerate().map(own).collect();
        graph.declare(id, &Fact::new(fact.dtype, dims)).ok()?;
    }
    // A session asks for names, which a body may do without.
    for id in [body.inputs(), body.outputs()].concat() {
        if graph.value(id).name.is_empty() {
            graph.set_value_name(id, format!("value {}", id.index()));
        }
    }
    graph.refresh().ok()?;
    Some(graph)
}

/// Results of a `Scan` with the rounds of its stacks along the axes it asks for.
fn stacked(op: &Scan, made: Vec<Tensor>) -> Result<Vec<Tensor>, Problem> {
    let stack = |(position, tensor): (usize, Tensor)| {
        let Some(stack) = position.checked_sub(op.states) else { return Ok(tensor) };
        let (axis, backward) = op.stacking(stack, tensor.rank())?;
        let tensor = if backward { reversed(&tensor)? } else { tensor };
        moved(&tensor, 0, axis)
    };
    made.into_iter().enumerate().map(stack).collect()
}

/// The tensor with the slices of its first axis in reverse.
fn reversed(tensor: &Tensor) -> Result<Tensor, Problem> {
    let mut made = Tensor::zeros(tensor.dtype(), tensor.shape().to_vec())?;
    let size = tensor.bytes().len() / tensor.shape()[0].max(1);
    if size > 0 {
        let slices = made.bytes_mut().chunks_exact_mut(size);
        slices
            .zip(tensor.bytes().rchunks_exact(size))
            .for_each(|(to, from)| to.copy_from_slice(from));
    }
    Ok(made)
}

/// The tensor with one axis moved: the first to `to`, or `from` to the first.
fn moved(tensor: &Tensor, from: usize, to: usize) -> Result<Tensor, Problem> {
    if from == to {
        return Ok(tensor.clone());
    }
    let mut shape = tensor.shape().to_vec();
    let extent = shape.remove(from);
    shape.insert(to, extent);
    let mut made = Tensor::zeros(tensor.dtype(), shape)?;
    let own = tensor.shape();
    // Blocks of `size` bytes, `rows` times `columns` of them, change places.
    let last = from.max(to) + 1;
    let size = count(&own[last..]) * tensor.dtype().size();
    let (rows, columns) = match to == 0 {
        true => (count(&own[..from]), extent),
        false => (extent, count(&own[1..last])),
    };
    let (bytes, target) = (tensor.bytes(), made.bytes_mut());
    for row in 0..rows {
        for column in 0..columns {
            let (from, to) = ((row * columns + column) * size, (column * rows + row) * size);
            target[to..to + size].copy_from_slice(&bytes[from..from + size]);
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lepton_ir::interpret;
    use lepton_ir::ops::binary::{Binary, BinaryFunction};
    use lepton_ir::ops::concat::Concat;
    use lepton_ir::ops::matmul::MatMul;
    use lepton_ir::ops::unary::{Unary, UnaryFunction};

    use super::*;
    use crate::session::SessionOptions;
    use crate::trace::StepProfile;

    /// What a body does with its state.
    #[derive(Clone, Copy)]
    enum Step {
        Multiply,
        Append,
    }

    /// A loop over `x` whose body stops before round `last`; operands trip count, condition, x.
    fn looped(step: Step, last: i64) -> Graph {
        let f32s = |dims: Vec<Dim>| Fact::new(DType::F32, dims);
        let rows = match step {
            Step::Multiply => Dim::symbol("n"),
            Step::Append => Dim::unknown(),
        };
        let dims = vec![rows, Dim::known(3)];
        let mut body = Graph::new("body");
        let round = body.add_input("round", Fact::dense(DType::I64, &[]));
        body.add_input("holds", Fact::dense(DType::Bool, &[]));
        let state = body.add_input("state", f32s(dims.clone()));
        let weights = body.add_input("weights", f32s(vec![Dim::known(3), Dim::known(3)]));
        let last = body.add_constant("", Tensor::scalar(last));
        let less = Binary::new(BinaryFunction::Less);
        let holds = body.add_node("", less, &[Some(round), Some(last)]).unwrap()[0];
        let made = body.add_node("", MatMul {}, &[Some(state), Some(weights)]).unwrap()[0];
        let bent = Unary::new(UnaryFunction::Tanh);
        let made = body.add_node("", bent, &[Some(made)]).unwrap()[0];
        let next = match step {
            Step::Multiply => made,
            Step::Append => {
                let both = [Some(state), Some(made)];
                body.add_node("", Concat { axis: 0 }, &both).unwrap()[0]
            }
        };
        let sign = Unary::new(UnaryFunction::Neg);
        let slice = body.add_node("", sign, &[Some(weights)]).unwrap()[0];
        body.set_outputs(vec![holds, next, slice]);
        let mut graph = Graph::new("whole");
        let count = graph.add_input("count", Fact::dense(DType::I64, &[]));
        let begins = graph.add_input("begins", Fact::dense(DType::Bool, &[]));
        let x = graph.add_input("x", f32s(vec![Dim::symbol("n"), Dim::known(3)]));
        let weights: Vec<f32> = (0..9).map(|i| i as f32 * 0.1 - 0.4).collect();
        let weights = graph.add_constant("w", Tensor::from_slice([3, 3], &weights).unwrap());
        let inputs = [count, begins, x, weights].map(Some);
        let made = graph.add_node("loop", Loop { body, states: 1 }, &inputs).unwrap();
        graph.set_value_name(made[0], "last");
        graph.set_value_name(made[1], "stack");
        graph.set_outputs(made);
        graph
    }

    fn check(graph: &Graph, count: i64, begins: bool, rows: usize) {
        let session = Session::new(graph, SessionOptions::default()).unwrap();
        let values: Vec<f32> = (0..rows * 3).map(|i| i as f32 * 0.3 - 1.0).collect();
        let given = [
            Tensor::scalar(count),
            Tensor::from_bools(Vec::new(), [begins]).unwrap(),
            Tensor::from_slice([rows, 3], &values).unwrap(),
        ];
        for _ in 0..2 {
            let found = session.run(&given).unwrap();
            let expected = interpret::run(graph, &given).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.shape(), expected.shape(), "{count} {begins}");
                let pairs = found.to_f64_vec().into_iter().zip(expected.to_f64_vec());
                pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
            }
        }
    }

    #[test]
    fn rounds_are_those_of_the_interpreter() {
        for step in [Step::Multiply, Step::Append] {
            for (count, last) in [(0, 9), (1, 9), (5, 9), (9, 3), (i64::MAX, 6), (200, 150)] {
                let count = if matches!(step, Step::Append) { count.min(6) } else { count };
                for begins in [true, false] {
                    check(&looped(step, last), count, begins, 2);
                }
            }
        }
    }

    #[test]
    fn a_profile_shows_the_steps_of_a_body_once() {
        for step in [Step::Multiply, Step::Append] {
            let graph = looped(step, 9);
            let session = Session::new(&graph, SessionOptions::default()).unwrap();
            let given = [
                Tensor::scalar(5i64),
                Tensor::from_bools(Vec::new(), [true]).unwrap(),
                Tensor::zeros(DType::F32, [40, 3]).unwrap(),
            ];
            session.run(&given).unwrap();
            let began = std::time::Instant::now();
            let (_, steps) = session.profile(&given).unwrap();
            let whole = began.elapsed().as_secs_f64() * 1e6;
            let product = |s: &&StepProfile| s.op == "MatMul" || s.op == "Linear";
            let products: Vec<_> = steps.iter().filter(product).collect();
            let runs: u64 = products.iter().map(|s| s.runs).sum();
            assert!(runs == 5 && !products.is_empty(), "{steps:?}");
            assert!(products.iter().all(|s| s.node.starts_with("loop > ")), "{steps:?}");
            assert!(steps.iter().map(|s| s.time_us).sum::<f64>() <= whole, "{steps:?}");
        }
    }

    #[test]
    fn a_run_that_is_stopped_says_so() {
        let graph = looped(Step::Multiply, i64::MAX);
        let session = Session::new(&graph, SessionOptions::default()).unwrap();
        let given = [
            Tensor::scalar(1i64 << 18),
            Tensor::from_bools(Vec::new(), [true]).unwrap(),
            Tensor::zeros(DType::F32, [64, 3]).unwrap(),
        ];
        let asked = AtomicUsize::new(0);
        let go_on = || asked.fetch_add(1, Ordering::Relaxed) < 20;
        let found = session.run_while(&given, &go_on);
        assert!(matches!(found, Err(RuntimeError::Stopped)), "{found:?}");
    }

    #[test]
    fn an_axis_moves_to_the_front_and_back() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let tensor = Tensor::from_slice([2, 3, 4], &values).unwrap();
        let front = moved(&tensor, 1, 0).unwrap();
        assert_eq!(front.shape(), [3, 2, 4]);
        assert_eq!(front.to_f64_vec()[..6], [0.0, 1.0, 2.0, 3.0, 12.0, 13.0]);
        assert_eq!(moved(&front, 0, 1).unwrap(), tensor);
    }
}
