//! On a front end: waits for a profile that is made elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Remote;
use super::settings::STORE_PATIENCE;
use crate::authorize::Access;
use crate::capture::process_number;
use crate::profile::id::Id;
use crate::profile::store::{Phase, StoreError};
use crate::profile::supervisor::SUPERVISOR;
use crate::profile::{Profile, ProfileStore};

/// How often the store is asked for a profile that somebody waits for.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What somebody has waited for.
pub(super) enum Waited {
    Done(Arc<Profile>),
    Ended(Phase),
    Store(StoreError),
    Unknown,
}

/// Waits until a job is over.
pub(super) async fn wait(remote: Remote, timeout_of_job: Duration, principal: Option<String>, id: Id) -> Waited {
    let longest = (remote.waits() + 8 * remote.lost_after + Duration::from_secs(60)).saturating_add(timeout_of_job);
    let (began, mut failing, mut lost) = (Instant::now(), None, None);
    while began.elapsed() < longest {
        sleep(ASK_EVERY).await;
        match timeout(STORE_PATIENCE, look(&remote, principal.as_deref(), id)).await {
            Ok(Ok(Looked::GoesOn)) => (failing, lost) = (None, None),
            // Clocks differ: only if it is silent by this one, too.
            Ok(Ok(Looked::Lost(written))) => {
                let since = match lost {
                    Some((last, since)) if last == written => since,
                    _ => Instant::now(),
                };
                lost = Some((written, since));
                if since.elapsed() >= remote.lost_after {
                    return Waited::Ended(Phase::Lost);
                }
            }
            Ok(Ok(Looked::Over(waited))) => return waited,
            Ok(Err(error)) if failing.get_or_insert_with(Instant::now).elapsed() > 3 * STORE_PATIENCE => {
                return Waited::Store(error);
            }
            Err(_) if failing.get_or_insert_with(Instant::now).elapsed() > 3 * STORE_PATIENCE => {
                return Waited::Unknown;
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Waited::Unknown
}

enum Looked {
    GoesOn,
    /// The worker seems to be gone. It has written last at that time.
    Lost(SystemTime),
    Over(Waited),
}

/// Returns what there is.
async fn look(remote: &Remote, principal: Option<&str>, id: Id) -> Result<Looked, StoreError> {
    let Some(status) = remote.store.status(&id, principal).await? else { return Ok(Looked::Over(Waited::Unknown)) };
    if !status.phase.is_over() {
        return Ok(Looked::GoesOn);
    }
    Ok(match remote.store.get(&id, principal).await? {
        Some(profile) => Looked::Over(Waited::Done(Arc::new(profile))),
        None if status.phase == Phase::Lost => Looked::Lost(status.updated_at),
        None => Looked::Over(Waited::Ended(status.phase)),
    })
}

/// A task that ends when nobody waits for it.
pub(super) struct AbortOnDrop<T>(pub(super) JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    pub(super) async fn ended(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A client that waits for a profile. If it goes away first, the job is cancelled.
pub(super) struct WaitingAsker {
    store: ProfileStore,
    principal: Option<String>,
    id: Option<Id>,
    process: u32,
    pub(super) gone: Arc<AtomicBool>,
}

impl WaitingAsker {
    pub(super) fn new(remote: &Remote, access: &Access, id: Id) -> Self {
        let principal = access.principal().map(str::to_owned);
        Self { store: remote.store.clone(), principal, id: Some(id), process: process_number(), gone: Arc::default() }
    }

    /// The asker has what they wanted, or does not wait for it.
    pub(super) fn satisfied(mut self) {
        self.id = None;
    }
}

impl Drop for WaitingAsker {
    fn drop(&mut self) {
        // A child of `fork` has a copy of the asker, and no say in what its parent does.
        let Some(id) = self.id.filter(|_| self.process == process_number()) else { return };
        // If it is just being sent, whoever sends it sees this.
        self.gone.store(true, Ordering::Relaxed);
        let Ok(supervisor) = SUPERVISOR.get().handle() else { return };
        let (store, principal) = (self.store.clone(), self.principal.take());
        supervisor.spawn(async move {
            // Errors are counted in the store. The job runs to its end then.
            let _ = timeout(STORE_PATIENCE, store.request_cancel(&id, principal.as_deref())).await;
        });
    }
}
