//! The errors of a store.

use std::error::Error;
use std::fmt;

use super::item::Kind;
use crate::profile::id::Id;

/// Why a store could not do something. Displays as a sentence for the caller, without a whole id and without the cause,
/// which may name paths and hosts and is for the log.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// The directory or bucket failed.
    Unavailable {
        /// Completes "cannot ..".
        doing: &'static str,
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The object isn't what it should be.
    Corrupt { what: &'static str, id: String, why: String },
    /// It takes more than the store may keep.
    TooLarge { bytes: u64, most: u64 },
}

impl StoreError {
    pub(super) fn unavailable(doing: &'static str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { doing, cause: cause.into() }
    }

    /// It has not answered in time.
    pub(crate) fn late() -> Self {
        Self::unavailable("answer in time", "it takes too long")
    }

    pub(super) fn corrupt(kind: Kind, id: Id, why: impl fmt::Display) -> Self {
        Self::Corrupt { what: kind.name(), id: id.short(), why: why.to_string() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable { doing, .. } => write!(f, "the store of profiles cannot {doing}"),
            Self::Corrupt { what, id, why } => write!(f, "the stored {what} {id}… is corrupt: {why}"),
            Self::TooLarge { bytes, most } => {
                write!(f, "the profile is too large to be kept: {bytes} bytes, but at most {most} are allowed")
            }
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable { cause, .. } => Some(&**cause),
            Self::Corrupt { .. } | Self::TooLarge { .. } => None,
        }
    }
}
