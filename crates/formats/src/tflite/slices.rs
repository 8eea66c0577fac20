//! Operators that take a part of a tensor, or put something around it.

use lepton_ir::ValueId;
use lepton_ir::ops::binary::BinaryFunction as B;
use lepton_ir::ops::pad::{Pad, PadMode};
use lepton_ir::ops::reshape::Squeeze;
use lepton_ir::ops::slice::Slice;
use lepton_tensor::{DType, Tensor};

use super::call::{Call, Results};
use crate::error::FormatError;
use crate::steps::{LARGEST, Made, Steps};

/// Operands x, `[rank,2]` elements before and after each axis, and perhaps the value that is added.
pub fn pad(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let value = call.optional(2)?;
    let pads = match call.known_or_none(1)? {
        Some(list) => {
            let before = list.iter().step_by(2);
            let list: Vec<i64> = before.chain(list.iter().skip(1).step_by(2)).copied().collect();
            call.integers(&list)
        }
        None => {
            let list = call.stored(1)?;
            let list = Steps::transpose(call, list, &[1, 0])?;
            let list = call.reshape(list, &[-1])?;
            call.cast(list, DType::I64)?
        }
    };
    call.emit(Pad::default(), &[Some(x), Some(pads), value])
}

/// The mirror image around x, the border not repeated (`REFLECT`) or repeated (`SYMMETRIC`).
pub fn mirror_pad(call: &mut Call<'_, '_>) -> Results {
    let mode = call.word(0)?;
    if mode == 0 {
        let x = call.real(0)?;
        let list = call.known(1)?;
        let before = list.iter().step_by(2);
        let list: Vec<i64> = before.chain(list.iter().skip(1).step_by(2)).copied().collect();
        let pads = call.integers(&list);
        return call.emit(Pad { mode: PadMode::Reflect }, &[Some(x), Some(pads)]);
    }
    let mut x = call.real(0)?;
    let (shape, pads) = (call.extents(x)?, call.known(1)?);
    for (axis, &extent) in shape.iter().enumerate() {
        let (before, after) = match pads.get(2 * axis..2 * axis + 2) {
            Some(&[before, after]) if (0..=extent as i64).contains(&before.max(after)) => {
                (before, after)
            }
            _ => return Err(call.error(format!("it mirrors more than the extent of {shape:?}"))),
        };
        if before.min(after) < 0 || extent > LARGEST {
            return Err(call.error("it takes a negative number of elements"));
        }
        if before + after > 0 {
            let n = extent as i64;
            let mirrored = |i: i64| if i < 0 { -1 - i } else { i.min(2 * n - 1 - i) };
            let positions: Vec<i64> = (-before..n + after).map(mirrored).collect();
            x = call.picked(x, axis as i64, &positions)?;
        }
    }
    Ok(vec![x])
}

/// x from its end along some axes.
pub fn reverse(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let axes = call.known(1)?;
    let count = axes.len();
    let bounds = [vec![-1; count], vec![i64::MIN + 1; count], axes, vec![-1; count]];
    Ok(vec![cut(call, x, bounds)?])
}

/// Starts, ends, axes and steps as constants.
fn cut(call: &mut Call<'_, '_>, x: ValueId, bounds: [Vec<i64>; 4]) -> Made {
    let bounds = bounds.map(|list| Some(call.integers(&list)));
    call.emit_one(Slice {}, &[Some(x), bounds[0], bounds[1], bounds[2], bounds[3]])
}

/// Operands x, first elements and numbers of elements, −1 for all that follow.
pub fn slice(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    if let (Some(starts), Some(sizes)) = (call.known_or_none(1)?, call.known_or_none(2)?) {
        let end = |(start, size): (&i64, &i64)| match size {
            -1 => i64::MAX,
            size => start.saturating_add(*size),
        };
        let ends: Vec<i64> = starts.iter().zip(&sizes).map(end).collect();
        let (axes, steps) = ((0..ends.len() as i64).collect(), vec![1; ends.len()]);
        return Ok(vec![cut(call, x, [starts, ends, axes, steps])?]);
    }
    let (starts, sizes) = (call.long(1)?, call.long(2)?);
    let ends = call.pair(B::Add, starts, sizes)?;
    let (zero, far) = (call.scalar(DType::I64, 0.0)?, Tensor::scalar(i64::MAX));
    let far = call.constant(far);
    let open = call.pair(B::Less, sizes, zero)?;
    let ends = call.select(open, far, ends)?;
    call.emit(Slice {}, &[Some(x), Some(starts), Some(ends)])
}

/// What a strided slice does along the axes of x, and to them.
#[derive(Default)]
struct Strided {
    /// Starts, ends, axes, steps.
    bounds: [Vec<i64>; 4],
    /// Axes of x that go.
    removed: Vec<i64>,
    /// Axes of the result that are new.
    added: Vec<i64>,
}

/// Which entries of the operands mean something else than bounds.
struct Masks {
    begin: i32,
    end: i32,
    ellipsis: i32,
    new_axis: i32,
    shrink: i32,
}

fn has(mask: i32, entry: usize) -> bool {
    entry < 32 && mask >> entry & 1 == 1
}

impl Strided {
    fn new(rank: usize, masks: &Masks, lists: [&[i64]; 3]) -> Option<Strided> {
        let [starts, ends, steps] = lists;
        let mut made = Strided::default();
        let count = starts.len();
        if ends.len() != count || steps.len() != count {
            return None;
        }
        let is_new = |i: usize| has(masks.new_axis, i) && !has(masks.ellipsis, i);
        let own = (0..count).filter(|&i| !is_new(i) && !has(masks.ellipsis, i)).count();
        let (mut axis, mut result_axis) = (0usize, 0i64);
        for i in 0..count {
            if has(masks.ellipsis, i) {
                let skipped = rank.checked_sub(own)?;
                axis += skipped;
                result_axis += skipped as i64;
            } else if is_new(i) {
                made.added.push(result_axis);
                result_axis += 1;
            } else if axis >= rank || steps[i] == 0 {
                return None;
            } else {
                let shrinks = has(masks.shrink, i);
                let forward = steps[i] > 0 || shrinks;
                let (first, last) = if forward { (0, i64::MAX) } else { (i64::MAX, i64::MIN + 1) };
                let start = if has(masks.begin, i) { first } else { starts[i] };
                let end = match shrinks {
                    true if start == -1 => i64::MAX,
                    true => start.saturating_add(1),
                    false if has(masks.end, i) => last,
                    false => ends[i],
                };
                made.push(start, end, axis as i64, if shrinks { 1 } else { steps[i] });
                if shrinks {
                    made.removed.push(axis as i64);
                } else {
                    result_axis += 1;
                }
                axis += 1;
            }
        }
        Some(made)
    }

    fn push(&mut self, start: i64, end: i64, axis: i64, step: i64) {
        for (list, value) in self.bounds.iter_mut().zip([start, end, axis, step]) {
            list.push(value);
        }
    }
}

fn masks(call: &Call<'_, '_>) -> Result<Masks, FormatError> {
    Ok(Masks {
        begin: call.int(0, 0)?,
        end: call.int(1, 0)?,
        ellipsis: call.int(2, 0)?,
        new_axis: call.int(3, 0)?,
        shrink: call.int(4, 0)?,
    })
}

/// NumPy's slices: operands x, starts, ends and steps.
pub fn strided(call: &mut Call<'_, '_>) -> Results {
    let x = call.real(0)?;
    let (rank, masks) = (call.rank(x), masks(call)?);
    let steps = call.known(3)?;
    let (Some(starts), Some(mut ends)) = (call.known_or_none(1)?, call.known_or_none(2)?) else {
        return unknown_bounds(call, x, &masks, &steps);
    };
    if call.flag(5)? {
        for (end, start) in ends.iter_mut().zip(&starts) {
            *end = end.saturating_add(*start);
        }
    }
    let made = Strided::new(rank, &masks, [&starts, &ends, &steps]);
    let made = made.ok_or_else(|| call.error("its bounds do not go with its operand"))?;
    let mut y = x;
    if !made.bounds[0].is_empty() {
        y = cut(call, x, made.bounds)?;
    }
    if !made.removed.is_empty() {
        let axes = call.integers(&made.removed);
        y = call.emit_one(Squeeze {}, &[Some(y), Some(axes)])?;
    }
    if !made.added.is_empty() {
        y = call.unsqueeze(y, &made.added)?;
    }
    Ok(vec![y])
}

/// Bounds that are computed, all of them meant as they are, but for axes that go.
fn unknown_bounds(call: &mut Call<'_, '_>, x: ValueId, masks: &Masks, steps: &[i64]) -> Results {
    let plain = masks.begin | masks.end | masks.ellipsis | masks.new_axis == 0 && !call.flag(5)?;
    let all = (1i64 << steps.len().min(32)) - 1;
    let shrinks = i64::from(masks.shrink) & all;
    if !plain || (shrinks != 0 && shrinks != all) {
        return Err(call.error("bounds that are computed go with no mask"));
    }
    let starts = call.long(1)?;
    if shrinks == 0 {
        let (ends, axes) = (call.long(2)?, (0..steps.len() as i64).collect::<Vec<i64>>());
        let (axes, steps) = (call.integers(&axes), call.integers(steps));
        return call.emit(Slice {}, &[Some(x), Some(starts), Some(ends), Some(axes), Some(steps)]);
    }
    let place = call.unsqueeze(starts, &[0])?;
    let place = call.reshape(place, &[steps.len() as i64])?;
    call.emit(lepton_ir::ops::scatter::GatherND::default(), &[Some(x), Some(place)])
}
