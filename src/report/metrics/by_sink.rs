//! Counts deliveries for each sink's name, in the whole process.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
#[cfg(any(feature = "metrics", feature = "otel"))]
use std::sync::atomic::Ordering::Relaxed;

use crate::capture::PerProcess;
use crate::sync::{count, lock_std};

/// How many names are told apart. Each is kept forever, and is a series of its own where metrics are collected.
const MAX_NAMES: usize = 32;
/// The name that the others are counted under.
const OTHERS: &str = "other";

/// The counters of all sinks of one name.
#[derive(Debug)]
pub(crate) struct BySink {
    name: String,
    taken: AtomicU64,
    failed: AtomicU64,
}

static NAMES: PerProcess<Mutex<Vec<&'static BySink>>> = PerProcess::new(Mutex::default);

/// Returns the counters of that name.
fn named(name: &str, names: &mut Vec<&'static BySink>) -> &'static BySink {
    let known = |name: &str| names.iter().copied().find(|known| known.name == name);
    let full = names.len() >= MAX_NAMES;
    if let Some(known) = known(name).or_else(|| known(OTHERS).filter(|_| full)) {
        return known;
    }
    let named: &'static BySink = Box::leak(Box::new(BySink::new(if full { OTHERS } else { name })));
    names.push(named);
    named
}

impl BySink {
    /// Returns the counters of that name.
    pub(crate) fn named(name: &str) -> &'static Self {
        named(name, &mut lock_std(NAMES.get()))
    }

    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), taken: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// Counts a report that has arrived.
    pub(crate) fn count_taken(&self) {
        count(&self.taken);
    }

    /// Counts a report that did not arrive.
    pub(crate) fn count_failed(&self) {
        count(&self.failed);
    }
}

/// Returns how many reports have arrived, by the names of sinks.
#[cfg(any(feature = "metrics", feature = "otel"))]
pub(crate) fn deliveries() -> Vec<(&'static str, u64)> {
    lock_std(NAMES.get()).iter().map(|sink| (&*sink.name, sink.taken.load(Relaxed))).collect()
}

/// Returns how many deliveries failed, by the names of sinks.
#[cfg(any(feature = "metrics", feature = "otel"))]
pub(crate) fn failures() -> Vec<(&'static str, u64)> {
    lock_std(NAMES.get()).iter().map(|sink| (&*sink.name, sink.failed.load(Relaxed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a program that names its sinks by number fills neither the memory nor a metrics database.
    #[test]
    fn only_so_many_sinks_are_named() {
        let mut names = Vec::new();
        let one = named("one of many", &mut names);
        for number in 0..3 * MAX_NAMES {
            named(&format!("sink {number}"), &mut names);
        }
        assert_eq!(names.len(), MAX_NAMES + 1);
        assert!(std::ptr::eq(named("sink 90", &mut names), named("sink 91", &mut names)));
        assert!(std::ptr::eq(named("one of many", &mut names), one), "what is known stays known");
    }
}
