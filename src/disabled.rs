//! The switch that turns everything off: an environment variable, read once.

use std::sync::LazyLock;

/// Returns whether the environment has `HEELER_DISABLE=1`. If so, layers pass requests through, nothing is watched,
/// profiled or limited, and no thread is started, except for the one that systemd expects to hear from.
#[inline]
pub(crate) fn is_disabled() -> bool {
    static DISABLED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("HEELER_DISABLE").is_some_and(|value| value == "1"));
    *DISABLED
}
