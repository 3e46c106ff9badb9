//! Where reports go.
//!
//! The log and the directory are built in. Anything else is your own [`Sink`] or [`AsyncSink`].

mod async_sink;
mod directory;
#[cfg(feature = "email")]
pub mod email;
mod error;
#[cfg(any(feature = "pyroscope", feature = "webhook"))]
mod http;
mod log;
#[cfg(any(feature = "email", feature = "webhook"))]
mod news;
#[cfg(feature = "otel")]
mod otel;
#[cfg(feature = "pyroscope")]
pub(crate) mod pyroscope;
#[cfg(feature = "sentry")]
mod sentry;
#[cfg(feature = "webhook")]
mod webhook;

use std::sync::Arc;

#[cfg(feature = "sentry")]
pub use self::sentry::Sentry;
pub use async_sink::AsyncSink;
pub(crate) use async_sink::{Batch, Boxed, Delivery, DynAsyncSink};
pub(crate) use directory::Directory;
pub use error::SinkError;
pub(crate) use log::Log;
#[cfg(feature = "otel")]
pub use otel::OpenTelemetry;
#[cfg(feature = "pyroscope")]
pub use pyroscope::Pyroscope;
#[cfg(feature = "webhook")]
pub use webhook::Webhook;

use super::Report;

/// Returns what the sinks with features make of a report, as text.
#[cfg(test)]
#[allow(unused_variables, unused_mut, reason = "without features there are none")]
pub(super) fn printed(report: &Report, digest: &super::Digest) -> String {
    let mut text = String::new();
    #[cfg(feature = "sentry")]
    text.push_str(&self::sentry::printed(report));
    #[cfg(feature = "webhook")]
    text.push_str(&webhook::printed(report, digest));
    #[cfg(feature = "otel")]
    text.push_str(&otel::printed(report));
    text
}

/// A place that reports go to.
///
/// Sinks are called one after the other on heeler's reporter thread, never on a thread of the application's runtime. A
/// sink may block, but the reports behind it wait meanwhile, and are dropped (and counted) once too many wait. A sink
/// may use a runtime of its own, because none is entered where it is called. A sink that fails or panics is logged,
/// once a minute at most, and doesn't affect the others. Use an [`AsyncSink`] for anything reached over a network.
///
/// # Example
///
/// Slow requests on a board in the office:
///
/// ```
/// use std::net::UdpSocket;
///
/// use heeler::{Report, Reports, Sink, SinkError};
///
/// struct Board(UdpSocket);
///
/// impl Sink for Board {
///     fn name(&self) -> &str {
///         "board"
///     }
///
///     fn deliver(&self, report: &Report) -> Result<(), SinkError> {
///         // An update repeats what the board shows already.
///         if report.update == 0 {
///             self.0.send(report.sentence().as_bytes())?;
///         }
///         Ok(())
///     }
/// }
///
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// socket.connect("127.0.0.1:4711")?;
/// let reports = Reports::builder().sink(Board(socket)).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Sink: Send + Sync + 'static {
    /// Returns the name of this sink, for the log. Called once.
    fn name(&self) -> &str;

    /// Takes a report: the first with its [`id`](Report::id), or an [`update`](Report::update) of it. The last update
    /// has no stacks, and says how the work has [ended](Report::ending).
    ///
    /// # Errors
    ///
    /// Returns whatever kept the report from arriving. It is logged and counted. The sink is called again later with
    /// growing pauses, until [`retry_for`](crate::ReportsBuilder::retry_for) is over, unless the error is
    /// [permanent](SinkError::permanent). If the sink panics, this report is given up.
    fn deliver(&self, report: &Report) -> Result<(), SinkError>;

    /// Returns whether people read what it sends: whether it pages, mails or posts into a room. Called once.
    ///
    /// With a [`Fleet`](https://docs.rs/heeler/latest/heeler/struct.Fleet.html), such sinks get one message per incident and
    /// not one per instance. All others get the reports of their own instance, each of them. Defaults to false.
    fn tells_people(&self) -> bool {
        false
    }
}

impl<S: Sink + ?Sized> Sink for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn deliver(&self, report: &Report) -> Result<(), SinkError> {
        (**self).deliver(report)
    }

    fn tells_people(&self) -> bool {
        (**self).tells_people()
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn deliver(&self, report: &Report) -> Result<(), SinkError> {
        (**self).deliver(report)
    }

    fn tells_people(&self) -> bool {
        (**self).tells_people()
    }
}
