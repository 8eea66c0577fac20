//! Products of one row, whose time is that of reading the weights: panels one after the other,
//! because a cache gives one run of lines faster than several. Weights of f32 can be kept in 24 bits.
//!
//! The weights of a column are whole numbers with a scale. Four steps along K are three lines of
//! 32-bit words: the upper 24 bits of a word are the weight of one of the first three steps, the low
//! bytes of all three make that of the fourth. Words are multiplied as they are: what their low
//! bytes add was known when the upper bits were chosen, so no weight is off by more than 2^-23 of
//! the column's largest.

use std::ops::Range;

use lepton_tensor::Storage;

use crate::epilogue::{Block, EpilogueF32, Output};
use crate::finish::{Finish, FinishReal, InRegisters};
use crate::isa::{self, Isa};
use crate::pack::{LINE, PANEL, PanelView, WeightOrder};
use crate::sparse::BREAK_EVEN;
use crate::stored::Pack;
use crate::tile::{Accumulators, Ahead, RowSource};

/// What a column's largest weight becomes: words stay inside 32 bits with any low byte.
const MOST: f64 = ((1u32 << 31) - (1 << 9)) as f64;
/// A column whose weights are all smaller counts as zeros: the inverse of its scale has to be finite.
const LEAST: f32 = 1e-25;
/// Rounding may change the weights of a column by this share of their length: 2^-21.
const SHARE: f64 = 1.0 / (1 << 21) as f64;
/// Steps along K that share three lines.
const GROUP: usize = 4;

/// f32 weights `[K, N]` in 24 bits: for each panel a line of scales (f32), then three lines for
/// every four steps of K, which is filled up with zeros.
#[derive(Clone, Debug)]
pub struct Packed24 {
    lines: Storage,
    columns: usize,
    depth: usize,
}

impl Packed24 {
    /// Packs `weights` laid out as `order` says. `None` where there is more than one tap, where
    /// rounding would change the weights of a column by more than 2^-21 of their length (Euclidean),
    /// where a weight is not finite, and where so many lines are zero that skipping them pays.
    ///
    /// # Panics
    /// If `order` reaches beyond `weights`.
    pub fn pack(weights: &[f32], order: &WeightOrder) -> Option<Self> {
        assert!(order.extent() <= weights.len(), "the order reaches beyond the weights");
        if order.taps != 1 || zero_share(weights, order) >= BREAK_EVEN {
            return None;
        }
        let (columns, depth) = (order.columns, order.depth);
        let mut lines = Storage::zeroed(columns.div_ceil(PANEL) * panel_bytes(depth));
        let mut column = vec![0.0; depth.next_multiple_of(GROUP)];
        for (first, panel) in lines.make_mut().chunks_exact_mut(panel_bytes(depth)).enumerate() {
            let first = first * PANEL;
            for n in first..columns.min(first + PANEL) {
                for (k, weight) in column[..depth].iter_mut().enumerate() {
                    *weight = weights[n * order.column_stride + k * order.depth_stride];
                }
                if !pack_column(&column, panel.as_chunks_mut().0, n - first) {
                    return None;
                }
            }
        }
        Some(Packed24 { lines, columns, depth })
    }

    /// Number of output columns N.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// K.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// All lines.
    pub fn bytes(&self) -> &[u8] {
        self.lines.bytes()
    }
}

impl Pack for Packed24 {
    type Order = WeightOrder;

    fn stored(&self) -> Vec<Storage> {
        vec![self.lines.clone()]
    }

    fn load(order: &WeightOrder, stored: &[Storage]) -> Option<Self> {
        let [lines] = stored else { return None };
        let WeightOrder { columns, depth, .. } = *order;
        let bytes = columns.div_ceil(PANEL) * panel_bytes(depth);
        if lines.bytes().len() != bytes || order.taps != 1 {
            return None;
        }
        let lines = lines.clone().aligned(LINE);
        Some(Packed24 { lines, columns, depth })
    }
}

/// Bytes of a panel.
fn panel_bytes(depth: usize) -> usize {
    (1 + depth.div_ceil(GROUP) * 3) * LINE
}

/// The share of lines, 16 columns by a step of K, that are zero.
fn zero_share(weights: &[f32], order: &WeightOrder) -> f64 {
    let zero = |first: usize, k: usize| {
        let at = |n: usize| n * order.column_stride + k * order.depth_stride;
        (first..order.columns.min(first + PANEL)).all(|n| weights[at(n)] == 0.0)
    };
    let of_panel = |first: usize| (0..order.depth).filter(|&k| zero(first, k)).count();
    let zeros: usize = (0..order.columns).step_by(PANEL).map(of_panel).sum();
    zeros as f64 / (order.columns.div_ceil(PANEL) * order.depth).max(1) as f64
}

/// The fourth weight of a group of words.
pub(crate) fn fourth([first, second, third]: [i32; 3]) -> i32 {
    first << 24 ^ second << 16 ^ third << 8
}

/// Writes a column, of whole groups, into the lines of its panel; false if its weights do not fit.
fn pack_column(column: &[f32], panel: &mut [[u8; LINE]], lane: usize) -> bool {
    let most = column.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    let scale = if most < LEAST { 0.0 } else { (f64::from(most) / MOST) as f32 };
    let inverse = if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 };
    let (scales, lines) = panel.split_first_mut().expect("a line of scales");
    scales.as_chunks_mut().0[lane] = scale.to_le_bytes();
    let (mut changed, mut length) = (0.0, 0.0);
    for (weights, lines) in column.as_chunks::<GROUP>().0.iter().zip(lines.chunks_exact_mut(3)) {
        let words = words(weights.map(|weight| f64::from(weight) * inverse));
        for (line, word) in lines.iter_mut().zip(words) {
            line.as_chunks_mut().0[lane] = word.to_le_bytes();
        }
        let held = [words[0], words[1], words[2], fourth(words)];
        for (&weight, word) in weights.iter().zip(held) {
            let weight = f64::from(weight);
            changed += (weight - f64::from(word as f32) * f64::from(scale)).powi(2);
            length += weight * weight;
        }
    }
    // Not so where a sum is not a number.
    changed <= length * SHARE * SHARE
}

/// The words of four weights. The third's low byte is part of the fourth weight as it is, those
/// before are chosen so that [`fourth`] cancels what it shifts in of the later ones.
fn words([first, second, third, last]: [f64; GROUP]) -> [i32; 3] {
    let word = |weight: f64, low: i32| {
        let low = low & 0xff;
        (((weight - f64::from(low)) / 256.0).round_ties_even() as i32) << 8 | low
    };
    let last = word(last, 0);
    let third = word(third, last >> 8);
    let second = word(second, (last ^ third << 8) >> 16);
    let first = word(first, (last ^ third << 8 ^ second << 16) >> 24);
    [first, second, third]
}

/// A row and some panels.
pub(crate) struct SingleRow<T> {
    pub row: *const T,
    pub depth: usize,
    /// The panels' first line.
    pub lines: *const u8,
    pub panels: usize,
    /// Lines to bring into the cache meanwhile, and bytes further on with every line.
    pub ahead: *const u8,
    pub ahead_step: usize,
}

/// f32 product of one row and weights in 24 bits, for a range of columns; `columns` as for
/// [`gemm_f32`](crate::gemm::gemm_f32).
///
/// # Panics
/// If columns or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// The row is readable for the weights' depth; `output` and the residual cover `columns` of row 0;
/// nobody else touches that part of the output meanwhile.
pub unsafe fn single_f32(
    isa: Isa,
    row: *const f32,
    weights: &Packed24,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    columns: Range<usize>,
) {
    assert!(columns.start.is_multiple_of(PANEL) && columns.end <= weights.columns, "columns");
    let (depth, count) = (weights.depth, columns.len());
    let lines = weights.bytes()[columns.start / PANEL * panel_bytes(depth)..].as_ptr();
    let (panels, ahead) = (count.div_ceil(PANEL), lines);
    let single = SingleRow { row, depth, lines, panels, ahead, ahead_step: 0 };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        let finish = FinishReal::new(isa, epilogue, output);
        match finish.in_registers([0, columns.start], count) {
            Some(first) => {
                finish_panels(isa, &single, first);
                let block = Block::new(std::ptr::null_mut(), [0, columns.start], [1, count]);
                finish.finish(&block, true);
            }
            None => sum_panels(&single, columns, finish),
        }
    }
}

/// Panels finished from registers.
///
/// # Safety
/// `isa` finishes sums in registers; the panels, the row and what is finished are there.
unsafe fn finish_panels(isa: Isa, single: &SingleRow<f32>, finish: InRegisters) {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        // SAFETY: the token proves the instruction set; the rest is the caller's promise.
        return unsafe { isa::avx512::single::panels_24(single, finish) };
    }
    let _ = (single, finish);
    unreachable!("{isa} does not finish in registers")
}

/// Panels of `columns` in plain Rust, each handed to `finish`.
///
/// # Safety
/// The panels, the row and what is finished are there.
unsafe fn sum_panels(single: &SingleRow<f32>, columns: Range<usize>, finish: impl Finish<f32>) {
    let mut storage = Accumulators::<f32>::new();
    for panel in 0..single.panels {
        let column = columns.start + panel * PANEL;
        // SAFETY: the caller's promise; the accumulators have room for a panel.
        unsafe {
            let lines = single.lines.add(panel * panel_bytes(single.depth));
            let row = std::slice::from_raw_parts(single.row, single.depth);
            let sums = isa::portable::single::panel(row, lines.cast());
            storage.pointer().cast::<[f32; PANEL]>().write(sums);
        }
        let size = [1, PANEL.min(columns.end - column)];
        finish.finish(&Block::new(storage.pointer(), [0, column], size), false);
    }
}

/// u8 × s8 product of a row of `source` and a range of columns, finished from registers; false
/// where that cannot be, because there are taps, rows are copied, or sums are finished otherwise.
///
/// # Safety
/// As [`crate::walk::run`].
pub(crate) unsafe fn single_u8s8(
    isa: Isa,
    source: &impl RowSource,
    view: &PanelView,
    row: usize,
    columns: Range<usize>,
    after: Ahead,
    finish: &impl Finish<i32>,
) -> bool {
    assert!(columns.start.is_multiple_of(PANEL) && columns.end <= view.columns, "columns");
    let (place, size) = ([row, columns.start], [1, columns.len()]);
    let rows = source.strided().filter(|_| view.taps == 1);
    let (Some((base, stride)), Some(first)) = (rows, finish.in_registers(place, columns.len()))
    else {
        return false;
    };
    let lines = view.weights.wrapping_add(columns.start / PANEL * view.panel_bytes());
    let panels = columns.len().div_ceil(PANEL);
    let mut ahead = after.over(panels * view.steps, 4);
    let step = ahead.in_four * 16;
    let (ahead, ahead_step) = ahead.take(usize::MAX / 64).map_or((lines, 0), |next| (next, step));
    let row = std::ptr::with_exposed_provenance(base + row * stride);
    let single = SingleRow { row, depth: view.depth, lines, panels, ahead, ahead_step };
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        // SAFETY: the token proves the instruction set; the rest is the caller's promise.
        unsafe { isa::avx512::single::panels_u8s8(&single, first) };
        finish.finish(&Block::new(std::ptr::null_mut(), place, size), true);
        return true;
    }
    let _ = (single, first);
    unreachable!("{isa} does not finish in registers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_four_weights() {
        let mut state = 1u64;
        for _ in 0..10_000 {
            let weights = [(); GROUP].map(|()| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let share = (state >> 11) as f64 / (1u64 << 53) as f64;
                (2.0 * share - 1.0) * MOST
            });
            let words = words(weights);
            let held = [words[0], words[1], words[2], fourth(words)];
            for (weight, word) in weights.iter().zip(held) {
                assert!((weight - f64::from(word)).abs() <= 128.0, "{weight} {word}");
            }
        }
        for most in [MOST, -MOST] {
            let words = words([most; GROUP]);
            let held = [words[0], words[1], words[2], fourth(words)];
            assert!(held.iter().all(|&word| (most - f64::from(word)).abs() <= 128.0), "{words:?}");
        }
        assert_eq!(words([0.0; GROUP]), [0; 3]);
    }

    #[test]
    fn only_weights_that_stay_near_are_packed() {
        let order = WeightOrder::matrix(64, 3);
        let mut weights: Vec<f32> = (0..64 * 3).map(|i| (i as f32).sin()).collect();
        let packed = Packed24::pack(&weights, &order).unwrap();
        assert_eq!([packed.columns(), packed.depth()], [3, 64]);
        let stored = packed.stored();
        assert_eq!(Packed24::load(&order, &stored).unwrap().bytes(), packed.bytes());
        assert!(Packed24::load(&WeightOrder::matrix(68, 3), &stored).is_none());
        for broken in [f32::NAN, f32::INFINITY] {
            let mut weights = weights.clone();
            weights[5] = broken;
            assert!(Packed24::pack(&weights, &order).is_none(), "{broken}");
        }
        // What rounding takes from many small weights adds up beside a single large one.
        let long = WeightOrder::matrix(1 << 14, 1);
        let mut column: Vec<f32> = (0..1 << 14).map(|i| (i as f32).sin() / 1000.0).collect();
        assert!(Packed24::pack(&column, &long).is_some());
        column[5] = 1.0;
        assert!(Packed24::pack(&column, &long).is_none());
        weights[..96].fill(0.0);
        assert!(Packed24::pack(&weights, &order).is_none(), "half of the lines are zero");
    }
}
