//! Slices and elements at places that are data: picked at tuples of indices, or written there.

/// An index that is outside an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The index.
    pub index: i64,
    /// The extent of the axis.
    pub extent: usize,
}

/// A place counted from the front; negative indices count from the back.
#[inline]
fn from_front(index: i64, extent: usize) -> Result<usize, Outside> {
    let place = if index < 0 { index.wrapping_add(extent as i64) } else { index };
    let inside = usize::try_from(place).ok().filter(|&place| place < extent);
    inside.ok_or(Outside { index, extent })
}

/// Where each tuple of indices leads, in slices of which `extents` count.
///
/// # Errors
/// The first index outside its axis.
///
/// # Panics
/// If the indices are not whole tuples of as many as there are extents, or there are none.
pub fn tuple_places<I: Copy + Into<i64>>(
    extents: &[usize],
    indices: &[I],
) -> Result<Vec<usize>, Outside> {
    assert!(!extents.is_empty() && indices.len().is_multiple_of(extents.len()), "whole tuples");
    let mut places = Vec::with_capacity(indices.len() / extents.len());
    for tuple in indices.chunks_exact(extents.len()) {
        let mut place = 0;
        for (&index, &extent) in tuple.iter().zip(extents) {
            place = place * extent + from_front(index.into(), extent)?;
        }
        places.push(place);
    }
    Ok(places)
}

/// Where element `[i, indices[i,j,k], k]` of a tensor lies for each index, row-major; `outer`,
/// `extent` and `inner` are the extents of the tensor before, along and behind the axis, and
/// `taken` the extent of the indices along it, whose others are the same.
///
/// # Errors
/// The first index outside the axis.
pub fn axis_places<I: Copy + Into<i64>>(
    [outer, extent, inner]: [usize; 3],
    taken: usize,
    indices: &[I],
) -> Result<Vec<usize>, Outside> {
    let mut places = Vec::with_capacity(indices.len());
    let mut rows = indices.chunks_exact(inner.max(1));
    for o in 0..outer {
        for row in rows.by_ref().take(taken) {
            for (k, &index) in row.iter().enumerate() {
                places.push((o * extent + from_front(index.into(), extent)?) * inner + k);
            }
        }
    }
    Ok(places)
}

/// Copies the slices of `length` elements at `places` one after the other.
///
/// # Panics
/// If a slice is shorter than its places need.
pub fn pick<T: Copy>(length: usize, places: &[usize], table: &[T], output: &mut [T]) {
    if length == 1 {
        return output.iter_mut().zip(places).for_each(|(to, &place)| *to = table[place]);
    }
    for (to, &place) in output.chunks_exact_mut(length.max(1)).zip(places) {
        to.copy_from_slice(&table[place * length..][..length]);
    }
}

/// Writes slices of `length` elements to `places`; of two for one place the last stays.
///
/// # Panics
/// If a slice is shorter than its places need.
pub fn put<T: Copy>(length: usize, places: &[usize], updates: &[T], output: &mut [T]) {
    if length == 1 {
        return places.iter().zip(updates).for_each(|(&place, &update)| output[place] = update);
    }
    for (from, &place) in updates.chunks_exact(length.max(1)).zip(places) {
        output[place * length..][..length].copy_from_slice(from);
    }
}
