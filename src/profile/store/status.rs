//! How far a profile is.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::profile::id::Id;
use crate::text::time::rfc3339;

/// How often whoever runs a job, or has it in a queue, puts its status anew, changed or not.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(3);

/// A job that is not over and whose status is older than that has lost its process. Some heartbeats, as clocks of machines
/// differ and a bucket may be slow.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(30);

/// How far a profile is. Put by the instance that makes it, read by any that is asked.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) id: Id,
    /// Whose it is; not for the eyes of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<String>,
    pub(crate) phase: Phase,
    pub(crate) method: String,
    /// Path and query without the flag, with secrets replaced.
    pub(crate) uri: String,
    /// When it was asked for.
    #[serde(with = "rfc3339")]
    pub(crate) started_at: SystemTime,
    /// When this was written: see [`HEARTBEAT`].
    #[serde(with = "rfc3339")]
    pub(crate) updated_at: SystemTime,
    /// How long the request has been running.
    pub(crate) elapsed_ms: u64,
    pub(crate) polls: u64,
    pub(crate) samples: u64,
    /// The current await point, or function.
    pub(crate) place: Option<String>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// It waits for its turn.
    Queued {
        /// How many are before it.
        place: usize,
    },
    /// The request runs.
    Running,
    /// The profile is in the store.
    Done,
    /// There is none, and why.
    Failed(String),
    /// Somebody cancelled it.
    Cancelled,
    /// The process that ran it is gone. Never put, always concluded: see [`LOST_AFTER`].
    Lost,
}

impl Phase {
    /// Whether nothing more will happen.
    pub(crate) const fn is_over(&self) -> bool {
        match self {
            Self::Queued { .. } | Self::Running => false,
            Self::Done | Self::Failed(_) | Self::Cancelled | Self::Lost => true,
        }
    }
}

impl fmt::Debug for Status {
    /// Leaves out the request, and whose it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Status");
        debug.field("id", &self.id).field("phase", &self.phase).field("elapsed_ms", &self.elapsed_ms);
        debug.finish_non_exhaustive()
    }
}
