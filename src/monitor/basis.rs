//! What a row's deadlines follow from.

use crate::clock::Clock;
use crate::inflight::Row;

/// What a row's deadlines follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Basis {
    /// Clock ticks at the beginning.
    started: u64,
    /// Nanoseconds.
    threshold: u64,
}

impl Basis {
    /// `None` while the row's clock stands still, or if its threshold is never.
    pub(super) fn of(row: &Row) -> Option<Self> {
        let (started, threshold) = (row.started()?, row.threshold());
        (threshold != u64::MAX).then_some(Self { started, threshold })
    }

    /// When the row's clock says that `factor` thresholds have passed.
    pub(super) fn deadline(self, factor: u64) -> u64 {
        self.after(self.threshold.saturating_mul(factor))
    }

    /// When so many nanoseconds have passed.
    pub(super) fn after(self, nanos: u64) -> u64 {
        Clock::get().nanos(self.started).saturating_add(nanos)
    }
}
