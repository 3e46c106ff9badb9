//! How far a profile is.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::profile::id::Id;
use crate::text::time::rfc3339;

/// How often the instance that runs a job, or has it in a queue, writes its status again, whether or not it has
/// changed.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(3);

/// If a job isn't over and its status is older than this, its process is gone. This is some heartbeats, because the
/// clocks of machines differ and a bucket may be slow.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(30);

/// How far a profile is. Written by the instance that makes it, read by any instance.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) id: Id,
    /// Its owner. Not shown to others.
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

/// The stage or the end of a job.
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
    /// There is none, for this reason.
    Failed(String),
    /// Somebody cancelled it.
    Cancelled,
    /// The process that ran it is gone. This is never written, only concluded: see [`LOST_AFTER`].
    Lost,
}

impl Phase {
    /// Returns whether nothing more will happen.
    pub(crate) const fn is_over(&self) -> bool {
        match self {
            Self::Queued { .. } | Self::Running => false,
            Self::Done | Self::Failed(_) | Self::Cancelled | Self::Lost => true,
        }
    }
}

impl fmt::Debug for Status {
    /// Leaves out the request and the owner.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Status");
        debug.field("id", &self.id).field("phase", &self.phase).field("elapsed_ms", &self.elapsed_ms);
        debug.finish_non_exhaustive()
    }
}
