//! Work that isn't a request.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::layer::SHORTEST;
use crate::counts::COUNTS;
use crate::inflight::{self, Ended, Job, PolicyId, Registered, Watched, Work};
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
        begin: Option<Begin>,
    }
}

/// What a job begins with.
#[derive(Debug)]
struct Begin {
    threshold: Duration,
    /// Settings that it has from a layer.
    policy: PolicyId,
    job: Box<Job>,
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
///
/// # An accept loop
///
/// A [`WatchdogLayer`](super::WatchdogLayer) sees a request once its head has been read. The time before that is unseen:
/// while a connection waits for somebody to accept it, and while TLS is set up. Watch what a server does between two
/// calls of `accept`, because nobody is served while that hangs, and the handshake of each connection. To wait in
/// `accept` itself is no trouble, so that is left out.
///
/// ```no_run
/// use std::{io, sync::Arc, time::Duration};
///
/// use tokio::net::{TcpListener, TcpStream};
/// use tokio::sync::Semaphore;
/// # struct Tls;
/// # impl Tls { async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> { Ok(stream) } }
/// # async fn serve(_: TcpStream) {}
///
/// async fn accept(listener: TcpListener, tls: Arc<Tls>, connections: Arc<Semaphore>) -> io::Result<()> {
///     const PATIENCE: Duration = Duration::from_secs(5);
///     loop {
///         let (stream, _) = listener.accept().await?;
///         let room = connections.clone().acquire_owned();
///         let room = heeler::watch("room for a connection", PATIENCE, room).await.map_err(io::Error::other)?;
///         let tls = tls.clone();
///         tokio::spawn(async move {
///             let handshake = heeler::watch("TLS handshake", PATIENCE, tls.accept(stream));
///             if let Ok(stream) = handshake.await {
///                 serve(stream).await;
///             }
///             drop(room);
///         });
///     }
/// }
/// # let _ = accept;
/// ```
pub fn watch<F: Future>(name: impl Into<Cow<'static, str>>, threshold: Duration, future: F) -> Watch<F> {
    static CLAMP: Clamp = Clamp::new("watch");
    Watch::new(Job::new(name), CLAMP.at_least(threshold, SHORTEST), future)
}

impl<F> Watch<F> {
    pub(super) fn new(job: Job, threshold: Duration, inner: F) -> Self {
        // Here, because the first start takes a while, and the first poll is on a worker.
        report::start_watching();
        let policy = job.origin.as_ref().map_or(PolicyId::NONE, |origin| origin.policy);
        Self { inner, watched: Watched::off(), begin: Some(Begin { threshold, policy, job: Box::new(job) }) }
    }

    /// Changes the job, unless the future has been polled.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Job)) -> Self {
        if let Some(begin) = &mut self.begin {
            change(&mut begin.job);
        }
        self
    }

    /// Sets where reports are delivered. Defaults to the log. Has no effect once the future has been polled.
    pub fn reports(self, reports: Reports) -> Self {
        self.with(|job| job.reports = Some(reports.target()))
    }
}

impl<F: Future> Future for Watch<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Some(Begin { threshold, policy, mut job }) = this.begin.take() {
            let threshold = if inflight::is_aside() { u64::MAX } else { inflight::nanos(threshold) };
            job.inside = inflight::current_row();
            let registered = Registered::new(policy, threshold, 0, |details| details.work = Work::Job(job));
            if registered.is_some() {
                report::expect(threshold);
                count(&COUNTS.jobs);
            }
            *this.watched = Watched::new(registered);
        }
        let inner = this.inner;
        let result = this.watched.poll(cx, |cx| inner.poll(cx));
        if result.is_ready() {
            this.watched.finish(|| (Ended::Finished, None));
            drop(this.watched.take());
        }
        result
    }
}
