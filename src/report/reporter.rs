//! The reporter's thread: names stacks and feeds sinks, so that neither a worker nor the monitor ever waits for a disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::assemble::Assembler;
use super::evidence::Evidence;
use super::log_safely;
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
                log_safely(|| {
                    tracing::error!(target: "heeler", %error, "the reporter's thread did not start: nothing is reported");
                });
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
    // None is for ever: so long a wait ends after the last time that can be told.
    let deadline = Instant::now().checked_add(timeout);
    let left = || deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    let (done, wait) = sync_channel(1);
    let mut message = Message::Flush(done);
    loop {
        match queue.try_send(message) {
            Ok(()) => break,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(back)) if !left().is_zero() => {
                message = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(TrySendError::Full(_)) => return false,
        }
    }
    wait.recv_timeout(left()).is_ok()
}

fn run(receiver: &Receiver<Message>) {
    capture::sys::block_signals();
    let mut reporter = Reporter::new();
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(message) => reporter.turn(Some(message)),
            Err(RecvTimeoutError::Timeout) => reporter.turn(None),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What the reporter's thread owns.
struct Reporter {
    assembler: Assembler,
    last_tick: Instant,
    /// To look now and then at what they hold back.
    known: Vec<WeakReports>,
}

impl Reporter {
    fn new() -> Self {
        Self { assembler: Assembler::new(), last_tick: Instant::now(), known: Vec::new() }
    }

    /// One [`step`](Self::step), whatever becomes of it. Reading other people's debug information, running other people's
    /// sinks (and dropping them), and logging to other people's subscribers must not end the reporter.
    fn turn(&mut self, message: Option<Message>) {
        if catch_unwind(AssertUnwindSafe(|| self.step(message))).is_err() {
            self.assembler = Assembler::new();
            log_safely(|| tracing::error!(target: "heeler", "the reporter panicked, and goes on"));
        }
    }

    fn step(&mut self, message: Option<Message>) {
        match message {
            Some(Message::Evidence(evidence)) => self.report(*evidence),
            Some(Message::Flush(done)) => {
                // Whoever asked may have given up.
                let _ = done.try_send(());
            }
            Some(Message::SelfCheck(signal)) => super::self_check::say(signal, self.assembler.symbols()),
            None => {}
        }
        if self.last_tick.elapsed() >= TICK {
            self.last_tick = Instant::now();
            self.known.retain(|weak| weak.upgrade().inspect(Reports::tick).is_some());
        }
    }

    fn report(&mut self, evidence: Evidence) {
        let reports = evidence.reports.clone();
        if !self.known.iter().any(|weak| weak.is(&reports)) {
            self.known.push(reports.downgrade());
        }
        // Caught here already: the loss is to be counted, and `reports`, which may be the last that hold their sinks, must
        // not be dropped by a panic. A sink that panics in its turn would end the process.
        let done = catch_unwind(AssertUnwindSafe(|| reports.deliver(self.assembler.assemble(evidence))));
        if done.is_err() {
            reports.count_dropped();
            self.assembler = Assembler::new();
            log_safely(|| tracing::error!(target: "heeler", "a report was lost: making it panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::{Context, SubscriberExt as _};
    use tracing_subscriber::{Layer, Registry};

    use super::*;
    use crate::report::testing::evidence;
    use crate::report::{Report, Sink};

    /// As a layer that spawns a task for each event, and is called on a thread without a runtime.
    struct Panics;

    impl<S: tracing::Subscriber> Layer<S> for Panics {
        fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
            panic!("there is no reactor running");
        }
    }

    /// Guards: a subscriber that panics at every event ends neither the reporter nor whoever logs.
    #[test]
    fn a_subscriber_that_panics_is_survived() {
        let mut reporter = Reporter::new();
        tracing::subscriber::with_default(Registry::default().with(Panics), || {
            let log = || tracing::error!(target: "heeler", "said to nobody");
            assert!(catch_unwind(log).is_err(), "the layer is asked");
            log_safely(log);
            reporter.turn(Some(Message::SelfCheck(Err("none was taken"))));
        });
        let (done, wait) = sync_channel(1);
        reporter.turn(Some(Message::Flush(done)));
        assert_eq!(wait.try_recv(), Ok(()), "it goes on");
    }

    /// A sink that panics when it is dropped, and tells when that was.
    struct PanicsOnDrop(SyncSender<()>);

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            panic!("still in use");
        }
    }

    impl Sink for PanicsOnDrop {
        fn name(&self) -> &'static str {
            "panics on drop"
        }

        fn deliver(&self, _: &Report) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Ok(())
        }
    }

    /// Guards: the reporter may be the last that holds somebody's sinks.
    #[test]
    fn a_sink_that_panics_on_drop_is_survived() {
        let mut reporter = Reporter::new();
        let (dropped, tell) = sync_channel(1);
        let reports = Reports::builder().log(false).sink(PanicsOnDrop(dropped)).build().unwrap();
        reporter.turn(Some(Message::Evidence(Box::new(evidence(reports)))));
        assert_eq!(tell.try_recv(), Ok(()));
        reporter.last_tick -= TICK;
        reporter.turn(None);
        assert!(reporter.known.is_empty(), "what is gone is forgotten");
    }

    /// Guards: for ever is a time to wait, too.
    #[test]
    fn flush_without_an_end() {
        start();
        assert!(flush(Duration::MAX));
    }
}
