//! One time budget for many boxes.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::capture::unforked;
use crate::clock::{Clock, now};
use crate::error::{Error, Result};
use crate::inflight::nanos;
use crate::sync::lock_std;

/// A time budget that many boxes share: the iterations of a loop, the calls of a job, several tasks at once.
///
/// It is spent only while one of its boxes runs, and only once if several do, nested or at the same time. Clones share
/// the budget. Once it is spent, each further box of it is interrupted at once, that is, at its first suspension or
/// checkpoint.
///
/// If a box of a quota is inside a box that ends sooner, it still spends from the quota. While timeboxes are disabled,
/// nothing is spent.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use heeler::Quota;
///
/// # fn main() -> Result<(), heeler::Error> {
/// let quota = Quota::new(Duration::from_secs(2))?;
/// assert_eq!(quota.remaining(), Duration::from_secs(2));
/// assert!(!quota.running());
///
/// assert!(Quota::new(Duration::ZERO).unwrap_err().is_quota());
/// # Ok(())
/// # }
/// ```
///
/// The idea is from interruptingcow's `Quota`.
#[derive(Clone)]
pub struct Quota {
    shared: Arc<Shared>,
}

struct Shared {
    total: Duration,
    // Locked for a few instructions, twice per box.
    meter: Mutex<Meter>,
}

impl Quota {
    /// Creates a quota of `total` time, of which nothing is spent.
    ///
    /// `Duration::MAX`, like anything above 584 years, is never used up.
    ///
    /// # Errors
    ///
    /// Returns [`Error::is_quota`] if `total` is zero.
    pub fn new(total: Duration) -> Result<Self, Error> {
        if total.is_zero() {
            return Err(Error::quota("a quota of zero would interrupt all of its boxes at once"));
        }
        // The first use of the clock calibrates it. Do that here, and not under the lock of a box's first poll.
        unforked(Clock::get);
        let meter = Mutex::new(Meter::new(nanos(total)));
        Ok(Self { shared: Arc::new(Shared { total, meter }) })
    }

    /// Returns the total that the quota was made with.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.shared.total
    }

    /// Returns what is left at this moment; zero once it is spent.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let mut meter = lock_std(&self.shared.meter);
        let spent = meter.spent(now());
        drop(meter);
        self.shared.total.saturating_sub(Duration::from_nanos(spent))
    }

    /// Returns whether a box of it runs at this moment, so that time is being spent.
    #[must_use]
    pub fn running(&self) -> bool {
        lock_std(&self.shared.meter).is_running()
    }

    /// Begins a box of this quota at `now`, in nanoseconds of [`now`]. It ends when the guard is dropped.
    ///
    /// The caller passes `now` so that a box's deadline follows from one reading of the clock. A nested box of the same
    /// quota then has exactly the same deadline, and not an earlier one.
    pub(crate) fn enter(&self, now: u64) -> Running {
        let left = lock_std(&self.shared.meter).start(now);
        Running { quota: self.clone(), left }
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota")
            .field("total", &self.total())
            .field("remaining", &self.remaining())
            .field("running", &self.running())
            .finish()
    }
}

/// A box of a quota while it runs.
///
/// As long as there is one, the quota is spent without a pause. So all boxes of a quota that run at the same time have the
/// same deadline, and it stays where it is.
#[derive(Debug)]
pub(crate) struct Running {
    quota: Quota,
    left: u64,
}

impl Running {
    /// Returns the nanoseconds that were left when the box began. `u64::MAX` means no end.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut meter = lock_std(&self.quota.shared.meter);
        meter.stop(now());
    }
}

/// What a quota counts, without a clock: `now` is in nanoseconds, and should never run backwards.
///
/// If it does (threads read the clock, and then wait for the lock), the meter's time stands still until `now` has
/// caught up.
#[derive(Debug)]
pub(super) struct Meter {
    /// `u64::MAX` means no end.
    total: u64,
    /// Up to `seen`.
    spent: u64,
    /// When the meter was last looked at.
    seen: u64,
    /// How many boxes run.
    running: usize,
}

impl Meter {
    pub(super) const fn new(total: u64) -> Self {
        Self { total, spent: 0, seen: 0, running: 0 }
    }

    /// Begins a box. Returns what is left.
    pub(super) fn start(&mut self, now: u64) -> u64 {
        self.advance(now);
        self.running += 1;
        self.left()
    }

    /// Ends a box that has begun.
    pub(super) fn stop(&mut self, now: u64) {
        self.advance(now);
        self.running = self.running.saturating_sub(1);
    }

    /// Returns the nanoseconds spent so far: more than there were, if a box did not end in time.
    pub(super) fn spent(&mut self, now: u64) -> u64 {
        self.advance(now);
        self.spent
    }

    pub(super) fn is_running(&self) -> bool {
        self.running > 0
    }

    fn left(&self) -> u64 {
        if self.total == u64::MAX { u64::MAX } else { self.total.saturating_sub(self.spent) }
    }

    fn advance(&mut self, now: u64) {
        if now > self.seen {
            if self.running > 0 {
                self.spent = self.spent.saturating_add(now - self.seen);
            }
            self.seen = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}

    /// Guards: a quota can be sent with its timeboxes, and zero is an error that says so.
    #[test]
    fn a_quota_is_shared_and_never_zero() {
        let quota = Quota::new(Duration::from_secs(3600)).unwrap();
        check(&quota);
        let running = quota.clone().enter(now());
        assert!(quota.running());
        drop(running);
        assert!(!quota.running() && quota.remaining() < quota.total());
        assert_eq!(quota.total(), Duration::from_secs(3600));
        assert!(format!("{quota:?}").starts_with("Quota { total: 3600s, remaining: 3599"), "{quota:?}");

        let error = Quota::new(Duration::ZERO).unwrap_err();
        assert!(error.is_quota() && !error.is_config());
        assert_eq!(error.to_string(), "a quota of zero would interrupt all of its boxes at once");
    }

    /// Guards: the quota stands still while no timebox runs, and timeboxes that run together end together.
    #[test]
    fn only_running_timeboxes_spend_the_quota() {
        let quota = Quota::new(Duration::from_secs(3600)).unwrap();
        let (begin, later) = (now(), now());
        let (outer, inner) = (quota.enter(begin), quota.enter(later));
        assert_eq!(begin + outer.left(), later + inner.left());
        drop(outer);
        assert!(quota.running(), "the inner one still runs");
        let before = quota.remaining();
        while quota.remaining() == before {}
        drop(inner);
        let rest = quota.remaining();
        let start = now();
        while now() < start + 1_000_000 {}
        assert_eq!(quota.remaining(), rest);
    }

    /// Guards: neither the largest budget nor the smallest overflows.
    #[test]
    fn extreme_budgets_do_not_overflow() {
        let endless = Quota::new(Duration::MAX).unwrap();
        let running = endless.enter(now());
        assert_eq!(running.left(), u64::MAX);
        let mut last = endless.remaining();
        while endless.remaining() == last {}
        last = endless.remaining();
        assert!(last > Duration::MAX - Duration::from_secs(3600));

        let tiny = Quota::new(Duration::from_nanos(1)).unwrap();
        let first = tiny.enter(now());
        assert_eq!(first.left(), 1);
        while !tiny.remaining().is_zero() {}
        drop(first);
        assert_eq!(tiny.enter(now()).left(), 0);
        assert_eq!(tiny.remaining(), Duration::ZERO);
    }

    /// Guards: a timebox that ends on another thread, or by a panic, still ends its spending.
    #[test]
    fn spending_ends_however_the_timebox_ends() {
        let quota = Quota::new(Duration::from_secs(60)).unwrap();
        let running = quota.enter(now());
        std::thread::spawn(move || drop(running)).join().unwrap();
        assert!(!quota.running());
        let held = quota.clone();
        let panicked = std::thread::spawn(move || {
            let _running = held.enter(now());
            std::panic::resume_unwind(Box::new("stop"));
        });
        assert!(panicked.join().is_err());
        assert!(!quota.running());
    }
}
