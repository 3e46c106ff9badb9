//! Logging from threads that must not end.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `log`, which is to log something and nothing else. A subscriber is other people's code and may panic, as one that
/// needs a runtime where there is none: that is caught.
pub(crate) fn log_safely(log: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(log));
}
