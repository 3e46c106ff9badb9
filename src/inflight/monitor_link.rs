//! What this floor tells the monitor, which is above it. The monitor installs functions for that when it starts. Before
//! that there is nobody to tell, and nothing worth telling.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Ended, Row};
use crate::capture::{PerProcess, RowId};

/// Flags that a new row starts with: `ARMED` if every poll should be traced.
static INITIAL_FLAGS: AtomicU32 = AtomicU32::new(0);
static LINK: PerProcess<OnceLock<MonitorLink>> = PerProcess::new(inherited);

/// Continues in a child of `fork` with what its parent had. A lock of the parent's may have been held at the fork, so
/// it is only read.
fn inherited() -> OnceLock<MonitorLink> {
    let parents = LINK.parent().and_then(|parent| parent.get().copied());
    parents.map_or_else(OnceLock::new, OnceLock::from)
}

/// The monitor's functions. All are called on cold paths only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MonitorLink {
    /// Starts the monitor if necessary, because this is a child of `fork`.
    pub(crate) start: fn(),
    /// Announces work with this threshold, in nanoseconds.
    pub(crate) expect: fn(u64),
    /// Tells the capture thread that there is something for it: a traced poll that it waits for is over.
    pub(crate) answered: fn(),
    /// Called when the row's owner is dropped and its work has no outcome.
    pub(crate) dropped: fn(&'static Row, RowId),
    /// Called when work ends that a report was made about, with the status of its response.
    pub(crate) ended: fn(&'static Row, RowId, Ended, Option<u16>),
}

/// Installs the monitor's functions. The monitor calls it before it looks at rows.
pub(crate) fn install(link: MonitorLink) {
    let _ = LINK.get().set(link);
}

/// Sets the flags that new rows start with from here on.
pub(crate) fn set_initial_flags(flags: u32) {
    INITIAL_FLAGS.store(flags, Ordering::Relaxed);
}

#[inline]
pub(crate) fn initial_flags() -> u32 {
    INITIAL_FLAGS.load(Ordering::Relaxed)
}

#[cold]
pub(super) fn start() {
    if let Some(link) = LINK.get().get() {
        (link.start)();
    }
}

#[cold]
pub(super) fn expect(nanos: u64) {
    if let Some(link) = LINK.get().get() {
        (link.expect)(nanos);
    }
}

#[cold]
pub(super) fn answered() {
    if let Some(link) = LINK.get().get() {
        (link.answered)();
    }
}

#[cold]
pub(super) fn dropped(row: &'static Row, id: RowId) {
    if let Some(link) = LINK.get().get() {
        (link.dropped)(row, id);
    }
}

#[cold]
pub(super) fn ended(row: &'static Row, id: RowId, how: Ended, status: Option<u16>) {
    if let Some(link) = LINK.get().get() {
        (link.ended)(row, id, how, status);
    }
}
