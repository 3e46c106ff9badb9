//! Starts the threads behind the floors below, which know this one only through what is installed here.

use super::reporter;
use crate::inflight::PolicyId;
use crate::monitor::{self, Reporter};
use crate::report::Reports;

/// Starts the monitor and the reporter unless they run.
#[inline]
pub(crate) fn start_watching() {
    if !monitor::is_running() {
        start();
    }
}

#[cold]
#[inline(never)]
fn start() {
    monitor::install(Reporter {
        start: reporter::start,
        is_running: reporter::is_running,
        self_check: reporter::self_check,
        send: reporter::send,
        end: reporter::end,
        default_target: || Reports::shared().target(),
    });
    monitor::start();
}

/// Announces work with this threshold, in nanoseconds. If it is shorter than any before, the monitor must look sooner.
#[inline]
pub(crate) fn expect(nanos: u64) {
    if monitor::is_shorter(nanos) {
        hurry(nanos);
    }
}

#[cold]
#[inline(never)]
fn hurry(nanos: u64) {
    start_watching();
    monitor::hurry(nanos);
}

/// Announces a box with this limit. Without a policy there is nothing to do before its limit has passed, so the monitor
/// may look four times less often than for a threshold.
#[inline]
pub(crate) fn expect_box(policy: PolicyId, limit: u64) {
    // A zero limit needs no haste, because it is told before its first poll.
    let limit = limit.max(1_000_000);
    expect(if policy == PolicyId::NONE { limit.saturating_mul(4) } else { limit });
}
