//! Bytes of a tensor: owned and aligned to 64, or borrowed from something that outlives them.

use std::fmt;
use std::sync::Arc;

/// Owned storage comes in whole cache lines, so every owned tensor starts on one.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

#[derive(Clone)]
enum Source {
    Owned(Arc<Vec<CacheLine>>),
    Foreign(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

/// An immutable, shareable run of bytes; cloning shares them.
#[derive(Clone)]
pub struct Storage {
    source: Source,
    offset: usize,
    length: usize,
}

impl Storage {
    /// `length` zero bytes, aligned to 64.
    pub fn zeroed(length: usize) -> Self {
        // Pages that come zeroed from the system are not written again.
        let lines = bytemuck::zeroed_vec::<CacheLine>(length.div_ceil(64));
        Storage { source: Source::Owned(Arc::new(lines)), offset: 0, length }
    }

    /// A copy of `bytes`, aligned to 64.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut storage = Storage::zeroed(bytes.len());
        storage.make_mut().copy_from_slice(bytes);
        storage
    }

    /// `length` bytes at `offset` of `owner` (a mapped file, a received message), not copied.
    /// `None` where the range is outside.
    pub fn shared(
        owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
        offset: usize,
        length: usize,
    ) -> Option<Self> {
        let end = offset.checked_add(length)?;
        if end > (*owner).as_ref().len() {
            return None;
        }
        Some(Storage { source: Source::Foreign(owner), offset, length })
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let all: &[u8] = match &self.source {
            Source::Owned(lines) => bytemuck::cast_slice(lines),
            Source::Foreign(owner) => (**owner).as_ref(),
        };
        // A foreign owner may hand out fewer bytes later (a file that shrank); never panic on it.
        all.get(self.offset..self.offset + self.length).unwrap_or(&[])
    }

    /// The bytes for writing; copied first if anybody else sees them.
    pub fn make_mut(&mut self) -> &mut [u8] {
        let unique = match &mut self.source {
            Source::Owned(lines) => Arc::get_mut(lines).is_some(),
            Source::Foreign(_) => false,
        };
        if !unique {
            *self = Storage::copied(self.bytes());
        }
        match &mut self.source {
            Source::Owned(lines) => {
                let lines = Arc::get_mut(lines).expect("just made unique");
                let all: &mut [u8] = bytemuck::cast_slice_mut(lines);
                &mut all[self.offset..self.offset + self.length]
            }
            Source::Foreign(_) => unreachable!("foreign bytes were copied above"),
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_does_not_change_a_clone() {
        let mut a = Storage::copied(&[1, 2, 3]);
        let b = a.clone();
        a.make_mut()[0] = 9;
        assert_eq!((a.bytes(), b.bytes()), (&[9, 2, 3][..], &[1, 2, 3][..]));
        assert_eq!(a.bytes().as_ptr() as usize % 64, 0);
    }

    #[test]
    fn shared_ranges_are_checked() {
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(vec![1u8, 2, 3, 4]);
        assert_eq!(Storage::shared(owner.clone(), 1, 2).unwrap().bytes(), [2, 3]);
        assert!(Storage::shared(owner.clone(), 3, 2).is_none());
        assert!(Storage::shared(owner, usize::MAX, 2).is_none());
    }
}
