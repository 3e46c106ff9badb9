//! Logging from threads that must not end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::private::exposure;

/// The target of all events.
pub(crate) const TARGET: &str = "heeler";

/// Runs `log`, which is to log something and nothing else. A subscriber is other people's code and may panic, as one that
/// needs a runtime where there is none: that is caught.
pub(crate) fn log_safely(log: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(log));
}

/// Warns of a directory that other users can do something in. `what` is what it is: "spool".
pub(crate) fn warn_if_exposed(what: &str, path: &Path) {
    if let Some(exposure) = exposure(path) {
        let directory = path.display();
        log_safely(|| tracing::warn!(target: TARGET, "the {what} `{directory}` {exposure}"));
    }
}
