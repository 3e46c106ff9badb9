//! What happened, and where the time goes: the words for the monitor's findings.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The event that made heeler look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A request ran longer than its threshold.
    SlowRequest,
    /// A job watched with [`watch`](crate::watch) ran longer than its threshold.
    SlowJob,
    /// A response body did not deliver its next frame within the threshold.
    SlowBody,
    /// One poll held its thread for longer than [`blocking_after`](crate::WatchdogLayer::blocking_after), although its
    /// request is not slow yet.
    BlockingPoll,
    /// The request was dropped before it had a response: its client left, a timeout around it expired, or the server
    /// shut down.
    Abandoned,
    /// A timebox expired: its work was interrupted, or goes on although it was told.
    Interrupted,
    /// It is about everything that is in flight: see [`Reports::dump`](crate::Reports::dump).
    Dump,
}

/// Where the time goes, at the moment of the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Every branch waits to be woken. The stacks are those of the await points.
    Waiting,
    /// Most of the time went into many short waits at one place: a query per photo. The stacks are those of that place,
    /// and [`Report::repeats`](crate::report::Report::repeats) counts the waits.
    Churning,
    /// The request's poll does not return. The stack is that of its thread.
    Blocking,
    /// The request was woken but nobody polls it. The stacks are those of the polls that hold the workers.
    Starved,
    /// The host did not give the process the CPU: its cgroup had used up its quota, the process was stopped, or other
    /// processes had the CPUs. [`Report::denied`](crate::report::Report::denied) says for how long.
    Throttled,
    /// The request woke itself, or used up tokio's budget. It has work to do and lets others run first.
    Yielding,
    /// The request returned `Pending`, and its last poll left no waker. Nobody will wake it, unless a waker from before
    /// it was traced is still registered. A note says which of the two is known.
    NoWaker,
    /// The request was dropped. The stacks are the last ones that were seen.
    Abandoned,
    /// A timebox expired.
    Interrupted,
    /// Nothing could be captured. The notes say why. A verdict that only a later version of heeler knows is read as
    /// this one.
    #[serde(other)]
    Unknown,
}

/// What kept the CPU from the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeniedBy {
    /// The CPU quota of its cgroup was used up.
    Quota,
    /// All its threads stood still: it was stopped, or the machine was suspended.
    Stopped,
    /// Other processes had the CPUs. A cause that only a later version of heeler knows is read as this one.
    #[serde(other)]
    Others,
}

impl DeniedBy {
    /// Returns the cause in words that follow a colon.
    pub(crate) const fn explain(self) -> &'static str {
        match self {
            Self::Quota => "the cgroup is throttled",
            Self::Stopped => "the process was stopped, or the machine was suspended",
            Self::Others => "other processes had it",
        }
    }
}

const _: () = assert!(Verdict::ALL.len() == Verdict::Unknown as usize + 1, "all of them");

impl Verdict {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 10] = [
        Self::Waiting,
        Self::Churning,
        Self::Blocking,
        Self::Starved,
        Self::Throttled,
        Self::Yielding,
        Self::NoWaker,
        Self::Abandoned,
        Self::Interrupted,
        Self::Unknown,
    ];

    /// Returns the verdict as in JSON: `waiting`, `churning`, `blocking`, `starved`, `throttled`, `yielding`, `no_waker`, `abandoned`,
    /// `interrupted` or `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Churning => "churning",
            Self::Blocking => "blocking",
            Self::Starved => "starved",
            Self::Throttled => "throttled",
            Self::Yielding => "yielding",
            Self::NoWaker => "no_waker",
            Self::Abandoned => "abandoned",
            Self::Interrupted => "interrupted",
            Self::Unknown => "unknown",
        }
    }
}

impl Kind {
    /// Returns the kind as in JSON: `slow_request`, `slow_job`, `slow_body`, `blocking_poll`, `abandoned`,
    /// `interrupted` or `dump`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlowRequest => "slow_request",
            Self::SlowJob => "slow_job",
            Self::SlowBody => "slow_body",
            Self::BlockingPoll => "blocking_poll",
            Self::Abandoned => "abandoned",
            Self::Interrupted => "interrupted",
            Self::Dump => "dump",
        }
    }

    /// Returns the kind for a headline.
    #[cfg(any(feature = "sentry", feature = "webhook"))]
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::SlowRequest => "Slow request",
            Self::SlowJob => "Slow job",
            Self::SlowBody => "Slow response body",
            Self::BlockingPoll => "Blocking poll",
            Self::Abandoned => "Abandoned request",
            Self::Interrupted => "Timebox expired",
            Self::Dump => "Dump",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
