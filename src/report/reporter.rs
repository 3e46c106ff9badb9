//! The reporter's thread: names stacks and feeds sinks, so that neither a worker nor the monitor ever waits for a disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use super::assemble::Assembler;
use super::delivery::Dispatch;
use super::evidence::Evidence;
use super::inbox::Inbox;
use super::log_safely;
use super::reports::{Reports, WeakReports};
use crate::capture;

/// Evidence that may wait to be reported. When there is more, the oldest is dropped and counted.
const QUEUE: usize = 2048;
/// How often counts of held-back reports, and what waits to be sent again, are looked at.
const TICK: Duration = Duration::from_secs(1);

enum Message {
    Evidence(Box<Evidence>),
    Flush(SyncSender<()>),
    /// Look after what these have on its way.
    Know(Reports),
    SelfCheck(Result<i32, &'static str>),
}

static INBOX: OnceLock<Option<Arc<Inbox<Message>>>> = OnceLock::new();

/// Starts the reporter unless it runs.
pub(crate) fn start() {
    INBOX.get_or_init(|| {
        let inbox = Arc::new(Inbox::default());
        let theirs = Arc::clone(&inbox);
        let started = runtime().and_then(|runtime| {
            std::thread::Builder::new().name("heeler-reporter".into()).spawn(move || run(&runtime, &theirs))
        });
        match started {
            Ok(_) => Some(inbox),
            Err(error) => {
                log_safely(|| {
                    tracing::error!(target: "heeler", %error, "the reporter did not start: nothing is reported");
                });
                None
            }
        }
    });
}

/// What remotes run on: turned by the reporter's thread while it waits for messages.
fn runtime() -> std::io::Result<Runtime> {
    // Names of hosts are looked up on threads of its own, which need not be many.
    Builder::new_current_thread().enable_all().thread_name("heeler-lookup").max_blocking_threads(4).build()
}

fn inbox() -> Option<&'static Inbox<Message>> {
    INBOX.get()?.as_deref()
}

/// Adds a message. What has to go for it is counted as dropped.
fn post(inbox: &Inbox<Message>, message: Message) {
    let dropped = inbox.push(message, QUEUE, |message| matches!(message, Message::Evidence(_)));
    if let Some(Message::Evidence(evidence)) = dropped {
        evidence.reports.count_dropped();
    }
}

/// Hands evidence over; never waits. For what there is no room, the oldest is counted as dropped.
pub(crate) fn send(evidence: Evidence) {
    match inbox() {
        Some(inbox) => post(inbox, Message::Evidence(Box::new(evidence))),
        None => evidence.reports.count_dropped(),
    }
}

/// Says in the log what works in this process; `signal` is that of the thread captures.
pub(crate) fn self_check(signal: Result<i32, &'static str>) {
    if let Some(inbox) = inbox() {
        post(inbox, Message::SelfCheck(signal));
    }
}

/// Has the reporter look after what these have on its way. False if there is no reporter.
pub(super) fn know(reports: &Reports) -> bool {
    let Some(inbox) = inbox() else { return false };
    post(inbox, Message::Know(reports.clone()));
    true
}

/// Waits until everything that was sent before has been made a report; false if that is not so by `deadline`. `None` is
/// never.
pub(super) fn flush(deadline: Option<Instant>) -> bool {
    let Some(inbox) = inbox() else { return true };
    let (done, wait) = sync_channel(1);
    post(inbox, Message::Flush(done));
    let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    wait.recv_timeout(left).is_ok()
}

fn run(runtime: &Runtime, inbox: &Inbox<Message>) {
    capture::sys::block_signals();
    let mut reporter = Reporter::new(runtime.handle().clone());
    loop {
        // Remotes go on while this waits. What a message takes is done outside of the runtime, for sinks may block, and
        // may have runtimes of their own.
        let message = runtime.block_on(inbox.next(if reporter.behind { Duration::ZERO } else { TICK }));
        reporter.turn(message);
    }
}

/// What the reporter's thread owns.
struct Reporter {
    assembler: Assembler,
    remotes: Handle,
    last_tick: Instant,
    known: Vec<Known>,
    /// Sinks have more to do than they had time for.
    behind: bool,
}

/// Some reports that are looked after.
struct Known {
    /// To look now and then at what they hold back. The reporter keeps nobody's sinks alive ..
    reports: WeakReports,
    /// .. unless something is on its way to them.
    busy: Option<Arc<Dispatch>>,
}

impl Reporter {
    fn new(remotes: Handle) -> Self {
        Self { assembler: Assembler::new(), remotes, last_tick: Instant::now(), known: Vec::new(), behind: false }
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
            Some(Message::Know(reports)) => self.look_after(&reports),
            Some(Message::SelfCheck(signal)) => super::self_check::say(signal, self.assembler.symbols()),
            None => {}
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.last_tick) >= TICK {
            self.last_tick = now;
            self.tick(now);
            super::publish::publish();
        } else if self.behind {
            self.catch_up(now);
        }
        self.behind = self.known.iter().filter_map(|known| known.busy.as_ref()).any(|busy| busy.is_behind(now));
    }

    /// Goes on with what there was no time for.
    fn catch_up(&mut self, now: Instant) {
        for busy in self.known.iter_mut().map(|known| &mut known.busy) {
            // Not taken out: it may be all that holds these reports, and somebody's sink may panic.
            if let Some(dispatch) = busy.as_ref() {
                *busy = go_on(dispatch, &self.remotes, now);
            }
        }
    }

    /// What is due without anybody having said something.
    fn tick(&mut self, now: Instant) {
        for known in &mut self.known {
            let reports = known.reports.upgrade();
            if let Some(reports) = &reports {
                reports.tick();
            }
            if let Some(dispatch) = reports.as_ref().map(Reports::dispatch).or(known.busy.as_ref()) {
                dispatch.take_over(now);
                known.busy = go_on(dispatch, &self.remotes, now);
            }
        }
        self.known.retain(|known| known.busy.is_some() || known.reports.upgrade().is_some());
    }

    fn look_after(&mut self, reports: &Reports) {
        let (dispatch, now) = (reports.dispatch(), Instant::now());
        dispatch.take_over(now);
        let busy = go_on(dispatch, &self.remotes, now);
        match self.known.iter_mut().find(|known| known.reports.is(reports)) {
            Some(known) => known.busy = busy,
            None => self.known.push(Known { reports: reports.downgrade(), busy }),
        }
    }

    fn report(&mut self, evidence: Evidence) {
        let reports = evidence.reports.clone();
        // Caught here already: the loss is to be counted, and `reports`, which may be the last that hold their sinks, must
        // not be dropped by a panic. A sink that panics in its turn would end the process.
        let done = catch_unwind(AssertUnwindSafe(|| reports.deliver(self.assembler.assemble(evidence))));
        if done.is_err() {
            reports.count_dropped();
            self.assembler = Assembler::new();
            log_safely(|| tracing::error!(target: "heeler", "a report was lost: making it panicked"));
        }
        self.look_after(&reports);
    }
}

/// Has sent what is due, and keeps the sinks as long as something is on its way.
fn go_on(dispatch: &Arc<Dispatch>, remotes: &Handle, now: Instant) -> Option<Arc<Dispatch>> {
    dispatch.call_sinks(now);
    dispatch.start_remotes(remotes, now);
    dispatch.is_busy().then(|| Arc::clone(dispatch))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

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
        let mut reporter = Reporter::new(runtime().unwrap().handle().clone());
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

    /// Fails until it is told to take its time.
    #[derive(Default)]
    struct Slow(AtomicBool);

    impl Sink for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        fn deliver(&self, _: &Report) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            if !self.0.load(Ordering::Relaxed) {
                return Err("not yet".into());
            }
            std::thread::sleep(Duration::from_millis(150));
            Ok(())
        }
    }

    /// Guards: a sink that has to catch up leaves the reporter to others after each report, which comes back to it at once.
    #[test]
    fn catching_up() {
        let mut reporter = Reporter::new(runtime().unwrap().handle().clone());
        let slow = Arc::new(Slow::default());
        let reports =
            Reports::builder().log(false).repeat_after(Duration::ZERO).sink(Arc::clone(&slow)).build().unwrap();
        for _ in 0..4 {
            reporter.turn(Some(Message::Evidence(Box::new(evidence(reports.clone())))));
        }
        assert_eq!((reports.stats().queued, reporter.behind), (4, false), "a pause");
        slow.0.store(true, Ordering::Relaxed);
        reports.dispatch().hurry();
        reporter.turn(Some(Message::Know(reports.clone())));
        for taken in 1..4 {
            assert_eq!((reports.stats().delivered, reporter.behind), (taken, true));
            reporter.turn(None);
        }
        assert_eq!((reports.stats().delivered, reporter.behind), (4, false));
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
        let mut reporter = Reporter::new(runtime().unwrap().handle().clone());
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
        assert!(flush(None));
    }
}
