//! Files in this process.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;

use super::item::{Entry, Kind, Read};
use crate::capture::PerProcess;
use crate::profile::id::Id;
use crate::sync::lock_std;

/// Files in memory, of one process. The sweep enforces its bounds.
pub(super) struct Memory {
    files: Box<PerProcess<Files>>,
}

type Files = Mutex<HashMap<(Kind, Id), File>>;

struct File {
    bytes: Bytes,
    modified: SystemTime,
}

impl Default for Memory {
    fn default() -> Self {
        Self { files: Box::new(PerProcess::new(Mutex::default)) }
    }
}

impl Memory {
    pub(super) fn put(&self, kind: Kind, id: Id, bytes: Bytes) {
        let file = File { bytes, modified: SystemTime::now() };
        let old = lock_std(self.files.get()).insert((kind, id), file);
        drop(old);
    }

    pub(super) fn get(&self, kind: Kind, id: Id) -> Option<Read> {
        let files = lock_std(self.files.get());
        files.get(&(kind, id)).map(|file| Read { bytes: file.bytes.clone(), modified: file.modified })
    }

    pub(super) fn list(&self, of: Kind) -> Vec<Entry> {
        let files = lock_std(self.files.get());
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
        let old = lock_std(self.files.get()).remove(&(kind, id));
        drop(old);
    }

    /// Makes a file as old as `modified`.
    #[cfg(test)]
    pub(super) fn touch(&self, kind: Kind, id: Id, modified: SystemTime) {
        lock_std(self.files.get()).get_mut(&(kind, id)).unwrap().modified = modified;
    }
}
