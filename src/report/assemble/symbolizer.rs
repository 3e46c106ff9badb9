//! The symbolizer's thread, which makes reports on request.
//!
//! It isn't the reporter's thread. That may be inside a slow sink, or inside a subscriber that waits for the lock of
//! standard output, which a thread that prints an error may hold until the error's place is symbolized.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};

use super::described::Described;
use crate::capture::{self, PerProcess};
use crate::log::log_safely;
use crate::monitor::Evidence;
use crate::report::Reports;
use crate::report::assemble::Assembler;

type Message = (Box<Evidence>, Arc<Described>);

struct Symbolizer {
    thread: ThreadId,
    inbox: Sender<Message>,
}

static SYMBOLIZER: PerProcess<Option<Symbolizer>> = PerProcess::new(start);

/// Asks for a report of the evidence, and starts the thread the first time. Returns false if there is no thread.
pub(in crate::report) fn describe(evidence: Box<Evidence>, described: &Arc<Described>) -> bool {
    let symbolizer = SYMBOLIZER.get();
    // The queue is never longer than the number of threads that wait, or have just given up.
    symbolizer.as_ref().is_some_and(|symbolizer| symbolizer.inbox.send((evidence, Arc::clone(described))).is_ok())
}

/// Returns whether the calling thread is the symbolizer's.
pub(in crate::report) fn is_this_thread() -> bool {
    SYMBOLIZER.existing().and_then(Option::as_ref).is_some_and(|symbolizer| symbolizer.thread == thread::current().id())
}

/// Starts the thread. Doesn't log, because the caller may hold the lock that a log would wait for.
fn start() -> Option<Symbolizer> {
    let (inbox, messages) = channel();
    let started = thread::Builder::new().name("heeler-symbols".into()).spawn(move || run(&messages));
    started.ok().map(|handle| Symbolizer { thread: handle.thread().id(), inbox })
}

fn run(messages: &Receiver<Message>) {
    capture::sys::block_signals();
    let mut assembler = Assembler::new();
    while let Ok((evidence, described)) = messages.recv() {
        let reports = Reports::of(&evidence.reports);
        let report = catch_unwind(AssertUnwindSafe(|| reports.describe(assembler.assemble(*evidence))));
        let is_lost = report.is_err();
        described.set(report.ok());
        // This may be the last owner of somebody's sinks, and one of them may panic when it is dropped.
        if catch_unwind(AssertUnwindSafe(|| drop(reports))).is_err() || is_lost {
            assembler = Assembler::new();
        }
        if is_lost {
            log_safely(
                || tracing::error!(target: "heeler", "the place of an interruption was not named: the lookup panicked"),
            );
        }
    }
}
