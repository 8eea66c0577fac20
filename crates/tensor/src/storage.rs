//! Bytes of a tensor: owned and aligned to 64, or borrowed from something that outlives them.

use std::fmt;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions};

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;
/// Bytes for which a large page is taken: touching a large one first costs as much as touching
/// some thirty small ones.
const LARGE_FROM: usize = LARGE_PAGE / 8;

/// Owned storage comes in whole cache lines, so every owned tensor starts on one.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

enum Memory {
    Lines(Vec<CacheLine>),
    /// From the system, page by page.
    Pages(MmapMut),
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice(lines),
            Memory::Pages(map) => map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Pages(map) => map,
        }
    }
}

#[derive(Clone)]
enum Source {
    Owned(Arc<Memory>),
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
        Storage { source: Source::Owned(Arc::new(Memory::Lines(lines))), offset: 0, length }
    }

    /// The same for memory that is kept and used again: in large pages where the system has them,
    /// which are several times faster to touch first and take fewer entries of the page tables.
    pub fn lasting(length: usize) -> Self {
        Storage::in_pages(length).unwrap_or_else(|| Storage::zeroed(length))
    }

    /// `None` where that is not worth pages of its own, or the system has none.
    fn in_pages(length: usize) -> Option<Self> {
        let (whole, rest) = (length / LARGE_PAGE * LARGE_PAGE, length % LARGE_PAGE);
        let large = if rest >= LARGE_FROM { whole + LARGE_PAGE } else { whole };
        if large == 0 {
            return None;
        }
        let room = length.checked_add(2 * LARGE_PAGE)?;
        let map = MmapOptions::new().len(room).map_anon().ok()?;
        let offset = map.as_ptr().align_offset(LARGE_PAGE);
        // A request, which the system may refuse.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, offset, large);
        Some(Storage { source: Source::Owned(Arc::new(Memory::Pages(map))), offset, length })
    }

    /// A copy of `bytes`, aligned to 64.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut storage = Storage::zeroed(bytes.len());
        storage.make_mut().copy_from_slice(bytes);
        storage
    }

    /// The same bytes from a multiple of `alignment` on, at most 64: shared where they lie so, else
    /// copied, as a file that is read instead of mapped may lie anywhere.
    pub fn aligned(self, alignment: usize) -> Self {
        let lies_so = self.bytes().as_ptr().addr().is_multiple_of(alignment);
        if lies_so { self } else { Storage::copied(self.bytes()) }
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

    /// `length` of these bytes from the one at `offset` on, not copied; `None` where the range is
    /// outside.
    pub fn part(&self, offset: usize, length: usize) -> Option<Self> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length);
        inside.then(|| Storage { offset: self.offset + offset, length, ..self.clone() })
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let all: &[u8] = match &self.source {
            Source::Owned(memory) => memory.bytes(),
            Source::Foreign(owner) => (**owner).as_ref(),
        };
        // A foreign owner may hand out fewer bytes later (a file that shrank); never panic on it.
        all.get(self.offset..self.offset + self.length).unwrap_or(&[])
    }

    /// The bytes for writing; copied first if anybody else sees them.
    pub fn make_mut(&mut self) -> &mut [u8] {
        let unique = match &mut self.source {
            Source::Owned(memory) => Arc::get_mut(memory).is_some(),
            Source::Foreign(_) => false,
        };
        if !unique {
            *self = Storage::copied(self.bytes());
        }
        let all: &mut [u8] = match &mut self.source {
            Source::Owned(memory) => Arc::get_mut(memory).expect("just made unique").bytes_mut(),
            Source::Foreign(_) => unreachable!("foreign bytes were copied above"),
        };
        &mut all[self.offset..self.offset + self.length]
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
    fn lasting_memory_is_zero_aligned_and_whole() {
        let sizes = [0, 100, LARGE_FROM - 1, LARGE_FROM, LARGE_PAGE + 1, 3 * LARGE_PAGE - 1];
        for size in sizes {
            let mut storage = Storage::lasting(size);
            assert!(storage.len() == size && storage.bytes().iter().all(|&byte| byte == 0));
            assert_eq!(storage.bytes().as_ptr() as usize % 64, 0);
            storage.make_mut().fill(7);
            let copy = storage.clone();
            storage.make_mut().fill(8);
            let all = |storage: &Storage, value| storage.bytes().iter().all(|&b| b == value);
            assert!(all(&copy, 7) && all(&storage, 8), "{size} bytes");
        }
        let large = Storage::lasting(LARGE_FROM);
        assert_eq!(large.bytes().as_ptr() as usize % LARGE_PAGE, 0);
    }

    #[test]
    fn shared_ranges_are_checked() {
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(vec![1u8, 2, 3, 4]);
        assert_eq!(Storage::shared(owner.clone(), 1, 2).unwrap().bytes(), [2, 3]);
        assert!(Storage::shared(owner.clone(), 3, 2).is_none());
        let shared = [1, 2].map(|at| Storage::shared(owner.clone(), at, 2).unwrap().aligned(2));
        assert_eq!(shared.each_ref().map(Storage::bytes), [[2, 3], [3, 4]]);
        assert!(shared.iter().all(|part| (part.bytes().as_ptr() as usize).is_multiple_of(2)));
        assert!(Storage::shared(owner.clone(), usize::MAX, 2).is_none());
        let inner = Storage::shared(owner, 1, 3).unwrap();
        assert_eq!(inner.part(1, 2).unwrap().bytes(), [3, 4]);
        assert!(inner.part(2, 2).is_none() && inner.part(usize::MAX, 2).is_none());
    }
}
