//! The thread that asks the runtimes, and reports those that do not answer.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::pulse::Pulse;
use crate::capture::{PerProcess, RuntimeId, ThreadSlot, sys};
use crate::clock::now;
use crate::disabled::is_disabled;
use crate::log::log_safely;
use crate::monitor::HostWatch;
use crate::report::{Reports, log_later};
use crate::sync::lock_std;
use crate::text::units::duration;

/// The time between two beats.
pub(super) const PERIOD: Duration = Duration::from_millis(50);
/// A runtime that does not run what is ready for this long is stalled.
pub(super) const STALL: Duration = Duration::from_millis(200);
/// How soon a stall that goes on is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How soon after one report the next may come about the same runtime.
const AGAIN: Duration = Duration::from_secs(60);

struct Watched {
    pulse: Arc<Pulse>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Runtimes {
    all: Vec<Watched>,
    has_thread: bool,
}

static RUNTIMES: PerProcess<Mutex<Runtimes>> = PerProcess::new(Mutex::default);
static TURNS: AtomicU64 = AtomicU64::new(0);

/// Watches whether a runtime runs what is ready. A tiny task on it answers a thread of heeler's, twenty times a second. If
/// it does not answer for 200 ms, all its workers are held by something else: that is a stall, and makes a
/// [dump](crate::Reports::dump), with the stacks of the threads that hold the workers and the requests that wait behind
/// them. At most one a minute is sent. Where the host has denied the process the CPU, there is no stall.
///
/// [`runtimes`](crate::runtimes) has the delays. The runtime is watched until it is shut down, and only once. A
/// current-thread runtime runs nothing while nobody drives it, so watch one only if something always does.
///
/// ```
/// # #[tokio::main]
/// # async fn main() {
/// heeler::watch_runtime("main", &tokio::runtime::Handle::current(), heeler::Reports::default());
/// # }
/// ```
pub fn watch_runtime(name: impl Into<String>, handle: &Handle, reports: Reports) {
    if is_disabled() {
        return;
    }
    let pulse = Arc::new(Pulse::new(name.into(), handle.clone(), reports));
    let mut runtimes = lock_std(RUNTIMES.get());
    let id = RuntimeId::of(handle);
    let is_known = |watched: &Watched| !watched.task.is_finished() && RuntimeId::of(&watched.pulse.handle) == id;
    if id.is_some() && runtimes.all.iter().any(is_known) {
        drop(runtimes);
        log_safely(|| tracing::warn!(target: "heeler", name = %pulse.name, "this runtime is watched already"));
        return;
    }
    if !runtimes.has_thread
        && let Err(error) = std::thread::Builder::new().name("heeler-beat".into()).spawn(run)
    {
        drop(runtimes);
        log_safely(|| {
            tracing::error!(target: "heeler", name = %pulse.name, %error, "this runtime is not watched: no thread could be started");
        });
        return;
    }
    runtimes.has_thread = true;
    let task = handle.spawn(beat(Arc::clone(&pulse)));
    runtimes.all.push(Watched { pulse, task });
}

/// Runs on the runtime. It needs none of its drivers.
async fn beat(pulse: Arc<Pulse>) {
    loop {
        pulse.asked.notified().await;
        // From now on the stack of this worker can be taken, whatever it does.
        ThreadSlot::mine();
        pulse.answer();
    }
}

/// Returns what `look` says of each runtime that is not shut down. Only the thread that asks them may keep a heartbeat: whoever
/// has the last one drops sinks, whose code is the application's.
pub(super) fn of_each<T>(look: impl Fn(&Arc<Pulse>) -> T) -> Vec<T> {
    let runtimes = lock_std(RUNTIMES.get());
    let running = runtimes.all.iter().filter(|watched| !watched.task.is_finished());
    running.map(|watched| look(&watched.pulse)).collect()
}

/// Returns how often the thread has asked the runtimes, which shows whether it goes on.
#[cfg(feature = "systemd")]
pub(super) fn turns() -> u64 {
    TURNS.load(Ordering::Relaxed)
}

fn run() {
    sys::block_signals();
    let mut watch = Watch::new();
    loop {
        let wanted = now().saturating_add(PERIOD.as_nanos() as u64);
        std::thread::sleep(PERIOD);
        // Supervisors rely on this thread.
        if catch_unwind(AssertUnwindSafe(|| watch.turn(wanted))).is_err() {
            watch = Watch::new();
            log_later(|| tracing::error!(target: "heeler", "the watch of the runtimes panicked, and goes on"));
        }
        TURNS.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the thread knows.
struct Watch {
    host: HostWatch,
    stalls: HashMap<usize, Stall>,
}

impl Watch {
    fn new() -> Self {
        Self { host: HostWatch::new(), stalls: HashMap::new() }
    }

    /// Asks all runtimes, and looks at those that do not answer. This thread was to be woken at `wanted`.
    fn turn(&mut self, wanted: u64) {
        let woken = now();
        self.host.woken(wanted, woken);
        self.host.look(woken);
        forget_ended();
        let pulses = of_each(Arc::clone);
        let key = |pulse: &Arc<Pulse>| Arc::as_ptr(pulse).addr();
        self.stalls.retain(|stalled, _| pulses.iter().any(|pulse| key(pulse) == *stalled));
        for pulse in &pulses {
            let since = pulse.ask(woken);
            self.stalls.entry(key(pulse)).or_default().look(pulse, since, &mut self.host);
        }
    }
}

/// Drops what belongs to runtimes that are shut down. That may be the last of a sink, whose code is the application's: it may
/// take long, or panic, and has a thread of its own.
fn forget_ended() {
    let ended: Vec<Watched> = {
        let mut runtimes = lock_std(RUNTIMES.get());
        runtimes.all.extract_if(.., |watched| watched.task.is_finished()).collect()
    };
    if ended.is_empty() {
        return;
    }
    let drops = || std::thread::Builder::new().name("heeler-drop".into()).spawn(move || drop(ended));
    // Without a thread, it is dropped here.
    if !matches!(catch_unwind(AssertUnwindSafe(drops)), Ok(Ok(_))) {
        log_later(|| tracing::warn!(target: "heeler", "no thread could be started to drop sinks"));
    }
}

/// What is known of the stall of a runtime.
#[derive(Default)]
struct Stall {
    /// When it was looked at last, in nanoseconds of [`now`], or 0.
    looked: u64,
    is_counted: bool,
    is_throttled: bool,
    is_reported: bool,
    /// When the last one was reported.
    reported: Option<Instant>,
}

impl Stall {
    /// Looks at a runtime that has not answered `since` then.
    fn look(&mut self, pulse: &Arc<Pulse>, since: Option<u64>, host: &mut HostWatch) {
        let Some(since) = since else {
            *self = Self { reported: self.reported, ..Self::default() };
            return;
        };
        let now = now();
        // One that the host explains may go on for another reason.
        let from = since.max(self.looked);
        let pause = if self.looked == 0 { STALL } else { LOOK_AGAIN };
        if self.is_reported || Duration::from_nanos(now.saturating_sub(from)) < pause {
            return;
        }
        self.looked = now;
        // What keeps this thread from the CPU keeps the workers from it, too.
        if host.explains(RuntimeId::of(&pulse.handle), from, now) {
            if !self.is_throttled && !self.is_counted {
                pulse.count_stall(true);
            }
            self.is_throttled = true;
            return;
        }
        if !self.is_counted {
            pulse.count_stall(false);
        }
        self.is_counted = true;
        if self.reported.is_none_or(|reported| reported.elapsed() >= AGAIN) {
            (self.is_reported, self.reported) = (true, Some(Instant::now()));
            report(Arc::clone(pulse), since);
        }
    }
}

/// Sends a dump, on a thread of its own: it takes a while, and the runtimes are to be asked meanwhile.
fn report(pulse: Arc<Pulse>, since: u64) {
    let started = std::thread::Builder::new().name("heeler-dump".into()).spawn(move || {
        sys::block_signals();
        let silence = duration(Duration::from_nanos(now().saturating_sub(since)));
        let reason = format!("the runtime \"{}\" has not run anything for {silence}", pulse.name);
        pulse.reports.blocking_dump(&reason);
    });
    if let Err(error) = started {
        log_later(
            move || tracing::error!(target: "heeler", %error, "a stall is not reported: no thread could be started"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Report, Sink, SinkError, runtimes};

    struct Spiteful;

    impl Sink for Spiteful {
        fn name(&self) -> &'static str {
            "spiteful"
        }

        fn deliver(&self, _: &Report) -> Result<(), SinkError> {
            Ok(())
        }
    }

    impl Drop for Spiteful {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("a sink that panics when it is dropped"));
        }
    }

    /// Guards: a sink that panics when its runtime has ended does not end the watch of others.
    #[test]
    fn others_are_watched_when_a_sink_panics() {
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let ending = runtime();
        watch_runtime("ending", ending.handle(), Reports::builder().without_log().sink(Spiteful).build().unwrap());
        ending.shutdown_background();
        let patience = Instant::now();
        let is_there = |name: &str| runtimes().into_iter().find(|runtime| runtime.name == name);
        while is_there("ending").is_some() {
            assert!(patience.elapsed() < Duration::from_secs(40));
            std::thread::sleep(PERIOD);
        }
        std::thread::sleep(2 * PERIOD);
        let other = runtime();
        watch_runtime("other", other.handle(), Reports::default());
        while is_there("other").is_none_or(|health| health.chart.is_empty()) {
            assert!(patience.elapsed() < Duration::from_secs(40));
            std::thread::sleep(PERIOD);
        }
    }
}
