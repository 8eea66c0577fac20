//! A pointwise convolution and the depthwise one behind it, strip by strip: what lies between them
//! is a ring of image rows that stays in cache.

use lepton_ir::ops::conv::Conv;
use lepton_ir::{Graph, Node, Op, ValueId};
use lepton_kernels::conv::{Indirection, Window};
use lepton_kernels::depthwise::depthwise_f32;
use lepton_kernels::epilogue::{EpilogueF32, Output};
use lepton_kernels::gemm::{Input, gemm_f32};
use lepton_kernels::sparse::sparse_f32;
use lepton_tensor::{DType, Layout};

use super::product::{Product, Weights, conv_product, image_window, operand, refused};
use super::{Choice, Chosen};
use crate::place::{Memory, Place};
use crate::plan::Builder;
use crate::threads::share;

/// Bytes between the two from which strips were measured to be faster: half of a usual L2.
const LEAST_BYTES: usize = 1 << 20;
/// Bytes a ring may take.
const RING_BYTES: usize = 512 << 10;

/// How a pair is cut into strips.
#[derive(Clone, Debug)]
pub(crate) struct Strips {
    /// Rows of output computed at a time.
    rows: usize,
    /// Image rows of the ring.
    ring_rows: usize,
    /// Floats of an image row of the ring.
    row_floats: usize,
    window: Window,
}

impl Strips {
    /// Bytes of the rings of `threads` threads.
    pub fn ring_bytes(&self, threads: usize) -> usize {
        4 * self.ring_floats() * threads
    }

    /// Floats of a ring, and what vectors may read behind it.
    fn ring_floats(&self) -> usize {
        (self.ring_rows * self.row_floats).next_multiple_of(16) + 16
    }
}

/// The strips of a pointwise convolution and the depthwise one behind it, where they are worth it.
pub(crate) fn strips(graph: &Graph, first: &Node, second: &Node) -> Option<Strips> {
    let (wide, each) = (image_conv(graph, first)?, image_conv(graph, second)?);
    let between = first.outputs[0]?;
    let shape = graph.fact(between).shape()?;
    let channels = *shape.get(3)?;
    let depthwise =
        each.group == channels && graph.fact(second.outputs[0]?).shape()?[3] == channels;
    if wide.group != 1 || operand(first, 3).is_some() || !depthwise || channels == 1 {
        return None;
    }
    let weights = |node: &Node| graph.fact(operand(node, 1)?).shape();
    let first_window =
        image_window(wide, &weights(first)?, &graph.fact(operand(first, 0)?).shape()?)?;
    let window = image_window(each, &weights(second)?, &shape)?;
    let row_floats = shape[2] * channels;
    if !first_window.is_pointwise() || 4 * row_floats * shape[1] < LEAST_BYTES {
        return None;
    }
    let reach = (window.kernel[0] - 1) * window.dilation[0] + 1;
    let fit = RING_BYTES / (4 * row_floats);
    let rows = (fit.saturating_sub(reach) / window.stride[0] + 1).max(1);
    let ring_rows = (rows - 1) * window.stride[0] + reach;
    Some(Strips { rows, ring_rows, row_floats, window })
}

/// A convolution of channels-last images of f32 with constant weights of f32.
fn image_conv<'a>(graph: &Graph, node: &'a Node) -> Option<&'a Conv> {
    let Op::Conv(conv) = &node.op else { return None };
    let weights = graph.constant(operand(node, 1)?)?;
    let real = weights.dtype() == DType::F32 && graph.fact(operand(node, 0)?).dtype == DType::F32;
    let x = graph.fact(operand(node, 0)?).shape()?;
    let whole = x.len() == 4 && weights.shape().len() == 4 && !x.contains(&0);
    (real && whole && conv.layout == Layout::Nhwc).then_some(conv)
}

/// Both products and how they take turns.
struct Pair {
    wide: Product,
    each: Product,
    strips: Strips,
    ring: Place,
    images: usize,
    /// Floats of a pixel of x.
    depth: usize,
}

impl Pair {
    fn run(&self, memory: &Memory<'_>) {
        let [height, _] = self.strips.window.output().expect("planned");
        let rows = self.images * height;
        let work = self.wide.work + self.each.work;
        let parts = memory.threads.parts(work).min(rows);
        memory.threads.run(parts, &|part| {
            // A piece fills the rows again that its window shares with the piece before.
            let least = 16 * self.strips.window.kernel[0];
            let range = share(rows, part, parts);
            memory
                .watch
                .in_pieces(range, work / parts, least, |range| self.part(memory, part, range));
        });
    }

    /// Output rows of images, numbered through the batch.
    fn part(&self, memory: &Memory<'_>, part: usize, rows: std::ops::Range<usize>) {
        let window = &self.strips.window;
        let [height, _] = window.output().expect("planned");
        let ring = memory.write::<f32>(self.ring).wrapping_add(part * self.strips.ring_floats());
        let (mut row, mut filled) = (rows.start, 0);
        while row < rows.end {
            let (image, y) = (row / height, row % height);
            let end = rows.end.min(row + self.strips.rows).min(row + height - y);
            let source = |y: usize, tap: usize| {
                (y * window.stride[0] + tap * window.dilation[0])
                    .saturating_sub(window.pad_before[0])
                    .min(window.input[0])
            };
            if row == rows.start || y == 0 {
                filled = source(y, 0);
            }
            let last = source(y + (end - row) - 1, window.kernel[0] - 1);
            let until = (last + 1).min(window.input[0]);
            while filled < until {
                // Up to where the ring begins again.
                let at = filled % self.strips.ring_rows;
                let count = (until - filled).min(self.strips.ring_rows - at);
                self.fill(memory, ring, image * window.input[0] + filled, at, count);
                filled += count;
            }
            self.convolve(memory, ring, row..end);
            row = end;
        }
    }

    /// Computes `count` image rows of the value between, from row `line` of the batch on, into the
    /// ring from its row `at` on.
    fn fill(&self, memory: &Memory<'_>, ring: *mut f32, line: usize, at: usize, count: usize) {
        let product = &self.wide;
        let width = self.strips.window.input[1];
        let epilogue = product.epilogue(memory);
        // SAFETY: the plan holds these rows of x and of the ring, which belongs to this thread.
        unsafe {
            let base = memory.read::<f32>(product.x).add(line * width * self.depth);
            let input = Input { base, rows: &product.rows, padding: base };
            let pointer = ring.add(at * self.strips.row_floats);
            let output = Output { pointer, row_stride: product.columns };
            let (isa, rows, columns) = (memory.isa, 0..count * width, 0..product.columns);
            match &product.weights {
                Weights::Dense(w) => gemm_f32(isa, &input, w, &epilogue, &output, rows, columns),
                Weights::Sparse(w) => sparse_f32(isa, &input, w, &epilogue, &output, rows),
                _ => unreachable!("chosen"),
            }
        }
    }

    fn convolve(&self, memory: &Memory<'_>, ring: *mut f32, rows: std::ops::Range<usize>) {
        let product = &self.each;
        let [_, width] = self.strips.window.output().expect("planned");
        let Weights::Depthwise(weights) = &product.weights else { unreachable!("chosen") };
        let epilogue: EpilogueF32 = product.epilogue(memory);
        let input = Input { base: ring, rows: &product.rows, padding: product.padding.as_ptr() };
        let pointer = memory.write::<f32>(product.y);
        let output = Output { pointer, row_stride: product.columns };
        let pixels = rows.start * width..rows.end * width;
        // SAFETY: the ring holds every row the taps read; rows of the output are this thread's.
        unsafe { depthwise_f32(memory.isa, &input, weights, &epilogue, &output, pixels) };
    }
}

/// The step of a pair.
pub(crate) fn build(
    builder: &mut Builder<'_>,
    [first, second]: [&Node; 2],
    strips: &Strips,
    between: ValueId,
) -> Choice {
    let (Op::Conv(a), Op::Conv(b)) = (&first.op, &second.op) else { return Ok(None) };
    let made = (conv_product(builder, first, a)?, conv_product(builder, second, b)?);
    let (Some((_, wide)), Some((_, mut each))) = made else { return Ok(None) };
    each.rows = Indirection::ring(&strips.window, wide.columns, strips.ring_rows)
        .map_err(|e| refused(builder, second, e))?;
    let x = operand(first, 0).expect("checked");
    let shape = builder.shape(x);
    let ring = builder.place(between);
    let (strips, images, depth) = (strips.clone(), shape[0], shape[3]);
    let pair = Pair { wide, each, strips, ring, images, depth };
    let run = Box::new(move |memory: &Memory<'_>| {
        pair.run(memory);
        Ok(())
    });
    Ok(Some(Chosen::divided("conv-depthwise-f32", run)))
}
