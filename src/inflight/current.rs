//! The request that the calling code is running for.

use std::time::Duration;

use super::join::root;
use super::table;
use crate::capture::{RowId, ThreadSlot};
use crate::clock::{Clock, now};

/// The request or job that the calling code runs for: see [`current`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Current {
    id: RowId,
}

/// Returns the request or job that the calling thread is working for at this moment, even in its child work.
///
/// Returns `None` outside of any watched work, and in a task that was spawned without [`spawn`](crate::spawn).
///
/// ```
/// assert!(heeler::current().is_none());
/// ```
#[must_use]
pub fn current() -> Option<Current> {
    let id = ThreadSlot::existing()?.current();
    let root = root(id);
    // A box on its own isn't what callers ask for here.
    (root != RowId::NONE).then_some(Current { id: root })
}

impl Current {
    /// Returns a number that is unique among this process's work. It is the one in `request.id` of a report.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.to_bits()
    }

    /// Returns the time since the work began, or zero once it has ended or for a response body that nobody is waiting
    /// for.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let started = table().row(self.id).filter(|row| row.is_live(self.id)).and_then(|row| row.started());
        let elapsed = started.map_or(0, |ticks| now().saturating_sub(Clock::get().nanos(ticks)));
        Duration::from_nanos(elapsed)
    }
}
