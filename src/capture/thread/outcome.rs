//! The outcomes of asking a thread for its stack.

use crate::capture::procfs::Activity;
use crate::capture::snapshot::Snapshot;

/// The longest copy of a stack, in bytes. Async frames can be huge. Longer copies are cut and marked as cut.
pub(crate) const MAX_COPY: usize = 512 * 1024;

/// The outcome of asking a thread for its stack.
pub(crate) enum Outcome {
    /// The stack, and what the thread was doing just before.
    Captured(Snapshot, Activity),
    /// The poll had ended when the signal arrived.
    Missed,
    /// There was no answer within 50 ms: the thread is uninterruptible, or masks the signal.
    NoAnswer(Activity),
    /// It runs on a stack that isn't its own and that could not be captured, and why. Final for this poll: it is not
    /// asked again.
    Foreign(Activity, &'static str),
    /// The thread's stack could not be captured, and why.
    Unavailable(&'static str),
}

/// The outcome of asking a thread repeatedly.
pub(crate) enum Sample {
    /// It has not run since it was last asked, so its stack is the same.
    Unmoved,
    Stack(Snapshot),
    /// The poll is over.
    Missed,
    /// It did not answer.
    Lost,
}

impl Outcome {
    /// Returns whether the thread has not answered because it was not running. Then it will.
    pub(crate) fn may_come_late(&self) -> bool {
        matches!(self, Self::NoAnswer(activity) if activity.on_cpu() == Some(true))
    }
}
