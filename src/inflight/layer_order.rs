//! Layers in an order that makes one of them useless: a watchdog never reaches its threshold if a box around the same
//! requests ends each of them first. Logged once per layer, at its first request, because only then both are known to
//! be on one service.

use super::join::{current_row, work_of};
use super::scope::innermost;
use super::{Policy, Tool, flags, table};
use crate::log::log_safely;

/// Compares a timebox layer with the watchdog around it. The layer calls it for its first request.
#[cold]
#[inline(never)]
pub(crate) fn by_timebox(timebox: &Policy) {
    let id = work_of(current_row());
    let request = table().row(id).filter(|row| row.is_live(id) && row.flags() & flags::REQUEST != 0);
    if let Some(watchdog) = request.and_then(|row| row.policy().get()) {
        compare(watchdog, timebox);
    }
}

/// Compares a watchdog with the timebox layer around it. The watchdog calls it for its first request.
#[cold]
#[inline(never)]
pub(crate) fn of_watchdog(watchdog: &Policy) {
    let timebox = innermost().filter(|row| row.flags() & flags::BOX != 0).and_then(|row| row.policy().get());
    if let Some(timebox) = timebox.filter(|policy| policy.tool == Tool::Timebox) {
        compare(watchdog, timebox);
    }
}

fn compare(watchdog: &Policy, timebox: &Policy) {
    let (threshold, limit) = (watchdog.threshold(), timebox.threshold());
    // If some requests have their own times, the order may be right.
    if watchdog.varies || timebox.varies || threshold < limit || limit.is_zero() {
        return;
    }
    log_safely(|| {
        tracing::warn!(
            target: "heeler",
            threshold_ms = threshold.as_millis() as u64,
            limit_ms = limit.as_millis() as u64,
            "a watchdog never sees a slow request: a timebox ends each one first; set the watchdog's threshold below the timebox's limit"
        );
    });
}
