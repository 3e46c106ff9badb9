//! How work has ended that a report was made about. Other work pays nothing for this.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Row, flags, monitor_link};
use crate::capture::RowId;

/// How reported work has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ended {
    /// With a response, or with the job's result. If it was a response's body, the next frame has come.
    Finished,
    /// With an error of the service, or of the response's body.
    Failed,
    /// It was dropped before that: the client left, a timeout around it expired, or the server shut down.
    Dropped,
    /// A timebox has ended it, and answered instead if it is a layer's.
    Interrupted,
    /// With a panic.
    Panicked,
    /// In a way that only a later version of heeler knows.
    #[serde(other)]
    Unknown,
}

impl Ended {
    /// Returns the word as in JSON: `finished`, `failed`, `dropped`, `interrupted`, `panicked` or `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
            Self::Interrupted => "interrupted",
            Self::Panicked => "panicked",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In the extensions of a response: a timebox's layer has made it, because the service's own did not come in time. For
/// layers further out. It never leaves the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InsteadOfResponse;

/// Notes how work has ended that [`flags::FOLLOWED`] marks.
#[cold]
#[inline(never)]
pub(super) fn note(row: &'static Row, id: RowId, how: Ended, status: Option<u16>) {
    // Once.
    row.update(id, 0, flags::FOLLOWED);
    monitor_link::ended(row, id, how, status);
}

/// The same for work that is complete and has not said how.
#[cold]
#[inline(never)]
pub(super) fn note_silent(row: &'static Row, id: RowId) {
    let says_when_finished = row.flags() & (flags::CHILD | flags::BOX) == 0;
    // While work is polled it counts as complete, and it stays so if the poll panics.
    let panicked = says_when_finished || std::thread::panicking();
    note(row, id, if panicked { Ended::Panicked } else { Ended::Finished }, None);
}
