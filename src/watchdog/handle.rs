//! A watchdog's controls, while it is in use.

use std::time::Duration;

use super::layer::SHORTEST;
use crate::inflight::{Policy, Row, flags, table};
use crate::log::Clamp;

/// Looks at a [`WatchdogLayer`](super::WatchdogLayer) in use, and changes it. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct WatchdogHandle {
    policy: &'static Policy,
}

impl WatchdogHandle {
    pub(super) fn new(policy: &'static Policy) -> Self {
        Self { policy }
    }

    /// Turns watching on or off for requests that arrive from now on. With `HEELER_DISABLE=1` in the environment it
    /// stays off.
    pub fn set_enabled(&self, enabled: bool) {
        self.policy.set_enabled(enabled);
    }

    /// Returns whether requests are watched.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.policy.is_enabled()
    }

    /// Changes the threshold for requests that arrive from now on. Less than one millisecond counts as one millisecond,
    /// and the log says so once.
    pub fn set_threshold(&self, threshold: Duration) {
        static CLAMP: Clamp = Clamp::new("WatchdogHandle::set_threshold");
        self.policy.set_threshold(CLAMP.at_least(threshold, SHORTEST));
    }

    /// Returns the threshold.
    #[must_use]
    pub fn threshold(&self) -> Duration {
        self.policy.threshold()
    }

    /// Counts the requests in flight that this layer watches, bodies included. It counts them one by one, so use it for
    /// a page or a metric, not for every request.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        // An upgraded connection has the policy of its request, too.
        let is_request = |row: &Row| row.live().is_some_and(|(_, flags)| flags & flags::REQUEST != 0);
        table().rows().filter(|row| is_request(row) && row.policy() == self.policy.id).count()
    }
}
