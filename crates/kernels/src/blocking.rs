//! In which order the tiles of a product are walked: what stays in which cache.

use std::ops::Range;

use crate::pack::PanelView;
use crate::tile::WEIGHTS_IN_CACHE;

/// Rows of tiles that are four panels wide. They read more weights for a row than tall ones, and
/// wait less for weights that are far.
pub(crate) const WIDE_ROWS: usize = 6;
/// Weights of a pass where the rows stay in L2 beside them: so short that those of the next pass
/// come evenly, during all of the work.
const WEIGHTS_BESIDE_ROWS: usize = 128 << 10;
/// Rows that stay in L2 from pass to pass, in bytes.
const ROWS_IN_CACHE: usize = 1 << 20;
/// Lines of a panel in a slice of K: four panels of them and the rows share L1.
const SLICE_LINES: usize = 128;

/// How a product is walked.
#[derive(Debug, PartialEq)]
pub(crate) struct Order {
    /// Panels of a pass, of even length.
    pub panels: usize,
    /// Tiles of few rows that are four panels wide.
    pub wide: bool,
    /// K is worked on in slices, each for all rows.
    pub sliced: bool,
}

/// The order for so many rows and panels.
pub(crate) fn order(view: &PanelView, rows: usize, panels: usize) -> Order {
    let bytes = view.panel_bytes().max(64);
    // Few weights are near, brought during the product before; one row of tiles reads them once.
    if rows <= WIDE_ROWS || panels * bytes <= WEIGHTS_IN_CACHE {
        return Order { panels: panels.max(1), wide: false, sliced: false };
    }
    if 4 * bytes > WEIGHTS_IN_CACHE {
        return Order { panels, wide: true, sliced: true };
    }
    let few = rows * view.taps * view.steps * 4 <= ROWS_IN_CACHE;
    let most = if few { WEIGHTS_BESIDE_ROWS } else { WEIGHTS_IN_CACHE };
    let fit = (most / bytes).max(4) / 4 * 4;
    let panels = panels.div_ceil(panels.div_ceil(fit)).next_multiple_of(4);
    Order { panels, wide: few, sliced: false }
}

/// Elements of a tap in these steps.
pub(crate) fn elements(view: &PanelView, steps: &Range<usize>) -> usize {
    let each = view.depth.div_ceil(view.steps.max(1));
    view.depth.min(steps.end * each) - steps.start * each
}

/// The slices of K: whole taps, or steps of one.
pub(crate) fn slices(view: &PanelView) -> Vec<(Range<usize>, Range<usize>)> {
    let (taps, steps) = (view.taps, view.steps);
    if steps <= SLICE_LINES {
        let most = SLICE_LINES / steps.max(1);
        return (0..taps)
            .step_by(most)
            .map(|first| (first..taps.min(first + most), 0..steps))
            .collect();
    }
    let each = steps.div_ceil(steps.div_ceil(SLICE_LINES)).next_multiple_of(4);
    let of_tap = |tap: usize| {
        let part = move |first: usize| (tap..tap + 1, first..steps.min(first + each));
        (0..steps).step_by(each).map(part)
    };
    (0..taps).flat_map(of_tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(taps: usize, depth: usize, each: usize) -> PanelView {
        let steps = depth.div_ceil(each);
        PanelView { weights: std::ptr::null(), columns: 512, taps, depth, steps, filled: 0 }
    }

    #[test]
    fn slices_cover_every_element_once() {
        for (taps, depth, each) in [(1, 3072, 1), (9, 512, 1), (9, 515, 4), (25, 96, 2), (1, 7, 4)]
        {
            let view = view(taps, depth, each);
            let (mut tap, mut step, mut count) = (0, 0, 0);
            for (taps, steps) in slices(&view) {
                assert_eq!((taps.start, steps.start), (tap, step));
                assert!(steps.len() == view.steps || taps.len() == 1);
                assert!(taps.len() * steps.len() <= SLICE_LINES + 4);
                count += taps.len() * elements(&view, &steps);
                (tap, step) =
                    if steps.end == view.steps { (taps.end, 0) } else { (tap, steps.end) };
            }
            assert_eq!((tap, step, count), (view.taps, 0, taps * depth));
        }
    }

    #[test]
    fn large_weights_are_walked_in_even_passes() {
        let order = order(&view(1, 384, 1), 128, 96);
        assert_eq!(order, Order { panels: 4, wide: true, sliced: false });
        assert!(super::order(&view(9, 512, 1), 49, 32).sliced);
        assert_eq!(super::order(&view(1, 1280, 1), 1, 63).panels, 63);
        assert!(!super::order(&view(1, 96, 1), 49, 36).wide);
    }
}
