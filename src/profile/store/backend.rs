//! Access to the files, wherever they are.

use bytes::Bytes;

use super::StoreError;
use super::item::{Entry, Kind, Read};
use super::memory::Memory;
#[cfg(feature = "object-store")]
use super::objects::Objects;
use crate::profile::id::Id;

pub(super) enum Backend {
    Memory(Memory),
    #[cfg(feature = "object-store")]
    Objects(Objects),
}

impl Backend {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            #[cfg(feature = "object-store")]
            Self::Objects(_) => "object_store",
        }
    }

    /// Returns whether a look at the store is nearly free.
    pub(super) const fn is_near(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    pub(super) async fn put(&self, kind: Kind, id: Id, bytes: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => {
                memory.put(kind, id, bytes);
                Ok(())
            }
            #[cfg(feature = "object-store")]
            Self::Objects(objects) => objects.put(kind, id, bytes).await,
        }
    }

    /// `most`: an object with more bytes is not read, and counts as corrupt.
    #[cfg_attr(not(feature = "object-store"), allow(unused_variables))]
    pub(super) async fn get(&self, kind: Kind, id: Id, most: u64) -> Result<Option<Read>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.get(kind, id)),
            #[cfg(feature = "object-store")]
            Self::Objects(objects) => objects.get(kind, id, most).await,
        }
    }

    pub(super) async fn exists(&self, kind: Kind, id: Id) -> Result<bool, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.get(kind, id).is_some()),
            #[cfg(feature = "object-store")]
            Self::Objects(objects) => objects.exists(kind, id).await,
        }
    }

    pub(super) async fn list(&self, kind: Kind) -> Result<Vec<Entry>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.list(kind)),
            #[cfg(feature = "object-store")]
            Self::Objects(objects) => objects.list(kind).await,
        }
    }

    /// Removes the file, if it exists.
    pub(super) async fn remove(&self, kind: Kind, id: Id) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => {
                memory.remove(kind, id);
                Ok(())
            }
            #[cfg(feature = "object-store")]
            Self::Objects(objects) => objects.remove(kind, id).await,
        }
    }
}
