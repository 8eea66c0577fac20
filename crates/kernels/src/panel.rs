//! Products whose tiles are short work, because they are of one panel of columns or of little depth:
//! rows that lie evenly, or that are neighbours in a line of output, are told by a few addresses, and
//! a kernel computes many tiles, one below the other, in one call: the products of one and what is
//! done with the results of another then overlap.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::conv::SharedPixels;
use crate::epilogue::Block;
use crate::finish::{Finish, Movable, Sum};
use crate::pack::{PANEL, PanelView};
use crate::tile::{Ahead, RowSource, TAP_BLOCK, TILE_ROWS, even};

/// Most rows of a tile of two panels.
pub(crate) const PAIR_ROWS: usize = 8;
/// Most rows of a tile of four panels.
pub(crate) const QUAD_ROWS: usize = 4;
/// Rows that lie evenly from which on such tiles are used: shorter runs leave parts of tiles.
const QUAD_RUN: usize = 16;
/// Most rows where they are of [`LITTLE_STEPS`] at most: two such tiles fit a processor's view.
const LITTLE_ROWS: usize = 6;
const LITTLE_STEPS: usize = 8;
/// Tiles of a call at most.
const MOST_TILES: usize = 64;
/// The same where rows share pixels.
const MOST_SHARED: usize = 16;
/// Lines of three taps of such a call at most.
const MOST_LINES: usize = MOST_SHARED * (TAP_BLOCK / 3);
/// Bytes of the weights of a tile's panels, and of its rows, that stay in L1 from tile to tile.
const PAIR_BYTES: usize = 42 << 10;
/// Bytes of rows and results that stay in L1 from some panels to the next.
const BLOCK_BYTES: usize = 24 << 10;

/// The pixels that a line of three taps reads for neighbouring rows, one or two pixels apart. Only
/// the first and the last may be in the padding.
#[derive(Clone, Copy, Default)]
pub(crate) struct PixelLine {
    /// The first row's first pixel.
    pub left: usize,
    /// The pixel after it.
    pub second: usize,
    /// The last row's last pixel.
    pub right: usize,
    /// Bytes between those that lie evenly.
    pub step: usize,
}

/// Rows that lie evenly.
#[derive(Clone, Copy, Default)]
pub(crate) struct EvenRows {
    /// The first row's first tap.
    pub first: usize,
    /// Bytes between rows, and between taps.
    pub row_step: usize,
    pub tap_step: usize,
}

/// One call of a kernel: tiles of as many rows, each below the one before.
#[derive(Clone, Copy)]
pub(crate) struct PanelTile<A: Sum> {
    pub tiles: usize,
    /// For rows that share pixels, one for three taps, tile by tile.
    pub lines: *const PixelLine,
    /// Pixels from such a row to the next, 1 or 2.
    pub pixel_step: usize,
    /// For others: where the first tile begins, and all of them where there are several.
    pub start: usize,
    pub starts: *const usize,
    /// Bytes between rows, and between taps.
    pub row_step: usize,
    pub tap_step: usize,
    pub taps: usize,
    /// Elements per tap.
    pub depth: usize,
    /// Lines `[tap][step]`.
    pub weights: *const u8,
    pub tap_bytes: usize,
    /// From a panel to the next.
    pub panel_bytes: usize,
    /// Lines to bring into the cache meanwhile, and bytes further on with every step.
    pub ahead: *const u8,
    pub ahead_step: usize,
    pub finish: A::InRegisters,
}

impl<A: Sum> PanelTile<A> {
    /// One tile of the panel that begins at `column`, not told yet where its rows are.
    fn new(view: &PanelView, column: usize, finish: A::InRegisters) -> Self {
        let weights = view.weights.wrapping_add(column / PANEL * view.panel_bytes());
        PanelTile {
            tiles: 1,
            lines: std::ptr::null(),
            pixel_step: 1,
            start: 0,
            starts: std::ptr::null(),
            row_step: 0,
            tap_step: 0,
            taps: view.taps,
            depth: view.depth,
            weights,
            tap_bytes: view.steps * 64,
            panel_bytes: view.panel_bytes(),
            ahead: weights,
            ahead_step: 0,
            finish,
        }
    }
}

/// A kernel of tiles.
pub(crate) type PanelKernel<A> = unsafe fn(&PanelTile<A>);

/// Chooses the kernel for tiles of so many rows and calls it.
type PanelCall<A> = unsafe fn(usize, &PanelTile<A>);

/// The kernels of an instruction set: rows of a tile, tiles.
pub(crate) struct PanelMicro<A: Sum> {
    /// One panel of up to [`TILE_ROWS`] rows that share pixels, a pixel apart.
    pub shared: PanelCall<A>,
    /// One panel of up to `tall` rows that lie evenly.
    pub even: PanelCall<A>,
    pub tall: usize,
    /// Two panels and four, where that is faster than taller tiles.
    pub pair: Option<PairMicro<A>>,
}

/// Those of two panels and up to [`PAIR_ROWS`] rows, and of four and up to [`QUAD_ROWS`].
pub(crate) struct PairMicro<A: Sum> {
    /// Rows that share pixels.
    pub shared: PanelCall<A>,
    /// Rows that lie evenly.
    pub even: PanelCall<A>,
    /// The same, four panels of them.
    pub even_quad: PanelCall<A>,
}

/// The bytes at an address.
#[inline(always)]
pub(crate) fn pointer(address: usize) -> *const u8 {
    std::ptr::with_exposed_provenance(address)
}

/// Tiles that some rows fall into.
#[derive(Clone, Copy, Default)]
struct Split {
    rows: usize,
    tiles: usize,
    /// Rows of a tile, but for the `longer` first ones, which have one more.
    count: usize,
    longer: usize,
}

impl Split {
    /// Even tiles of at most so many rows.
    fn of(rows: usize, most: usize) -> Self {
        let tiles = rows.div_ceil(most);
        Split { rows, tiles, count: rows / tiles, longer: rows % tiles }
    }
}

/// Tiles of as many rows, that wait for a call.
#[derive(Clone, Copy, Default)]
struct Batch {
    row: usize,
    count: usize,
    tiles: usize,
}

/// What stays the same while the tiles of pairs of panels are walked.
struct Walk<'a, A: Sum, S, F> {
    kernel: PanelCall<A>,
    source: &'a S,
    view: &'a PanelView,
    columns: Range<usize>,
    /// Columns of a tile.
    wide: usize,
    shared: Option<SharedPixels>,
    /// Most rows of a tile.
    most: usize,
    /// Steps of a tile, all taps of a line at once where rows share pixels.
    steps: usize,
    ahead: Ahead,
    finish: &'a F,
    /// Of the first columns, and of the rows that wait.
    tile: PanelTile<A>,
    waiting: Batch,
    /// What tells the tiles that wait.
    lines: [MaybeUninit<PixelLine>; MOST_LINES],
    starts: [MaybeUninit<usize>; MOST_TILES],
}

/// Walks the tiles of `rows` of the panels that `columns` are, where the kernels can; otherwise gives
/// false.
///
/// # Safety
/// As [`crate::walk::run`].
pub(crate) unsafe fn run<A: Sum, S: RowSource>(
    micro: &PanelMicro<A>,
    source: &S,
    view: &PanelView,
    rows: Range<usize>,
    columns: Range<usize>,
    ahead: Ahead,
    finish: &impl Finish<A>,
) -> bool {
    let Some(pair) = &micro.pair else {
        // SAFETY: the caller's promise.
        return columns.len() <= PANEL
            && unsafe { one(micro, source, view, rows, columns, ahead, finish) };
    };
    let panels = columns.len().div_ceil(PANEL);
    let shared = source.shared();
    let odd = !panels.is_multiple_of(2);
    if shared.is_some_and(|shared| view.taps > TAP_BLOCK || shared.step > 1 && odd) {
        return false;
    }
    // Where weights come from L2 for every tile, taller ones need fewer of them.
    let lines = if shared.is_some() { 3 } else { 1 };
    let row_bytes = view.taps * view.depth * A::ELEMENT_BYTES / lines;
    if panels > 1 && 2 * view.panel_bytes() + PAIR_ROWS * row_bytes > PAIR_BYTES {
        return false;
    }
    // A single row's sums are parted by the other kernels, so that they do not wait for each other.
    let even = if shared.is_none() && rows.len() > 1 { source.even(rows.start) } else { None };
    let Some((run, EvenRows { row_step, tap_step, .. })) =
        even.or(shared.map(|_| (0, EvenRows::default())))
    else {
        return false;
    };
    let steps = view.steps * if shared.is_some() { view.taps / 3 } else { view.taps };
    let little = shared.is_none() && steps <= LITTLE_STEPS;
    let mut ahead = ahead.over(rows.len().div_ceil(PAIR_ROWS) * panels.div_ceil(2) * steps, 4);
    let near = 4 * view.panel_bytes() + QUAD_ROWS * row_bytes <= PAIR_BYTES;
    let quads = if run >= QUAD_RUN && near { panels / 4 * 4 } else { 0 };
    let pairs = (panels - quads) / 2 * 2;
    let column = |panels: usize| columns.end.min(columns.start + panels * PANEL);
    let [paired, last] = [column(quads), column(quads + pairs)];
    let of_pairs = if little { LITTLE_ROWS } else { PAIR_ROWS };
    // The last of odd panels has tiles of its own.
    let of_last = if shared.is_some() { TILE_ROWS } else { micro.tall };
    let choose = |of_shared, of_even| if shared.is_some() { of_shared } else { of_even };
    let parts: [(_, _, _, PanelCall<A>); 3] = [
        (columns.start..paired, 4, QUAD_ROWS, pair.even_quad),
        (paired..last, 2, of_pairs, choose(pair.shared, pair.even)),
        (last..columns.end, 1, of_last, choose(micro.shared, micro.even)),
    ];
    for (columns, wide, most, kernel) in
        parts.into_iter().filter(|(columns, ..)| !columns.is_empty())
    {
        let place = [rows.start, columns.start];
        let Some(in_registers) = finish.in_registers(place, columns.len()) else { return false };
        let mut tile = PanelTile::new(view, columns.start, in_registers);
        tile.pixel_step = shared.map_or(1, |shared| shared.step);
        (tile.row_step, tile.tap_step) = (row_step, tap_step);
        let how = (kernel, wide * PANEL, most, steps);
        let mut walk = Walk::new(how, source, view, columns, ahead, finish, tile);
        // SAFETY: the caller's promise.
        unsafe { walk.rows(rows.clone()) };
        ahead = walk.ahead;
    }
    true
}

/// [`run`] for a single panel, a tile at a time.
///
/// # Safety
/// As [`crate::walk::run`].
unsafe fn one<A: Sum>(
    micro: &PanelMicro<A>,
    source: &impl RowSource,
    view: &PanelView,
    rows: Range<usize>,
    columns: Range<usize>,
    ahead: Ahead,
    finish: &impl Finish<A>,
) -> bool {
    let shared = source.shared().filter(|shared| shared.step == 1 && view.taps <= TAP_BLOCK);
    // A single row's sums are parted by the other kernels, so that they do not wait for each other.
    let lies = shared.is_some() || rows.len() > 1 && source.even(rows.start).is_some();
    let place = [rows.start, columns.start];
    let in_registers = finish.in_registers(place, columns.len()).filter(|_| lies);
    let Some(in_registers) = in_registers else { return false };
    let steps = view.taps * view.steps;
    let mut ahead = ahead.over(rows.len().div_ceil(TILE_ROWS) * steps, 4);
    let mut lines = [MaybeUninit::<PixelLine>::uninit(); TAP_BLOCK / 3];
    let mut tile = PanelTile::new(view, columns.start, in_registers);
    let mut row = rows.start;
    while row < rows.end {
        let left = rows.end - row;
        let in_four = ahead.in_four;
        (tile.ahead, tile.ahead_step) = match ahead.take(steps * in_four / 4) {
            Some(lines) => (lines, in_four * 16),
            None => (tile.weights, 0),
        };
        // SAFETY: lines have room for a tile's; the rest is the caller's promise.
        let count = unsafe {
            match shared {
                Some(SharedPixels { width, .. }) => {
                    let x = row % width;
                    let count = even(left.min(width - x), TILE_ROWS);
                    source.pixel_lines([row, x], count, &mut lines[..view.taps / 3]);
                    tile.lines = lines.as_ptr().cast();
                    (micro.shared)(count, &tile);
                    count
                }
                None => {
                    let (run, place) = source.even(row).expect("as for the first row");
                    let count = even(left.min(run), micro.tall);
                    tile.start = place.first;
                    (tile.row_step, tile.tap_step) = (place.row_step, place.tap_step);
                    (micro.even)(count, &tile);
                    count
                }
            }
        };
        let block = Block::new(std::ptr::null_mut(), [row, columns.start], [count, columns.len()]);
        finish.finish(&block, true);
        tile.finish.below(count);
        row += count;
    }
    true
}

impl<'a, A: Sum, S: RowSource, F: Finish<A>> Walk<'a, A, S, F> {
    /// A walk with no tile waiting, by a kernel, columns and most rows of a tile, and steps of one.
    #[inline]
    fn new(
        (kernel, wide, most, steps): (PanelCall<A>, usize, usize, usize),
        source: &'a S,
        view: &'a PanelView,
        columns: Range<usize>,
        ahead: Ahead,
        finish: &'a F,
        tile: PanelTile<A>,
    ) -> Self {
        Walk {
            kernel,
            source,
            view,
            columns,
            wide,
            shared: source.shared(),
            most,
            steps,
            ahead,
            finish,
            tile,
            waiting: Batch::default(),
            lines: [MaybeUninit::uninit(); MOST_LINES],
            starts: [MaybeUninit::uninit(); MOST_TILES],
        }
    }

    /// All tiles, line of output by line or block by block.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn rows(&mut self, rows: Range<usize>) {
        let row_bytes = (self.view.taps * self.view.depth + self.wide) * A::ELEMENT_BYTES;
        let tiles = (BLOCK_BYTES / row_bytes / self.most).clamp(1, MOST_TILES);
        let block = tiles * self.most;
        let width = self.shared.map_or(usize::MAX, |shared| shared.width);
        let mut split = Split::default();
        self.waiting.row = rows.start;
        let (mut row, mut x) = (rows.start, rows.start % width);
        while row < rows.end {
            let (left, first) = match self.shared {
                Some(_) => (width - x, 0),
                None => {
                    let (left, place) = self.source.even(row).expect("as for the first row");
                    (left, place.first)
                }
            };
            let left = left.min(rows.end - row);
            let run = match left {
                _ if self.shared.is_some() || left <= block => left,
                _ if left <= 2 * block => left.div_ceil(2),
                _ => block,
            };
            if split.rows != run {
                split = Split::of(run, self.most);
            }
            let Split { tiles, count, longer, .. } = split;
            let rows_longer = longer * (count + 1);
            let later = first.wrapping_add(rows_longer * self.tile.row_step);
            // SAFETY: the rows are in one line of output, or lie evenly.
            unsafe {
                self.add([row, x], [count + 1, longer], first);
                self.add([row + rows_longer, x + rows_longer], [count, tiles - longer], later);
            }
            row += run;
            x = if x + run == width { 0 } else { x + run };
            if run < left {
                // SAFETY: the caller's promise.
                unsafe { self.call() };
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.call() };
    }

    /// Lets tiles of `count` rows wait, which are told by their start or by the pixels of their lines
    /// of taps; the first row is the `x`th of its line of output.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn add(&mut self, [row, x]: [usize; 2], [count, tiles]: [usize; 2], start: usize) {
        let most = if self.shared.is_some() { MOST_SHARED } else { MOST_TILES };
        let of_tile = self.view.taps / 3;
        let mut done = 0;
        while done < tiles {
            if self.waiting.count != count || self.waiting.tiles == most {
                // SAFETY: the caller's promise.
                unsafe { self.call() };
                self.waiting.count = count;
            }
            let first = self.waiting.tiles;
            let more = (tiles - done).min(most - first);
            if self.shared.is_some() {
                let lines = self.lines[first * of_tile..].chunks_exact_mut(of_tile);
                for (i, lines) in lines.take(more).enumerate() {
                    let before = (done + i) * count;
                    // SAFETY: the rows are in one line of output.
                    unsafe { self.source.pixel_lines([row + before, x + before], count, lines) };
                }
            } else {
                let step = count * self.tile.row_step;
                for (i, place) in self.starts[first..first + more].iter_mut().enumerate() {
                    place.write(start.wrapping_add((done + i) * step));
                }
            }
            self.waiting.tiles += more;
            done += more;
        }
    }

    /// Computes the tiles that wait, those of some panels after the other.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn call(&mut self) {
        let Batch { row, count, tiles } = self.waiting;
        if tiles == 0 {
            return;
        }
        self.tile.tiles = tiles;
        self.tile.lines = self.lines.as_ptr().cast();
        self.tile.starts = self.starts.as_ptr().cast();
        let Range { start, end } = self.columns;
        if end - start <= self.wide {
            self.bring();
            // SAFETY: what tells the tiles is there; the rest is the caller's promise. The tile is
            // not copied: what is copied as a whole a moment after its parts were written waits.
            unsafe { (self.kernel)(count, &self.tile) };
            self.finished([row, start], [count * tiles, end - start]);
        } else {
            let mut tile = self.tile;
            for column in self.columns.clone().step_by(self.wide) {
                self.bring();
                (tile.ahead, tile.ahead_step) = (self.tile.ahead, self.tile.ahead_step);
                let width = (end - column).min(self.wide);
                // SAFETY: as above.
                unsafe { (self.kernel)(count, &tile) };
                self.finished([row, column], [count * tiles, width]);
                let panels = self.wide / PANEL;
                tile.weights = tile.weights.wrapping_add(panels * self.view.panel_bytes());
                tile.finish.right(self.wide);
            }
        }
        self.tile.finish.below(count * tiles);
        self.waiting = Batch { row: row + count * tiles, count, tiles: 0 };
    }

    /// Chooses the lines that are brought near during the next call.
    fn bring(&mut self) {
        let in_four = self.ahead.in_four;
        let lines = self.tile.tiles * self.steps * in_four / 4;
        (self.tile.ahead, self.tile.ahead_step) = match self.ahead.take(lines) {
            Some(lines) => (lines, in_four * 16),
            None => (self.tile.weights, 0),
        };
    }

    /// Tells what is done with blocks that this one was stored.
    fn finished(&self, place: [usize; 2], size: [usize; 2]) {
        self.finish.finish(&Block::new(std::ptr::null_mut(), place, size), true);
    }
}
