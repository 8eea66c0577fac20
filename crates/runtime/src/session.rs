//! A session: a graph ready to run, again and again, at whatever shapes come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lepton_ir::{Graph, StoredPack};
use lepton_kernels::Isa;
use lepton_passes::{pipelines, run_pipeline};
use lepton_tensor::{Storage, Tensor};

use crate::branches::Interpreted;
use crate::choices::{self, Choices};
use crate::error::RuntimeError;
use crate::limits::{Arithmetic, Limits};
use crate::packs::Packs;
use crate::parts::Parts;
use crate::place::Memory;
use crate::plan::{self, Demands, Plan};
use crate::threads::Threads;

/// Plans kept for different input shapes.
const KEPT_PLANS: usize = 16;

/// Multiply-adds and bytes after which a run that is watched asks whether to go on: some microseconds.
const ASKED_AFTER: u64 = 1 << 18;

/// What happens to a graph before it is planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lowering {
    /// Everything in [`pipelines::LOWER`].
    #[default]
    Full,
    /// Only [`pipelines::PLAIN`]: one step per operator of the graph.
    Plain,
}

/// How a session runs.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads of a run, the caller included.
    pub threads: usize,
    /// Instruction set; `LEPTON_ISA` (`portable`, `avx2`, `avx512`, `amx`) overrides the default, the
    /// widest this machine has.
    pub isa: Isa,
    /// Most bytes the arena may take.
    pub memory_limit: usize,
    /// What happens to the graph first.
    pub lowering: Lowering,
    /// Forbids algorithms that change the last digits of answers for speed: transformed tiles in
    /// 3×3 convolutions of f32, and attention in bf16 between products of bf16.
    pub exact: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        let forced = std::env::var("LEPTON_ISA").ok().and_then(|name| Isa::named(&name));
        SessionOptions {
            threads: 1,
            isa: forced.unwrap_or_else(Isa::best),
            memory_limit: 16 << 30,
            lowering: Lowering::Full,
            exact: false,
        }
    }
}

/// One step of a profiled run.
#[derive(Clone, Debug)]
pub struct StepProfile {
    /// The node it came from.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The kernel that ran; `reference` where there is none yet.
    pub kernel: &'static str,
    /// When it began, in microseconds from the start of the run.
    pub start_us: f64,
    /// How long it took, in microseconds.
    pub time_us: f64,
    /// Multiply–adds.
    pub multiply_adds: u64,
    /// Bytes of its operands and results.
    pub bytes: u64,
    /// What its multiply–adds are limited by.
    pub arithmetic: Arithmetic,
}

/// Sizes of a plan.
#[derive(Clone, Debug)]
pub struct PlanSummary {
    /// Number of steps.
    pub steps: usize,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Bytes of all intermediates, had none shared memory.
    pub unshared_bytes: usize,
    /// Bytes of the weights.
    pub weight_bytes: usize,
}

/// A graph ready to run.
pub struct Session {
    lowered: Graph,
    options: SessionOptions,
    threads: Threads,
    packs: Packs,
    /// Algorithms chosen by measurement.
    choices: Mutex<Arc<Choices>>,
    plans: Mutex<VecDeque<(Vec<Vec<usize>>, Ready)>>,
    arena: Mutex<Vec<Storage>>,
}

/// What runs for inputs of certain shapes.
#[derive(Clone)]
struct Ready {
    plan: Arc<Plan>,
    /// What follows the plan, where some extents depend on data.
    after: Option<Arc<After>>,
}

/// What comes after the planned part of a graph.
struct After {
    telling: Interpreted,
    rest: Rest,
}

/// What comes after extents that depend on data.
enum Rest {
    /// Planned again for every shape, for the products in it.
    Session(Box<Session>),
    Interpreted(Box<Interpreted>),
}

impl After {
    fn run(
        &self,
        inputs: &[Tensor],
        planned: Vec<Tensor>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let mut known: Vec<Tensor> = inputs.to_vec();
        known.extend(planned);
        let told = self.telling.run(&known)?;
        known.extend(told);
        match &self.rest {
            Rest::Session(session) => session.run_while(&known, go_on),
            Rest::Interpreted(graph) => graph.run(&known),
        }
    }
}

impl Session {
    /// Lowers the graph; plans are made when shapes are known.
    pub fn new(graph: &Graph, options: SessionOptions) -> Result<Self, RuntimeError> {
        let mut lowered = graph.clone();
        let pipeline = match options.lowering {
            Lowering::Full => pipelines::LOWER,
            Lowering::Plain => pipelines::PLAIN,
        };
        run_pipeline(pipeline, &mut lowered)?;
        let lowered = lowered.compacted();
        lowered.verify()?;
        Ok(Session {
            lowered,
            threads: Threads::new(options.threads),
            options,
            packs: Packs::default(),
            choices: Mutex::default(),
            plans: Mutex::default(),
            arena: Mutex::default(),
        })
    }

    /// A session of a graph that was lowered before, with the packed weights made then.
    pub fn prepared(
        lowered: Graph,
        packs: &[StoredPack],
        options: SessionOptions,
    ) -> Result<Self, RuntimeError> {
        Ok(Session {
            packs: Packs::given(&lowered.constants(), packs),
            choices: Mutex::new(Arc::new(Choices::of_packs(&lowered.constants(), packs))),
            lowered,
            threads: Threads::new(options.threads),
            options,
            plans: Mutex::default(),
            arena: Mutex::default(),
        })
    }

    /// The packed weights made so far that [`Session::prepared`] can use again, for the constants
    /// of [`Session::lowered`]; the first run makes those of its shapes.
    pub fn packs(&self) -> Vec<StoredPack> {
        self.packs.stored(&self.lowered.constants())
    }

    /// The graph the session runs, after lowering.
    pub fn lowered(&self) -> &Graph {
        &self.lowered
    }

    /// The instruction set it uses.
    pub fn isa(&self) -> Isa {
        self.options.isa
    }

    /// What this machine can do at most with the session's instruction set and threads; measured,
    /// which takes some tens of milliseconds.
    pub fn limits(&self) -> Limits {
        Limits::measure(self.options.isa, self.threads.count())
    }

    /// Runs the graph: one tensor per input, in order; one per output comes back.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RuntimeError> {
        self.run_while(inputs, &|| true)
    }

    /// As [`Session::run`], for as long as `go_on` says so. It is asked between steps, after each
    /// that takes some microseconds.
    ///
    /// # Errors
    /// Those of [`Session::run`], and [`RuntimeError::Stopped`].
    pub fn run_while(
        &self,
        inputs: &[Tensor],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let Ready { plan, after } = self.ready(inputs)?;
        let mut work = 0;
        let outputs = self.execute(&plan, inputs, |step, memory| {
            (step.run)(memory)?;
            work += step.multiply_adds + step.bytes;
            if work < ASKED_AFTER {
                return Ok(());
            }
            work = 0;
            if go_on() { Ok(()) } else { Err(RuntimeError::Stopped) }
        })?;
        match after {
            Some(after) => after.run(inputs, outputs, go_on),
            None => Ok(outputs),
        }
    }

    /// Runs the graph and times every step of what can be planned before it runs: what comes
    /// after extents that depend on data has no steps here.
    pub fn profile(
        &self,
        inputs: &[Tensor],
    ) -> Result<(Vec<Tensor>, Vec<StepProfile>), RuntimeError> {
        let Ready { plan, after } = self.ready(inputs)?;
        let mut profile = Vec::with_capacity(plan.steps.len());
        let start = Instant::now();
        let us = |d: std::time::Duration| d.as_secs_f64() * 1e6;
        let outputs = self.execute(&plan, inputs, |step, memory| {
            let began = Instant::now();
            (step.run)(memory)?;
            let ended = Instant::now();
            profile.push(StepProfile {
                node: step.node.clone(),
                op: step.op.clone(),
                kernel: step.kernel,
                start_us: us(began.saturating_duration_since(start)),
                time_us: us(ended.saturating_duration_since(began)),
                multiply_adds: step.multiply_adds,
                bytes: step.bytes,
                arithmetic: step.arithmetic,
            });
            Ok(())
        })?;
        let outputs = match after {
            Some(after) => after.run(inputs, outputs, &|| true)?,
            None => outputs,
        };
        Ok((outputs, profile))
    }

    /// Sizes of the plan for inputs of these shapes.
    pub fn summary(&self, inputs: &[Tensor]) -> Result<PlanSummary, RuntimeError> {
        let weight_bytes = self.lowered.constant_bytes();
        let Ready { plan, .. } = self.ready(inputs)?;
        Ok(PlanSummary {
            steps: plan.steps.len(),
            arena_bytes: plan.arena_bytes,
            unshared_bytes: plan.unshared_bytes,
            weight_bytes,
        })
    }

    fn ready(&self, inputs: &[Tensor]) -> Result<Ready, RuntimeError> {
        self.lowered.check_inputs(inputs)?;
        let matches = |key: &[Vec<usize>]| key.iter().zip(inputs).all(|(k, t)| k == t.shape());
        {
            let mut plans = self.plans.lock().unwrap_or_else(|e| e.into_inner());
            if let Some(at) = plans.iter().position(|(key, _)| matches(key)) {
                if at != 0 {
                    let found = plans.remove(at).expect("just found");
                    plans.push_front(found);
                }
                return Ok(plans[0].1.clone());
            }
        }
        let choices = self.choices();
        let graph = self.specialised(inputs)?;
        let ready = match self.plan(&graph, &choices)? {
            Some(plan) => Ready { plan: Arc::new(plan), after: None },
            None => self.in_parts(&graph, &choices)?,
        };
        let key = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let mut plans = self.plans.lock().unwrap_or_else(|e| e.into_inner());
        plans.push_front((key, ready.clone()));
        plans.truncate(KEPT_PLANS);
        Ok(ready)
    }

    pub(crate) fn specialised(&self, inputs: &[Tensor]) -> Result<Graph, RuntimeError> {
        let bindings = self.lowered.check_inputs(inputs)?;
        let mut graph = self.lowered.specialised(&bindings)?;
        run_pipeline(pipelines::SIMPLIFY, &mut graph)?;
        Ok(graph)
    }

    fn in_parts(&self, graph: &Graph, choices: &Choices) -> Result<Ready, RuntimeError> {
        let parts = Parts::of(graph);
        let plan = self.plan(&parts.planned, choices)?;
        let plan = Arc::new(plan.expect("extents of this part are known"));
        let rest = match parts.is_heavy() {
            true => {
                Rest::Session(Box::new(Session::prepared(parts.rest, &[], self.options.clone())?))
            }
            false => {
                Rest::Interpreted(Box::new(Interpreted::new(parts.rest, self.options.clone())))
            }
        };
        let telling = Interpreted::new(parts.telling, self.options.clone());
        let after = After { telling, rest };
        Ok(Ready { plan, after: Some(Arc::new(after)) })
    }

    /// A plan of a graph specialised to its inputs; `None` where extents depend on data.
    pub(crate) fn plan(
        &self,
        graph: &Graph,
        choices: &Choices,
    ) -> Result<Option<Plan>, RuntimeError> {
        if !plan::is_static(graph) {
            return Ok(None);
        }
        let SessionOptions { isa, exact, .. } = self.options;
        let demands = Demands { isa, threads: self.threads.count(), exact, choices };
        let plan = plan::build(graph, &self.packs, demands)?;
        if plan.arena_bytes > self.options.memory_limit {
            let (needed, limit) = (plan.arena_bytes, self.options.memory_limit);
            return Err(RuntimeError::Memory { needed, limit });
        }
        Ok(Some(plan))
    }

    fn choices(&self) -> Arc<Choices> {
        self.choices.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Times the algorithms that can compute each layer, in whole runs on `inputs`, and takes the
    /// fastest ones from now on, whatever the shapes; without it the choice follows expected
    /// costs. A session that must be exact has nothing to choose. Takes about twenty runs.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn choose(&self, inputs: &[Tensor]) -> Result<(), RuntimeError> {
        if self.options.exact {
            return Ok(());
        }
        let choices = choices::measure(self, inputs)?;
        self.packs.forget(|constant, form| choices.is_unused(constant, form));
        *self.choices.lock().unwrap_or_else(|e| e.into_inner()) = Arc::new(choices);
        self.plans.lock().unwrap_or_else(|e| e.into_inner()).clear();
        Ok(())
    }

    pub(crate) fn execute(
        &self,
        plan: &Plan,
        inputs: &[Tensor],
        mut run_step: impl FnMut(&plan::Step, &Memory<'_>) -> Result<(), RuntimeError>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let mut arena = self.take_arena(plan.arena_bytes);
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        for (dtype, shape) in &plan.outputs {
            outputs.push(Tensor::zeros(*dtype, shape.clone())?);
        }
        let input_pointers: Vec<*const u8> = inputs.iter().map(|t| t.bytes().as_ptr()).collect();
        let output_pointers: Vec<*mut u8> =
            outputs.iter_mut().map(|t| t.bytes_mut().as_mut_ptr()).collect();
        let memory = Memory {
            isa: self.options.isa,
            threads: &self.threads,
            arena: arena.make_mut().as_mut_ptr(),
            inputs: &input_pointers,
            outputs: &output_pointers,
        };
        for step in &plan.steps {
            run_step(step, &memory)?;
        }
        for &(from, index, bytes) in &plan.copies {
            // SAFETY: the plan recorded `bytes` as the size of both, and they are apart.
            unsafe {
                let to = output_pointers[index as usize];
                std::ptr::copy_nonoverlapping(memory.read::<u8>(from), to, bytes);
            }
        }
        self.return_arena(arena);
        Ok(outputs)
    }

    fn take_arena(&self, bytes: usize) -> Storage {
        let mut free = self.arena.lock().unwrap_or_else(|e| e.into_inner());
        let fits = free.iter().position(|storage| storage.len() >= bytes);
        fits.map_or_else(|| Storage::zeroed(bytes), |at| free.swap_remove(at))
    }

    fn return_arena(&self, arena: Storage) {
        let mut free = self.arena.lock().unwrap_or_else(|e| e.into_inner());
        if free.len() < self.options.threads.max(2) {
            free.push(arena);
        }
    }
}
