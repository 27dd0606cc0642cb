//! How much memory a thread holds.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    /// Held by this thread. Below zero when it frees what another has allocated.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread. For `#[global_allocator]`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CountingAllocator;

impl CountingAllocator {
    /// To be installed with `#[global_allocator]`.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

#[expect(unsafe_code, reason = "the trait is unsafe")]
// SAFETY: Every call goes to `System` with the arguments it came with. Counting neither allocates
// nor unwinds: the thread-locals are constants without destructors.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: The caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: The caller's promises are those that `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: The caller's promises are those that `System` asks for.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: The caller's promises are those that `System` asks for.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

/// Runs `work` and gives the bytes that this thread held at most meanwhile, beyond those before.
/// Zero unless the [`CountingAllocator`] is installed; memory of other threads does not count.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get().saturating_sub(before).max(0) as usize)
}
