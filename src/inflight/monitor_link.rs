//! What this floor tells the monitor, which stands above it: through functions that the monitor installs when it starts. Before
//! that there is nobody to tell, and nothing that anybody would have to know.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Row;
use crate::capture::{PerProcess, RowId};

/// Flags that a new row starts with: `ARMED` where every poll is to be traced.
static INITIAL_FLAGS: AtomicU32 = AtomicU32::new(0);
static LINK: PerProcess<OnceLock<MonitorLink>> = PerProcess::new(inherited);

/// A child of `fork` goes on with what its parent had. A lock of that may have been held at the fork: it is only read.
fn inherited() -> OnceLock<MonitorLink> {
    let parents = LINK.parent().and_then(|parent| parent.get().copied());
    parents.map_or_else(OnceLock::new, OnceLock::from)
}

/// The monitor's functions. All are called on cold paths alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MonitorLink {
    /// The monitor may have to be started: this is a child of `fork`.
    pub(crate) start: fn(),
    /// There is something for the thread that captures: a traced poll that it waits for is over.
    pub(crate) answered: fn(),
    /// The row's owner is dropped, and its work has no outcome.
    pub(crate) dropped: fn(&'static Row, RowId),
}

/// To be called by the monitor before it looks at rows.
pub(crate) fn install(link: MonitorLink) {
    let _ = LINK.get().set(link);
}

/// From here on, new rows start with these.
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
