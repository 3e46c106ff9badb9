//! The contents of a dump, as plain data.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::inflight::Usage;
use crate::report::runtimes::RuntimeHealth;
use crate::report::threads::ThreadDump;
use crate::report::{Location, ProcessInfo, Stack};
use crate::text::time::{millis, rfc3339};

/// The version of the JSON form of a [`Dump`]. Fields may be added within a version; none changes its meaning.
///
/// Fields have the names of the struct's fields. Durations are milliseconds: `took` is `took_ms`, and so on. Times are
/// RFC 3339 in UTC. `sentence` is the [sentence](Dump::sentence).
pub const DUMP_SCHEMA: u32 = 1;

/// Everything that is in flight at one moment, and where each of it is: see [`dump`](crate::dump()).
///
/// Everything that came from a request is already reduced to what [privacy](crate::report#privacy) allows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dump {
    /// [`DUMP_SCHEMA`].
    pub schema: u32,
    /// When it was taken.
    #[serde(with = "rfc3339")]
    pub taken_at: SystemTime,
    /// How long that took.
    #[serde(rename = "took_ms", with = "millis")]
    pub took: Duration,
    /// The process.
    pub process: ProcessInfo,
    /// How many requests, jobs and pieces of child work there are.
    pub in_flight: u64,
    /// Work that does the same at the same place, the largest group first.
    pub groups: Vec<DumpGroup>,
    /// The work, the oldest first.
    pub work: Vec<DumpWork>,
    /// What is held or waited for by name, see [`acquire`](crate::acquire()): what most work waits for comes first.
    pub resources: Vec<DumpResource>,
    /// The [ids](DumpWork::id) of the work in each deadlock over such resources.
    pub deadlocks: Vec<Vec<String>>,
    /// The threads of the process, grouped by stack.
    pub threads: ThreadDump,
    /// How the [watched](crate::watch_runtime) runtimes are.
    #[serde(default)]
    pub runtimes: Vec<RuntimeHealth>,
    /// What a reader must know to judge this dump: that the table was full, or that heeler's own threads are late.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How much more work was in flight. It is only counted.
    pub omitted: u64,
    /// Of how much of the work it is not known where it is: it was not asked, or it has not answered. It began a moment ago,
    /// or its workers are busy.
    pub unobserved: u64,
}

/// Work that does the same at the same place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DumpGroup {
    /// How many there are.
    pub count: u64,
    /// What they do.
    pub state: DumpState,
    /// What they wait for there, as a phrase that follows "waiting for": `a connection of the pool`.
    pub awaiting: Option<String>,
    /// The place: the application's own frame that matters most.
    pub location: Option<Location>,
    /// How long the oldest of them has been running.
    #[serde(rename = "oldest_ms", with = "millis")]
    pub oldest: Duration,
    /// How many there are of each route or job, the most frequent first, up to eight.
    pub routes: Vec<(String, u64)>,
    /// The ways by which they came there, the most frequent first, up to sixteen. The application's own calls differ between
    /// them.
    pub paths: Vec<DumpPath>,
}

/// A way by which work came to its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DumpPath {
    /// How many came this way.
    pub count: u64,
    /// The stacks of one of them.
    pub stacks: Vec<Stack>,
}

/// One piece of work.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DumpWork {
    /// The [`id`](crate::Report::id) of reports about it.
    pub id: String,
    /// What it is.
    pub kind: DumpKind,
    /// The method and the path of a request, the name of a job or timebox, the function that child work was handed on with.
    pub name: String,
    /// The request's method.
    pub method: Option<String>,
    /// The route's template (`/users/{id}`), if the router provides it.
    pub route: Option<String>,
    /// The id of the request or job that it belongs to.
    pub parent: Option<String>,
    /// How long it has been running.
    #[serde(rename = "elapsed_ms", with = "millis")]
    pub elapsed: Duration,
    /// Its threshold, if it has one.
    #[serde(rename = "threshold_ms", default, with = "millis::optional")]
    pub threshold: Option<Duration>,
    /// How long it may still run before a timebox ends it, if it is in one.
    #[serde(rename = "left_ms", default, with = "millis::optional")]
    pub left: Option<Duration>,
    /// What it does.
    pub state: DumpState,
    /// How long it has been there, if that was observed.
    #[serde(rename = "there_ms", default, with = "millis::optional")]
    pub there: Option<Duration>,
    /// How often it was polled.
    pub polls: u32,
    /// Its group, as an index into [`Dump::groups`].
    pub group: usize,
    /// How it came there, as an index into [`DumpGroup::paths`]; `None` if it was not observed, or is not among those.
    pub path: Option<usize>,
    /// The names of what it holds.
    pub holds: Vec<String>,
    /// The names of what it waits for.
    pub awaits: Vec<String>,
}

/// What a piece of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DumpKind {
    /// A request.
    Request,
    /// The body of a response.
    Body,
    /// A job: see [`watch`](crate::watch).
    Job,
    /// Work that a request or a job has handed on.
    Child,
    /// A timebox outside of any request or job.
    #[serde(other)]
    Timebox,
}

/// What work is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DumpState {
    /// In a poll, in a system call or waiting for a lock: its thread can serve nothing else.
    Blocked,
    /// In a poll, on a CPU.
    Running,
    /// In a poll, and its thread could not be looked at.
    Polled,
    /// Woken, and not polled since: its runtime is busy.
    Woken,
    /// Between polls, until something wakes it.
    Waiting,
    /// Nobody has its waker, so nobody will wake it.
    NoWaker,
    /// It woke itself, and waits for its turn.
    Yielding,
    /// It was never polled.
    New,
    /// Not known: it began a moment ago, or it was not asked.
    #[serde(other)]
    Unknown,
}

impl DumpState {
    /// Returns the state in words: `running`, `blocked`, `woken, not polled`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Running => "running",
            Self::Polled => "in a poll",
            Self::Woken => "woken, not polled",
            Self::Waiting => "waiting",
            Self::NoWaker => "waiting without a waker",
            Self::Yielding => "yielding",
            Self::New => "not polled yet",
            Self::Unknown => "not observed yet",
        }
    }
}

impl fmt::Display for DumpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DumpKind {
    /// Returns the kind in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Body => "response body",
            Self::Job => "job",
            Self::Child => "child work",
            Self::Timebox => "timebox",
        }
    }
}

impl fmt::Display for DumpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A named thing that is held or waited for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DumpResource {
    /// Its name.
    pub name: String,
    /// Whether it is known which instance is meant. A bare name may stand for many.
    pub certain: bool,
    /// How much of it is in use, if the application [says](crate::Resource::usage) so.
    pub usage: Option<Usage>,
    /// Who holds it, the longest first.
    pub holders: Vec<DumpClaim>,
    /// Who waits for it, the longest first.
    pub waiters: Vec<DumpClaim>,
    /// How many more hold it.
    pub more_holders: u64,
    /// How many more wait for it.
    pub more_waiters: u64,
    /// Whether its holders and its waiters are in a deadlock.
    pub deadlock: bool,
}

/// One who holds something, or waits for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DumpClaim {
    /// The [id](DumpWork::id) of the work, if heeler watches it.
    pub id: Option<String>,
    /// The work, or its thread.
    pub work: String,
    /// Where the application asked for it.
    pub at: Location,
    /// Since when it holds it, or waits for it.
    #[serde(rename = "ms", with = "millis")]
    pub time: Duration,
}
