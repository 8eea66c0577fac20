//! Files too large to hold in memory, as parts that are written one after the other.

use std::io::{self, Write};

/// A part of a file.
pub enum Part {
    /// These bytes.
    Once(Vec<u8>),
    /// These bytes, so often.
    Repeated(usize, Vec<u8>),
    /// What a function makes of each number below a count, always as many bytes.
    Each(usize, Box<dyn Fn(usize) -> Vec<u8>>),
}

/// Parts in order.
pub type Parts = Vec<Part>;

/// These bytes.
pub fn once(bytes: impl Into<Vec<u8>>) -> Parts {
    vec![Part::Once(bytes.into())]
}

/// As many as fit in `size` bytes of what `make` makes of 0, 1, …
pub fn fill(size: usize, make: impl Fn(usize) -> Vec<u8> + 'static) -> Parts {
    each(size / make(0).len(), make)
}

/// The bytes as often as they fit in `size`.
pub fn repeated(size: usize, bytes: Vec<u8>) -> Parts {
    vec![Part::Repeated(size / bytes.len(), bytes)]
}

/// What `make` makes of each number below `count`.
pub fn each(count: usize, make: impl Fn(usize) -> Vec<u8> + 'static) -> Parts {
    vec![Part::Each(count, Box::new(make))]
}

/// One after the other.
pub fn joined(lists: impl IntoIterator<Item = Parts>) -> Parts {
    lists.into_iter().flatten().collect()
}

/// Bytes of all parts.
pub fn length(parts: &Parts) -> usize {
    let of = |part: &Part| match part {
        Part::Once(bytes) => bytes.len(),
        Part::Repeated(count, bytes) => count * bytes.len(),
        Part::Each(count, make) => count * make(0).len(),
    };
    parts.iter().map(of).sum()
}

/// Writes the parts.
pub fn write(parts: &Parts, to: &mut impl Write) -> io::Result<()> {
    for part in parts {
        match part {
            Part::Once(bytes) => to.write_all(bytes)?,
            Part::Repeated(count, bytes) => {
                let block = bytes.repeat(1 << 12);
                (0..count >> 12).try_for_each(|_| to.write_all(&block))?;
                to.write_all(&bytes.repeat(count % (1 << 12)))?;
            }
            Part::Each(count, make) => (0..*count).try_for_each(|i| to.write_all(&make(i)))?,
        }
    }
    Ok(())
}
