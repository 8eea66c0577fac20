//! Products of states with the gates of a block of sixteen units, from f32 or bf16 on vectors, and
//! from bf16 on tiles.

#[cfg(target_arch = "x86_64")]
use super::RecurrentStep;
#[cfg(target_arch = "x86_64")]
use crate::isa::amx::recurrent as amx;
use crate::pack::{PANEL, PanelView};
use crate::vector::Vector;

/// What [`Products::of`] gives: for every row and gate the sums of a block's units.
pub(super) type Sums<V, const ROWS: usize, const GATES: usize, const PARTS: usize> =
    [[[V; PARTS]; GATES]; ROWS];

/// States, ready to be multiplied with a recurrent matrix.
pub(super) trait Products {
    /// Products of `ROWS` states with `GATES` gates of a block of units from gate `first` on, in
    /// `PARTS` registers each.
    ///
    /// # Safety
    /// Gates and block are inside the weights; the states were made for `ROWS` rows.
    unsafe fn of<V: Vector, const ROWS: usize, const GATES: usize, const PARTS: usize>(
        &self,
        block: usize,
        first: usize,
    ) -> Sums<V, ROWS, GATES, PARTS>;
}

/// The bits of a bf16 in the upper half of a word.
const HIGH_HALF: i32 = 0xffff_0000u32 as i32;

/// States as they are, with lines of f32 or (`HALF`) of bf16; `SPLIT` steps along K at a time, so that
/// additions overlap.
pub(super) struct Lines<const SPLIT: usize, const HALF: bool> {
    /// The weights.
    pub view: PanelView,
    /// Units H.
    pub hidden: usize,
    /// The first state; rows follow each other.
    pub states: *const f32,
}

impl<const SPLIT: usize, const HALF: bool> Products for Lines<SPLIT, HALF> {
    #[inline(always)]
    unsafe fn of<V: Vector, const ROWS: usize, const GATES: usize, const PARTS: usize>(
        &self,
        block: usize,
        first: usize,
    ) -> Sums<V, ROWS, GATES, PARTS> {
        let Lines { view, hidden, states } = self;
        let gate_stride = if HALF { hidden / 2 } else { *hidden } * PANEL;
        let mut sums = [[[[V::splat(0.0); PARTS]; GATES]; ROWS]; SPLIT];
        // SAFETY: the caller's promise.
        unsafe {
            let start = block * view.panel_bytes() / 4 + first * gate_stride;
            let mut line = view.weights.cast::<f32>().add(start);
            let mut from = *states;
            // What a line holds of each gate: one step along K, or two of bf16.
            macro_rules! multiply {
                ($part:expr) => {
                    for r in 0..ROWS {
                        let value = V::splat(*from.add(r * hidden));
                        let next = if HALF { V::splat(*from.add(r * hidden + 1)) } else { value };
                        for g in 0..GATES {
                            for p in 0..PARTS {
                                let weights = V::load(line.add(g * gate_stride + p * V::LANES));
                                let sum = &mut $part[r][g][p];
                                if HALF {
                                    let pair = weights.bits();
                                    let even = V::from_bits(V::int_shift_left::<16>(pair));
                                    let high = V::int_and(pair, V::int_splat(HIGH_HALF));
                                    let first = even.mul_add(value, *sum);
                                    *sum = V::from_bits(high).mul_add(next, first);
                                } else {
                                    *sum = weights.mul_add(value, *sum);
                                }
                            }
                        }
                    }
                    line = line.add(PANEL);
                    from = from.add(if HALF { 2 } else { 1 });
                };
            }
            let steps = if HALF { hidden / 2 } else { *hidden };
            for _ in 0..steps / SPLIT {
                for part in &mut sums {
                    multiply!(part);
                }
            }
            for _ in 0..steps % SPLIT {
                multiply!(sums[0]);
            }
        }
        added(&sums)
    }
}

/// The sums of all parts.
#[inline(always)]
fn added<V: Vector, const ROWS: usize, const GATES: usize, const PARTS: usize>(
    sums: &[Sums<V, ROWS, GATES, PARTS>],
) -> Sums<V, ROWS, GATES, PARTS> {
    let mut total = sums[0];
    for sum in &sums[1..] {
        for r in 0..ROWS {
            for g in 0..GATES {
                for p in 0..PARTS {
                    total[r][g][p] = total[r][g][p] + sum[r][g][p];
                }
            }
        }
    }
    total
}

/// The state of a single sequence as tiles multiply it.
#[cfg(target_arch = "x86_64")]
pub(super) struct TilesOfState {
    parts: Vec<u16>,
    view: PanelView,
    hidden: usize,
}

#[cfg(target_arch = "x86_64")]
impl TilesOfState {
    /// `None` where there are no tiles, or they do not fit: whole tiles of bf16, one sequence.
    pub fn of(step: &RecurrentStep<'_>, batch: usize) -> Option<Self> {
        let hidden = step.weights.hidden();
        let whole = hidden.is_multiple_of(amx::TILE) && batch == 1;
        let super::RecurrentMatrix::Bf16(weights) = step.weights else { return None };
        if !step.isa.has_amx() || !whole {
            return None;
        }
        let mut parts = vec![0; hidden * amx::PARTS];
        // SAFETY: the token proves tiles and AVX-512; the parts have their room.
        unsafe {
            amx::split(step.h, parts.as_mut_ptr());
            amx::configure();
        }
        Some(TilesOfState { parts, view: weights.view(), hidden })
    }
}

#[cfg(target_arch = "x86_64")]
impl Products for TilesOfState {
    #[inline(always)]
    unsafe fn of<V: Vector, const ROWS: usize, const GATES: usize, const PARTS: usize>(
        &self,
        block: usize,
        first: usize,
    ) -> Sums<V, ROWS, GATES, PARTS> {
        assert!(first == 0 && GATES >= 3, "tiles multiply three or four gates");
        let mut sums = [[[0.0; PANEL]; amx::PARTS]; 4];
        let weights = self.view.weights.wrapping_add(block * self.view.panel_bytes());
        let (tiles, gate_bytes) = (self.hidden / amx::TILE, self.hidden / 2 * PANEL * 4);
        let parts = self.parts.as_ptr();
        // SAFETY: the tiles were configured; the caller's promise.
        unsafe { amx::products(parts, tiles, weights, gate_bytes, GATES == 4, &mut sums) };
        let mut total = [[[V::splat(0.0); PARTS]; GATES]; ROWS];
        for g in 0..GATES {
            let [high, middle, low] = &sums[g];
            // SAFETY: 16 floats each.
            let (high, middle, low) = unsafe {
                (V::load(high.as_ptr()), V::load(middle.as_ptr()), V::load(low.as_ptr()))
            };
            total[0][g][0] = high + (middle + low);
        }
        total
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for TilesOfState {
    fn drop(&mut self) {
        // SAFETY: it was made where there are tiles.
        unsafe {
            amx::release();
        }
    }
}
