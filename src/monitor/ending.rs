//! The end of work that a report was made about.

use super::gather;
use crate::capture::RowId;
use crate::clock::Clock;
use crate::inflight::{Ended, ReportTarget, Row};

/// How a piece of work has ended. It is taken from the row before that is free.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) id: RowId,
    /// Clock ticks when the work began. With the id, it tells which report this belongs to.
    pub(crate) started: u64,
    /// Where the report has gone.
    pub(crate) reports: ReportTarget,
    pub(crate) how: Ended,
    pub(crate) status: Option<u16>,
    /// Nanoseconds from the beginning.
    pub(crate) after: u64,
}

impl Ending {
    pub(super) fn of(row: &'static Row, id: RowId, how: Ended, status: Option<u16>) -> Option<Self> {
        let started = row.started()?;
        let after = crate::clock::now().saturating_sub(Clock::get().nanos(started));
        Some(Self { id, started, reports: gather::reports(row, id)?, how, status, after })
    }
}
