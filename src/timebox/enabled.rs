//! Boxes can be switched off, for example while somebody steps through the program with a debugger.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::disabled::is_disabled;

const UNKNOWN: u8 = 0;
const ON: u8 = 1;
const OFF: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Returns whether new boxes fire. They do, unless the environment has `HEELER_DISABLE_TIMEBOXES=1` or [`set_enabled`]
/// turned them off. With `HEELER_DISABLE=1` they never do.
#[inline]
#[must_use]
pub fn is_enabled() -> bool {
    match STATE.load(Ordering::Relaxed) {
        UNKNOWN => read(),
        state => state == ON,
    }
}

/// Turns new boxes on or off. Boxes that run keep their limits. Overrides `HEELER_DISABLE_TIMEBOXES`.
pub fn set_enabled(enabled: bool) {
    STATE.store(if enabled && !is_disabled() { ON } else { OFF }, Ordering::Relaxed);
}

#[cold]
fn read() -> bool {
    let off = is_disabled() || std::env::var_os("HEELER_DISABLE_TIMEBOXES").is_some_and(|value| value == "1");
    // Unless somebody has called `set_enabled` in the meantime.
    let state = if off { OFF } else { ON };
    let before = STATE.compare_exchange(UNKNOWN, state, Ordering::Relaxed, Ordering::Relaxed);
    before.err().unwrap_or(state) == ON
}
