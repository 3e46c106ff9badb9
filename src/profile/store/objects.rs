//! Files in a directory or bucket, for many instances.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt as _};

use super::StoreError;
use super::item::{Entry, Kind, Read};
use crate::profile::id::Id;

/// How many objects of a kind one listing includes. A sweep gets to the others when these are gone.
const MAX_LISTED: usize = 10_000;

/// Objects `<prefix>/<kind>/<id>`.
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Objects {
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, prefix: Path::from(prefix) }
    }

    fn folder(&self, kind: Kind) -> Path {
        self.prefix.clone().join(kind.place().0)
    }

    fn path(&self, kind: Kind, id: Id) -> Path {
        self.folder(kind).join(format!("{id}{}", kind.place().1))
    }

    pub(super) async fn put(&self, kind: Kind, id: Id, bytes: Bytes) -> Result<(), StoreError> {
        guarded("write", self.store.put(&self.path(kind, id), bytes.into())).await.map(drop)
    }

    /// Returns `None` if there is no such object. An object of more than `most` bytes is not read.
    pub(super) async fn get(&self, kind: Kind, id: Id, most: u64) -> Result<Option<Read>, StoreError> {
        let path = self.path(kind, id);
        let read = async {
            let found = self.store.get(&path).await?;
            if found.meta.size > most {
                return Ok(Err(found.meta.size));
            }
            let modified = modified(&found.meta);
            Ok(Ok(Read { bytes: found.bytes().await?, modified }))
        };
        match unless_missing(guarded("read", read).await)? {
            None => Ok(None),
            Some(Ok(read)) => Ok(Some(read)),
            Some(Err(bytes)) => {
                Err(StoreError::corrupt(kind, id, format_args!("it has {bytes} bytes, but at most {most} are allowed")))
            }
        }
    }

    pub(super) async fn exists(&self, kind: Kind, id: Id) -> Result<bool, StoreError> {
        let path = self.path(kind, id);
        unless_missing(guarded("look", self.store.head(&path)).await).map(|found| found.is_some())
    }

    pub(super) async fn remove(&self, kind: Kind, id: Id) -> Result<(), StoreError> {
        let path = self.path(kind, id);
        unless_missing(guarded("remove", self.store.delete(&path)).await).map(drop)
    }

    /// Creates the object of a claim, unless there is one. Returns whether somebody else's is there.
    ///
    /// If the store has tried twice, its second try may find what the first one wrote. So what is there decides.
    #[cfg(heeler_remote)]
    pub(super) async fn create(&self, id: Id, attempt: u32, bytes: Bytes) -> Result<bool, StoreError> {
        let path = self.claim(id, attempt);
        let create = object_store::PutMode::Create.into();
        match guarded("write", self.store.put_opts(&path, bytes.clone().into(), create)).await {
            Ok(_) => return Ok(false),
            Err(error)
                if is(&error, |error| matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. })) => {}
            Err(error) => return Err(error),
        }
        let read = async { self.store.get(&path).await?.bytes().await };
        Ok(guarded("read", read).await? != bytes)
    }

    /// Removes claims that are older than this.
    #[cfg(heeler_remote)]
    pub(super) async fn remove_claims(&self, older: std::time::Duration) -> Result<(), StoreError> {
        let remove = async {
            let mut found = self.store.list(Some(&self.claims()));
            let mut old = Vec::new();
            while let Some(meta) = poll_fn(|cx| found.as_mut().poll_next(cx)).await {
                let meta = meta?;
                if super::item::age(modified(&meta)) >= older {
                    old.push(meta.location);
                }
                if old.len() == MAX_LISTED {
                    break;
                }
            }
            for path in old {
                match self.store.delete(&path).await {
                    Ok(()) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        guarded("remove", remove).await
    }

    /// Writes the object of a claim, whether or not there is one.
    #[cfg(heeler_remote)]
    pub(super) async fn put_claim(&self, id: Id, attempt: u32, bytes: Bytes) -> Result<(), StoreError> {
        guarded("write", self.store.put(&self.claim(id, attempt), bytes.into())).await.map(drop)
    }

    #[cfg(heeler_remote)]
    fn claim(&self, id: Id, attempt: u32) -> Path {
        self.claims().join(id.to_string()).join(attempt.to_string())
    }

    #[cfg(heeler_remote)]
    fn claims(&self) -> Path {
        self.prefix.clone().join("claims")
    }

    pub(super) async fn list(&self, kind: Kind) -> Result<Vec<Entry>, StoreError> {
        let folder = self.folder(kind);
        let list = async {
            let mut entries = Vec::new();
            let mut found = self.store.list(Some(&folder));
            while entries.len() < MAX_LISTED {
                let Some(meta) = poll_fn(|cx| found.as_mut().poll_next(cx)).await else { break };
                match meta {
                    // Ignores other people's files.
                    Ok(meta) => entries.extend(entry(kind, &meta)),
                    // Somebody else removed it meanwhile.
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(entries)
        };
        guarded("list", list).await
    }
}

fn modified(meta: &ObjectMeta) -> SystemTime {
    meta.last_modified.into()
}

fn entry(kind: Kind, meta: &ObjectMeta) -> Option<Entry> {
    let id = meta.location.filename()?.strip_suffix(kind.place().1)?.parse().ok()?;
    Some(Entry { kind, id, bytes: meta.size, modified: modified(meta) })
}

/// Turns "not found" into `None`.
fn unless_missing<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if is(&error, |error| matches!(error, Error::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether the store's own error is such a one.
fn is(error: &StoreError, such: impl Fn(&Error) -> bool) -> bool {
    matches!(error, StoreError::Unavailable { cause, .. } if cause.downcast_ref::<Error>().is_some_and(such))
}

/// Returns whether the store cannot do that at all.
#[cfg(heeler_remote)]
pub(super) fn is_unsupported(error: &StoreError) -> bool {
    is(error, |error| matches!(error, Error::NotImplemented { .. } | Error::NotSupported { .. }))
}

/// Runs other people's code. A panic becomes an error.
async fn guarded<T>(
    doing: &'static str,
    work: impl Future<Output = object_store::Result<T>> + Send,
) -> Result<T, StoreError> {
    let mut work = pin!(work);
    let poll = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map_err(|error| StoreError::unavailable(doing, error)),
        Err(_) => Poll::Ready(Err(StoreError::unavailable(doing, "the object store panicked"))),
    });
    poll.await
}
