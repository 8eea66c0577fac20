//! What watches a run: whether it goes on, asked between its steps and between pieces of those that
//! take long, and who records its steps.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::RuntimeError;
use crate::place::Memory;
use crate::plan::Step;
use crate::trace::{Recorder, StepProfile};

/// Multiply-adds and bytes after which a run asks whether to go on: some microseconds.
const ASKED_AFTER: u64 = 1 << 18;

/// Work of a piece of a step: some tens of milliseconds of multiply-adds.
const PIECE: usize = 1 << 30;

/// Whoever may end a run, or records its steps.
pub(crate) struct Watch<'a> {
    go_on: &'a (dyn Fn() -> bool + Sync),
    stopped: AtomicBool,
    recorder: Option<&'a Recorder>,
}

impl<'a> Watch<'a> {
    /// Ends a run when `go_on`, which any of its threads may call, says no.
    pub fn new(go_on: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Watch { go_on, stopped: AtomicBool::new(false), recorder: None }
    }

    /// Lets a run come to its end.
    pub fn never() -> Watch<'static> {
        Watch::new(&|| true)
    }

    /// Lets a run come to its end, and records all its steps.
    pub fn recorded(recorder: &'a Recorder) -> Self {
        Watch { recorder: Some(recorder), ..Watch::never() }
    }

    /// True if steps are recorded.
    pub fn records(&self) -> bool {
        self.recorder.is_some()
    }

    /// Says that the steps of another part of a batch follow, the same as those of the first.
    pub fn part_begins(&self) {
        if let Some(recorder) = self.recorder {
            recorder.part_begins();
        }
    }

    /// Runs a step, or what contains some, and records it.
    pub fn timed<R>(&self, about: impl FnOnce() -> StepProfile, run: impl FnOnce() -> R) -> R {
        match self.recorder {
            None => run(),
            Some(recorder) => recorder.timed(about(), run),
        }
    }

    /// Asks; once the answer was no it stays so.
    pub fn stops(&self) -> bool {
        if !self.is_stopped() && !(self.go_on)() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        self.is_stopped()
    }

    /// True once somebody asked and the answer was no.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Runs steps, and asks after each that takes some microseconds.
    pub fn steps(&self) -> impl FnMut(&Step, &Memory<'_>) -> Result<(), RuntimeError> {
        let mut work = 0;
        move |step, memory| {
            self.timed(|| StepProfile::of_step(step), || (step.run)(memory))?;
            work += step.multiply_adds + step.bytes;
            if work < ASKED_AFTER && !self.is_stopped() {
                return Ok(());
            }
            work = 0;
            if self.stops() { Err(RuntimeError::Stopped) } else { Ok(()) }
        }
    }

    /// Calls `body` with `range`, where it is much work in pieces of at least `least`, and asks before
    /// each. A run that was stopped leaves out the rest: its results are not looked at.
    pub fn in_pieces(
        &self,
        range: Range<usize>,
        work: usize,
        least: usize,
        mut body: impl FnMut(Range<usize>),
    ) {
        if work <= PIECE {
            return body(range);
        }
        let each = (range.len().div_ceil(work.div_ceil(PIECE))).max(least);
        let mut at = range.start;
        while at < range.end && !self.stops() {
            let end = range.end.min(at + each);
            body(at..end);
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn pieces_cover_a_range_until_the_run_is_stopped() {
        let asked = AtomicUsize::new(0);
        let most = AtomicUsize::new(usize::MAX);
        let go_on = || asked.fetch_add(1, Ordering::Relaxed) < most.load(Ordering::Relaxed);
        let watch = Watch::new(&go_on);
        let pieces = |range: Range<usize>, work: usize, least: usize| {
            let mut found = Vec::new();
            watch.in_pieces(range, work, least, |piece| found.push(piece));
            found
        };
        assert_eq!(pieces(3..7, PIECE, 1), vec![3..7; 1]);
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        assert_eq!(pieces(3..10, 3 * PIECE, 1), [3..6, 6..9, 9..10]);
        assert_eq!(pieces(0..10, usize::MAX, 8), [0..8, 8..10]);
        assert!(pieces(0..0, usize::MAX, 1).is_empty());
        most.store(asked.load(Ordering::Relaxed) + 2, Ordering::Relaxed);
        assert_eq!(pieces(0..10, 5 * PIECE, 1), [0..2, 2..4]);
        assert!(watch.stops());
        most.store(usize::MAX, Ordering::Relaxed);
        assert!(watch.stops(), "no stays no");
    }
}
