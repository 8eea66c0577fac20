//! Convolutions and matrix products. Images have their channels last, which a `Conv` of Lepton
//! may have too; nothing is transposed but weights, once.

use lepton_ir::ops::conv::Conv;
use lepton_ir::ops::conv_transpose::ConvTranspose;
use lepton_ir::ops::dynamic::{DynamicConv, DynamicLinear};
use lepton_ir::ops::matmul::{Gemm, MatMul};
use lepton_ir::ops::transpose::Transpose;
use lepton_ir::ops::window::AutoPad;
use lepton_ir::{Operands, Operator, ValueId};
use lepton_tensor::{DType, Layout, Tensor};

use super::call::{Call, Results};
use super::centred;
use crate::error::FormatError;
use crate::steps::{Made, Steps};

/// How padding is given among the options of a window.
pub fn padding(call: &Call<'_, '_>, field: usize) -> Result<AutoPad, FormatError> {
    match call.word(field)? {
        0 => Ok(AutoPad::SameUpper),
        1 => Ok(AutoPad::Valid),
        other => Err(call.error(format!("unknown padding number {other}"))),
    }
}

/// Weights with their axes in another order, dequantised if they are quantised.
fn weights(call: &mut Call<'_, '_>, operand: usize, order: &[usize]) -> Made {
    let stored = call.stored(operand)?;
    let info = call.info(operand)?;
    if order.iter().enumerate().all(|(i, &axis)| i == axis) {
        return call.real(operand);
    }
    let axis = order.iter().position(|&axis| axis as i32 == info.axis).unwrap_or(0);
    let constant = call.graph_ref().constant(stored);
    let op = Transpose { permutation: order.to_vec() };
    let turned = constant.map(|tensor| op.eval(Operands(&[Some(tensor)])));
    let turned = match turned {
        Some(made) => {
            let made = made.map_err(|problem| call.error(problem.to_string()))?.pop();
            let made = made.ok_or_else(|| call.error("the weights cannot be transposed"))?;
            call.constant(made)
        }
        None => call.emit_one(op, &[Some(stored)])?,
    };
    call.dequantised(turned, info, axis as i64)
}

fn known_extent(call: &Call<'_, '_>, value: ValueId, axis: usize) -> Result<usize, FormatError> {
    let extent = call.fact(value).dims.get(axis).and_then(|dim| dim.as_usize());
    extent.ok_or_else(|| call.error(format!("the extent of axis {axis} must be known")))
}

fn require_rank(call: &Call<'_, '_>, value: ValueId, rank: usize) -> Result<(), FormatError> {
    match call.rank(value) {
        found if found == rank => Ok(()),
        found => Err(call.error(format!("an operand of {rank} axes is needed, found {found}"))),
    }
}

/// int8 weights over reals: their bytes in the order of axes `order`, and one step for each of `n`
/// channels, which run along axis 0 of the file. Such a product quantises its operand as it
/// arrives, over the whole tensor, as TensorFlow Lite does.
fn hybrid(
    call: &mut Call<'_, '_>,
    x: ValueId,
    n: usize,
    order: &[usize],
) -> Result<Option<[ValueId; 2]>, FormatError> {
    let info = call.info(1)?;
    let stored = call.stored(1)?;
    let symmetric = info.zero.iter().all(|&zero| zero == 0);
    let channels = info.scale.len() == 1 || (info.scale.len() == n && info.axis == 0);
    let bytes = call.dtype(stored) == DType::I8 && info.is_quantised();
    let whole = |tensor: &&Tensor| bytes && tensor.len() >= n;
    let Some(constant) = call.graph_ref().constant(stored).filter(whole) else {
        return Ok(None);
    };
    if call.info(0)?.is_quantised() || call.dtype(x) != DType::F32 || !(symmetric && channels) {
        return Ok(None);
    }
    let op = Transpose { permutation: order.to_vec() };
    let turned = op.eval(Operands(&[Some(constant)])).map(|mut made| made.pop());
    let Ok(Some(turned)) = turned else { return Ok(None) };
    let steps: Vec<f32> =
        (0..n).map(|i| info.scale[if info.scale.len() == 1 { 0 } else { i }]).collect();
    Ok(Some([call.constant(turned), call.constant(Tensor::vector(&steps))]))
}

fn emit_conv(
    call: &mut Call<'_, '_>,
    conv: Conv,
    [x, w]: [ValueId; 2],
    activation: usize,
) -> Results {
    let bias = call.optional(2)?;
    let conv = Conv { layout: Layout::Nhwc, ..conv };
    let made = call.emit_one(conv, &[Some(x), Some(w), bias])?;
    Ok(vec![call.activated(made, activation)?])
}

/// `CONV_2D`: x `[N,H,W,C]`, w `[M,kernel…,C/group]`, b `[M]`.
pub fn convolution(call: &mut Call<'_, '_>) -> Results {
    let (x, w) = (call.real(0)?, call.real(1)?);
    require_rank(call, x, 4)?;
    require_rank(call, w, 4)?;
    let (channels, seen) = (known_extent(call, x, 3)?, known_extent(call, w, 3)?);
    if seen == 0 || channels % seen != 0 {
        return Err(call.error(format!("weights for {seen} channels of an image of {channels}")));
    }
    let conv = Conv {
        strides: vec![call.extent(2, 0)?, call.extent(1, 0)?],
        dilations: vec![call.extent(5, 1)?, call.extent(4, 1)?],
        auto_pad: padding(call, 0)?,
        group: channels / seen,
        ..Conv::default()
    };
    let filters = known_extent(call, w, 0)?;
    if conv.group == 1
        && let Some([w, steps]) = hybrid(call, x, filters, &[0, 1, 2, 3])?
    {
        let bias = call.optional(2)?;
        let op = DynamicConv {
            strides: conv.strides,
            dilations: conv.dilations,
            auto_pad: conv.auto_pad,
            layout: Layout::Nhwc,
            activation: call.activation(3)?,
            ..DynamicConv::default()
        };
        return call.emit(op, &[Some(x), Some(w), Some(steps), bias]);
    }
    let operands = match conv.group {
        1 => centred::widened(call)?,
        _ => None,
    };
    emit_conv(call, conv, operands.unwrap_or([x, w]), 3)
}

/// `DEPTHWISE_CONV_2D`: w `[1,kernel…,M]`, each channel of x giving M/C channels.
pub fn depthwise(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    require_rank(call, x, 4)?;
    let w = call.stored(1)?;
    require_rank(call, w, 4)?;
    let conv = Conv {
        strides: vec![call.extent(2, 0)?, call.extent(1, 0)?],
        dilations: vec![call.extent(6, 1)?, call.extent(5, 1)?],
        auto_pad: padding(call, 0)?,
        group: known_extent(call, x, 3)?,
        layout: Layout::Nhwc,
        ..Conv::default()
    };
    if let Some(made) = centred::depthwise(call, &conv)? {
        return Ok(vec![made]);
    }
    let w = weights(call, 1, &[3, 1, 2, 0])?;
    emit_conv(call, conv, [x, w], 4)
}

/// `CONV_3D`: x `[N,D,H,W,C]`, w `[kernel…,C,M]`.
pub fn convolution_3d(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    require_rank(call, x, 5)?;
    let w = call.stored(1)?;
    require_rank(call, w, 5)?;
    let conv = Conv {
        strides: vec![call.extent(1, 0)?, call.extent(3, 0)?, call.extent(2, 0)?],
        dilations: vec![call.extent(5, 1)?, call.extent(7, 1)?, call.extent(6, 1)?],
        auto_pad: padding(call, 0)?,
        ..Conv::default()
    };
    let w = weights(call, 1, &[4, 0, 1, 2, 3])?;
    emit_conv(call, conv, [x, w], 4)
}

/// `TRANSPOSE_CONV`: operands the shape of the result, w `[M,kernel…,C]`, x, b.
pub fn transposed_convolution(call: &mut Call<'_, '_>) -> Results {
    let shape = call.known(0)?;
    let stored = call.stored(1)?;
    require_rank(call, stored, 4)?;
    let w = weights(call, 1, &[3, 0, 1, 2])?;
    let x = call.real(2)?;
    require_rank(call, x, 4)?;
    let strides = [call.extent(2, 0)?, call.extent(1, 0)?];
    let same = padding(call, 0)? == AutoPad::SameUpper;
    let [mut pads, mut added] = [vec![0; 4], vec![0; 2]];
    for axis in 0..2 {
        let wanted = shape.get(axis + 1).and_then(|&extent| usize::try_from(extent).ok());
        let wanted = wanted.ok_or_else(|| call.error("its result must have four axes"))?;
        let (n, kernel) = (known_extent(call, x, axis + 1)?, known_extent(call, stored, axis + 1)?);
        let whole = n.saturating_sub(1).saturating_mul(strides[axis]).saturating_add(kernel);
        let cut = if same { whole.saturating_sub(wanted) } else { 0 };
        (pads[axis], pads[axis + 2]) = (cut / 2, cut - cut / 2);
        let extra = wanted.checked_sub(whole - cut);
        added[axis] = extra.ok_or_else(|| call.error("its result is smaller than it can be"))?;
    }
    let bias = call.optional(3)?;
    let x = call.transpose(x, &[0, 3, 1, 2])?;
    let op = ConvTranspose {
        strides: strides.to_vec(),
        pads,
        output_padding: added,
        ..ConvTranspose::default()
    };
    let made = call.emit_one(op, &[Some(x), Some(w), bias])?;
    let made = call.transpose(made, &[0, 2, 3, 1])?;
    Ok(vec![call.activated(made, 3)?])
}

/// `FULLY_CONNECTED`: x `[…,K]`, w `[N,K]`, b `[N]`; the leading axes of x become one unless they
/// are to be kept.
pub fn fully_connected(call: &mut Call<'_, '_>) -> Results {
    if call.word(1)? != 0 {
        return Err(call.error("weights in shuffled order; convert the model again"));
    }
    let (x, w) = (call.real(0)?, call.real(1)?);
    require_rank(call, w, 2)?;
    let flat = call.rank(x) == 2;
    let [x, w] = if flat { centred::widened(call)?.unwrap_or([x, w]) } else { [x, w] };
    let kept = call.flag(2)? && call.rank(x) != 2;
    let lead = call.rank(x).saturating_sub(1);
    let depth = known_extent(call, w, 1)? as i64;
    let flat = call.rank(x) == 2 && call.fact(x).dims[1].is(depth);
    let rows = if flat { x } else { call.reshape(x, &[-1, depth])? };
    let bias = call.optional(2)?;
    let units = known_extent(call, w, 0)?;
    // Several rows have steps of their own there, which the whole tensor has not.
    let several = call.fact(rows).dims[0].as_known().is_some_and(|rows| rows != 1);
    let bytes = if several { None } else { hybrid(call, rows, units, &[1, 0])? };
    let mut made = match bytes {
        Some([w, steps]) => {
            let op = DynamicLinear { activation: call.activation(0)? };
            call.emit_one(op, &[Some(rows), Some(w), Some(steps), bias])?
        }
        None => {
            let op = Gemm { trans_b: true, ..Gemm::default() };
            let made = call.emit_one(op, &[Some(rows), Some(w), bias])?;
            call.activated(made, 0)?
        }
    };
    if kept {
        let shape = call.shape_of(x)?;
        let front = call.slice(shape, 0, 0, lead as i64)?;
        let last = call.integers(&[-1]);
        let shape = call.concat(&[front, last], 0)?;
        made = call.reshape_as(made, shape)?;
    }
    Ok(vec![made])
}

/// `BATCH_MATMUL`, each operand perhaps with its last two axes exchanged.
pub fn batch_product(call: &mut Call<'_, '_>) -> Results {
    let mut operands = [call.real(0)?, call.real(1)?];
    for (field, operand) in operands.iter_mut().enumerate() {
        let rank = call.rank(*operand);
        if call.flag(field)? && rank >= 2 {
            let mut order: Vec<usize> = (0..rank).collect();
            order.swap(rank - 1, rank - 2);
            *operand = call.transpose(*operand, &order)?;
        }
    }
    call.emit(MatMul {}, &operands.map(Some))
}
