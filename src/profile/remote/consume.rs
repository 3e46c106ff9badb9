//! A worker of apalis, whatever its queue is in.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use apalis_core::error::{BoxDynError, WorkerError};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::queue::{Trouble, log_trouble};
use crate::profile::id::Id;
use crate::profile::jobs::{Either, either};
use crate::report::hostname;

/// How soon, and how often, what is over is removed from the queue.
const TIDY_AFTER: Duration = Duration::from_secs(5);
const TIDY_EVERY: Duration = Duration::from_secs(15 * 60);

/// When the queue gives the job of a silent worker to another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    pub(super) beat: Duration,
    pub(super) missed: usize,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self::slower_than(crate::profile::store::LOST_AFTER)
    }
}

impl Rhythm {
    /// Returns one that calls a worker dead a little later than its job is called lost, so that the next worker need not wait.
    pub(super) fn slower_than(lost_after: Duration) -> Self {
        // The engines count seconds.
        let seconds = lost_after.as_secs().max(1);
        let beat = (seconds / 6).clamp(1, 5);
        Self { beat: Duration::from_secs(beat), missed: usize::try_from(seconds / beat + 1).unwrap_or(usize::MAX) }
    }
}

/// One job.
pub(super) type Working = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a job is given to. Each job is a task of its own: what it began goes on if the queue fails.
#[derive(Clone)]
pub(super) struct Handler {
    handle: Arc<dyn Fn(String) -> Working + Send + Sync>,
    /// How many run at the same time, and which of them do.
    pub(super) at_once: usize,
    running: Arc<Semaphore>,
    lost_after: Duration,
}

impl Handler {
    pub(super) fn new(
        handle: Arc<dyn Fn(String) -> Working + Send + Sync>,
        at_once: usize,
        lost_after: Duration,
    ) -> Self {
        let at_once = at_once.min(Semaphore::MAX_PERMITS);
        Self { handle, at_once, running: Arc::new(Semaphore::new(at_once)), lost_after }
    }

    pub(super) fn rhythm(&self) -> Rhythm {
        Rhythm::slower_than(self.lost_after)
    }

    /// Returns the silence after which a worker counts as gone.
    pub(super) const fn lost_after(&self) -> Duration {
        self.lost_after
    }

    /// Waits until nothing runs any more.
    pub(super) async fn all_over(&self) {
        let all = u32::try_from(self.at_once).unwrap_or(u32::MAX);
        let _ = self.running.acquire_many(all).await;
    }

    /// Returns what apalis calls with each job.
    pub(super) fn into_fn(self) -> impl Fn(String) -> HandlerFuture + Clone {
        move |id| {
            let (work, running) = ((self.handle)(id), Arc::clone(&self.running));
            Box::pin(async move {
                // What a queue that failed has handed out still counts.
                let permit = running.acquire_owned().await;
                let task = tokio::spawn(async move {
                    work.await;
                    drop(permit);
                });
                // It has told everybody who should know.
                let _ = task.await;
                Ok(())
            })
        }
    }
}

/// What apalis drives, once for each job.
pub(super) type HandlerFuture = Pin<Box<dyn Future<Output = Result<(), BoxDynError>> + Send>>;

/// Removes from a queue what is over.
pub(super) type Tidying = Pin<Box<dyn Future<Output = Result<(), Trouble>> + Send>>;

/// Turns the wish to stop into what a worker of apalis waits for.
pub(super) async fn signal(stop: impl Future<Output = ()>) -> Result<(), WorkerError> {
    stop.await;
    Ok(())
}

/// Drives a worker. `tidy` removes from its queue what is over.
pub(super) async fn drive(
    run: impl Future<Output = Result<(), WorkerError>>,
    mut tidy: impl FnMut() -> Tidying,
) -> Result<(), Trouble> {
    let tidy = async {
        // By then the queue knows the worker.
        sleep(TIDY_AFTER).await;
        loop {
            // Whoever may not remove anything may still work.
            if let Err(trouble) = tidy().await {
                log_trouble("finished jobs could not be removed", &trouble);
            }
            sleep(TIDY_EVERY).await;
        }
    };
    match either(pin!(run), pin!(tidy)).await {
        Either::First(ended) => ended.map_err(Into::into),
        Either::Second(()) => Ok(()),
    }
}

/// Returns a name that no other process has, not even the next one of this machine: under the name of one that is gone, a
/// worker would have to wait until its jobs are called orphans.
pub(super) fn name() -> String {
    let random = Id::random().map_or_else(|_| fastrand::u32(..).to_string(), |id| id.short());
    format!("heeler-{}-{}-{random}", hostname(), std::process::id())
}
