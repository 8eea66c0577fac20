//! Products with weights of which whole lines are zero: lines of 16 columns by one f32 or four
//! bytes of K that are left, and where they belong.
//!
//! Sums are taken in the order of the dense kernels; what is left out would add zeros (which
//! differs only where an activation is infinite or not a number).

use std::ops::Range;

use lepton_tensor::Storage;

use crate::epilogue::{
    Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, store_dequantized, store_u8,
};
use crate::finish::{Finish, FinishReal, Sum};
use crate::gemm::Input;
use crate::isa::{self, Isa};
use crate::pack::{PANEL, PackedF32, PackedS8, PanelView};
use crate::tile::{Accumulators, Direct, PITCH, RowSource, WEIGHTS_IN_CACHE, even, resolver};

/// Bytes of a line.
const LINE: usize = 64;

/// The lines of packed weights that are not zero.
#[derive(Clone, Debug)]
pub struct SparseLines {
    lines: Storage,
    /// Bytes from the start of a row of A to what each line is multiplied with.
    offsets: Vec<u32>,
    /// First line of each panel, and the end of the last.
    starts: Vec<usize>,
    columns: usize,
    depth: usize,
}

/// The share of zero lines from which skipping them is faster, with a margin:
/// `benches/sparsity.md`.
pub(crate) const BREAK_EVEN: f64 = 0.45;

/// Lines looked at before all are: a few, since dense weights that come from a file would be read
/// from end to end to tell that they are dense.
const SAMPLE: usize = 32;

/// True if so many lines are zero that skipping them is faster. Weights of which less than a quarter of
/// that share is zero in a sample are taken for dense, as one in a hundred thousand would be for which
/// skipping pays.
fn skipping_pays(bytes: &[u8]) -> bool {
    let share = |step: usize| {
        let lines = bytes.chunks_exact(LINE).step_by(step);
        let count = lines.len().max(1) as f64;
        lines.filter(|line| line.iter().all(|&byte| byte == 0)).count() as f64 / count
    };
    // Odd, so that it meets every step of a panel's depth.
    let apart = (bytes.len() / LINE / SAMPLE) | 1;
    share(apart) >= BREAK_EVEN / 4.0 && share(1) >= BREAK_EVEN
}

impl SparseLines {
    /// The lines of f32 weights with one tap, if so few are left that skipping pays on `isa`.
    pub fn of_f32(isa: Isa, weights: &PackedF32) -> Option<Self> {
        let pays = isa.has_avx512() && weights.taps() == 1 && skipping_pays(weights.bytes());
        pays.then(|| Self::pack_f32(weights))
    }

    /// The lines of s8 weights with one tap of whole words, if so few are left that skipping them
    /// can pay on `isa`; see [`SparseLines::pays_s8`].
    pub fn of_s8(isa: Isa, weights: &PackedS8) -> Option<Self> {
        let view = weights.view();
        let whole = view.depth.is_multiple_of(4) && weights.merged_channels().is_none();
        let served = isa.has_avx512() && view.taps == 1 && whole;
        (served && skipping_pays(weights.bytes())).then(|| Self::pack_s8(weights))
    }

    /// True if skipping lines of s8 pays for products of so many rows: tiles, where they are, are
    /// several times as fast as vectors, the more rows the more; few rows wait for their own sums.
    pub fn pays_s8(&self, isa: Isa, rows: usize) -> bool {
        let all = self.depth.div_ceil(4) * (self.starts.len() - 1);
        let zeros = 1.0 - self.lines() as f64 / all.max(1) as f64;
        let least = match rows {
            0..=4 => 0.7,
            _ if !isa.has_amx() => BREAK_EVEN,
            5..=64 => 0.88,
            65..=256 => 0.95,
            _ => return false,
        };
        zeros >= least
    }

    /// The lines of f32 weights, however many are left.
    ///
    /// # Panics
    /// If the weights have more than one tap.
    pub fn pack_f32(weights: &PackedF32) -> Self {
        Self::pack(&weights.view(), weights.bytes())
    }

    /// The lines of s8 weights, however many are left.
    ///
    /// # Panics
    /// If the weights have more than one tap, or its depth is not a multiple of four.
    pub fn pack_s8(weights: &PackedS8) -> Self {
        assert!(weights.view().depth.is_multiple_of(4), "whole words");
        Self::pack(&weights.view(), weights.bytes())
    }

    fn pack(view: &PanelView, bytes: &[u8]) -> Self {
        assert!(view.taps == 1, "one tap");
        let (mut kept, mut offsets, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        for panel in bytes.chunks_exact((view.steps * LINE).max(1)) {
            for (step, line) in panel.chunks_exact(LINE).enumerate() {
                if line.iter().any(|&byte| byte != 0) {
                    kept.extend_from_slice(line);
                    offsets.push(u32::try_from(step * 4).expect("a row of less than 4 GiB"));
                }
            }
            starts.push(offsets.len());
        }
        let lines = Storage::copied(&kept);
        SparseLines { lines, offsets, starts, columns: view.columns, depth: view.depth }
    }

    /// Number of output columns N.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// K.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Lines that are left.
    pub fn lines(&self) -> usize {
        self.offsets.len()
    }

    /// The last of the panels from `first` on whose lines stay in L2 together, plus one.
    fn pass_end(&self, first: usize, end: usize) -> usize {
        let most = self.starts[first] + WEIGHTS_IN_CACHE / LINE;
        let fits = |&panel: &usize| self.starts[panel] <= most;
        (first + 1..=end).take_while(fits).last().unwrap_or(first + 1)
    }
}

/// One panel of some rows.
pub(crate) struct SparseTile<'a, A> {
    /// The rows, one address each.
    pub addresses: *const usize,
    pub lines: *const u8,
    /// For each line, bytes from the start of a row.
    pub offsets: &'a [u32],
    /// Rows of sums are [`crate::tile::BLOCK_STRIDE`] apart.
    pub accumulators: *mut A,
}

/// The kernels of an instruction set: most rows, and a panel of up to so many.
pub(crate) struct SparseMicro<A> {
    pub rows: usize,
    pub tile: unsafe fn(usize, &SparseTile<A>),
}

fn micro_f32(isa: Isa) -> &'static SparseMicro<f32> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return &isa::avx512::sparse::MICRO_F32;
    }
    let _ = isa;
    &isa::portable::sparse::MICRO_F32
}

fn micro_u8s8(isa: Isa) -> &'static SparseMicro<i32> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return &isa::avx512::sparse::MICRO_U8S8;
    }
    let _ = isa;
    &isa::portable::sparse::MICRO_U8S8
}

/// Walks rows and panels.
///
/// # Safety
/// The instruction set is there; rows are readable for the weights' depth.
unsafe fn run<A: Sum, T>(
    isa: Isa,
    micro: &SparseMicro<A>,
    input: &Input<T>,
    weights: &SparseLines,
    rows: Range<usize>,
    finish: impl Finish<A>,
) {
    assert!(input.rows.taps() == 1, "taps of the geometry");
    let mut source = Direct { input, resolver: resolver(isa) };
    let mut addresses = [0usize; PITCH];
    let mut storage = Accumulators::<A>::new();
    let accumulators = storage.pointer();
    let panels = weights.starts.len() - 1;
    let mut first = 0;
    while first < panels {
        let end = weights.pass_end(first, panels);
        let mut row = rows.start;
        while row < rows.end {
            let count = even(rows.end - row, micro.rows);
            // SAFETY: the caller's promise; there is a slot for each row.
            unsafe { source.addresses(row, count, 0..1, addresses.as_mut_ptr()) };
            for panel in first..end {
                let lines = weights.starts[panel]..weights.starts[panel + 1];
                let tile = SparseTile {
                    addresses: addresses.as_ptr(),
                    lines: weights.lines.bytes()[lines.start * LINE..].as_ptr(),
                    offsets: &weights.offsets[lines],
                    accumulators,
                };
                // SAFETY: offsets are inside rows of the weights' depth.
                unsafe { (micro.tile)(count, &tile) };
                let width = PANEL.min(weights.columns - panel * PANEL);
                let place = [row, panel * PANEL];
                finish.finish(&Block::new(accumulators, place, [count, width]), false);
            }
            row += count;
        }
        first = end;
    }
}

/// f32 product of rows of one tap and the lines that are left.
///
/// # Panics
/// If the geometry has taps, or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`](crate::gemm::gemm_f32), for all columns.
pub unsafe fn sparse_f32(
    isa: Isa,
    input: &Input<f32>,
    weights: &SparseLines,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
) {
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        let finish = FinishReal::new(isa, epilogue, output);
        run(isa, micro_f32(isa), input, weights, rows, finish);
    }
}

/// u8 × s8 product of rows of one tap and the lines that are left, requantised to u8.
///
/// # Panics
/// As [`sparse_f32`].
///
/// # Safety
/// As [`sparse_f32`].
pub unsafe fn sparse_u8s8(
    isa: Isa,
    input: &Input<u8>,
    weights: &SparseLines,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
    rows: Range<usize>,
) {
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        run(isa, micro_u8s8(isa), input, weights, rows, |block: &Block<i32>| {
            store_u8(isa, block, epilogue, output);
        });
    }
}

/// u8 × s8 product of rows of one tap and the lines that are left, scaled to f32.
///
/// # Panics
/// As [`sparse_f32`].
///
/// # Safety
/// As [`sparse_f32`].
pub unsafe fn sparse_u8s8_f32(
    isa: Isa,
    input: &Input<u8>,
    weights: &SparseLines,
    epilogue: &DequantizeF32,
    output: &Output<f32>,
    rows: Range<usize>,
) {
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        run(isa, micro_u8s8(isa), input, weights, rows, |block: &Block<i32>| {
            store_dequantized(isa, block, epilogue, output);
        });
    }
}
