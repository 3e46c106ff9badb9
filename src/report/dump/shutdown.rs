//! A shutdown that takes too long: who keeps it waiting.

use std::fmt;
use std::pin::Pin;
#[cfg(feature = "console")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::blocking_dump;
#[cfg(feature = "console")]
use crate::capture::PerProcess;
use crate::capture::sys;
#[cfg(feature = "console")]
use crate::clock::now;
use crate::disabled::is_disabled;
use crate::log::log_safely;
use crate::report::Reports;
use crate::text::units::duration;

/// A process that still runs so long after its limit goes on: another of its servers has shut down.
#[cfg(feature = "console")]
const SURVIVED: Duration = Duration::from_secs(60);

/// Until when the process shuts down, in nanoseconds of [`now`](crate::clock::now).
#[cfg(feature = "console")]
static SHUTTING_DOWN: PerProcess<AtomicU64> = PerProcess::new(|| AtomicU64::new(0));

/// Returns whether a [`Shutdown`] has begun, and the process does not seem to go on.
#[cfg(feature = "console")]
pub(crate) fn is_shutting_down() -> bool {
    SHUTTING_DOWN.get().load(Ordering::Relaxed) > now()
}

/// Wraps the future that a server's graceful shutdown waits for. If the process still runs at `limit` after that, and
/// something is in flight, a [dump](crate::dump()) is sent as a report: it says who keeps the shutdown waiting.
///
/// The streams of a [console](https://docs.rs/heeler/latest/heeler/console/) end when the shutdown begins. A limit below that of
/// the supervisor (`TimeoutStopSec`, `terminationGracePeriodSeconds`) leaves time for the report to be sent.
///
/// ```
/// use std::time::Duration;
///
/// # async fn serve(listener: tokio::net::TcpListener, app: axum::Router, reports: heeler::Reports) -> std::io::Result<()> {
/// let signal = async { drop(tokio::signal::ctrl_c().await) };
/// axum::serve(listener, app)
///     .with_graceful_shutdown(heeler::shutdown(signal, Duration::from_secs(10)).reports(reports))
///     .await
/// # }
/// ```
pub fn shutdown<F: Future>(signal: F, limit: Duration) -> Shutdown<F> {
    Shutdown { signal, limit, reports: None }
}

pin_project! {
    /// A shutdown with a limit. Made by [`shutdown`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Shutdown<F> {
        #[pin]
        signal: F,
        limit: Duration,
        reports: Option<Reports>,
    }
}

impl<F> Shutdown<F> {
    /// Sets where the dump is sent. Defaults to the log.
    pub fn reports(mut self, reports: Reports) -> Self {
        self.reports = Some(reports);
        self
    }
}

impl<F: Future> Future for Shutdown<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = ready!(this.signal.poll(cx));
        begin(*this.limit, this.reports.take().unwrap_or_else(Reports::shared));
        Poll::Ready(output)
    }
}

fn begin(limit: Duration, reports: Reports) {
    if is_disabled() {
        return;
    }
    #[cfg(feature = "console")]
    {
        let until = u64::try_from(limit.saturating_add(SURVIVED).as_nanos()).unwrap_or(u64::MAX);
        SHUTTING_DOWN.get().fetch_max(now().saturating_add(until), Ordering::Relaxed);
    }
    let started = std::thread::Builder::new().name("heeler-shutdown".into()).spawn(move || {
        sys::block_signals();
        std::thread::sleep(limit);
        let limit = duration(limit);
        let dump = blocking_dump();
        if dump.in_flight > 0 {
            reports.send_dump(dump, &format!("the shutdown takes longer than {limit}: this is what it waits for"));
        } else {
            log_safely(|| {
                tracing::warn!(target: "heeler", "the shutdown takes longer than {limit}, and nothing that heeler watches is in flight");
            });
        }
    });
    if let Err(error) = started {
        log_safely(
            || tracing::error!(target: "heeler", %error, "the shutdown is not watched: no thread could be started"),
        );
    }
}

impl<F> fmt::Debug for Shutdown<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("limit", &self.limit).finish_non_exhaustive()
    }
}
