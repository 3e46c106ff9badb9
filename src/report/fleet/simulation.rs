//! Instances without threads of their own, for the benchmark that simulates hundreds of them in a virtual time.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Fleet, FleetSink, FleetStats, Member};
use crate::report::delivery::{AnySink, Dispatch, Limits, clock};
use crate::report::metrics::stats::Counters;
use crate::report::sink::Boxed;
use crate::report::{AsyncSink, ProcessInfo, Report, Stats};

/// One instance. It works on the runtime that it was made on, and by that runtime's clock.
#[allow(missing_debug_implementations, reason = "nobody prints it")]
pub struct SimulatedInstance {
    member: Arc<Member>,
    dispatch: Arc<Dispatch>,
    counters: Arc<Counters>,
}

impl SimulatedInstance {
    /// Starts an instance whose messages to people go to this sink. Call it on a runtime.
    ///
    /// # Panics
    ///
    /// Panics outside of a runtime.
    pub fn start(name: &str, fleet: &Fleet, people: impl AsyncSink) -> Self {
        let process = ProcessInfo { instance: Some(name.to_owned()), ..ProcessInfo::default() };
        let member = Member::on(Handle::current(), fleet, process);
        let sinks: Vec<AnySink> =
            vec![AnySink::Async(Arc::new(Boxed(people))), AnySink::Async(Arc::new(FleetSink(Arc::clone(&member))))];
        let counters = Arc::<Counters>::default();
        let gate = Arc::new(Arc::clone(&member));
        let dispatch = Dispatch::new(sinks, None, Limits::default(), Arc::clone(&counters), Some(gate));
        let dispatch = Arc::new(dispatch);
        member.start(&dispatch);
        let driven = Arc::downgrade(&dispatch);
        // What the reporter's thread does otherwise.
        tokio::spawn(async move {
            while let Some(dispatch) = driven.upgrade() {
                dispatch.start_async_sinks(&Handle::current(), clock());
                drop(dispatch);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        Self { member, dispatch, counters }
    }

    /// Makes a report, and holds back `more` that are like it.
    pub fn report(&self, report: &Report, more: u64) {
        let mut report = report.clone();
        for _ in 0..more {
            self.counters.count_made(&report);
            crate::sync::count(&self.counters.suppressed);
            self.member.note(&mut report, false);
        }
        self.counters.count_made(&report);
        self.member.note(&mut report, true);
        self.dispatch.accept(report, clock());
    }

    /// Makes so many reports that are held back.
    #[cfg(test)]
    pub(super) fn hold_back(&self, report: &Report, reports: u64) {
        for _ in 0..reports {
            self.member.note(&mut report.clone(), false);
        }
    }

    /// Takes a report that an earlier process has left behind.
    #[cfg(test)]
    pub(super) fn take_over(&self, report: Report) {
        self.dispatch.accept(report, clock());
    }

    /// Brings everything to the store.
    pub async fn flush(&self) -> bool {
        self.dispatch.hurry();
        self.dispatch.start_async_sinks(&Handle::current(), clock());
        while self.dispatch.is_busy() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.member.flush().await.is_ok()
    }

    /// Waits for a flush, as long as `left` returns some time, and as a caller of [`Reports::flush`](crate::Reports::flush) does once
    /// no report is on its way.
    #[cfg(test)]
    pub(super) fn waits_for_flush(
        &self,
        left: impl Fn() -> Duration + Send + 'static,
    ) -> tokio::task::JoinHandle<bool> {
        let dispatch = Arc::clone(&self.dispatch);
        tokio::task::spawn_blocking(move || dispatch.wait_for_fleet(&left))
    }

    /// Puts the indexes of past days together, as one of the instances does once a day, as if it were that time.
    pub async fn compact(&self, now: std::time::SystemTime) -> bool {
        self.member.compact(now).await.is_ok()
    }

    /// What has become of its reports.
    #[must_use]
    pub fn stats(&self) -> (Stats, FleetStats) {
        (self.counters.read(), self.member.stats())
    }
}
