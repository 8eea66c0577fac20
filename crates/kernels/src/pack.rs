//! Weights packed into panels of 16 columns: one format for every instruction set.
//!
//! A panel is a run of 64-byte lines, `[tap][step]`. One line is one step along K for 16 columns:
//! 1 × f32, 2 × bf16 or 4 × s8 for each. The last step of a tap and the last panel are filled up
//! with zeros. Wide kernels walk several panels at once.

use std::sync::OnceLock;

use half::bf16;
use lepton_tensor::Storage;

use crate::stored::Pack;

/// Columns in a panel.
pub const PANEL: usize = 16;

/// How many columns, taps and elements per tap a weight matrix has, and the distance in elements
/// between neighbours along each, so that one packer reads every order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightOrder {
    /// Output channels: the N of a matrix product.
    pub columns: usize,
    /// Kernel positions; 1 for a matrix product.
    pub taps: usize,
    /// Input channels per tap; taps · depth is the K of a matrix product.
    pub depth: usize,
    /// Distance between columns.
    pub column_stride: usize,
    /// Distance between taps.
    pub tap_stride: usize,
    /// Distance between elements of a tap.
    pub depth_stride: usize,
}

impl WeightOrder {
    /// A row-major `[K, N]` matrix.
    pub fn matrix(depth: usize, columns: usize) -> Self {
        Self::hwio(1, depth, columns)
    }

    /// A row-major `[N, K]` matrix (transposed B).
    pub fn transposed(columns: usize, depth: usize) -> Self {
        Self::ohwi(columns, 1, depth)
    }

    /// Convolution weights `[taps][in][out]`.
    pub fn hwio(taps: usize, depth: usize, columns: usize) -> Self {
        WeightOrder {
            columns,
            taps,
            depth,
            column_stride: 1,
            tap_stride: depth * columns,
            depth_stride: columns,
        }
    }

    /// Convolution weights `[out][taps][in]`.
    pub fn ohwi(columns: usize, taps: usize, depth: usize) -> Self {
        WeightOrder {
            columns,
            taps,
            depth,
            column_stride: taps * depth,
            tap_stride: depth,
            depth_stride: 1,
        }
    }

    /// Convolution weights `[out][in][taps]`, as in ONNX.
    pub fn oihw(columns: usize, depth: usize, taps: usize) -> Self {
        WeightOrder {
            columns,
            taps,
            depth,
            column_stride: taps * depth,
            tap_stride: 1,
            depth_stride: taps,
        }
    }

    /// One more than the largest index read.
    pub(crate) fn extent(&self) -> usize {
        if self.columns == 0 || self.taps == 0 || self.depth == 0 {
            return 0;
        }
        (self.columns - 1) * self.column_stride
            + (self.taps - 1) * self.tap_stride
            + (self.depth - 1) * self.depth_stride
            + 1
    }
}

/// Bytes of a line: one step of one panel.
pub(crate) const LINE: usize = 64;

/// Lines of zeros behind the last panel: tile kernels read whole tiles of lines.
const SLACK_LINES: usize = 16;

/// Panels of any element type: `E` elements of `[tap][step][16][E]` to a line.
#[derive(Clone, Debug)]
struct Panels {
    /// Lines at a multiple of 64 bytes in memory, and the slack.
    lines: Storage,
    columns: usize,
    taps: usize,
    depth: usize,
    /// True if the low half of every word is zero, once that was asked.
    high_halves: OnceLock<bool>,
}

impl Panels {
    fn new(lines: Storage, order: &WeightOrder) -> Panels {
        let WeightOrder { columns, taps, depth, .. } = *order;
        Panels { lines, columns, taps, depth, high_halves: OnceLock::new() }
    }

    /// Packs `BYTES`-byte elements; `element` gives the little-endian bytes at an index.
    fn pack<const BYTES: usize>(
        order: &WeightOrder,
        element: impl Fn(usize) -> [u8; BYTES],
    ) -> Panels {
        let group = 4 / BYTES;
        let steps = order.depth.div_ceil(group);
        let panels = order.columns.div_ceil(PANEL);
        let mut lines = Storage::zeroed((panels * order.taps * steps + SLACK_LINES) * LINE);
        let mut rest = lines.make_mut().chunks_exact_mut(LINE);
        for first in (0..order.columns).step_by(PANEL) {
            let width = PANEL.min(order.columns - first);
            for tap in 0..order.taps {
                let source = first * order.column_stride + tap * order.tap_stride;
                for step in (0..order.depth).step_by(group) {
                    let line = rest.next().expect("one line for each step of each panel");
                    for (lane, to) in line.as_chunks_mut::<4>().0[..width].iter_mut().enumerate() {
                        let at = source + lane * order.column_stride;
                        for k in step..order.depth.min(step + group) {
                            to[(k - step) * BYTES..][..BYTES]
                                .copy_from_slice(&element(at + k * order.depth_stride));
                        }
                    }
                }
            }
        }
        Panels::new(lines, order)
    }

    /// The panels without the slack.
    fn bytes(&self) -> &[u8] {
        let bytes = self.lines.bytes();
        &bytes[..bytes.len() - SLACK_LINES * LINE]
    }

    /// Panels of `order` that lie in `lines`; `None` if they cannot.
    fn stored(lines: &Storage, order: &WeightOrder, element_bytes: usize) -> Option<Panels> {
        let steps = order.depth.div_ceil(4 / element_bytes);
        let count = order.columns.div_ceil(PANEL).checked_mul(order.taps.checked_mul(steps)?)?;
        let bytes = count.checked_add(SLACK_LINES)?.checked_mul(LINE)?;
        if lines.bytes().len() != bytes {
            return None;
        }
        let lines = lines.clone().aligned(LINE);
        Some(Panels::new(lines, order))
    }
}

/// What a tile kernel needs to know of packed weights.
#[derive(Clone, Copy)]
pub(crate) struct PanelView {
    /// First line of the first panel.
    pub weights: *const u8,
    /// Columns in all.
    pub columns: usize,
    /// Taps in all.
    pub taps: usize,
    /// Elements per tap.
    pub depth: usize,
    /// Lines per tap.
    pub steps: usize,
    /// Lines of zeros behind the last tap of a panel.
    pub filled: usize,
}

impl PanelView {
    /// Bytes of one panel.
    pub fn panel_bytes(&self) -> usize {
        (self.taps * self.steps + self.filled) * 64
    }
}

macro_rules! packed {
    ($name:ident, $bytes:literal, $what:literal) => {
        #[doc = concat!("Packed ", $what, " weights.")]
        #[derive(Clone, Debug)]
        pub struct $name {
            panels: Panels,
        }

        impl $name {
            /// Number of output columns N.
            pub fn columns(&self) -> usize {
                self.panels.columns
            }

            /// Number of taps the kernels see.
            pub fn taps(&self) -> usize {
                self.panels.taps
            }

            /// Elements per tap the kernels see.
            pub fn depth(&self) -> usize {
                self.panels.depth
            }

            /// The panels.
            pub fn bytes(&self) -> &[u8] {
                self.panels.bytes()
            }

            pub(crate) fn view(&self) -> PanelView {
                PanelView {
                    weights: self.panels.lines.bytes().as_ptr(),
                    columns: self.panels.columns,
                    taps: self.panels.taps,
                    depth: self.panels.depth,
                    steps: self.panels.depth.div_ceil(4 / $bytes),
                    filled: 0,
                }
            }
        }
    };
}

/// [`packed!`] with weights that are filled up tap by tap.
macro_rules! packed_taps {
    ($name:ident, $weight:ty, $bytes:literal, $what:literal, $convert:expr) => {
        packed!($name, $bytes, $what);

        impl $name {
            /// Packs `weights` laid out as `order` says.
            ///
            /// # Panics
            /// If `order` reaches beyond `weights`.
            pub fn pack(weights: &[$weight], order: &WeightOrder) -> Self {
                assert!(order.extent() <= weights.len(), "the order reaches beyond the weights");
                $name { panels: Panels::pack(order, |i| $convert(weights[i]).to_le_bytes()) }
            }
        }

        impl Pack for $name {
            type Order = WeightOrder;

            fn stored(&self) -> Vec<Storage> {
                vec![self.panels.lines.clone()]
            }

            fn load(order: &WeightOrder, stored: &[Storage]) -> Option<Self> {
                let [lines] = stored else { return None };
                Some($name { panels: Panels::stored(lines, order, $bytes)? })
            }
        }
    };
}

packed_taps!(PackedF32, f32, 4, "f32", |weight| weight);

impl PackedF32 {
    /// True if every weight is a value of bf16.
    pub(crate) fn are_halves(&self) -> bool {
        let words = || self.bytes().as_chunks::<4>().0.iter();
        *self.panels.high_halves.get_or_init(|| words().all(|word| word[..2] == [0, 0]))
    }
}

packed_taps!(TapsBf16, f32, 2, "bf16 (each tap by itself)", bf16::from_f32);
packed_taps!(TapsS8, i8, 1, "s8 (each tap by itself, without sums)", |weight: i8| weight);

/// Packed bf16 weights. The taps are one run of K, filled up to whole tiles of 32 with zeros.
#[derive(Clone, Debug)]
pub struct PackedBf16 {
    panels: Panels,
    taps: usize,
}

impl PackedBf16 {
    /// Elements of K in a tile.
    pub(crate) const TILE: usize = 32;

    /// Packs `weights` laid out as `order` says, rounded to bf16.
    ///
    /// # Panics
    /// If `order` reaches beyond `weights`.
    pub fn pack(weights: &[f32], order: &WeightOrder) -> Self {
        assert!(order.extent() <= weights.len(), "the order reaches beyond the weights");
        let (whole, depth) = (Self::whole(order), order.taps * order.depth);
        let mut panels = Panels::pack(&whole, |i| {
            let (column, k) = (i / whole.depth, i % whole.depth);
            let at = column * order.column_stride
                + k / order.depth * order.tap_stride
                + k % order.depth * order.depth_stride;
            let weight = if k < depth { bf16::from_f32(weights[at]) } else { bf16::ZERO };
            weight.to_le_bytes()
        });
        panels.depth = depth;
        PackedBf16 { panels, taps: order.taps }
    }

    /// The panels as they lie: one tap of whole tiles.
    fn whole(order: &WeightOrder) -> WeightOrder {
        let depth = (order.taps * order.depth).next_multiple_of(Self::TILE);
        WeightOrder::transposed(order.columns, depth)
    }

    /// Number of output columns N.
    pub fn columns(&self) -> usize {
        self.panels.columns
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Elements per tap.
    pub fn depth(&self) -> usize {
        self.panels.depth / self.taps.max(1)
    }

    /// The panels.
    pub fn bytes(&self) -> &[u8] {
        self.panels.bytes()
    }

    pub(crate) fn view(&self) -> PanelView {
        PanelView {
            weights: self.panels.lines.bytes().as_ptr(),
            columns: self.panels.columns,
            taps: 1,
            depth: self.panels.depth,
            steps: self.panels.depth.next_multiple_of(Self::TILE) / 2,
            filled: 0,
        }
    }

    /// The panels, tap by tap, for rows that are read where they lie; `None` where a pair of
    /// elements belongs to two taps.
    pub(crate) fn taps_view(&self) -> Option<PanelView> {
        let (taps, depth) = (self.taps, self.depth());
        let whole = self.view();
        let steps = depth.div_ceil(2);
        let pairs = taps == 1 || depth.is_multiple_of(2);
        let filled = whole.steps.checked_sub(taps * steps)?;
        pairs.then_some(PanelView { taps, depth, steps, filled, ..whole })
    }
}

impl Pack for PackedBf16 {
    type Order = WeightOrder;

    fn stored(&self) -> Vec<Storage> {
        vec![self.panels.lines.clone()]
    }

    fn load(order: &WeightOrder, stored: &[Storage]) -> Option<Self> {
        let [lines] = stored else { return None };
        let mut panels = Panels::stored(lines, &Self::whole(order), 2)?;
        panels.depth = order.taps * order.depth;
        Some(PackedBf16 { panels, taps: order.taps })
    }
}

/// Packed s8 weights with their column sums.
///
/// With fewer than four input channels the taps are merged into one long tap, for which the
/// kernels gather their rows; otherwise each tap is filled up to a multiple of four.
#[derive(Clone, Debug)]
pub struct PackedS8 {
    panels: Panels,
    merged_channels: Option<usize>,
    column_sums: Vec<i32>,
}

impl PackedS8 {
    /// Longest row the kernels gather.
    pub(crate) const MERGED_LIMIT: usize = 512;

    /// Packs `weights` laid out as `order` says.
    ///
    /// # Panics
    /// If `order` reaches beyond `weights`.
    pub fn pack(weights: &[i8], order: &WeightOrder) -> Self {
        assert!(order.extent() <= weights.len(), "the order reaches beyond the weights");
        let merge = Self::merges(order);
        let panels = if merge {
            let merged = Self::merged(order);
            Panels::pack(&merged, |i| {
                let (column, k) = (i / merged.depth, i % merged.depth);
                let at = column * order.column_stride
                    + k / order.depth * order.tap_stride
                    + k % order.depth * order.depth_stride;
                weights[at].to_le_bytes()
            })
        } else {
            Panels::pack(order, |i| weights[i].to_le_bytes())
        };
        Self::finish(panels, merge.then_some(order.depth))
    }

    /// Packs without merging taps, for depthwise kernels.
    pub(crate) fn pack_unmerged(weights: &[i8], order: &WeightOrder) -> Self {
        assert!(order.extent() <= weights.len(), "the order reaches beyond the weights");
        Self::finish(Panels::pack(order, |i| weights[i].to_le_bytes()), None)
    }

    /// [`Pack::load`] of what [`PackedS8::pack_unmerged`] made.
    pub(crate) fn load_unmerged(order: &WeightOrder, stored: &[Storage]) -> Option<Self> {
        let [lines, sums] = stored else { return None };
        let panels = Panels::stored(lines, order, 1)?;
        let sums = sums.bytes().as_chunks::<4>().0.iter();
        let column_sums: Vec<i32> = sums.map(|&sum| i32::from_le_bytes(sum)).collect();
        let fits = column_sums.len() == panels.columns;
        fits.then_some(PackedS8 { panels, merged_channels: None, column_sums })
    }

    fn merges(order: &WeightOrder) -> bool {
        order.taps > 1
            && (1..4).contains(&order.depth)
            && order.taps * order.depth <= Self::MERGED_LIMIT
    }

    fn merged(order: &WeightOrder) -> WeightOrder {
        WeightOrder::transposed(order.columns, order.taps * order.depth)
    }

    fn finish(panels: Panels, merged_channels: Option<usize>) -> Self {
        let mut column_sums = vec![0i32; panels.columns];
        let per_panel = panels.taps * panels.depth.div_ceil(4);
        for (index, line) in panels.bytes().chunks_exact(LINE).enumerate() {
            let first = index / per_panel * PANEL;
            for (lane, group) in line.chunks_exact(4).enumerate() {
                if let Some(sum) = column_sums.get_mut(first + lane) {
                    *sum += group.iter().map(|&byte| i32::from(byte as i8)).sum::<i32>();
                }
            }
        }
        PackedS8 { panels, merged_channels, column_sums }
    }

    /// Number of output columns N.
    pub fn columns(&self) -> usize {
        self.panels.columns
    }

    /// Sum of each column over taps and depth: what an input zero point is multiplied with.
    pub fn column_sums(&self) -> &[i32] {
        &self.column_sums
    }

    /// The panels.
    pub fn bytes(&self) -> &[u8] {
        self.panels.bytes()
    }

    /// Channels per tap where the taps are merged.
    pub(crate) fn merged_channels(&self) -> Option<usize> {
        self.merged_channels
    }

    pub(crate) fn view(&self) -> PanelView {
        PanelView {
            weights: self.panels.lines.bytes().as_ptr(),
            columns: self.panels.columns,
            taps: self.panels.taps,
            depth: self.panels.depth,
            steps: self.panels.depth.div_ceil(4),
            filled: 0,
        }
    }
}

impl Pack for PackedS8 {
    type Order = WeightOrder;

    fn stored(&self) -> Vec<Storage> {
        let sums: Vec<u8> = self.column_sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        vec![self.panels.lines.clone(), Storage::copied(&sums)]
    }

    fn load(order: &WeightOrder, stored: &[Storage]) -> Option<Self> {
        let merge = Self::merges(order);
        let packed_order = if merge { Self::merged(order) } else { *order };
        let merged_channels = merge.then_some(order.depth);
        Some(PackedS8 { merged_channels, ..Self::load_unmerged(&packed_order, stored)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_the_same_weights_pack_alike() {
        let (columns, taps, depth) = (19, 4, 5);
        let value = |n: usize, t: usize, k: usize| (n * 100 + t * 10 + k) as f32;
        let mut packs = Vec::new();
        for order in [
            WeightOrder::ohwi(columns, taps, depth),
            WeightOrder::hwio(taps, depth, columns),
            WeightOrder::oihw(columns, depth, taps),
        ] {
            let mut weights = vec![0.0; columns * taps * depth];
            for n in 0..columns {
                for t in 0..taps {
                    for k in 0..depth {
                        weights[n * order.column_stride
                            + t * order.tap_stride
                            + k * order.depth_stride] = value(n, t, k);
                    }
                }
            }
            packs.push(PackedF32::pack(&weights, &order).bytes().to_vec());
        }
        assert_eq!(packs[0], packs[1]);
        assert_eq!(packs[0], packs[2]);
        assert_eq!(packs[0].len(), 2 * taps * depth * 64);
    }

    #[test]
    fn bytes_round_trip() {
        for (taps, depth) in [(1, 7), (9, 3), (9, 6)] {
            let order = WeightOrder::ohwi(21, taps, depth);
            let weights: Vec<i8> = (0..21 * taps * depth).map(|i| (i * 37 % 251) as i8).collect();
            let packed = PackedS8::pack(&weights, &order);
            let sum: i32 = weights[taps * depth..2 * taps * depth].iter().map(|&w| w as i32).sum();
            assert_eq!(packed.column_sums()[1], sum);
            let mut stored = packed.stored();
            let again = PackedS8::load(&order, &stored).unwrap();
            assert_eq!(packed.bytes(), again.bytes());
            assert_eq!(packed.column_sums(), again.column_sums());
            assert_eq!(packed.merged_channels(), again.merged_channels());
            stored[0] = Storage::copied(&packed.bytes()[64..]);
            assert!(PackedS8::load(&order, &stored).is_none());
        }
    }
}
