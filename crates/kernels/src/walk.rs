//! The walk over the tiles of a product: rows, panels and slices of K in the order that suits the
//! caches.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::blocking::{self, WIDE_ROWS};
use crate::epilogue::Block;
use crate::finish::{Finish, Movable, Sum};
use crate::pack::{PANEL, PanelView};
use crate::panel;
use crate::tile::{
    Accumulators, Ahead, Micro, PITCH, RowSource, TAP_BLOCK, TILE_ROWS, Tile, even, tile_panels,
};

/// Tiles of rows that are worked on together, where K is sliced.
const SLICED_TILES: usize = 40;

/// What stays the same while the tiles of a product are walked.
struct Walk<'a, A: Sum, S, F> {
    micro: &'a Micro<A>,
    source: &'a mut S,
    view: &'a PanelView,
    /// The last column, plus one.
    end: usize,
    finish: F,
    /// [`TAP_BLOCK`] times [`PITCH`] slots.
    addresses: *mut usize,
    accumulators: *mut A,
    most_rows: usize,
    ahead: Ahead,
}

/// A part of K: some taps, and of a single one some steps.
#[derive(Clone)]
struct Slice {
    taps: Range<usize>,
    steps: Range<usize>,
}

impl<A: Sum, S: RowSource, F: Finish<A>> Walk<'_, A, S, F> {
    /// Rows of the tile at `row`, of those before `end`.
    fn tile_rows(&self, row: usize, end: usize) -> usize {
        even(end - row, self.most_rows)
    }

    /// The steps of a pass over so many rows and panels.
    fn steps(&self, rows: usize, panels: usize) -> usize {
        let wide = tile_panels(self.micro, self.most_rows.min(rows), 4);
        rows.div_ceil(self.most_rows) * panels.div_ceil(wide) * self.view.taps * self.view.steps
    }

    /// Panels at `panel` that a tile of `count` rows takes, and the columns they are.
    fn wide(&self, count: usize, panel: usize, end: usize) -> (usize, usize) {
        let wide = tile_panels(self.micro, count, end - panel);
        (wide, (wide * PANEL).min(self.end - panel * PANEL))
    }

    /// The tiles of these rows and panels, of all taps at once. One is moved to where the next is:
    /// what is copied as a whole a moment after its parts were written waits for them.
    ///
    /// # Safety
    /// As [`run`]; there are at most [`TAP_BLOCK`] taps.
    unsafe fn whole_tiles(&mut self, rows: Range<usize>, panels: Range<usize>) {
        let (view, first) = (self.view, panels.start * PANEL);
        let in_four = self.ahead.in_four;
        let lines = view.taps * view.steps * in_four / 4;
        let weights = view.weights.wrapping_add(panels.start * view.panel_bytes());
        let first_finish = self.finish.in_registers([rows.start, first], self.end - first);
        let mut tile = Tile {
            addresses: self.addresses,
            taps: view.taps,
            depth: view.depth,
            weights,
            panel_bytes: view.panel_bytes(),
            accumulators: self.accumulators,
            accumulate: false,
            ahead: weights,
            ahead_step: 0,
            finish: first_finish,
        };
        let stored = first_finish.is_some();
        let mut row = rows.start;
        while row < rows.end {
            let count = self.tile_rows(row, rows.end);
            let mut panel = panels.start;
            tile.weights = weights;
            tile.finish = first_finish;
            if let Some(finish) = &mut tile.finish {
                finish.below(row - rows.start);
            }
            // SAFETY: the addresses have room for a tile; the rest is the caller's promise.
            unsafe {
                self.source.addresses(row, count, 0..view.taps, self.addresses);
                while panel < panels.end {
                    let (wide, width) = self.wide(count, panel, panels.end);
                    (tile.ahead, tile.ahead_step) =
                        self.ahead.take(lines).map_or((weights, 0), |lines| (lines, in_four * 16));
                    (self.micro.tile)(count, wide, &tile);
                    let block = Block::new(self.accumulators, [row, panel * PANEL], [count, width]);
                    self.finish.finish(&block, stored);
                    panel += wide;
                    tile.weights = tile.weights.wrapping_add(wide * tile.panel_bytes);
                    if let Some(finish) = &mut tile.finish {
                        finish.right(width);
                    }
                }
            }
            row += count;
        }
    }

    /// The tiles of `count` rows and these panels, some taps at a time.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn row_of_tiles(&mut self, row: usize, count: usize, panels: Range<usize>) {
        let mut resolved = usize::MAX;
        let mut panel = panels.start;
        while panel < panels.end {
            let (wide, width) = self.wide(count, panel, panels.end);
            let place = [row, panel * PANEL];
            let in_registers = self.finish.in_registers(place, width);
            for tap in (0..self.view.taps).step_by(TAP_BLOCK) {
                let taps = tap..self.view.taps.min(tap + TAP_BLOCK);
                let in_four = self.ahead.in_four;
                let lines = self.ahead.take(taps.len() * self.view.steps * in_four / 4);
                let last = in_registers.filter(|_| taps.end == self.view.taps);
                // SAFETY: the addresses have room for a tile; the rest is the caller's promise.
                unsafe {
                    if resolved != tap {
                        self.source.addresses(row, count, taps.clone(), self.addresses);
                        resolved = tap;
                    }
                    let slice = Slice { taps, steps: 0..self.view.steps };
                    let lines = lines.map(|lines| (lines, in_four));
                    self.tile(count, [panel, wide], &slice, self.accumulators, last, lines);
                }
            }
            let block = Block::new(self.accumulators, place, [count, width]);
            self.finish.finish(&block, in_registers.is_some());
            panel += wide;
        }
    }

    /// One tile of `count` rows and some panels, for a part of K whose addresses are resolved;
    /// `lines` are brought near meanwhile, so many in four steps.
    ///
    /// # Safety
    /// As [`run`]; the accumulators have room for a tile.
    #[inline(always)]
    unsafe fn tile(
        &mut self,
        count: usize,
        [panel, wide]: [usize; 2],
        slice: &Slice,
        accumulators: *mut A,
        finish: Option<A::InRegisters>,
        lines: Option<(*const u8, usize)>,
    ) {
        let view = self.view;
        let tile = Tile {
            addresses: self.addresses,
            taps: slice.taps.len(),
            depth: blocking::elements(view, &slice.steps),
            weights: slice.weights(view, panel),
            panel_bytes: view.panel_bytes(),
            accumulators,
            accumulate: slice.taps.start + slice.steps.start > 0,
            ahead: lines.map_or(view.weights, |(lines, _)| lines),
            ahead_step: lines.map_or(0, |(_, in_four)| in_four * 16),
            finish,
        };
        // SAFETY: accumulators have room for a tile; the panels are inside the view; rows are
        // readable by the caller's promise.
        unsafe { (self.micro.tile)(count, wide, &tile) };
    }

    /// The tiles of all rows for one slice of K after the other: weights of a slice stay in L1
    /// while rows pass by, and those of the next come meanwhile.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn slices(&mut self, rows: Range<usize>, panels: Range<usize>) {
        let view = self.view;
        let tiles = rows.len().div_ceil(self.most_rows);
        let mut room: Vec<Accumulators<A>> = (0..tiles).map(|_| Accumulators::new()).collect();
        let slices: Vec<Slice> =
            blocking::slices(view).into_iter().map(|(taps, steps)| Slice { taps, steps }).collect();
        let mut panel = panels.start;
        while panel < panels.end {
            let (wide, width) = self.wide(self.most_rows, panel, panels.end);
            for (at, slice) in slices.iter().enumerate() {
                let next = slices.get(at + 1).map(|next| (next, panel));
                let next = next.or((panel + wide < panels.end).then(|| (&slices[0], panel + wide)));
                let mut row = rows.start;
                for (i, room) in room.iter_mut().enumerate() {
                    let count = self.tile_rows(row, rows.end);
                    let place = [row, panel * PANEL];
                    let finish = self.finish.in_registers(place, width);
                    let finish = finish.filter(|_| at + 1 == slices.len());
                    let steps = slice.lines();
                    let lines = match next {
                        Some((next, panel)) => Some(next.share(view, [panel, wide], [i, tiles])),
                        None => self.ahead.take(steps / 2).map(|lines| (lines, 2)),
                    };
                    // SAFETY: the addresses and the room hold a tile; the rest is the caller's
                    // promise.
                    unsafe {
                        self.source.addresses(row, count, slice.taps.clone(), self.addresses);
                        for r in 0..count {
                            *self.addresses.add(r) += slice.steps.start * 4;
                        }
                        let room = room.pointer();
                        self.tile(count, [panel, wide], slice, room, finish, lines);
                    }
                    if at + 1 == slices.len() {
                        let block = Block::new(room.pointer(), place, [count, width]);
                        self.finish.finish(&block, finish.is_some());
                    }
                    row += count;
                }
            }
            panel += wide;
        }
    }
}

impl Slice {
    /// Its first line in a panel.
    fn weights(&self, view: &PanelView, panel: usize) -> *const u8 {
        let line = self.taps.start * view.steps + self.steps.start;
        view.weights.wrapping_add(panel * view.panel_bytes() + line * 64)
    }

    /// Its lines in a panel.
    fn lines(&self) -> usize {
        self.taps.len() * self.steps.len()
    }

    /// What tile `i` of `tiles` brings near of these panels: where it begins, and lines in four
    /// steps.
    fn share(
        &self,
        view: &PanelView,
        [panel, wide]: [usize; 2],
        [i, tiles]: [usize; 2],
    ) -> (*const u8, usize) {
        let lines = self.lines();
        let first = wide * lines * i / tiles;
        let from = self.weights(view, panel + first / lines).wrapping_add(first % lines * 64);
        let in_four = (wide * 4).div_ceil(tiles).next_power_of_two().min(4);
        (from, in_four)
    }
}

/// Walks the tiles of `rows` × `columns`, and hands each finished block to `finish`. What comes
/// `after` the last pass is brought near during it.
///
/// # Safety
/// The micro-kernels' instruction set is there; the source's rows are readable for `view.depth`
/// elements per tap; `columns` starts on a panel and ends inside `view.columns`.
pub(crate) unsafe fn run<A: Sum>(
    micro: &Micro<A>,
    source: &mut impl RowSource,
    view: &PanelView,
    rows: Range<usize>,
    columns: Range<usize>,
    after: Ahead,
    finish: impl Finish<A>,
) {
    assert!(columns.start.is_multiple_of(PANEL) && columns.end <= view.columns, "columns");
    if view.taps == 0 || rows.is_empty() || columns.is_empty() {
        return;
    }
    let panels = columns.start / PANEL..columns.end.div_ceil(PANEL);
    let order = blocking::order(view, rows.len(), panels.len());
    let several = order.panels >= panels.len() && !order.sliced && rows.len() > TILE_ROWS;
    let at_once = panels.len() == 1 || several;
    if let Some(micro) = micro.panel.filter(|_| at_once) {
        // SAFETY: the caller's promise.
        let done = unsafe {
            panel::run(micro, source, view, rows.clone(), columns.clone(), after, &finish)
        };
        if done {
            return;
        }
    }
    let mut addresses = [MaybeUninit::<usize>::uninit(); TAP_BLOCK * PITCH];
    let mut storage = Accumulators::<A>::new();
    let wide = source.rows_collide() || order.wide;
    let most_rows = micro.panels.len().min(if wide { WIDE_ROWS } else { TILE_ROWS });
    let mut walk = Walk {
        micro,
        source,
        view,
        end: columns.end,
        finish,
        addresses: addresses.as_mut_ptr().cast::<usize>(),
        accumulators: storage.pointer(),
        most_rows,
        ahead: after,
    };
    if order.sliced && !walk.source.copies() {
        for first in rows.clone().step_by(SLICED_TILES * most_rows) {
            let block = first..rows.end.min(first + SLICED_TILES * most_rows);
            // SAFETY: the caller's promise.
            unsafe { walk.slices(block, panels.clone()) };
        }
        return;
    }
    for first in panels.clone().step_by(order.panels) {
        let pass = first..panels.end.min(first + order.panels);
        let next_pass = pass.end..panels.end.min(pass.end + order.panels);
        let ahead = Ahead::of_pass(view, next_pass).unwrap_or(after);
        let most = if order.wide { 2 } else { 4 };
        walk.ahead = ahead.over(walk.steps(rows.len(), pass.len()), most);
        if view.taps <= TAP_BLOCK {
            // SAFETY: the caller's promise.
            unsafe { walk.whole_tiles(rows.clone(), pass) };
            continue;
        }
        let mut row = rows.start;
        while row < rows.end {
            let count = walk.tile_rows(row, rows.end);
            // SAFETY: the caller's promise.
            unsafe { walk.row_of_tiles(row, count, pass.clone()) };
            row += count;
        }
    }
}
