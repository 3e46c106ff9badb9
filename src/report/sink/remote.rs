//! Sinks that take time: what is reached over a network is waited for, not blocked on.

use std::error::Error;
use std::fmt;
use std::pin::Pin;

use crate::report::{Digest, Report};

/// A place that reports are sent to over a network.
///
/// Its futures run on the reporter thread's own runtime, one at a time for each remote; time and sockets of tokio work
/// there. They may be dropped at any await point, and must end by themselves: every step has a timeout.
pub(crate) trait Remote: Send + Sync + 'static {
    /// What it is called in the log when it fails. Asked for once.
    fn name(&self) -> &str;

    /// Whether there is anything in the report that was not sent yet. One without news counts as taken, and not against
    /// [`per_hour`](Self::per_hour).
    fn has_news(&self, report: &Report) -> bool {
        let _ = report;
        true
    }

    /// Sends one report: the first of its id, or an update of it. May be called again with the same report, after a
    /// failure or after a restart of the process.
    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a>;

    /// How many reports may be sent in an hour; the others are gathered for [`digest`](Self::digest). `None`: all.
    fn per_hour(&self) -> Option<u32> {
        None
    }

    /// Sends what was gathered because of [`per_hour`](Self::per_hour).
    fn digest<'a>(&'a self, digest: &'a Digest) -> Delivery<'a> {
        let _ = digest;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// An attempt to send something.
pub(crate) type Delivery<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// Why something was not sent.
pub(crate) struct Failure {
    /// Trying again would not help: the other side refuses it.
    pub(crate) permanent: bool,
    pub(crate) cause: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// One that may be over later: a server that is down, busy or slow.
    pub(crate) fn transient(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { permanent: false, cause: cause.into() }
    }

    /// One that stays: the report is given up.
    pub(crate) fn permanent(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { permanent: true, cause: cause.into() }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("permanent", &self.permanent).field("cause", &self.cause).finish()
    }
}
