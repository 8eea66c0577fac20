//! The search: propose, make, tune; then time and evaluate what there is; then conclude.
//!
//! Candidates are proposed from what tuning samples say. The evaluation samples are touched after
//! the last proposal, so nothing that is tried depends on them.

use std::path::Path;
use std::time::Instant;

use lepton_compress::Context;
use lepton_data::DataSet;
use lepton_ir::Graph;
use lepton_measure::Evaluation;
use lepton_runtime::SessionOptions;

use crate::conclude::conclude;
use crate::goal::Goal;
use crate::journal::Journal;
use crate::outcome::Report;
use crate::samples::{Findings, Samples};
use crate::setup::Setup;
use crate::space::{self, Proposal};
use crate::steps::{self, Made, On};
use crate::timing::Timing;
use crate::{NavigateError, report};

/// The model that is to be optimised.
pub struct Source<'a> {
    /// Its graph.
    pub graph: &'a Graph,
    /// Name of its file, without folders.
    pub name: String,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub hash: String,
    /// Bytes of its files.
    pub file_bytes: u64,
}

/// What a search is doing.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The candidate.
    pub candidate: String,
    /// What is done with it.
    pub step: &'static str,
    /// Work done, in runs of the model.
    pub done: u64,
    /// Work there is, as far as it is known.
    pub total: u64,
}

/// A finished search.
pub struct Finished {
    /// What it found.
    pub report: Report,
    /// Steps that the journal already had.
    pub resumed_steps: usize,
    /// Steps that were done now.
    pub new_steps: usize,
}

/// A candidate and what is known of it.
pub(crate) struct Tried {
    pub proposal: Proposal,
    pub result: Result<Known, String>,
}

/// What is known of a candidate that could be made.
pub(crate) struct Known {
    pub made: Made,
    pub tuning: Vec<Evaluation>,
    pub timing: Option<Timing>,
    pub evaluation: Option<Vec<Evaluation>>,
}

/// Searches for the version of `source` that meets the goal on `data`, and writes into `folder`:
/// `best.lepton`, `report.json`, `report.html`, `candidates/`, and `journal.jsonl`, from which an
/// interrupted search goes on.
///
/// # Errors
/// A goal, a model or data that make no sense together; a file that cannot be written. A candidate
/// that fails is a row of the report. Unmet limits are no error: see [`Report::met`].
pub fn optimize(
    source: &Source<'_>,
    data: &DataSet,
    goal: &Goal,
    folder: &Path,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Finished, NavigateError> {
    let candidates = folder.join("candidates");
    std::fs::create_dir_all(&candidates).map_err(NavigateError::file(&candidates))?;
    let setup = Setup::new(source, data, goal, folder)?;
    let journal = Journal::open(&setup.path("journal.jsonl"))?;
    let resumed_steps = journal.found();
    let mut search = Search {
        setup,
        journal,
        started: Instant::now(),
        tried: Vec::new(),
        work: Work::new(goal),
        progress,
    };
    search.propose()?;
    search.time()?;
    search.evaluate()?;
    let new_steps = search.journal.added();
    let report = conclude(&mut search)?;
    report::write(&search.setup.folder, &report)?;
    Ok(Finished { report, resumed_steps, new_steps })
}

/// Amounts of work, for the progress bar.
struct Work {
    done: u64,
    tuning: u64,
    timing: u64,
    evaluation: u64,
    expected_candidates: u64,
}

impl Work {
    fn new(goal: &Goal) -> Self {
        Work {
            done: 0,
            tuning: goal.tuning_samples as u64,
            timing: goal.latency_time.as_millis() as u64,
            evaluation: 0,
            expected_candidates: 0,
        }
    }

    fn total(&self) -> u64 {
        self.expected_candidates * (self.tuning + self.timing + self.evaluation)
    }
}

pub(crate) struct Search<'a, 'p> {
    pub setup: Setup<'a>,
    pub journal: Journal,
    pub tried: Vec<Tried>,
    started: Instant,
    work: Work,
    progress: &'p mut dyn FnMut(&Progress),
}

/// What recipes are applied with.
struct Kit<'a> {
    context: Context<'a>,
    findings: Findings,
}

/// Candidates that follow from the first ones: two repairs and up to four mixed ones.
const LATER_CANDIDATES: usize = 6;

impl Search<'_, '_> {
    fn propose(&mut self) -> Result<(), NavigateError> {
        let first = space::first(SessionOptions::default().isa.has_bf16());
        self.work.tuning = self.setup.tuning.len() as u64;
        self.work.evaluation = self.setup.evaluation.len() as u64;
        self.work.expected_candidates = (first.len() + LATER_CANDIDATES) as u64;
        let samples = Samples::new(&self.setup)?;
        let context = Context::new(samples.kept()).with_batches(&samples);
        let mut kit = Kit { findings: Findings::recall(&self.setup, &context)?, context };
        for proposal in first {
            self.consider(&mut kit, proposal)?;
        }
        let Some(best) = self.best_static() else { return Ok(()) };
        for proposal in space::repairs(&best) {
            self.consider(&mut kit, proposal)?;
        }
        let best = self.best_static().unwrap_or(best);
        let layers = lepton_compress::quantisable_nodes(&self.setup.base).len();
        for proposal in space::mixed(&best, layers) {
            self.consider(&mut kit, proposal)?;
        }
        Ok(())
    }

    /// The static int8 candidate with the best metric on the tuning samples, the first of equals.
    fn best_static(&self) -> Option<Proposal> {
        let better = self.setup.metric.higher_is_better;
        let score = |tried: &Tried| {
            let value = tried.result.as_ref().ok()?.tuning.first()?.result.value;
            Some(if better { value } else { -value })
        };
        let mut best: Option<(f64, &Proposal)> = None;
        for tried in self.tried.iter().filter(|t| t.proposal.is_static_int8()) {
            if let Some(value) = score(tried)
                && best.is_none_or(|(most, _)| value > most)
            {
                best = Some((value, &tried.proposal));
            }
        }
        best.map(|(_, proposal)| proposal.clone())
    }

    fn out_of_time(&self) -> bool {
        self.setup.goal.time_budget.is_some_and(|budget| self.started.elapsed() > budget)
    }

    /// Makes and tunes a candidate. Only the original's failure ends the search.
    fn consider(&mut self, kit: &mut Kit<'_>, proposal: Proposal) -> Result<(), NavigateError> {
        if self.out_of_time() && self.tried.len() >= 2 {
            let why = "not tried: the time budget was spent".to_string();
            self.tried.push(Tried { proposal, result: Err(why) });
            return Ok(());
        }
        let result = self.make_and_tune(kit, &proposal);
        match result {
            Err(error) if proposal.original || error.is_of_the_machine() => return Err(error),
            Err(error) => self.tried.push(Tried { proposal, result: Err(error.to_string()) }),
            Ok(known) => self.tried.push(Tried { proposal, result: Ok(known) }),
        }
        Ok(())
    }

    fn make_and_tune(
        &mut self,
        kit: &mut Kit<'_>,
        proposal: &Proposal,
    ) -> Result<Known, NavigateError> {
        self.tell(&proposal.name, "making", 0);
        let made = steps::make(&self.setup, &mut self.journal, &kit.context, proposal)?;
        kit.findings.save(&self.setup, &kit.context)?;
        let tuning = self.measure(proposal, &made, On::Tuning)?;
        Ok(Known { made, tuning, timing: None, evaluation: None })
    }

    fn measure(
        &mut self,
        proposal: &Proposal,
        made: &Made,
        on: On,
    ) -> Result<Vec<Evaluation>, NavigateError> {
        let (step, samples) = match on {
            On::Tuning => ("tuning", self.work.tuning),
            On::Evaluation => ("evaluating", self.work.evaluation),
        };
        let Search { setup, journal, work, progress, .. } = self;
        let mut state = Progress {
            candidate: proposal.name.clone(),
            step,
            done: work.done,
            total: work.total(),
        };
        let start = work.done;
        let mut tell = |samples: usize| {
            state.done = start + samples as u64;
            progress(&state);
        };
        let done = steps::measure(setup, journal, proposal, made, on, &mut tell);
        self.work.done = start + samples;
        done
    }

    fn tell(&mut self, candidate: &str, step: &'static str, worked: u64) {
        self.work.done += worked;
        let (done, total) = (self.work.done, self.work.total());
        (self.progress)(&Progress { candidate: candidate.to_owned(), step, done, total });
    }

    /// Times every candidate that could be made.
    fn time(&mut self) -> Result<(), NavigateError> {
        self.work.expected_candidates = self.tried.len() as u64;
        for index in 0..self.tried.len() {
            let Tried { proposal, result: Ok(known) } = &self.tried[index] else { continue };
            let (proposal, made) = (proposal.clone(), known.made.clone());
            self.tell(&proposal.name, "timing", 0);
            let timing = steps::time(&self.setup, &mut self.journal, &proposal, &made)?;
            self.work.done += self.work.timing;
            if let Ok(known) = &mut self.tried[index].result {
                known.timing = Some(timing);
            }
        }
        Ok(())
    }

    /// Evaluates every candidate that could be made.
    fn evaluate(&mut self) -> Result<(), NavigateError> {
        for index in 0..self.tried.len() {
            let Tried { proposal, result: Ok(known) } = &self.tried[index] else { continue };
            let (proposal, made) = (proposal.clone(), known.made.clone());
            let evaluation = self.measure(&proposal, &made, On::Evaluation)?;
            if let Ok(known) = &mut self.tried[index].result {
                known.evaluation = Some(evaluation);
            }
        }
        Ok(())
    }
}
