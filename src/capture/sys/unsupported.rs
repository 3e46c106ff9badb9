//! Platforms on which stacks are not copied: await stacks are walked, thread stacks are not available.

use std::ops::Range;

/// Stacks cannot be copied, nor threads captured.
pub(crate) const SUPPORTED: bool = false;

/// A number for this thread: the system's is not asked for, since nothing is done with it here.
pub(crate) fn thread_id() -> i32 {
    use std::sync::atomic::{AtomicI32, Ordering};
    static NEXT: AtomicI32 = AtomicI32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An address in the frame of the function that has the variable.
#[inline(always)]
pub(crate) fn frame_address(local: &u8) -> usize {
    std::ptr::from_ref(local).expose_provenance()
}

/// Unknown: nothing of the stack is read.
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

/// Nobody is signalled.
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
    /// There is nothing to give back: this says that it ends here, as it does where there is.
    fn drop(&mut self) {}
}
