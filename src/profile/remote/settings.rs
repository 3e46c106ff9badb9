//! What front ends and workers agree on.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::JobQueue;
use crate::error::Error;
use crate::log::{Clamp, TARGET, log_safely};
use crate::profile::ProfileStore;
use crate::profile::seal::Secret;
use crate::profile::store::{LOST_AFTER, SentJob, StoreError};
use crate::profile::supervisor::SUPERVISOR;
use crate::sync::lock_std;

/// How much the clocks of two machines may differ.
pub(super) const SKEW: Duration = Duration::from_secs(5 * 60);

/// How long one access to the store may take.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// How often a store that fails is tried again.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(2);

/// How long a store without conditional writes is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(5 * 60);

/// How often a condition has to fail, where the same object is taken without one.
const CHECKS: u32 = 3;

/// The longest silence of a worker that is not gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(60 * 60);

/// The longest wait. Claims are kept for longer, so a request that is put back after its claim is gone is too old.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Has requests profiled on other machines: see the [module](crate::profile::remote). All instances give it to
/// [`ProfileLayer::remote`](crate::ProfileLayer::remote). Workers also give it to
/// [`Worker::new`](crate::profile::remote::Worker::new). All need the same queue, store and secret.
#[derive(Debug, Clone)]
pub struct Remote {
    pub(super) queue: JobQueue,
    pub(in crate::profile) store: ProfileStore,
    pub(super) waits: Duration,
    pub(super) lost_after: Duration,
    pub(super) max_queued: usize,
    pub(super) max_request_bytes: usize,
    /// Whether the store lets only one caller create an object, when that is known.
    conditions: Arc<OnceCell<()>>,
    /// Since when it is known that it does not.
    refused: Arc<Mutex<Option<Instant>>>,
}

impl Remote {
    /// Sends requests through `queue`. Requests, profiles and progress are kept in `store`, sealed by `secret`. Objects already
    /// in the store cannot be read unless they were sealed with the same secret.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is the memory of this process, which a worker cannot see.
    pub fn new(queue: JobQueue, store: ProfileStore, secret: Secret) -> Result<Self, Error> {
        if store.is_private() {
            let message = "profiles on other machines need a store that they share: `ProfileStore::object_store`";
            return Err(Error::config(message));
        }
        Ok(Self {
            queue,
            store: store.sealed(secret),
            waits: Duration::from_secs(15 * 60),
            lost_after: LOST_AFTER,
            max_queued: 32,
            max_request_bytes: 1 << 20,
            conditions: Arc::default(),
            refused: Arc::default(),
        })
    }

    /// Sets how long a request may wait for a worker. After that it is refused, and so is a copy of it that somebody puts back.
    /// Defaults to 15 minutes. It is never longer than half of the store's [`ttl`](ProfileStore::ttl), so
    /// that the store still says what has become of it.
    ///
    /// Less than ten seconds count as ten, more than a day as a day, and the log says so once.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        static CLAMP: Clamp = Clamp::new("Remote::max_wait");
        self.waits = CLAMP.at_most(CLAMP.at_least(wait, Duration::from_secs(10)), LONGEST_WAIT);
        self
    }

    /// Sets after how much silence a worker counts as gone. Workers write every second how far they are. Defaults to 30
    /// seconds.
    ///
    /// Less than three seconds count as three, more than an hour as an hour, and the log says so once.
    #[must_use]
    pub fn lost_after(mut self, silence: Duration) -> Self {
        static CLAMP: Clamp = Clamp::new("Remote::lost_after");
        self.lost_after = CLAMP.at_most(CLAMP.at_least(silence, Duration::from_secs(3)), LONGEST_SILENCE);
        self
    }

    /// Sets how many requests of all front ends may wait for a worker, or be with one. Defaults to 32. Any further one gets
    /// the status 429.
    ///
    /// Zero counts as one, and the log says so once.
    #[must_use]
    pub fn max_queued(mut self, requests: usize) -> Self {
        static CLAMP: Clamp = Clamp::new("Remote::max_queued");
        self.max_queued = CLAMP.at_least(requests, 1);
        self
    }

    /// Sets how long the body of a request may be, in bytes. Defaults to 1 MiB. A longer one gets the status 413.
    ///
    /// More than 32 MiB count as 32 MiB, and the log says so once.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        static CLAMP: Clamp = Clamp::new("Remote::max_request_bytes");
        self.max_request_bytes = CLAMP.at_most(bytes, 32 << 20);
        self
    }

    /// Returns how long a request waits at most.
    pub(super) fn waits(&self) -> Duration {
        self.waits.min(self.store.keeps_for() / 2)
    }

    /// Returns what others must know of a job. `again`: whether it may run once more if its worker is gone.
    pub(super) fn job(&self, again: bool) -> SentJob {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        SentJob { waits_ms: millis(self.waits()), lost_after_ms: millis(self.lost_after), again }
    }

    /// Checks the store where nobody waits for it, and says so if it cannot be used.
    pub(in crate::profile) fn check_at_start(&self) {
        let Ok(supervisor) = SUPERVISOR.get().handle() else { return };
        let remote = self.clone();
        supervisor.spawn(async move {
            if let Err(unusable) = remote.check_store().await {
                log_safely(|| tracing::error!(target: TARGET, "no profile is made on another machine: {unusable}"));
            }
        });
    }

    /// Checks that the store lets only one caller create an object, unless it is known.
    pub(super) async fn check_store(&self) -> Result<(), Unusable> {
        let check = || async {
            if lock_std(&self.refused).is_some_and(|since| since.elapsed() < REFUSED_FOR) {
                return Err(Unusable::NoConditions);
            }
            let checked = self.try_conditions().await;
            if let Err(Unusable::NoConditions) = checked {
                *lock_std(&self.refused) = Some(Instant::now());
            }
            checked
        };
        self.conditions.get_or_try_init(check).await.map(drop)
    }

    /// Tries it out. Some servers answer a condition with an error that means nothing in particular: if the same object is taken
    /// without one, again and again, the condition is to blame.
    async fn try_conditions(&self) -> Result<(), Unusable> {
        for _ in 0..CHECKS {
            let failed = match timeout(STORE_PATIENCE, self.store.honours_conditions()).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => return Err(Unusable::NoConditions),
                Ok(Err(error)) => Unusable::Fails(error),
                Err(_) => Unusable::TakesTooLong,
            };
            if !matches!(timeout(STORE_PATIENCE, self.store.takes_claims()).await, Ok(Ok(()))) {
                return Err(failed);
            }
            sleep(TRY_AGAIN).await;
        }
        Err(Unusable::NoConditions)
    }
}

/// Why a store is of no use now, or ever.
#[derive(Debug)]
pub(super) enum Unusable {
    NoConditions,
    Fails(StoreError),
    TakesTooLong,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConditions => f.write_str(
                "the store of profiles does not support conditional writes: two workers could run the same request",
            ),
            Self::Fails(error) => error.fmt(f),
            Self::TakesTooLong => f.write_str("the store of profiles takes too long"),
        }
    }
}
