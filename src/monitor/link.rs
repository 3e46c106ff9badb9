//! The link to the floor above, which receives what the monitor finds and installs itself here. Before that, nothing is
//! watched.

use std::sync::OnceLock;

use super::ending::Ending;
use super::evidence::Evidence;
use crate::capture::PerProcess;
use crate::inflight::ReportTarget;

static REPORTER: PerProcess<OnceLock<Reporter>> = PerProcess::new(inherited);

/// Continues in a child of `fork` with what its parent had. A lock of the parent's may have been held at the fork, so
/// it is only read.
fn inherited() -> OnceLock<Reporter> {
    let parents = REPORTER.parent().and_then(|parent| parent.get().copied());
    parents.map_or_else(OnceLock::new, OnceLock::from)
}

/// The functions that make reports of what the monitor finds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reporter {
    /// Starts the reporter unless it runs, or has just failed to start.
    pub(crate) start: fn(),
    pub(crate) is_running: fn() -> bool,
    /// Receives the signal that captures threads, or the reason why they are not captured.
    pub(crate) self_check: fn(Result<i32, &'static str>),
    /// Never waits.
    pub(crate) send: fn(Evidence),
    /// The same for how reported work has ended.
    pub(crate) end: fn(Ending),
    /// Returns where reports go for work that names no target.
    pub(crate) default_target: fn() -> ReportTarget,
}

/// Installs the reporter. Must be called before the monitor is started. The first call wins.
pub(crate) fn install(reporter: Reporter) {
    let _ = REPORTER.get().set(reporter);
}

pub(super) fn start_reporter() {
    if let Some(reporter) = REPORTER.get().get() {
        (reporter.start)();
    }
}

pub(super) fn is_reporter_running() -> bool {
    REPORTER.get().get().is_none_or(|reporter| (reporter.is_running)())
}

pub(super) fn self_check(signal: Result<i32, &'static str>) {
    if let Some(reporter) = REPORTER.get().get() {
        (reporter.self_check)(signal);
    }
}

pub(super) fn send(evidence: Evidence) {
    if let Some(reporter) = REPORTER.get().get() {
        (reporter.send)(evidence);
    }
}

pub(super) fn end(ending: Ending) {
    if let Some(reporter) = REPORTER.get().get() {
        (reporter.end)(ending);
    }
}

pub(super) fn default_target() -> Option<ReportTarget> {
    REPORTER.get().get().map(|reporter| (reporter.default_target)())
}
