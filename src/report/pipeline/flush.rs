//! Waiting until every report has arrived.

use std::time::{Duration, Instant};

use super::reporter;
use crate::capture;
use crate::disabled::is_disabled;
use crate::log::{TARGET, log_safely};
use crate::report::Reports;

/// How soon the thread of a [`flush`](Reports::flush) ends that nobody waits for any more.
const SLICE: Duration = Duration::from_millis(100);

impl Reports {
    /// Waits until every report that was due before has been delivered or given up, and the counts of held-back reports
    /// have been logged. Call it for a graceful shutdown. Returns false if that takes longer than `timeout`. The
    /// reports still on their way are then lost with the process, unless there is a
    /// [spool](crate::report::ReportsBuilder::spool).
    ///
    /// Sinks that failed are tried again at once, and what waits for the end of an hour or of an interval is sent now. A
    /// sink must not call this: it would wait for itself.
    ///
    /// Works on any executor, with a thread of its own while it waits. If that cannot be started, the log says so, and
    /// this returns false at once. If the future is dropped before it is ready, reports are sent all the same.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let reports = heeler::Reports::default();
    /// if !reports.flush(Duration::from_secs(10)).await {
    ///     eprintln!("some reports have not arrived: {:?}", reports.stats());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub async fn flush(&self, timeout: Duration) -> bool {
        if is_disabled() {
            return true;
        }
        let (done, flushed) = tokio::sync::oneshot::channel();
        let reports = self.clone();
        // On a thread of its own, because the surrounding runtime may have nothing else left to do, and be of any kind.
        let started = std::thread::Builder::new().name("heeler-flush".into()).spawn(move || {
            capture::sys::block_signals();
            let left = left(timeout);
            let flushed = reports.flush_within(&|| if done.is_closed() { Duration::ZERO } else { left().min(SLICE) });
            // The caller may have given up.
            let _ = done.send(flushed);
        });
        if let Err(error) = started {
            self.dispatch().hurry();
            self.say_held_back();
            log_safely(
                || tracing::error!(target: TARGET, %error, "reports cannot be waited for: no thread could be started"),
            );
        }
        flushed.await.unwrap_or(false)
    }

    /// Like [`flush`](Self::flush), but blocks the thread: for `main` after the runtime is gone, and for code that
    /// isn't async.
    #[must_use]
    pub fn blocking_flush(&self, timeout: Duration) -> bool {
        is_disabled() || self.flush_within(&left(timeout))
    }

    /// Flushes for as long as `left` returns some time, in pieces of that.
    fn flush_within(&self, left: &dyn Fn() -> Duration) -> bool {
        let dispatch = self.dispatch();
        dispatch.hurry();
        let delivered = reporter::flush(left) && {
            // Again, for what has come since.
            dispatch.hurry();
            (!dispatch.is_busy() || (reporter::know(self) && dispatch.wait(left))) && dispatch.wait_for_fleet(left)
        };
        self.say_held_back();
        delivered
    }
}

/// Returns how much of the time is left, whenever that is asked. Longer than `Instant` can represent is forever.
fn left(timeout: Duration) -> impl Fn() -> Duration {
    let deadline = Instant::now().checked_add(timeout);
    move || deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
}
