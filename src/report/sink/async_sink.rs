//! Sinks that take time: what is reached over a network is waited for, not blocked on.

use std::pin::Pin;
use std::sync::Arc;

use super::SinkError;
use crate::report::{Digest, Report};

/// A place that reports are sent to over a network: a [`Sink`](crate::Sink) whose `deliver` is an `async fn`. While it waits,
/// other sinks get their reports.
///
/// Its futures run on the reporter thread's own runtime, one at a time for each sink: time and sockets of tokio work there,
/// but a future that blocks keeps all reports waiting. None runs for longer than five minutes.
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

    /// Sends a report: the first of its [`id`](Report::id), or an [`update`](Report::update) of it. It may be called again with
    /// the same report, after an error or after a restart of the process.
    ///
    /// The future may be dropped at any await point. If it panics, this report is given up.
    ///
    /// # Errors
    ///
    /// Whatever keeps the report from arriving: see [`SinkError`].
    fn deliver(&self, report: &Report) -> impl Future<Output = Result<(), SinkError>> + Send;
}

impl<S: AsyncSink + ?Sized> AsyncSink for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn deliver(&self, report: &Report) -> impl Future<Output = Result<(), SinkError>> + Send {
        (**self).deliver(report)
    }
}

/// An async sink as the delivery knows it: its futures are boxed, and it may have a limit an hour.
pub(crate) trait DynAsyncSink: Send + Sync + 'static {
    fn name(&self) -> &str;

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a>;

    /// Whether there is anything in the report that was not sent yet. One without news counts as taken, and not against
    /// [`per_hour`](Self::per_hour).
    fn has_news(&self, report: &Report) -> bool {
        let _ = report;
        true
    }

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
pub(crate) type Delivery<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// An application's own.
pub(crate) struct Boxed<S>(pub(crate) S);

impl<S: AsyncSink> DynAsyncSink for Boxed<S> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a> {
        Box::pin(self.0.deliver(report))
    }
}
