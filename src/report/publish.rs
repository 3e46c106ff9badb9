//! What the reporter does for the operator once a second.

/// Looks at the figures of the process, and hands them to whoever collects metrics. Never panics because of them.
pub(super) fn publish() {
    crate::figures::keep_up();
    #[cfg(feature = "metrics")]
    super::meters::publish();
}
