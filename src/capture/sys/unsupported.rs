//! Platforms on which stacks are not copied. Await stacks are walked, and thread stacks are not available.

use std::ops::Range;

/// Stacks cannot be copied, and threads cannot be captured.
pub(crate) const SUPPORTED: bool = false;

/// Returns a number for this thread. It isn't the system's, because nothing is done with it here.
pub(crate) fn thread_id() -> i32 {
    use std::sync::atomic::{AtomicI32, Ordering};
    static NEXT: AtomicI32 = AtomicI32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns an address in the frame of the function that has the variable.
#[inline(always)]
pub(crate) fn frame_address(local: &u8) -> usize {
    std::ptr::from_ref(local).expose_provenance()
}

/// Unknown, so nothing of the stack is read.
pub(crate) fn stack_bounds() -> Range<usize> {
    0..0
}

/// Unknown.
pub(crate) fn started_path() -> Option<std::path::PathBuf> {
    None
}

/// Unknown.
pub(crate) fn cpu_time(_tid: i32) -> Option<u64> {
    None
}

/// Unknown.
pub(crate) fn own_cpu_time() -> u64 {
    0
}

/// Unknown.
pub(crate) fn own_sleeps() -> u64 {
    0
}

/// Does nothing.
pub(crate) fn block_signals() {}

/// No thread is signalled.
#[derive(Debug)]
pub(crate) struct SignalStack;

impl SignalStack {
    pub(crate) fn ensure() -> Self {
        Self
    }

    pub(crate) fn is_enough(&self) -> bool {
        false
    }
}

impl Drop for SignalStack {
    /// There is nothing to give back. This marks the end of its life, as on platforms where there is.
    fn drop(&mut self) {}
}
