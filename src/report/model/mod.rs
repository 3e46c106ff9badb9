//! The contents of a report, as plain data. For how it is written and read, see
//! [`schema`](crate::report::model::schema).

pub(in crate::report) mod deployment;
pub(in crate::report) mod fleet;
pub(in crate::report) mod others;
mod parts;
pub(in crate::report) mod process;
pub(in crate::report) mod schema;
pub(in crate::report) mod size;
pub(in crate::report) mod words;

use std::mem::take;
use std::time::{Duration, SystemTime};

pub use parts::{Denied, Ending, Interval, Location, ProcessInfo, Repeats, RequestInfo, Span, Stack, Thread};
use serde::Deserialize;

use crate::monitor::{Kind, Verdict};
use crate::report::assemble::around::Around;
use crate::report::assemble::elsewhere::Elsewhere;
use crate::report::dump::Dump;
use crate::report::model::fleet::FleetIncident;
use crate::report::model::others::Others;
use crate::report::model::words::lenient;
use crate::text::time::{millis, rfc3339};
use crate::text::traceparent::TraceIds;

/// The version of the JSON form of a [`Report`]. Fields may be added within a version; none changes its meaning.
///
/// Fields have the names of the struct's fields. Durations are milliseconds: `elapsed` is `elapsed_ms`, and so on, and an
/// interval's `time` is `ms`. Times are RFC 3339 in UTC. `sentence` is the [sentence](Report::sentence), for readers that
/// need nothing else. Frames are listed once: `frames` has all frames of the report, each stack has the numbers of its own,
/// innermost first, and each frame has the number of its module in `modules`. Both count from 0.
///
/// ```json
/// {
///   "schema": 2, "id": "5cf400b2380cbd97", "verdict": "waiting",
///   "sentence": "GET /photos/7 is waiting for a lock: 2.51 s so far (threshold 2.50 s), in photos::load at src/photos.rs:41",
///   "modules": [
///     {"name": "photos", "build_id": "a2497d1107dda49dada203040a5f1d1007ab56df"}
///   ],
///   "frames": [
///     {"function": "tokio::sync::mutex::Mutex<T>::lock", "file": "..", "line": 431, "module": 0, "address": "0x2f00"},
///     {"function": "photos::load", "file": "src/photos.rs", "line": 41, "module": 0, "address": "0x1f00", "own": true}
///   ],
///   "stacks": [
///     {"kind": "await", "current": true, "branch": 0, "frames": [0,1]}
///   ]
/// }
/// ```
///
/// Fields without a value are left out of a frame: `function`, `file`, `line`, `source` and `module` if they aren't
/// known, `own`, `inlined` and `tail_call` if they are false. The order of the stacks determines the numbers of the frames, so equal
/// reports are equal as JSON.
///
/// # The short form
///
/// A `Webhook` (feature `webhook`) gets the same without most of the stacks, in a few kilobytes. Of the capture's
/// stacks, it gets the first four that are at different places. To these it adds the stacks of the places where most of
/// the time went, up to six together. Each stack has the application's own frames and the library frames that say what
/// is waited on, 16 at most, and the number of frames left out (`omitted_frames`). `timeline` refers to the stacks that
/// are there. `omitted`, as in `{"stacks": 25, "frames": 2391}`, distinguishes a report in its short form from a whole
/// one.
///
/// # Schema 1
///
/// Schema 1 had no tables and no `sentence`. Each frame was written in full wherever it occurred, with its module's
/// name as `module` and its `build_id`. A [`Report`] can be read from either, and then says `2`.
/// [Spools](crate::ReportsBuilder::spool) are still written in schema 1, because processes of an earlier version may
/// have to read them while a service is deployed. A report written by a later version than this program's keeps that
/// version in `schema`, and is read as far as possible.
pub const SCHEMA: u32 = 2;

/// One slow piece of work: what it is, where it is, and where its time went.
///
/// Times are UTC. Everything that came from a request is already reduced to what [privacy](crate::report#privacy)
/// allows.
// A spool has reports of other versions of this program, too: a field that is added is an `Option`, or has a serde default.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// [`SCHEMA`].
    #[serde(deserialize_with = "schema::version")]
    pub schema: u32,
    /// Unique to this request within the process and, almost certainly, beyond it. An update has the id of its report.
    pub id: String,
    /// 0 for the first capture; 1, 2, 3 for the later ones at 2, 4 and 8 times the threshold.
    pub update: u32,
    /// Why heeler looked.
    #[serde(deserialize_with = "lenient::kind")]
    pub kind: Kind,
    /// Why the work is slow.
    pub verdict: Verdict,
    /// When the stacks were taken.
    #[serde(with = "rfc3339")]
    pub captured_at: SystemTime,
    /// When the work began.
    #[serde(with = "rfc3339")]
    pub started_at: SystemTime,
    /// The time from the beginning to the capture.
    #[serde(rename = "elapsed_ms", with = "millis")]
    pub elapsed: Duration,
    /// The threshold in force; `None` for reports that have none.
    #[serde(rename = "threshold_ms", default, with = "millis::optional")]
    pub threshold: Option<Duration>,
    /// The request. For a job, the request that it belongs to, if there is one.
    pub request: Option<RequestInfo>,
    /// The name given to [`watch`](crate::watch); `None` for a request.
    pub job: Option<String>,
    /// The trace that the work belongs to: 32 hexadecimal digits. It is that of the OpenTelemetry span around the work
    /// (feature `otel`), if one is known, or else that of the request's `traceparent`, if it is valid.
    pub trace_id: Option<String>,
    /// The span in that trace: 16 hexadecimal digits. With `traceparent`, it is the caller's.
    pub span_id: Option<String>,
    /// Where to look at the trace, if [`ReportsBuilder::trace_url`](crate::ReportsBuilder::trace_url) says so.
    pub trace_url: Option<String>,
    /// How the work has ended, in the last update of a report; `None` before. Such an update repeats the last one before
    /// it, without its stacks, its timeline, its spans and its notes.
    pub ending: Option<Ending>,
    /// The process that ran it.
    pub process: ProcessInfo,
    /// The thread that was inside the work's poll, for the verdict *blocking*; `None` otherwise.
    pub thread: Option<Thread>,
    /// How often the work was polled.
    pub polls: u32,
    /// Time inside polls, as far as observed.
    #[serde(rename = "busy_ms", with = "millis")]
    pub busy: Duration,
    /// Time between polls, as far as observed.
    #[serde(rename = "waiting_ms", with = "millis")]
    pub waiting: Duration,
    /// Time that was not observed, because the work wasn't armed yet or the budget of captures was used up.
    #[serde(rename = "unobserved_ms", with = "millis")]
    pub unobserved: Duration,
    /// The longest poll observed.
    #[serde(rename = "longest_poll_ms", with = "millis")]
    pub longest_poll: Duration,
    /// The application's own frame that matters most: where an engineer should look first.
    pub location: Option<Location>,
    /// How often the work has waited at its [`location`](Self::location), if that was more than once; for the verdict
    /// *churning*, the waits that took most of its time.
    #[serde(default)]
    pub repeats: Option<Repeats>,
    /// CPU time that the process did not get meanwhile, if it was much.
    #[serde(default)]
    pub denied: Option<Denied>,
    /// What the work is waiting for there, as far as its library's frames say: `a connection of the pool`. A phrase that
    /// follows "waiting for". `None` for other verdicts, and for libraries that heeler doesn't know.
    pub awaiting: Option<String>,
    /// The stacks: first those of the capture (`current`), then those that the timeline refers to.
    #[serde(flatten, deserialize_with = "schema::stacks")]
    pub stacks: Vec<Stack>,
    /// Where the time went. Sums to `elapsed`, longest first.
    pub timeline: Vec<Interval>,
    /// The `tracing` spans the work is in, outermost first.
    pub spans: Vec<Span>,
    /// What a reader must know to judge this report: captures that were missed, child work that did not answer, and so
    /// on.
    pub notes: Vec<String>,
    /// Equal for reports about the same place on the same route. Hexadecimal.
    pub fingerprint: String,
    /// How many reports with this fingerprint were held back since the last one that was sent.
    pub suppressed: u64,
    /// What else was in flight, and who of it may be the cause. `None` if nothing else was.
    #[serde(default)]
    pub others: Option<Others>,
    /// Equal for reports whose cause is the same work, and for that work's own. Hexadecimal. Local to this process.
    #[serde(default)]
    pub incident: String,
    /// In a report that tells people about all instances of the service: which are affected. `None` otherwise.
    #[serde(default)]
    pub fleet: Option<Box<FleetIncident>>,
    /// Everything that was in flight, for the kind *dump*; `None` otherwise.
    #[serde(default)]
    pub dump: Option<Box<Dump>>,
    /// Never written: a report that was read back has none.
    #[serde(skip)]
    pub(crate) around: Around,
    #[serde(skip)]
    pub(in crate::report) elsewhere: Elsewhere,
    /// Whether child work waits for a thread of the blocking pool.
    #[serde(skip)]
    pub(in crate::report) child_needs_thread: bool,
}

impl Report {
    /// Returns a copy without what its ending doesn't repeat, of about a kilobyte. Leaves the report as it was.
    pub(in crate::report) fn without_stacks(&mut self) -> Self {
        let has_own =
            self.stacks.iter().filter(|stack| stack.current).flat_map(|stack| &stack.frames).any(|frame| frame.own);
        let (stacks, timeline) = (take(&mut self.stacks), take(&mut self.timeline));
        let (spans, notes) = (take(&mut self.spans), take(&mut self.notes));
        // Without stacks, a place in a library could not be told from one of the application's own.
        let location = self.location.clone().filter(|_| has_own);
        // The sentence names holders, but no other places.
        let places = self.others.as_mut().map(|others| take(&mut others.places)).unwrap_or_default();
        let copy = Self { thread: None, suppressed: 0, around: Around::default(), location, ..self.clone() };
        (self.stacks, self.timeline, self.spans, self.notes) = (stacks, timeline, spans, notes);
        if let Some(others) = &mut self.others {
            others.places = places;
        }
        copy
    }

    /// Returns when the report was made, or when the work ended that it tells the end of.
    #[cfg(any(feature = "email", feature = "otel", feature = "webhook"))]
    pub(in crate::report) fn told_at(&self) -> SystemTime {
        let ended = self.ending.as_ref().and_then(|ending| self.started_at.checked_add(ending.after));
        ended.unwrap_or(self.captured_at)
    }

    /// Returns the trace and the span that the work belongs to. A report that was read from a file may have anything in
    /// their place.
    pub(in crate::report) fn trace_ids(&self) -> Option<TraceIds> {
        TraceIds { trace: self.trace_id.clone()?, span: self.span_id.clone()? }.checked()
    }
}
