//! Reports in memory, and how many bytes they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::report::Report;

/// How many bytes the reports in memory take.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<AtomicUsize>);

/// A report in memory. It counts as long as anything holds it.
#[derive(Debug)]
pub(super) struct Kept {
    report: Arc<Report>,
    bytes: usize,
    memory: Memory,
}

impl Memory {
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }

    pub(super) fn keep(&self, report: Report) -> Arc<Kept> {
        let bytes = report.size();
        self.0.fetch_add(bytes, Relaxed);
        Arc::new(Kept { report: Arc::new(report), bytes, memory: self.clone() })
    }
}

impl Kept {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn report(&self) -> &Arc<Report> {
        &self.report
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Relaxed);
    }
}
