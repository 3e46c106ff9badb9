//! The contents of a report, as plain data. For how it is written and read, see
//! [`schema`](crate::report::model::schema).

pub(in crate::report) mod process;
pub(in crate::report) mod schema;
pub(in crate::report) mod size;
pub(in crate::report) mod words;

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::capture::Frame;
use crate::monitor::{Kind, Verdict};
use crate::report::assemble::around::Around;
use crate::report::model::words::{Activity, StackKind, lenient};
use crate::text::time::{millis, rfc3339};

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
///   "sentence": "GET /photos/7 is waiting: 2.51 s so far (threshold 2.50 s), in photos::load at src/photos.rs:41",
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
/// known, `own` and `inlined` if they are false. The order of the stacks determines the numbers of the frames, so equal
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
    /// The request; `None` for a job.
    pub request: Option<RequestInfo>,
    /// The name given to [`watch`](crate::watch); `None` for a request.
    pub job: Option<String>,
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
    /// Never written: a report that was read back has none.
    #[serde(skip)]
    pub(crate) around: Around,
}

/// The request, as far as privacy allows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequestInfo {
    /// The number of this request within the process.
    pub id: u64,
    /// The method: `GET`.
    pub method: String,
    /// Path and query as sent, with secret-looking values replaced, control characters escaped, and shortened if very
    /// long.
    pub uri: String,
    /// The route's template (`/users/{id}`), if the router provides it.
    pub route: Option<String>,
    /// The HTTP version: `HTTP/1.1`.
    pub version: String,
    /// The headers that are allowed by name, in that order.
    pub headers: Vec<(String, String)>,
}

/// The process that made the report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// The host's name.
    pub hostname: String,
    /// The process id.
    pub pid: u32,
    /// The path of the executable.
    pub executable: String,
    /// The executable's GNU build id, hexadecimal.
    pub build_id: Option<String>,
    /// The service's name, if [`set`](crate::ReportsBuilder::service).
    pub service: Option<String>,
    /// The service's version, if set.
    pub version: Option<String>,
}

/// A thread at the moment of the capture.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Thread {
    /// The kernel's id of the thread.
    pub id: i32,
    /// The thread's name as the kernel has it (15 characters at most).
    pub name: String,
    /// The kernel's state: `running`, `sleeping`, `uninterruptible`, ...
    pub state: Option<String>,
    /// The system call that the thread is in.
    pub syscall: Option<String>,
    /// Where in the kernel it sleeps, if the kernel says.
    pub wchan: Option<String>,
    /// Whether the kernel's state is `running`: the thread was on a CPU, or waiting for one.
    pub on_cpu: Option<bool>,
}

/// One stack, innermost frame first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stack {
    /// What it is a stack of.
    #[serde(deserialize_with = "lenient::stack_kind")]
    pub kind: StackKind,
    /// Whether it was taken at the capture (true) or earlier, for the timeline (false).
    pub current: bool,
    /// Whether frames are missing at the outer end.
    pub truncated: bool,
    /// Whether it was put together from what a finished poll left behind (verdict *no waker*): likely, but not certain.
    pub reconstructed: bool,
    /// Branches of one wait (`join!`, `select!`) are numbered from 0 and stand next to each other.
    pub branch: u32,
    /// The child work this stack belongs to (`heeler::spawn`, ..); `None` for the work itself.
    pub child: Option<String>,
    /// The thread, for the kinds *thread* and *culprit*.
    pub thread: Option<Thread>,
    /// What a culprit's thread is doing: its request or job.
    pub work: Option<String>,
    /// The frames, innermost first.
    pub frames: Vec<Frame>,
}

impl Stack {
    /// Returns a current stack without frames.
    pub(in crate::report) const fn empty(kind: StackKind) -> Self {
        Self {
            kind,
            current: true,
            truncated: false,
            reconstructed: false,
            branch: 0,
            child: None,
            thread: None,
            work: None,
            frames: Vec::new(),
        }
    }
}

/// A share of the work's time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Interval {
    /// What the work did.
    pub activity: Activity,
    /// Index into [`Report::stacks`] of the stack (its first branch), if one is known.
    pub stack: Option<usize>,
    /// How many separate waits or polls make up this share.
    pub waits: u32,
    /// Their total time.
    #[serde(rename = "ms", with = "millis")]
    pub time: Duration,
}

/// A `tracing` span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Span {
    /// The span's name.
    pub name: String,
    /// Its fields as text.
    pub fields: Vec<(String, String)>,
}

/// A place in the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Location {
    /// The function, by its usual name: `photos::slow::load_photos`. `None` if the binary has no name for it, as for an
    /// inlined async function built with `debug = "line-tables-only"`.
    pub function: Option<String>,
    /// The file, as the compiler recorded it.
    pub file: Option<String>,
    /// The line, counted from 1.
    pub line: Option<u32>,
}

impl Location {
    /// Creates a place from what is known of it, for [`Report::symbolize`].
    #[must_use]
    pub const fn new(function: Option<String>, file: Option<String>, line: Option<u32>) -> Self {
        Self { function, file, line }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = self.function.as_deref().unwrap_or_default();
        let space = if function.is_empty() { "" } else { " " };
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{function}{space}{file}:{line}"),
            (Some(file), None) => write!(f, "{function}{space}{file}"),
            _ => f.write_str(function),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_prints_only_what_is_known() {
        let mut place =
            Location { function: Some("app::load".to_owned()), file: Some("src/a.rs".to_owned()), line: Some(7) };
        assert_eq!(place.to_string(), "app::load src/a.rs:7");
        place.line = None;
        assert_eq!(place.to_string(), "app::load src/a.rs");
        place.function = None;
        assert_eq!(place.to_string(), "src/a.rs");
        place.file = None;
        assert_eq!(place.to_string(), "");
    }
}
