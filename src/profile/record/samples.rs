//! What the sampler has seen.

/// A look at a thread that was inside a poll. Times are nanoseconds of [`now`](crate::inflight::now).
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: u64,
    /// The strand that was polled.
    pub(super) strand: u32,
    /// A place of [`Stacks`](super::stacks::Stacks).
    pub(super) stack: u32,
    /// Since the last look, or since the poll began, the thread was mostly on a CPU.
    pub(super) on_cpu: bool,
}

/// All of them, in order, and what is missing.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) taken: Vec<Sample>,
    pub(super) lost: u64,
    pub(super) late: u64,
    /// CPU time that the sampler has used for this recording, in nanoseconds.
    pub(super) cpu: u64,
}
