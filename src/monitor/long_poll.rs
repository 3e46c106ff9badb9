//! Decides whether a poll is one that does not return.

use crate::capture::Poller;
use crate::inflight::{Row, flags};

/// A poll that is already going on at the first look is too long after this, in nanoseconds.
const GOING_ON: u64 = 1_000_000;
/// The limit for a poll that began later, most likely because it was asked for, in nanoseconds. It may wait for a CPU
/// first, and tracing takes time where stacks are walked. What ends sooner isn't blocking, even if it is the work's
/// last poll. Then there is no report.
const BEGUN_SINCE: u64 = 20_000_000;

/// What is known about the poll of one row.
#[derive(Debug)]
pub(super) struct LongPoll(Option<(Poller, u64)>);

impl LongPoll {
    /// Begins to watch, before the work is woken.
    pub(super) fn watch(row: &Row, now: u64) -> Self {
        let poller = row.poller();
        // Another diagnosis may have asked for this very poll.
        let is_asked_for = row.flags() & flags::WANTED != 0;
        let limit = if is_asked_for { BEGUN_SINCE } else { GOING_ON };
        Self(poller.is_polling().then_some((poller, now + limit)))
    }

    /// Returns whether the row has been inside this poll for too long.
    pub(super) fn is_too_long(&mut self, poller: Poller, now: u64) -> bool {
        match self.0 {
            Some((seen, until)) if seen == poller => now >= until,
            _ => {
                self.0 = Some((poller, now + BEGUN_SINCE));
                false
            }
        }
    }

    /// Notes that the row is inside no poll, or in another one. Returns whether it was inside one before.
    pub(super) fn end(&mut self) -> bool {
        self.0.take().is_some()
    }
}
