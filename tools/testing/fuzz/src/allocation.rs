// SPDX-License-Identifier: GPL-2.0

//! Counting of a thread's allocations, for assertions on their bound.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, with counters per thread.
pub struct Counting;

thread_local! {
    static PRESENT: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts `bytes` that the current thread allocated.
fn count(bytes: usize) {
    let present = PRESENT.get().saturating_add(bytes);

    PRESENT.set(present);
    PEAK.set(PEAK.get().max(present));
}

/// Counts `bytes` that the current thread freed. Another thread may have allocated them.
fn discount(bytes: usize) {
    PRESENT.set(PRESENT.get().saturating_sub(bytes));
}

// SAFETY: Every call is forwarded unchanged to the system's allocator, which implements the
// contract of `GlobalAlloc`. Counting neither allocates nor panics: the cells are constants without
// a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: The caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: The caller upholds the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        discount(layout.size());
        count(size);
        // SAFETY: The caller upholds the contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        discount(layout.size());
        // SAFETY: The caller upholds the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls `f`. Returns its result, and the maximum number of bytes that this thread had allocated in
/// addition to those before the call.
pub fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = PRESENT.get();

    PEAK.set(before);
    let result = f();
    (result, PEAK.get().saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::peak;
    use std::hint::black_box;

    #[test]
    fn the_peak_is_counted() {
        let (kept, bytes) = peak(|| {
            drop(black_box(vec![0u8; 1000]));
            black_box(vec![0u8; 300])
        });
        assert_eq!((kept.len(), bytes), (300, 1000));
    }

    #[test]
    fn growth_counts() {
        let (_, bytes) = peak(|| {
            let mut grown = black_box(Vec::<u8>::with_capacity(10));
            grown.reserve_exact(4000);
            black_box(grown)
        });
        assert_eq!(bytes, 4000);
    }

    #[test]
    fn earlier_allocations_do_not_count() {
        let before = black_box(vec![0u8; 5000]);
        let ((), bytes) = peak(|| drop(before));
        assert_eq!(bytes, 0);
    }
}
