//! The files that a store keeps.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::profile::id::Id;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Summary,
    Profile,
    /// A sealed request that waits for a worker.
    #[cfg(heeler_remote)]
    Request,
    Cancel,
    Status,
}

impl Kind {
    /// In the order of their removal: the index must not name what is gone, and a status outlives what it describes.
    pub(super) const ALL: &[Self] = &[
        Self::Summary,
        Self::Profile,
        #[cfg(heeler_remote)]
        Self::Request,
        Self::Cancel,
        Self::Status,
    ];

    /// For people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Profile => "profile",
            #[cfg(heeler_remote)]
            Self::Request => "request",
            Self::Cancel => "cancellation",
            Self::Status => "status",
        }
    }

    /// Returns where it is, and how its name ends.
    #[cfg(feature = "object-store")]
    pub(super) const fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Summary => ("summaries", ".json"),
            Self::Profile => ("profiles", ".json.gz"),
            #[cfg(heeler_remote)]
            Self::Request => ("requests", ".sealed"),
            Self::Cancel => ("cancelled", ""),
            Self::Status => ("statuses", ".json"),
        }
    }
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) id: Id,
    pub(super) bytes: u64,
    pub(super) modified: SystemTime,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Bytes,
    pub(super) modified: SystemTime,
}

/// Returns how long ago `then` was. Returns zero if it is in the future, because the clocks of two machines differ.
pub(super) fn age(then: SystemTime) -> Duration {
    then.elapsed().unwrap_or_default()
}
