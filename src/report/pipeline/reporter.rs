//! The reporter's thread: names stacks and feeds sinks, so that neither a worker nor the monitor ever waits for a disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use super::charge::charge;
use super::inbox::Inbox;
use super::reports::{Reports, WeakReports};
use crate::capture::{self, KEEP_ALIVE, PerProcess};
use crate::disabled::is_disabled;
use crate::log::log_safely;
use crate::monitor::{self, Ending, Evidence};
use crate::report::assemble::{Assembler, report_id};
use crate::report::delivery::Dispatch;
use crate::report::model;
use crate::sync::lock_std;
use crate::tries::{Tried, Tries};

/// How many pieces of evidence may wait, for all `Reports` together. Each `Reports` limits its own bytes. When there
/// are more, the oldest is dropped and counted.
const QUEUE: usize = 2048;
/// How often the reporter checks the counts of held-back reports, and what is to be sent again.
const TICK: Duration = Duration::from_secs(1);

enum Message {
    Evidence(Box<Evidence>),
    Ending(Ending),
    Flush(SyncSender<()>),
    /// These reports will have something on its way.
    Expect(Reports),
    /// Look after what these reports have on its way.
    Know(Reports),
    SelfCheck(Result<i32, &'static str>),
}

/// The messages that wait for the reporter, whether or not its thread could be started, and the attempts to start it.
#[derive(Default)]
struct Desk {
    inbox: Arc<Inbox<Message>>,
    runs: AtomicBool,
    tries: Tries,
}

static DESK: PerProcess<Desk> = PerProcess::new(Desk::default);

/// Starts the reporter unless it is running, or has just failed to start.
pub(crate) fn start() {
    if is_disabled() || is_running() {
        return;
    }
    let desk = DESK.get();
    let tried = desk.tries.again(
        crate::clock::now,
        || desk.runs.load(Ordering::Acquire),
        || {
            start_thread(&desk.inbox)?;
            desk.runs.store(true, Ordering::Release);
            Ok(())
        },
    );
    match tried {
        Some(Tried { result: Err(error), failed_before: 0 }) => log_safely(|| {
            tracing::error!(
                target: "heeler",
                %error,
                "the reporter did not start: until it does, nothing is reported. It is tried again every second"
            );
        }),
        Some(Tried { result: Ok(()), failed_before: failed @ 1.. }) => log_safely(|| {
            tracing::info!(target: "heeler", failed, "the reporter runs now");
        }),
        _ => {}
    }
}

fn start_thread(inbox: &Arc<Inbox<Message>>) -> std::io::Result<()> {
    let (runtime, inbox) = (Arc::new(Mutex::new(Some(runtime()?))), Arc::clone(inbox));
    let theirs = Arc::clone(&runtime);
    let started = std::thread::Builder::new().name("heeler-reporter".into()).spawn(move || {
        let runtime = lock_std(&theirs).take();
        if let Some(runtime) = runtime {
            run(&runtime, &inbox);
        }
    });
    // If the thread doesn't start, its closure is dropped here, and dropping a runtime inside another one panics.
    let left = lock_std(&runtime).take_if(|_| started.is_err());
    if let Some(runtime) = left {
        runtime.shutdown_background();
    }
    started.map(drop)
}

/// Returns whether its thread has been started.
pub(crate) fn is_running() -> bool {
    DESK.existing().is_some_and(|desk| desk.runs.load(Ordering::Acquire))
}

/// Creates the runtime for async sinks. The reporter's thread drives it while it waits for messages.
fn runtime() -> std::io::Result<Runtime> {
    // The runtime looks up host names on threads of its own. It doesn't need many.
    let mut builder = Builder::new_current_thread();
    builder.enable_all().thread_name("heeler-lookup").max_blocking_threads(4).thread_keep_alive(KEEP_ALIVE).build()
}

/// Returns the queue of messages, once the reporter has been asked to start.
fn inbox() -> Option<&'static Inbox<Message>> {
    DESK.existing().map(|desk| &*desk.inbox)
}

/// Adds a message. Evidence that had to make room for it is counted as dropped.
fn post(inbox: &Inbox<Message>, message: Message) {
    let charge = match &message {
        Message::Evidence(evidence) => {
            let reports = Reports::of(&evidence.reports);
            Some(charge(evidence, &reports))
        }
        Message::Ending(_) | Message::Flush(_) | Message::Expect(_) | Message::Know(_) | Message::SelfCheck(_) => None,
    };
    for dropped in inbox.push(message, charge, QUEUE) {
        if let Message::Evidence(evidence) = dropped {
            Reports::of(&evidence.reports).count_dropped();
        }
    }
}

/// Hands evidence over and never waits. If there is no room, the oldest evidence is dropped and counted.
pub(crate) fn send(evidence: Evidence) {
    match inbox() {
        Some(inbox) => post(inbox, Message::Evidence(Box::new(evidence))),
        None => Reports::of(&evidence.reports).count_dropped(),
    }
}

/// Hands over how reported work has ended. Never waits, and makes room for itself at the cost of no evidence.
pub(crate) fn end(ending: Ending) {
    match inbox() {
        Some(inbox) if inbox.len() < QUEUE => post(inbox, Message::Ending(ending)),
        _ => Reports::of(&ending.reports).count_dropped(),
    }
}

/// Logs what works in this process. `signal` is the signal of the thread captures.
pub(crate) fn self_check(signal: Result<i32, &'static str>) {
    if let Some(inbox) = inbox() {
        post(inbox, Message::SelfCheck(signal));
    }
}

/// Has the reporter look after these reports from its next tick on. It calls none of their sinks before.
pub(in crate::report) fn expect(reports: &Reports) {
    if let Some(inbox) = inbox() {
        post(inbox, Message::Expect(reports.clone()));
    }
}

/// Makes the reporter look after what these reports have on its way. Returns false if it isn't running; it will then do
/// so as soon as it runs.
pub(in crate::report) fn know(reports: &Reports) -> bool {
    let Some(inbox) = inbox() else { return false };
    post(inbox, Message::Know(reports.clone()));
    is_running()
}

/// Waits until everything that was sent before has been made a report. Returns false if that takes longer than `left`
/// returns some time, or if the reporter does not start.
pub(in crate::report) fn flush(left: &dyn Fn() -> Duration) -> bool {
    let Some(inbox) = inbox() else { return true };
    start();
    if !is_running() {
        return false;
    }
    monitor::send_endings();
    let (done, wait) = sync_channel(1);
    post(inbox, Message::Flush(done));
    loop {
        let left = left();
        match wait.recv_timeout(left) {
            Ok(()) => return true,
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            Err(_) => return false,
        }
    }
}

fn run(runtime: &Runtime, inbox: &Inbox<Message>) {
    capture::sys::block_signals();
    let mut reporter = Reporter::new(runtime.handle().clone());
    loop {
        // Async sinks make progress during this wait. A message is handled outside the runtime, because sinks may
        // block, and may have runtimes of their own.
        let message = runtime.block_on(inbox.next(if reporter.behind { Duration::ZERO } else { TICK }));
        reporter.turn(message);
    }
}

/// What the reporter's thread owns.
struct Reporter {
    assembler: Assembler,
    runtime: Handle,
    last_tick: Instant,
    known: Vec<Known>,
    /// Whether sinks have more to do than they had time for.
    behind: bool,
}

/// One `Reports` that the reporter looks after.
struct Known {
    /// Used to check now and then what they hold back. It is weak, so that the reporter doesn't keep sinks alive ..
    reports: WeakReports,
    /// .. unless something is on its way to them.
    busy: Option<Arc<Dispatch>>,
}

impl Reporter {
    fn new(runtime: Handle) -> Self {
        Self { assembler: Assembler::new(), runtime, last_tick: Instant::now(), known: Vec::new(), behind: false }
    }

    /// Runs one [`step`](Self::step), and survives a panic in it. Reading other people's debug information, running
    /// other people's sinks (and dropping them), and logging to other people's subscribers must not end the reporter.
    fn turn(&mut self, message: Option<Message>) {
        if catch_unwind(AssertUnwindSafe(|| self.step(message))).is_err() {
            self.assembler = Assembler::new();
            log_safely(|| tracing::error!(target: "heeler", "the reporter panicked, and goes on"));
        }
    }

    fn step(&mut self, message: Option<Message>) {
        match message {
            Some(Message::Evidence(evidence)) => self.report(*evidence),
            Some(Message::Ending(ending)) => {
                let reports = Reports::of(&ending.reports);
                let after = Duration::from_micros(ending.after / 1_000);
                let told = model::Ending { how: ending.how, status: ending.status, after };
                reports.end(&report_id(ending.id, ending.started), told);
                self.look_after(&reports);
            }
            Some(Message::Flush(done)) => {
                // The caller may have given up.
                let _ = done.try_send(());
            }
            Some(Message::Expect(reports)) => drop(self.known(&reports)),
            Some(Message::Know(reports)) => self.look_after(&reports),
            Some(Message::SelfCheck(signal)) => {
                super::self_check::say(signal);
                model::deployment::check();
            }
            None => {}
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.last_tick) >= TICK {
            self.last_tick = now;
            self.tick(now);
            crate::report::metrics::publish::publish();
            crate::inflight::waking::say_what_is_left();
        } else if self.behind {
            self.catch_up(now);
        }
        self.behind = self.known.iter().filter_map(|known| known.busy.as_ref()).any(|busy| busy.is_behind(now));
    }

    /// Continues the deliveries that there was no time for.
    fn catch_up(&mut self, now: Instant) {
        for busy in self.known.iter_mut().map(|known| &mut known.busy) {
            // Not taken out, because it may be the last owner of these sinks, and a sink may panic.
            if let Some(dispatch) = busy.as_ref() {
                *busy = go_on(dispatch, &self.runtime, now);
            }
        }
    }

    /// Does what is due without a message.
    fn tick(&mut self, now: Instant) {
        for known in &mut self.known {
            let reports = known.reports.upgrade();
            if let Some(reports) = &reports {
                reports.tick();
            }
            if let Some(dispatch) = reports.as_ref().map(Reports::dispatch).or(known.busy.as_ref()) {
                dispatch.take_over(now);
                known.busy = go_on(dispatch, &self.runtime, now);
            }
        }
        self.known.retain(|known| known.busy.is_some() || known.reports.upgrade().is_some());
    }

    fn look_after(&mut self, reports: &Reports) {
        let (dispatch, now) = (reports.dispatch(), Instant::now());
        dispatch.take_over(now);
        let busy = go_on(dispatch, &self.runtime, now);
        self.known(reports).busy = busy;
    }

    /// Returns what is known of these reports, which are looked after from now on.
    fn known(&mut self, reports: &Reports) -> &mut Known {
        let at = self.known.iter().position(|known| known.reports.is(reports)).unwrap_or_else(|| {
            self.known.push(Known { reports: reports.downgrade(), busy: None });
            self.known.len() - 1
        });
        &mut self.known[at]
    }

    fn report(&mut self, evidence: Evidence) {
        let reports = Reports::of(&evidence.reports);
        // Caught here already, for two reasons: the loss has to be counted, and `reports`, which may be the last owner
        // of its sinks, must not be dropped by a panic. If a sink then panicked as well, the process would end.
        let done = catch_unwind(AssertUnwindSafe(|| reports.deliver(self.assembler.assemble(evidence))));
        if done.is_err() {
            reports.count_dropped();
            self.assembler = Assembler::new();
            log_safely(|| tracing::error!(target: "heeler", "a report was lost: making it panicked"));
        }
        self.look_after(&reports);
    }
}

/// Sends what is due, and keeps the sinks alive as long as something is on its way.
fn go_on(dispatch: &Arc<Dispatch>, runtime: &Handle, now: Instant) -> Option<Arc<Dispatch>> {
    dispatch.call_sinks(now);
    dispatch.start_async_sinks(runtime, now);
    dispatch.is_busy().then(|| Arc::clone(dispatch))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::{Context, SubscriberExt as _};
    use tracing_subscriber::{Layer, Registry};

    use super::*;
    use crate::capture::Snapshot;
    use crate::inflight::Subject;
    use crate::monitor::{Culprit, ThreadEvidence};
    use crate::report::testing::evidence;
    use crate::report::{Report, Sink};

    fn starved(reports: &Reports, stack: &Snapshot) -> Message {
        let activity = capture::look(0);
        let thread = ThreadEvidence { activity, snapshot: Some(stack.clone()) };
        let culprits = vec![Culprit { thread, work: Subject::Nothing, outside: false }];
        Message::Evidence(Box::new(Evidence { culprits, ..evidence(reports.clone()) }))
    }

    /// Guards: while a sink doesn't return, evidence waits in bounded memory, and dropped evidence is counted. Requests
    /// that wait for one worker and share one copy of its stack take the memory of one.
    #[test]
    fn evidence_waits_in_bounded_memory() {
        let limited = |bytes| Reports::builder().without_log().memory_bytes(bytes).build().unwrap();
        let (reports, other, inbox) = (limited(2 << 20), limited(2 << 20), Inbox::default());
        post(&inbox, starved(&other, &Snapshot::of_zeros(8 * 1024)));
        for _ in 0..100 {
            post(&inbox, starved(&reports, &Snapshot::of_zeros(8 * 1024)));
        }
        assert_eq!(reports.stats().dropped, 85, "fifteen of a little more than 64 KiB are below a MiB");
        let (sharing, shared) = (limited(8 << 20), Snapshot::of_zeros(64 * 1024));
        for _ in 0..100 {
            post(&inbox, starved(&sharing, &shared));
        }
        assert_eq!((sharing.stats().dropped, other.stats().dropped), (0, 0));
        for _ in 0..2 * QUEUE {
            post(&inbox, starved(&sharing, &shared));
        }
        assert_eq!(other.stats().dropped, 1, "nor are there ever more than so many");
    }

    /// Like a layer that spawns a task for each event, and is called on a thread without a runtime.
    struct Panics;

    impl<S: tracing::Subscriber> Layer<S> for Panics {
        fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
            panic!("there is no reactor running");
        }
    }

    /// Guards: a subscriber that panics at every event ends neither the reporter nor the thread that logs.
    #[test]
    fn survives_a_subscriber_that_panics() {
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

        fn deliver(&self, _: &Report) -> Result<(), crate::SinkError> {
            if !self.0.load(Ordering::Relaxed) {
                return Err("not yet".into());
            }
            std::thread::sleep(Duration::from_millis(150));
            Ok(())
        }
    }

    /// Guards: a sink with a backlog leaves the reporter to others after each report, and the reporter returns to it at
    /// once.
    #[test]
    fn a_busy_sink_lets_others_have_turns() {
        let mut reporter = Reporter::new(runtime().unwrap().handle().clone());
        let slow = Arc::new(Slow::default());
        let reports =
            Reports::builder().without_log().repeat_after(Duration::ZERO).sink(Arc::clone(&slow)).build().unwrap();
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

    /// A sink that panics when it is dropped, and signals that it was.
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

        fn deliver(&self, _: &Report) -> Result<(), crate::SinkError> {
            Ok(())
        }
    }

    /// Guards: the reporter may be the last owner of an application's sinks.
    #[test]
    fn survives_a_sink_that_panics_on_drop() {
        let mut reporter = Reporter::new(runtime().unwrap().handle().clone());
        let (dropped, tell) = sync_channel(1);
        let reports = Reports::builder().without_log().sink(PanicsOnDrop(dropped)).build().unwrap();
        reporter.turn(Some(Message::Evidence(Box::new(evidence(reports)))));
        assert_eq!(tell.try_recv(), Ok(()));
        reporter.last_tick -= TICK;
        reporter.turn(None);
        assert!(reporter.known.is_empty(), "what is gone is forgotten");
    }

    /// Guards: a flush may wait forever.
    #[test]
    fn flush_can_wait_forever() {
        start();
        assert!(flush(&|| Duration::MAX));
    }
}
