//! The threads that watch the rows, keep their deadlines, and find out where slow work is.
//!
//! Two OS threads a process, started by the first layer or [`watch`](crate::watch). They need nobody's runtime.
//!
//! `heeler-monitor` looks through the table often enough to learn of new deadlines in time, and tells boxes that their time is
//! up. It does nothing that may take long, and nothing in proportion to more than what expires: so it is always in time.
//! `heeler-capture` does what may take long. It finds out where slow work is, and asks threads for their stacks.

mod basis;
mod boxes;
mod budget;
mod captures;
mod children;
mod desk;
mod evidence;
mod heartbeat;
mod hunt;
mod long_poll;
mod scan;
mod stacks;
mod thread;
mod workers;

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Once, OnceLock};
use std::thread::Thread;

use self::desk::Word;
use crate::capture::{self, PerProcess};
use crate::disabled::is_disabled;
use crate::error::Error;
use crate::figures::COUNTS;
use crate::inflight::{self, PolicyId, Row, RowId, flags};
use crate::report::{self, Evidence, Kind, Verdict, log_safely};
use crate::tries::{Tried, Tries};

pub(crate) use evidence::evidence;
pub(crate) use heartbeat::figures;

static THREADS: PerProcess<Threads> = PerProcess::new(Threads::default);
/// Flags that a new row starts with: `ARMED` where every poll is to be traced.
static INITIAL_FLAGS: AtomicU32 = AtomicU32::new(0);
/// The shortest threshold that the monitor's looks at the table are timed for, in nanoseconds; `u64::MAX` while there is no
/// monitor, so that whatever begins has it tried again.
static SHORTEST: AtomicU64 = AtomicU64::new(u64::MAX);
/// The signal chosen with [`use_signal`]; zero for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// The threads, each once it runs, and what came of starting them.
#[derive(Debug, Default)]
struct Threads {
    monitor: OnceLock<Thread>,
    captures: OnceLock<Thread>,
    prepared: OnceLock<()>,
    tries: Tries,
}

/// Starts the monitor's threads and the reporter unless they run. Reads `HEELER_TRACE_EVERY_POLL`.
#[inline]
pub(crate) fn start() {
    if !is_running() {
        start_threads();
    }
}

/// Whether both of the monitor's threads have been started.
#[inline]
fn is_running() -> bool {
    THREADS.existing().is_some_and(|threads| threads.monitor.get().is_some() && threads.captures.get().is_some())
}

#[cold]
#[inline(never)]
fn start_threads() {
    if is_disabled() {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            log_safely(
                || tracing::warn!(target: "heeler", "HEELER_DISABLE=1: nothing is watched, profiled or limited"),
            );
        });
        return;
    }
    capture::notice_forks();
    // Before the threads, which have something to tell it.
    report::start();
    if let Err(error) = try_to_start() {
        log_safely(|| {
            tracing::error!(
                target: "heeler",
                %error,
                "a thread of the monitor did not start: until it does, timeboxes do not expire or nothing is captured. \
                 It is tried again every second"
            );
        });
    }
}

/// Starts what does not run, unless it has just been tried. Runs nobody's code: loggers may do anything, also begin something
/// that is watched, and the monitor's thread comes here, too.
///
/// # Errors
///
/// If a thread does not start; once, until all have.
#[cold]
fn try_to_start() -> std::io::Result<()> {
    let threads = THREADS.get();
    let tried = threads.tries.again(inflight::now, is_running, || {
        threads.prepared.get_or_init(prepare);
        let signal = SIGNAL.load(Ordering::Relaxed);
        let signal = (signal != 0).then_some(signal);
        spawn(&threads.monitor, "heeler-monitor", thread::run)?;
        spawn(&threads.captures, "heeler-capture", move || captures::run(signal))
    });
    match tried {
        Some(Tried { result: Err(error), failed_before: 0 }) => return Err(error),
        Some(Tried { result: Ok(()), failed_before: 1.. }) => desk::leave_word(Word::Runs),
        _ => {}
    }
    Ok(())
}

/// What comes before the threads, once in a process.
fn prepare() {
    if capture::process_number() != 0 {
        // Its parent's were counted there.
        COUNTS.reset();
    }
    // Its parent's, in a child. Later there may be somebody's who has found the monitor: that must not be lost.
    SHORTEST.store(u64::MAX, Ordering::Relaxed);
    // What the first request would otherwise have to wait for.
    inflight::Clock::get();
    capture::warm_up();
    inflight::executors::learn();
    if std::env::var_os("HEELER_TRACE_EVERY_POLL").is_some_and(|value| value == "1") {
        INITIAL_FLAGS.store(flags::ARMED, Ordering::Relaxed);
    }
}

/// Starts a thread unless it runs.
fn spawn(thread: &OnceLock<Thread>, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    if thread.get().is_none() {
        let started = std::thread::Builder::new().name(name.into()).spawn(run)?;
        let _ = thread.set(started.thread().clone());
    }
    Ok(())
}

/// Takes `signal` for thread stacks instead of the first real-time signal that nobody uses. Call it before the first
/// layer is made.
///
/// # Errors
///
/// [`Error::is_signal`] if it is no real-time signal, has a handler already, or the monitor has started with another one;
/// [`Error::is_unsupported`] where thread stacks are not to be had at all.
pub fn use_signal(signal: i32) -> Result<(), Error> {
    if is_disabled() {
        return Ok(());
    }
    let chosen = SIGNAL.load(Ordering::Relaxed);
    let started = THREADS.existing().is_some_and(|threads| threads.captures.get().is_some());
    if started && chosen != signal {
        return Err(Error::signal(format!("signal {signal}: heeler has started with another one"), None));
    }
    if !capture::sys::SUPPORTED {
        return Err(Error::unsupported("there are no thread stacks to take a signal for"));
    }
    capture::install_handler(signal).map_err(|why| Error::signal(format!("signal {signal}: {why}"), None))?;
    SIGNAL.store(signal, Ordering::Relaxed);
    Ok(())
}

#[inline]
pub(crate) fn initial_flags() -> u32 {
    INITIAL_FLAGS.load(Ordering::Relaxed)
}

/// Work with that threshold begins: if it is shorter than any before, the monitor must look sooner.
#[inline]
pub(crate) fn expect(nanos: u64) {
    if nanos < SHORTEST.load(Ordering::Relaxed) {
        hurry(nanos);
    }
}

/// A box with that limit begins. Without a policy there is nothing to do before its limit has passed, and so the monitor
/// may look four times less often than for a threshold.
#[inline]
pub(crate) fn expect_box(policy: PolicyId, limit: u64) {
    // A limit of nothing needs no haste: it is told that before its first poll.
    let limit = limit.max(1_000_000);
    expect(if policy == PolicyId::NONE { limit.saturating_mul(4) } else { limit });
}

#[cold]
#[inline(never)]
fn hurry(nanos: u64) {
    start();
    // Without a monitor, whoever comes next is to try again.
    if let Some(thread) = THREADS.existing().and_then(|threads| threads.monitor.get()) {
        SHORTEST.fetch_min(nanos, Ordering::Relaxed);
        thread.unpark();
    }
}

/// There is something for the thread that captures: a traced poll that it waits for is over.
pub(crate) fn answered() {
    if let Some(thread) = THREADS.existing().and_then(|threads| threads.captures.get()) {
        thread.unpark();
    }
}

/// Whether one more stack may be copied in this second.
pub(crate) fn may_copy(now: u64) -> bool {
    budget::COPIES.take(now)
}

/// The row's owner is dropped and the work has no outcome: reports it as abandoned, if it was slow by then.
#[cold]
#[inline(never)]
pub(crate) fn dropped(row: &'static Row, id: RowId) {
    let Some(policy) = row.policy().get() else { return };
    let (Some(started), threshold) = (row.started(), row.threshold()) else { return };
    if row.flags() & (flags::REPORTED | flags::CHILD) != 0 || std::thread::panicking() {
        return;
    }
    // A layer's box that drops its work has said so itself.
    let interrupted = |row: &Row| row.flags() & flags::EXPIRED != 0 && row.policy() != PolicyId::NONE;
    if inflight::innermost().is_some_and(interrupted) {
        return;
    }
    let now = inflight::now();
    let elapsed = now.saturating_sub(inflight::Clock::get().nanos(started));
    if (elapsed as f64) < threshold as f64 * policy.abandoned_after {
        return;
    }
    if let Some(evidence) = evidence(row, id) {
        report::send(Evidence { kind: Kind::Abandoned, verdict: Verdict::Abandoned, ..evidence });
    }
}
