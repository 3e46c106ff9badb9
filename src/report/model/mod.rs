//! What a report says: plain data. How it is written and read: [`schema`](crate::report::model::schema).

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
/// The fields have the names of the struct's, durations are milliseconds and end in `_ms`, times are RFC 3339 in UTC. `sentence` is the
/// [sentence](Report::sentence), for whoever reads no further. Frames are told once: `frames` lists all that the report has, each
/// stack has the numbers of its own, innermost first, and each frame the number of its module in `modules`. Both count from 0.
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
/// What a frame does not have is left out: `function`, `file`, `line`, `source` and `module` if they are not known, `own` and
/// `inlined` if they are false. Which frames have which numbers follows from the stacks, so equal reports are equal as JSON.
///
/// # The short form
///
/// A `Webhook` (feature `webhook`) gets the same without most of the stacks, in a few kilobytes: of the capture's stacks the first
/// four that are at different places, and those of the places where most of the time went, six together at most. Of each stack it
/// has the application's own frames and the library's that say what is waited on, 16 at most, and how many were left out
/// (`omitted_frames`). `timeline` refers to the stacks that are there. `omitted`, as in `{"stacks": 25, "frames": 2391}`, tells a
/// report in its short form from a whole one.
///
/// # Schema 1
///
/// It had no tables and no `sentence`, and each frame in full wherever it stood, with its module's name as `module` and its
/// `build_id`. A [`Report`] is read from either, and says `2` then. [Spools](crate::ReportsBuilder::spool) are still written in it,
/// because processes of an earlier version may have to read them while a service is deployed. Reports of a later version than this
/// program's have that version in `schema`, as far as they can be read.
pub const SCHEMA: u32 = 2;

/// One slow piece of work: what it is, where it is, and where its time went.
///
/// Times are UTC. Everything that came from a request is already reduced to what
/// [privacy](crate::report#privacy) allows.
// A spool has reports of other versions of this program, too: a field that is added is an `Option`, or has a serde default.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// [`SCHEMA`].
    #[serde(deserialize_with = "schema::version")]
    pub schema: u32,
    /// Unique to this request within the process and, with near certainty, beyond it. An update has the id of its report.
    pub id: String,
    /// 0 for the first capture; 1, 2, 3 for the later ones at 2, 4 and 8 times the threshold.
    pub update: u32,
    /// What made heeler look.
    #[serde(deserialize_with = "lenient::kind")]
    pub kind: Kind,
    /// Where the time goes.
    pub verdict: Verdict,
    /// When the stacks were taken.
    #[serde(with = "rfc3339")]
    pub captured_at: SystemTime,
    /// When the work began.
    #[serde(with = "rfc3339")]
    pub started_at: SystemTime,
    /// From the beginning to the capture.
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
    /// Time that was not observed, for the work was not armed yet or the budget of captures was used up.
    #[serde(rename = "unobserved_ms", with = "millis")]
    pub unobserved: Duration,
    /// The longest poll observed.
    #[serde(rename = "longest_poll_ms", with = "millis")]
    pub longest_poll: Duration,
    /// The application's own frame that matters most: where an engineer should look first.
    pub location: Option<Location>,
    /// The stacks, those of the capture first (`current`), then those the timeline refers to.
    #[serde(flatten, deserialize_with = "schema::stacks")]
    pub stacks: Vec<Stack>,
    /// Where the time went: sums to `elapsed`, longest first.
    pub timeline: Vec<Interval>,
    /// The `tracing` spans the work is in, outermost first.
    pub spans: Vec<Span>,
    /// What a reader must know to judge this report: captures that were missed, child work that did not answer, and so on.
    pub notes: Vec<String>,
    /// Equal for reports about the same place on the same route: hexadecimal.
    pub fingerprint: String,
    /// Reports with this fingerprint that were held back since the last one that went out.
    pub suppressed: u64,
    /// Never written anywhere: a report that was read back has none.
    #[serde(skip)]
    pub(crate) around: Around,
}

/// The request, as privacy allows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequestInfo {
    /// A number of this request within the process.
    pub id: u64,
    /// `GET`.
    pub method: String,
    /// Path and query as sent, secret-looking values replaced, control characters escaped, shortened if very long.
    pub uri: String,
    /// The route's template (`/users/{id}`) where the router tells it.
    pub route: Option<String>,
    /// `HTTP/1.1`.
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
    /// The system call the thread sits in.
    pub syscall: Option<String>,
    /// Where in the kernel it sleeps, if the kernel tells.
    pub wchan: Option<String>,
    /// Whether the kernel's state is `running`: the thread was on a CPU, or waited for one.
    pub on_cpu: Option<bool>,
}

/// One stack, innermost frame first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stack {
    /// What it is a stack of.
    #[serde(deserialize_with = "lenient::stack_kind")]
    pub kind: StackKind,
    /// Taken at the capture (true), or earlier, for the timeline (false).
    pub current: bool,
    /// Frames are missing at the outer end.
    pub truncated: bool,
    /// Put together from what a finished poll left behind (verdict *no waker*): likely, not certain.
    pub reconstructed: bool,
    /// Branches of one wait (`join!`, `select!`) are numbered from 0 and stand next to each other.
    pub branch: u32,
    /// The child work this stack belongs to (`heeler::spawn`, ..); `None` for the work itself.
    pub child: Option<String>,
    /// The thread, for the kinds *thread* and *culprit*.
    pub thread: Option<Thread>,
    /// What a culprit's thread is busy with: its request or job.
    pub work: Option<String>,
    /// The frames, innermost first.
    pub frames: Vec<Frame>,
}

impl Stack {
    /// A stack of this moment without frames.
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
    /// What it did.
    pub activity: Activity,
    /// Index into [`Report::stacks`] of the (first branch's) stack, where one is known.
    pub stack: Option<usize>,
    /// How many separate waits or polls make this share up.
    pub waits: u32,
    /// Their sum.
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
    /// The function, as a reader knows it: `photos::slow::load_photos`. `None` if the binary has no name for it, as for
    /// an inlined async function built with `debug = "line-tables-only"`.
    pub function: Option<String>,
    /// The file, as the compiler recorded it.
    pub file: Option<String>,
    /// The line, counted from 1.
    pub line: Option<u32>,
}

impl Location {
    /// A place, as far as it is known: for [`Report::symbolize`].
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
