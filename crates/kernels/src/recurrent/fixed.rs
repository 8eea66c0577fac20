//! A recurrent matrix in fixed point: half the bytes of f32, and sums of whole numbers.
//!
//! The weights of a unit's gate are whole numbers of 16 bits, with a scale for each [`CHUNK`] steps
//! along K. The state is split into two parts of 11 bits, so that the products of a chunk stay below
//! 2^31 whatever the numbers are: nothing is lost but by rounding the weights once.

use std::cell::Cell;
use std::ops::Range;

use lepton_tensor::Storage;

use super::products::{Products, Sums};
use crate::pack::{LINE, PANEL, WeightOrder};
use crate::stored::Pack;
use crate::vector::Vector;

/// Steps of K that share a scale.
const CHUNK: usize = 64;
/// Depth is filled up to a multiple of this, so that loops over pairs have no rest.
const WHOLE_STEPS: usize = 8;
/// The largest whole number of a weight.
const MOST: f32 = 32767.0;
/// Bits of the lower part of a state.
const PART: f32 = 2048.0;
/// What a state's largest magnitude becomes: both parts stay within ±2^10.
const STATE_MOST: f32 = 1024.0 * PART;
/// Pairs of steps between what is multiplied and what is brought to L1.
const AHEAD: usize = 8;
/// What is smaller counts as zero: its inverse has to be finite.
const LEAST: f32 = 1e-30;
/// Rounding may change the weights of a unit's gate by this share of their length: 2^-14.
const SHARE: f64 = 1.0 / 16384.0;

/// A recurrent matrix `[G·H, H]` as whole numbers of 16 bits.
///
/// The lines of a block of 16 units follow each other: for every chunk a line of scales (f32) for
/// each gate, then for every pair of steps along K a line for each gate, 16 × 2 × i16.
#[derive(Clone, Debug)]
pub struct PackedI16 {
    lines: Storage,
    hidden: usize,
    gates: usize,
}

impl PackedI16 {
    /// Packs a matrix in the order of [`super::recurrent_order`]. `None` where rounding would change
    /// the weights of one gate of one unit by more than 2^-14 of their length (Euclidean), or a weight
    /// is not finite.
    ///
    /// # Panics
    /// If `order` reaches beyond `weights`.
    pub fn pack(weights: &[f32], order: &WeightOrder) -> Option<Self> {
        assert!(order.extent() <= weights.len(), "the order reaches beyond the weights");
        let (hidden, gates) = (order.columns, order.taps);
        let depth = order.depth;
        let mut lines = Storage::zeroed(Self::line_count(order) * LINE);
        let mut rest = lines.make_mut();
        let mut row = vec![0.0f32; depth];
        for first in (0..hidden).step_by(PANEL) {
            let block = rest.split_off_mut(..block_lines(gates, depth) * LINE)?;
            for unit in first..hidden.min(first + PANEL) {
                for gate in 0..gates {
                    let start = unit * order.column_stride + gate * order.tap_stride;
                    for (k, weight) in row.iter_mut().enumerate() {
                        *weight = weights[start + k * order.depth_stride];
                    }
                    if !pack_row(block, &row, gate, gates, unit - first) {
                        return None;
                    }
                }
            }
        }
        Some(PackedI16 { lines, hidden, gates })
    }

    /// Units H, and the depth of each.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Gates G.
    pub fn gates(&self) -> usize {
        self.gates
    }

    /// All lines.
    pub fn bytes(&self) -> &[u8] {
        self.lines.bytes()
    }

    /// The same in memory of its own.
    pub fn copied(&self) -> Self {
        let mut lines = Storage::lasting(self.lines.len());
        lines.make_mut().copy_from_slice(self.bytes());
        PackedI16 { lines, ..*self }
    }

    /// The weight that is multiplied with element `k` of the state.
    #[cfg(test)]
    pub fn weight(&self, gate: usize, unit: usize, k: usize) -> f32 {
        let chunk_lines = self.gates * (1 + CHUNK / 2);
        let first = unit / PANEL * block_lines(self.gates, self.hidden) + k / CHUNK * chunk_lines;
        let word = |line: usize| &self.bytes()[line * LINE + unit % PANEL * 4..][..4];
        let scale = f32::from_le_bytes(word(first + gate).try_into().expect("four bytes"));
        let pair = word(first + self.gates * (1 + k % CHUNK / 2) + gate);
        scale * f32::from(i16::from_le_bytes(pair.as_chunks().0[k % 2]))
    }

    fn line_count(order: &WeightOrder) -> usize {
        order.columns.div_ceil(PANEL) * block_lines(order.taps, order.depth)
    }
}

impl Pack for PackedI16 {
    type Order = WeightOrder;

    fn stored(&self) -> Vec<Storage> {
        vec![self.lines.clone()]
    }

    fn load(order: &WeightOrder, stored: &[Storage]) -> Option<Self> {
        let [lines] = stored else { return None };
        if lines.bytes().len() != Self::line_count(order) * LINE || order.columns != order.depth {
            return None;
        }
        let lines = lines.clone().aligned(LINE);
        Some(PackedI16 { lines, hidden: order.columns, gates: order.taps })
    }
}

/// Pairs of steps of K, filled up.
fn pairs(depth: usize) -> usize {
    depth.next_multiple_of(WHOLE_STEPS) / 2
}

/// Lines of a block of 16 units.
fn block_lines(gates: usize, depth: usize) -> usize {
    gates * (depth.div_ceil(CHUNK) + pairs(depth))
}

/// Writes the weights of one gate of a unit into the lines of its block; false if they do not fit.
fn pack_row(block: &mut [u8], row: &[f32], gate: usize, gates: usize, lane: usize) -> bool {
    let (mut changed, mut length) = (0.0, 0.0);
    let mut line = 0;
    for chunk in row.chunks(CHUNK) {
        let most = chunk.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        let scale = if most < LEAST { 0.0 } else { most / MOST };
        block[(line + gate) * LINE + lane * 4..][..4].copy_from_slice(&scale.to_le_bytes());
        line += gates;
        for (pair, weights) in chunk.chunks(2).enumerate() {
            let at = (line + pair * gates + gate) * LINE + lane * 4;
            for (weight, to) in weights.iter().zip(block[at..].as_chunks_mut::<2>().0) {
                let whole = if scale > 0.0 { (weight / scale).round_ties_even() } else { 0.0 };
                let whole = whole.clamp(-MOST, MOST);
                *to = (whole as i16).to_le_bytes();
                changed += f64::from(whole.mul_add(-scale, *weight)).powi(2);
                length += f64::from(*weight).powi(2);
            }
        }
        line += pairs(chunk.len()) * gates;
    }
    // Not so where a sum is not a number.
    changed <= length * SHARE * SHARE
}

/// What the products of a step take; kept by its thread, because a step takes only microseconds.
#[derive(Default)]
struct Room {
    /// For every pair of steps along K two words: the high parts of both, the low parts of both.
    words: Vec<i32>,
    /// For every block and gate 16 sums.
    sums: Vec<f32>,
}

thread_local! {
    static ROOM: Cell<Room> = const { Cell::new(Room { words: Vec::new(), sums: Vec::new() }) };
}

/// The products of a state with some gates of some blocks. They are all made before the gates of any
/// block: in between, the gates' latency would hold the reading of the matrix.
pub(super) struct FixedProducts {
    room: Room,
    /// The first block.
    start: usize,
}

impl FixedProducts {
    /// The products with `GATES` gates from `first` on.
    ///
    /// # Safety
    /// Gates and blocks are inside the weights; the state has as many values as the weights have units.
    #[inline(always)]
    pub unsafe fn of<V: Vector, const GATES: usize>(
        weights: &PackedI16,
        blocks: &Range<usize>,
        state: *const f32,
        first: usize,
    ) -> Self {
        let PackedI16 { lines, hidden, gates } = weights;
        let each = block_lines(*gates, *hidden);
        let mut room = ROOM.take();
        // All of both is written before it is read.
        room.words.resize(hidden.next_multiple_of(PANEL), 0);
        room.sums.resize(blocks.len() * GATES * PANEL, 0.0);
        // SAFETY: the caller's promise; every block is inside the weights and has room for its sums.
        unsafe {
            let state = FixedState::of::<V>(weights, state, &mut room.words);
            let from = (blocks.start * each + first) * PANEL;
            let mut line = lines.bytes().as_ptr().cast::<f32>().wrapping_add(from);
            for to in room.sums.chunks_exact_mut(GATES * PANEL) {
                // As many sums as hide the latency of an addition.
                match (V::LANES, GATES) {
                    (16, 1) => state.block::<V, GATES, 1, 4>(line, to.as_mut_ptr()),
                    (16, _) => state.block::<V, GATES, 1, 2>(line, to.as_mut_ptr()),
                    (8, _) => state.block::<V, GATES, 2, 1>(line, to.as_mut_ptr()),
                    _ => state.block::<V, GATES, 4, 1>(line, to.as_mut_ptr()),
                }
                line = line.wrapping_add(each * PANEL);
            }
        }
        FixedProducts { room, start: blocks.start }
    }
}

impl Drop for FixedProducts {
    fn drop(&mut self) {
        ROOM.set(std::mem::take(&mut self.room));
    }
}

impl Products for FixedProducts {
    #[inline(always)]
    unsafe fn of<V: Vector, const ROWS: usize, const GATES: usize, const PARTS: usize>(
        &self,
        block: usize,
        _first: usize,
    ) -> Sums<V, ROWS, GATES, PARTS> {
        let at = (block - self.start) * GATES * PANEL;
        let sums = &self.room.sums[at..][..GATES * PANEL];
        let mut total = [[V::splat(0.0); PARTS]; GATES];
        for (gate, lines) in total.iter_mut().zip(sums.chunks_exact(PANEL)) {
            for (part, values) in gate.iter_mut().zip(lines.chunks_exact(V::LANES)) {
                // SAFETY: as many values as lanes.
                *part = unsafe { V::load(values.as_ptr()) };
            }
        }
        [total; ROWS]
    }
}

/// A state as whole numbers, for the products with a [`PackedI16`].
struct FixedState<'a> {
    weights: &'a PackedI16,
    /// As in [`Room`].
    words: &'a [i32],
    /// What a whole number of the state stands for.
    unit: f32,
}

/// Ones in odd lanes.
static ODD: [f32; 16] =
    [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];

/// The largest lane.
#[inline(always)]
fn largest<V: Vector>(lanes: V) -> f32 {
    let mut most = lanes;
    if V::LANES > 8 {
        most = most.max(most.exchange::<8>());
    }
    if V::LANES > 4 {
        most = most.max(most.exchange::<4>());
    }
    most = most.max(most.exchange::<2>());
    most.max(most.exchange::<1>()).first()
}

impl<'a> FixedState<'a> {
    /// Rounds a state to 2^-21 of its largest magnitude. A state that is not finite gives NaN.
    ///
    /// # Safety
    /// The state has as many values as the weights have units, and as many words in whole registers.
    #[inline(always)]
    unsafe fn of<V: Vector>(
        weights: &'a PackedI16,
        state: *const f32,
        words: &'a mut [i32],
    ) -> Self {
        let hidden = weights.hidden;
        // SAFETY: the caller's promise.
        unsafe {
            let values = |at: usize| V::load_upto(state.add(at), hidden - at);
            let mut most = V::splat(0.0);
            for at in (0..hidden).step_by(V::LANES) {
                most = values(at).abs().max(most);
            }
            let most = largest(most);
            let inverse = if most < LEAST { 0.0 } else { STATE_MOST / most };
            let odd = V::less(V::splat(0.5), V::load(ODD.as_ptr()));
            // Zero, or NaN where a value is not finite.
            let mut poison = V::splat(0.0);
            for at in (0..hidden).step_by(V::LANES) {
                poison = values(at).mul_add(V::splat(0.0), poison);
                let whole = (values(at) * V::splat(inverse)).round_even();
                let high = (whole * V::splat(1.0 / PART)).round_even();
                let low = V::from_bits(high.mul_add(V::splat(-PART), whole).to_int());
                let high = V::from_bits(high.to_int());
                // In even lanes the high parts of this lane and the next, in odd ones the low parts of the
                // one before and this.
                let lower = V::select(odd, low.exchange::<1>(), high).bits();
                let upper = V::select(odd, low, high.exchange::<1>()).bits();
                let lower = V::int_and(lower, V::int_splat(0xffff));
                let pair = V::from_bits(V::int_add(V::int_shift_left::<16>(upper), lower));
                pair.store(words.as_mut_ptr().add(at).cast());
            }
            let unit = if most < LEAST { 0.0 } else { most / STATE_MOST };
            FixedState { weights, words, unit: unit + poison.sum() }
        }
    }

    /// Writes the products with `GATES` gates of the block at `line`; `SPLIT` pairs at a time, so that
    /// additions overlap.
    ///
    /// # Safety
    /// Block and gates are inside the weights; `to` has room for 16 sums of each gate.
    #[inline(always)]
    unsafe fn block<V: Vector, const GATES: usize, const PARTS: usize, const SPLIT: usize>(
        &self,
        mut line: *const f32,
        to: *mut f32,
    ) {
        let step = self.weights.gates * PANEL;
        let (mut words, mut left) = (self.words.as_ptr(), pairs(self.weights.hidden));
        let mut total = [[V::splat(0.0); PARTS]; GATES];
        // SAFETY: the caller's promise; words are filled up as the weights are.
        unsafe {
            while left > 0 {
                let count = left.min(CHUNK / 2);
                let scales = line;
                line = line.add(step);
                for p in 0..PARTS {
                    let mut sums = [[[V::int_splat(0); 2]; GATES]; SPLIT];
                    let mut at = line.add(p * V::LANES);
                    let mut word = words;
                    for _ in 0..count / SPLIT {
                        for part in &mut sums {
                            let high = V::int_splat(*word);
                            let low = V::int_splat(*word.add(1));
                            for (g, [of_high, of_low]) in part.iter_mut().enumerate() {
                                let weights = V::int_load(at.add(g * PANEL).cast());
                                V::prefetch(at.wrapping_add(AHEAD * step + g * PANEL));
                                *of_high = V::int_add_pairs(*of_high, weights, high);
                                *of_low = V::int_add_pairs(*of_low, weights, low);
                            }
                            at = at.add(step);
                            word = word.add(2);
                        }
                    }
                    for (g, gate) in total.iter_mut().enumerate() {
                        // Without closures, which are not certain to be compiled for the set.
                        let [mut high, mut low] = sums[0][g];
                        for part in &sums[1..] {
                            high = V::int_add(high, part[g][0]);
                            low = V::int_add(low, part[g][1]);
                        }
                        let (high, low) = (V::from_int(high), V::from_int(low));
                        let scale = V::load(scales.add(g * PANEL + p * V::LANES));
                        gate[p] = high.mul_add(V::splat(PART), low).mul_add(scale, gate[p]);
                    }
                }
                line = line.add(count * step);
                words = words.add(2 * count);
                left -= count;
            }
            for (g, gate) in total.iter().enumerate() {
                for (p, sum) in gate.iter().enumerate() {
                    (*sum * V::splat(self.unit)).store(to.add(g * PANEL + p * V::LANES));
                }
            }
        }
    }
}
