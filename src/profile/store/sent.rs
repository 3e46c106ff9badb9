//! What a store keeps of jobs that are sent to another machine: the sealed request, and who has claimed it.
//!
//! A claim is an object `claims/<id>/<attempt>` that only one can create. Whoever ends a job creates those of all attempts that
//! are left. They stay for a day, when the request has long been removed, so that a request that somebody has copied and puts
//! back does not run again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::backend::Backend;
use super::item::{Kind, age};
use super::objects::{Objects, is_unsupported};
use super::profiles::{ProfileStore, aside};
use super::{Phase, Status, StoreError};
use crate::profile::id::Id;
use crate::profile::seal::{Opened, Place, Secret};

/// How long a claim is kept. A request that is older than the longest wait is refused for its age.
const CLAIMS_KEPT: Duration = Duration::from_secs(25 * 60 * 60);

/// Attempts to run a request: a second one only if the worker of the first is gone, and the request may run twice.
pub(crate) const ATTEMPTS: u32 = 2;

/// Who has the claims of attempts that there will not be.
const NOBODY: &str = "nobody";

/// Who claims a job that no worker has taken in time.
const ANYBODY: &str = "anybody";

/// A sealed request may have a body of some megabytes, in Base64.
const MAX_REQUEST: u64 = 64 << 20;

/// Whose a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The caller's.
    Mine,
    /// Somebody else's.
    Taken,
}

impl ProfileStore {
    /// Returns a store that seals what it keeps. It does not read what is not sealed.
    pub(crate) fn sealed(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Returns whether nobody but this process can read it.
    pub(crate) fn is_private(&self) -> bool {
        self.shared.backend.is_near()
    }

    /// Returns for how long it keeps what is in it.
    pub(crate) const fn keeps_for(&self) -> Duration {
        self.bounds.ttl
    }

    /// Tries whether the store lets only one caller create an object.
    pub(crate) async fn honours_conditions(&self) -> Result<bool, StoreError> {
        let id = Id::random().map_err(|error| StoreError::unavailable("try itself", error.to_string()))?;
        let first = match self.claim(id, 1, "first").await {
            Err(error) if is_unsupported(&error) => return Ok(false),
            first => first?,
        };
        let second = self.claim(id, 1, "second").await?;
        Ok(first == Claim::Mine && second != Claim::Mine)
    }

    /// Tries whether the store takes the object of a claim without a condition.
    pub(crate) async fn takes_claims(&self) -> Result<(), StoreError> {
        let id = Id::random().map_err(|error| StoreError::unavailable("try itself", error.to_string()))?;
        let put = self.objects()?.put_claim(id, 1, Bytes::from_static(b"first")).await;
        put.map_err(|error| self.counted(error))
    }

    pub(crate) async fn put_request(&self, id: Id, request: Vec<u8>) -> Result<(), StoreError> {
        let this = self.clone();
        let put = match aside(move || this.closed(Kind::Request, id, request.into())).await {
            Ok(bytes) => self.shared.backend.put(Kind::Request, id, bytes).await,
            Err(error) => Err(error),
        };
        put.map_err(|error| self.counted(error))
    }

    /// Returns the request, if it is still there. The time is that of its sealing.
    pub(crate) async fn request(&self, id: Id) -> Result<Option<(Vec<u8>, SystemTime)>, StoreError> {
        let read = self.shared.backend.get(Kind::Request, id, MAX_REQUEST).await;
        let read = read.map_err(|error| self.counted(error))?;
        let Some(read) = read else { return Ok(None) };
        let opened = self.unsealed(Kind::Request, id, &read.bytes).map_err(|error| self.counted(error))?;
        Ok(Some((opened.bytes, opened.sealed_at)))
    }

    pub(crate) async fn remove_request(&self, id: Id) -> Result<(), StoreError> {
        self.shared.backend.remove(Kind::Request, id).await.map_err(|error| self.counted(error))
    }

    /// Ends a job that nobody runs: claims it, so that nobody will. Returns whose the claim is. After an error it can be called
    /// again with the same `who`, which must name no one else.
    pub(crate) async fn take_back(&self, mut status: Status, phase: Phase, who: &str) -> Result<Claim, StoreError> {
        let attempt = if status.phase == (Phase::Sent { again: true }) { 2 } else { 1 };
        let claim = self.claim(status.id, attempt, who).await?;
        if claim == Claim::Mine {
            (status.phase, status.updated_at) = (phase, SystemTime::now());
            self.end(&status).await?;
        }
        Ok(claim)
    }

    /// Writes down how a job has ended that was sent, and sees to it that its request does not run any more.
    pub(crate) async fn end(&self, ended: &Status) -> Result<(), StoreError> {
        self.close(ended.id).await?;
        self.put_status(ended).await?;
        self.remove_request(ended.id).await
    }

    /// Claims the attempts that are left, so that nobody runs the request again.
    pub(crate) async fn close(&self, id: Id) -> Result<(), StoreError> {
        for attempt in 1..=ATTEMPTS {
            self.claim(id, attempt, NOBODY).await?;
        }
        Ok(())
    }

    /// Makes true what silence says about a job that was sent: `concluded` is over, because no worker has taken it. Returns what
    /// has become of it.
    pub(super) async fn conclude(
        &self,
        written: Status,
        concluded: Status,
        silent: Duration,
    ) -> Result<Status, StoreError> {
        let (Phase::Sent { .. }, true) = (&written.phase, concluded.phase.is_over()) else { return Ok(concluded) };
        // Whoever looks concludes the same, and may end what another one has begun.
        match self.take_back(written.clone(), concluded.phase.clone(), ANYBODY).await? {
            Claim::Mine => Ok(concluded),
            // Just now. A worker that is gone before it could say so is lost like any other.
            Claim::Taken => {
                let lost = written.sent.is_some_and(|sent| sent.is_lost(silent));
                Ok(if lost { Status { phase: Phase::Lost, ..written } } else { written })
            }
        }
    }

    /// Returns how many requests wait for a worker, or are with one. Older ones are left over.
    pub(crate) async fn count_requests(&self, oldest: Duration) -> Result<usize, StoreError> {
        let requests = self.shared.backend.list(Kind::Request).await.map_err(|error| self.counted(error))?;
        Ok(requests.iter().filter(|entry| age(entry.modified) < oldest).count())
    }

    /// Returns how long ago a request was put, if it is there.
    pub(crate) async fn age_of_request(&self, id: Id) -> Result<Option<Duration>, StoreError> {
        let requests = self.shared.backend.list(Kind::Request).await.map_err(|error| self.counted(error))?;
        Ok(requests.iter().find(|entry| entry.id == id).map(|entry| age(entry.modified)))
    }

    /// Removes requests that nobody will run, because they are older than this, and claims that nobody needs any more.
    pub(crate) async fn tidy(&self, oldest: Duration) -> Result<(), StoreError> {
        let requests = self.shared.backend.list(Kind::Request).await.map_err(|error| self.counted(error))?;
        for entry in requests.into_iter().filter(|entry| age(entry.modified) >= oldest) {
            self.remove_request(entry.id).await?;
        }
        self.objects()?.remove_claims(CLAIMS_KEPT).await.map_err(|error| self.counted(error))
    }

    /// Claims an attempt to run a job. Whoever has claimed it gets it again: `who` must name no one else.
    pub(crate) async fn claim(&self, id: Id, attempt: u32, who: &str) -> Result<Claim, StoreError> {
        let taken = self.objects()?.create(id, attempt, Bytes::copy_from_slice(who.as_bytes())).await;
        let taken = taken.map_err(|error| self.counted(error))?;
        Ok(if taken { Claim::Taken } else { Claim::Mine })
    }

    /// Returns the status of a job as it was written, whoever has asked for it. For the worker that is to run it.
    pub(crate) async fn sent_status(&self, id: &Id) -> Result<Option<Status>, StoreError> {
        self.written_status(id).await.map(|written| written.map(|(status, _)| status))
    }

    /// Returns whether both keep their profiles in the same place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn objects(&self) -> Result<&Objects, StoreError> {
        match &self.shared.backend {
            Backend::Objects(objects) => Ok(objects),
            Backend::Memory(_) => Err(StoreError::unavailable("be shared", "it is this process's memory")),
        }
    }

    /// Returns the bytes as they are kept.
    pub(super) fn closed(&self, kind: Kind, id: Id, bytes: Bytes) -> Result<Bytes, StoreError> {
        let Some(secret) = &self.secret else { return Ok(bytes) };
        let place = Place { kind: kind.name(), id: id.to_string() };
        let sealed = secret.seal(&place, &bytes);
        sealed.map(Bytes::from).map_err(|error| StoreError::unavailable("seal what it keeps", error))
    }

    /// Returns the bytes as they were before.
    pub(super) fn opened(&self, kind: Kind, id: Id, bytes: Bytes) -> Result<Bytes, StoreError> {
        if self.secret.is_none() {
            return Ok(bytes);
        }
        self.unsealed(kind, id, &bytes).map(|opened| opened.bytes.into())
    }

    fn unsealed(&self, kind: Kind, id: Id, bytes: &[u8]) -> Result<Opened, StoreError> {
        let Some(secret) = &self.secret else {
            return Err(StoreError::corrupt(kind, id, "this store has no secret"));
        };
        let place = Place { kind: kind.name(), id: id.to_string() };
        secret.open(&place, bytes).map_err(|error| StoreError::corrupt(kind, id, error))
    }
}

/// Returns a name that nobody else has.
pub(crate) fn someone() -> Result<String, StoreError> {
    let id = Id::random().map_err(|error| StoreError::unavailable("claim a job", error.to_string()))?;
    Ok(id.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use object_store::local::LocalFileSystem;

    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// Makes a file that old.
    fn age_file(path: &Path, by: Duration) {
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - by).unwrap();
    }

    fn claim_path(folder: &Path, id: Id, attempt: u32) -> std::path::PathBuf {
        folder.join(format!("p/claims/{id}/{attempt}"))
    }

    /// Guards: a job whose worker may only be cut off is cancelled there, too.
    #[tokio::test]
    async fn a_worker_that_comes_back_hears_of_a_cancellation() {
        use crate::profile::store::status::SentJob;
        let folder = tempfile::tempdir().unwrap();
        let bucket = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let store = ProfileStore::object_store(bucket, "p");
        for (silence, expected) in [(0, None), (40, Some(Phase::Cancelled))] {
            let (id, silence) = (Id::random().unwrap(), Duration::from_secs(silence));
            let written = SystemTime::now() - silence;
            let running = Status {
                id,
                principal: None,
                phase: Phase::Running,
                method: "GET".to_owned(),
                uri: "/report".to_owned(),
                started_at: written,
                updated_at: written,
                elapsed_ms: 0,
                polls: 0,
                samples: 0,
                place: None,
                sent: Some(SentJob { waits_ms: 900_000, lost_after_ms: 30_000, again: true }),
            };
            assert_eq!(store.claim(id, 1, "a worker").await.unwrap(), Claim::Mine);
            store.put_status(&running).await.unwrap();
            age_file(&folder.path().join(format!("p/statuses/{id}.json")), silence);
            assert!(store.request_cancel(&id, None).await.unwrap());
            assert!(store.is_cancelled(&id).await.unwrap(), "{silence:?}");
            let phase = store.status(&id, None).await.unwrap().unwrap().phase;
            assert_eq!(phase, expected.unwrap_or(Phase::Running));
        }
    }

    /// Guards: a claim stays for longer than any request may wait, and is removed afterwards. So is a request that nobody will
    /// run.
    #[tokio::test]
    async fn what_nobody_needs_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let secret = Secret::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let store = ProfileStore::object_store(bucket, "p").sealed(secret);
        let [old, new] = [Id::random().unwrap(), Id::random().unwrap()];
        for id in [old, new] {
            assert_eq!(store.claim(id, 1, "one").await.unwrap(), Claim::Mine);
            assert_eq!(store.claim(id, 1, "other").await.unwrap(), Claim::Taken);
            // Its own, tried again.
            assert_eq!(store.claim(id, 1, "one").await.unwrap(), Claim::Mine);
            store.put_request(id, b"GET /".to_vec()).await.unwrap();
        }
        age_file(&claim_path(folder.path(), old, 1), 26 * HOUR);
        age_file(&claim_path(folder.path(), new, 1), 24 * HOUR);
        age_file(&folder.path().join(format!("p/requests/{old}.sealed")), 2 * HOUR);
        assert_eq!(store.count_requests(HOUR).await.unwrap(), 1);
        store.tidy(HOUR).await.unwrap();
        assert!(!claim_path(folder.path(), old, 1).exists() && claim_path(folder.path(), new, 1).exists());
        assert!(store.request(old).await.unwrap().is_none());
        assert_eq!(store.request(new).await.unwrap().unwrap().0, b"GET /");
    }
}
