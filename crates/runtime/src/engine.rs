//! What runs plans: the options, threads and arenas that a session and the sessions within it share.

use std::borrow::Borrow;
use std::sync::{Arc, Mutex};

use lepton_tensor::{Storage, Tensor};

use crate::batch::Division;
use crate::choices::Choices;
use crate::error::RuntimeError;
use crate::pace::Lap;
use crate::place::Memory;
use crate::plan::{Demands, Plan, Step};
use crate::session::{SessionOptions, SmallSteps};
use crate::team::GATHERING_LOOKS;
use crate::threads::{Threads, share};
use crate::trace::StepProfile;
use crate::watch::Watch;
use crate::workers::{MEMBER_WORK, Workers};

/// What comes in and goes out of a run, each with the bytes of a part of it.
struct Ends {
    inputs: Vec<(*const u8, usize)>,
    results: Vec<(*mut u8, usize)>,
    outputs: Vec<Tensor>,
}

// SAFETY: parts read their own of the inputs, which their caller borrows, and write their own of the outputs.
unsafe impl Sync for Ends {}

impl Ends {
    /// Of so many runs of a plan, one after the other in memory.
    fn of<T: Borrow<Tensor>>(
        plan: &Plan,
        inputs: &[T],
        parts: usize,
    ) -> Result<Self, RuntimeError> {
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        for (dtype, shape) in &plan.outputs {
            let mut shape = shape.clone();
            if parts > 1 {
                shape[0] *= parts;
            }
            outputs.push(Tensor::zeros(*dtype, shape)?);
        }
        let inputs = inputs.iter().map(|x| x.borrow().bytes());
        let inputs = inputs.map(|bytes| (bytes.as_ptr(), bytes.len() / parts)).collect();
        let results = outputs.iter_mut().map(|y| {
            let bytes = y.bytes_mut();
            (bytes.as_mut_ptr(), bytes.len() / parts)
        });
        Ok(Ends { inputs, results: results.collect(), outputs })
    }
}

/// How a team goes through steps.
struct Company<'a> {
    /// Work that is worth a member.
    worth: usize,
    /// How long it waits for members.
    looks: usize,
    /// Is told that they came.
    lap: Option<&'a Lap>,
}

/// Runs plans.
pub(crate) struct Engine {
    pub options: SessionOptions,
    pub threads: Threads,
    /// Of who has a part of a batch for itself.
    alone: Threads,
    /// Those that no run has at the moment.
    arenas: Mutex<Vec<Storage>>,
}

impl Engine {
    pub fn new(options: SessionOptions) -> Self {
        let [threads, alone] = [options.threads, 1].map(Threads::new);
        Engine { threads, alone, options, arenas: Mutex::default() }
    }

    /// What its plans must be made for.
    pub fn demands<'a>(self: &'a Arc<Self>, choices: &'a Choices) -> Demands<'a> {
        let SessionOptions { isa, exact, .. } = self.options;
        Demands { engine: self, isa, threads: self.threads.count(), exact, choices }
    }

    /// Runs a plan on inputs of the shapes it was made for: with several threads the way that is faster
    /// at present, each step for itself or small ones together.
    pub fn execute<T: Borrow<Tensor>>(
        &self,
        plan: &Plan,
        inputs: &[T],
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let in_order = |memory: &Memory<'_>| run_steps(&plan.steps, memory, watch.steps());
        let threads = self.threads.count();
        match self.options.small_steps {
            SmallSteps::Together if threads > 1 => {
                let company = Company { worth: 1, looks: usize::MAX, lap: None };
                self.whole(plan, inputs, watch, |m| self.together(&plan.steps, m, &company))
            }
            SmallSteps::Measured if plan.has_ways(threads) => {
                let lap = plan.pace.begin();
                let made = match lap.second {
                    true => self.whole(plan, inputs, watch, |m| self.sections(plan, m, &lap)),
                    false => self.whole(plan, inputs, watch, in_order),
                }?;
                // Recording takes time that says nothing about the ways.
                if !watch.records() {
                    plan.pace.end(lap);
                }
                Ok(made)
            }
            _ => self.whole(plan, inputs, watch, in_order),
        }
    }

    /// Small steps together, others each for itself.
    fn sections(&self, plan: &Plan, memory: &Memory<'_>, lap: &Lap) -> Result<(), RuntimeError> {
        let company = Company { worth: MEMBER_WORK, looks: GATHERING_LOOKS, lap: Some(lap) };
        plan.sections.iter().try_for_each(|section| {
            let steps = &plan.steps[section.steps.clone()];
            match section.together {
                true => self.together(steps, memory, &company),
                false => run_steps(steps, memory, memory.watch.steps()),
            }
        })
    }

    /// Runs a plan on inputs of the shapes it was made for, each step by `run_step`; what runs within
    /// steps is watched by `watch`.
    pub fn execute_by<T: Borrow<Tensor>>(
        &self,
        plan: &Plan,
        inputs: &[T],
        watch: &Watch<'_>,
        run_step: impl FnMut(&Step, &Memory<'_>) -> Result<(), RuntimeError>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        self.whole(plan, inputs, watch, |memory| run_steps(&plan.steps, memory, run_step))
    }

    /// Runs a plan whose steps are run by `steps`.
    fn whole<T: Borrow<Tensor>>(
        &self,
        plan: &Plan,
        inputs: &[T],
        watch: &Watch<'_>,
        steps: impl FnOnce(&Memory<'_>) -> Result<(), RuntimeError>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let mut ends = Ends::of(plan, inputs, 1)?;
        let goes_on = self.threads.run_begins();
        self.part(plan, &ends, 0, &self.threads, watch, steps)?;
        drop(goes_on);
        Ok(std::mem::take(&mut ends.outputs))
    }

    /// Steps that all threads that come at once go through, each doing its part of those that divide.
    fn together(
        &self,
        steps: &[Step],
        memory: &Memory<'_>,
        company: &Company<'_>,
    ) -> Result<(), RuntimeError> {
        let failed = Mutex::new(None);
        let alone = Memory { threads: Workers::Pool(&self.alone), ..*memory };
        self.threads.together(self.threads.count(), company.looks, &|member| {
            let workers = Workers::Member { member, worth: company.worth };
            let memory = Memory { threads: workers, ..*memory };
            if let Some(lap) = company.lap.filter(|_| member.count() > 1 && member.is_first()) {
                lap.threads_came();
            }
            let run = |step: &Step| match step.divides {
                true => (step.run)(&memory),
                false => member.first(|| (step.run)(&alone)).unwrap_or(Ok(())),
            };
            for step in steps.iter().take_while(|_| !member.is_over()) {
                let done = match member.is_first() {
                    true => memory.watch.timed(|| StepProfile::of_step(step), || run(step)),
                    false => run(step),
                };
                if let Err(error) = done {
                    *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                    return member.end();
                }
                // Whoever left out pieces of a step misses their meetings.
                if memory.watch.is_stopped() {
                    return member.end();
                }
            }
        });
        match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(error) => Err(error),
            None if memory.watch.stops() => Err(RuntimeError::Stopped),
            None => Ok(()),
        }
    }

    /// Runs the plan of a part for every part of a batch.
    pub fn execute_parts(
        &self,
        plan: &Plan,
        Division { parts, apart }: Division,
        inputs: &[Tensor],
        watch: &Watch<'_>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let mut ends = Ends::of(plan, inputs, parts)?;
        let goes_on = self.threads.run_begins();
        if apart && !watch.records() {
            let failed = Mutex::new(None);
            let threads = self.threads.count().min(parts);
            self.threads.run(threads, &|thread| {
                for part in share(parts, thread, threads) {
                    let steps = |memory: &Memory<'_>| run_steps(&plan.steps, memory, watch.steps());
                    let run = self.part(plan, &ends, part, &self.alone, watch, steps);
                    if let Err(error) = run {
                        *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                        return;
                    }
                }
            });
            if let Some(error) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
                return Err(error);
            }
        } else {
            let threads = if apart { &self.alone } else { &self.threads };
            for part in 0..parts {
                watch.part_begins();
                let steps = |memory: &Memory<'_>| run_steps(&plan.steps, memory, watch.steps());
                self.part(plan, &ends, part, threads, watch, steps)?;
            }
        }
        drop(goes_on);
        Ok(std::mem::take(&mut ends.outputs))
    }

    /// Runs a plan, its steps by `steps`, on a part of what comes in and goes out.
    fn part(
        &self,
        plan: &Plan,
        ends: &Ends,
        part: usize,
        threads: &Threads,
        watch: &Watch<'_>,
        steps: impl FnOnce(&Memory<'_>) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let mut arena = self.take_arena(plan.arena_bytes);
        let inputs: Vec<*const u8> =
            ends.inputs.iter().map(|&(first, each)| first.wrapping_add(part * each)).collect();
        let outputs: Vec<*mut u8> =
            ends.results.iter().map(|&(first, each)| first.wrapping_add(part * each)).collect();
        let memory = Memory {
            isa: self.options.isa,
            threads: Workers::Pool(threads),
            watch,
            arena: arena.make_mut().as_mut_ptr(),
            inputs: &inputs,
            outputs: &outputs,
        };
        steps(&memory)?;
        copy_outputs(plan, &memory);
        self.return_arena(arena);
        Ok(())
    }

    /// The smallest free arena that is large enough, or a new one.
    pub fn take_arena(&self, bytes: usize) -> Storage {
        if bytes == 0 {
            return Storage::zeroed(0);
        }
        let mut free = self.arenas.lock().unwrap_or_else(|e| e.into_inner());
        let fits = free.iter().enumerate().filter(|(_, storage)| storage.len() >= bytes);
        let fits = fits.min_by_key(|(_, storage)| storage.len()).map(|(at, _)| at);
        fits.map_or_else(|| Storage::lasting(bytes), |at| free.swap_remove(at))
    }

    /// Keeps an arena for other runs, the largest ones if there are many.
    pub fn return_arena(&self, arena: Storage) {
        if arena.is_empty() {
            return;
        }
        let mut free = self.arenas.lock().unwrap_or_else(|e| e.into_inner());
        if free.len() < self.options.threads.max(2) {
            return free.push(arena);
        }
        if let Some(least) = free.iter_mut().min_by_key(|storage| storage.len())
            && least.len() < arena.len()
        {
            *least = arena;
        }
    }
}

/// Runs a plan in memory that holds inputs and outputs of the sizes it was made for, and an arena
/// of at least its size.
pub(crate) fn run_in(
    plan: &Plan,
    memory: &Memory<'_>,
    run_step: impl FnMut(&Step, &Memory<'_>) -> Result<(), RuntimeError>,
) -> Result<(), RuntimeError> {
    run_steps(&plan.steps, memory, run_step)?;
    copy_outputs(plan, memory);
    Ok(())
}

fn run_steps(
    steps: &[Step],
    memory: &Memory<'_>,
    mut run_step: impl FnMut(&Step, &Memory<'_>) -> Result<(), RuntimeError>,
) -> Result<(), RuntimeError> {
    steps.iter().try_for_each(|step| run_step(step, memory))
}

/// Copies outputs that no step writes.
fn copy_outputs(plan: &Plan, memory: &Memory<'_>) {
    for &(from, index, bytes) in &plan.copies {
        // SAFETY: the plan recorded `bytes` as the size of both, and they are apart.
        unsafe {
            let to = memory.outputs[index as usize];
            std::ptr::copy_nonoverlapping(memory.read::<u8>(from), to, bytes);
        }
    }
}
