//! Blocks of positions that become channels or images, and back.

use lepton_ir::ValueId;
use lepton_ir::ops::pad::Pad;

use super::call::{Call, Results};
use crate::error::FormatError;
use crate::steps::{Made, Steps};

/// The extents after the first, which must be known; the first is −1 where it is not.
fn extents(call: &Call<'_, '_>, x: ValueId) -> Result<Vec<i64>, FormatError> {
    let dims = &call.fact(x).dims;
    let mut shape = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.iter().enumerate() {
        match dim.as_known() {
            Some(known) => shape.push(known),
            None if axis == 0 => shape.push(-1),
            None => return Err(call.error("height, width and channels must be known")),
        }
    }
    Ok(shape)
}

/// `x` under the shape `split`, its axes reordered, under the shape `merged`.
fn rearranged(
    call: &mut Call<'_, '_>,
    x: ValueId,
    split: &[i64],
    order: &[usize],
    merged: &[i64],
) -> Made {
    let parts = call.reshape(x, split)?;
    let turned = call.transpose(parts, order)?;
    call.reshape(turned, merged)
}

fn image(call: &mut Call<'_, '_>) -> Result<(ValueId, [i64; 4], i64), FormatError> {
    let x = call.real(0)?;
    let block = call.extent(0, 0)? as i64;
    match extents(call, x)?[..] {
        [n, h, w, c] => Ok((x, [n, h, w, c], block)),
        _ => Err(call.error("its operand must have four axes")),
    }
}

/// Blocks of channels become blocks of pixels.
pub fn depth_to_space(call: &mut Call<'_, '_>) -> Results {
    let (x, [n, h, w, c], b) = image(call)?;
    if c % (b * b) != 0 {
        return Err(call.error(format!("{c} channels are not blocks of {b}·{b}")));
    }
    let rest = c / (b * b);
    let order = [0, 1, 3, 2, 4, 5];
    let merged = [n, h * b, w * b, rest];
    Ok(vec![rearranged(call, x, &[n, h, w, b, b, rest], &order, &merged)?])
}

/// Blocks of pixels become blocks of channels.
pub fn space_to_depth(call: &mut Call<'_, '_>) -> Results {
    let (x, [n, h, w, c], b) = image(call)?;
    if h % b != 0 || w % b != 0 {
        return Err(call.error(format!("{h}·{w} pixels are not blocks of {b}·{b}")));
    }
    let split = [n, h / b, b, w / b, b, c];
    let merged = [n, h / b, w / b, c.saturating_mul(b * b)];
    Ok(vec![rearranged(call, x, &split, &[0, 1, 3, 2, 4, 5], &merged)?])
}

/// The extents of a block, and what is added (or cut) before and after each spatial axis.
fn block_and_borders(
    call: &mut Call<'_, '_>,
    rank: usize,
) -> Result<(Vec<i64>, Vec<i64>), FormatError> {
    let (block, borders) = (call.known(1)?, call.known(2)?);
    let sound = !block.is_empty()
        && block.len() < rank
        && borders.len() == 2 * block.len()
        && block.iter().all(|b| (1..1 << 16).contains(b))
        && borders.iter().all(|b| (0..1 << 24).contains(b));
    if sound { Ok((block, borders)) } else { Err(call.error("blocks that do not fit its operand")) }
}

/// Positions that share their place in a block become an image of their own.
pub fn space_to_batch(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let rank = call.rank(x);
    let (block, borders) = block_and_borders(call, rank)?;
    let m = block.len();
    let before = borders.iter().step_by(2);
    let pads: Vec<i64> = before.chain(borders.iter().skip(1).step_by(2)).copied().collect();
    let mut wide = x;
    if pads.iter().any(|&pad| pad != 0) {
        let axes: Vec<i64> = (1..=m as i64).collect();
        let (pads, axes) = (call.integers(&pads), call.integers(&axes));
        wide = call.emit_one(Pad::default(), &[Some(x), Some(pads), None, Some(axes)])?;
    }
    let shape = extents(call, wide)?;
    let mut split = vec![shape[0]];
    let mut merged = vec![-1];
    for (axis, &b) in block.iter().enumerate() {
        if shape[axis + 1] % b != 0 {
            return Err(call.error(format!("extent {} is not blocks of {b}", shape[axis + 1])));
        }
        split.extend([shape[axis + 1] / b, b]);
        merged.push(shape[axis + 1] / b);
    }
    split.extend(&shape[m + 1..]);
    merged.extend(&shape[m + 1..]);
    let mut order: Vec<usize> = (0..m).map(|axis| 2 * axis + 2).collect();
    order.push(0);
    order.extend((0..m).map(|axis| 2 * axis + 1));
    order.extend(2 * m + 1..rank + m);
    Ok(vec![rearranged(call, wide, &split, &order, &merged)?])
}

/// Images become the places of a block; then borders are cut off.
pub fn batch_to_space(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let rank = call.rank(x);
    let (block, borders) = block_and_borders(call, rank)?;
    let (m, shape) = (block.len(), extents(call, x)?);
    let count: i64 = block.iter().fold(1, |product: i64, &b| product.saturating_mul(b));
    if shape[0] > 0 && shape[0] % count != 0 {
        return Err(call.error(format!("{} images are not blocks of {count}", shape[0])));
    }
    let mut split = block.clone();
    let images = if shape[0] > 0 { shape[0] / count } else { -1 };
    split.push(images);
    split.extend(&shape[1..]);
    let mut order = vec![m];
    let mut merged = vec![images];
    for (axis, &b) in block.iter().enumerate() {
        order.extend([m + 1 + axis, axis]);
        merged.push(shape[axis + 1].saturating_mul(b));
    }
    order.extend(2 * m + 1..rank + m);
    merged.extend(&shape[m + 1..]);
    let mut made = rearranged(call, x, &split, &order, &merged)?;
    for axis in 0..m {
        let (before, after) = (borders[2 * axis], borders[2 * axis + 1]);
        if before != 0 || after != 0 {
            made = call.slice(made, axis + 1, before, merged[axis + 1] - after)?;
        }
    }
    Ok(vec![made])
}
