//! Files in this process.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;

use super::item::{Entry, Kind, Read};
use crate::profile::id::Id;
use crate::sync::lock_std;

/// Files in memory. The sweep enforces its bounds.
#[derive(Default)]
pub(super) struct Memory {
    files: Mutex<HashMap<(Kind, Id), File>>,
}

struct File {
    bytes: Bytes,
    modified: SystemTime,
}

impl Memory {
    pub(super) fn put(&self, kind: Kind, id: Id, bytes: Bytes) {
        let file = File { bytes, modified: SystemTime::now() };
        let old = lock_std(&self.files).insert((kind, id), file);
        drop(old);
    }

    pub(super) fn get(&self, kind: Kind, id: Id) -> Option<Read> {
        let files = lock_std(&self.files);
        files.get(&(kind, id)).map(|file| Read { bytes: file.bytes.clone(), modified: file.modified })
    }

    pub(super) fn list(&self, of: Kind) -> Vec<Entry> {
        let files = lock_std(&self.files);
        let files = files.iter().filter(|((kind, _), _)| *kind == of);
        let entry = |(&(kind, id), file): (&(Kind, Id), &File)| Entry {
            kind,
            id,
            bytes: file.bytes.len() as u64,
            modified: file.modified,
        };
        files.map(entry).collect()
    }

    pub(super) fn remove(&self, kind: Kind, id: Id) {
        let old = lock_std(&self.files).remove(&(kind, id));
        drop(old);
    }

    /// Makes a file as old as `modified`.
    #[cfg(test)]
    pub(super) fn touch(&self, kind: Kind, id: Id, modified: SystemTime) {
        lock_std(&self.files).get_mut(&(kind, id)).unwrap().modified = modified;
    }
}
