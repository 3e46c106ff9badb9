//! The threads that watch the rows, keep their deadlines, and find out where slow work is.
//!
//! There are two OS threads per process, started by the first layer or [`watch`](crate::watch). They need no async
//! runtime.
//!
//! `heeler-monitor` scans the table often enough to learn of new deadlines in time, and tells boxes that their time is
//! up. It does nothing slow, and its work grows only with what expires, so it is always in time. `heeler-capture` does
//! what may take long. It finds out where slow work is, and asks threads for their stacks.

mod active_polls;
mod basis;
mod captures;
mod child_probe;
mod contention;
mod desk;
mod diagnosis;
mod dump;
mod ending;
mod evidence;
mod expirations;
mod gather;
mod heartbeat;
mod host;
mod host_files;
mod in_flight;
mod link;
mod long_poll;
mod rivals;
mod scan;
mod stacks;
mod thread;
mod verdict;

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Once, OnceLock};
use std::thread::Thread;

use self::desk::Word;
use crate::capture::RowId;
use crate::capture::{self, PerProcess};
use crate::counts::COUNTS;
use crate::disabled::is_disabled;
use crate::error::Error;
use crate::inflight::{self, Ended, MonitorLink, PolicyId, Row, flags};
use crate::log::log_safely;
use crate::tries::{Tried, Tries};

pub use heartbeat::Monitor;
pub use verdict::{DeniedBy, Kind, Verdict};

pub(crate) use contention::{Contention, Finding};
pub(crate) use dump::{
    Budget as DumpBudget, ClaimEvidence, DumpEvidence, DumpStacks, ResourceEvidence, State, What, WorkEvidence,
    take as take_dump,
};
pub(crate) use ending::Ending;
pub(crate) use evidence::{
    ChildEvidence, ContentionEvidence, Culprit, Evidence, HolderEvidence, OtherEvidence, OtherWork, Others,
    ThreadEvidence,
};
pub(crate) use gather::evidence;
pub(crate) use heartbeat::metrics;
pub(crate) use host::{Denied, HostWatch};
pub(crate) use link::{Reporter, install};

static THREADS: PerProcess<Threads> = PerProcess::new(Threads::default);
/// The shortest threshold that the monitor's scans are timed for, in nanoseconds. It is `u64::MAX` while there is no
/// monitor, so that any work that begins tries to start it.
static SHORTEST: AtomicU64 = AtomicU64::new(u64::MAX);
/// The signal chosen with [`use_signal`], or zero for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// The threads, each once it runs, and the outcome of starting them.
#[derive(Debug, Default)]
struct Threads {
    monitor: OnceLock<Thread>,
    captures: OnceLock<Thread>,
    prepared: OnceLock<()>,
    tries: Tries,
}

/// Starts the monitor's threads and the reporter unless they run. Reads `HEELER_TRACE_EVERY_POLL`. The reporter must be
/// [installed](install) first.
#[inline]
pub(crate) fn start() {
    if !is_running() {
        start_threads();
    }
}

/// Returns whether both of the monitor's threads have been started.
#[inline]
pub(crate) fn is_running() -> bool {
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
    inflight::install_monitor(MonitorLink { start, expect, answered, dropped, ended });
    // Before the threads, because they report to it.
    link::start_reporter();
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

/// Starts what does not run, unless that has just been tried. Runs nobody else's code, because loggers may do anything,
/// even begin watched work, and the monitor's thread comes here, too.
///
/// # Errors
///
/// If a thread does not start. Returned once, until all have started.
#[cold]
fn try_to_start() -> std::io::Result<()> {
    let threads = THREADS.get();
    let tried = threads.tries.again(crate::clock::now, is_running, || {
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

/// Prepares for the threads, once per process.
fn prepare() {
    if capture::process_number() != 0 {
        // The parent's counts stay with the parent.
        COUNTS.reset();
    }
    // In a child this is the parent's. It must not be reset later, when work that has found the monitor may have set
    // it.
    SHORTEST.store(u64::MAX, Ordering::Relaxed);
    // Otherwise the first request would have to wait for this.
    capture::unforked(crate::clock::Clock::get);
    capture::warm_up();
    inflight::executors::learn();
    if std::env::var_os("HEELER_TRACE_EVERY_POLL").is_some_and(|value| value == "1") {
        inflight::set_initial_flags(flags::ARMED);
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

/// Sets the signal that captures thread stacks. Defaults to the first unused real-time signal. Call it before the first
/// layer is made.
///
/// # Errors
///
/// [`Error::is_signal`] if it isn't a real-time signal, already has a handler, or the monitor has started with another
/// one. [`Error::is_unsupported`] where thread stacks are not available at all.
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

/// Returns whether the monitor has to [`hurry`] for work with that threshold, which begins now.
#[inline]
pub(crate) fn is_shorter(nanos: u64) -> bool {
    nanos < SHORTEST.load(Ordering::Relaxed)
}

/// Makes the monitor look in time for work with that threshold.
fn expect(nanos: u64) {
    if is_shorter(nanos) {
        hurry(nanos);
    }
}

/// Makes the monitor look sooner, because this work has the shortest threshold so far. The monitor runs by now, if it
/// could be started.
#[cold]
#[inline(never)]
pub(crate) fn hurry(nanos: u64) {
    // Without a monitor, the next caller should try again.
    if let Some(thread) = THREADS.existing().and_then(|threads| threads.monitor.get()) {
        SHORTEST.fetch_min(nanos, Ordering::Relaxed);
        thread.unpark();
    }
}

/// Tells the capture thread that there is something for it: a traced poll that it waits for is over.
pub(crate) fn answered() {
    if let Some(thread) = THREADS.existing().and_then(|threads| threads.captures.get()) {
        thread.unpark();
    }
}

/// Reports work as abandoned, if it was slow by the time its owner was dropped without an outcome. If a report about it
/// was made before, adds to that how it has ended.
#[cold]
#[inline(never)]
pub(crate) fn dropped(row: &'static Row, id: RowId) {
    if !abandon(row, id) && row.flags() & flags::FOLLOWED != 0 {
        let in_expired_box = inflight::peek_innermost().is_some_and(|row| row.flags() & flags::EXPIRED != 0);
        ended(row, id, if in_expired_box { Ended::Interrupted } else { Ended::Dropped }, None);
    }
}

/// Returns whether there is a report.
fn abandon(row: &'static Row, id: RowId) -> bool {
    let Some(policy) = row.policy().get() else { return false };
    let (Some(started), threshold) = (row.started(), row.threshold()) else { return false };
    // A client that leaves is no trouble for the connection that it has upgraded.
    if row.flags() & (flags::REPORTED | flags::REQUEST) != flags::REQUEST || std::thread::panicking() {
        return false;
    }
    // A layer's box that drops its work has reported that itself.
    let interrupted = |row: &Row| row.flags() & flags::EXPIRED != 0 && row.policy() != PolicyId::NONE;
    if inflight::peek_innermost().is_some_and(interrupted) {
        return false;
    }
    let now = crate::clock::now();
    let elapsed = now.saturating_sub(crate::clock::Clock::get().nanos(started));
    if !policy.abandoned.includes(elapsed, threshold) {
        return false;
    }
    let Some(evidence) = evidence(row, id) else { return false };
    link::send(Evidence { kind: Kind::Abandoned, verdict: Verdict::Abandoned, ..evidence });
    true
}

/// Leaves word of how work has ended that a report was made about.
#[cold]
#[inline(never)]
pub(crate) fn ended(row: &'static Row, id: RowId, how: Ended, status: Option<u16>) {
    if let Some(ending) = Ending::of(row, id, how, status) {
        desk::leave_ending(ending);
    }
}

/// Sends on how work has ended until now, without waiting for the capture thread.
pub(crate) fn send_endings() {
    desk::take_endings().into_iter().for_each(link::end);
}
