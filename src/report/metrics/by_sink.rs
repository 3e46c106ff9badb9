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

/// The counters of that name.
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
    /// The counters of that name.
    pub(crate) fn named(name: &str) -> &'static Self {
        named(name, &mut lock_std(NAMES.get()))
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
