//! A dump before a panic ends the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::capture::{self, RowId, sys};
use crate::disabled::is_disabled;
use crate::error::{Error, Result};
use crate::inflight::current_row;
use crate::log::log_safely;
use crate::report::Reports;

/// How long the panic waits for its dump.
const PATIENCE: Duration = Duration::from_secs(2);
/// What of that is for sinks that go over a network.
const FLUSH: Duration = Duration::from_millis(900);

const IDLE: u8 = 0;
const ASKED: u8 = 1;

impl Reports {
    /// Sends a dump before a panic ends the process: with `panic = "abort"`, any panic, otherwise one on the main thread
    /// that is inside of neither watched work nor a task. A panic that is caught, by tokio or by a server, is no end, and makes no dump.
    ///
    /// The panic hook only asks for it, and waits for up to two seconds until it has been written. It takes no lock. In a large
    /// program without optimisations, names alone take as long, unless an earlier [dump](crate::blocking_dump) has had
    /// them read. The hook that was there before still runs, first. Call this once, after other panic hooks have been set.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread that takes the dump does not start.
    pub fn dump_on_panic(&self) -> Result<(), Error> {
        if is_disabled() {
            return Ok(());
        }
        let state = Arc::new(AtomicU8::new(IDLE));
        let (reports, asked) = (self.clone(), Arc::clone(&state));
        let thread = std::thread::Builder::new()
            .name("heeler-panic".into())
            .spawn(move || {
                sys::block_signals();
                loop {
                    while asked.load(Ordering::Acquire) != ASKED {
                        std::thread::park();
                    }
                    // A sink is other people's code, and the panic waits for this.
                    let sent = catch_unwind(AssertUnwindSafe(|| {
                        reports.blocking_dump("the process panics");
                        // Whatever did not arrive by then is in the spool, if there is one.
                        let _ = reports.blocking_flush(FLUSH);
                    }));
                    if sent.is_err() {
                        log_safely(|| tracing::error!(target: "heeler", "a dump is lost: it has panicked"));
                    }
                    // Something may catch this panic after all.
                    asked.store(IDLE, Ordering::Release);
                }
            })
            .map_err(|error| Error::thread("the thread that dumps before a panic", error))?;
        let thread: Thread = thread.thread().clone();
        let process = capture::process_number();
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            previous(info);
            let is_main = u32::try_from(sys::thread_id()) == Ok(std::process::id());
            let ends =
                cfg!(panic = "abort") || (is_main && current_row() == RowId::NONE && tokio::task::try_id().is_none());
            let is_asked = std::thread::current().id() == thread.id();
            if !ends || is_asked || capture::process_number() != process {
                return;
            }
            // If another thread has asked already, the process must not end before its dump is written, either.
            let _ = state.compare_exchange(IDLE, ASKED, Ordering::AcqRel, Ordering::Relaxed);
            thread.unpark();
            let began = Instant::now();
            while state.load(Ordering::Acquire) == ASKED && began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(2));
            }
        }));
        Ok(())
    }
}
