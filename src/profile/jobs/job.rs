//! A job as others see it: how far it is, and a way to stop it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::capture::{PerProcess, process_number};
use crate::profile::id::Id;
use crate::profile::record::{Progress, Recording};
#[cfg(heeler_remote)]
use crate::profile::store::SentJob;
use crate::profile::store::{Phase, Status};
use crate::profile::supervisor::{apart, within};
use crate::profile::{Outcome, Request};
use crate::sync::lock_std;

/// How long the name of the place may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why a job is stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::profile) enum Stop {
    Cancelled,
    TooLong,
    /// The application's runtime has shut down.
    RuntimeEnded,
}

impl Stop {
    pub(in crate::profile) fn outcome(self) -> Outcome {
        match self {
            Self::Cancelled => Outcome::Cancelled,
            Self::TooLong => Outcome::TooLong,
            Self::RuntimeEnded => Outcome::Failed("the application's runtime has shut down".to_owned()),
        }
    }
}

/// A job of this process.
pub(in crate::profile) struct Job {
    pub(in crate::profile) id: Id,
    pub(in crate::profile) principal: Option<String>,
    pub(in crate::profile) request: Request,
    pub(in crate::profile) asked_at: SystemTime,
    /// Further crates that count as the application's own, beside those that are recognised.
    own_crates: Arc<[String]>,
    phase: Mutex<Phase>,
    /// Set when the request begins to run.
    recording: OnceLock<Recording>,
    /// How far it was when that was last known.
    progress: Mutex<Progress>,
    /// If another machine has sent it here.
    #[cfg(heeler_remote)]
    sent: Option<SentJob>,
    stop: watch::Sender<Option<Stop>>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("id", &self.id).field("phase", &*lock_std(&self.phase)).finish_non_exhaustive()
    }
}

impl Job {
    pub(in crate::profile) fn new(
        id: Id,
        principal: Option<String>,
        request: Request,
        own_crates: Arc<[String]>,
        place: usize,
    ) -> Self {
        Self {
            id,
            principal,
            request,
            asked_at: SystemTime::now(),
            own_crates,
            phase: Mutex::new(Phase::Queued { place }),
            recording: OnceLock::new(),
            progress: Mutex::default(),
            #[cfg(heeler_remote)]
            sent: None,
            stop: watch::Sender::new(None),
        }
    }

    /// Makes it a job that another machine has sent here.
    #[cfg(heeler_remote)]
    pub(in crate::profile) fn sent(mut self, sent: SentJob, asked_at: SystemTime) -> Self {
        (self.sent, self.asked_at) = (Some(sent), asked_at);
        self
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        *lock_std(&self.phase) = phase;
    }

    /// Returns its stage, or how it has ended.
    #[cfg(heeler_remote)]
    pub(in crate::profile) fn phase(&self) -> Phase {
        lock_std(&self.phase).clone()
    }

    /// queued → running
    pub(super) fn begin(&self, rate_hz: u32) -> Recording {
        self.set_phase(Phase::Running);
        self.recording.get_or_init(|| Recording::start(rate_hz)).clone()
    }

    pub(super) fn recording(&self) -> Option<&Recording> {
        self.recording.get()
    }

    /// Stops it, unless it is already being stopped for another reason.
    pub(in crate::profile) fn stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(why);
            first
        });
    }

    /// Returns why it is being stopped.
    pub(super) fn is_stopped(&self) -> Option<Stop> {
        *self.stop.borrow()
    }

    /// Waits until it is stopped.
    pub(super) async fn stopped(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        // The sender belongs to the job, so it outlives this.
        stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop).unwrap_or(Stop::Cancelled)
    }

    /// Returns how far it is.
    pub(in crate::profile) async fn status(&self) -> Status {
        let recording = self.recording.get().cloned();
        let own_crates = Arc::clone(&self.own_crates);
        // Symbolizing a place may take a while, the first time above all. Others must hear of the job meanwhile.
        let progress = match recording {
            Some(recording) => within(PATIENCE, apart(move || recording.progress(&own_crates))).await.flatten(),
            None => None,
        };
        let progress = {
            let mut last = lock_std(&self.progress);
            if let Some(progress) = progress {
                *last = progress;
            }
            last.clone()
        };
        Status {
            id: self.id,
            principal: self.principal.clone(),
            phase: lock_std(&self.phase).clone(),
            method: self.request.method.clone(),
            uri: self.request.uri.clone(),
            started_at: self.asked_at,
            updated_at: SystemTime::now(),
            elapsed_ms: progress.nanos / 1_000_000,
            polls: progress.polls,
            samples: progress.samples,
            place: progress.place,
            #[cfg(heeler_remote)]
            sent: self.sent,
        }
    }
}

/// The jobs of this process that aren't over.
#[derive(Debug)]
pub(in crate::profile) struct Jobs {
    live: PerProcess<Mutex<HashMap<Id, Arc<Job>>>>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { live: PerProcess::new(Mutex::default) }
    }
}

impl Jobs {
    pub(in crate::profile) fn get(&self, id: Id) -> Option<Arc<Job>> {
        lock_std(self.live.get()).get(&id).cloned()
    }

    /// Keeps a job until the value is dropped.
    pub(in crate::profile) fn enter(self: &Arc<Self>, job: &Arc<Job>) -> Entered {
        lock_std(self.live.get()).insert(job.id, Arc::clone(job));
        Entered { jobs: Arc::clone(self), id: job.id }
    }
}

/// A job that can be found.
#[derive(Debug)]
pub(in crate::profile) struct Entered {
    jobs: Arc<Jobs>,
    id: Id,
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock_std(self.jobs.live.get()).remove(&self.id);
    }
}

/// The client that waits for a job's response. If it goes away first, the job is cancelled.
#[derive(Debug)]
pub(in crate::profile) struct Asker {
    job: Option<Arc<Job>>,
    process: u32,
}

impl Asker {
    pub(in crate::profile) fn of(job: &Arc<Job>) -> Self {
        Self { job: Some(Arc::clone(job)), process: process_number() }
    }

    /// The asker has what they wanted, so the job may go on without them.
    pub(in crate::profile) fn satisfied(mut self) {
        self.job = None;
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // A child of `fork` has a copy of the asker, and no say in what its parent does.
        if let Some(job) = self.job.as_ref().filter(|_| self.process == process_number()) {
            job.stop(Stop::Cancelled);
        }
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Guards: asking how far a job is waits for the sampler without blocking the thread.
    #[test]
    fn asking_for_progress_blocks_no_thread() {
        let job = Arc::new(Job::new(Id::random().unwrap(), None, Request::default(), [].into(), 0));
        let recording = job.begin(10);
        let mut status = Box::pin(job.status());
        let at_work = recording.hold();
        assert!(status.as_mut().now_or_never().is_none());
        drop(at_work);
        assert_eq!(futures::executor::block_on(status).phase, Phase::Running);
    }
}
