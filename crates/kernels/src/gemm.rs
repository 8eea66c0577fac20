//! Matrix products over indirect rows: what plain products and convolutions have in common.
//!
//! Tile kernels compute a few rows by a few panels of columns into a block of accumulators in L1;
//! the epilogue takes it from there. The rows of A are addresses, one for each row and tap.

use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use crate::conv::{Indirection, Resolver};
use crate::epilogue::{
    Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, store_bf16, store_dequantized,
    store_f32, store_s32, store_u8,
};
use crate::isa::{self, Isa};
use crate::pack::{PANEL, PackedBf16, PackedF32, PackedS8, PanelView};

/// Most rows in a tile, over all instruction sets.
pub(crate) const TILE_ROWS: usize = 16;
/// Address slots per tap: tile rows rounded up for vector stores.
pub(crate) const PITCH: usize = 16;
/// Taps whose addresses are resolved at a time.
pub(crate) const TAP_BLOCK: usize = 64;
/// Elements between accumulator rows: four panels.
pub(crate) const BLOCK_STRIDE: usize = 4 * PANEL;
/// Weights that stay in L2 while rows pass by, in bytes.
const WEIGHTS_IN_CACHE: usize = 512 << 10;

/// The rows of A.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, T> {
    /// First element of the first image (or of the first channel of a group).
    pub base: *const T,
    /// Where each row's taps start.
    pub rows: &'a Indirection,
    /// As many elements as a tap is deep, read for taps in the padding: zeros, or the zero point.
    /// Not read by plain matrix products.
    pub padding: *const T,
}

/// One call of a tile kernel.
pub(crate) struct Tile<A> {
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
}

/// The tile kernels of one instruction set for one element type.
pub(crate) struct Micro<A> {
    /// Most panels at once, by number of rows - 1; as long as the most rows.
    pub panels: &'static [usize],
    /// Computes (rows, panels); panels is 1, 2 or 4.
    pub tile: unsafe fn(usize, usize, &Tile<A>),
    /// Computes up to `TILE_ROWS` rows of one panel in a line of output whose three taps across
    /// share pixels, so that each value is broadcast once instead of three times.
    pub narrow: Option<unsafe fn(usize, &Tile<A>)>,
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

    /// The output width where neighbours share pixels; see `Indirection::shared_width`.
    fn shared_width(&self) -> Option<usize>;
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

    fn shared_width(&self) -> Option<usize> {
        self.input.rows.shared_width()
    }
}

/// Rows whose few channels per tap are first gathered into one contiguous run.
struct Gathered<'a> {
    direct: Direct<'a, u8>,
    channels: usize,
    scratch: [MaybeUninit<u8>; TILE_ROWS * PackedS8::MERGED_LIMIT],
}

impl Gathered<'_> {
    /// Copies `CHANNELS` bytes of each tap of each row.
    ///
    /// # Safety
    /// As [`RowSource::addresses`], for all taps.
    unsafe fn gather<const CHANNELS: usize>(&mut self, row: usize, count: usize) {
        let mut addresses = [MaybeUninit::<usize>::uninit(); TAP_BLOCK * PITCH];
        let addresses = addresses.as_mut_ptr().cast::<usize>();
        let all = self.direct.input.rows.taps();
        for first in (0..all).step_by(TAP_BLOCK) {
            let taps = first..all.min(first + TAP_BLOCK);
            // SAFETY: TAP_BLOCK · PITCH slots; a row's copies fill taps · CHANNELS ≤ MERGED_LIMIT.
            unsafe {
                self.direct.addresses(row, count, taps.clone(), addresses);
                for r in 0..count {
                    let to = self.scratch.as_mut_ptr().cast::<u8>();
                    let to = to.add(r * PackedS8::MERGED_LIMIT + first * CHANNELS);
                    for tap in 0..taps.len() {
                        let from = *addresses.add(tap * PITCH + r);
                        let from = std::ptr::with_exposed_provenance::<[u8; CHANNELS]>(from);
                        to.add(tap * CHANNELS).cast::<[u8; CHANNELS]>().write(from.read());
                    }
                }
            }
        }
    }
}

impl RowSource for Gathered<'_> {
    unsafe fn addresses(
        &mut self,
        row: usize,
        count: usize,
        _taps: Range<usize>,
        addresses: *mut usize,
    ) {
        // SAFETY: the caller's promise; `count ≤ TILE_ROWS` rows of scratch.
        unsafe {
            match self.channels {
                1 => self.gather::<1>(row, count),
                2 => self.gather::<2>(row, count),
                _ => self.gather::<3>(row, count),
            }
            let first = self.scratch.as_ptr().expose_provenance();
            for r in 0..count {
                *addresses.add(r) = first + r * PackedS8::MERGED_LIMIT;
            }
        }
    }

    fn shared_width(&self) -> Option<usize> {
        None
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

/// Walks the tiles of `rows` × `columns`, and hands each finished block to `finish`.
///
/// # Safety
/// The micro-kernels' instruction set is there; the source's rows are readable for `view.depth`
/// elements per tap; `columns` starts on a panel and ends inside `view.columns`.
pub(crate) unsafe fn run<A>(
    micro: &Micro<A>,
    source: &mut impl RowSource,
    view: &PanelView,
    rows: Range<usize>,
    columns: Range<usize>,
    finish: impl Fn(&Block<A>),
) {
    assert!(columns.start.is_multiple_of(PANEL) && columns.end <= view.columns, "columns");
    if view.taps == 0 || rows.is_empty() || columns.is_empty() {
        return;
    }
    let mut address_slots = [MaybeUninit::<usize>::uninit(); TAP_BLOCK * PITCH];
    let addresses = address_slots.as_mut_ptr().cast::<usize>();
    let mut storage = Accumulators::<A>::new();
    let accumulators = storage.pointer();
    let panels = columns.start / PANEL..columns.end.div_ceil(PANEL);
    let one_panel = panels.len() == 1 && view.taps <= TAP_BLOCK;
    let narrow = micro.narrow.filter(|_| one_panel).zip(source.shared_width());
    let panels_per_pass = (WEIGHTS_IN_CACHE / view.panel_bytes().max(64)).max(4) / 4 * 4;
    for first_panel in panels.clone().step_by(panels_per_pass) {
        let end_panel = panels.end.min(first_panel + panels_per_pass);
        let mut row = rows.start;
        while row < rows.end {
            let (left, most) = match narrow {
                Some((_, width)) => ((rows.end - row).min(width - row % width), TILE_ROWS),
                None => (rows.end - row, micro.panels.len()),
            };
            let count = left.div_ceil(left.div_ceil(most));
            let mut resolved = usize::MAX;
            let mut panel = first_panel;
            while panel < end_panel {
                let wide = tile_panels(micro, count, end_panel - panel);
                for tap in (0..view.taps).step_by(TAP_BLOCK) {
                    let taps = tap..view.taps.min(tap + TAP_BLOCK);
                    // SAFETY: addresses and accumulators have room for a tile; the panels are
                    // inside the view; rows are readable by the caller's promise.
                    unsafe {
                        if resolved != tap {
                            source.addresses(row, count, taps.clone(), addresses);
                            resolved = tap;
                        }
                        let line = panel * view.panel_bytes() + tap * view.steps * 64;
                        let tile = Tile {
                            addresses,
                            taps: taps.len(),
                            depth: view.depth,
                            weights: view.weights.add(line),
                            panel_bytes: view.panel_bytes(),
                            accumulators,
                            accumulate: tap > 0,
                        };
                        match narrow {
                            Some((kernel, _)) => kernel(count, &tile),
                            None => (micro.tile)(count, wide, &tile),
                        }
                    }
                }
                let column = panel * PANEL;
                finish(&Block {
                    accumulators,
                    stride: BLOCK_STRIDE,
                    rows: count,
                    columns: (wide * PANEL).min(columns.end - column),
                    row,
                    column,
                });
                panel += wide;
            }
            row += count;
        }
    }
}

/// The most panels (4, 2 or 1) that fit a tile of `count` rows and the panels left.
fn tile_panels<A>(micro: &Micro<A>, count: usize, left: usize) -> usize {
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
        return isa::avx512::epilogue::resolve;
    }
    let _ = isa;
    isa::portable::gemm::resolve
}

/// The f32 tile kernels of an instruction set.
fn micro_f32(isa: Isa) -> &'static Micro<f32> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return &isa::avx512::gemm_f32::MICRO;
    } else if isa.has_avx2() {
        return &isa::avx2::gemm_f32::MICRO;
    }
    let _ = isa;
    &isa::portable::gemm::MICRO_F32
}

/// The u8 × s8 tile kernels of an instruction set.
fn micro_u8s8(isa: Isa) -> &'static Micro<i32> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return &isa::avx512::gemm_u8s8::MICRO;
    } else if isa.has_avx2() {
        return &isa::avx2::gemm_u8s8::MICRO;
    }
    let _ = isa;
    &isa::portable::gemm::MICRO_U8S8
}

/// The bf16 tile kernels of an instruction set.
fn micro_bf16(isa: Isa) -> &'static Micro<f32> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_bf16() {
        return &isa::avx512::gemm_bf16::MICRO;
    }
    let _ = isa;
    &isa::portable::gemm::MICRO_BF16
}

/// Checks that a geometry and its weights belong together.
fn check_taps(rows: &Indirection, taps: usize) {
    assert_eq!(rows.taps(), taps, "taps of the geometry and of the weights");
}

/// f32 product of indirect rows and packed weights, for a range of rows and of columns.
///
/// `columns` starts at a multiple of [`PANEL`] and ends at one, or at N.
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// Every tap of `rows` is readable from `input` for the weights' depth, `input.padding` too where
/// the geometry has padding; `output` and the residual cover `rows` × `columns`; nobody else
/// touches that part of the output meanwhile.
pub unsafe fn gemm_f32(
    isa: Isa,
    input: &Input<f32>,
    weights: &PackedF32,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    check_taps(input.rows, weights.taps());
    let mut source = Direct { input, resolver: resolver(isa) };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        run(micro_f32(isa), &mut source, &weights.view(), rows, columns, |block| {
            store_f32(isa, block, epilogue, output);
        });
    }
}

/// The u8 × s8 product up to its s32 accumulators.
///
/// # Safety
/// As [`gemm_u8s8`].
unsafe fn run_u8s8(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    rows: Range<usize>,
    columns: Range<usize>,
    finish: impl Fn(&Block<i32>),
) {
    let view = weights.view();
    let mut direct = Direct { input, resolver: resolver(isa) };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        match weights.merged_channels() {
            None => {
                check_taps(input.rows, view.taps);
                run(micro_u8s8(isa), &mut direct, &view, rows, columns, finish);
            }
            Some(channels) => {
                check_taps(input.rows, view.depth / channels);
                let scratch = [MaybeUninit::uninit(); TILE_ROWS * PackedS8::MERGED_LIMIT];
                let mut source = Gathered { direct, channels, scratch };
                run(micro_u8s8(isa), &mut source, &view, rows, columns, finish);
            }
        }
    }
}

/// u8 × s8 product of indirect rows and packed weights, requantised to u8.
///
/// Exact on every instruction set; `columns` as for [`gemm_f32`].
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_u8s8(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        run_u8s8(isa, input, weights, rows, columns, |block| {
            store_u8(isa, block, epilogue, output);
        });
    }
}

/// u8 × s8 product of indirect rows and packed weights, scaled to f32.
///
/// The integer part is exact on every instruction set; `columns` as for [`gemm_f32`].
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_u8s8_f32(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    epilogue: &DequantizeF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        run_u8s8(isa, input, weights, rows, columns, |block| {
            store_dequantized(isa, block, epilogue, output);
        });
    }
}

/// u8 × s8 product of indirect rows and packed weights as s32, with an optional bias per column.
///
/// Exact on every instruction set; `columns` as for [`gemm_f32`].
///
/// # Panics
/// If columns, taps or the bias do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_u8s8_s32(
    isa: Isa,
    input: &Input<u8>,
    weights: &PackedS8,
    bias: Option<&[i32]>,
    output: &Output<i32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        run_u8s8(isa, input, weights, rows, columns, |block| store_s32(block, bias, output));
    }
}

/// bf16 product of indirect rows and packed weights, accumulated in f32; `columns` as for
/// [`gemm_f32`]. Native where [`Isa::has_bf16`], otherwise emulated, slowly.
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_bf16_f32(
    isa: Isa,
    input: &Input<bf16>,
    weights: &PackedBf16,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    check_taps(input.rows, weights.taps());
    let mut source = Direct { input, resolver: resolver(isa) };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        run(micro_bf16(isa), &mut source, &weights.view(), rows, columns, |block| {
            store_f32(isa, block, epilogue, output);
        });
    }
}

/// [`gemm_bf16_f32`] with results rounded to bf16 after the epilogue; the residual is f32.
///
/// # Panics
/// If columns, taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_bf16(
    isa: Isa,
    input: &Input<bf16>,
    weights: &PackedBf16,
    epilogue: &EpilogueF32,
    output: &Output<bf16>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    check_taps(input.rows, weights.taps());
    let mut source = Direct { input, resolver: resolver(isa) };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        run(micro_bf16(isa), &mut source, &weights.view(), rows, columns, |block| {
            store_bf16(isa, block, epilogue, output);
        });
    }
}

/// Floats of scratch that [`pack_f32`] needs for a K × N matrix.
pub fn scratch_f32(depth: usize, columns: usize) -> usize {
    depth * columns.next_multiple_of(PANEL)
}

/// Packs a matrix of activations into scratch for [`gemm_f32_scratch`]: `[K, N]` with rows
/// `row_stride` apart or, transposed, `[N, K]`.
///
/// # Panics
/// If the scratch is shorter than [`scratch_f32`].
///
/// # Safety
/// The matrix is readable.
pub unsafe fn pack_f32(
    isa: Isa,
    matrix: *const f32,
    row_stride: usize,
    transposed: bool,
    depth: usize,
    columns: usize,
    scratch: &mut [f32],
) {
    let scratch = &mut scratch[..scratch_f32(depth, columns)];
    if depth == 0 {
        return;
    }
    for (panel, lines) in scratch.chunks_exact_mut(depth * PANEL).enumerate() {
        let width = (columns - panel * PANEL).min(PANEL);
        // SAFETY: the panel's columns are inside the matrix; lines hold depth · PANEL floats.
        unsafe {
            if transposed {
                let from = matrix.add(panel * PANEL * row_stride);
                transpose_panel(isa, from, row_stride, depth, width, lines);
            } else {
                for (k, line) in lines.chunks_exact_mut(PANEL).enumerate() {
                    let from = matrix.add(k * row_stride + panel * PANEL);
                    std::ptr::copy_nonoverlapping(from, line.as_mut_ptr(), width);
                    line[width..].fill(0.0);
                }
            }
        }
    }
}

/// Turns `width` rows of `depth` floats into lines of [`PANEL`].
///
/// # Safety
/// The rows are readable.
unsafe fn transpose_panel(
    isa: Isa,
    from: *const f32,
    row_stride: usize,
    depth: usize,
    width: usize,
    lines: &mut [f32],
) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx2() && width == PANEL {
        // SAFETY: the token proves the instruction set; the rows are readable.
        done = unsafe { isa::avx2::gemm_f32::transpose_panel(from, row_stride, depth, lines) };
    }
    let _ = isa;
    for (k, line) in lines.chunks_exact_mut(PANEL).enumerate().skip(done) {
        for (n, value) in line.iter_mut().enumerate() {
            // SAFETY: row n < width of the matrix.
            *value = if n < width { unsafe { *from.add(n * row_stride + k) } } else { 0.0 };
        }
    }
}

/// [`gemm_f32`] with one tap and B from [`pack_f32`]: both operands are activations.
///
/// # Panics
/// If columns or the epilogue's vectors do not fit, or the scratch is too short.
///
/// # Safety
/// As [`gemm_f32`].
pub unsafe fn gemm_f32_scratch(
    isa: Isa,
    input: &Input<f32>,
    scratch: &[f32],
    depth: usize,
    width: usize,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    assert!(input.rows.taps() == 1 && scratch.len() >= scratch_f32(depth, width), "scratch");
    let weights = scratch.as_ptr().cast();
    let view = PanelView { weights, columns: width, taps: 1, depth, steps: depth };
    let mut source = Direct { input, resolver: resolver(isa) };
    // SAFETY: the token proves the instruction set; the rest is the caller's promise.
    unsafe {
        run(micro_f32(isa), &mut source, &view, rows, columns, |block| {
            store_f32(isa, block, epilogue, output);
        });
    }
}
