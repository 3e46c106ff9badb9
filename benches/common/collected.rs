//! A sink that keeps what it gets.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use heeler::{Report, Reports, Sink};

use crate::common::nanos;

/// The first reports of the jobs `0`, `1`, .., with the time that each took to the sink, in milliseconds.
#[derive(Clone, Default)]
pub(crate) struct Collected(Arc<Mutex<Vec<(Report, f64)>>>);

impl Sink for Collected {
    fn name(&self) -> &str {
        "collected"
    }

    fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
        let took = SystemTime::now().duration_since(report.captured_at).unwrap_or_default();
        if report.update == 0 {
            self.0.lock().map_err(|_| "poisoned")?.push((report.clone(), millis(took)));
        }
        Ok(())
    }
}

impl Collected {
    pub(crate) fn reports(&self) -> Reports {
        let builder = Reports::builder().without_log().repeat_after(Duration::ZERO).without_endings();
        builder.sink(self.clone()).build().expect("reports")
    }

    /// All of them, once they have arrived.
    pub(crate) fn take(&self, reports: &Reports) -> Vec<(Report, f64)> {
        assert!(reports.blocking_flush(Duration::from_secs(60)), "all reports arrive");
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    nanos(duration) / 1e6
}

/// The number of the report's job.
pub(crate) fn index(report: &Report) -> usize {
    report.job.as_deref().and_then(|job| job.parse().ok()).expect("jobs are named by numbers")
}
