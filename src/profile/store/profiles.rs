//! The store.

use std::cmp::Reverse;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::codec;
use super::item::{Entry, Kind, Read, age};
use super::memory::Memory;
use super::sweep::{Bounds, Schedule};
use super::tally::{StoreStats, Tally};
use super::{Status, StoreError, Summary};
use crate::capture::PerProcess;
use crate::log::Clamp;
use crate::profile::Profile;
use crate::profile::id::Id;
#[cfg(heeler_remote)]
use crate::profile::seal::Secret;

/// A status or a summary longer than this is not read. Both have some hundred bytes.
const MAX_SMALL: u64 = 256 << 10;

/// How many requests of one store run at the same time.
const AT_ONCE: usize = 16;

/// The most summaries that are read for one index.
const MAX_READ: usize = 1_000;

/// The most ids that one sweep removes. The next one goes on.
const MAX_REMOVED: usize = 100;

/// Keeps profiles: in memory, or with the feature `object-store` in a directory or bucket that many instances share.
///
/// By default it keeps 100 profiles, 64 MiB of them (compressed), each for an hour. The oldest are removed first. It is
/// cheap to clone, and clones share what they keep.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use heeler::profile::ProfileStore;
///
/// let store = ProfileStore::memory().max_count(20).ttl(Duration::from_secs(10 * 60));
/// assert_eq!(store.stats().stored, 0);
/// ```
#[derive(Clone)]
pub struct ProfileStore {
    pub(super) bounds: Bounds,
    pub(super) shared: Arc<Shared>,
    /// What seals all that it keeps.
    #[cfg(heeler_remote)]
    pub(super) secret: Option<Secret>,
}

// The content is valid after every single statement, even after a panic.
impl std::panic::UnwindSafe for ProfileStore {}
impl std::panic::RefUnwindSafe for ProfileStore {}

pub(super) struct Shared {
    pub(super) backend: Backend,
    of_process: PerProcess<OfProcess>,
}

/// What each process knows for itself.
#[derive(Default)]
struct OfProcess {
    tally: Tally,
    schedule: Schedule,
}

impl Shared {
    fn tally(&self) -> &Tally {
        &self.of_process.get().tally
    }
}

impl Default for ProfileStore {
    /// Returns [`memory`](Self::memory).
    fn default() -> Self {
        Self::memory()
    }
}

impl ProfileStore {
    /// Keeps profiles in this process, as long as it lives. A request that reaches another instance, or a child of `fork`, finds
    /// nothing.
    #[must_use]
    pub fn memory() -> Self {
        Self::of(Backend::Memory(Memory::default()))
    }

    /// Keeps profiles under `prefix` in a directory, a bucket, or anything else that the [`object_store`] crate
    /// supports. Instances with the same one answer for each other, and a profile survives the process.
    ///
    /// heeler ignores other objects there. Objects are named by the ids of profiles, and hold the URLs, headers and
    /// beginnings of responses of profiled requests. Everybody who can read the store can read those. Bounds hold for
    /// all instances together. heeler enforces them when something is stored, at most once a minute, or earlier if a
    /// tenth of [`max_count`] has been added. So there may be a tenth more for a while. A profile that is too old is no
    /// longer returned, but stays until somebody profiles again. Time limits are those of the object store.
    ///
    /// [`max_count`]: Self::max_count
    ///
    /// # Example
    ///
    /// ```
    /// use std::sync::Arc;
    /// use heeler::profile::ProfileStore;
    /// use object_store::local::LocalFileSystem;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let shared = directory.path();
    /// // let shared = "/var/lib/my-service";
    /// let directory = LocalFileSystem::new_with_prefix(shared)?;
    /// let store = ProfileStore::object_store(Arc::new(directory), "profiles").max_count(1_000).max_bytes(1 << 30);
    /// # let _ = store;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "object-store")]
    #[cfg_attr(docsrs, doc(cfg(feature = "object-store")))]
    #[must_use]
    pub fn object_store(store: Arc<dyn object_store::ObjectStore>, prefix: &str) -> Self {
        Self::of(Backend::Objects(super::objects::Objects::new(store, prefix)))
    }

    fn of(backend: Backend) -> Self {
        let shared = Shared { backend, of_process: PerProcess::new(OfProcess::default) };
        Self {
            bounds: Bounds::default(),
            shared: Arc::new(shared),
            #[cfg(heeler_remote)]
            secret: None,
        }
    }

    /// Sets how many profiles are kept. Defaults to 100. The oldest are removed first.
    ///
    /// Zero counts as one, and the log says so once.
    #[must_use]
    pub fn max_count(mut self, count: usize) -> Self {
        static CLAMP: Clamp = Clamp::new("ProfileStore::max_count");
        self.bounds.count = CLAMP.at_least(count, 1);
        self
    }

    /// Sets how many bytes of profiles are kept. Defaults to 64 MiB (67,108,864). A single profile that is larger is not kept.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.bytes = bytes;
        self
    }

    /// Sets how long a profile is kept. Defaults to an hour.
    ///
    /// Less than a minute counts as a minute, because a page needs that long to fetch it. The log says so once.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        static CLAMP: Clamp = Clamp::new("ProfileStore::ttl");
        self.bounds.ttl = CLAMP.at_least(ttl, Duration::from_secs(60));
        self
    }

    /// Returns what it has done in this process so far.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.shared.tally().stats()
    }

    /// Returns the address of what its clones have in common.
    #[cfg(feature = "console")]
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Writes how far a job is.
    pub(crate) async fn put_status(&self, status: &Status) -> Result<(), StoreError> {
        self.put_small(Kind::Status, status.id, status).await?;
        self.sweep(false).await;
        Ok(())
    }

    /// Returns the status of the job, if it belongs to `principal`. A job that no longer makes progress counts as lost.
    pub(crate) async fn status(&self, id: &Id, principal: Option<&str>) -> Result<Option<Status>, StoreError> {
        let Some((written, modified)) = self.written_status(id).await? else { return Ok(None) };
        if written.principal.as_deref() != principal {
            return Ok(None);
        }
        // Compares the clocks of the writer and of the store, so that one wrong clock is not enough.
        let silent = age(written.updated_at.max(modified));
        let mut status = written.clone();
        status.silent_for(silent);
        #[cfg(heeler_remote)]
        let status = self.conclude(written, status, silent).await?;
        Ok(Some(status))
    }

    /// Returns the status of the job as it was written, whoever it belongs to, and when that was by the store's clock.
    pub(super) async fn written_status(&self, id: &Id) -> Result<Option<(Status, SystemTime)>, StoreError> {
        let Some((status, read)) = self.get_small::<Status>(Kind::Status, *id).await? else { return Ok(None) };
        if status.id != *id {
            return Err(self.counted(StoreError::corrupt(Kind::Status, *id, "it is another one")));
        }
        Ok(Some((status, read.modified)))
    }

    /// Keeps `profile` for `principal`.
    pub(crate) async fn put(&self, profile: Arc<Profile>, principal: Option<&str>) -> Result<(), StoreError> {
        let Ok(id) = profile.id.parse::<Id>() else {
            return Err(self.counted(StoreError::unavailable("keep a profile", "its id is none")));
        };
        let summary = Summary::new(id, &profile);
        let owner = principal.map(str::to_owned);
        let this = self.clone();
        let bytes = aside(move || {
            let bytes = codec::encode(&profile, owner.as_deref())?;
            this.closed(Kind::Profile, id, bytes)
        });
        let bytes = bytes.await;
        let bytes = bytes.map_err(|error| self.counted(error))?;
        let length = bytes.len() as u64;
        if length > self.bounds.bytes {
            return Err(self.counted(StoreError::TooLarge { bytes: length, most: self.bounds.bytes }));
        }
        let put = self.shared.backend.put(Kind::Profile, id, bytes).await;
        put.map_err(|error| self.counted(error))?;
        // After the profile, so that everything in the index exists.
        self.put_small(Kind::Summary, id, &Indexed { principal: principal.map(str::to_owned), summary }).await?;
        self.shared.tally().stored.fetch_add(1, Relaxed);
        self.sweep(true).await;
        Ok(())
    }

    /// Returns the profile, if it exists and belongs to `principal`.
    pub(crate) async fn get(&self, id: &Id, principal: Option<&str>) -> Result<Option<Profile>, StoreError> {
        let (id, owner) = (*id, principal.map(str::to_owned));
        let read = self.shared.backend.get(Kind::Profile, id, self.bounds.bytes).await;
        let read = read.map_err(|error| self.counted(error))?;
        let Some(Read { bytes, .. }) = read.filter(|read| !self.bounds.is_expired(read.modified)) else {
            return Ok(None);
        };
        let this = self.clone();
        let profile = aside(move || {
            let bytes = this.opened(Kind::Profile, id, bytes)?;
            codec::decode(id, &bytes, owner.as_deref())
        });
        profile.await.map_err(|error| self.counted(error))
    }

    /// Returns the index of `principal`'s profiles: at most `limit` of those that match `query`, the latest first.
    pub(crate) async fn list(
        &self,
        principal: Option<&str>,
        query: &str,
        limit: usize,
    ) -> Result<Vec<Summary>, StoreError> {
        let entries = self.shared.backend.list(Kind::Summary).await;
        let mut entries = entries.map_err(|error| self.counted(error))?;
        entries.retain(|entry| !self.bounds.is_expired(entry.modified));
        entries.sort_unstable_by_key(|entry| Reverse((entry.modified, entry.id)));
        entries.truncate(MAX_READ);
        let mut found = Vec::new();
        for some in entries.chunks(AT_ONCE) {
            let reads = some.iter().map(|entry| self.get_small::<Indexed>(Kind::Summary, entry.id));
            for (entry, read) in some.iter().zip(all(reads).await) {
                match read {
                    Ok(Some((indexed, _))) => {
                        let is_for = indexed.summary.is_for(principal, indexed.principal.as_deref());
                        let shown = is_for && indexed.summary.id == entry.id;
                        found.extend(Some(indexed.summary).filter(|summary| shown && summary.matches(query)));
                    }
                    // Removed meanwhile, or already counted. In either case the others are still shown.
                    Ok(None) | Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if found.len() >= limit {
                break;
            }
        }
        found.sort_by_key(|summary| Reverse((summary.started_at, summary.id)));
        found.truncate(limit);
        Ok(found)
    }

    /// Asks the instance that runs the job to stop, if it belongs to `principal` and is running. Returns whether that
    /// was so.
    pub(crate) async fn request_cancel(&self, id: &Id, principal: Option<&str>) -> Result<bool, StoreError> {
        match self.status(id, principal).await? {
            Some(status) if !status.phase.is_over() => {
                #[cfg(not(heeler_remote))]
                let is_cancelled = false;
                #[cfg(heeler_remote)]
                let mut is_cancelled = false;
                #[cfg(heeler_remote)]
                if let super::Phase::Sent { again } = status.phase {
                    let taken = self.take_back(status, super::Phase::Cancelled, &super::someone()?).await?;
                    is_cancelled = taken == super::Claim::Mine;
                    // If it may have run before, its worker may only be cut off, and must stop when it is back.
                    if is_cancelled && !again {
                        return Ok(true);
                    }
                }
                let put = self.shared.backend.put(Kind::Cancel, *id, Bytes::new()).await;
                match put.map_err(|error| self.counted(error)) {
                    Err(error) if !is_cancelled => Err(error),
                    Ok(()) | Err(_) => Ok(true),
                }
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Returns whether somebody has asked the job to stop.
    pub(crate) async fn is_cancelled(&self, id: &Id) -> Result<bool, StoreError> {
        self.shared.backend.exists(Kind::Cancel, *id).await.map_err(|error| self.counted(error))
    }

    async fn put_small(&self, kind: Kind, id: Id, what: &impl Serialize) -> Result<(), StoreError> {
        let json = serde_json::to_vec(what).map_err(|error| StoreError::unavailable("write JSON", error));
        let put = match json.and_then(|json| self.closed(kind, id, json.into())) {
            Ok(bytes) => self.shared.backend.put(kind, id, bytes).await,
            Err(error) => Err(error),
        };
        put.map_err(|error| self.counted(error))
    }

    async fn get_small<T: DeserializeOwned>(&self, kind: Kind, id: Id) -> Result<Option<(T, Read)>, StoreError> {
        let read = self.shared.backend.get(kind, id, MAX_SMALL).await.map_err(|error| self.counted(error))?;
        let Some(read) = read.filter(|read| !self.bounds.is_expired(read.modified)) else { return Ok(None) };
        let json = self.opened(kind, id, read.bytes.clone()).map_err(|error| self.counted(error))?;
        match serde_json::from_slice(&json) {
            Ok(what) => Ok(Some((what, read))),
            Err(error) => Err(self.counted(StoreError::corrupt(kind, id, codec::place(&error)))),
        }
    }

    /// Removes what is too old or too much, after something was put. Errors are counted, and the next sweep tries
    /// again.
    async fn sweep(&self, profile: bool) {
        let Shared { backend, of_process } = &*self.shared;
        let OfProcess { tally, schedule } = of_process.get();
        if !backend.is_near() && !schedule.is_due(profile, &self.bounds) {
            return;
        }
        let mut entries: Vec<Entry> = Vec::new();
        for kind in Kind::ALL {
            match backend.list(*kind).await {
                Ok(some) => entries.extend(some),
                Err(error) => return tally.failed(&error),
            }
        }
        let mut surplus = self.bounds.surplus(entries);
        if !backend.is_near() && surplus.len() > MAX_REMOVED {
            surplus.truncate(MAX_REMOVED);
            schedule.again();
        }
        for some in surplus.chunks(AT_ONCE) {
            for removed in all(some.iter().map(|id| self.remove(*id))).await {
                match removed {
                    Ok(()) => drop(tally.removed.fetch_add(1, Relaxed)),
                    Err(error) => tally.failed(&error),
                }
            }
        }
    }

    async fn remove(&self, id: Id) -> Result<(), StoreError> {
        for kind in Kind::ALL {
            self.shared.backend.remove(*kind, id).await?;
        }
        Ok(())
    }

    /// Returns the bytes as they are kept.
    #[cfg(not(heeler_remote))]
    #[expect(clippy::unused_self, reason = "it may have a secret with other features")]
    fn closed(&self, _: Kind, _: Id, bytes: Bytes) -> Result<Bytes, StoreError> {
        Ok(bytes)
    }

    /// Returns the bytes as they were before.
    #[cfg(not(heeler_remote))]
    #[expect(clippy::unused_self, reason = "it may have a secret with other features")]
    fn opened(&self, _: Kind, _: Id, bytes: Bytes) -> Result<Bytes, StoreError> {
        Ok(bytes)
    }

    pub(super) fn counted(&self, error: StoreError) -> StoreError {
        self.shared.tally().failed(&error);
        error
    }
}

impl fmt::Debug for ProfileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ProfileStore");
        debug.field("backend", &self.shared.backend.name()).field("bounds", &self.bounds).field("stats", &self.stats());
        debug.finish()
    }
}

/// A summary, and its owner.
#[derive(Serialize, Deserialize)]
struct Indexed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    summary: Summary,
}

/// Does `work`, which may take long, where nobody else has to wait for it.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            let done = runtime.spawn_blocking(work).await;
            done.unwrap_or_else(|error| Err(StoreError::unavailable("do it now", error)))
        }
        Err(_) => work(),
    }
}

/// Returns the results of all `futures`, which run at the same time. For a few futures.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    type Running<F, T> = (Option<Pin<Box<F>>>, Option<T>);
    let mut running: Vec<Running<_, T>> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (running, result) in &mut running {
            match running.as_mut().map(|future| future.as_mut().poll(cx)) {
                Some(Poll::Ready(ready)) => (*running, *result) = (None, Some(ready)),
                Some(Poll::Pending) => pending = true,
                None => {}
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
