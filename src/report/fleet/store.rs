//! Requests to the store: each with a bound, tried again, and counted.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use tokio::time::{sleep, timeout};

use super::stats::Counters;
use crate::sync::count;

/// How often a request is tried.
const TRIES: u32 = 3;
/// The pause after the first attempt.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest that an attempt takes for a small object, and for a large one.
const SMALL: Duration = Duration::from_secs(3);
const LARGE: Duration = Duration::from_secs(30);
/// The longest that a listing takes which looks for old objects among any number of others. Each page may take as long as a large
/// object.
const SEARCH: Duration = Duration::from_secs(3_600);
/// How many objects a listing has.
pub(super) const MAX_LISTED: usize = 20_000;

/// The store, as the fleet uses it.
pub(super) struct Store {
    inner: Arc<dyn ObjectStore>,
    /// Whether it ignores or rejects conditions: see [`heeds_conditions`](Self::heeds_conditions).
    unconditional: AtomicBool,
    counters: Arc<Counters>,
}

/// An object in a listing.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) path: Path,
    pub(super) modified: SystemTime,
    #[cfg(feature = "console")]
    pub(super) bytes: u64,
}

/// Why the store did not do it.
#[derive(Debug, Clone)]
pub(super) struct Failure(String);

/// Whether the store heeds conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heeds {
    Yes,
    /// It ignores them, or its client says that there are none.
    No,
    /// Each request with a condition fails, and the same request without one does not.
    ItFails,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(super) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl Store {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, counters: Arc<Counters>) -> Self {
        Self { inner, unconditional: AtomicBool::new(false), counters }
    }

    /// Writes an object.
    pub(super) async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Failure> {
        let longest = if bytes.len() > 64 << 10 { LARGE } else { SMALL };
        let put = || self.inner.put(path, PutPayload::from_bytes(bytes.clone()));
        self.request(&self.counters.puts, longest, put).await.map(drop).map_err(Failure::new)
    }

    /// Writes an object unless it exists. Returns whether it did not. After an attempt whose outcome is unknown, the object
    /// may be this one. In a store without conditions, it is written in any case.
    pub(super) async fn create(&self, path: &Path, bytes: Bytes) -> Result<bool, Failure> {
        if self.unconditional.load(Relaxed) {
            return self.put(path, bytes).await.map(|()| true);
        }
        self.try_create(path, bytes).await.map_err(Failure::new)
    }

    /// Finds out, with an object at this path, whether the store heeds conditions. If it ignores them or rejects them,
    /// [`create`](Self::create) does without from then on.
    pub(super) async fn heeds_conditions(&self, path: &Path, bytes: Bytes) -> Result<Heeds, Failure> {
        let (mut heeds, mut failures) = (Heeds::No, 0);
        // It may be there already, if an earlier attempt failed after it.
        for _ in 0..2 {
            heeds = match self.try_create(path, bytes.clone()).await {
                Ok(true) | Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => Heeds::No,
                Ok(false) => Heeds::Yes,
                // A server that does not know conditions answers as if it were broken. `object_store` tries that again for
                // minutes. If the same works without a condition, and not only once, the condition is to blame.
                Err(error) => {
                    self.put(path, bytes.clone()).await.map_err(|_| Failure::new(error))?;
                    failures += 1;
                    Heeds::ItFails
                }
            };
        }
        if failures == 1 && heeds != Heeds::Yes {
            return Err(Failure::new("a request with a condition failed, and another one did not"));
        }
        self.unconditional.store(heeds != Heeds::Yes, Relaxed);
        Ok(heeds)
    }

    async fn try_create(&self, path: &Path, bytes: Bytes) -> object_store::Result<bool> {
        let put = || {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            self.inner.put_opts(path, PutPayload::from_bytes(bytes.clone()), options)
        };
        match self.request(&self.counters.puts, SMALL, put).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns an object of at most `most` bytes, if it exists.
    pub(super) async fn get(&self, path: &Path, most: u64) -> Result<Option<Bytes>, Failure> {
        let get = || async {
            let found = self.inner.get_opts(path, GetOptions::default()).await?;
            if found.meta.size > most {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        };
        match self.request(&self.counters.gets, LARGE, get).await {
            Ok(found) => Ok(found),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Failure::new(error)),
        }
    }

    /// Returns when an object was written last, by the store's clock, if it exists.
    pub(super) async fn modified(&self, path: &Path) -> Result<Option<SystemTime>, Failure> {
        match self.request(&self.counters.gets, SMALL, || self.inner.head(path)).await {
            Ok(meta) => Ok(Some(meta.last_modified.into())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Failure::new(error)),
        }
    }

    /// Returns all objects in a folder and below, up to [`MAX_LISTED`].
    pub(super) async fn list(&self, folder: &Path) -> Result<Vec<Listed>, Failure> {
        self.list_some(folder, MAX_LISTED, LARGE, |_| true).await
    }

    /// Returns the same, but only objects that were written before that time.
    pub(super) async fn list_older(&self, folder: &Path, time: SystemTime) -> Result<Vec<Listed>, Failure> {
        self.list_some(folder, MAX_LISTED, SEARCH, |modified| modified < time).await
    }

    /// Returns whether an object in a folder or below was written at that time or later, however many there are.
    pub(super) async fn has_newer(&self, folder: &Path, time: SystemTime) -> Result<bool, Failure> {
        Ok(!self.list_some(folder, 1, SEARCH, |modified| modified >= time).await?.is_empty())
    }

    async fn list_some(
        &self,
        folder: &Path,
        most: usize,
        longest: Duration,
        is_wanted: impl Fn(SystemTime) -> bool,
    ) -> Result<Vec<Listed>, Failure> {
        let list = || async {
            let (mut found, mut stream) = (Vec::new(), self.inner.list(Some(folder)));
            while found.len() < most {
                let next = timeout(LARGE, poll_fn(|context| stream.as_mut().poll_next(context))).await;
                match next.map_err(|_| generic("it did not answer in time"))? {
                    None => break,
                    Some(Ok(ObjectMeta {
                        location,
                        last_modified,
                        #[cfg(feature = "console")]
                        size,
                        ..
                    })) => {
                        let modified = SystemTime::from(last_modified);
                        if is_wanted(modified) {
                            found.push(Listed {
                                path: location,
                                modified,
                                #[cfg(feature = "console")]
                                bytes: size,
                            });
                        }
                    }
                    // Somebody else removed it meanwhile.
                    Some(Err(Error::NotFound { .. })) => {}
                    Some(Err(error)) => return Err(error),
                }
            }
            Ok(found)
        };
        self.request(&self.counters.lists, longest, list).await.map_err(Failure::new)
    }

    /// Returns the names of the folders in a folder.
    pub(super) async fn folders(&self, folder: &Path) -> Result<Vec<String>, Failure> {
        let list = || self.inner.list_with_delimiter(Some(folder));
        let found = self.request(&self.counters.lists, LARGE, list).await.map_err(Failure::new)?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// Removes an object, if it exists.
    pub(super) async fn remove(&self, path: &Path) -> Result<(), Failure> {
        match self.request(&self.counters.removals, SMALL, || self.inner.delete(path)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Failure::new(error)),
        }
    }

    /// Does a request. Tries it again if that may help.
    async fn request<T, F>(
        &self,
        counter: &AtomicU64,
        longest: Duration,
        mut start: impl FnMut() -> F,
    ) -> object_store::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut pause = PAUSE;
        for attempt in 1.. {
            count(counter);
            let outcome = match timeout(longest, guarded(start())).await {
                Ok(outcome) => outcome,
                Err(_) => Err(generic("it did not answer in time")),
            };
            match outcome {
                Ok(done) => return Ok(done),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    count(&self.counters.failed_requests);
                    if attempt >= TRIES {
                        return Err(error);
                    }
                }
            }
            // From half to all of it, so that many instances do not try again at the same time.
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause *= 2;
        }
        Err(generic("it was not tried"))
    }
}

/// Returns whether trying again is of no use.
fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::InvalidPath { .. }
    )
}

fn generic(why: &'static str) -> Error {
    Error::Generic { store: "fleet", source: why.into() }
}

/// Runs other people's code. A panic becomes an error.
async fn guarded<T>(work: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    let mut work = pin!(work);
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(generic("the object store panicked"))))
    })
    .await
}
