//! Steps that multiply and add: convolution, linear layers, matrix products.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use half::bf16;
use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::matmul::Linear;
use lepton_ir::ops::unary::{Unary, UnaryFunction};
use lepton_ir::{Graph, Node, Op, ValueId};
use lepton_kernels::conv::{Indirection, Window};
use lepton_kernels::depthwise::{depthwise_f32, depthwise_order, padded_pixels};
use lepton_kernels::epilogue::{Activation, EpilogueF32, Output, Residual};
use lepton_kernels::gemm::{Input, gemm_bf16, gemm_f32_before};
use lepton_kernels::grouped::grouped_f32;
use lepton_kernels::pack::{PackedBf16, PackedF32, PackedS8, TapsBf16, TapsS8, WeightOrder};
use lepton_kernels::quantize::f32_to_bf16;
use lepton_kernels::real::Real;
use lepton_kernels::single::{Packed24, single_f32};
use lepton_kernels::sparse::{SparseLines, sparse_f32};
use lepton_kernels::stem::{Lines, MOST_BF16, MOST_F32, stem_bf16, stem_f32};
use lepton_kernels::winograd::PackedWinograd;
use lepton_tensor::{DType, Layout, Tensor};

use super::parts::{Extents, over_parts};
use super::{Choice, Chosen, ELEMENT_WORK, is_f32, over_rows};
use crate::error::RuntimeError;
use crate::place::{Memory, Place};
use crate::plan::{Builder, Demands};

/// The kernel's name of an activation, where it has one.
pub(crate) fn activation(op: &Unary) -> Option<Activation> {
    use UnaryFunction as F;
    Some(match op.function {
        F::Identity => Activation::None,
        F::Relu => Activation::Relu,
        F::Clip => Activation::Clip { low: op.alpha, high: op.beta },
        F::LeakyRelu => Activation::LeakyRelu { slope: op.alpha },
        F::Sigmoid => Activation::Sigmoid,
        F::Silu if op.alpha == 1.0 => Activation::Silu,
        F::HardSigmoid => Activation::HardSigmoid { alpha: op.alpha, beta: op.beta },
        F::HardSwish => Activation::HardSwish,
        F::Tanh => Activation::Tanh,
        F::Gelu => Activation::Gelu,
        F::GeluTanh => Activation::GeluTanh,
        _ => return None,
    })
}

/// Weights in the form of one kernel.
pub(crate) enum Weights {
    Dense(Arc<PackedF32>),
    /// Of a single row, in 24 bits.
    Single(Packed24),
    Sparse(Arc<SparseLines>),
    Grouped(Arc<Vec<PackedF32>>),
    Depthwise(Arc<PackedF32>),
    Bf16(Arc<PackedBf16>),
    Tiles(Arc<PackedWinograd>),
    Stem(Lines, Arc<PackedF32>),
    StemBf16(Lines, Arc<TapsBf16>),
}

/// Everything a convolution or a linear layer needs at run time.
pub(crate) struct Product {
    pub rows: Indirection,
    pub weights: Weights,
    pub x: Place,
    bias: Option<Place>,
    residual: Option<Place>,
    pub y: Place,
    /// True with bf16 weights: x is rounded as they are.
    rounds: bool,
    /// True where x, and y, are kept as bf16.
    narrow: [bool; 2],
    /// A residual that is kept as bf16.
    addend: Option<Place>,
    /// Room for x as bf16, where the kernel does not round it itself.
    scratch: Option<Place>,
    x_count: usize,
    row_count: usize,
    pub columns: usize,
    activation: Activation,
    pub padding: Arc<[f32]>,
    pub work: usize,
    /// The weights of the next product, known once that is planned.
    next: Following,
}

/// The weights a plan reads after others.
pub(crate) type Following = Arc<OnceLock<Next>>;

/// Weights of the next product.
pub(crate) enum Next {
    F32(Arc<PackedF32>),
    Single(Packed24),
    Bf16(Arc<PackedBf16>),
    Integer(Arc<PackedS8>),
    Tiles(Arc<PackedWinograd>),
    StemBf16(Arc<TapsBf16>),
    StemInteger(Arc<TapsS8>),
}

impl Next {
    /// The bytes the product will read; none where it is not planned.
    pub fn bytes(following: &Following) -> &[u8] {
        match following.get() {
            Some(Next::F32(weights)) => weights.bytes(),
            Some(Next::Single(weights)) => weights.bytes(),
            Some(Next::Bf16(weights)) => weights.bytes(),
            Some(Next::Integer(weights)) => weights.bytes(),
            Some(Next::Tiles(weights)) => weights.first_bytes(),
            Some(Next::StemBf16(weights)) => weights.bytes(),
            Some(Next::StemInteger(weights)) => weights.bytes(),
            None => &[],
        }
    }
}

impl Product {
    pub fn epilogue<'a>(&self, memory: &'a Memory<'_>) -> EpilogueF32<'a> {
        let n = self.columns;
        // SAFETY: the plan holds `columns` floats of bias.
        let bias = self.bias.map(|place| unsafe { memory.slice::<f32>(place, n) });
        let residual = self
            .residual
            .map(|place| Residual { pointer: memory.read::<f32>(place), row_stride: n });
        EpilogueF32 { alpha: 1.0, bias, residual, activation: self.activation }
    }

    /// The first bytes of the next product's weights.
    pub fn next_bytes(&self) -> &[u8] {
        Next::bytes(&self.next)
    }

    fn extents(&self) -> Extents {
        let weight_bytes = match &self.weights {
            Weights::Dense(weights) => weights.bytes().len(),
            Weights::Bf16(weights) => weights.bytes().len(),
            Weights::Single(weights) => weights.bytes().len(),
            _ => 0,
        };
        Extents {
            rows: self.row_count,
            columns: self.columns,
            row_bytes: self.x_count * if self.narrow[0] { 2 } else { 4 },
            weight_bytes,
            work: self.work,
        }
    }

    fn run(&self, memory: &Memory<'_>) {
        if self.rounds {
            return match self.narrow {
                [false, false] => self.run_bf16::<f32, f32>(memory),
                [false, true] => self.run_bf16::<f32, bf16>(memory),
                [true, false] => self.run_bf16::<bf16, f32>(memory),
                [true, true] => self.run_bf16::<bf16, bf16>(memory),
            };
        }
        let n = self.columns;
        let epilogue = SharedEpilogue(self.epilogue(memory));
        let output = Output { pointer: memory.write::<f32>(self.y), row_stride: n };
        let output = SharedOutput(output);
        let base = SharedInput(memory.read::<f32>(self.x));
        over_parts(memory, &self.extents(), |part| {
            let (base, output, epilogue) = (&base, &output, &epilogue);
            let (output, epilogue) = (&output.0, &epilogue.0);
            let input = Input { base: base.0, rows: &self.rows, padding: self.padding.as_ptr() };
            let (range, columns) = (part.rows.clone(), part.columns.clone());
            let next = part.of_next(self.next_bytes());
            // SAFETY: the geometry was checked against the planned shapes; parts are disjoint, and
            // whole rows but for dense weights.
            unsafe {
                match &self.weights {
                    Weights::Dense(w) => {
                        let isa = memory.isa;
                        gemm_f32_before(isa, &input, w, epilogue, output, range, columns, next);
                    }
                    Weights::Single(w) => {
                        single_f32(memory.isa, base.0, w, epilogue, output, columns);
                    }
                    Weights::Sparse(w) => {
                        sparse_f32(memory.isa, &input, w, epilogue, output, range);
                    }
                    Weights::Grouped(w) => {
                        grouped_f32(memory.isa, &input, w, epilogue, output, range);
                    }
                    Weights::Depthwise(w) => {
                        depthwise_f32(memory.isa, &input, w, epilogue, output, range);
                    }
                    Weights::Stem(lines, w) => {
                        stem_f32(memory.isa, base.0, lines, w, epilogue, output, range, next);
                    }
                    Weights::Bf16(_) | Weights::StemBf16(..) => {
                        unreachable!("has a run of its own")
                    }
                    Weights::Tiles(_) => unreachable!("tiles have their own step"),
                }
            }
        });
    }

    /// With bf16 weights, and x and y as the plan keeps them.
    fn run_bf16<X: Real, Y: Real>(&self, memory: &Memory<'_>) {
        let n = self.columns;
        let epilogue = SharedEpilogue(self.epilogue(memory));
        let output = Output { pointer: memory.write::<Y>(self.y), row_stride: n };
        let output = SharedOutput(output);
        let (base, copy) = (memory.read::<X>(self.x), self.rounded_copy(memory));
        let base = SharedInput(base);
        over_parts(memory, &self.extents(), |part| {
            let (base, output, epilogue) = (&base, &output, &epilogue);
            let (output, epilogue) = (&output.0, &epilogue.0);
            let (range, columns) = (part.rows.clone(), part.columns.clone());
            let halves = |place| Residual { pointer: memory.read::<bf16>(place), row_stride: n };
            let addend = self.addend.map(halves);
            let addend = addend.as_ref();
            let (rows, padding) = (&self.rows, self.padding.as_ptr().cast());
            let input = Input { base: base.0, rows, padding };
            let next = part.of_next(self.next_bytes());
            // SAFETY: the geometry was checked against the planned shapes; zero floats are zero
            // bf16; parts are disjoint, and whole rows but for dense weights.
            unsafe {
                match (&self.weights, copy) {
                    (Weights::Bf16(w), _) => {
                        gemm_bf16(
                            memory.isa, &input, w, epilogue, addend, output, range, columns, next,
                        );
                    }
                    (Weights::StemBf16(lines, w), _) => {
                        stem_bf16(
                            memory.isa, base.0, lines, w, epilogue, addend, output, range, next,
                        );
                    }
                    (Weights::Depthwise(w), None) => {
                        depthwise_f32(memory.isa, &input, w, epilogue, output, range);
                    }
                    (Weights::Depthwise(w), Some(copy)) => {
                        let input = Input { base: copy.as_ptr(), rows, padding: padding.cast() };
                        depthwise_f32(memory.isa, &input, w, epilogue, output, range);
                    }
                    _ => unreachable!("no kernel of bf16"),
                }
            }
        });
    }

    /// x as bf16, where a copy of it is needed.
    fn rounded_copy<'a>(&self, memory: &'a Memory<'_>) -> Option<&'a [bf16]> {
        let (place, count) = (self.scratch?, self.x_count);
        over_rows(memory, count, count * ELEMENT_WORK, |range| {
            // SAFETY: scratch holds `x_count` bf16 and is apart from x; ranges are disjoint.
            unsafe {
                let to = memory.slice_mut::<bf16>(place, range.start, range.len());
                f32_to_bf16(memory.isa, &memory.slice::<f32>(self.x, count)[range], to);
            }
        });
        // SAFETY: as above; nobody writes it until the next step.
        Some(unsafe { memory.slice::<bf16>(place, count) })
    }
}

struct SharedInput<T>(*const T);
struct SharedOutput<T>(Output<T>);
struct SharedEpilogue<'a>(EpilogueF32<'a>);

// SAFETY: only read, and only inside the step that made it.
unsafe impl<T> Sync for SharedInput<T> {}
// SAFETY: tasks write disjoint rows.
unsafe impl<T> Sync for SharedOutput<T> {}
// SAFETY: only read, and only inside the step that made it.
unsafe impl Sync for SharedEpilogue<'_> {}

pub(crate) fn operand(node: &Node, index: usize) -> Option<ValueId> {
    node.inputs.get(index).copied().flatten()
}

/// True for a convolution in which every channel has a kernel of its own.
fn is_depthwise(graph: &Graph, node: &Node) -> bool {
    let Op::Conv(op) = &node.op else { return false };
    let shape = |index: usize| graph.fact(operand(node, index)?).shape();
    let (Some(x), Some(w)) = (shape(0), shape(1)) else { return false };
    op.group > 1 && x.last() == Some(&op.group) && w[0] == op.group
}

/// True for a product of bf16 that has a kernel: it rounds x itself.
pub(crate) fn is_bf16(graph: &Graph, node: &Node) -> bool {
    let (Some(x), Some(w), Some(y)) = (operand(node, 0), operand(node, 1), node.outputs[0]) else {
        return false;
    };
    let function = match &node.op {
        Op::Conv(op) => {
            let image = op.layout == Layout::Nhwc && graph.fact(x).rank() == 4;
            if !image || op.group != 1 && !is_depthwise(graph, node) {
                return false;
            }
            &op.activation
        }
        Op::Linear(op) => &op.activation,
        _ => return false,
    };
    let empty = |id: ValueId| graph.fact(id).shape().is_none_or(|shape| shape.contains(&0));
    let rounded = graph.fact(x).dtype == DType::F32 && graph.fact(w).dtype == DType::BF16;
    let constant = graph.constant(w).is_some();
    rounded && constant && activation(function).is_some() && !empty(x) && !empty(y)
}

/// True for an operand that a product of bf16 rounds, or finds as bf16.
pub(crate) fn takes_bf16(graph: &Graph, node: &Node, index: usize) -> bool {
    is_bf16(graph, node) && (index == 0 || index == 3 && !is_depthwise(graph, node))
}

/// Bytes of a copy of x as bf16, for those that neither find it so nor round it as they read.
pub(crate) fn rounded_copy(graph: &Graph, node: &Node, narrow: &[bool]) -> Vec<usize> {
    let copies = is_depthwise(graph, node) && is_bf16(graph, node);
    let x = operand(node, 0).filter(|x| copies && !narrow[x.index()]);
    x.map(|x| graph.fact(x).byte_size().unwrap_or(0) / 2).into_iter().collect()
}

/// True for a step that can write its result as bf16.
pub(crate) fn writes_bf16(graph: &Graph, node: &Node) -> bool {
    is_bf16(graph, node)
}

pub(crate) fn refused(builder: &Builder<'_>, node: &Node, why: impl ToString) -> RuntimeError {
    RuntimeError::Kernel { node: builder.graph.node_label(node), why: why.to_string() }
}

/// The window of a convolution over channels-last images of shape `x`, with the padding after
/// each axis that its positions really read.
pub(crate) fn image_window(op: &Conv, w: &[usize], x: &[usize]) -> Option<Window> {
    let window = op.window(w).ok()?;
    let (positions, before) = window.resolve(&x[1..3]).ok()?;
    let after = |i: usize| {
        let span = (window.kernel[i] - 1) * window.dilations[i] + 1;
        let needed = (positions[i] - 1) * window.strides[i] + span;
        needed.saturating_sub(x[i + 1] + before[i])
    };
    Some(Window {
        input: [x[1], x[2]],
        kernel: [window.kernel[0], window.kernel[1]],
        stride: [window.strides[0], window.strides[1]],
        dilation: [window.dilations[0], window.dilations[1]],
        pad_before: [before[0], before[1]],
        pad_after: [after(0), after(1)],
    })
}

/// Convolution of channels-last images with constant weights.
pub(crate) fn conv(builder: &mut Builder<'_>, node: &Node, op: &Conv) -> Choice {
    let Some((kernel, product)) = conv_product(builder, node, op)? else { return Ok(None) };
    let run = Box::new(move |memory: &Memory<'_>| {
        product.run(memory);
        Ok(())
    });
    Ok(Some(Chosen::divided(kernel, run)))
}

/// The kernel's name and the product of a convolution that has a kernel.
pub(crate) fn conv_product(
    builder: &mut Builder<'_>,
    node: &Node,
    op: &Conv,
) -> Result<Option<(&'static str, Product)>, RuntimeError> {
    let (Some(x), Some(w), Some(y)) = (node.inputs[0], node.inputs[1], node.outputs[0]) else {
        return Ok(None);
    };
    let Some(function) = activation(&op.activation) else { return Ok(None) };
    let Some(weights) = builder.graph.constant(w).cloned() else { return Ok(None) };
    let (xs, ys) = (builder.shape(x), builder.shape(y));
    let served = op.layout == Layout::Nhwc && xs.len() == 4 && is_f32(builder, node, 0);
    if !served || xs.contains(&0) || ys.contains(&0) {
        return Ok(None);
    }
    let Some(geometry) = image_window(op, weights.shape(), &xs) else { return Ok(None) };
    let rows = Indirection::window(&geometry, xs[3]).map_err(|e| refused(builder, node, e))?;
    let Some((kernel, packed)) = pack_conv(builder, w, &weights, op.group, &geometry, xs[3]) else {
        return Ok(None);
    };
    let row_count = ys[0] * ys[1] * ys[2];
    let work = row_count * weights.len();
    let mut product = product(builder, node, rows, packed, function, row_count, work);
    if product.rounds && matches!(product.weights, Weights::Depthwise(_)) {
        product.padding = builder.zeros(padded_pixels(&geometry) * xs[3] + 16);
    }
    Ok(Some((kernel, product)))
}

fn product(
    builder: &mut Builder<'_>,
    node: &Node,
    rows: Indirection,
    weights: Weights,
    activation: Activation,
    row_count: usize,
    work: usize,
) -> Product {
    let (x, y) = (node.inputs[0].expect("checked"), node.outputs[0].expect("checked"));
    let columns = builder.shape(y).last().copied().unwrap_or(1);
    let depth = builder.shape(x).last().copied().unwrap_or(1);
    let next = match &weights {
        Weights::Dense(weights) | Weights::Stem(_, weights) => Some(Next::F32(weights.clone())),
        Weights::Single(weights) => Some(Next::Single(weights.clone())),
        Weights::Bf16(weights) => Some(Next::Bf16(weights.clone())),
        Weights::Tiles(weights) => Some(Next::Tiles(weights.clone())),
        Weights::StemBf16(_, weights) => Some(Next::StemBf16(weights.clone())),
        _ => None,
    };
    let next = next.map(|next| builder.follow(next, row_count)).unwrap_or_default();
    let w = operand(node, 1).expect("checked");
    let rounds = builder.graph.fact(w).dtype == DType::BF16;
    let copies = !rounded_copy(builder.graph, node, builder.narrow()).is_empty();
    let halves = operand(node, 3).filter(|&id| builder.is_narrow(id));
    let wide = operand(node, 3).filter(|&id| !builder.is_narrow(id));
    Product {
        next,
        rows,
        weights,
        x: builder.place(x),
        bias: operand(node, 2).map(|id| builder.place(id)),
        residual: wide.map(|id| builder.place(id)),
        addend: halves.map(|id| builder.place(id)),
        y: builder.place(y),
        rounds,
        narrow: [x, y].map(|id| builder.is_narrow(id)),
        scratch: copies.then(|| builder.scratch(0)),
        x_count: builder.count(x),
        row_count,
        columns,
        activation,
        padding: builder.zeros(depth.max(1) + 16),
        work,
    }
}

/// The values of a constant as f32: its own bytes where they are.
pub(crate) fn f32_values(tensor: &Tensor) -> Cow<'_, [f32]> {
    match tensor.as_slice::<f32>() {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(tensor.to_f64_vec().iter().map(|&v| v as f32).collect()),
    }
}

/// The operands of a convolution by tiles, which finds its own rows.
pub(crate) fn of_tiles(
    builder: &mut Builder<'_>,
    node: &Node,
    op: &Conv,
    weights: Arc<PackedWinograd>,
) -> Product {
    let function = activation(&op.activation).expect("checked");
    let rows = Indirection::strided(0);
    product(builder, node, rows, Weights::Tiles(weights), function, 0, 0)
}

/// Packs weights `[M, taps…, C/group]` for the kernel that serves them.
fn pack_conv(
    builder: &Builder<'_>,
    id: ValueId,
    weights: &Tensor,
    group: usize,
    window: &Window,
    channels: usize,
) -> Option<(&'static str, Weights)> {
    let (columns, taps) = (weights.shape()[0], window.taps());
    let depth = weights.len() / (columns * taps).max(1);
    let values = || f32_values(weights);
    let packs = builder.packs;
    let depthwise = depth == 1 && columns == group && channels == group && group > 1;
    let rounded = weights.dtype() == DType::BF16;
    if rounded && group > 1 && !depthwise {
        return None;
    }
    let most = if rounded { MOST_BF16 } else { MOST_F32 };
    let lines = Lines::of(window, channels, most).filter(|_| group == 1);
    if let Some(lines) = lines {
        let order = lines.order(columns);
        return Some(if rounded {
            let pack = || TapsBf16::pack(&values(), &order);
            let packed = packs.get_or_load(id, "stem-bf16", &order, pack);
            ("stem-bf16", Weights::StemBf16(lines, packed))
        } else {
            let pack = || PackedF32::pack(&values(), &order);
            ("stem-f32", Weights::Stem(lines, packs.get_or_load(id, "stem", &order, pack)))
        });
    }
    if rounded && !depthwise {
        let order = WeightOrder::ohwi(columns, taps, depth);
        let packed = packs.get_or_load(id, "bf16", &order, || PackedBf16::pack(&values(), &order));
        return Some(("conv-bf16", Weights::Bf16(packed)));
    }
    if group == 1 {
        let order = WeightOrder::ohwi(columns, taps, depth);
        let packed = packs.get_or_load(id, "dense", &order, || PackedF32::pack(&values(), &order));
        return Some(match sparse_lines(builder, id, &packed) {
            Some(lines) => ("conv-sparse-f32", lines),
            None => ("conv-f32", Weights::Dense(packed)),
        });
    }
    if depthwise {
        let order = depthwise_order(columns, taps, false);
        let packed =
            packs.get_or_load(id, "depthwise", &order, || PackedF32::pack(&values(), &order));
        let kernel = if rounded { "depthwise-bf16" } else { "depthwise-f32" };
        return Some((kernel, Weights::Depthwise(packed)));
    }
    let each = columns / group;
    let order = WeightOrder::ohwi(each, taps, depth);
    let packed = packs.get_or_load(id, "grouped", &(group, order), || {
        let values = values();
        values.chunks_exact(each * taps * depth).map(|part| PackedF32::pack(part, &order)).collect()
    });
    Some(("grouped-conv-f32", Weights::Grouped(packed)))
}

/// The lines of dense weights that are not zero, where that pays.
fn sparse_lines(builder: &Builder<'_>, id: ValueId, dense: &PackedF32) -> Option<Weights> {
    let pack = || SparseLines::of_f32(builder.demands.isa, dense).map(Arc::new);
    let lines = builder.packs.get_or_pack(id, "lines", pack);
    Option::clone(&lines).map(Weights::Sparse)
}

/// The f32 weights of a linear layer whose rows are the batch, which is one, in fewer bits, where they
/// are far: reading them then takes longer than anything else.
fn single_row(
    builder: &Builder<'_>,
    [id, y]: [ValueId; 2],
    order: &WeightOrder,
) -> Option<Weights> {
    let Demands { isa, exact, .. } = builder.demands;
    let one = builder.count(y) == order.columns && builder.shape(y).len() == 2;
    if !one || builder.packs.is_open(y) || exact || !isa.has_avx512() || builder.are_near() {
        return None;
    }
    let weights = builder.graph.constant(id)?;
    let pack = || Packed24::pack(&f32_values(weights), order);
    Option::clone(&builder.packs.get_or_load(id, "dense-24", order, pack)).map(Weights::Single)
}

/// A linear layer with constant weights.
pub(crate) fn linear(builder: &mut Builder<'_>, node: &Node, op: &Linear) -> Choice {
    let (Some(x), Some(w), Some(y)) = (node.inputs[0], node.inputs[1], node.outputs[0]) else {
        return Ok(None);
    };
    let Some(function) = activation(&op.activation) else { return Ok(None) };
    let Some(weights) = builder.graph.constant(w).cloned() else { return Ok(None) };
    if !is_f32(builder, node, 0) || builder.count(y) == 0 || builder.count(x) == 0 {
        return Ok(None);
    }
    let (depth, columns) = (weights.shape()[0], weights.shape()[1]);
    let order = WeightOrder::matrix(depth, columns);
    let values = || f32_values(&weights);
    let row_count = builder.count(y) / columns;
    let packed = if weights.dtype() == DType::BF16 {
        let pack = || PackedBf16::pack(&values(), &order);
        Weights::Bf16(builder.packs.get_or_load(w, "bf16", &order, pack))
    } else if let Some(single) = single_row(builder, [w, y], &order) {
        single
    } else {
        let pack = || PackedF32::pack(&values(), &order);
        let dense = builder.packs.get_or_load(w, "dense", &order, pack);
        sparse_lines(builder, w, &dense).unwrap_or(Weights::Dense(dense))
    };
    let kernel = match packed {
        Weights::Bf16(_) => "linear-bf16",
        Weights::Sparse(_) => "linear-sparse-f32",
        Weights::Single(_) => "linear-24-bit",
        _ => "linear-f32",
    };
    let rows = Indirection::strided(depth);
    let work = row_count * weights.len();
    let product = product(builder, node, rows, packed, function, row_count, work);
    let run = Box::new(move |memory: &Memory<'_>| {
        product.run(memory);
        Ok(())
    });
    Ok(Some(Chosen::divided(kernel, run)))
}
