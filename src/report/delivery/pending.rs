//! Tracks which reports are on their way, for callers that wait until none is.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::report::metrics::stats::Counters;
use crate::sync::lock_std;

/// The reports that some sinks don't have yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    numbers: Mutex<Numbers>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Numbers {
    open: BTreeSet<u64>,
    next: u64,
}

impl Pending {
    /// Adds a report. Returns its number.
    pub(super) fn open(&self, counters: &Counters) -> u64 {
        let mut numbers = lock_std(&self.numbers);
        let number = numbers.next;
        numbers.next += 1;
        numbers.open.insert(number);
        counters.set_queued(numbers.open.len());
        number
    }

    /// Removes a report. `count` counts its outcome.
    pub(super) fn close(&self, number: u64, counters: &Counters, count: impl FnOnce()) {
        let mut numbers = lock_std(&self.numbers);
        numbers.open.remove(&number);
        // Called with the lock held, so that the sum is right whenever no report is on its way.
        count();
        counters.set_queued(numbers.open.len());
        drop(numbers);
        self.closed.notify_all();
    }

    /// Returns whether no report is on its way.
    pub(super) fn is_empty(&self) -> bool {
        lock_std(&self.numbers).open.is_empty()
    }

    /// Waits until all reports are closed that were opened before. Returns false if that takes longer than `left`
    /// returns some time.
    pub(super) fn wait(&self, left: &dyn Fn() -> Duration) -> bool {
        let mut numbers = lock_std(&self.numbers);
        let end = numbers.next;
        while numbers.open.first().is_some_and(|first| *first < end) {
            let left = left();
            if left.is_zero() {
                return false;
            }
            numbers = self.closed.wait_timeout(numbers, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    fn within(time: Duration) -> impl Fn() -> Duration {
        let began = Instant::now();
        move || time.saturating_sub(began.elapsed())
    }

    /// Guards: a caller waits until the last report is closed, but not forever.
    #[test]
    fn waits_until_everything_is_closed_or_time_is_up() {
        let (pending, counters) = (Arc::new(Pending::default()), Counters::default());
        assert!(pending.wait(&|| Duration::MAX) && pending.is_empty());
        let number = pending.open(&counters);
        assert!(!pending.wait(&within(Duration::from_millis(20))));
        let waits = Arc::clone(&pending);
        let waiting = std::thread::spawn(move || waits.wait(&within(Duration::from_secs(60))));
        pending.close(number, &counters, || ());
        assert!(waiting.join().unwrap());
        pending.open(&counters);
        assert_eq!((pending.is_empty(), counters.read().queued), (false, 1));
    }
}
