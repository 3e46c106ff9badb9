//! The thread that watches the rows, keeps their deadlines, and finds out where slow work is.
//!
//! One OS thread a process, started by the first layer or [`watch`](crate::watch). It needs nobody's runtime. It sleeps
//! until the next deadline that it knows of, and looks through the table often enough to learn of new ones in time.

mod basis;
mod boxes;
mod budget;
mod children;
mod evidence;
mod hunt;
mod long_poll;
mod scan;
mod thread;
mod workers;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::thread::Thread;

use crate::error::Error;
use crate::inflight::{self, PolicyId, Row, RowId, flags};
use crate::report::{self, Evidence, Kind, Verdict};

pub(crate) use evidence::evidence;

static THREAD: OnceLock<Option<Thread>> = OnceLock::new();
/// Flags that a new row starts with: `ARMED` where every poll is to be traced.
static INITIAL_FLAGS: AtomicU32 = AtomicU32::new(0);
/// The shortest threshold that the monitor's looks at the table are timed for, in nanoseconds.
static SHORTEST: AtomicU64 = AtomicU64::new(u64::MAX);
/// The signal chosen with [`use_signal`]; zero for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Starts the monitor and the reporter unless they run. Reads `HEELER_TRACE_EVERY_POLL`.
pub(crate) fn start() {
    THREAD.get_or_init(|| {
        // What the first request would otherwise have to wait for.
        inflight::Clock::get();
        crate::capture::warm_up();
        if std::env::var_os("HEELER_TRACE_EVERY_POLL").is_some_and(|value| value == "1") {
            INITIAL_FLAGS.store(flags::ARMED, Ordering::Relaxed);
        }
        report::start();
        let signal = SIGNAL.load(Ordering::Relaxed);
        let signal = (signal != 0).then_some(signal);
        let started = std::thread::Builder::new().name("heeler-monitor".into()).spawn(move || thread::run(signal));
        match started {
            Ok(handle) => Some(handle.thread().clone()),
            Err(error) => {
                tracing::error!(target: "heeler", %error, "the monitor's thread did not start: nothing is watched");
                None
            }
        }
    });
}

/// Takes `signal` for thread stacks instead of the first real-time signal that nobody uses. Call it before the first
/// layer is made.
///
/// # Errors
///
/// [`Error::is_signal`] if it is no real-time signal, has a handler already, or the monitor has started with another one;
/// [`Error::is_unsupported`] where thread stacks are not to be had at all.
pub fn use_signal(signal: i32) -> Result<(), Error> {
    let chosen = SIGNAL.load(Ordering::Relaxed);
    if THREAD.get().is_some() && chosen != signal {
        return Err(Error::signal(format!("signal {signal}: heeler has started with another one"), None));
    }
    if !crate::capture::sys::SUPPORTED {
        return Err(Error::unsupported("there are no thread stacks to take a signal for"));
    }
    crate::capture::install_handler(signal).map_err(|why| Error::signal(format!("signal {signal}: {why}"), None))?;
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
    SHORTEST.fetch_min(nanos, Ordering::Relaxed);
    answered();
}

/// A traced poll that the monitor waits for is over.
pub(crate) fn answered() {
    if let Some(Some(thread)) = THREAD.get() {
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
    if let Some(evidence) = evidence(row, id, now) {
        report::send(Evidence { kind: Kind::Abandoned, verdict: Verdict::Abandoned, ..evidence });
    }
}
