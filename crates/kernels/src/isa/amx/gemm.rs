//! Products on AMX tiles, bytes or bf16: 32 rows by 32 columns at a time.
//!
//! Sixteen lines of a panel are one tile of B as they lie. Rows of A are gathered, taps one after
//! the other, into runs that are filled up with zeros to whole tiles; plain rows of whole tiles
//! are read where they lie.

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::epilogue::Block;
use crate::pack::{PANEL, PanelView};
use crate::tile::{Ahead, BLOCK_STRIDE, PITCH, RowSource, TAP_BLOCK, TILE_ROWS, WEIGHTS_IN_CACHE};

/// Rows of a block: two tiles.
pub(super) const ROWS: usize = 2 * TILE_ROWS;
/// Lines brought near for each step of a tall tile.
const LINES_AHEAD: usize = 4;
/// Bytes of gathered rows that are kept from pass to pass.
const ROWS_IN_CACHE: usize = 768 << 10;
/// Fewest rows for which tiles of bytes are faster than vectors, which waste no rows.
const FEWEST_ROWS: usize = 6;
/// Fewest multiply–adds for each gathered byte, times the bytes of a tap, for which gathering pays.
const GATHER_PAYS: usize = 2048;

/// True where tiles of bytes were measured to be faster than vectors.
pub(crate) fn pays(source: &impl RowSource, view: &PanelView, rows: usize, columns: usize) -> bool {
    let gathered = source.strided().is_none();
    let enough = !gathered || columns * view.depth >= GATHER_PAYS;
    rows >= FEWEST_ROWS && columns > PANEL && view.depth > 0 && enough
}

/// What is brought near while tiles are multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Fetch {
    /// Everything is near.
    Nothing,
    /// [`LINES_AHEAD`] lines for each tile of K, from that address on.
    Lines(*const u8),
    /// The panels themselves, some tiles behind those at hand: nobody has read them yet.
    Behind,
}

/// What is multiplied: how rows are read, and how tiles of them are multiplied.
pub(crate) trait Form {
    /// Sums are kept as.
    type Sum;
    /// Bytes of an element where rows lie.
    const READ: usize;
    /// Bytes of an element in a tile.
    const BYTES: usize;

    /// Copies elements into a run.
    ///
    /// # Safety
    /// `count` elements are readable, and as many writable, rounded up to a multiple of 64 bytes.
    unsafe fn copy(from: *const u8, to: *mut u8, count: usize);

    /// Sums over `tiles` tiles of K: 32 rows (`tall`) or 16 by two panels.
    ///
    /// # Safety
    /// Tiles are configured; rows, lines and sums are there.
    unsafe fn multiply(
        rows: RowsAt,
        panels: [*const u8; 2],
        tiles: usize,
        tall: bool,
        sums: *mut Self::Sum,
        fetch: Fetch,
    );
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Sums of a block.
#[repr(align(64))]
pub(super) struct Sums<S>(pub(super) [MaybeUninit<S>; ROWS * BLOCK_STRIDE]);

/// How taps lie in gathered rows.
#[derive(Clone, Copy)]
pub(crate) struct Taps {
    pub count: usize,
    /// Elements of a tap.
    pub depth: usize,
    /// Bytes from tap to tap in a tile.
    pub bytes: usize,
    /// Taps of a line of the kernel, where they read neighbours that lie one behind the other;
    /// otherwise 1.
    pub line: usize,
}

impl Taps {
    /// Taps that are gathered at a time.
    fn at_once(self) -> usize {
        TAP_BLOCK / self.line * self.line
    }

    /// Tiles that hold a row.
    fn tiles(self) -> usize {
        (self.count * self.bytes).div_ceil(64)
    }

    /// Bytes from a gathered row to the next: an odd number of lines, so that rows spread over the sets
    /// of L1. A row of several blocks of taps ends after the next has begun, so zeros behind its last tap
    /// must not reach the next.
    fn pitch(self) -> usize {
        let behind = if self.count > self.at_once() { 63 } else { 0 };
        ((self.count * self.bytes + behind).div_ceil(64) | 1) * 64
    }
}

/// Where the rows of a block lie.
#[derive(Clone, Copy)]
pub(crate) struct RowsAt {
    first: *const u8,
    stride: usize,
}

thread_local! {
    /// Gathered rows; kept, because a product of a small model takes only microseconds.
    static GATHERED: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// How many rows of how many bytes each tile has.
#[repr(C, align(64))]
pub(super) struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Sums in tiles 0 to 3, rows of A in 4 and 5, and B in 6 and 7: so many lines of K.
    pub(super) const fn of_depth(lines: usize) -> Self {
        let (bytes, lines) = (lines as u16 * 4, lines as u8);
        Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [64, 64, 64, 64, bytes, bytes, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [16, 16, 16, 16, 16, 16, lines, lines, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// The same with so many rows of A, and of sums, in every tile of them.
    pub(super) const fn of_rows(rows: usize) -> Self {
        let rows = rows as u8;
        let whole = Configuration::of_depth(16);
        let few = [rows, rows, rows, rows, rows, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0];
        Configuration { rows: few, ..whole }
    }

    /// Makes the tiles so.
    ///
    /// # Safety
    /// [`super::available`] was true; at most 16 lines.
    pub(super) unsafe fn load(&self) {
        // SAFETY: the caller's promise; the configuration is 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, readonly)) };
    }
}

static FULL_TILES: Configuration = Configuration::of_depth(16);

/// Makes every tile 16 rows of 64 bytes.
///
/// # Safety
/// [`super::available`] was true.
pub(crate) unsafe fn configure() {
    // SAFETY: the caller's promise.
    unsafe { FULL_TILES.load() };
}

/// Walks the blocks of `rows` × `columns`, and hands each to `finish`. What comes `after` is brought
/// near meanwhile.
///
/// # Safety
/// As [`crate::walk::run`] with rows as the form reads them, and [`super::available`] was true.
pub(crate) unsafe fn run<F: Form>(
    source: &mut impl RowSource,
    taps: Taps,
    view: &PanelView,
    rows: Range<usize>,
    columns: Range<usize>,
    mut after: Ahead,
    finish: impl Fn(&Block<F::Sum>),
) {
    assert!(columns.start.is_multiple_of(PANEL) && columns.end <= view.columns, "columns");
    if taps.count == 0 || rows.is_empty() || columns.is_empty() {
        return;
    }
    let (tiles, pitch) = (taps.tiles(), taps.pitch());
    let in_place = in_place::<F>(source, taps);
    // Short rows that are read where they lie fill only a part of a tile.
    let tile_lines = in_place.map_or(16, |_| (taps.depth * F::BYTES / 4).min(16));
    let panels = columns.start / PANEL..columns.end.div_ceil(PANEL);
    let panels_per_pass = (WEIGHTS_IN_CACHE * 2 / view.panel_bytes().max(64)).max(4) / 4 * 4;
    // Several passes gather once, if the rows stay in cache.
    let keep = panels.len() > panels_per_pass && rows.len() * pitch <= ROWS_IN_CACHE;
    let mut sums = Sums([const { MaybeUninit::<F::Sum>::uninit() }; ROWS * BLOCK_STRIDE]);
    let sums = sums.0.as_mut_ptr().cast::<F::Sum>();
    GATHERED.with_borrow_mut(|room| {
        let runs = if keep { rows.len().next_multiple_of(ROWS) } else { ROWS };
        let lines = (runs * pitch) / 64 + 1;
        if room.len() < lines {
            room.resize(lines, Line([0; 64]));
        }
        let room = room.as_mut_ptr().cast::<u8>();
        // SAFETY: tiles are available by the caller's promise.
        unsafe { Configuration::of_depth(tile_lines).load() };
        for first_panel in panels.clone().step_by(panels_per_pass) {
            let pass = first_panel..panels.end.min(first_panel + panels_per_pass);
            for row in rows.clone().step_by(ROWS) {
                let count = (rows.end - row).min(ROWS);
                let kept = if keep { (row - rows.start) * pitch } else { 0 };
                let fresh = !keep || first_panel == panels.start;
                // SAFETY: the room has the runs of the rows that are kept, at least `ROWS`, and a
                // line behind them.
                let at = unsafe {
                    let room = room.add(kept);
                    rows_at::<F>(source, taps, in_place, row..row + count, (room, pitch), fresh)
                };
                for panel in pass.clone().step_by(4) {
                    let wide = (pass.end - panel).min(4);
                    let fetch = || fetched(&mut after, row == rows.start, tiles);
                    // SAFETY: panels are inside the view, and lines behind the last are readable;
                    // sums have room for 32 rows of four panels.
                    unsafe {
                        let first = view.weights.add(panel * view.panel_bytes());
                        let panels = Panels { first, bytes: view.panel_bytes(), count: wide };
                        multiply_panels::<F>(at, panels, tiles, count > TILE_ROWS, sums, fetch);
                    }
                    let column = panel * PANEL;
                    let width = (wide * PANEL).min(columns.end - column);
                    finish(&Block::new(sums, [row, column], [count, width]));
                }
            }
        }
        // SAFETY: as for the configuration.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    });
}

/// What a block of so many tiles brings near: weights are far until the first rows have read them.
fn fetched(after: &mut Ahead, is_first: bool, tiles: usize) -> Fetch {
    match is_first && !after.near {
        true => Fetch::Behind,
        false => after.take(tiles * LINES_AHEAD).map_or(Fetch::Nothing, Fetch::Lines),
    }
}

/// Where rows lie that tiles can read as they are, whole tiles or one that is shorter: the address
/// of the first, and bytes between.
fn in_place<F: Form>(source: &impl RowSource, taps: Taps) -> Option<(usize, usize)> {
    let bytes = taps.depth * F::BYTES;
    let whole = bytes.is_multiple_of(64) || bytes < 64 && bytes.is_multiple_of(4);
    let fits = whole && taps.count == 1 && F::READ == F::BYTES;
    source.strided().filter(|&(_, stride)| fits && !stride.is_multiple_of(4096))
}

/// Where the rows of a block are read: where they lie, if they do so evenly and fill the block, else
/// in the room, whose runs are `pitch` apart and gathered unless they are still there.
///
/// # Safety
/// As [`gather`].
unsafe fn rows_at<F: Form>(
    source: &mut impl RowSource,
    taps: Taps,
    in_place: Option<(usize, usize)>,
    rows: Range<usize>,
    (room, pitch): (*mut u8, usize),
    fresh: bool,
) -> RowsAt {
    if let Some((base, stride)) = in_place.filter(|_| rows.len() == ROWS) {
        let first = std::ptr::with_exposed_provenance(base + rows.start * stride);
        return RowsAt { first, stride };
    }
    if fresh {
        // SAFETY: the caller's promise.
        unsafe { gather::<F>(source, taps, rows.start, rows.len(), room, pitch) };
    }
    RowsAt { first: room, stride: pitch }
}

/// Up to four neighbouring panels.
struct Panels {
    first: *const u8,
    bytes: usize,
    count: usize,
}

/// Sums of a block of rows with a few panels, two at a time.
///
/// # Safety
/// As [`Form::multiply`], for every pair of panels.
unsafe fn multiply_panels<F: Form>(
    rows: RowsAt,
    panels: Panels,
    tiles: usize,
    tall: bool,
    sums: *mut F::Sum,
    mut fetch: impl FnMut() -> Fetch,
) {
    for pair in (0..panels.count).step_by(2) {
        let second = usize::from(pair + 1 < panels.count);
        // SAFETY: the caller's promise.
        unsafe {
            let b0 = panels.first.add(pair * panels.bytes);
            let b1 = b0.add(second * panels.bytes);
            F::multiply(rows, [b0, b1], tiles, tall, sums.add(pair * PANEL), fetch());
        }
    }
}

/// True if `line` taps of `bytes` each lie one behind the other. Taps in the padding, which have
/// one address, are the first or the last of a line: two at either end tell.
#[inline(always)]
fn is_run(line: usize, bytes: usize, address: impl Fn(usize) -> usize) -> bool {
    let (first, last) = (address(0), address(line - 1));
    line == 1
        || last == first.wrapping_add((line - 1) * bytes)
            && address(1) == first + bytes
            && address(line - 2) == last.wrapping_sub(bytes)
}

/// Copies the taps of rows one after the other, `pitch` bytes a row, zeros to the end of the tile.
///
/// # Safety
/// The rows are readable; `room` has `ROWS` runs of `pitch` and 64 bytes behind them.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn gather<F: Form>(
    source: &mut impl RowSource,
    taps: Taps,
    row: usize,
    count: usize,
    room: *mut u8,
    pitch: usize,
) {
    let (last_tile, at_once) = ((taps.tiles() - 1) * 64, taps.at_once());
    let mut addresses = [const { MaybeUninit::<usize>::uninit() }; TAP_BLOCK * PITCH];
    let addresses = addresses.as_mut_ptr().cast::<usize>();
    for half in (0..count).step_by(TILE_ROWS) {
        let rows = (count - half).min(TILE_ROWS);
        for first in (0..taps.count).step_by(at_once) {
            let block = first..taps.count.min(first + at_once);
            // SAFETY: rows and taps are the geometry's; every run ends inside the room. A copy
            // writes zeros over what follows it: the next tap, the next row, which is not begun, or nothing.
            unsafe {
                source.addresses(row + half, rows, block.clone(), addresses);
                for r in 0..rows {
                    let run = room.add((half + r) * pitch);
                    if first == 0 {
                        run.add(last_tile).cast::<[u8; 64]>().write([0; 64]);
                    }
                    let address = |tap: usize| *addresses.add(tap * PITCH + r);
                    for line in (0..block.len()).step_by(taps.line) {
                        let to = run.add((first + line) * taps.bytes);
                        let whole = is_run(taps.line, taps.depth * F::READ, |i| address(line + i));
                        let (taps_of_run, runs) =
                            if whole { (taps.line, 1) } else { (1, taps.line) };
                        for i in 0..runs {
                            let from = std::ptr::with_exposed_provenance(address(line + i));
                            F::copy(from, to.add(i * taps.bytes), taps_of_run * taps.depth);
                        }
                    }
                }
            }
        }
    }
}

/// The loop over tiles of K for 32 rows; what is between the products of tiles fetches. Tiles of B
/// are loaded as passing by, so that they leave those of A in L1.
macro_rules! tall_loop {
    ($product:literal, [$a0:ident, $a1:ident, $stride:ident], [$b0:ident, $b1:ident],
        $tiles:ident, [$sums:ident, $below:ident], $ahead:ident,
        $first:expr, $second:expr, $third:expr, $fourth:expr) => {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {stride}*1]",
            "tileloaddt1 tmm6, [{b0} + {line}*1]",
            "tileloaddt1 tmm7, [{b1} + {line}*1]",
            "tileloadd tmm5, [{a1} + {stride}*1]",
            concat!($product, " tmm0, tmm4, tmm6"), $first,
            concat!($product, " tmm1, tmm4, tmm7"), $second,
            concat!($product, " tmm2, tmm5, tmm6"), $third,
            concat!($product, " tmm3, tmm5, tmm7"), $fourth,
            "add {ahead}, 256",
            "add {a0}, 64", "add {a1}, 64", "add {b0}, 1024", "add {b1}, 1024",
            "dec {tiles}", "jnz 2b",
            "tilestored [{sums} + {pitch}*1], tmm0",
            "tilestored [{sums} + {pitch}*1 + 64], tmm1",
            "tilestored [{below} + {pitch}*1], tmm2",
            "tilestored [{below} + {pitch}*1 + 64], tmm3",
            a0 = inout(reg) $a0 => _, a1 = inout(reg) $a1 => _, b0 = inout(reg) $b0 => _,
            b1 = inout(reg) $b1 => _, tiles = inout(reg) $tiles => _, stride = in(reg) $stride,
            line = in(reg) 64usize, pitch = in(reg) BLOCK_STRIDE * 4, sums = in(reg) $sums,
            below = in(reg) $below, ahead = inout(reg) $ahead => _, options(nostack),
        )
    };
}

/// The same for 16 rows.
macro_rules! short_loop {
    ($product:literal, [$a0:ident, $stride:ident], [$b0:ident, $b1:ident], $tiles:ident,
        $sums:ident, $first:expr, $second:expr) => {
        asm!(
            "tilezero tmm0", "tilezero tmm1",
            "2:",
            "tileloadd tmm4, [{a0} + {stride}*1]",
            "tileloaddt1 tmm6, [{b0} + {line}*1]",
            "tileloaddt1 tmm7, [{b1} + {line}*1]",
            concat!($product, " tmm0, tmm4, tmm6"), $first,
            concat!($product, " tmm1, tmm4, tmm7"), $second,
            "add {a0}, 64", "add {b0}, 1024", "add {b1}, 1024",
            "dec {tiles}", "jnz 2b",
            "tilestored [{sums} + {pitch}*1], tmm0",
            "tilestored [{sums} + {pitch}*1 + 64], tmm1",
            a0 = inout(reg) $a0 => _, b0 = inout(reg) $b0 => _, b1 = inout(reg) $b1 => _,
            tiles = inout(reg) $tiles => _, stride = in(reg) $stride, line = in(reg) 64usize,
            pitch = in(reg) BLOCK_STRIDE * 4, sums = in(reg) $sums, options(nostack),
        )
    };
}

/// Lines of a panel, eight tiles behind those at hand.
macro_rules! lines_behind {
    ($panel:literal: $($line:literal)*) => {
        concat!($("prefetcht1 [{", $panel, "} + 8192 + 64*", $line, "]\n"),*)
    };
}

/// [`Form::multiply`] with one product instruction.
macro_rules! multiply_by {
    ($sum:ty, $product:literal) => {
        unsafe fn multiply(
            rows: RowsAt,
            [b0, b1]: [*const u8; 2],
            tiles: usize,
            tall: bool,
            sums: *mut $sum,
            fetch: Fetch,
        ) {
            let (a0, stride) = (rows.first, rows.stride);
            let (a1, below) = (a0.wrapping_add(TILE_ROWS * stride), sums.wrapping_add(TILE_ROWS * BLOCK_STRIDE));
            // SAFETY: the caller's promise; what is fetched is never an access.
            unsafe {
                match (tall, fetch) {
                    (true, Fetch::Nothing) => {
                        tall_loop!($product, [a0, a1, stride], [b0, b1], tiles, [sums, below], b0, "", "", "", "");
                    }
                    (true, Fetch::Lines(ahead)) => {
                        tall_loop!(
                            $product, [a0, a1, stride], [b0, b1], tiles, [sums, below], ahead,
                            "prefetcht1 [{ahead}]", "prefetcht1 [{ahead} + 64]",
                            "prefetcht1 [{ahead} + 128]", "prefetcht1 [{ahead} + 192]"
                        );
                    }
                    (true, Fetch::Behind) => {
                        tall_loop!(
                            $product, [a0, a1, stride], [b0, b1], tiles, [sums, below], b0,
                            lines_behind!("b0": 0 1 2 3 4 5 6 7), lines_behind!("b0": 8 9 10 11 12 13 14 15),
                            lines_behind!("b1": 0 1 2 3 4 5 6 7), lines_behind!("b1": 8 9 10 11 12 13 14 15)
                        );
                    }
                    (false, Fetch::Behind) => {
                        short_loop!(
                            $product, [a0, stride], [b0, b1], tiles, sums,
                            lines_behind!("b0": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
                            lines_behind!("b1": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
                        );
                    }
                    (false, _) => {
                        short_loop!($product, [a0, stride], [b0, b1], tiles, sums, "", "");
                    }
                }
            }
        }
    };
}

/// u8 by s8, sums in s32.
pub(crate) struct Bytes;

impl Form for Bytes {
    type Sum = i32;
    const READ: usize = 1;
    const BYTES: usize = 1;

    #[inline(always)]
    unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { copy_bytes(from, to, count) }
    }

    multiply_by!(i32, "tdpbusd");
}

/// bf16 by bf16, sums in f32.
pub(crate) struct Halves;

impl Form for Halves {
    type Sum = f32;
    const READ: usize = 2;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { copy_bytes(from, to, count * 2) }
    }

    multiply_by!(f32, "tdpbf16ps");
}

/// f32, rounded to bf16 where it is gathered, by bf16; sums in f32.
pub(crate) struct Rounded;

impl Form for Rounded {
    type Sum = f32;
    const READ: usize = 4;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { round(from.cast(), to, count) }
    }

    multiply_by!(f32, "tdpbf16ps");
}

/// # Safety
/// `count` bytes are readable, and writable up to the next multiple of 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn copy_bytes(from: *const u8, to: *mut u8, count: usize) {
    let mut done = 0;
    while done < count {
        let left = count - done;
        let mask = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
        // SAFETY: the mask keeps reads inside; writes are the caller's promise.
        unsafe {
            let bytes = _mm512_maskz_loadu_epi8(mask, from.add(done).cast());
            _mm512_storeu_si512(to.add(done).cast(), bytes);
        }
        done += 64;
    }
}

/// # Safety
/// `count` floats are readable, and as many bf16 writable, rounded up to a multiple of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn round(from: *const f32, to: *mut u8, count: usize) {
    let mut done = 0;
    // SAFETY: masks keep reads inside; writes are the caller's promise.
    unsafe {
        while done + 32 <= count {
            let (low, high) =
                (_mm512_loadu_ps(from.add(done)), _mm512_loadu_ps(from.add(done + 16)));
            let halves: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(to.add(done * 2).cast(), halves);
            done += 32;
        }
        if done < count {
            let mask = (1u32 << (count - done)) - 1;
            let low = _mm512_maskz_loadu_ps(mask as u16, from.add(done));
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(done + 16));
            let halves: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(to.add(done * 2).cast(), halves);
        }
    }
}
