//! Index walks and checks that the reference evaluations share.

use lepton_tensor::{DType, Shape, Tensor, broadcast_shapes, checked_product, row_major_strides};

use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;

/// Calls `visit` with every index of `shape` in row-major order.
pub fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    let count = checked_product(shape).unwrap_or(0);
    let mut index = vec![0usize; shape.len()];
    for _ in 0..count {
        visit(&index);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// Element strides that read a tensor of `shape` as if it were broadcast to `target`.
pub fn broadcast_strides(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let strides = row_major_strides(shape);
    let lead = target.len() - shape.len();
    (0..target.len())
        .map(|axis| match axis.checked_sub(lead) {
            Some(own) if shape[own] != 1 => strides[own],
            _ => 0,
        })
        .collect()
}

/// The position of `index` under `strides`.
pub fn offset(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// For each element of the broadcast shape, its position in a tensor of `shape`.
pub fn broadcast_positions(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let count = checked_product(target).unwrap_or(0);
    if shape == target {
        return (0..count).collect();
    }
    let strides = broadcast_strides(shape, target);
    let (Some((&extent, outer)), Some((&stride, outer_strides))) =
        (target.split_last(), strides.split_last())
    else {
        return vec![0; count];
    };
    let mut positions = Vec::with_capacity(count);
    for_each_index(outer, |index| {
        let start = offset(index, outer_strides);
        positions.extend((0..extent).map(|i| start + i * stride));
    });
    positions
}

/// The shape several shapes broadcast to.
pub fn broadcast_all(shapes: &[&[usize]]) -> Result<Shape, Problem> {
    shapes.iter().try_fold(Vec::new(), |sum: Shape, shape| {
        broadcast_shapes(&sum, shape)
            .ok_or_else(|| Problem::shape(format!("shapes {shapes:?} do not broadcast")))
    })
}

/// The extents two facts broadcast to. A symbolic extent against a known one other than 1 is
/// taken to be equal to it, as every runtime does.
pub fn broadcast_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, Problem> {
    let rank = a.len().max(b.len());
    let one = Dim::known(1);
    let at = |dims: &[Dim], axis: usize| {
        (axis + dims.len()).checked_sub(rank).map_or(one.clone(), |i| dims[i].clone())
    };
    let text = |dims: &[Dim]| {
        let list: Vec<String> = dims.iter().map(Dim::to_string).collect();
        format!("[{}]", list.join(","))
    };
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y => Ok(x),
            (x, y) if x.is(1) => Ok(y),
            (x, y) if y.is(1) => Ok(x),
            (x, y) => match (x.as_known(), y.as_known()) {
                (Some(_), None) => Ok(x),
                (None, Some(_)) => Ok(y),
                (None, None) => Ok(Dim::unknown()),
                _ => Err(Problem::shape(format!("{} and {} do not broadcast", text(a), text(b)))),
            },
        })
        .collect()
}

/// `axis` counted from the front; negative axes count from the back.
pub fn resolve_axis(axis: i64, rank: usize) -> Result<usize, Problem> {
    let resolved = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(resolved)
        .ok()
        .filter(|&a| a < rank.max(1))
        .ok_or_else(|| Problem::value(format!("axis {axis} is outside a tensor of rank {rank}")))
}

/// Several axes counted from the front, none twice.
pub fn resolve_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, Problem> {
    let mut resolved =
        axes.iter().map(|&axis| resolve_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
    resolved.sort_unstable();
    let count = resolved.len();
    resolved.dedup();
    if resolved.len() != count {
        return Err(Problem::value(format!("axes {axes:?} name an axis twice")));
    }
    Ok(resolved)
}

/// An error unless the type is floating point.
pub fn require_float(what: &'static str, dtype: DType) -> Result<(), Problem> {
    if dtype.is_float() { Ok(()) } else { Err(Problem::dtype(what, "floating point", dtype)) }
}

/// An error unless both types are equal.
pub fn require_same(what: &'static str, first: DType, second: DType) -> Result<(), Problem> {
    if first == second {
        Ok(())
    } else {
        Err(Problem::dtype(what, format!("{first} like the first operand"), second))
    }
}

/// An error unless the fact has that rank.
pub fn require_rank(what: &str, fact: &Fact, rank: usize) -> Result<(), Problem> {
    if fact.rank() == rank {
        Ok(())
    } else {
        Err(Problem::shape(format!("{what} must have rank {rank}, found {fact}")))
    }
}

/// Most axes of a tensor whose shape is an operand that is not known.
const MAX_RANK: usize = 64;

/// The extents of a result whose shape is the operand `shape`, of which only the length is known.
pub fn unknown_dims(shape: &Fact, what: &'static str) -> Result<Vec<Dim>, Problem> {
    let rank = shape.dims.first().and_then(Dim::as_usize).ok_or(Problem::NotConstant(what))?;
    if rank > MAX_RANK {
        return Err(Problem::shape(format!("a tensor of {rank} axes")));
    }
    Ok(vec![Dim::unknown(); rank])
}

/// The integers of an operand that must be known before the model runs.
pub fn known_integers(fact: &Fact, what: &'static str) -> Result<Vec<i64>, Problem> {
    fact.known_integers().ok_or(Problem::NotConstant(what))
}

/// The elements of `tensor` picked at `positions`, whatever the type.
pub fn pick(tensor: &Tensor, shape: Shape, positions: &[usize]) -> Result<Tensor, Problem> {
    let mut made = Tensor::zeros(tensor.dtype(), shape)?;
    match tensor.dtype().size() {
        1 => pick_elements::<1>(tensor.bytes(), made.bytes_mut(), positions),
        2 => pick_elements::<2>(tensor.bytes(), made.bytes_mut(), positions),
        4 => pick_elements::<4>(tensor.bytes(), made.bytes_mut(), positions),
        _ => pick_elements::<8>(tensor.bytes(), made.bytes_mut(), positions),
    }
    Ok(made.with_words_of(tensor))
}

fn pick_elements<const SIZE: usize>(source: &[u8], to: &mut [u8], positions: &[usize]) {
    let (source, to) = (source.as_chunks::<SIZE>().0, to.as_chunks_mut::<SIZE>().0);
    to.iter_mut().zip(positions).for_each(|(to, &from)| *to = source[from]);
}

/// The elements of `tensor` from number `start` on, read with these strides, in elements, as a
/// tensor of `shape`, which must not reach beyond it. Elements that lie one behind the other are shared.
pub fn strided(
    tensor: &Tensor,
    start: usize,
    shape: Shape,
    strides: &[usize],
) -> Result<Tensor, Problem> {
    let axes = merged_axes(&shape, strides);
    if let [(_, 1)] = axes[..] {
        return Ok(tensor.part(start, shape)?);
    }
    let mut made = Tensor::zeros(tensor.dtype(), shape)?;
    let size = tensor.dtype().size();
    let source = tensor.bytes().get(start * size..).unwrap_or_default();
    match size {
        1 => copy_strided::<1>(source, made.bytes_mut(), &axes),
        2 => copy_strided::<2>(source, made.bytes_mut(), &axes),
        4 => copy_strided::<4>(source, made.bytes_mut(), &axes),
        _ => copy_strided::<8>(source, made.bytes_mut(), &axes),
    }
    Ok(made)
}

/// Extents and strides without axes of one element; neighbours that are walked as one are one.
fn merged_axes(shape: &[usize], strides: &[usize]) -> Vec<(usize, usize)> {
    let mut axes: Vec<(usize, usize)> = Vec::new();
    for (&extent, &stride) in shape.iter().zip(strides).filter(|(extent, _)| **extent != 1) {
        match axes.last_mut() {
            Some(last) if last.1 == stride * extent => *last = (last.0 * extent, stride),
            _ => axes.push((extent, stride)),
        }
    }
    if axes.is_empty() { vec![(1, 1)] } else { axes }
}

/// Copies elements of `SIZE` bytes row by row.
fn copy_strided<const SIZE: usize>(source: &[u8], to: &mut [u8], axes: &[(usize, usize)]) {
    let (&(extent, stride), outer) = axes.split_last().expect("at least one axis");
    let outer_shape: Vec<usize> = outer.iter().map(|axis| axis.0).collect();
    let outer_strides: Vec<usize> = outer.iter().map(|axis| axis.1).collect();
    let mut rows = to.chunks_exact_mut((extent * SIZE).max(1));
    for_each_index(&outer_shape, |index| {
        let Some(row) = rows.next() else { return };
        let start = offset(index, &outer_strides) * SIZE;
        if stride == 1 {
            return row.copy_from_slice(&source[start..start + row.len()]);
        }
        for (i, element) in row.as_chunks_mut::<SIZE>().0.iter_mut().enumerate() {
            let at = start + i * stride * SIZE;
            element.copy_from_slice(&source[at..at + SIZE]);
        }
    });
}
