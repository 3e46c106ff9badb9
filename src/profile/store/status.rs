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
    /// Of a job that was sent to another machine.
    #[cfg(heeler_remote)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent: Option<SentJob>,
}

/// What all instances must know of a job that was sent to another machine.
#[cfg(heeler_remote)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SentJob {
    /// For how long a worker may take it, in milliseconds since its status was written.
    pub(crate) waits_ms: u64,
    /// Its worker is gone if it has written nothing for this long, in milliseconds.
    pub(crate) lost_after_ms: u64,
    /// Whether another worker may run it if this one is gone.
    pub(crate) again: bool,
}

#[cfg(heeler_remote)]
impl SentJob {
    pub(crate) const fn lost_after(&self) -> Duration {
        Duration::from_millis(self.lost_after_ms)
    }

    /// Returns what a job in this phase has become if nobody has written its status for a while.
    fn phase(&self, phase: &Phase, silent: Duration) -> Option<Phase> {
        let waits = Duration::from_millis(self.waits_ms);
        match phase {
            Phase::Sent { .. } if silent >= waits => {
                Some(Phase::Failed(format!("no worker has taken it within {}", crate::text::units::duration(waits))))
            }
            Phase::Sent { .. } => None,
            _ if silent < self.lost_after() => None,
            // The queue gives it to another worker when it misses the heartbeats of this one, which takes about as long.
            _ if self.again && silent < self.lost_after().saturating_mul(4).saturating_add(TAKE_OVER) => {
                Some(Phase::Sent { again: true })
            }
            _ => Some(Phase::Lost),
        }
    }

    /// Returns whether a worker that took a job at the last moment, and has said nothing since, is gone.
    pub(super) fn is_lost(&self, silent: Duration) -> bool {
        silent >= Duration::from_millis(self.waits_ms).saturating_add(self.lost_after().saturating_mul(4))
    }
}

/// What another worker gets beyond some times the silence after which the first one is gone.
#[cfg(heeler_remote)]
const TAKE_OVER: Duration = Duration::from_secs(10);

impl Status {
    /// Concludes what has become of a job whose status was written this long ago.
    pub(super) fn silent_for(&mut self, silent: Duration) {
        if self.phase.is_over() {
            return;
        }
        #[cfg(heeler_remote)]
        if let Some(sent) = self.sent {
            if let Some(phase) = sent.phase(&self.phase, silent) {
                self.phase = phase;
            }
            return;
        }
        if silent >= LOST_AFTER {
            self.phase = Phase::Lost;
        }
    }
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
    /// It waits for a worker on another machine.
    #[cfg(heeler_remote)]
    Sent {
        /// Whether a worker had it that is gone.
        again: bool,
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
    /// Returns whether the request has not begun to run.
    pub(crate) const fn is_waiting(&self) -> bool {
        match self {
            Self::Queued { .. } => true,
            #[cfg(heeler_remote)]
            Self::Sent { .. } => true,
            Self::Running | Self::Done | Self::Failed(_) | Self::Cancelled | Self::Lost => false,
        }
    }

    /// Returns whether nothing more will happen.
    pub(crate) const fn is_over(&self) -> bool {
        match self {
            Self::Queued { .. } | Self::Running => false,
            #[cfg(heeler_remote)]
            Self::Sent { .. } => false,
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

#[cfg(all(test, heeler_remote))]
mod tests {
    use super::*;
    use crate::profile::page::sample::status;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(phase: Phase, again: bool, silent: Duration) -> Phase {
        let sent = SentJob { waits_ms: 900_000, lost_after_ms: 30_000, again };
        let mut status = Status { sent: Some(sent), ..status(phase) };
        status.silent_for(silent);
        status.phase
    }

    /// Guards: a request that no worker takes ends with that reason, and one whose worker is silent waits for another one if it
    /// may run again, and for no longer than one would need. What is over stays as it is.
    #[test]
    fn silence_ends_a_job_that_was_sent() {
        let sent = Phase::Sent { again: false };
        assert_eq!(after(sent.clone(), true, 899 * SECOND), sent);
        let failed = after(sent, true, 900 * SECOND);
        assert_eq!(failed, Phase::Failed("no worker has taken it within 15 min 00 s".to_owned()));
        assert_eq!(after(Phase::Running, true, 29 * SECOND), Phase::Running);
        assert_eq!(after(Phase::Running, true, 30 * SECOND), Phase::Sent { again: true });
        assert_eq!(after(Phase::Running, true, 129 * SECOND), Phase::Sent { again: true });
        assert_eq!(after(Phase::Running, true, 130 * SECOND), Phase::Lost);
        assert_eq!(after(Phase::Queued { place: 1 }, false, 30 * SECOND), Phase::Lost);
        assert_eq!(after(Phase::Done, false, 1_000 * SECOND), Phase::Done);
    }
}
