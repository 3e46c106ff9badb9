//! Logging from threads that must not end.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::private::exposure;

/// The target of all events.
pub(crate) const TARGET: &str = "heeler";

/// Runs `log`, which must only log something. A subscriber is other people's code and may panic, for example if it
/// needs a runtime and there is none. Such a panic is caught.
pub(crate) fn log_safely(log: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(log));
}

/// Warns of a directory in which other users can do something. `what` names its kind: "spool".
pub(crate) fn warn_if_exposed(what: &str, path: &Path) {
    if let Some(exposure) = exposure(path) {
        let directory = path.display();
        log_safely(|| tracing::warn!(target: TARGET, "the {what} `{directory}` {exposure}"));
    }
}

/// Keeps a setting in its range. Logs the first value out of range. Each setting has its own `static`.
#[derive(Debug)]
pub(crate) struct Clamp {
    setting: &'static str,
    logged: AtomicBool,
}

impl Clamp {
    /// `setting` names the method that the user called: "WatchdogLayer::new".
    pub(crate) const fn new(setting: &'static str) -> Self {
        Self { setting, logged: AtomicBool::new(false) }
    }

    /// Returns the value, or `least` if the value is less than that or not a number.
    #[inline]
    pub(crate) fn at_least<T: PartialOrd + Debug>(&self, value: T, least: T) -> T {
        if value >= least {
            return value;
        }
        self.log(&value, &least);
        least
    }

    /// Returns the value, or `most` if the value is more than that or not a number.
    #[inline]
    pub(crate) fn at_most<T: PartialOrd + Debug>(&self, value: T, most: T) -> T {
        if value <= most {
            return value;
        }
        self.log(&value, &most);
        most
    }

    #[cold]
    #[inline(never)]
    fn log(&self, given: &dyn Debug, used: &dyn Debug) {
        if !self.logged.swap(true, Ordering::Relaxed) {
            let setting = self.setting;
            log_safely(|| {
                tracing::warn!(target: TARGET, "`{setting}` does not accept {given:?}: using {used:?} instead");
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::testing::logged;

    /// Guards: values in range stay as they are and log nothing. The first one out of range is logged, and no other.
    #[test]
    fn a_clamp_logs_only_the_first_bad_value() {
        let clamp = Clamp::new("Layer::setting");
        let log = logged(|| {
            assert_eq!(clamp.at_least(1, 1), 1);
            assert_eq!(clamp.at_most(Duration::ZERO, Duration::ZERO), Duration::ZERO);
        });
        assert_eq!(log, "");
        let log = logged(|| {
            assert_eq!(clamp.at_least(f64::NAN, 0.0).to_bits(), 0);
            assert_eq!(clamp.at_most(11, 10), 10);
            assert_eq!(clamp.at_least(-1, 0), 0);
        });
        assert!(log.contains("`Layer::setting` does not accept NaN: using 0.0 instead"), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}
