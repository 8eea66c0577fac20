//! How strided operands are walked while one dense output is written in order.

use std::ops::Range;

/// The most dimensions that may remain after collapsing.
pub const MAX_RANK: usize = 8;

/// A walk over a dense output of some shape that reads `N` operands with strides.
///
/// Made once, when a plan is made: dimensions of size 1 vanish and neighbours that every operand
/// walks as one are merged, so most element-wise work ends up with one or two dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broadcast<const N: usize> {
    rank: usize,
    sizes: [usize; MAX_RANK],
    strides: [[isize; MAX_RANK]; N],
    starts: [usize; N],
    extents: [usize; N],
    len: usize,
}

impl<const N: usize> Broadcast<N> {
    /// Operands that are dense tensors of the given shapes, broadcast to `shape` as NumPy does
    /// (aligned at the last axis, size 1 repeats). `None` if a shape does not broadcast to
    /// `shape` or more than [`MAX_RANK`] dimensions remain after collapsing.
    pub fn dense(shape: &[usize], operands: [&[usize]; N]) -> Option<Self> {
        let mut strides: [Vec<isize>; N] = std::array::from_fn(|_| vec![0; shape.len()]);
        for (operand, strides) in operands.iter().zip(&mut strides) {
            let missing = shape.len().checked_sub(operand.len())?;
            let mut stride = 1;
            for (axis, &size) in operand.iter().enumerate().rev() {
                if size != 1 {
                    if size != shape[axis + missing] {
                        return None;
                    }
                    strides[axis + missing] = stride;
                }
                stride = stride.checked_mul(isize::try_from(size).ok()?)?;
            }
        }
        Self::strided(shape, [0; N], std::array::from_fn(|i| strides[i].as_slice()))
    }

    /// Operands with one stride per axis of `shape`, in elements, from element `starts[i]`; a
    /// stride of 0 repeats, a negative one walks backwards. `None` if an operand would be read
    /// before its beginning, a stride is missing, sizes overflow, or more than [`MAX_RANK`]
    /// dimensions remain after collapsing.
    pub fn strided(shape: &[usize], starts: [usize; N], strides: [&[isize]; N]) -> Option<Self> {
        if strides.iter().any(|s| s.len() != shape.len()) {
            return None;
        }
        let len = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size))?;
        let mut walk = Self {
            rank: 0,
            sizes: [1; MAX_RANK],
            strides: [[0; MAX_RANK]; N],
            starts,
            extents: [0; N],
            len,
        };
        if len == 0 {
            return Some(walk);
        }
        for (axis, &size) in shape.iter().enumerate().filter(|&(_, &size)| size != 1) {
            walk.push(size, std::array::from_fn(|i| strides[i][axis]))?;
        }
        walk.rank = walk.rank.max(1);
        for (operand, &start) in starts.iter().enumerate() {
            let mut lowest = isize::try_from(start).ok()?;
            let mut highest = lowest;
            for axis in 0..walk.rank {
                let last = isize::try_from(walk.sizes[axis] - 1).ok()?;
                let reach = walk.strides[operand][axis].checked_mul(last)?;
                let end = if reach < 0 { &mut lowest } else { &mut highest };
                *end = end.checked_add(reach)?;
            }
            usize::try_from(lowest).ok()?;
            walk.extents[operand] = usize::try_from(highest).ok()?.checked_add(1)?;
        }
        Some(walk)
    }

    /// Adds an inner axis, merged with the one before where every operand allows it.
    fn push(&mut self, size: usize, strides: [isize; N]) -> Option<()> {
        let count = isize::try_from(size).ok()?;
        let merges = self.rank > 0
            && (0..N)
                .all(|i| strides[i].checked_mul(count) == Some(self.strides[i][self.rank - 1]));
        if merges {
            self.sizes[self.rank - 1] = self.sizes[self.rank - 1].checked_mul(size)?;
        } else if self.rank == MAX_RANK {
            return None;
        } else {
            self.sizes[self.rank] = size;
            self.rank += 1;
        }
        for (all, stride) in self.strides.iter_mut().zip(strides) {
            all[self.rank - 1] = stride;
        }
        Some(())
    }

    /// Elements of the output.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the output has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements an operand must have at least.
    pub fn extent(&self, operand: usize) -> usize {
        self.extents[operand]
    }

    /// The collapsed sizes, outermost first.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }

    /// The collapsed strides of an operand, in elements.
    pub fn strides(&self, operand: usize) -> &[isize] {
        &self.strides[operand][..self.rank]
    }

    /// The first element an operand reads.
    pub fn start(&self, operand: usize) -> usize {
        self.starts[operand]
    }

    /// True if an operand is read in the order in which the output is written.
    pub fn is_identity(&self, operand: usize) -> bool {
        let mut stride = 1;
        let dense = (0..self.rank).rev().all(|axis| {
            let fits = self.strides[operand][axis] == stride || self.sizes[axis] == 1;
            stride *= self.sizes[axis] as isize;
            fits
        });
        dense && self.starts[operand] == 0
    }

    /// The strides of the innermost axis.
    pub(crate) fn inner_strides(&self) -> [isize; N] {
        if self.rank == 0 {
            return [0; N];
        }
        std::array::from_fn(|i| self.strides[i][self.rank - 1])
    }

    /// Asserts what makes unchecked reading in `range` sound: every operand reaches far enough,
    /// and the output holds exactly the range.
    pub(crate) fn check(&self, range: &Range<usize>, operands: [usize; N], output: usize) {
        assert!(range.start <= range.end && range.end <= self.len, "a range of the output");
        assert_eq!(range.len(), output, "the output holds the range");
        for (needed, had) in self.extents.iter().zip(operands) {
            assert!(*needed <= had, "an operand is shorter than its walk");
        }
    }

    /// The stretches of `range` along the innermost axis, in order.
    pub(crate) fn runs(&self, range: Range<usize>) -> Runs<'_, N> {
        let inner = if self.rank == 0 { 1 } else { self.sizes[self.rank - 1] };
        // Most walks start at the beginning, which needs no division.
        let within = if range.start == 0 { 0 } else { range.start % inner };
        let (index, offsets) = match range.start - within {
            0 => ([0; MAX_RANK], self.starts.map(|start| start as isize)),
            at => self.locate(at),
        };
        Runs { walk: self, inner, within, index, offsets, range }
    }

    /// The index on each axis of an output element, and the element each operand reads there.
    pub(crate) fn locate(&self, at: usize) -> ([usize; MAX_RANK], [isize; N]) {
        let mut index = [0_usize; MAX_RANK];
        let mut offsets = self.starts.map(|start| start as isize);
        let mut rest = at;
        for axis in (0..self.rank).rev() {
            index[axis] = rest % self.sizes[axis];
            rest /= self.sizes[axis];
            for (offset, strides) in offsets.iter_mut().zip(&self.strides) {
                *offset += index[axis] as isize * strides[axis];
            }
        }
        (index, offsets)
    }
}

/// A stretch of a walk along its innermost axis.
pub(crate) struct Run<const N: usize> {
    /// The first output element.
    pub(crate) at: usize,
    /// The first element of each operand.
    pub(crate) first: [usize; N],
    /// Elements.
    pub(crate) count: usize,
}

/// An iterator rather than a function that takes a closure: closures are not certain to be inlined
/// where the target features are.
pub(crate) struct Runs<'a, const N: usize> {
    walk: &'a Broadcast<N>,
    inner: usize,
    /// Elements of the innermost axis to skip in the next stretch.
    within: usize,
    index: [usize; MAX_RANK],
    /// Where each operand is at the beginning of the innermost axis.
    offsets: [isize; N],
    range: Range<usize>,
}

impl<const N: usize> Iterator for Runs<'_, N> {
    type Item = Run<N>;

    #[inline]
    fn next(&mut self) -> Option<Run<N>> {
        if self.range.is_empty() {
            return None;
        }
        let at = self.range.start;
        let count = (self.inner - self.within).min(self.range.end - at);
        let mut first = self.offsets.map(|offset| offset as usize);
        if self.within > 0 {
            for (first, stride) in first.iter_mut().zip(self.walk.inner_strides()) {
                *first = first.wrapping_add_signed(self.within as isize * stride);
            }
        }
        self.within = 0;
        self.range.start += count;
        if !self.range.is_empty() {
            self.step();
        }
        Some(Run { at, first, count })
    }
}

impl<const N: usize> Runs<'_, N> {
    /// Moves to the next place of all axes but the innermost.
    #[inline]
    fn step(&mut self) {
        for axis in (0..self.walk.rank - 1).rev() {
            self.index[axis] += 1;
            let wrapped = self.index[axis] == self.walk.sizes[axis];
            let moved = if wrapped { 1 - self.walk.sizes[axis] as isize } else { 1 };
            for (offset, strides) in self.offsets.iter_mut().zip(&self.walk.strides) {
                *offset += moved * strides[axis];
            }
            if !wrapped {
                return;
            }
            self.index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_walked_as_one_are_merged() {
        let channel = Broadcast::dense(&[2, 4, 5, 3], [&[2, 4, 5, 3], &[3]]).unwrap();
        assert_eq!(channel.sizes(), [40, 3]);
        assert_eq!(channel.strides(1), [0, 1]);
        let same = Broadcast::dense(&[2, 1, 5], [&[2, 1, 5], &[2, 1, 5]]).unwrap();
        assert_eq!(same.sizes(), [10]);
        assert!(same.is_identity(0));
    }

    #[test]
    fn shapes_that_do_not_broadcast_are_refused() {
        assert_eq!(Broadcast::dense(&[2, 3], [&[2]]), None);
        assert_eq!(Broadcast::strided(&[3], [1], [&[-1]]), None);
        assert!(Broadcast::strided(&[3], [2], [&[-1]]).is_some());
    }
}
