//! The data of a profile: stored as it is, and the source of every form in which it is shown.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::report::{Frame, ProcessInfo};
use crate::text::time::rfc3339;

/// The version of the JSON form of a [`Profile`]. Fields may be added within a version, but none changes its meaning.
pub const SCHEMA: u32 = 1;

/// Where one request spent its time.
///
/// Its [`slices`](Self::slices) follow each other without a gap and sum to [`wall_nanos`](Self::wall_nanos). Durations are
/// nanoseconds, times are UTC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Profile {
    /// The version of this form: [`SCHEMA`].
    pub schema: u32,
    /// The id of the profile, which nobody can guess: 32 hexadecimal digits.
    pub id: String,
    /// When the request began.
    #[serde(with = "rfc3339")]
    pub started_at: SystemTime,
    /// The time from the beginning of the request to the end of its response's body, for all runs together. If
    /// there is a [`reason`](Self::reason), it ends with the response's head.
    pub wall_nanos: u64,
    /// How often the request ran.
    pub runs: u32,
    /// Samples per second of a thread that polls the request.
    pub rate_hz: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was made, if nobody waits for it: a [rule](crate::Rule) wanted it, somebody asked on the console, or the
    /// application profiles a [job](crate::ProfileLayer::job). `None` if somebody asked with the flag.
    #[serde(default)]
    pub reason: Option<String>,
    /// The request, without the flag that asked for the profile.
    pub request: Request,
    /// The response; `None` if there was none.
    pub response: Option<Response>,
    /// The process that ran it.
    pub process: ProcessInfo,
    /// Each function at most once. [`Node::frame`] refers to these. Some aren't functions but say in brackets what is
    /// known instead, and have no address: `[unattributed]`, `[any of 3]`, `[not scheduled]`, `[profiler]`. None is
    /// heeler's own.
    pub frames: Vec<Frame>,
    /// The stacks as a tree. [`Slice::stack`] refers to these. A node comes after its parent.
    pub nodes: Vec<Node>,
    /// What the request did from its beginning to its end, in order.
    pub slices: Vec<Slice>,
    /// What spawned work did while the request itself did something else, which is in [`slices`](Self::slices). In the
    /// order in which they begin. They may overlap.
    pub beside: Vec<Slice>,
    /// What the rest of the process did meanwhile, if that was asked for.
    #[serde(default)]
    pub meanwhile: Option<ProcessProfile>,
    /// How much of this was seen, and at what cost.
    pub quality: Quality,
    /// What a reader must know to judge this profile.
    pub notes: Vec<String>,
}

/// What the other threads of the process did on the CPU while a request was profiled. This includes tasks that the
/// request had spawned. The samples are from the `pprof` crate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessProfile {
    /// Samples per second of CPU time, of all threads together. The kernel's clock may give fewer.
    pub rate_hz: u32,
    /// Samples seen.
    pub samples: u64,
    /// By thread and stack, most frequent first.
    pub stacks: Vec<ProcessStack>,
    /// Samples whose stacks are not listed here, because there were too many different ones.
    pub unlisted: u64,
}

/// A stack that was seen outside the profiled request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessStack {
    /// The thread's name.
    pub thread: String,
    /// Function names, outermost first.
    pub functions: Vec<String>,
    /// Samples.
    pub samples: u64,
}

/// A frame and the frames that called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Node {
    /// Index into [`Profile::nodes`], smaller than this node's own. `None` for an outermost frame.
    pub parent: Option<u32>,
    /// Index into [`Profile::frames`].
    pub frame: u32,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Slice {
    /// The time since the beginning of the (first) request.
    pub start_nanos: u64,
    /// How long it took.
    pub nanos: u64,
    /// What the request did.
    pub state: State,
    /// Where it was: index into [`Profile::nodes`] of the innermost frame.
    pub stack: u32,
    /// How many samples (of a poll) or waits it is made of. Zero for time that is known without either.
    pub count: u32,
}

/// What a request can do at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// A thread runs its code.
    OnCpu,
    /// A thread is inside its code and cannot run: in a system call, or at a lock.
    Blocked,
    /// A thread is inside its code and could run, but others have the CPU. (Counts as [`Blocked`](Self::Blocked) if
    /// nobody looked into the poll, or if the kernel does not tell.)
    NoCpu,
    /// It waits at an await point.
    Waiting,
    /// It was woken and has not been polled yet.
    Runnable,
}

/// How a profiled request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It ended with a response, to the last byte of its body.
    Finished,
    /// It ended with an error of the service or of the response's body, in words.
    Failed(String),
    /// It ended with a panic of the handler. Has the panic's message.
    Panicked(String),
    /// Somebody cancelled it, or the client that asked went away.
    Cancelled,
    /// It took longer than a profiled request may.
    TooLong,
}

/// The request that was profiled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Request {
    /// `GET`, or `job` for a [job](crate::ProfileLayer::job).
    pub method: String,
    /// Path and query, without the flag, or the job's name. Values of parameters that look like secrets are replaced. Shortened if very
    /// long.
    pub uri: String,
    /// The route's template (`/users/{id}`), if the router tells it.
    pub route: Option<String>,
    /// `HTTP/1.1`.
    pub version: String,
    /// Its headers, in their order. The values of those that carry credentials are replaced.
    pub headers: Vec<(String, String)>,
    /// Bytes of its body that were read.
    pub body_bytes: u64,
    /// The trace that it belongs to: 32 hexadecimal digits. It is that of the OpenTelemetry span around it (feature
    /// `otel`), or else that of its `traceparent`, if that is valid.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// The span in that trace: 16 hexadecimal digits.
    #[serde(default)]
    pub span_id: Option<String>,
}

#[cfg(feature = "pyroscope")]
impl Request {
    /// Returns whether it is a job, and not a request with a method of that name: only a request has a version.
    pub(super) fn is_job(&self) -> bool {
        self.method == super::tail::JOB && self.version.is_empty()
    }
}

/// The response of a profiled request. If there were many runs, of the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Response {
    /// `200`.
    pub status: u16,
    /// `HTTP/1.1`.
    pub version: String,
    /// Its headers, in their order. The values of those that set credentials are replaced.
    pub headers: Vec<(String, String)>,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// The beginning of its body.
    #[serde(with = "super::bytes")]
    pub body: Vec<u8>,
}

/// How much of a profile was seen, and at what cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Quality {
    /// Polls of the request and of the work that it spawned.
    pub polls: u64,
    /// Waits between them.
    pub waits: u64,
    /// Samples that were due while a thread was inside a poll.
    pub expected: u64,
    /// Samples taken. Includes those that were known without asking, because the thread had not run since the last one.
    pub taken: u64,
    /// Samples that were requested and not answered in time.
    pub lost: u64,
    /// Samples taken more than half a period late.
    pub late: u64,
    /// Stacks that are cut at their outer end.
    pub truncated: u64,
    /// Waits whose stacks were not kept.
    pub waits_lost: u64,
    /// The time that the profiler spent within the request's own time: copies of traced polls, and answers to signals.
    /// As measured.
    pub own_nanos: u64,
    /// CPU time of the profiler's own thread, which runs beside the request.
    pub sampler_nanos: u64,
}
