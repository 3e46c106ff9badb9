//! Finds a profile that somebody asks for by its id.

use std::sync::Arc;
use std::time::Duration;

use crate::authorize::Access;
use crate::profile::Profile;
use crate::profile::id::Id;
use crate::profile::layer::Config;
use crate::profile::store::{Phase, Status, StoreError};
use crate::profile::supervisor::within;

/// What exists of a profile.
pub(super) enum Found {
    Done(Arc<Profile>),
    /// It isn't done yet, or there will be none.
    Status(Box<Status>),
}

/// How long a caller waits for a store. Nobody is kept waiting by one that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for an answer of the store, but not for long.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    within(PATIENCE, work).await.unwrap_or_else(|| Err(StoreError::late()))
}

/// Returns what exists, if it belongs to the caller. For anybody else it does not exist.
pub(super) async fn find(config: &Config, access: &Access, id: Id) -> Result<Option<Found>, StoreError> {
    in_time(look(config, access, id)).await
}

async fn look(config: &Config, access: &Access, id: Id) -> Result<Option<Found>, StoreError> {
    let principal = access.principal();
    if let Some(job) = config.jobs.get(id) {
        if job.principal.as_deref() != principal {
            return Ok(None);
        }
        let status = job.status().await;
        // A finished profile is in the store, if it was kept.
        if status.phase != Phase::Done {
            return Ok(Some(Found::Status(Box::new(status))));
        }
    }
    // It may finish between the two lookups, so there are two rounds.
    for _ in 0..2 {
        if let Some(profile) = config.store.get(&id, principal).await? {
            return Ok(Some(Found::Done(Arc::new(profile))));
        }
        match config.store.status(&id, principal).await? {
            Some(status) if status.phase == Phase::Done => {}
            status => return Ok(status.map(|status| Found::Status(Box::new(status)))),
        }
    }
    // It was done, and is no longer kept.
    Ok(None)
}
