//! Tiles of a matrix product: row addresses in, blocks of accumulators out.
//!
//! Tile kernels compute a few rows by a few panels of columns into a block of accumulators in L1;
//! the epilogue takes it from there. The rows of A are addresses, one for each row and tap.

use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use crate::conv::{Resolver, SharedPixels};
use crate::finish::Sum;
use crate::gemm::Input;
use crate::isa::{self, Isa};
use crate::offsets::LINE_BYTES;
use crate::pack::{PANEL, PanelView};
use crate::panel::{EvenRows, PanelMicro, PixelLine};
use crate::real::Real;

/// Most rows in a tile, over all instruction sets.
pub(crate) const TILE_ROWS: usize = 16;
/// Address slots per tap: tile rows rounded up for vector stores.
pub(crate) const PITCH: usize = 16;
/// Taps whose addresses are resolved at a time.
pub(crate) const TAP_BLOCK: usize = 64;
/// Elements between accumulator rows: four panels.
pub(crate) const BLOCK_STRIDE: usize = 4 * PANEL;
/// Weights that stay in L2 while rows pass by, in bytes.
pub(crate) const WEIGHTS_IN_CACHE: usize = 512 << 10;

/// One call of a tile kernel.
pub(crate) struct Tile<A: Sum> {
    /// `[tap][PITCH]` row addresses.
    pub addresses: *const usize,
    pub taps: usize,
    /// Elements per tap.
    pub depth: usize,
    /// The first tap's first line in the first panel.
    pub weights: *const u8,
    pub panel_bytes: usize,
    /// Rows are `BLOCK_STRIDE` apart.
    pub accumulators: *mut A,
    /// Add to the accumulators instead of overwriting them.
    pub accumulate: bool,
    /// Lines to bring into the cache meanwhile, and bytes further on with every step; where there
    /// are none, a line that is in it.
    pub ahead: *const u8,
    pub ahead_step: usize,
    /// What to do with the sums instead of storing them as accumulators.
    pub finish: Option<A::InRegisters>,
}

impl<A: Sum> Tile<A> {
    /// Where the rows begin in a tap.
    ///
    /// # Safety
    /// Addresses of `ROWS` rows are there.
    #[inline(always)]
    pub unsafe fn rows<T, const ROWS: usize>(&self, tap: usize) -> [*const T; ROWS] {
        let mut rows = [std::ptr::null(); ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *row =
                std::ptr::with_exposed_provenance(unsafe { *self.addresses.add(tap * PITCH + r) });
        }
        rows
    }
}

/// What is read after the weights at hand: brought near while they are worked on, because memory
/// is slower than arithmetic and would otherwise wait for it to end.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    next: *const u8,
    bytes: usize,
    /// Lines in four steps.
    pub in_four: usize,
    /// True where the weights at hand are in cache already.
    pub near: bool,
}

/// Bytes brought near at most: they share L2 with the weights at hand.
const AHEAD_BYTES: usize = 768 << 10;

impl Ahead {
    /// Those bytes, or nothing.
    pub fn of(bytes: &[u8]) -> Self {
        Ahead { next: bytes.as_ptr(), bytes: bytes.len().min(AHEAD_BYTES), in_four: 4, near: false }
    }

    /// Nothing, and what is at hand was written a moment ago.
    pub fn nothing_far() -> Self {
        Ahead { near: true, ..Ahead::of(&[]) }
    }

    /// The weights of a later pass, if there is one.
    pub fn of_pass(view: &PanelView, panels: Range<usize>) -> Option<Self> {
        let next = view.weights.wrapping_add(panels.start * view.panel_bytes());
        let bytes = panels.len() * view.panel_bytes();
        (!panels.is_empty()).then_some(Ahead { next, bytes, in_four: 4, near: false })
    }

    /// The same, spread over so many steps as evenly as can be, at most so many lines in four of
    /// them: memory that is asked faster than it answers makes other loads wait.
    pub fn over(self, steps: usize, most: usize) -> Self {
        let lines = self.bytes / 64;
        let enough = |in_four: &usize| steps * in_four >= lines * 4;
        Ahead { in_four: [1, 2].into_iter().find(enough).unwrap_or(most), ..self }
    }

    /// Where the next `lines` lines begin, if any are left.
    pub fn take(&mut self, lines: usize) -> Option<*const u8> {
        if self.bytes == 0 {
            return None;
        }
        let taken = self.next;
        let bytes = (lines * 64).min(self.bytes);
        self.next = self.next.wrapping_add(bytes);
        self.bytes -= bytes;
        Some(taken)
    }
}

/// The tile kernels of one instruction set for one element type.
pub(crate) struct Micro<A: Sum> {
    /// Most panels at once, by number of rows - 1; as long as the most rows.
    pub panels: &'static [usize],
    /// Computes (rows, panels); panels is 1, 2 or 4.
    pub tile: unsafe fn(usize, usize, &Tile<A>),
    /// Those of many short tiles, where there are any.
    pub panel: Option<&'static PanelMicro<A>>,
}

/// Gives a tile its row addresses.
pub(crate) trait RowSource {
    /// Writes the addresses of `count` rows for `taps`.
    ///
    /// # Safety
    /// `addresses` has `PITCH` slots per tap; rows and taps are inside the geometry.
    unsafe fn addresses(
        &mut self,
        row: usize,
        count: usize,
        taps: Range<usize>,
        addresses: *mut usize,
    );

    /// The address of row 0 and the bytes between rows, where rows lie evenly.
    fn strided(&self) -> Option<(usize, usize)> {
        None
    }

    /// True if rows are copied before they are read, each time anew.
    fn copies(&self) -> bool {
        false
    }

    /// True if a tall tile's rows evict each other from L1.
    fn rows_collide(&self) -> bool {
        false
    }

    /// Where neighbours in a line of output share pixels.
    fn shared(&self) -> Option<SharedPixels> {
        None
    }

    /// The pixels that lines of three taps read for `count` neighbours from `row` on, which is the
    /// `x`th of its line of output.
    ///
    /// # Safety
    /// There are [`RowSource::shared`] pixels, and the rows are in one line of output.
    unsafe fn pixel_lines(
        &self,
        [row, x]: [usize; 2],
        count: usize,
        lines: &mut [MaybeUninit<PixelLine>],
    ) {
        let _ = (row, x, count, lines);
        unreachable!("no rows that share pixels")
    }

    /// How many rows from `row` on lie evenly, and how, if any.
    fn even(&self, row: usize) -> Option<(usize, EvenRows)> {
        let _ = row;
        None
    }
}

/// Rows read where they lie.
pub(crate) struct Direct<'a, T> {
    pub input: &'a Input<'a, T>,
    pub resolver: Resolver,
}

impl<T> RowSource for Direct<'_, T> {
    unsafe fn addresses(
        &mut self,
        row: usize,
        count: usize,
        taps: Range<usize>,
        addresses: *mut usize,
    ) {
        let Input { base, rows, padding } = *self.input;
        // SAFETY: the caller's promise.
        unsafe {
            rows.resolve(self.resolver, base, padding, row, count, taps, addresses, PITCH);
        }
    }

    fn strided(&self) -> Option<(usize, usize)> {
        let stride = self.input.rows.stride()? * size_of::<T>();
        Some((self.input.base.expose_provenance(), stride))
    }

    fn rows_collide(&self) -> bool {
        self.input.rows.rows_collide(size_of::<T>())
    }

    fn shared(&self) -> Option<SharedPixels> {
        self.input.rows.shared()
    }

    unsafe fn pixel_lines(
        &self,
        place: [usize; 2],
        count: usize,
        lines: &mut [MaybeUninit<PixelLine>],
    ) {
        let Input { base, rows, padding } = *self.input;
        rows.pixel_lines(base, padding, place, count, lines);
    }

    fn even(&self, row: usize) -> Option<(usize, EvenRows)> {
        let (first, row_step) = self.strided().filter(|_| !self.rows_collide())?;
        let even = EvenRows { first: first + row * row_step, row_step, tap_step: 0 };
        Some((usize::MAX, even))
    }
}

/// Bytes of gathered rows that are kept: several tiles, so that rows are in L1 and no longer on
/// their way there when a tile reads them.
const GATHERED: usize = 16 << 10;

/// Rows whose few channels per tap are first gathered into one contiguous run.
pub(crate) struct Gathered<'a> {
    direct: Direct<'a, u8>,
    channels: usize,
    /// The last row anybody will ask for, plus one.
    end: usize,
    /// The rows in `scratch`.
    held: Range<usize>,
    /// Bytes of a row, with those that fill its last word.
    row_bytes: usize,
    scratch: [u8; GATHERED + LINE_BYTES],
}

impl<'a> Gathered<'a> {
    /// Gathers rows before `end` of `channels` bytes a tap.
    pub fn new(direct: Direct<'a, u8>, channels: usize, end: usize) -> Self {
        let row_bytes = (direct.input.rows.taps() * channels).next_multiple_of(4);
        assert!(row_bytes * TILE_ROWS <= GATHERED, "the longest row that is merged");
        Gathered {
            direct,
            channels,
            end,
            held: 0..0,
            row_bytes,
            scratch: [0; GATHERED + LINE_BYTES],
        }
    }

    /// Elements of a row: weights behind the last are zero.
    pub fn depth(&self) -> usize {
        self.row_bytes
    }

    /// Fills the scratch with the rows from `row` on.
    ///
    /// # Safety
    /// As [`RowSource::addresses`], for all taps.
    unsafe fn gather<const CHANNELS: usize>(&mut self, row: usize) {
        self.held = row..self.end.min(row + GATHERED / self.row_bytes);
        let Input { base, rows, padding } = *self.direct.input;
        let to = self.scratch.as_mut_ptr();
        // SAFETY: the caller's promise; the rows and what may be written behind them are inside
        // the scratch.
        unsafe { rows.gather::<CHANNELS>(base, padding, self.held.clone(), to, self.row_bytes) };
    }
}

impl RowSource for Gathered<'_> {
    fn copies(&self) -> bool {
        true
    }

    unsafe fn addresses(
        &mut self,
        row: usize,
        count: usize,
        _taps: Range<usize>,
        addresses: *mut usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if row < self.held.start || row + count > self.held.end {
                match self.channels {
                    1 => self.gather::<1>(row),
                    2 => self.gather::<2>(row),
                    _ => self.gather::<3>(row),
                }
            }
            let first = self.scratch.as_ptr().expose_provenance();
            for r in 0..count {
                *addresses.add(r) = first + (row + r - self.held.start) * self.row_bytes;
            }
        }
    }
}

/// Rows whose taps are copied, as bf16, one after the other: what vectors multiply.
pub(crate) struct Rounded<'a, T> {
    isa: Isa,
    direct: Direct<'a, T>,
    /// Elements of a tap.
    depth: usize,
    /// The tile's rows, [`TILE_ROWS`] runs.
    scratch: Vec<bf16>,
}

impl<'a, T: Real> Rounded<'a, T> {
    /// Rows of `input` with taps of `depth` elements.
    pub fn new(isa: Isa, input: &'a Input<'a, T>, depth: usize) -> Self {
        let direct = Direct { input, resolver: resolver(isa) };
        let scratch = vec![bf16::ZERO; input.rows.taps() * depth * TILE_ROWS];
        Rounded { isa, direct, depth, scratch }
    }
}

impl<T: Real> RowSource for Rounded<'_, T> {
    fn copies(&self) -> bool {
        true
    }

    unsafe fn addresses(
        &mut self,
        row: usize,
        count: usize,
        _taps: Range<usize>,
        addresses: *mut usize,
    ) {
        let taps = self.direct.input.rows.taps();
        let pitch = taps * self.depth;
        let mut from = [0usize; TAP_BLOCK * PITCH];
        for first in (0..taps).step_by(TAP_BLOCK) {
            let block = first..taps.min(first + TAP_BLOCK);
            // SAFETY: the caller's promise; there is room for a block.
            unsafe { self.direct.addresses(row, count, block.clone(), from.as_mut_ptr()) };
            for i in 0..block.len() {
                for r in 0..count {
                    let tap: *const T = std::ptr::with_exposed_provenance(from[i * PITCH + r]);
                    let at = r * pitch + (first + i) * self.depth;
                    // SAFETY: a tap is readable for its depth by the caller's promise.
                    let values = unsafe { std::slice::from_raw_parts(tap, self.depth) };
                    T::round(self.isa, values, &mut self.scratch[at..at + self.depth]);
                }
            }
        }
        let base = self.scratch.as_ptr().expose_provenance();
        for r in 0..count {
            // SAFETY: r < count ≤ PITCH.
            unsafe { *addresses.add(r) = base + r * pitch * size_of::<bf16>() };
        }
    }
}

/// Accumulators of one tile.
#[repr(align(64))]
pub(crate) struct Accumulators<A>([MaybeUninit<A>; TILE_ROWS * BLOCK_STRIDE]);

impl<A> Accumulators<A> {
    pub fn new() -> Self {
        Accumulators([const { MaybeUninit::uninit() }; TILE_ROWS * BLOCK_STRIDE])
    }

    pub fn pointer(&mut self) -> *mut A {
        self.0.as_mut_ptr().cast()
    }
}

/// Rows of the next tile, so that `left` rows fall into even tiles of at most `most`.
pub(crate) fn even(left: usize, most: usize) -> usize {
    left.div_ceil(left.div_ceil(most))
}

/// The most panels (4, 2 or 1) that fit a tile of `count` rows and the panels left.
pub(crate) fn tile_panels<A: Sum>(micro: &Micro<A>, count: usize, left: usize) -> usize {
    match micro.panels.get(count - 1).map_or(1, |&most| most.min(left)) {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}

/// How an instruction set turns offsets into addresses.
pub(crate) fn resolver(isa: Isa) -> Resolver {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return isa::avx512::addresses::resolve;
    }
    let _ = isa;
    isa::portable::gemm::resolve
}
