//! A global allocator that wipes what is freed.
//!
//! Libraries copy secrets where we cannot see it: an age reader's buffer, a message that gRPC decodes, a vector that
//! grows. A program that holds secrets installs this allocator, so that freed memory is zero whoever freed it:
//!
//! ```
//! use keyturn_seal::alloc::Wiping;
//!
//! #[global_allocator]
//! static ALLOCATOR: Wiping = Wiping::SYSTEM;
//! # fn main() {}
//! ```
//!
//! # Invariants
//! 1. Every byte of a block is zero before the inner allocator gets it back, also when a block grows or shrinks: `realloc`
//!    is the default one of the trait, which allocates, copies and frees.

#![expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; there is no safe way to free through it"
)]

use std::alloc::{GlobalAlloc, Layout, System};

/// Wipes each block before `A` frees it.
pub struct Wiping<A = System>(A);

impl Wiping {
    /// Wipes before the system's allocator frees.
    pub const SYSTEM: Self = Self(System);
}

// SAFETY: every call is passed on unchanged to `A`, which upholds the contract; a block is written only between the
// caller's last use (the contract of `dealloc`) and its release, within the size that its layout has.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the inner allocator's.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the inner allocator's.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` has `layout.size()` bytes that nobody uses any more.
        unsafe { block.write_bytes(0, layout.size()) };
        // Without the barrier the compiler may drop a write that nothing reads before the block is freed.
        zeroize::optimization_barrier(&block);
        // SAFETY: the caller's contract is the inner allocator's.
        unsafe { self.0.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Counts freed blocks, and bytes in them that were not zero.
    #[derive(Default)]
    struct Spy {
        blocks: AtomicUsize,
        dirty: AtomicUsize,
    }

    // SAFETY: passed on unchanged to the system's allocator; the block is still readable when `dealloc` begins.
    unsafe impl GlobalAlloc for Spy {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's contract is the system allocator's.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the block has `layout.size()` initialised bytes.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            self.blocks.fetch_add(1, Relaxed);
            self.dirty
                .fetch_add(bytes.iter().filter(|byte| **byte != 0).count(), Relaxed);
            // SAFETY: the caller's contract is the system allocator's.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn every_freed_byte_is_zero() {
        for (name, first, then) in [
            ("freed", 100, None),
            ("grown", 100, Some(10_000)),
            ("shrunk", 10_000, Some(10)),
        ] {
            let allocator = Wiping(Spy::default());
            let layout = Layout::from_size_align(first, 8).unwrap();
            // SAFETY: the blocks are used within their sizes and freed once, with the layout they have then.
            unsafe {
                let block = allocator.alloc(layout);
                block.write_bytes(0xa5, first);
                let (block, layout) = match then {
                    None => (block, layout),
                    Some(size) => {
                        let moved = allocator.realloc(block, layout, size);
                        assert_eq!(*moved, 0xa5, "{name}: the contents move along");
                        moved.write_bytes(0xa5, size);
                        (moved, Layout::from_size_align(size, 8).unwrap())
                    }
                };
                allocator.dealloc(block, layout);
            }
            assert_eq!(
                allocator.0.blocks.load(Relaxed),
                1 + usize::from(then.is_some()),
                "{name}"
            );
            assert_eq!(allocator.0.dirty.load(Relaxed), 0, "{name}");
        }
    }

    #[test]
    fn the_spy_sees_what_is_not_wiped() {
        let (spy, layout) = (Spy::default(), Layout::from_size_align(64, 8).unwrap());
        // SAFETY: one block, used within its size, freed once with its layout.
        unsafe {
            let block = spy.alloc(layout);
            block.write_bytes(1, 64);
            spy.dealloc(block, layout);
        }
        assert_eq!(spy.dirty.load(Relaxed), 64);
    }
}
