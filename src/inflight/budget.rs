//! How much heeler may do per second, in the whole process. What does not fit is postponed or counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Copies of stacks: at some 300 ns each, three thousandths of one core.
pub(crate) static COPIES: Budget = Budget::new(10_000);
/// Captures of slow work, each of which wakes a task and makes a report.
pub(crate) static CAPTURES: Budget = Budget::new(500);
/// Polls that heeler asks for when it arms a request.
pub(crate) static ARMINGS: Budget = Budget::new(2_000);

/// A number of things per second.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u32,
    /// The second, and how many were taken in it.
    state: AtomicU64,
}

impl Budget {
    const fn new(limit: u32) -> Self {
        Self { limit, state: AtomicU64::new(0) }
    }

    /// Takes one, if the second of `now` (in nanoseconds) has one left.
    pub(crate) fn take(&self, now: u64) -> bool {
        let second = (now / 1_000_000_000) << 32;
        let taken = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
            let used = if state & !0xffff_ffff == second { state as u32 } else { 0 };
            (used < self.limit).then(|| second | u64::from(used + 1))
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: one second has its limit, and the next one has it again.
    #[test]
    fn each_second_has_its_own_limit() {
        let budget = Budget::new(3);
        assert_eq!((0..5).filter(|_| budget.take(10)).count(), 3);
        assert_eq!((0..5).filter(|_| budget.take(1_000_000_000)).count(), 3);
    }
}
