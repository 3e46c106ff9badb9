//! How sinks fare, by their names, in the whole process.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
#[cfg(any(feature = "metrics", feature = "otel"))]
use std::sync::atomic::Ordering::Relaxed;

use crate::capture::PerProcess;
use crate::sync::{count, lock_std};

/// So many names are told apart: each is kept for ever, and is a series of its own where metrics are collected.
const MAX_NAMES: usize = 32;
/// What the others are counted as.
const OTHERS: &str = "other";

/// The counters of all sinks of one name.
#[derive(Debug)]
pub(crate) struct BySink {
    name: String,
    taken: AtomicU64,
    failed: AtomicU64,
}

static NAMES: PerProcess<Mutex<Vec<&'static BySink>>> = PerProcess::new(Mutex::default);

impl BySink {
    /// The counters of that name.
    pub(crate) fn named(name: &str) -> &'static Self {
        let mut names = lock_std(NAMES.get());
        let known = |name: &str| names.iter().copied().find(|known| known.name == name);
        let full = names.len() >= MAX_NAMES;
        if let Some(known) = known(name).or_else(|| known(OTHERS).filter(|_| full)) {
            return known;
        }
        let name = if full { OTHERS } else { name };
        let named: &'static Self = Box::leak(Box::new(Self::new(name)));
        names.push(named);
        named
    }

    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), taken: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// A report has arrived.
    pub(crate) fn count_taken(&self) {
        count(&self.taken);
    }

    /// A report did not arrive.
    pub(crate) fn count_failed(&self) {
        count(&self.failed);
    }
}

/// Reports that have arrived, by the names of sinks.
#[cfg(any(feature = "metrics", feature = "otel"))]
pub(crate) fn deliveries() -> Vec<(&'static str, u64)> {
    lock_std(NAMES.get()).iter().map(|sink| (&*sink.name, sink.taken.load(Relaxed))).collect()
}

/// Deliveries that failed, by the names of sinks.
#[cfg(any(feature = "metrics", feature = "otel"))]
pub(crate) fn failures() -> Vec<(&'static str, u64)> {
    lock_std(NAMES.get()).iter().map(|sink| (&*sink.name, sink.failed.load(Relaxed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a program that names its sinks by number fills neither the memory, nor anybody's database of metrics.
    #[test]
    fn only_so_many_sinks_are_named() {
        let one = BySink::named("one of many");
        for number in 0..3 * MAX_NAMES {
            BySink::named(&format!("sink {number}")).count_failed();
        }
        assert_eq!(lock_std(NAMES.get()).len(), MAX_NAMES + 1);
        assert!(std::ptr::eq(BySink::named("sink 90"), BySink::named("sink 91")));
        assert!(std::ptr::eq(BySink::named("one of many"), one), "what is known stays known");
    }
}
