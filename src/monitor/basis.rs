//! What a row's deadlines are computed from.

use crate::clock::Clock;
use crate::inflight::{Row, RowLimit};

/// What a row's deadlines are computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Basis {
    /// Clock ticks at the beginning.
    started: u64,
    /// Nanoseconds.
    threshold: u64,
}

impl Basis {
    /// Returns `None` while the row's clock stands still, or if its threshold is never.
    pub(super) fn of(row: &Row) -> Option<Self> {
        let (started, threshold) = (row.started()?, row.threshold());
        (threshold != u64::MAX).then_some(Self { started, threshold })
    }

    /// Returns that of a limit that a box shares a row with.
    pub(super) fn of_limit(limit: RowLimit) -> Self {
        Self { started: limit.started, threshold: limit.limit }
    }

    /// Returns when the row's clock has passed `factor` thresholds.
    pub(super) fn deadline(self, factor: u64) -> u64 {
        self.after(self.threshold.saturating_mul(factor))
    }

    /// Returns when `nanos` nanoseconds have passed.
    pub(super) fn after(self, nanos: u64) -> u64 {
        Clock::get().nanos(self.started).saturating_add(nanos)
    }
}
