//! What a report consists of.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capture::Frame;
use crate::inflight::Ended;
use crate::monitor::DeniedBy;
use crate::report::model::words::{Activity, StackKind, lenient};
use crate::text::time::millis;

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
    /// The service's name, if [set](crate::ReportsBuilder::service), or else OpenTelemetry's `service.name`.
    pub service: Option<String>,
    /// The service's version, if set, or else OpenTelemetry's `service.version`.
    pub version: Option<String>,
    /// Which of the service's instances it is, if [set](crate::ReportsBuilder::instance), or else OpenTelemetry's
    /// `service.instance.id`, or else the name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The zone that it runs in, if [set](crate::ReportsBuilder::zone), or else OpenTelemetry's `cloud.availability_zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl ProcessInfo {
    /// Returns the name that tells it from the others: the instance's, or else the host's with the process id.
    #[cfg(any(feature = "profile", feature = "fleet"))]
    pub(crate) fn instance_name(&self) -> String {
        self.instance.clone().unwrap_or_else(|| format!("{} {}", self.hostname, self.pid))
    }
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
    /// Whether it was taken at the capture (true) or earlier, for the timeline (false). For the verdict *churning*, true
    /// at the place that the work comes back to.
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
    pub(crate) const fn empty(kind: StackKind) -> Self {
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

/// The end of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ending {
    /// How it has ended.
    #[serde(deserialize_with = "lenient::ended")]
    pub how: Ended,
    /// The status of the response; `None` without one.
    pub status: Option<u16>,
    /// The time from the beginning to the end.
    #[serde(rename = "after_ms", with = "millis")]
    pub after: Duration,
}

/// A share of the work's time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Interval {
    /// What the work did.
    pub activity: Activity,
    /// Index into [`Report::stacks`](crate::Report::stacks) of the stack (its first branch), if one is known.
    pub stack: Option<usize>,
    /// How many separate waits or polls make up this share.
    pub waits: u32,
    /// Their total time.
    #[serde(rename = "ms", with = "millis")]
    pub time: Duration,
}

/// CPU time that the process did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Denied {
    /// How long the thread of the process that was kept waiting most had to wait.
    #[serde(rename = "ms", with = "millis")]
    pub time: Duration,
    /// The part of the work's time that was looked at.
    #[serde(rename = "of_ms", with = "millis")]
    pub of: Duration,
    /// The cause.
    pub by: DeniedBy,
}

/// Waits at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Repeats {
    /// How many.
    pub waits: u32,
    /// How long they took together.
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
    /// Creates a place from what is known of it, for [`Report::symbolize`](crate::Report::symbolize).
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
