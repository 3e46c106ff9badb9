//! The part of a row that is written once.

use std::task::Waker;

use crate::inflight::{Request, Subject, Trace, Work};

/// The part of a row behind its lock. Valid for the generation that `state` shows while the lock is held.
///
/// It has no `Debug`, and neither has anything that holds a request's parts or a copied stack, because output of `{:?}`
/// must not show them.
#[derive(Default)]
pub(crate) struct Details {
    pub(crate) work: Work,
    /// The request, if the work is one.
    pub(crate) request: Request,
    /// Wakes the task that polls the row. A request that has not suspended yet has none.
    pub(crate) waker: Option<Waker>,
    /// Waits and polls since arming.
    pub(crate) trace: Option<Box<Trace>>,
}

impl Details {
    /// Returns a copy of what the work is. It shares nothing that somebody else's code would have to free. So it may be
    /// dropped anywhere, even after the work has ended.
    pub(crate) fn subject(&self) -> Subject {
        match &self.work {
            Work::Nothing => Subject::Nothing,
            Work::Request(_) => Subject::Request(self.request.copy()),
            Work::Job(job) => Subject::Job(job.copy()),
            Work::Child(child) => Subject::Child(child.clone()),
            // A layer's box, if no other layer has a row for the request.
            Work::Timebox(_) if self.request.path.is_some() => Subject::Request(self.request.copy()),
            Work::Timebox(timebox) => Subject::Timebox(timebox.clone()),
        }
    }
}
