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
        Err(StoreError::Unavailable { cause, .. })
            if matches!(cause.downcast_ref::<Error>(), Some(Error::NotFound { .. })) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
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
