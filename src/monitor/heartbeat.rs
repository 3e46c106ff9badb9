//! Whether the monitor lives, and how late it has been: written by its thread alone, and read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::capture::PerProcess;
use crate::clock::now;

/// The longest that the monitor sleeps: it turns at least so often.
pub(super) const LONGEST_SLEEP: u64 = 1_000_000_000;
/// The longest lag of so long a time is kept, and that of the time before.
const WINDOW: u64 = 30_000_000_000;

/// Whether the monitor lives, and how late it is: without it, nothing is reported and no timebox expires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Monitor {
    /// Whether its threads run. If one could not be started, that is tried again every second.
    pub running: bool,
    /// Time since it last turned. It does so every second at the latest; zero if it has not yet.
    pub heartbeat_age: Duration,
    /// The longest that it was late with anything, a timebox above all, in the last thirty to sixty seconds, or that it is
    /// late now.
    pub max_lag: Duration,
}

/// Times are nanoseconds of [`now`].
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    /// When it last turned; 0 for never.
    beat: AtomicU64,
    /// When it is to turn next.
    due: AtomicU64,
    /// When this window began.
    window: AtomicU64,
    /// The longest lag of this window, and of the one before.
    lag: AtomicU64,
    previous: AtomicU64,
}

static HEARTBEAT: PerProcess<Heartbeat> = PerProcess::new(Heartbeat::default);

/// This process's.
pub(super) fn heartbeat() -> &'static Heartbeat {
    HEARTBEAT.get()
}

impl Heartbeat {
    /// A turn begins.
    pub(super) fn beat(&self, now: u64) {
        let since = now.saturating_sub(self.window.load(Ordering::Relaxed));
        if since >= WINDOW {
            let last = if since < 2 * WINDOW { self.lag.load(Ordering::Relaxed) } else { 0 };
            self.previous.store(last, Ordering::Relaxed);
            self.lag.store(0, Ordering::Relaxed);
            self.window.store(now, Ordering::Relaxed);
        }
        let due = self.due.load(Ordering::Relaxed);
        if due != 0 {
            self.note(now.saturating_sub(due));
        }
        self.beat.store(now, Ordering::Relaxed);
        self.due.store(now, Ordering::Relaxed);
    }

    /// Something was done so late.
    pub(super) fn note(&self, lag: u64) {
        if lag > self.lag.load(Ordering::Relaxed) {
            self.lag.store(lag, Ordering::Relaxed);
        }
    }

    /// The turn has ended, and there is nothing to do until `due`.
    pub(super) fn rest(&self, due: u64) {
        self.due.store(due, Ordering::Relaxed);
    }

    fn metrics(&self, now: u64, running: bool) -> Monitor {
        let [beat, due, lag, previous] =
            [&self.beat, &self.due, &self.lag, &self.previous].map(|word| word.load(Ordering::Relaxed));
        if beat == 0 {
            return Monitor { running, ..Monitor::default() };
        }
        // One that hangs does not say so itself.
        let overdue = now.saturating_sub(due);
        Monitor {
            running,
            heartbeat_age: Duration::from_nanos(now.saturating_sub(beat)),
            max_lag: Duration::from_nanos(lag.max(previous).max(overdue)),
        }
    }
}

/// For [`metrics`](crate::metrics()).
pub(crate) fn metrics() -> Monitor {
    let running = super::is_running();
    // Where nothing has begun, the clock need not be calibrated for this.
    HEARTBEAT
        .existing()
        .map_or(Monitor { running, ..Monitor::default() }, |heartbeat| heartbeat.metrics(now(), running))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn lag(heartbeat: &Heartbeat, now: u64) -> u64 {
        heartbeat.metrics(now, true).max_lag.as_millis() as u64
    }

    /// Guards: a lag is shown for a while and then forgotten. One that continues is shown as long as it does.
    #[test]
    fn the_longest_recent_lag_is_shown() {
        let heartbeat = Heartbeat::default();
        assert_eq!(heartbeat.metrics(5 * MS, false), Monitor::default());
        heartbeat.beat(10 * MS);
        heartbeat.rest(20 * MS);
        assert_eq!(lag(&heartbeat, 15 * MS), 0, "it sleeps");
        assert_eq!(lag(&heartbeat, 90 * MS), 70, "it should have turned");
        heartbeat.beat(60 * MS);
        heartbeat.note(30 * MS);
        heartbeat.rest(WINDOW);
        assert_eq!(lag(&heartbeat, 70 * MS), 40);
        assert_eq!(heartbeat.metrics(70 * MS, true).heartbeat_age, Duration::from_millis(10));
        heartbeat.beat(WINDOW);
        heartbeat.rest(2 * WINDOW);
        assert_eq!(lag(&heartbeat, WINDOW), 40, "of the window before");
        heartbeat.beat(2 * WINDOW);
        heartbeat.rest(3 * WINDOW);
        assert_eq!(lag(&heartbeat, 2 * WINDOW), 0);
    }
}
