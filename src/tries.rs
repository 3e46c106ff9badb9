//! Threads that could not be started. The next caller tries again, at most once a second.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::lock_std;

/// After a failed attempt, nothing tries again for this long, in nanoseconds.
pub(crate) const PAUSE: u64 = 1_000_000_000;

/// The attempts to start something.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// How many attempts failed in a row.
    failed: Mutex<u64>,
    /// When the next attempt may start, in nanoseconds. 0 before one has failed.
    next: AtomicU64,
}

/// The outcome of an attempt.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) result: io::Result<()>,
    /// How many attempts failed in a row before this one.
    pub(crate) failed_before: u64,
}

impl Tries {
    /// Tries to start it. `None` if it already runs, or if another attempt has just failed. `now` is only called once
    /// one has failed.
    pub(crate) fn again(
        &self,
        now: impl Fn() -> u64,
        is_running: impl Fn() -> bool,
        start: impl FnOnce() -> io::Result<()>,
    ) -> Option<Tried> {
        let is_early = || {
            let next = self.next.load(Ordering::Relaxed);
            next != 0 && now() < next
        };
        if is_early() {
            return None;
        }
        let mut failed = lock_std(&self.failed);
        if is_running() || is_early() {
            return None;
        }
        let result = start();
        let failed_before = *failed;
        if result.is_ok() {
            *failed = 0;
        } else {
            *failed += 1;
            self.next.store(now().saturating_add(PAUSE), Ordering::Relaxed);
        }
        Some(Tried { result, failed_before })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Guards: callers try again, at most once a second, until it runs. Each is told how many attempts failed before.
    #[test]
    fn a_failed_start_is_tried_once_a_second() {
        let (tries, clock, runs, room) = (Tries::default(), Cell::new(5), Cell::new(false), Cell::new(false));
        let come = |at: u64| {
            clock.set(at);
            let start = || {
                runs.set(room.get());
                if room.get() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            };
            let tried = tries.again(|| clock.get(), || runs.get(), start)?;
            Some((tried.result.is_ok(), tried.failed_before))
        };
        assert_eq!(come(5), Some((false, 0)));
        assert_eq!([come(6), come(PAUSE), come(PAUSE + 4)], [None; 3]);
        assert_eq!([come(PAUSE + 5), come(PAUSE + 6)], [Some((false, 1)), None]);
        room.set(true);
        assert_eq!([come(PAUSE + 7), come(3 * PAUSE), come(9 * PAUSE)], [None, Some((true, 2)), None]);
    }
}
