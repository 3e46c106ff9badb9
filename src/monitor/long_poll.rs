//! Whether a poll that is going on is one that does not return.

use crate::capture::Poller;
use crate::inflight::Row;

/// One that goes on when somebody begins to look has lasted too long after this, in nanoseconds.
const GOING_ON: u64 = 1_000_000;
/// One that began later, most likely because it was asked for: it may wait for a CPU meanwhile, and be traced, which takes time
/// where stacks are walked. What ends in less is not blocking, even if it is the work's last poll: then there is no report.
const BEGUN_SINCE: u64 = 20_000_000;

/// What is known of the poll of one row.
#[derive(Debug)]
pub(super) struct LongPoll(Option<(Poller, u64)>);

impl LongPoll {
    /// Begins to look: before the work is woken.
    pub(super) fn watch(row: &Row, now: u64) -> Self {
        let poller = row.poller();
        Self(poller.is_polling().then_some((poller, now + GOING_ON)))
    }

    /// The row is inside this poll: whether it has been for too long.
    pub(super) fn is_too_long(&mut self, poller: Poller, now: u64) -> bool {
        match self.0 {
            Some((seen, until)) if seen == poller => now >= until,
            _ => {
                self.0 = Some((poller, now + BEGUN_SINCE));
                false
            }
        }
    }

    /// The row is inside no poll, or in another one. Whether it was.
    pub(super) fn end(&mut self) -> bool {
        self.0.take().is_some()
    }
}
