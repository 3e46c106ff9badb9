//! Waiting until every report has arrived.

use std::time::{Duration, Instant};

use super::reporter;
use crate::log::{TARGET, log_safely};
use crate::report::Reports;

impl Reports {
    /// Waits until every report that was due before has been delivered or given up, and the counts of held-back reports
    /// have been logged. Call it for a graceful shutdown. Returns false if that takes longer than `timeout`. The
    /// reports still on their way are then lost with the process, unless there is a
    /// [spool](crate::report::ReportsBuilder::spool).
    ///
    /// Sinks that failed are tried again at once, and digests that wait for the end of an hour are sent now.
    ///
    /// Works on any executor. If the future is dropped before it is ready, reports are sent all the same.
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
        let (done, flushed) = tokio::sync::oneshot::channel();
        let reports = self.clone();
        // On a thread of its own, because the surrounding runtime may have nothing else left to do, and be of any kind.
        let started = std::thread::Builder::new().name("heeler-flush".into()).spawn(move || {
            // The caller may have given up.
            let _ = done.send(reports.blocking_flush(timeout));
        });
        if let Err(error) = started {
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
        // `None` waits forever: such a long wait ends later than any time that `Instant` can represent.
        let deadline = Instant::now().checked_add(timeout);
        let dispatch = self.dispatch();
        dispatch.hurry();
        let delivered = reporter::flush(deadline) && {
            // Again, for what has come since.
            dispatch.hurry();
            !dispatch.is_busy() || (reporter::know(self) && dispatch.wait(deadline))
        };
        self.say_held_back();
        delivered
    }
}
