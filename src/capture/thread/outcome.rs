//! What comes of asking a thread for its stack.

use crate::capture::procfs::Activity;
use crate::capture::snapshot::Snapshot;

/// The longest copy of a stack, in bytes. Async frames can be huge; more than this is cut and marked as cut.
pub(crate) const MAX_COPY: usize = 512 * 1024;

/// What came of asking a thread for its stack.
pub(crate) enum Outcome {
    /// The stack, and what the thread was doing just before.
    Captured(Snapshot, Activity),
    /// The poll had ended when the signal arrived.
    Missed,
    /// No answer within 50 ms: uninterruptible, or the signal is masked.
    NoAnswer(Activity),
    /// It runs on a stack that is not its own, which is not to be had, and why. Final for this poll: it is not asked again.
    Foreign(Activity, &'static str),
    /// Thread stacks are not to be had, and why.
    Unavailable(&'static str),
}

/// What came of asking a thread that is asked again and again.
pub(crate) enum Sample {
    /// It has not run since it was asked last: its stack is the same.
    Unmoved,
    Stack(Snapshot),
    /// The poll is over.
    Missed,
    /// It did not answer.
    Lost,
}

impl Outcome {
    /// Whether the thread has not answered because it was not run: then it will.
    pub(crate) fn may_come_late(&self) -> bool {
        matches!(self, Self::NoAnswer(activity) if activity.on_cpu() == Some(true))
    }
}
