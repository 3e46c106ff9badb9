//! Who tells people, where several instances report about one incident.

use std::sync::Arc;
use std::time::Duration;

use super::receipt::Entry;
use crate::report::Report;
use crate::report::model::fleet::FleetIncident;

/// Decides which reports the sinks that tell people get. All of its methods return at once.
pub(in crate::report) trait Gate: Send + Sync {
    /// Takes a report that people have not been told about. [`Dispatch::decide`](super::Dispatch::decide) gets the decision,
    /// sooner or later.
    fn ask(&self, question: Question);

    /// Returns whether another instance has told people meanwhile.
    fn is_told_elsewhere(&self, incident: &FleetIncident) -> bool;

    /// Notes that people have been told.
    fn told(&self, incident: &FleetIncident);

    /// Notes that a message to people is given up: the sink refuses it for good, or there is no room for it.
    fn given_up(&self, incident: &FleetIncident);

    /// Decides now what waits for other instances, and brings everything to the store.
    fn hurry(&self);

    /// Waits until everything that was counted before is in the store. Returns false if that takes longer than `left`
    /// returns some time, or if the store does not take it.
    fn wait(&self, left: &dyn Fn() -> Duration) -> bool;
}

/// A report that waits for a decision. It is on its way until that is made.
pub(in crate::report) struct Question {
    pub(super) entry: Entry,
    /// The sinks that tell people, and are still to get it.
    pub(super) sinks: Vec<usize>,
    pub(in crate::report) report: Arc<Report>,
}

impl Question {
    /// Returns how many bytes it takes in memory.
    #[cfg(feature = "fleet")]
    pub(in crate::report) fn bytes(&self) -> usize {
        self.entry.report.as_ref().map_or_else(|| self.report.size(), |kept| kept.bytes())
    }
}

/// What a gate decides.
#[derive(Debug)]
pub(in crate::report) enum Decision {
    /// This instance tells people.
    Tell(Arc<FleetIncident>),
    /// People have been told, or another instance does it.
    LeaveToOthers,
}
