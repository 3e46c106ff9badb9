//! The crate's one error type.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of heeler's own fallible functions.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error from setting up heeler.
///
/// It is opaque. The `is_*` methods tell what it is about, `Display` is for people, and
/// [`source`](std::error::Error::source) returns the operating system's error, if there is one. Cheap to clone.
///
/// # Example
///
/// ```
/// let error = heeler::Reports::builder().allow_headers(["cookie"]).build().unwrap_err();
/// assert!(error.is_config());
/// assert_eq!(error.to_string(), "the header `cookie` is never reported: it carries credentials");
/// ```
#[derive(Clone)]
pub struct Error {
    // Shared, so that an error is one word and everyone who asks gets the error of a failed one-time start.
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

enum Kind {
    Config(String),
    Directory { what: &'static str, path: PathBuf, problem: &'static str },
    Signal(String),
    Unsupported(&'static str),
    Quota(&'static str),
}

impl Error {
    fn new(kind: Kind, cause: Option<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { inner: Arc::new(Inner { kind, cause }) }
    }

    /// A setting that cannot be used. `message` says which, and why.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config(message.into()), None)
    }

    /// A thread that does not start. `what` is the thread.
    pub(crate) fn thread(what: &'static str, cause: io::Error) -> Self {
        Self::new(Kind::Config(format!("{what} does not start")), Some(Box::new(cause)))
    }

    /// An address or a socket that cannot be used. `message` says for what.
    #[cfg(any(feature = "console", feature = "systemd"))]
    pub(crate) fn listener(message: String, cause: io::Error) -> Self {
        Self::new(Kind::Config(message), Some(Box::new(cause)))
    }

    /// A report directory that cannot be used. `problem` completes "the report directory `/x` ..".
    pub(crate) fn directory(path: &Path, problem: &'static str, cause: Option<io::Error>) -> Self {
        let kind = Kind::Directory { what: "report directory", path: path.to_owned(), problem };
        Self::new(kind, cause.map(|error| Box::new(error) as _))
    }

    /// A directory of mails that cannot be used. `problem` completes "the mail directory `/x` ..".
    #[cfg(feature = "email")]
    pub(crate) fn mail_directory(path: &Path, problem: &'static str, cause: Option<io::Error>) -> Self {
        let kind = Kind::Directory { what: "mail directory", path: path.to_owned(), problem };
        Self::new(kind, cause.map(|error| Box::new(error) as _))
    }

    /// A spool that cannot be used. `problem` completes "the spool `/x` ..".
    pub(crate) fn spool(path: &Path, problem: &'static str, cause: Option<io::Error>) -> Self {
        let kind = Kind::Directory { what: "spool", path: path.to_owned(), problem };
        Self::new(kind, cause.map(|error| Box::new(error) as _))
    }

    /// The signal for thread stacks cannot be used. `message` says which, and why.
    pub(crate) fn signal(message: impl Into<String>, cause: Option<io::Error>) -> Self {
        Self::new(Kind::Signal(message.into()), cause.map(|error| Box::new(error) as _))
    }

    /// This platform or build doesn't support `what`, which completes ".. on this platform".
    pub(crate) fn unsupported(what: &'static str) -> Self {
        Self::new(Kind::Unsupported(what), None)
    }

    /// An invalid quota. `message` says why.
    pub(crate) fn quota(message: &'static str) -> Self {
        Self::new(Kind::Quota(message), None)
    }

    /// Returns whether a setting is invalid.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self.inner.kind, Kind::Config(_))
    }

    /// Returns whether a report directory, a mail directory or a spool cannot be used: it is a file, cannot be created,
    /// or cannot be written to.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.inner.kind, Kind::Directory { .. })
    }

    /// Returns whether the signal that captures thread stacks is not available.
    #[must_use]
    pub fn is_signal(&self) -> bool {
        matches!(self.inner.kind, Kind::Signal(_))
    }

    /// Returns whether this platform or build lacks what was asked for.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self.inner.kind, Kind::Unsupported(_))
    }

    /// Returns whether a [`Quota`](crate::Quota) was created with no time at all.
    #[must_use]
    pub fn is_quota(&self) -> bool {
        matches!(self.inner.kind, Kind::Quota(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.kind {
            Kind::Config(message) | Kind::Signal(message) => f.write_str(message),
            Kind::Directory { what, path, problem } => write!(f, "the {what} `{}` {problem}", path.display()),
            Kind::Unsupported(what) => write!(f, "{what} on this platform"),
            Kind::Quota(message) => f.write_str(message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("message", &format_args!("{self}"));
        if let Some(cause) = &self.inner.cause {
            debug.field("cause", cause);
        }
        debug.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.cause.as_ref().map(|cause| &**cause as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// Guards: each kind has one predicate, and only `source()` has the cause. Otherwise a chain printer would print it
    /// twice.
    #[test]
    fn each_kind_has_one_predicate() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let all = [
            Error::config("the threshold is zero"),
            Error::directory(Path::new("/x"), "cannot be written to", Some(denied())),
            Error::signal("signal 40 is taken", None),
            Error::unsupported("thread stacks cannot be taken"),
            Error::quota("a quota of zero"),
        ];
        for (at, error) in all.iter().enumerate() {
            let is =
                [error.is_config(), error.is_directory(), error.is_signal(), error.is_unsupported(), error.is_quota()];
            assert_eq!(is.iter().position(|&yes| yes), Some(at), "{error}");
            assert_eq!(is.iter().filter(|&&yes| yes).count(), 1, "{error}");
            if let Some(cause) = error.source() {
                assert!(!error.to_string().contains(&cause.to_string()));
            }
        }
        assert_eq!(all[1].to_string(), "the report directory `/x` cannot be written to");
        assert!(all[1].source().is_some() && all[2].source().is_none());
        assert!(format!("{:?}", all[3]).contains("thread stacks"));
    }

    #[test]
    fn the_error_is_send_sync_and_one_word() {
        fn check<T: Send + Sync + Clone + 'static>() {}
        check::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
