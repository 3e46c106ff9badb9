//! Whether the monitor is alive, and how late it has been. Only its own thread writes this, and any thread reads it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::capture::PerProcess;
use crate::clock::now;

/// The longest that the monitor sleeps. It turns at least this often.
pub(super) const LONGEST_SLEEP: u64 = 1_000_000_000;
/// The longest lag of a period of this length is kept, together with that of the period before.
const WINDOW: u64 = 30_000_000_000;

/// Whether the monitor is alive, and how late it is. Without the monitor, nothing is reported and no timebox expires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Monitor {
    /// Whether its threads run. If one could not be started, heeler retries every second.
    pub running: bool,
    /// The time since it last turned. It turns at least every second. Zero if it has not turned yet.
    pub heartbeat_age: Duration,
    /// The longest that it was late with anything, above all a timebox, in the last thirty to sixty seconds, or that it
    /// is late now.
    pub max_lag: Duration,
}

/// Times are nanoseconds of [`now`].
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    /// When it last turned, or 0 for never.
    beat: AtomicU64,
    /// When it should turn next.
    due: AtomicU64,
    /// When this window began.
    window: AtomicU64,
    /// The longest lag of this window, and of the one before.
    lag: AtomicU64,
    previous: AtomicU64,
}

static HEARTBEAT: PerProcess<Heartbeat> = PerProcess::new(Heartbeat::default);

/// Returns this process's heartbeat.
pub(super) fn heartbeat() -> &'static Heartbeat {
    HEARTBEAT.get()
}

impl Heartbeat {
    /// Notes that a turn begins.
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

    /// Notes that something was done this late.
    pub(super) fn note(&self, lag: u64) {
        if lag > self.lag.load(Ordering::Relaxed) {
            self.lag.store(lag, Ordering::Relaxed);
        }
    }

    /// Notes that the turn has ended, and that there is nothing to do until `due`.
    pub(super) fn rest(&self, due: u64) {
        self.due.store(due, Ordering::Relaxed);
    }

    fn metrics(&self, now: u64, running: bool) -> Monitor {
        let [beat, due, lag, previous] =
            [&self.beat, &self.due, &self.lag, &self.previous].map(|word| word.load(Ordering::Relaxed));
        if beat == 0 {
            return Monitor { running, ..Monitor::default() };
        }
        // A monitor that hangs cannot note its own lag.
        let overdue = now.saturating_sub(due);
        Monitor {
            running,
            heartbeat_age: Duration::from_nanos(now.saturating_sub(beat)),
            max_lag: Duration::from_nanos(lag.max(previous).max(overdue)),
        }
    }
}

/// Returns the monitor's numbers for [`metrics`](crate::metrics()).
pub(crate) fn metrics() -> Monitor {
    let running = super::is_running();
    // If nothing has begun, the clock need not be calibrated for this.
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
