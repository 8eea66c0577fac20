//! A session: a graph ready to run, again and again, at whatever shapes come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use lepton_ir::{Graph, StoredPack};
use lepton_kernels::Isa;
use lepton_passes::{pipelines, run_pipeline};
use lepton_tensor::{DType, Tensor};

use crate::batch::{self, Division};
use crate::choices::{self, Choices};
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::limits::Limits;
use crate::packs::Packs;
use crate::parts::Parts;
use crate::place::Memory;
use crate::plan::{self, Demands, Draft, Plan, Sizes};
use crate::steps;
use crate::stepwise::Stepwise;
use crate::trace::{Recorder, StepProfile};
use crate::watch::Watch;

/// Plans kept for different input shapes.
const KEPT_PLANS: usize = 16;

/// What happens to a graph before it is planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lowering {
    /// Everything in [`pipelines::LOWER`].
    #[default]
    Full,
    /// Only [`pipelines::PLAIN`]: one step per operator of the graph.
    Plain,
}

/// How several threads run steps that are too small to call threads for each. Answers do not depend on
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmallSteps {
    /// The way that is faster, as measured during runs.
    #[default]
    Measured,
    /// Each step for itself, the smallest ones by the caller alone.
    Apart,
    /// By a team that goes through all steps together and divides them, however small they are.
    Together,
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
    /// 3×3 convolutions of f32, recurrent matrices of f32 in fixed point of 16 bits, weights of f32 in
    /// 24 bits for products of one row, and attention in bf16 between integer products.
    /// [`PlanSummary::numerics`] tells which a plan has.
    pub exact: bool,
    /// How several threads run small steps.
    pub small_steps: SmallSteps,
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
            small_steps: SmallSteps::Measured,
        }
    }
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
    /// What its kernels do to numbers beyond the order of sums; nothing where [`SessionOptions::exact`]
    /// forbids it.
    pub numerics: Vec<&'static str>,
}

/// A graph ready to run.
pub struct Session {
    lowered: Arc<Graph>,
    engine: Arc<Engine>,
    packs: Arc<Packs>,
    /// Algorithms chosen by measurement.
    choices: Mutex<Arc<Choices>>,
    plans: Mutex<VecDeque<(PlanKey, Ready)>>,
    /// True if batches may run part by part.
    divides: bool,
}

/// The types and shapes of the inputs that a plan is for.
type PlanKey = Vec<(DType, Vec<usize>)>;

/// What runs for inputs of certain shapes.
#[derive(Clone)]
pub(crate) struct Ready {
    pub plan: Arc<Plan>,
    /// Where the plan is for a part of a batch.
    pub division: Option<Division>,
    /// What follows the plan, where some extents depend on data.
    pub rest: Option<Arc<Stepwise>>,
}

impl Session {
    /// Lowers the graph; plans are made when shapes are known.
    pub fn new(graph: &Graph, options: SessionOptions) -> Result<Self, RuntimeError> {
        let session = Session::within(graph, Arc::new(Engine::new(options)))?;
        Ok(Session { divides: true, ..session })
    }

    /// A session that shares threads and arenas with others.
    pub(crate) fn within(graph: &Graph, engine: Arc<Engine>) -> Result<Self, RuntimeError> {
        let mut lowered = graph.clone();
        let pipeline = match engine.options.lowering {
            Lowering::Full => pipelines::LOWER,
            Lowering::Plain => pipelines::PLAIN,
        };
        run_pipeline(pipeline, &mut lowered)?;
        let lowered = Arc::new(lowered.compacted());
        lowered.verify()?;
        Ok(Session {
            packs: Arc::new(Packs::of(&lowered)),
            lowered,
            engine,
            choices: Mutex::default(),
            plans: Mutex::default(),
            divides: false,
        })
    }

    /// A session of a graph that was lowered before, with the packed weights made then.
    pub fn prepared(
        lowered: impl Into<Arc<Graph>>,
        packs: &[StoredPack],
        options: SessionOptions,
    ) -> Result<Self, RuntimeError> {
        let lowered = lowered.into();
        Ok(Session {
            packs: Arc::new(Packs::given(&lowered, packs)),
            choices: Mutex::new(Arc::new(Choices::of_packs(&lowered.constants(), packs))),
            lowered,
            engine: Arc::new(Engine::new(options)),
            plans: Mutex::default(),
            divides: true,
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
        self.engine.options.isa
    }

    /// What this machine can do at most with the session's instruction set and threads; measured,
    /// which takes some tens of milliseconds.
    pub fn limits(&self) -> Limits {
        Limits::measure(
            self.isa(),
            self.engine.threads.count(),
            self.lowered.constant_bytes() as u64,
        )
    }

    /// Runs the graph: one tensor per input, in order; one per output comes back.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RuntimeError> {
        self.run_while(inputs, &|| true)
    }

    /// As [`Session::run`], for as long as `go_on` says so. It is asked between steps, after each
    /// that takes some microseconds, and several times during one that takes long, by any thread of the run.
    ///
    /// # Errors
    /// Those of [`Session::run`], and [`RuntimeError::Stopped`].
    pub fn run_while(
        &self,
        inputs: &[Tensor],
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Tensor>, RuntimeError> {
        self.run_watched(inputs, &Watch::new(go_on))
    }

    /// As [`Session::run_while`], as part of a run that is watched already.
    pub(crate) fn run_watched(
        &self,
        inputs: &[Tensor],
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let Ready { plan, division, rest } = self.ready(inputs)?;
        if let Some(division) = division {
            return self.engine.execute_parts(&plan, division, inputs, watch);
        }
        let outputs = self.engine.execute(&plan, inputs, watch)?;
        match rest {
            Some(rest) => rest.run(&[inputs, &outputs].concat(), watch),
            None => Ok(outputs),
        }
    }

    /// Runs the graph and times every step: of plans, of the bodies of loops and of branches within
    /// the step that runs them, and of what runs node by node, because its extents depend on data.
    pub fn profile(
        &self,
        inputs: &[Tensor],
    ) -> Result<(Vec<Tensor>, Vec<StepProfile>), RuntimeError> {
        self.ready(inputs)?;
        let recorder = Recorder::new();
        let outputs = self.run_watched(inputs, &Watch::recorded(&recorder))?;
        Ok((outputs, recorder.steps()))
    }

    /// Sizes of the plan for inputs of these shapes.
    pub fn summary(&self, inputs: &[Tensor]) -> Result<PlanSummary, RuntimeError> {
        let weight_bytes = self.lowered.constant_bytes();
        let Ready { plan, division, .. } = self.ready(inputs)?;
        let arenas = match division {
            Some(Division { parts, apart: true }) => self.engine.threads.count().min(parts),
            _ => 1,
        };
        Ok(PlanSummary {
            steps: plan.steps.len(),
            arena_bytes: plan.arena_bytes * arenas,
            unshared_bytes: plan.unshared_bytes,
            weight_bytes,
            numerics: steps::numerics(plan.steps.iter().map(|step| step.kernel)),
        })
    }

    /// The plan for inputs of these shapes.
    pub(crate) fn ready(&self, inputs: &[Tensor]) -> Result<Ready, RuntimeError> {
        // Inputs that a plan was made for were checked then.
        let matches = |key: &PlanKey| {
            let alike = |((dtype, shape), tensor): (&(DType, Vec<usize>), &Tensor)| {
                *dtype == tensor.dtype() && shape == tensor.shape()
            };
            key.len() == inputs.len() && key.iter().zip(inputs).all(alike)
        };
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
        let ready = if plan::is_static(&graph) {
            let draft = Draft::of(&graph, self.engine.demands(&choices));
            match self.divided(&graph, inputs, &choices, draft.sizes())? {
                Some(ready) => ready,
                None => Ready { plan: Arc::new(self.built(draft)?), division: None, rest: None },
            }
        } else {
            self.in_parts(&graph, &choices)?
        };
        let key = inputs.iter().map(|t| (t.dtype(), t.shape().to_vec())).collect();
        let mut plans = self.plans.lock().unwrap_or_else(|e| e.into_inner());
        plans.push_front((key, ready.clone()));
        plans.truncate(KEPT_PLANS);
        Ok(ready)
    }

    pub(crate) fn specialised(&self, inputs: &[Tensor]) -> Result<Arc<Graph>, RuntimeError> {
        let bindings = self.lowered.check_inputs(inputs)?;
        if bindings.is_empty() && self.engine.options.lowering == Lowering::Full {
            // Lowering ran the passes below until they changed nothing.
            return Ok(self.lowered.clone());
        }
        let mut graph = self.lowered.specialised(&bindings)?;
        run_pipeline(pipelines::SPECIALISE, &mut graph)?;
        Ok(Arc::new(graph))
    }

    fn in_parts(&self, graph: &Graph, choices: &Choices) -> Result<Ready, RuntimeError> {
        let parts = Parts::of(graph);
        let plan = self.plan(&Arc::new(parts.planned), choices)?;
        let plan = Arc::new(plan.expect("extents of this part are known"));
        let rest = Stepwise::new(parts.rest, &self.packs, self.engine.clone());
        Ok(Ready { plan, division: None, rest: Some(Arc::new(rest)) })
    }

    /// The plan of a part of a batch, where the graph does the same for each and that is faster than all
    /// at once.
    fn divided(
        &self,
        graph: &Graph,
        inputs: &[Tensor],
        choices: &Choices,
        sizes: Sizes,
    ) -> Result<Option<Ready>, RuntimeError> {
        let images = batch::images(inputs).filter(|&images| images > 1 && self.divides);
        let Some(images) = images else { return Ok(None) };
        let demands = self.engine.demands(choices);
        let weights = graph.constant_bytes();
        let Some(division) = Division::of(images, demands.threads, sizes, weights) else {
            return Ok(None);
        };
        let of_part = |x: &Tensor| {
            let mut shape = x.shape().to_vec();
            shape[0] /= division.parts;
            Tensor::zeros(x.dtype(), shape)
        };
        let part: Vec<Tensor> = inputs.iter().map(of_part).collect::<Result<_, _>>()?;
        // A graph may ask for a batch of this size.
        let Ok(part) = self.specialised(&part) else { return Ok(None) };
        if !plan::is_static(&part) || !batch::is_independent(graph, &part, division.parts) {
            return Ok(None);
        }
        let threads = if division.apart { 1 } else { demands.threads };
        let plan = self.plan_for(&part, Demands { threads, ..demands })?;
        let limit = self.engine.options.memory_limit / demands.threads.max(1);
        let plan = plan.filter(|plan| plan.arena_bytes <= limit);
        Ok(plan.map(|plan| Ready { plan: Arc::new(plan), division: Some(division), rest: None }))
    }

    /// The packed weights of the lowered graph.
    pub(crate) fn shared_packs(&self) -> &Arc<Packs> {
        &self.packs
    }

    /// A plan of a graph specialised to its inputs; `None` where extents depend on data.
    pub(crate) fn plan(
        &self,
        graph: &Arc<Graph>,
        choices: &Choices,
    ) -> Result<Option<Plan>, RuntimeError> {
        self.plan_for(graph, self.engine.demands(choices))
    }

    fn plan_for(
        &self,
        graph: &Arc<Graph>,
        demands: Demands<'_>,
    ) -> Result<Option<Plan>, RuntimeError> {
        if !plan::is_static(graph) {
            return Ok(None);
        }
        self.built(Draft::of(graph, demands)).map(Some)
    }

    /// The plan of a draft, if its arena may be as large as it needs.
    fn built(&self, draft: Draft<'_>) -> Result<Plan, RuntimeError> {
        let (needed, limit) = (draft.sizes().arena, self.engine.options.memory_limit);
        if needed > limit {
            return Err(RuntimeError::Memory { needed, limit });
        }
        draft.build(&self.packs)
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
        if self.engine.options.exact {
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
        run_step: impl FnMut(&plan::Step, &Memory<'_>) -> Result<(), RuntimeError>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        self.engine.execute_by(plan, inputs, &Watch::never(), run_step)
    }
}
