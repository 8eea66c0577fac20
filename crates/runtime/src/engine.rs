//! What runs plans: the options, threads and arenas that a session and the sessions within it share.

use std::borrow::Borrow;
use std::sync::{Arc, Mutex};

use lepton_tensor::{Storage, Tensor};

use crate::choices::Choices;
use crate::error::RuntimeError;
use crate::place::Memory;
use crate::plan::{Demands, Plan, Step};
use crate::session::SessionOptions;
use crate::threads::Threads;
use crate::watch::Watch;

/// Runs plans.
pub(crate) struct Engine {
    pub options: SessionOptions,
    pub threads: Threads,
    /// Those that no run has at the moment.
    arenas: Mutex<Vec<Storage>>,
}

impl Engine {
    pub fn new(options: SessionOptions) -> Self {
        Engine { threads: Threads::new(options.threads), options, arenas: Mutex::default() }
    }

    /// What its plans must be made for.
    pub fn demands<'a>(self: &'a Arc<Self>, choices: &'a Choices) -> Demands<'a> {
        let SessionOptions { isa, exact, .. } = self.options;
        Demands { engine: self, isa, threads: self.threads.count(), exact, choices }
    }

    /// Runs a plan on inputs of the shapes it was made for, each step by `run_step`; what runs within
    /// steps is watched by `watch`.
    pub fn execute<T: Borrow<Tensor>>(
        &self,
        plan: &Plan,
        inputs: &[T],
        watch: &Watch<'_>,
        mut run_step: impl FnMut(&Step, &Memory<'_>) -> Result<(), RuntimeError>,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let mut arena = self.take_arena(plan.arena_bytes);
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        for (dtype, shape) in &plan.outputs {
            outputs.push(Tensor::zeros(*dtype, shape.clone())?);
        }
        let input_pointers: Vec<*const u8> =
            inputs.iter().map(|t| t.borrow().bytes().as_ptr()).collect();
        let output_pointers: Vec<*mut u8> =
            outputs.iter_mut().map(|t| t.bytes_mut().as_mut_ptr()).collect();
        let memory = Memory {
            isa: self.options.isa,
            threads: &self.threads,
            watch,
            arena: arena.make_mut().as_mut_ptr(),
            inputs: &input_pointers,
            outputs: &output_pointers,
        };
        let goes_on = self.threads.run_begins();
        run_in(plan, &memory, &mut run_step)?;
        drop(goes_on);
        self.return_arena(arena);
        Ok(outputs)
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
    mut run_step: impl FnMut(&Step, &Memory<'_>) -> Result<(), RuntimeError>,
) -> Result<(), RuntimeError> {
    for step in &plan.steps {
        run_step(step, memory)?;
    }
    for &(from, index, bytes) in &plan.copies {
        // SAFETY: the plan recorded `bytes` as the size of both, and they are apart.
        unsafe {
            let to = memory.outputs[index as usize];
            std::ptr::copy_nonoverlapping(memory.read::<u8>(from), to, bytes);
        }
    }
    Ok(())
}
