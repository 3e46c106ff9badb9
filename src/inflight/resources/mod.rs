//! What work waits for by name, and what it holds. Each wait and each hold has an entry, which the monitor reads when
//! something that waits is slow.

mod entries;
mod resource;

use std::panic::Location;

pub(crate) use entries::{Claim, Snapshot, snapshot, whole_snapshot};
pub(crate) use resource::{ReadUsage, describe, usage_of};
pub use resource::{Resource, ResourceId, Usage};

use crate::capture::RowId;

/// How something is held, or is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Exclusive,
    /// With others of its kind: a reader.
    Shared,
    /// By whoever computes it for others.
    Initialize,
}

/// One wait or one hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) resource: ResourceId,
    pub(crate) mode: Mode,
    /// The request, job or child that it began in, or [`RowId::NONE`].
    pub(crate) work: RowId,
    /// The thread that it began on, if no work is known.
    pub(crate) thread: Option<i32>,
    /// Where the application asks for it.
    pub(crate) at: &'static Location<'static>,
    /// Clock ticks: since when it waits, or holds.
    pub(crate) since: u64,
    /// `None` for a hold.
    pub(crate) wait: Option<Wait>,
}

/// What only a wait has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// Counts the waits of the process. Earlier ones have lower numbers.
    pub(crate) turn: u64,
    /// The number of its work's poll in which it was last polled.
    pub(crate) polled_in: u32,
    /// Whether its thread blocks.
    pub(crate) blocks: bool,
}
