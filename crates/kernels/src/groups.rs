//! Products with weights in groups of 4 or 8 bits: a scale, and maybe a zero point, for each group
//! along K of each column.
//!
//! Activations and sums are f32. Few rows multiply codes as they are unpacked and scale the sum of
//! each group; many rows first unpack some panels to f32 and then run the tiles of f32 products.

use std::ops::Range;

use lepton_tensor::Storage;

use crate::epilogue::{Block, EpilogueF32, Output};
use crate::finish::{Finish, FinishReal};
use crate::gemm::{Input, gemm_f32_panels};
use crate::isa::{self, Isa};
use crate::pack::{PANEL, PanelView};
use crate::stored::Pack;
use crate::tile::{Accumulators, Ahead, WEIGHTS_IN_CACHE};

/// Columns unpacked or multiplied together: four panels.
pub const GROUP_COLUMNS: usize = 4 * PANEL;
/// Most rows that multiply codes directly.
const FEW_ROWS: usize = 4;

/// Sizes of weights in groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOrder {
    /// K.
    pub depth: usize,
    /// N.
    pub columns: usize,
    /// Elements along K that share a scale; a multiple of 8 that divides K.
    pub group: usize,
    /// Bits of a code: 4 or 8.
    pub bits: usize,
    /// True if groups have zero points.
    pub shifted: bool,
}

impl GroupOrder {
    /// True for sizes the kernels take.
    pub fn is_served(&self) -> bool {
        let sizes = self.depth > 0 && self.columns > 0 && self.group > 0;
        let even = sizes && self.group.is_multiple_of(8) && self.depth.is_multiple_of(self.group);
        even && (self.bits == 4 || self.bits == 8)
    }

    /// Groups along K.
    pub fn groups(&self) -> usize {
        self.depth / self.group
    }

    /// Floats of scratch that [`gemm_groups`] needs for so many rows.
    pub fn scratch(&self, rows: usize) -> usize {
        let sums = FEW_ROWS.min(rows) * self.groups();
        if rows <= FEW_ROWS {
            return sums.max(self.panels_at_once() * self.depth * PANEL);
        }
        self.panels_at_once() * self.depth * PANEL
    }

    /// Panels that are unpacked together because their floats stay in L2.
    fn panels_at_once(&self) -> usize {
        if 4 * self.depth * PANEL * size_of::<f32>() <= WEIGHTS_IN_CACHE { 4 } else { 2 }
    }

    fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// Bytes of the codes of a panel.
    pub(crate) fn panel_bytes(&self) -> usize {
        self.depth * PANEL * self.bits / 8
    }
}

/// Weights in groups, in panels of 16 columns.
///
/// Codes of 4 bits: a line of 64 bytes is eight steps along K, 32 bits to a column, the first step
/// lowest, codes from 0 to 15 that stand for −8 to 7. Codes of 8 bits: 16 bytes a step, −128 to
/// 127. Scales: `[panel][group][16]` floats; zero points likewise, as floats.
#[derive(Clone, Debug)]
pub struct PackedGroups {
    order: GroupOrder,
    codes: Storage,
    scales: Storage,
    zeros: Storage,
}

impl PackedGroups {
    /// Packs `codes` `[K, N]`, `scales` `[K / group, N]` and, in shifted orders, `zeros` like the
    /// scales. Codes and zero points of 4 bits are from −8 to 7.
    ///
    /// # Panics
    /// If the order is not served, or lengths do not fit it.
    pub fn pack(order: &GroupOrder, codes: &[i8], scales: &[f32], zeros: &[i8]) -> Self {
        let GroupOrder { depth, columns, bits, shifted, .. } = *order;
        let parameters = order.groups() * columns;
        assert!(order.is_served() && codes.len() == depth * columns, "codes of the order");
        assert!(scales.len() == parameters, "scales of the order");
        assert!(zeros.len() == if shifted { parameters } else { 0 }, "zero points of the order");
        let mut packed = Storage::zeroed(order.panels() * order.panel_bytes());
        let panels = packed.make_mut().chunks_exact_mut(order.panel_bytes());
        for (panel, bytes) in panels.enumerate() {
            let first = panel * PANEL;
            for k in 0..depth {
                let row = &codes[k * columns + first..(k + 1) * columns];
                for (n, &code) in row.iter().take(PANEL).enumerate() {
                    if bits == 8 {
                        bytes[k * PANEL + n] = code as u8;
                    } else {
                        let nibble = (code + 8) as u8 & 15;
                        bytes[k / 8 * 64 + n * 4 + k % 8 / 2] |= nibble << (k % 2 * 4);
                    }
                }
            }
        }
        let zeros: Vec<f32> = zeros.iter().map(|&zero| f32::from(zero)).collect();
        let by_panel = |values| Self::by_panel(order, values);
        PackedGroups {
            order: *order,
            codes: packed,
            scales: by_panel(scales),
            zeros: by_panel(&zeros),
        }
    }

    /// `[group, N]` as `[panel][group][16]`, filled up with zeros.
    fn by_panel(order: &GroupOrder, values: &[f32]) -> Storage {
        let count = if values.is_empty() { 0 } else { order.panels() * order.groups() * PANEL };
        let mut packed = vec![0f32; count];
        for (i, to) in packed.chunks_exact_mut(PANEL).enumerate() {
            let (panel, group) = (i / order.groups(), i % order.groups());
            let row = &values[group * order.columns + panel * PANEL..(group + 1) * order.columns];
            to.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
        }
        let mut stored = Storage::zeroed(count * size_of::<f32>());
        let bytes = packed.iter().flat_map(|value| value.to_le_bytes());
        if count > 0 {
            stored.make_mut().iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
        stored
    }

    /// The sizes.
    pub fn order(&self) -> &GroupOrder {
        &self.order
    }

    /// The codes.
    pub fn bytes(&self) -> &[u8] {
        self.codes.bytes()
    }

    /// What kernels need of the panels from `panel` on.
    fn part(&self, panel: usize) -> Part {
        let order = &self.order;
        let parameters = panel * order.groups() * PANEL * size_of::<f32>();
        let zeros = match order.shifted {
            true => self.zeros.bytes()[parameters..].as_ptr().cast(),
            false => std::ptr::null(),
        };
        Part {
            codes: self.codes.bytes()[panel * order.panel_bytes()..].as_ptr(),
            panel_bytes: order.panel_bytes(),
            scales: self.scales.bytes()[parameters..].as_ptr().cast(),
            zeros,
            groups: order.groups(),
            group: order.group,
            bits: order.bits,
        }
    }
}

impl Pack for PackedGroups {
    type Order = GroupOrder;

    fn stored(&self) -> Vec<Storage> {
        vec![self.codes.clone(), self.scales.clone(), self.zeros.clone()]
    }

    fn load(order: &GroupOrder, stored: &[Storage]) -> Option<Self> {
        let [codes, scales, zeros] = stored else { return None };
        if !order.is_served() {
            return None;
        }
        let parameters = order.panels().checked_mul(order.groups())?.checked_mul(PANEL * 4)?;
        let shifts = if order.shifted { parameters } else { 0 };
        let bytes = order.panels().checked_mul(order.panel_bytes())?;
        let fits = codes.len() == bytes && scales.len() == parameters && zeros.len() == shifts;
        let aligned = |part: &Storage| part.clone().aligned(64);
        fits.then(|| PackedGroups {
            order: *order,
            codes: aligned(codes),
            scales: aligned(scales),
            zeros: aligned(zeros),
        })
    }
}

/// Some panels: addresses of their first codes, scales and zero points.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub codes: *const u8,
    pub panel_bytes: usize,
    /// Panels are `groups` · 16 apart.
    pub scales: *const f32,
    /// As the scales; null where there are none.
    pub zeros: *const f32,
    pub groups: usize,
    pub group: usize,
    pub bits: usize,
}

/// f32 product of rows that lie evenly and weights in groups, for a range of rows and of columns,
/// with so much scratch as [`GroupOrder::scratch`] says. `columns` starts at a multiple of
/// [`PANEL`] and ends at one, or at N.
///
/// # Panics
/// If rows do not lie evenly, or columns, scratch or the epilogue's vectors do not fit.
///
/// # Safety
/// As [`gemm_f32`](crate::gemm::gemm_f32).
pub unsafe fn gemm_groups(
    isa: Isa,
    input: &Input<f32>,
    weights: &PackedGroups,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
    scratch: &mut [f32],
) {
    let order = &weights.order;
    assert!(columns.start.is_multiple_of(PANEL) && columns.end <= order.columns, "columns");
    assert!(scratch.len() >= order.scratch(rows.len()), "scratch");
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() && rows.len() <= FEW_ROWS {
        // SAFETY: the token proves the instruction set; the rest is the caller's promise.
        return unsafe { few_rows(isa, input, weights, epilogue, output, rows, columns, scratch) };
    }
    let at_once = order.panels_at_once() * PANEL;
    let mut first = columns.start;
    while first < columns.end {
        let end = columns.end.min(first + at_once);
        let part = weights.part(first / PANEL);
        let panels = (end - first).div_ceil(PANEL);
        // The view begins at column 0, so that the epilogue finds its columns.
        let before = first * order.depth * size_of::<f32>();
        let view = PanelView {
            weights: scratch.as_ptr().cast::<u8>().wrapping_sub(before),
            columns: order.columns,
            taps: 1,
            depth: order.depth,
            steps: order.depth,
            filled: 0,
        };
        unpack(isa, &part, panels, &mut scratch[..panels * order.depth * PANEL]);
        // SAFETY: the caller's promise; the panels of these columns are in the scratch.
        unsafe {
            let (rows, columns, after) = (rows.clone(), first..end, Ahead::of(&[]));
            gemm_f32_panels(isa, input, &view, epilogue, output, rows, columns, after);
        }
        first = end;
    }
}

/// Panels as f32: (code − zero) · scale, rounded once.
fn unpack(isa: Isa, part: &Part, panels: usize, to: &mut [f32]) {
    assert!(to.len() == panels * part.groups * part.group * PANEL, "room for the panels");
    // SAFETY: a part has the panels that its weights have from there; the token proves the
    // instruction set.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            return isa::avx512::groups::unpack(part, panels, to.as_mut_ptr());
        }
        let _ = isa;
        isa::portable::groups::unpack(part, panels, to);
    }
}

/// Up to [`FEW_ROWS`] rows, which multiply codes as they are unpacked.
///
/// # Safety
/// As [`gemm_groups`]; needs AVX-512.
#[cfg(target_arch = "x86_64")]
unsafe fn few_rows(
    isa: Isa,
    input: &Input<f32>,
    weights: &PackedGroups,
    epilogue: &EpilogueF32,
    output: &Output<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
    scratch: &mut [f32],
) {
    let order = &weights.order;
    let stride = input.rows.stride().expect("rows that lie evenly");
    let row = |r: usize| input.base.wrapping_add((rows.start + r.min(rows.len() - 1)) * stride);
    if rows.is_empty() {
        return;
    }
    let addresses: [*const f32; FEW_ROWS] = std::array::from_fn(row);
    if order.shifted {
        for (r, sums) in scratch.chunks_exact_mut(order.groups()).take(rows.len()).enumerate() {
            // SAFETY: rows are readable for K by the caller's promise.
            let values = unsafe { std::slice::from_raw_parts(addresses[r], order.depth) };
            for (sum, group) in sums.iter_mut().zip(values.chunks_exact(order.group)) {
                *sum = group.iter().sum();
            }
        }
    }
    let mut storage = Accumulators::<f32>::new();
    let accumulators = storage.pointer();
    let mut first = columns.start;
    while first < columns.end {
        let panels = isa::avx512::groups::panels(rows.len(), (columns.end - first).div_ceil(PANEL));
        let width = (panels * PANEL).min(columns.end - first);
        let part = weights.part(first / PANEL);
        // SAFETY: the caller's promise; the panels are inside the weights, the accumulators have
        // room for them.
        unsafe {
            let sums = scratch.as_ptr();
            isa::avx512::groups::multiply(
                &part,
                rows.len(),
                panels,
                &addresses,
                sums,
                accumulators,
            );
            let block = Block::new(accumulators, [rows.start, first], [rows.len(), width]);
            FinishReal::new(isa, epilogue, output).finish(&block, false);
        }
        first += panels * PANEL;
    }
}
