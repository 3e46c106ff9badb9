//! Sinks that take time. Network access is awaited, and doesn't block the thread.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::SinkError;
use crate::report::{Digest, Report};

/// A [`Sink`](crate::Sink) whose `deliver` is an `async fn`, for reports that are sent over a network. While it waits,
/// other sinks get their reports.
///
/// Its futures run on the reporter thread's own runtime, one at a time for each sink. Tokio's time and sockets work
/// there, but a future that blocks keeps all reports waiting. No future may run for longer than five minutes.
///
/// Make clients and connection pools for the sink alone. A connection belongs to the runtime that has opened it: if the
/// application shared it, each side would wait for the other's runtime, and this one stands still while a
/// [`Sink`](crate::Sink) blocks.
///
/// The trait isn't dyn-compatible. To choose a sink at run time, make an enum of them.
///
/// # Example
///
/// Slow requests on a board in the office:
///
/// ```
/// use heeler::{AsyncSink, Report, Reports, SinkError};
/// use tokio::io::AsyncWriteExt as _;
/// use tokio::net::TcpStream;
///
/// struct Board;
///
/// impl AsyncSink for Board {
///     fn name(&self) -> &str {
///         "board"
///     }
///
///     async fn deliver(&self, report: &Report) -> Result<(), SinkError> {
///         let mut board = TcpStream::connect("127.0.0.1:4711").await?;
///         board.write_all(report.sentence().as_bytes()).await?;
///         Ok(())
///     }
/// }
///
/// let reports = Reports::builder().async_sink(Board).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AsyncSink: Send + Sync + 'static {
    /// Names this sink in the log and in metrics. Called once.
    fn name(&self) -> &str;

    /// Sends a report: the first with its [`id`](Report::id), or an [`update`](Report::update) of it. It may be called
    /// again with the same report, after an error or after a restart of the process.
    ///
    /// The future may be dropped at any await point. If it panics, this report is given up.
    ///
    /// # Errors
    ///
    /// Returns whatever kept the report from arriving: see [`SinkError`].
    fn deliver(&self, report: &Report) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Returns whether people read what it sends: see [`Sink::tells_people`](crate::Sink::tells_people). Called once.
    fn tells_people(&self) -> bool {
        false
    }
}

impl<S: AsyncSink> AsyncSink for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn deliver(&self, report: &Report) -> impl Future<Output = Result<(), SinkError>> + Send {
        (**self).deliver(report)
    }

    fn tells_people(&self) -> bool {
        (**self).tells_people()
    }
}

/// An async sink as the delivery uses it: its futures are boxed, and it may have a limit per hour.
pub(crate) trait DynAsyncSink: Send + Sync + 'static {
    fn name(&self) -> &str;

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a>;

    /// Returns whether people read what it sends.
    fn tells_people(&self) -> bool {
        false
    }

    /// Returns how reports are put together, or `None` if each is sent alone. If there is an answer,
    /// [`deliver_all`](Self::deliver_all) is called instead of [`deliver`](Self::deliver).
    fn batch(&self) -> Option<Batch> {
        None
    }

    /// Sends several reports at once: all or none.
    fn deliver_all<'a>(&'a self, reports: &'a [Arc<Report>]) -> Delivery<'a> {
        let _ = reports;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns whether the report contains anything that was not sent yet. A report without news counts as taken, and
    /// not against [`per_hour`](Self::per_hour).
    fn has_news(&self, report: &Report) -> bool {
        let _ = report;
        true
    }

    /// Returns how many reports may be sent in an hour, or `None` for no limit. The others are gathered for
    /// [`digest`](Self::digest).
    fn per_hour(&self) -> Option<u32> {
        None
    }

    /// Returns how long all reports are gathered for each [`digest`](Self::digest), or `None` to have them one by one.
    fn digest_every(&self) -> Option<Duration> {
        None
    }

    /// Sends what was gathered because of [`per_hour`](Self::per_hour) or [`digest_every`](Self::digest_every).
    fn digest<'a>(&'a self, digest: &'a Digest) -> Delivery<'a> {
        let _ = digest;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// When reports are sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// How long the first one waits for others.
    pub(crate) age: Duration,
    /// How many there are at most, and how many bytes they take in memory.
    pub(crate) reports: usize,
    pub(crate) bytes: usize,
}

/// An attempt to send something.
pub(crate) type Delivery<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// An async sink of the application's.
pub(crate) struct Boxed<S>(pub(crate) S);

impl<S: AsyncSink> DynAsyncSink for Boxed<S> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a> {
        Box::pin(self.0.deliver(report))
    }

    fn tells_people(&self) -> bool {
        self.0.tells_people()
    }
}
