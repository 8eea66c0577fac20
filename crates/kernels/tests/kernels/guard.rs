//! Memory that ends where it says: built with `LEPTON_GUARD=1`, every allocation of this test ends
//! at a page that nobody may touch, so that a kernel that reads or writes behind its operands dies.

#[cfg(target_os = "linux")]
mod linux {
    use std::alloc::{GlobalAlloc, Layout, System};

    /// True where memory is guarded.
    const GUARDED: bool = option_env!("LEPTON_GUARD").is_some();
    const PAGE: usize = 4096;

    struct Guarded;

    #[global_allocator]
    static ALLOCATOR: Guarded = Guarded;

    /// Bytes of an allocation in whole pages, and of it with what its alignment wants.
    fn sizes(layout: Layout) -> (usize, usize) {
        let bytes = layout.size().next_multiple_of(layout.align());
        (bytes.next_multiple_of(PAGE), bytes)
    }

    // SAFETY: pages are those of the mapping, whose last one is the guard; the result is aligned
    // because the guard is, and what is freed was mapped for the same layout.
    unsafe impl GlobalAlloc for Guarded {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if !GUARDED || layout.align() > PAGE {
                // SAFETY: the caller's promise.
                return unsafe { System.alloc(layout) };
            }
            let (pages, bytes) = sizes(layout);
            let (read, private) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a mapping of its own, whose last page is inside it.
            unsafe {
                let start = libc::mmap(std::ptr::null_mut(), pages + PAGE, read, private, -1, 0);
                if start == libc::MAP_FAILED {
                    return std::ptr::null_mut();
                }
                libc::mprotect(start.byte_add(pages), PAGE, libc::PROT_NONE);
                start.cast::<u8>().add(pages - bytes)
            }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            if !GUARDED || layout.align() > PAGE {
                // SAFETY: the caller's promise.
                return unsafe { System.dealloc(pointer, layout) };
            }
            let (pages, bytes) = sizes(layout);
            // SAFETY: what `alloc` mapped for this layout.
            unsafe { libc::munmap(pointer.add(bytes).sub(pages).cast(), pages + PAGE) };
        }
    }
}
