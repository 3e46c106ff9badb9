//! Work that isn't a request.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::layer::SHORTEST;
use crate::counts::COUNTS;
use crate::inflight::{self, Job, PolicyId, Registered, Watched, Work};
use crate::log::Clamp;
use crate::report;
use crate::report::Reports;
use crate::sync::count;

pin_project! {
    /// The future of [`watch`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Watch<F> {
        #[pin]
        inner: F,
        watched: Watched,
        begin: Option<(Duration, Job)>,
    }
}

/// Watches `future` as the watchdog watches a request: a job, a consumer's message, a cron run.
///
/// Its clock starts at the first poll. Reports go to the log unless [`Watch::reports`] says otherwise. A threshold below one
/// millisecond counts as one millisecond, and the log says so once.
///
/// ```
/// # async fn rebuild_index() -> u32 { 7 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// let documents = heeler::watch("rebuild index", Duration::from_secs(60), rebuild_index()).await;
/// # assert_eq!(documents, 7);
/// # }
/// ```
pub fn watch<F: Future>(name: impl Into<Cow<'static, str>>, threshold: Duration, future: F) -> Watch<F> {
    static CLAMP: Clamp = Clamp::new("watch");
    // Here, because the first start takes a while, and the first poll is on a worker.
    report::start_watching();
    let threshold = CLAMP.at_least(threshold, SHORTEST);
    let job = Job { name: name.into(), reports: None };
    Watch { inner: future, watched: Watched::off(), begin: Some((threshold, job)) }
}

impl<F> Watch<F> {
    /// Sets where reports are delivered. Defaults to the log. Has no effect once the future has been polled.
    pub fn reports(mut self, reports: Reports) -> Self {
        if let Some((_, job)) = &mut self.begin {
            job.reports = Some(reports.target());
        }
        self
    }
}

impl<F: Future> Future for Watch<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Some((threshold, job)) = this.begin.take() {
            let threshold = if inflight::is_aside() { u64::MAX } else { inflight::nanos(threshold) };
            let registered = Registered::new(PolicyId::NONE, threshold, 0, |details| {
                details.work = Work::Job(Box::new(job));
            });
            if registered.is_some() {
                report::expect(threshold);
                count(&COUNTS.jobs);
            }
            *this.watched = Watched::new(registered);
        }
        let inner = this.inner;
        let result = this.watched.poll(cx, |cx| inner.poll(cx));
        if result.is_ready() {
            drop(this.watched.take());
        }
        result
    }
}
