//! What the steps of a run took, those of the bodies of loops, of branches and of what runs node by
//! node included.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lepton_ir::{Graph, Node, Operands};
use lepton_tensor::Tensor;

use crate::limits::Arithmetic;
use crate::plan::Step;

/// One step of a profiled run. A step that runs several times within another, as those of a loop's
/// body do, or for several parts of a batch, has the sums of all its runs.
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
    pub(crate) fn of_step(step: &Step) -> Self {
        StepProfile {
            node: step.node.label(step.first.as_ref().map(|(id, value)| (*id, &**value))),
            op: step.node.op.to_string(),
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

/// A step that is running.
struct Open {
    row: usize,
    /// What ran within it.
    inner: Duration,
}

/// What a lock holds; who panicked meanwhile left it whole.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records the steps of one run.
pub(crate) struct Recorder {
    start: Instant,
    rows: Mutex<Vec<StepProfile>>,
    open: Mutex<Vec<Open>>,
    /// Rows of steps within others, by the row around them, node and kernel.
    known: Mutex<HashMap<(usize, String, &'static str), usize>>,
    /// Rows of steps that are within no others, and how many of those of this part of a batch began.
    outer: Mutex<(Vec<usize>, usize)>,
}

impl Recorder {
    pub fn new() -> Self {
        Recorder {
            start: Instant::now(),
            rows: Mutex::default(),
            open: Mutex::default(),
            known: Mutex::default(),
            outer: Mutex::default(),
        }
    }

    /// Steps that follow are those of another part of a batch: their rows are those of the first.
    pub fn part_begins(&self) {
        held(&self.outer).1 = 0;
    }

    /// The steps in the order in which they first began.
    pub fn steps(self) -> Vec<StepProfile> {
        self.rows.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn timed<R>(&self, about: StepProfile, run: impl FnOnce() -> R) -> R {
        let row = self.row(about);
        held(&self.open).push(Open { row, inner: Duration::ZERO });
        let began = Instant::now();
        let result = run();
        let whole = began.elapsed();
        let mut open = held(&self.open);
        let inner = open.pop().map_or(Duration::ZERO, |own| own.inner);
        if let Some(around) = open.last_mut() {
            around.inner += whole;
        }
        let mut rows = held(&self.rows);
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
        let mut rows = held(&self.rows);
        let count = rows.len();
        let around = held(&self.open).last().map(|open| open.row);
        let row = match around {
            Some(around) => {
                let key = (around, about.node.clone(), about.kernel);
                *held(&self.known).entry(key).or_insert(count)
            }
            None => {
                let mut outer = held(&self.outer);
                let (known, at) = &mut *outer;
                if *at == known.len() {
                    known.push(count);
                }
                *at += 1;
                known[*at - 1]
            }
        };
        if row == count {
            let node = match around {
                Some(around) => format!("{} > {}", rows[around].node, about.node),
                None => about.node,
            };
            rows.push(StepProfile { node, ..about });
        } else {
            rows[row].multiply_adds += about.multiply_adds;
            rows[row].bytes += about.bytes;
            rows[row].constant_bytes += about.constant_bytes;
        }
        row
    }
}
