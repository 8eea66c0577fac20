//! A heap for programs that open a model, run it and end: what is small lies in large pages at first.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use lepton_tensor::Storage;

/// Bytes of the block: what opening and planning a large graph take. A large page costs as much as some
/// thirty small ones when it is touched first, and is touched when the one before it is full.
const BLOCK: usize = 4 << 20;
/// What takes more bytes is the system's. Some fifty small pages, which the system gives one by one.
const LARGEST: usize = 256 << 10;
/// Bytes that a thread takes of the block at once.
const SHARE: usize = 64 << 10;
/// Every part of the block is a multiple of this, as those of `malloc` are.
const UNIT: usize = 16;

/// The system's heap behind a block in large pages, from which small allocations are cut one after the
/// other until it is used up. Each thread cuts from a share of its own. Of what is freed only the last is cut
/// again, so that nothing needs to be kept about any; the rest of a long run has the system's heap. A
/// program that makes it its `#[global_allocator]` starts with a few page faults instead of hundreds.
pub struct StartHeap {
    /// The block; null before it is taken.
    block: AtomicPtr<u8>,
    /// Bytes of it that threads have taken.
    taken: AtomicUsize,
}

/// A thread's share of the block of a heap, in bytes from its start.
#[derive(Clone, Copy)]
struct Share {
    /// Stands for the heap; zero for none.
    heap: usize,
    start: usize,
    /// Up to here it is cut.
    cut: usize,
    end: usize,
}

thread_local! {
    /// Never dropped and made without memory, as what an allocator uses must be.
    static SHARE_OF_THREAD: Cell<Share> =
        const { Cell::new(Share { heap: 0, start: 0, cut: 0, end: 0 }) };
}

impl Default for StartHeap {
    fn default() -> Self {
        StartHeap::new()
    }
}

impl StartHeap {
    /// A heap that has taken nothing from the system.
    pub const fn new() -> Self {
        StartHeap { block: AtomicPtr::new(null_mut()), taken: AtomicUsize::new(0) }
    }

    /// The block; `None` while a thread takes it, and where the system has none.
    fn block(&self) -> Option<*mut u8> {
        let taking = without_provenance_mut(1);
        match self.block.load(Ordering::Acquire) {
            block if block.is_null() => {}
            block => return (block != taking).then_some(block),
        }
        let order = (Ordering::Acquire, Ordering::Relaxed);
        self.block.compare_exchange(null_mut(), taking, order.0, order.1).ok()?;
        // What it allocates itself is the system's.
        let mut storage = Storage::lasting(BLOCK);
        let block = storage.make_mut().as_mut_ptr();
        std::mem::forget(storage);
        self.block.store(block, Ordering::Release);
        Some(block)
    }

    /// The bytes of the block before `pointer`, if it lies in it.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        let block = self.block.load(Ordering::Acquire);
        pointer
            .addr()
            .checked_sub(block.addr())
            .filter(|&offset| offset < BLOCK && block.addr() > 1)
    }

    /// The thread's share, if it is one of this heap.
    fn share(&self) -> Option<Share> {
        let share = SHARE_OF_THREAD.get();
        (share.heap == std::ptr::from_ref(self).addr()).then_some(share)
    }

    /// A part of `size` bytes at a multiple of `align`, as bytes from the start of the block.
    fn cut(&self, size: usize, align: usize) -> Option<usize> {
        let mut share = self.share();
        loop {
            let cut = share.map_or(0, |share| share.cut).next_multiple_of(align);
            match share {
                Some(share) if cut + size <= share.end => {
                    SHARE_OF_THREAD.set(Share { cut: cut + size, ..share });
                    return Some(cut);
                }
                _ => share = Some(self.refilled(share, size + align)?),
            }
        }
    }

    /// A share with room for `size` bytes: the same with a larger end where nobody took what lies behind.
    fn refilled(&self, share: Option<Share>, size: usize) -> Option<Share> {
        let heap = std::ptr::from_ref(self).addr();
        let refilled = |taken: usize| {
            let behind = share.filter(|share| share.end == taken);
            let share = behind.unwrap_or(Share { heap, start: taken, cut: taken, end: taken });
            Share { end: (share.cut + size).max(taken + SHARE).min(BLOCK), ..share }
        };
        let end = |taken| {
            let share = refilled(taken);
            (share.cut + size <= share.end).then_some(share.end)
        };
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        self.taken.fetch_update(order.0, order.1, end).ok().map(refilled)
    }

    /// Moves the end of what the thread has cut from `from` to `to`; false if something was cut behind.
    fn moves_end(&self, from: usize, to: usize) -> bool {
        let last = self.share().filter(|share| share.cut == from && share.start < from);
        let moved = last.filter(|share| to <= share.end).map(|share| Share { cut: to, ..share });
        moved.inspect(|&share| SHARE_OF_THREAD.set(share)).is_some()
    }
}

/// Bytes of the block that `size` bytes take.
fn taken(size: usize) -> usize {
    size.max(1).next_multiple_of(UNIT)
}

// SAFETY: parts of the block begin at multiples of the layout's alignment and end within the block, which is
// never freed. They are disjoint, because shares of threads are and each part lies behind what was cut of its
// share before. What is not of the block came from the system and goes back to it.
unsafe impl GlobalAlloc for StartHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() <= LARGEST
            && layout.align() <= 64
            && let Some(block) = self.block()
            && let Some(cut) = self.cut(taken(layout.size()), layout.align())
        {
            // SAFETY: the part ends within the block.
            return unsafe { block.add(cut) };
        }
        // SAFETY: the caller's promises are those that the system asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST {
            // Pages that come zeroed from the system are not written again.
            // SAFETY: as of `alloc`.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as of `alloc`; where there is memory it has that many bytes.
        unsafe {
            let made = self.alloc(layout);
            if !made.is_null() {
                made.write_bytes(0, layout.size());
            }
            made
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            // Only the last part is cut again.
            Some(offset) => drop(self.moves_end(offset + taken(layout.size()), offset)),
            // SAFETY: it came from the system, with this layout.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: it came from the system, with this layout.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        if self.moves_end(offset + taken(layout.size()), offset + taken(size)) {
            return pointer;
        }
        // SAFETY: the caller promises a size that makes a layout; both places hold the bytes that are
        // copied, and are apart.
        unsafe {
            let made = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !made.is_null() {
                made.copy_from_nonoverlapping(pointer, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            made
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece of memory that has the byte `mark` everywhere.
    struct Piece {
        pointer: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Piece {
        fn new(heap: &StartHeap, size: usize, align: usize, mark: u8) -> Self {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: sizes are not zero; the memory has that many bytes.
            let pointer = unsafe { heap.alloc_zeroed(layout) };
            let piece = Piece { pointer, layout, mark: 0 };
            assert!(pointer.addr().is_multiple_of(align) && piece.is_whole());
            // SAFETY: as above.
            unsafe { pointer.write_bytes(mark, size) };
            Piece { mark, ..piece }
        }

        fn is_whole(&self) -> bool {
            // SAFETY: the memory has that many bytes, all written.
            let bytes = unsafe { std::slice::from_raw_parts(self.pointer, self.layout.size()) };
            bytes.iter().all(|&byte| byte == self.mark)
        }

        /// The same with `size` bytes, of which those that were there are the same.
        fn resized(self, heap: &StartHeap, size: usize) -> Self {
            let kept = self.layout.size().min(size);
            let layout = Layout::from_size_align(size, self.layout.align()).unwrap();
            // SAFETY: it came from the heap with its layout, and has `size` bytes afterwards.
            unsafe {
                let pointer = heap.realloc(self.pointer, self.layout, size);
                let before = std::slice::from_raw_parts(pointer, kept);
                assert!(before.iter().all(|&byte| byte == self.mark));
                pointer.write_bytes(self.mark, size);
                Piece { pointer, layout, ..self }
            }
        }

        fn free(self, heap: &StartHeap) {
            assert!(self.is_whole());
            // SAFETY: it came from the heap with its layout.
            unsafe { heap.dealloc(self.pointer, self.layout) };
        }
    }

    #[test]
    fn pieces_of_many_threads_are_aligned_and_apart_until_long_after_the_block_is_used_up() {
        let heap = StartHeap::new();
        let work = |thread: u8| {
            let mut pieces: Vec<Piece> = Vec::new();
            for i in 0..4000_usize {
                let size = [1, 24, 100, 3000, LARGEST, LARGEST + 1][i * 7 % 6];
                let align = [1, 8, 16, 64, 4096][i * 5 % 5];
                pieces.push(Piece::new(&heap, size, align, thread * 64 + (i % 64) as u8));
                if i % 3 == 0 {
                    let last = pieces.pop().unwrap();
                    pieces.push(last.resized(&heap, 1 + i * 37 % 5000));
                }
                if pieces.len() > 40 {
                    pieces.swap_remove(i * 11 % 40).free(&heap);
                }
            }
            pieces.into_iter().rev().for_each(|piece| piece.free(&heap));
        };
        std::thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || work(thread));
            }
        });
        assert!(heap.taken.load(Ordering::Relaxed) > BLOCK / 2, "the block was used");
    }

    #[test]
    fn the_last_piece_grows_in_place_and_is_cut_again() {
        let heap = StartHeap::new();
        let first = Piece::new(&heap, 10, 8, 1);
        let place = first.pointer;
        let first = first.resized(&heap, 1000);
        assert_eq!(first.pointer, place);
        let second = Piece::new(&heap, 10, 8, 2);
        let first = first.resized(&heap, 2000);
        assert_ne!(first.pointer, place, "something lies behind");
        let place = first.pointer;
        first.free(&heap);
        assert_eq!(Piece::new(&heap, 5, 8, 3).pointer, place);
        second.free(&heap);
    }
}
