//! A dump when the process gets a signal.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use crate::capture::{DumpSignal, sys};
use crate::disabled::is_disabled;
use crate::error::{Error, Result};
use crate::log::log_safely;
use crate::report::Reports;

impl Reports {
    /// Sends a dump whenever the process gets this signal: `kill -USR1 4711`. Not before this is called, because heeler
    /// takes no signal by itself. The handler is never removed.
    ///
    /// SIGUSR1, SIGUSR2, SIGQUIT, SIGHUP and the real-time signals can be chosen. SIGTERM and SIGINT cannot: with a
    /// handler they would not end the process any more. For these there is [`shutdown`](crate::shutdown).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), heeler::Error> {
    /// let reports = heeler::Reports::builder().directory("/var/log/my-service/slow").build()?;
    /// reports.dump_on_signal(libc::SIGUSR1)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::is_signal`] if it is another signal, if something else has a handler for it or ignores it, or if dumps are
    /// sent at a signal already. Also if the thread that takes the dumps does not start.
    pub fn dump_on_signal(&self, signal: i32) -> Result<(), Error> {
        if is_disabled() {
            return Ok(());
        }
        let reports = self.clone();
        let (installed, comes) = mpsc::channel::<DumpSignal>();
        // Before the handler: from then on somebody must read what it writes.
        let started = std::thread::Builder::new().name("heeler-signal".into()).spawn(move || {
            sys::block_signals();
            let Ok(mut arrived) = comes.recv() else { return };
            let reason = format!("signal {signal}");
            while arrived.wait() {
                // A sink is other people's code.
                let sent = catch_unwind(AssertUnwindSafe(|| reports.blocking_dump(&reason)));
                if sent.is_err() {
                    log_safely(|| tracing::error!(target: "heeler", signal, "a dump is lost: it has panicked"));
                }
            }
        });
        started.map_err(|error| Error::thread("the thread that dumps at a signal", error))?;
        let arrived =
            DumpSignal::install(signal).map_err(|why| Error::signal(format!("signal {signal}: {why}"), None))?;
        // The thread waits for nothing else.
        let _ = installed.send(arrived);
        Ok(())
    }
}
