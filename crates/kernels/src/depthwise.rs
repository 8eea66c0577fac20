//! Depthwise convolution over NHWC images: each channel has its own small kernel.
//!
//! f32 walks tiles of pixels by channels over the same row addresses as the matrix products. u8·s8
//! interleaves four vertical taps per channel, once for each input column a run of output pixels
//! needs, so that one dot-product instruction serves four taps of sixteen channels.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use lepton_tensor::Storage;

use crate::conv::{Across, GeometryError, Window};
use crate::depthwise_columns as columns;
use crate::depthwise_lines::{LineCall, MOST_LINES, Packed, lines_of_output};
use crate::depthwise_shared::shared;
use crate::epilogue::{Block, DequantizeF32, EpilogueF32, Output, RequantizeU8, store_real};
use crate::finish::{Finish, FinishDequantized, FinishReal, FinishU8, InRegisters};
use crate::gemm::Input;
use crate::isa::{self, Isa};
use crate::pack::{PANEL, PackedF32, PackedS8, PanelView, WeightOrder};
use crate::real::Real;
use crate::stored::Pack;
use crate::tile::{Accumulators, Direct, PITCH, RowSource, TAP_BLOCK, TILE_ROWS, even, resolver};

/// The order of depthwise weights: `channels` columns of one element per tap.
pub fn depthwise_order(channels: usize, taps: usize, channels_last: bool) -> WeightOrder {
    if channels_last {
        WeightOrder::hwio(taps, 1, channels)
    } else {
        WeightOrder::ohwi(channels, taps, 1)
    }
}

/// One call of an f32 depthwise tile kernel.
pub(crate) struct DepthwiseTile {
    /// `[tap][PITCH]` row addresses.
    pub addresses: *const usize,
    pub taps: usize,
    /// Pixels are bf16, else f32.
    pub half: bool,
    /// First channel of the tile.
    pub channel: usize,
    /// Channels in the tile; whole panels, or fewer than one.
    pub channels: usize,
    /// The first tap's line in the first panel.
    pub weights: *const u8,
    pub panel_bytes: usize,
    pub accumulators: *mut f32,
    /// Add to the accumulators instead of overwriting them.
    pub accumulate: bool,
}

/// The depthwise tile kernels of one instruction set.
pub(crate) struct MicroDepthwiseF32 {
    /// Most rows at once.
    pub rows: usize,
    /// Most whole panels at once: 1, 2 or 4.
    pub panels: usize,
    /// Computes (rows, tile).
    pub tile: unsafe fn(usize, &DepthwiseTile),
}

fn micro_f32(isa: Isa) -> &'static MicroDepthwiseF32 {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return &isa::avx512::depthwise_f32::MICRO;
    } else if isa.has_avx2() {
        return &isa::avx2::depthwise_f32::MICRO;
    }
    let _ = isa;
    &isa::portable::depthwise::MICRO_F32
}

/// One call of a depthwise kernel over a part of a line of output, whose rows lie evenly.
pub(crate) struct DepthwiseLine<'a> {
    /// Where the line's first row has its first tap of each line of taps, and the tap's number.
    pub lines: &'a [(usize, usize)],
    /// Bytes from there to the first row of the tile.
    pub offset: usize,
    /// Taps in a line of taps.
    pub taps: usize,
    /// Bytes between taps, and between rows.
    pub tap_step: usize,
    pub row_step: usize,
    /// For each tap of a line, the floats of the first row that count, and those of the last; of
    /// rows between them all do.
    pub ends: [*const u16; 2],
    /// `[tap][16]` weights.
    pub weights: *const f32,
    pub finish: InRegisters,
}

/// The kernels of one instruction set for lines of output.
pub(crate) struct MicroDepthwiseLine {
    /// Most rows at once.
    pub rows: usize,
    /// Computes (rows, line).
    pub tile: unsafe fn(usize, &DepthwiseLine),
}

/// The kernels for lines of output, where an instruction set has them.
fn micro_line(isa: Isa) -> Option<&'static MicroDepthwiseLine> {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return Some(&isa::avx512::depthwise_lines::MICRO);
    }
    let _ = isa;
    None
}

/// Pixels of a line of the image, with those of the padding that its window reads.
pub fn padded_pixels(window: &Window) -> usize {
    window.pad_before[1] + window.input[1] + window.pad_after[1]
}

/// Depthwise convolution in f32 for a range of output pixels; pixels are f32 or bf16, results f32
/// or rounded to bf16. The weights are packed in [`depthwise_order`]; the input's geometry is that
/// of a convolution with one channel per tap. Of pixels of bf16, one that is no finite number may make
/// the results above and below its own NaN.
///
/// # Panics
/// If taps or the epilogue's vectors do not fit the weights.
///
/// # Safety
/// Every tap of `rows` is readable from `input` for all channels, `input.padding` too, and where
/// pixels are bf16 for [`padded_pixels`] that lie as those of the images; `output`
/// and the residual cover `rows`; nobody else touches that part of the output meanwhile.
pub unsafe fn depthwise_f32<T: Real, R: Real>(
    isa: Isa,
    input: &Input<T>,
    weights: &PackedF32,
    epilogue: &EpilogueF32,
    output: &Output<R>,
    rows: Range<usize>,
) {
    let view = weights.view();
    assert!(input.rows.taps() == view.taps && view.depth == 1, "taps");
    let lines = micro_line(isa).zip(input.rows.lines_across());
    let usable = |across: &Across| {
        T::WIDE && R::WIDE && !across.inside.is_empty() && view.taps <= MOST_LINES * across.taps
    };
    // SAFETY: the caller's promise; a wide result is f32.
    unsafe {
        if let Some((micro, across)) = lines.filter(|(_, across)| usable(across)) {
            let pointer = output.pointer.cast::<f32>();
            let output = Output { pointer, row_stride: output.row_stride };
            let finish = FinishReal::new(isa, epilogue, &output);
            if let Some(packed) = Packed::of(&view, across, &finish) {
                return lines_of_output(across, view.taps, input, rows, |line| {
                    LineCall::new(micro, across, line, &packed, &finish).run(line.pixels.clone());
                });
            }
        }
        if !T::WIDE && weights.are_halves() {
            let (base, padding) = (input.base.cast::<bf16>(), input.padding.cast());
            let input = Input { base, rows: input.rows, padding };
            let finish = FinishReal::of_halves(isa, epilogue, None, output);
            if columns::halves(isa, &input, view, rows.clone(), &finish) {
                return;
            }
        }
        if !shared(isa, input, &view, epilogue, output, rows.clone()) {
            scattered(isa, input, &view, epilogue, output, rows);
        }
    }
}

/// [`depthwise_f32`] over rows that may lie anywhere.
///
/// # Safety
/// As [`depthwise_f32`].
unsafe fn scattered<T: Real, R: Real>(
    isa: Isa,
    input: &Input<T>,
    view: &PanelView,
    epilogue: &EpilogueF32,
    output: &Output<R>,
    rows: Range<usize>,
) {
    let micro = micro_f32(isa);
    let mut source = Direct { input, resolver: resolver(isa) };
    let mut address_slots = [MaybeUninit::<usize>::uninit(); TAP_BLOCK * PITCH];
    let addresses = address_slots.as_mut_ptr().cast::<usize>();
    let mut storage = Accumulators::<f32>::new();
    let accumulators = storage.pointer();
    let mut row = rows.start;
    while row < rows.end {
        let count = even(rows.end - row, micro.rows);
        let mut resolved = usize::MAX;
        let mut channel = 0;
        while channel < view.columns {
            let channels = tile_channels(view.columns - channel, micro.panels);
            for tap in (0..view.taps).step_by(TAP_BLOCK) {
                let taps = tap..view.taps.min(tap + TAP_BLOCK);
                // SAFETY: addresses and accumulators have room for a tile; rows are readable and
                // the instruction set is there by the caller's promise and the token.
                unsafe {
                    if resolved != tap {
                        source.addresses(row, count, taps.clone(), addresses);
                        resolved = tap;
                    }
                    let line = channel / PANEL * view.panel_bytes() + tap * 64;
                    let tile = DepthwiseTile {
                        addresses,
                        taps: taps.len(),
                        half: !T::WIDE,
                        channel,
                        channels,
                        weights: view.weights.add(line),
                        panel_bytes: view.panel_bytes(),
                        accumulators,
                        accumulate: tap > 0,
                    };
                    (micro.tile)(count, &tile);
                }
            }
            let block = Block::new(accumulators, [row, channel], [count, channels]);
            // SAFETY: the tile has been computed; the output covers it by the caller's promise.
            unsafe { store_real(isa, &block, epilogue, output) };
            channel += channels;
        }
        row += count;
    }
}

/// Channels of the next tile: four, two or one whole panels, or what is left of one.
fn tile_channels(left: usize, most_panels: usize) -> usize {
    match (left / PANEL).min(most_panels) {
        0 => left,
        1 => PANEL,
        2 | 3 => 2 * PANEL,
        _ => 4 * PANEL,
    }
}

/// Packed s8 depthwise weights: taps are kernel columns, depth is kernel rows, four to a step.
#[derive(Clone, Debug)]
pub struct DepthwiseTapsS8(PackedS8);

impl DepthwiseTapsS8 {
    /// How weights in the order of [`depthwise_order`] are read for a kernel of so many rows and
    /// columns.
    pub fn order(order: &WeightOrder, [rows, columns]: [usize; 2]) -> WeightOrder {
        assert!(order.taps == rows * columns && order.depth == 1, "the order of another window");
        let depth_stride = columns * order.tap_stride;
        WeightOrder { taps: columns, depth: rows, depth_stride, ..*order }
    }

    /// Packs `weights` laid out as `order` says, which is of [`DepthwiseTapsS8::order`].
    ///
    /// # Panics
    /// If `order` reaches beyond `weights`.
    pub fn pack(weights: &[i8], order: &WeightOrder) -> Self {
        DepthwiseTapsS8(PackedS8::pack_unmerged(weights, order))
    }
}

impl Pack for DepthwiseTapsS8 {
    type Order = WeightOrder;

    fn stored(&self) -> Vec<Storage> {
        self.0.stored()
    }

    fn load(order: &WeightOrder, stored: &[Storage]) -> Option<Self> {
        PackedS8::load_unmerged(order, stored).map(DepthwiseTapsS8)
    }
}

/// s8 depthwise weights and the window they belong to.
#[derive(Clone, Debug)]
pub struct DepthwiseS8 {
    weights: Arc<DepthwiseTapsS8>,
    window: Window,
    width: usize,
    pixels: usize,
    pixel_stride: usize,
}

/// Interleaved columns kept at a time, in groups of four rows by 64 channels.
const SLOTS: usize = 80;
/// Channels worked on at a time.
const CHANNEL_BLOCK: usize = 4 * PANEL;

/// One call of a u8 × s8 depthwise kernel.
pub(crate) struct DepthwiseRun {
    /// `[slot][group][panel]` lines of 16 channels × 4 kernel rows.
    pub slots: *const u8,
    /// Bytes between the first slots of neighbouring pixels.
    pub pixel_bytes: usize,
    /// Bytes between the slots of neighbouring kernel columns.
    pub column_bytes: usize,
    pub kernel_columns: usize,
    /// Groups of four kernel rows.
    pub groups: usize,
    /// Panels of 16 channels, at most 4.
    pub panels: usize,
    /// Lines `[kernel column][group]` of the first panel.
    pub weights: *const u8,
    pub panel_bytes: usize,
    /// Pixels, at most `TILE_ROWS`.
    pub pixels: usize,
    pub accumulators: *mut i32,
}

/// Four rows of neighbouring pixels to interleave, channel by channel.
pub(crate) struct Interleave {
    /// Where each row's first pixel is.
    pub sources: [*const u8; 4],
    /// Bytes between a row's pixels; 0 repeats the padding.
    pub steps: [usize; 4],
    /// Channels to take, at most 64; the rest of the last panel may hold anything.
    pub channels: usize,
    pub pixels: usize,
    /// Where the first pixel's panels of 16 channels × 4 rows go.
    pub target: *mut u8,
    /// Bytes between the targets of neighbouring pixels.
    pub target_step: usize,
}

/// The depthwise integer kernels of one instruction set.
pub(crate) struct MicroDepthwiseU8S8 {
    /// Fills neighbouring slots.
    pub interleave: unsafe fn(&Interleave),
    /// Sums over taps.
    pub run: unsafe fn(&DepthwiseRun),
}

fn micro_u8s8(isa: Isa) -> &'static MicroDepthwiseU8S8 {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512() {
        return &isa::avx512::depthwise_u8s8::MICRO;
    } else if isa.has_avx2() {
        return &isa::avx2::depthwise_u8s8::MICRO;
    }
    let _ = isa;
    &isa::portable::depthwise::MICRO_U8S8
}

impl DepthwiseS8 {
    /// Weights for one window; the input's pixels are `pixel_stride` bytes apart.
    ///
    /// # Errors
    /// If the window has no output, or a kernel of more than 16 rows or columns.
    ///
    /// # Panics
    /// If the weights are of another kernel.
    pub fn new(
        weights: Arc<DepthwiseTapsS8>,
        window: &Window,
        pixel_stride: usize,
    ) -> Result<Self, GeometryError> {
        let [height, width] = window.output().ok_or(GeometryError::NoOutput { window: *window })?;
        if window.kernel[0] > 16 || window.kernel[1] > 16 {
            return Err(GeometryError::KernelTooLarge { kernel: window.kernel });
        }
        let view = weights.0.view();
        assert!([view.depth, view.taps] == window.kernel, "weights of another kernel");
        let pixels = height * width;
        Ok(DepthwiseS8 { weights, window: *window, width, pixels, pixel_stride })
    }

    /// Sum of each channel's weights: what an input zero point is multiplied with.
    pub fn column_sums(&self) -> &[i32] {
        self.weights.0.column_sums()
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.weights.0.columns()
    }

    /// How many pixels to take at once, and the distance in slots between pixels and between
    /// kernel columns: neighbours share input columns where that is fewer slots.
    fn sharing(&self, groups: usize) -> (usize, usize, usize) {
        let (stride, dilation) = (self.window.stride[1], self.window.dilation[1]);
        let kernel = self.window.kernel[1];
        let most = SLOTS / groups;
        let reach = (kernel - 1) * dilation + 1;
        let shared = if reach <= most { (most - reach) / stride + 1 } else { 0 };
        let alone = most / kernel;
        if shared >= alone {
            (shared.min(TILE_ROWS), stride, dilation)
        } else {
            (alone.min(TILE_ROWS), kernel, 1)
        }
    }

    /// Interleaves the columns that `count` pixels from (`y`, `x`) on need.
    ///
    /// # Safety
    /// As [`depthwise_u8s8`]; `slots` has room for them.
    unsafe fn interleave(
        &self,
        micro: &MicroDepthwiseU8S8,
        image: *const u8,
        padding: *const u8,
        [y, x]: [usize; 2],
        count: usize,
        channels: usize,
        slots: *mut u8,
    ) {
        let window = &self.window;
        let [rows, columns] = window.kernel;
        let groups = rows.div_ceil(4);
        let (_, pixel_slots, column_slots) = self.sharing(groups);
        let slot_bytes = groups * channels.div_ceil(PANEL) * 64;
        let shared = column_slots == window.dilation[1] && pixel_slots == window.stride[1];
        let run = |first: usize, length: usize, slot: usize, group: usize| {
            let mut sources = [padding; 4];
            let mut steps = [0; 4];
            let column = first.checked_sub(window.pad_before[1]).filter(|&c| c < window.input[1]);
            for i in 0..4 {
                let tap = group * 4 + i;
                let line = if tap < rows { window.source(0, y, tap) } else { None };
                if let (Some(line), Some(column)) = (line, column) {
                    let pixel = line * window.input[1] + column;
                    sources[i] = image.wrapping_add(pixel * self.pixel_stride);
                    steps[i] = self.pixel_stride;
                }
            }
            let target = slots.wrapping_add(slot * slot_bytes + group * (slot_bytes / groups));
            let (pixels, target_step) = (length, slot_bytes);
            Interleave { sources, steps, channels, pixels, target, target_step }
        };
        for group in 0..groups {
            if shared {
                // Runs of columns left of, inside and right of the image, in padded coordinates.
                let start = x * window.stride[1];
                let end = start + (count - 1) * pixel_slots + (columns - 1) * column_slots + 1;
                let inside = window.pad_before[1].clamp(start, end);
                let outside = (window.pad_before[1] + window.input[1]).clamp(start, end);
                for (from, to) in [(start, inside), (inside, outside), (outside, end)] {
                    if from < to {
                        // SAFETY: the run's pixels are inside the image, its slots in the room.
                        unsafe { (micro.interleave)(&run(from, to - from, from - start, group)) };
                    }
                }
            } else {
                for slot in 0..count * columns {
                    let at = (x + slot / columns) * window.stride[1];
                    let at = at + slot % columns * window.dilation[1];
                    // SAFETY: as above.
                    unsafe { (micro.interleave)(&run(at, 1, slot, group)) };
                }
            }
        }
    }
}

/// Room for the interleaved slots.
#[repr(align(64))]
struct Slots([MaybeUninit<u8>; SLOTS * CHANNEL_BLOCK * 4]);

/// u8 × s8 depthwise sums for a range of output pixels, in blocks handed to `finish`.
///
/// # Safety
/// As [`depthwise_u8s8`].
unsafe fn run_u8s8(
    isa: Isa,
    input: *const u8,
    padding: *const u8,
    weights: &DepthwiseS8,
    rows: Range<usize>,
    finish: impl Finish<i32>,
) {
    let view = weights.weights.0.view();
    let (pixels, images) = ((input, padding), (&weights.window, weights.pixel_stride));
    // SAFETY: the caller's promise.
    if unsafe { columns::bytes(isa, pixels, images, view, rows.clone(), &finish) } {
        return;
    }
    let micro = micro_u8s8(isa);
    let image_bytes = weights.window.input[0] * weights.window.input[1] * weights.pixel_stride;
    let (most, pixel_slots, column_slots) = weights.sharing(view.steps);
    let mut storage = Accumulators::<i32>::new();
    let accumulators = storage.pointer();
    let mut room = Slots([const { MaybeUninit::uninit() }; SLOTS * CHANNEL_BLOCK * 4]);
    let slots = room.0.as_mut_ptr().cast::<u8>();
    let mut row = rows.start;
    while row < rows.end {
        let (image, pixel) = (row / weights.pixels, row % weights.pixels);
        let position = [pixel / weights.width, pixel % weights.width];
        let left = (rows.end - row).min(weights.width - position[1]);
        let count = even(left, most);
        for channel in (0..view.columns).step_by(CHANNEL_BLOCK) {
            let channels = (view.columns - channel).min(CHANNEL_BLOCK);
            let panels = channels.div_ceil(PANEL);
            let slot_bytes = view.steps * panels * 64;
            // SAFETY: `sharing` keeps slots within the room; the rest is the caller's promise.
            unsafe {
                let image = input.add(image * image_bytes + channel);
                let padding = padding.add(channel);
                weights.interleave(micro, image, padding, position, count, channels, slots);
                (micro.run)(&DepthwiseRun {
                    slots,
                    pixel_bytes: pixel_slots * slot_bytes,
                    column_bytes: column_slots * slot_bytes,
                    kernel_columns: view.taps,
                    groups: view.steps,
                    panels,
                    weights: view.weights.add(channel / PANEL * view.panel_bytes()),
                    panel_bytes: view.panel_bytes(),
                    pixels: count,
                    accumulators,
                });
            }
            finish.finish(&Block::new(accumulators, [row, channel], [count, channels]), false);
        }
        row += count;
    }
}

/// u8 × s8 depthwise convolution for a range of output pixels, requantised to u8. Exact on every
/// instruction set.
///
/// # Panics
/// If the epilogue's vectors do not fit the weights.
///
/// # Safety
/// `input` holds images of the window the weights were packed for, `padding` a zero-point byte for
/// each byte of [`padded_pixels`]; `output` and the residual cover `rows`; nobody else touches that part of the
/// output meanwhile.
pub unsafe fn depthwise_u8s8(
    isa: Isa,
    input: *const u8,
    padding: *const u8,
    weights: &DepthwiseS8,
    epilogue: &RequantizeU8,
    output: &Output<u8>,
    rows: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishU8::new(isa, epilogue, output);
        run_u8s8(isa, input, padding, weights, rows, finish);
    }
}

/// u8 × s8 depthwise convolution for a range of output pixels, scaled to f32.
///
/// # Panics
/// If the epilogue's vectors do not fit the weights.
///
/// # Safety
/// As [`depthwise_u8s8`].
pub unsafe fn depthwise_u8s8_f32(
    isa: Isa,
    input: *const u8,
    padding: *const u8,
    weights: &DepthwiseS8,
    epilogue: &DequantizeF32,
    output: &Output<f32>,
    rows: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let finish = FinishDequantized::new(isa, epilogue, output);
        run_u8s8(isa, input, padding, weights, rows, finish);
    }
}
