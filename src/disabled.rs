//! The switch for everything: an environment variable, read once.

use std::sync::LazyLock;

/// Whether the environment has `HEELER_DISABLE=1`: then layers pass requests through, nothing is watched, profiled or
/// limited, and no thread is started.
#[inline]
pub(crate) fn is_disabled() -> bool {
    static DISABLED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("HEELER_DISABLE").is_some_and(|value| value == "1"));
    *DISABLED
}
