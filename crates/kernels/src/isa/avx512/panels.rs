//! Kernels of tiles of one panel, of two and of four (see [`crate::panel`]), for sums of products that are
//! done several at once in a lane: bytes, and bf16.

/// The list of a kernel's forms for so many rows.
macro_rules! of_rows {
    (even_rows, $panels:literal: $($rows:literal)*) => { [$(even_rows::<$rows, $panels>),*] };
    (shared_rows, $panels:literal, $step:literal: $($rows:literal)*) => {
        [$(shared_rows::<$rows, $panels, $step>),*]
    };
}
pub(super) use of_rows;

/// `PANEL`, the kernels for sums in registers of `$sum`: instruction set, elements of a lane's product, the
/// macro that finishes tiles, and functions that read a line of weights, a lane's elements for all
/// lanes, and fewer of them than that, and multiply.
macro_rules! panel_kernels {
    (
        $sum:ty, $features:literal, $elements:literal, $each_tile:ident,
        $line:ident, $word:ident, $rest:ident, $product:ident
    ) => {
        /// The kernels of one panel, of two, and of four.
        static PANEL: PanelMicro<$sum> = PanelMicro {
            shared,
            even,
            tall: 16,
            pair: Some(PairMicro { shared: shared_pair, even: even_pair, even_quad }),
        };

        static SHARED: [PanelKernel<$sum>; TILE_ROWS] = of_rows! {
            shared_rows, 1, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
        };
        static EVEN: [PanelKernel<$sum>; 16] = of_rows! {
            even_rows, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
        };
        static SHARED_PAIR: [[PanelKernel<$sum>; PAIR_ROWS]; 2] = [
            of_rows! { shared_rows, 2, 1: 1 2 3 4 5 6 7 8 },
            of_rows! { shared_rows, 2, 2: 1 2 3 4 5 6 7 8 },
        ];
        static EVEN_PAIR: [PanelKernel<$sum>; PAIR_ROWS] = of_rows! {
            even_rows, 2: 1 2 3 4 5 6 7 8
        };
        static EVEN_QUAD: [PanelKernel<$sum>; QUAD_ROWS] = of_rows! { even_rows, 4: 1 2 3 4 };

        /// # Safety
        /// As [`shared_rows`].
        unsafe fn shared(rows: usize, tile: &PanelTile<$sum>) {
            // SAFETY: the caller's promise.
            unsafe { SHARED[rows - 1](tile) }
        }

        /// # Safety
        /// As [`even_rows`].
        unsafe fn even(rows: usize, tile: &PanelTile<$sum>) {
            // SAFETY: the caller's promise.
            unsafe { EVEN[rows - 1](tile) }
        }

        /// # Safety
        /// As [`shared_rows`].
        unsafe fn shared_pair(rows: usize, tile: &PanelTile<$sum>) {
            // SAFETY: the caller's promise.
            unsafe { SHARED_PAIR[tile.pixel_step - 1][rows - 1](tile) }
        }

        /// # Safety
        /// As [`even_rows`].
        unsafe fn even_pair(rows: usize, tile: &PanelTile<$sum>) {
            // SAFETY: the caller's promise.
            unsafe { EVEN_PAIR[rows - 1](tile) }
        }

        /// # Safety
        /// As [`even_rows`].
        unsafe fn even_quad(rows: usize, tile: &PanelTile<$sum>) {
            // SAFETY: the caller's promise.
            unsafe { EVEN_QUAD[rows - 1](tile) }
        }

        /// Rows, `STEP` pixels apart, whose three taps across share pixels.
        ///
        /// # Safety
        /// Needs the instruction set; the pixels of the tiles' lines of taps and the weights are
        /// readable, what is finished is writable.
        #[target_feature(enable = $features)]
        unsafe fn shared_rows<const ROWS: usize, const PANELS: usize, const STEP: usize>(
            tile: &PanelTile<$sum>,
        ) {
            let mut ahead = tile.ahead.cast::<i8>();
            let mut lines = tile.lines;
            let (tap_bytes, panel_bytes) = (tile.tap_bytes, tile.panel_bytes);
            // SAFETY: the caller's promise; one line of weights per tap, step and panel.
            unsafe {
                $each_tile!(tile, ROWS, PANELS, |sums| {
                    let mut weights = tile.weights;
                    for _ in 0..tile.taps / 3 {
                        let PixelLine { left, second, right, step } = *lines;
                        let (mut left, mut right) = (pointer(left), pointer(right));
                        let mut second = pointer(second);
                        lines = lines.add(1);
                        macro_rules! step {
                            ($read:expr) => {
                                _mm_prefetch::<_MM_HINT_T1>(ahead);
                                ahead = ahead.wrapping_add(tile.ahead_step);
                                let pixel = |m: usize| match m {
                                    0 => left,
                                    _ if m == (ROWS - 1) * STEP + 2 => right,
                                    _ => second.wrapping_add((m - 1) * step),
                                };
                                let mut taps = [[$line(weights); PANELS]; 3];
                                for tap in 0..3 {
                                    for p in 0..PANELS {
                                        taps[tap][p] =
                                            $line(weights.add(tap * tap_bytes + p * panel_bytes));
                                    }
                                }
                                let mut values = [$read(pixel(0)), $read(pixel(1))];
                                for r in 0..ROWS {
                                    let last = $read(pixel(r * STEP + 2));
                                    for p in 0..PANELS {
                                        let mut sum = sums[r][p];
                                        sum = $product(sum, values[0], taps[0][p]);
                                        sum = $product(sum, values[1], taps[1][p]);
                                        sums[r][p] = $product(sum, last, taps[2][p]);
                                    }
                                    values = match STEP {
                                        1 => [values[1], last],
                                        _ if r + 1 == ROWS => values,
                                        _ => [last, $read(pixel(r * STEP + 3))],
                                    };
                                }
                                weights = weights.add(64);
                            };
                        }
                        for _ in 0..tile.depth / $elements {
                            step!($word);
                            left = left.wrapping_add(4);
                            second = second.wrapping_add(4);
                            right = right.wrapping_add(4);
                        }
                        if !tile.depth.is_multiple_of($elements) {
                            step!(|from| $rest(from, tile.depth % $elements));
                        }
                        weights = weights.wrapping_add(2 * tap_bytes);
                    }
                }, |_row, _count| {});
            }
        }

        /// Rows that lie evenly. By four panels, the last four steps of two rows are done before these are
        /// finished, and only then those of the next two: results of some meet products of others.
        ///
        /// # Safety
        /// As [`shared_rows`], for the rows and taps of the tiles.
        #[target_feature(enable = $features)]
        unsafe fn even_rows<const ROWS: usize, const PANELS: usize>(tile: &PanelTile<$sum>) {
            let mut ahead = tile.ahead.cast::<i8>();
            let (row_step, tap_step) = (tile.row_step, tile.tap_step);
            let mut starts = tile.starts;
            let (fours, rest) = (tile.depth / (4 * $elements), tile.depth % (4 * $elements));
            let fours = if PANELS > 1 { fours } else { 0 };
            let late = PANELS == 4 && rest == 0 && fours > 1;
            let (mut weights, mut at);
            // SAFETY: the caller's promise; one line of weights per tap, step and panel.
            unsafe {
                $each_tile!(tile, ROWS, PANELS, |sums| {
                    weights = tile.weights;
                    let mut tap = pointer(*starts);
                    at = tap;
                    starts = starts.add(1);
                    for left in (0..tile.taps).rev() {
                        at = tap;
                        macro_rules! step {
                            ($read:expr) => {
                                _mm_prefetch::<_MM_HINT_T1>(ahead);
                                ahead = ahead.wrapping_add(tile.ahead_step);
                                let mut lines = [$line(weights); PANELS];
                                for p in 0..PANELS {
                                    lines[p] = $line(weights.add(p * tile.panel_bytes));
                                }
                                for r in 0..ROWS {
                                    let value = $read(at.wrapping_add(r * row_step));
                                    for p in 0..PANELS {
                                        sums[r][p] = $product(sums[r][p], value, lines[p]);
                                    }
                                }
                                weights = weights.add(64);
                            };
                        }
                        for _ in 0..fours - usize::from(late && left == 0) {
                            for _ in 0..4 {
                                step!($word);
                                at = at.wrapping_add(4);
                            }
                        }
                        for _ in 0..tile.depth / $elements - 4 * fours {
                            step!($word);
                            at = at.wrapping_add(4);
                        }
                        if !tile.depth.is_multiple_of($elements) {
                            step!(|from| $rest(from, tile.depth % $elements));
                        }
                        tap = tap.wrapping_add(tap_step);
                    }
                }, |row, count| {
                    if late {
                        $crate::isa::avx512::epilogue::each!(k in 0 1 2 3 => {
                            if row == 0 {
                                _mm_prefetch::<_MM_HINT_T1>(ahead);
                                ahead = ahead.wrapping_add(tile.ahead_step);
                            }
                            let mut lines = [$line(weights); PANELS];
                            for p in 0..PANELS {
                                lines[p] = $line(weights.add(p * tile.panel_bytes + k * 64));
                            }
                            $crate::isa::avx512::epilogue::each_row!(r in ROWS => {
                                if r >= row && r < row + count {
                                    let value = $word(at.wrapping_add(r * row_step + k * 4));
                                    for p in 0..PANELS {
                                        sums[r][p] = $product(sums[r][p], value, lines[p]);
                                    }
                                }
                            });
                        });
                    }
                });
            }
        }
    };
}
pub(super) use panel_kernels;
