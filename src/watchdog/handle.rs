//! A watchdog's controls, while it is in use.

use std::time::Duration;

use crate::inflight::{Policy, table};

/// Looks at a [`WatchdogLayer`](super::WatchdogLayer) in use, and changes it. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct WatchdogHandle {
    policy: &'static Policy,
}

impl WatchdogHandle {
    pub(super) fn new(policy: &'static Policy) -> Self {
        Self { policy }
    }

    /// Switches watching on or off, for requests that come from now on. With `HEELER_DISABLE=1` in the environment it stays
    /// off.
    pub fn set_enabled(&self, enabled: bool) {
        self.policy.set_enabled(enabled);
    }

    /// Whether requests are watched.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.policy.is_enabled()
    }

    /// Changes the threshold for requests that come from now on, at least one millisecond.
    pub fn set_threshold(&self, threshold: Duration) {
        self.policy.set_threshold(threshold.max(Duration::from_millis(1)));
    }

    /// The threshold.
    #[must_use]
    pub fn threshold(&self) -> Duration {
        self.policy.threshold()
    }

    /// Requests in flight that this layer watches, bodies included. Counts them one by one: for a page or a metric, not for
    /// every request.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        table().rows().filter(|row| row.live().is_some() && row.policy() == self.policy.id).count()
    }
}
