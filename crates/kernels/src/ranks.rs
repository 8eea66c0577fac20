//! The largest or smallest elements of a line, in order.

/// A number that is the smaller, the earlier a value comes: the order of all floats, then that of
/// places.
fn key(value: f32, place: usize, largest: bool) -> u64 {
    let bits = value.to_bits() as i32;
    let ordered = (bits ^ (((bits >> 31) as u32) >> 1) as i32) as u32 ^ 1 << 31;
    u64::from(if largest { !ordered } else { ordered }) << 32 | place as u64
}

/// Lists no longer than this are kept in order while a line is read.
const SHORT: usize = 16;

/// The places of the first `keys.len()` elements of a line in descending (`largest`) or ascending
/// order; of equal ones the first comes first. `all` is room for the keys of a long list.
///
/// # Panics
/// If the line has fewer elements, or 2^32 or more.
pub fn first_in_order(
    line: impl ExactSizeIterator<Item = f32>,
    largest: bool,
    all: &mut Vec<u64>,
    keys: &mut [u64],
) {
    let (count, wanted) = (line.len(), keys.len());
    assert!(wanted <= count && u32::try_from(count).is_ok(), "a line of so many elements");
    let made = line.enumerate().map(|(place, value)| key(value, place, largest));
    if wanted == 0 {
        return;
    }
    if wanted > SHORT {
        all.clear();
        all.extend(made);
        if wanted < count {
            all.select_nth_unstable(wanted - 1);
        }
        all[..wanted].sort_unstable();
        return keys.copy_from_slice(&all[..wanted]);
    }
    keys.fill(u64::MAX);
    for key in made {
        if key < keys[wanted - 1] {
            let at = keys.partition_point(|&known| known < key);
            keys.copy_within(at..wanted - 1, at + 1);
            keys[at] = key;
        }
    }
}

/// The place in a key.
pub fn place(key: u64) -> usize {
    key as u32 as usize
}
