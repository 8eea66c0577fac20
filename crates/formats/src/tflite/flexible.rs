//! FlexBuffers, as far as options of operators that are not built in need them: a map from names to
//! numbers. Layout: flatbuffers.dev/flexbuffers.

use crate::error::{FormatError, at_most};
use crate::limits;

/// The type of a map, and those of numbers: inline, then behind an offset.
const MAP: u8 = 9;
const INTEGER: u8 = 1;
const UNSIGNED: u8 = 2;
const FLOAT: u8 = 3;
const FAR_INTEGER: u8 = 6;
const FAR_FLOAT: u8 = 8;
const TRUTH: u8 = 26;

fn damaged(at: usize) -> FormatError {
    let why = "options of an operator that do not follow FlexBuffers".to_string();
    FormatError::Damaged { format: "TFLite", offset: at, why }
}

/// The unsigned number of `width` bytes at `at`.
fn unsigned(bytes: &[u8], at: usize, width: usize) -> Result<u64, FormatError> {
    let end = at.checked_add(width).ok_or_else(|| damaged(at))?;
    let found = bytes.get(at..end).ok_or_else(|| damaged(at))?;
    Ok(found.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// Where an offset of `width` bytes at `at` leads: backwards.
fn followed(bytes: &[u8], at: usize, width: usize) -> Result<usize, FormatError> {
    let offset = usize::try_from(unsigned(bytes, at, width)?).ok();
    offset.and_then(|offset| at.checked_sub(offset)).ok_or_else(|| damaged(at))
}

/// The number of a type in `width` bytes; `None` for what is no number.
fn number(bytes: &[u8], at: usize, width: usize, packed: u8) -> Result<Option<f64>, FormatError> {
    let kind = packed >> 2;
    if (FAR_INTEGER..=FAR_FLOAT).contains(&kind) {
        let inner = (kind - FAR_INTEGER + INTEGER) << 2;
        return number(bytes, followed(bytes, at, width)?, 1 << (packed & 3), inner);
    }
    let raw = unsigned(bytes, at, width)?;
    Ok(match kind {
        INTEGER => {
            let unused = 64 - 8 * width as u32;
            Some(((raw << unused) as i64 >> unused) as f64)
        }
        UNSIGNED | TRUTH => Some(raw as f64),
        FLOAT if width == 4 => Some(f64::from(f32::from_bits(raw as u32))),
        FLOAT if width == 8 => Some(f64::from_bits(raw)),
        _ => None,
    })
}

/// The numbers of a map by their names, in its order; truths are 0 or 1, others are left out.
pub fn numbers(bytes: &[u8]) -> Result<Vec<(String, f64)>, FormatError> {
    let [.., packed, width] = bytes else { return Err(damaged(0)) };
    let width = usize::from(*width);
    let root = bytes.len().checked_sub(2 + width).ok_or_else(|| damaged(0))?;
    if packed >> 2 != MAP || !matches!(width, 1 | 2 | 4 | 8) {
        return Err(damaged(root));
    }
    let values = followed(bytes, root, width)?;
    let width = 1usize << (packed & 3);
    let before = |count: usize| values.checked_sub(count * width).ok_or_else(|| damaged(values));
    let count = unsigned(bytes, before(1)?, width)? as usize;
    at_most("number of options", count, limits::ELEMENTS)?;
    let key_width = unsigned(bytes, before(2)?, width)? as usize;
    if !matches!(key_width, 1 | 2 | 4 | 8) {
        return Err(damaged(values));
    }
    let keys = followed(bytes, before(3)?, width)?;
    let mut found = Vec::with_capacity(count);
    for index in 0..count {
        let key = followed(bytes, keys + index * key_width, key_width)?;
        let name = bytes[key..].split(|&byte| byte == 0).next().unwrap_or_default();
        at_most("bytes of a name", name.len(), limits::NAME_BYTES)?;
        let packed = bytes.get(values + count * width + index).ok_or_else(|| damaged(values))?;
        if let Some(number) = number(bytes, values + index * width, width, *packed)? {
            found.push((String::from_utf8_lossy(name).into_owned(), number));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// {a: −2, b: 0.5 (behind an offset), c: true}, every number one byte wide.
    fn map() -> Vec<u8> {
        let mut bytes = b"a\0b\0c\0".to_vec();
        bytes.extend(0.5f32.to_le_bytes());
        bytes.push(3); // keys: their number, then offsets to each
        bytes.extend([11, 10, 9]);
        bytes.extend([3, 1, 3]); // offset to the keys, width of keys, number of values
        bytes.extend([(-2i8) as u8, 12, 1]);
        bytes.extend([INTEGER << 2, FAR_FLOAT << 2 | 2, TRUTH << 2]);
        bytes.extend([6, MAP << 2, 1]);
        bytes
    }

    #[test]
    fn numbers_have_their_names() {
        let found = numbers(&map()).unwrap();
        let expected = [("a", -2.0), ("b", 0.5), ("c", 1.0)];
        assert_eq!(found, expected.map(|(name, number)| (name.to_string(), number)));
    }

    #[test]
    fn any_byte_may_be_wrong() {
        for at in 0..map().len() {
            for value in 0..=255 {
                let mut bytes = map();
                bytes[at] = value;
                let _ = numbers(&bytes);
                let _ = numbers(&bytes[..at]);
            }
        }
    }
}
