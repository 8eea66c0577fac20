//! Which steps of a plan a team of threads goes through together: small ones, for which calling threads
//! for each would take longer than it gives.

use std::ops::Range;

use lepton_ir::Op;

use crate::limits::Arithmetic;
use crate::plan::Step;

/// Consecutive steps of a plan.
#[derive(Debug, PartialEq)]
pub(crate) struct Section {
    pub steps: Range<usize>,
    /// True if a team may go through them together.
    pub together: bool,
}

/// A longer step is worth calling threads for, who need not come at the same time.
const LONG_NS: u64 = 25_000;

/// Who comes late waits at most so long for the next section.
const SECTION_NS: u64 = 60_000;

/// What a step must take for a team to gain by dividing it.
const DIVIDED_NS: u64 = 500;

/// What a step takes at least, roughly. What steps within it take is not known.
fn nanoseconds(step: &Step) -> u64 {
    if matches!(step.node.op, Op::Loop(_) | Op::Scan(_) | Op::If(_)) {
        return u64::MAX;
    }
    let each = match step.arithmetic {
        Arithmetic::F32 => 100,
        Arithmetic::Bf16 => 150,
        Arithmetic::Integer => 400,
    };
    step.multiply_adds / each + step.bytes / 64
}

/// Divides the steps of a plan into sections; all are one where no team would gain.
pub(crate) fn divide(steps: &[Step]) -> Vec<Section> {
    of_times(steps.iter().map(|step| (nanoseconds(step), step.divides)))
}

fn of_times(steps: impl Iterator<Item = (u64, bool)>) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut sum, mut gains, mut from) = (0, false, 0);
    let mut end = 0;
    let mut close = |steps: Range<usize>, together: bool| match sections.last_mut() {
        _ if steps.is_empty() => {}
        Some(last) if !together && !last.together => last.steps.end = steps.end,
        _ => sections.push(Section { steps, together }),
    };
    for (at, (takes, divides)) in steps.enumerate() {
        end = at + 1;
        if takes > LONG_NS || takes > SECTION_NS - sum {
            close(from..at, gains);
            (sum, gains, from) = (0, false, at);
        }
        if takes > LONG_NS {
            close(at..at + 1, false);
            from = at + 1;
            continue;
        }
        sum += takes;
        gains |= divides && takes >= DIVIDED_NS;
    }
    close(from..end, gains);
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(steps: &[(u64, bool)]) -> Vec<(usize, usize, bool)> {
        let found = of_times(steps.iter().copied());
        found.into_iter().map(|s| (s.steps.start, s.steps.end, s.together)).collect()
    }

    #[test]
    fn small_steps_are_gone_through_together() {
        let (small, long, tiny) = ((2_000, true), (LONG_NS + 1, true), (100, true));
        assert_eq!(sections(&[]), []);
        assert_eq!(sections(&[small, tiny, small]), [(0, 3, true)]);
        assert_eq!(sections(&[tiny, long, tiny, (2_000, false)]), [(0, 4, false)]);
        assert_eq!(
            sections(&[small, small, long, long, tiny, small]),
            [(0, 2, true), (2, 4, false), (4, 6, true)]
        );
    }

    #[test]
    fn sections_end_before_who_is_late_waits_long() {
        let steps = [(20_000, true); 7];
        assert_eq!(sections(&steps), [(0, 3, true), (3, 6, true), (6, 7, true)]);
    }
}
