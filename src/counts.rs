//! Counters that are updated where things happen.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The number of pieces of work of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pieces {
    /// Requests, each until its response, or until the end of its body if bodies are watched.
    pub requests: u64,
    /// Jobs: [`watch`](crate::watch).
    pub jobs: u64,
    /// Work that was handed on by [`spawn`](crate::spawn), [`spawn_blocking`](crate::spawn_blocking) and
    /// [`watch_child`](crate::watch_child).
    pub children: u64,
    /// Timeboxes of layers, and those within requests and jobs, which are counted in addition to these.
    pub timeboxes: u64,
}

impl Pieces {
    /// Returns the sum of all kinds.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.requests + self.jobs + self.children + self.timeboxes
    }
}

/// Counters that are updated by the monitor, by the reporter, or where work is handed on. A request updates none.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) jobs: AtomicU64,
    /// Costs one more atomic operation per spawned task, which has already taken its id from another atomic.
    pub(crate) children: AtomicU64,
    /// Timeboxes that were opened on threads without a slot. Slots count their own.
    pub(crate) timeboxes: AtomicU64,
    pub(crate) armed: AtomicU64,
    pub(crate) captured: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) truncated: AtomicU64,
    pub(crate) threads_captured: AtomicU64,
    pub(crate) threads_missed: AtomicU64,
    pub(crate) threads_unanswered: AtomicU64,
    pub(crate) threads_unavailable: AtomicU64,
    pub(crate) threads_truncated: AtomicU64,
}

pub(crate) static COUNTS: Counts = Counts {
    jobs: AtomicU64::new(0),
    children: AtomicU64::new(0),
    timeboxes: AtomicU64::new(0),
    armed: AtomicU64::new(0),
    captured: AtomicU64::new(0),
    missed: AtomicU64::new(0),
    refused: AtomicU64::new(0),
    truncated: AtomicU64::new(0),
    threads_captured: AtomicU64::new(0),
    threads_missed: AtomicU64::new(0),
    threads_unanswered: AtomicU64::new(0),
    threads_unavailable: AtomicU64::new(0),
    threads_truncated: AtomicU64::new(0),
};

impl Counts {
    /// Resets everything in a child of `fork`, which has done nothing yet.
    pub(crate) fn reset(&self) {
        let Self {
            jobs,
            children,
            timeboxes,
            armed,
            captured,
            missed,
            refused,
            truncated,
            threads_captured,
            threads_missed,
            threads_unanswered,
            threads_unavailable,
            threads_truncated,
        } = self;
        for count in [jobs, children, timeboxes, armed, captured, missed, refused, truncated] {
            count.store(0, Relaxed);
        }
        for count in [threads_captured, threads_missed, threads_unanswered, threads_unavailable, threads_truncated] {
            count.store(0, Relaxed);
        }
    }
}
