//! Padding that shows elements of the tensor: its mirror image, its border, its opposite end.

use lepton_ir::ops::pad::Pad;
use lepton_ir::{Node, Operands};
use lepton_tensor::row_major_strides;

use super::{ELEMENT_WORK, by_size, over_rows};
use crate::place::Memory;
use crate::plan::{Builder, Run};

/// Elements of a line of the result that lie side by side in a line of the operand, forwards,
/// backwards, or are one element again and again.
#[derive(Debug, PartialEq)]
struct Stretch {
    to: usize,
    from: usize,
    count: usize,
    step: isize,
}

/// The stretches of a line whose element `i` is element `sources[i]` of another.
fn stretches(sources: &[usize]) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    for (to, &from) in sources.iter().enumerate() {
        if let Some(last) = found.last_mut() {
            let step = from as isize - (last.from as isize + (last.count as isize - 1) * last.step);
            if last.count == 1 && step.abs() <= 1 {
                last.step = step;
            }
            if step == last.step {
                last.count += 1;
                continue;
            }
        }
        found.push(Stretch { to, from, count: 1, step: 1 });
    }
    found
}

/// Which line of the operand each line of the result shows.
struct Lines {
    /// For each axis but the last what an index of the result adds to the line of the operand.
    axes: Vec<Vec<usize>>,
    stretches: Vec<Stretch>,
    /// Elements of a line of the operand, and of the result.
    lengths: [usize; 2],
}

impl Lines {
    /// Of a tensor whose axes show these indices of an operand of shape `from`.
    fn of(from: &[usize], mut sources: Vec<Vec<usize>>) -> Option<Self> {
        let last = sources.pop()?;
        let (length, outer) = (from[from.len() - 1], &from[..from.len() - 1]);
        let strides = row_major_strides(outer);
        for (axis, stride) in sources.iter_mut().zip(strides) {
            axis.iter_mut().for_each(|index| *index *= stride);
        }
        let lengths = [length, last.len()];
        Some(Lines { axes: sources, stretches: stretches(&last), lengths })
    }

    /// The line of the operand that line `index` of the result shows.
    fn source(&self, mut index: usize) -> usize {
        let mut line = 0;
        for axis in self.axes.iter().rev() {
            line += axis[index % axis.len()];
            index /= axis.len();
        }
        line
    }

    fn copy<T: Copy>(&self, from: &[T], to: &mut [T]) {
        for &Stretch { to: at, from: first, count, step } in &self.stretches {
            let to = &mut to[at..at + count];
            match step {
                1 => to.copy_from_slice(&from[first..first + count]),
                0 => to.fill(from[first]),
                _ => {
                    let backwards = from[first + 1 - count..=first].iter().rev();
                    to.iter_mut().zip(backwards).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}

/// The step, where how much is added is known.
pub(crate) fn pad(builder: &Builder<'_>, node: &Node, op: &Pad) -> Option<Run> {
    let (x, y) = (node.inputs[0]?, node.outputs[0]?);
    let facts = builder.graph.input_facts(node);
    let before = op.added_before(Operands(&facts)).ok()??;
    let (from, to) = (builder.shape(x), builder.shape(y));
    if to.contains(&0) {
        return None;
    }
    let axis = |(axis, &before): (usize, &i64)| {
        let indices = (0..to[axis] as i64).map(|i| op.source(i - before, from[axis] as i64));
        indices.collect::<Option<Vec<usize>>>()
    };
    let sources = before.iter().enumerate().map(axis).collect::<Option<Vec<_>>>()?;
    let lines = Lines::of(&from, sources)?;
    let (source, result) = (builder.place(x), builder.place(y));
    let (read, written) = (builder.count(x), builder.count(y));
    let [length, width] = lines.lengths;
    Some(by_size!(builder.graph.fact(x).dtype.size(), T => Box::new(move |memory: &Memory<'_>| {
        over_rows(memory, written / width, written * ELEMENT_WORK, |range| {
            for index in range {
                // SAFETY: the plan holds these counts of elements of this size at both places, which are
                // apart; ranges of lines are disjoint.
                let (input, output) = unsafe {
                    (memory.slice::<T>(source, read),
                     memory.slice_mut::<T>(result, index * width, width))
                };
                lines.copy(&input[lines.source(index) * length..][..length], output);
            }
        });
        Ok(())
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fall_into_stretches() {
        let of = |sources: &[usize]| {
            let found = stretches(sources);
            found.into_iter().map(|s| (s.to, s.from, s.count, s.step)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[2, 1, 0, 1, 2, 1]), [(0, 2, 3, -1), (3, 1, 2, 1), (5, 1, 1, 1)]);
        assert_eq!(of(&[0, 0, 0, 1, 1]), [(0, 0, 3, 0), (3, 1, 2, 0)]);
        assert_eq!(of(&[3, 0, 1, 2, 0]), [(0, 3, 1, 1), (1, 0, 3, 1), (4, 0, 1, 1)]);
    }
}
