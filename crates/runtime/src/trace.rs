//! What watches a run: whether it goes on, and what its steps took, those of the bodies of loops, of
//! branches and of what runs node by node included.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use lepton_ir::{Graph, Node, Operands};
use lepton_tensor::Tensor;

use crate::error::RuntimeError;
use crate::limits::Arithmetic;
use crate::place::Memory;
use crate::plan::Step;

/// Multiply-adds and bytes after which a run that is watched asks whether to go on: some microseconds.
const ASKED_AFTER: u64 = 1 << 18;

/// One step of a profiled run. A step that runs several times within another, as those of a loop's
/// body do, has the sums of all its runs.
#[derive(Clone, Debug)]
pub struct StepProfile {
    /// The node it came from, after those it runs within and ` > `.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The kernel that ran; `reference` where there is none yet, `eval` where none would be faster.
    pub kernel: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// When it first began, in microseconds from the start of the run.
    pub start_us: f64,
    /// How long it took, in microseconds, without the steps that ran within it.
    pub time_us: f64,
    /// Multiply–adds.
    pub multiply_adds: u64,
    /// Bytes of its operands and results.
    pub bytes: u64,
    /// Those of them that are constants.
    pub constant_bytes: u64,
    /// What its multiply–adds are limited by.
    pub arithmetic: Arithmetic,
}

impl StepProfile {
    /// A step of a plan that has not run.
    fn of_step(step: &Step) -> Self {
        StepProfile {
            node: step.node.clone(),
            op: step.op.clone(),
            kernel: step.kernel,
            runs: 0,
            start_us: 0.0,
            time_us: 0.0,
            multiply_adds: step.multiply_adds,
            bytes: step.bytes,
            constant_bytes: step.constant_bytes,
            arithmetic: step.arithmetic,
        }
    }

    /// A node that runs outside of plans.
    pub(crate) fn of_node(
        graph: &Graph,
        node: &Node,
        operands: Operands<'_, Tensor>,
        kernel: &'static str,
    ) -> Self {
        let bytes = |tensor: &&Tensor| tensor.bytes().len() as u64;
        StepProfile {
            node: graph.node_label(node),
            op: node.op.to_string(),
            kernel,
            runs: 0,
            start_us: 0.0,
            time_us: 0.0,
            multiply_adds: 0,
            bytes: operands.0.iter().flatten().map(bytes).sum(),
            constant_bytes: 0,
            arithmetic: Arithmetic::F32,
        }
    }
}

/// What a run is watched by.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    go_on: &'a dyn Fn() -> bool,
    recorder: Option<&'a Recorder>,
}

impl<'a> Watch<'a> {
    /// Nobody: the run goes on to its end.
    pub const NOBODY: Watch<'static> = Watch { go_on: &|| true, recorder: None };

    /// For as long as `go_on` says so.
    pub fn while_true(go_on: &'a dyn Fn() -> bool) -> Self {
        Watch { go_on, recorder: None }
    }

    /// To the end, with all steps recorded.
    pub fn recorded(recorder: &'a Recorder) -> Self {
        Watch { recorder: Some(recorder), ..Watch::NOBODY }
    }

    /// False where the run is to stop.
    pub fn goes_on(&self) -> bool {
        (self.go_on)()
    }

    /// True if steps are recorded.
    pub fn records(&self) -> bool {
        self.recorder.is_some()
    }

    /// Runs a step, or what contains some, and records it.
    pub fn timed<R>(&self, about: impl FnOnce() -> StepProfile, run: impl FnOnce() -> R) -> R {
        match self.recorder {
            None => run(),
            Some(recorder) => recorder.timed(about(), run),
        }
    }

    /// Runs steps of plans, and asks whether to go on after each that takes some microseconds.
    pub fn steps(self) -> impl FnMut(&Step, &Memory<'_>) -> Result<(), RuntimeError> {
        let mut work = 0;
        move |step, memory| {
            self.timed(|| StepProfile::of_step(step), || (step.run)(memory))?;
            work += step.multiply_adds + step.bytes;
            if work < ASKED_AFTER {
                return Ok(());
            }
            work = 0;
            if self.goes_on() { Ok(()) } else { Err(RuntimeError::Stopped) }
        }
    }
}

/// A step that is running.
struct Open {
    row: usize,
    /// What ran within it.
    inner: Duration,
}

/// Records the steps of one run.
pub(crate) struct Recorder {
    start: Instant,
    rows: RefCell<Vec<StepProfile>>,
    open: RefCell<Vec<Open>>,
    /// Rows of steps within others, by the row around them, node and kernel.
    known: RefCell<HashMap<(usize, String, &'static str), usize>>,
}

impl Recorder {
    pub fn new() -> Self {
        Recorder {
            start: Instant::now(),
            rows: RefCell::default(),
            open: RefCell::default(),
            known: RefCell::default(),
        }
    }

    /// The steps in the order in which they first began.
    pub fn steps(self) -> Vec<StepProfile> {
        self.rows.into_inner()
    }

    fn timed<R>(&self, about: StepProfile, run: impl FnOnce() -> R) -> R {
        let row = self.row(about);
        self.open.borrow_mut().push(Open { row, inner: Duration::ZERO });
        let began = Instant::now();
        let result = run();
        let whole = began.elapsed();
        let mut open = self.open.borrow_mut();
        let inner = open.pop().map_or(Duration::ZERO, |own| own.inner);
        if let Some(around) = open.last_mut() {
            around.inner += whole;
        }
        let mut rows = self.rows.borrow_mut();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        if rows[row].runs == 0 {
            rows[row].start_us = us(began.saturating_duration_since(self.start));
        }
        rows[row].runs += 1;
        rows[row].time_us += us(whole.saturating_sub(inner));
        result
    }

    /// The row of a step that is about to run: a new one, unless it ran before within the same.
    fn row(&self, about: StepProfile) -> usize {
        let mut rows = self.rows.borrow_mut();
        let count = rows.len();
        let Some(around) = self.open.borrow().last().map(|open| open.row) else {
            rows.push(about);
            return count;
        };
        let key = (around, about.node.clone(), about.kernel);
        let row = *self.known.borrow_mut().entry(key).or_insert(count);
        if row == count {
            let node = format!("{} > {}", rows[around].node, about.node);
            rows.push(StepProfile { node, ..about });
        } else {
            rows[row].multiply_adds += about.multiply_adds;
            rows[row].bytes += about.bytes;
            rows[row].constant_bytes += about.constant_bytes;
        }
        row
    }
}
