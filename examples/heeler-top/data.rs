//! The console's JSON, as far as it is shown. What is missing is nothing: a later version may say more, or less.

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Dump {
    pub(crate) sentence: String,
    pub(crate) in_flight: u64,
    pub(crate) process: Process,
    pub(crate) groups: Vec<Group>,
    pub(crate) work: Vec<Work>,
    pub(crate) deadlocks: Vec<Vec<String>>,
    pub(crate) runtimes: Vec<Runtime>,
    pub(crate) omitted: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    pub(crate) hostname: String,
    pub(crate) pid: u32,
    pub(crate) executable: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    pub(crate) count: u64,
    pub(crate) state: String,
    pub(crate) awaiting: Option<String>,
    pub(crate) location: Option<Location>,
    pub(crate) oldest_ms: f64,
    pub(crate) routes: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Location {
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Work {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) elapsed_ms: f64,
    pub(crate) left_ms: Option<f64>,
    pub(crate) state: String,
    pub(crate) polls: u64,
    pub(crate) group: usize,
    pub(crate) holds: Vec<String>,
    pub(crate) awaits: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) delay_p99_ms: f64,
    pub(crate) delay_max_ms: f64,
    pub(crate) stalled_for_ms: Option<f64>,
}

impl Group {
    /// Where it is: `for a lock in app::load src/app.rs:41`.
    pub(crate) fn place(&self) -> String {
        let awaiting = self.awaiting.as_ref().map(|awaiting| format!("for {awaiting} ")).unwrap_or_default();
        let Some(location) = &self.location else { return awaiting };
        let function = location.function.as_deref().unwrap_or("?");
        let file = location.file.as_deref().map(short).unwrap_or_default();
        let line = location.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("{awaiting}in {function} {file}{line}")
    }
}

/// The end of a path, from `src` on if that is in it.
fn short(file: &str) -> &str {
    match file.rfind("/src/") {
        Some(at) => &file[at + 1..],
        None => file.rsplit('/').next().unwrap_or(file),
    }
}

/// A state in words.
pub(crate) fn words(state: &str) -> &str {
    match state {
        "woken" => "woken, not polled",
        "no_waker" => "no waker",
        "polled" => "in a poll",
        "new" => "not polled yet",
        "unknown" => "not observed yet",
        other => other,
    }
}

/// `12.3 s`, `340 ms`.
pub(crate) fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 3_600_000.0 => format!("{:.0} min {:02.0} s", (ms / 60_000.0).floor(), (ms % 60_000.0) / 1e3),
        ms => format!("{:.1} h", ms / 3_600_000.0),
    }
}
