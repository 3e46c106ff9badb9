//! Why an exclusive job did not run, or did not run to its end.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::holder::Holder;
use crate::timebox::Interrupted;

/// Why an [exclusive](crate::timebox::exclusive) job did not run, or was interrupted.
///
/// Use [`is_held`](Self::is_held) and [`interrupted`](Self::interrupted) to find out which. Print it for a person. The
/// operating system's error, if there is one, is in [`source`](std::error::Error::source).
pub struct ExclusiveError {
    kind: Box<Kind>,
}

#[derive(Debug)]
enum Kind {
    /// `job` is as the caller named it.
    Held {
        job: PathBuf,
        holder: Option<Holder>,
    },
    Interrupted(Interrupted),
    /// `problem` completes "the lock file `/x` ..".
    File {
        path: PathBuf,
        problem: &'static str,
        cause: Option<io::Error>,
    },
    /// `problem` completes "the directory of locks `/x` ..".
    Directory {
        path: PathBuf,
        problem: Cow<'static, str>,
        cause: Option<io::Error>,
    },
    Nameless,
}

impl ExclusiveError {
    fn new(kind: Kind) -> Self {
        Self { kind: Box::new(kind) }
    }

    pub(super) fn held(job: &Path, holder: Option<Holder>) -> Self {
        Self::new(Kind::Held { job: job.to_owned(), holder })
    }

    pub(super) fn file(path: &Path, problem: &'static str, cause: Option<io::Error>) -> Self {
        Self::new(Kind::File { path: path.to_owned(), problem, cause })
    }

    pub(super) fn directory(path: &Path, problem: impl Into<Cow<'static, str>>, cause: Option<io::Error>) -> Self {
        Self::new(Kind::Directory { path: path.to_owned(), problem: problem.into(), cause })
    }

    pub(super) fn nameless() -> Self {
        Self::new(Kind::Nameless)
    }

    /// Returns whether another run holds the lock. This run did not begin.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(*self.kind, Kind::Held { .. })
    }

    /// Returns who holds the lock, if another run does and has already written that down.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        match *self.kind {
            Kind::Held { holder, .. } => holder,
            _ => None,
        }
    }

    /// Returns how this run was interrupted, if it was. It did begin.
    #[must_use]
    pub fn interrupted(&self) -> Option<&Interrupted> {
        match &*self.kind {
            Kind::Interrupted(interrupted) => Some(interrupted),
            _ => None,
        }
    }
}

/// For a closure of [`exclusive_blocking`](crate::timebox::exclusive_blocking) that cannot fail in any other way.
impl From<Interrupted> for ExclusiveError {
    fn from(interrupted: Interrupted) -> Self {
        Self::new(Kind::Interrupted(interrupted))
    }
}

/// `WouldBlock` if another run holds the lock, `TimedOut` if this one was interrupted, the cause's kind otherwise.
impl From<ExclusiveError> for io::Error {
    fn from(error: ExclusiveError) -> Self {
        let kind = match &*error.kind {
            Kind::Held { .. } => io::ErrorKind::WouldBlock,
            Kind::Interrupted(_) => io::ErrorKind::TimedOut,
            Kind::File { cause, .. } | Kind::Directory { cause, .. } => {
                cause.as_ref().map_or(io::ErrorKind::InvalidInput, io::Error::kind)
            }
            Kind::Nameless => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

impl fmt::Display for ExclusiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.kind {
            Kind::Held { job, holder: Some(holder) } => write!(f, "`{}` is held by {holder}", job.display()),
            Kind::Held { job, holder: None } => write!(f, "`{}` is held by another process", job.display()),
            Kind::Interrupted(interrupted) => interrupted.fmt(f),
            Kind::File { path, problem, .. } => write!(f, "the lock file `{}` {problem}", path.display()),
            Kind::Directory { path, problem, .. } => write!(f, "the directory of locks `{}` {problem}", path.display()),
            Kind::Nameless => f.write_str("an exclusive job has to have a name"),
        }
    }
}

impl fmt::Debug for ExclusiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExclusiveError").field(&self.kind).finish()
    }
}

impl std::error::Error for ExclusiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.kind {
            Kind::File { cause, .. } | Kind::Directory { cause, .. } => cause.as_ref().map(|cause| cause as _),
            // Not only in `Display`: code that looks for an `Interrupted` in a chain of errors finds it here.
            Kind::Interrupted(interrupted) => Some(interrupted),
            Kind::Held { .. } | Kind::Nameless => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// Guards: a cause is in `source()` alone, and the kind survives in an `io::Error`.
    #[test]
    fn each_kind_has_a_message_and_survives_io_errors() {
        let denied = || Some(io::Error::from(io::ErrorKind::PermissionDenied));
        let path = Path::new("/x/y.lock");
        let all = [
            (ExclusiveError::held(Path::new("y"), None), "`y` is held by another process", io::ErrorKind::WouldBlock),
            (
                ExclusiveError::file(path, "is a directory", None),
                "the lock file `/x/y.lock` is a directory",
                io::ErrorKind::InvalidInput,
            ),
            (
                ExclusiveError::directory(path, "cannot be made", denied()),
                "the directory of locks `/x/y.lock` cannot be made",
                io::ErrorKind::PermissionDenied,
            ),
            (ExclusiveError::nameless(), "an exclusive job has to have a name", io::ErrorKind::InvalidInput),
        ];
        for (error, text, kind) in all {
            assert_eq!(error.to_string(), text);
            assert_eq!(error.is_held(), kind == io::ErrorKind::WouldBlock);
            assert_eq!(error.source().is_some(), kind == io::ErrorKind::PermissionDenied);
            assert!(error.interrupted().is_none() && error.holder().is_none());
            assert_eq!(io::Error::from(error).kind(), kind);
        }
    }

    #[test]
    fn the_error_is_send_sync_and_one_word() {
        fn check<T: Send + Sync + 'static>() {}
        check::<ExclusiveError>();
        assert_eq!(size_of::<ExclusiveError>(), size_of::<usize>());
    }
}
