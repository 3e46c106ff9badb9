//! The reporter's thread: names stacks and feeds sinks, so that neither a worker nor the monitor ever waits for a disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::assemble::Assembler;
use super::evidence::Evidence;
use super::reports::{Reports, WeakReports};
use crate::capture;

/// Evidence that may wait to be reported. What comes while the queue is full is dropped and counted.
const QUEUE: usize = 2048;
/// How often counts of held-back reports are looked at.
const TICK: Duration = Duration::from_secs(1);

enum Message {
    Evidence(Box<Evidence>),
    Flush(SyncSender<()>),
    SelfCheck(Result<i32, &'static str>),
}

static QUEUE_END: OnceLock<Option<SyncSender<Message>>> = OnceLock::new();

/// Starts the reporter unless it runs.
pub(crate) fn start() {
    QUEUE_END.get_or_init(|| {
        let (sender, receiver) = sync_channel(QUEUE);
        let started = std::thread::Builder::new().name("heeler-reporter".into()).spawn(move || run(&receiver));
        match started {
            Ok(_) => Some(sender),
            Err(error) => {
                tracing::error!(target: "heeler", %error, "the reporter's thread did not start: nothing is reported");
                None
            }
        }
    });
}

fn queue() -> Option<&'static SyncSender<Message>> {
    QUEUE_END.get()?.as_ref()
}

/// Hands evidence over; never waits. What the queue has no room for is counted as dropped.
pub(crate) fn send(evidence: Evidence) {
    let reports = evidence.reports.clone();
    let sent = queue().map(|queue| queue.try_send(Message::Evidence(Box::new(evidence))));
    match sent {
        Some(Ok(())) => {}
        Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => reports.count_dropped(),
    }
}

/// Says in the log what works in this process; `signal` is that of the thread captures.
pub(crate) fn self_check(signal: Result<i32, &'static str>) {
    if let Some(queue) = queue() {
        // At the start the queue is empty.
        let _ = queue.try_send(Message::SelfCheck(signal));
    }
}

/// Waits until everything that was sent before has been delivered; false if that takes longer than `timeout`.
pub(super) fn flush(timeout: Duration) -> bool {
    let Some(queue) = queue() else { return true };
    let deadline = Instant::now() + timeout;
    let (done, wait) = sync_channel(1);
    let mut message = Message::Flush(done);
    loop {
        match queue.try_send(message) {
            Ok(()) => break,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(back)) if Instant::now() < deadline => {
                message = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(TrySendError::Full(_)) => return false,
        }
    }
    wait.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
}

fn run(receiver: &Receiver<Message>) {
    capture::sys::block_signals();
    let mut assembler = Assembler::new();
    let mut last_tick = Instant::now();
    // To look now and then at what they hold back.
    let mut known: Vec<WeakReports> = Vec::new();
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(Message::Evidence(evidence)) => {
                let reports = evidence.reports.clone();
                if !known.iter().any(|weak| weak.is(&reports)) {
                    known.push(reports.downgrade());
                }
                // Reading other people's debug information and running other people's sinks must not end the reporter.
                let done = catch_unwind(AssertUnwindSafe(|| {
                    let report = assembler.assemble(*evidence);
                    reports.deliver(report);
                }));
                if done.is_err() {
                    reports.count_dropped();
                    tracing::error!(target: "heeler", "a report was lost: making it panicked");
                    assembler = Assembler::new();
                }
            }
            Ok(Message::Flush(done)) => {
                // Whoever asked may have given up.
                let _ = done.try_send(());
            }
            Ok(Message::SelfCheck(signal)) => super::self_check::say(signal, assembler.symbols()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if last_tick.elapsed() >= TICK {
            last_tick = Instant::now();
            known.retain(|weak| weak.upgrade().inspect(Reports::tick).is_some());
        }
    }
}
