//! Profiles of work in production: of a request, because a [rule](crate::Rule) or somebody at the console says so, and of
//! jobs.
//!
//! It runs where it would have run, under the limits that it has, and its client gets the response as ever. Only its polls
//! are recorded, up to the head of the response.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Response};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::id::Id;
use super::jobs;
use super::layer::Config;
use super::pending::Unkept;
use super::record::{InPlace, Recording};
use super::supervisor::SUPERVISOR;
use super::{Outcome, Request as Shown, Response as Answer};
use crate::capture::{PerProcess, process_number};
use crate::inflight;
use crate::log::log_safely;
use crate::parts::with_parts;
use crate::report::Redactor;
use crate::report::rules::orders::{self, Wanted};

/// What stands for a method where there is none.
pub(super) const JOB: &str = "job";
/// The most characters of a job's name.
const MAX_NAME: usize = 200;
/// The most characters of an error.
const MAX_WORDS: usize = 4096;

/// At most this many requests are recorded at a time. Others take no order.
const MAX_RUNNING: usize = 4;

static RUNNING: PerProcess<AtomicUsize> = PerProcess::new(AtomicUsize::default);

/// One of them, until its profile is kept. A request may hang for longer than that.
struct Running;

impl Running {
    fn begin() -> Self {
        RUNNING.get().fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.get().fetch_sub(1, Ordering::Relaxed);
    }
}

/// A service's future whose polls are recorded.
pub(super) struct Tail<F> {
    future: Pin<Box<InPlace<F>>>,
    end: End,
}

/// Tells the supervisor how the work has ended.
struct End {
    ended: Option<oneshot::Sender<Ended>>,
    /// Where the supervisor is.
    process: u32,
    redactor: Redactors,
    /// Whether its code runs now. If it ends then, it has panicked.
    is_inside: bool,
}

type Ended = (Outcome, Option<Answer>, Unkept);

/// What a profile may show: what the layer and the reports that want it both allow.
struct Redactors {
    config: Arc<Config>,
    reports: Redactor,
}

/// What the supervisor needs to make the profile.
struct Course {
    config: Arc<Config>,
    id: Id,
    recording: Recording,
    request: Shown,
    reason: String,
    ended: oneshot::Receiver<Ended>,
    /// Requests only: each job is asked for individually, and does not count.
    running: Option<Running>,
}

/// Returns why there is to be a profile of this request, if there is.
#[cold]
#[inline(never)]
pub(super) fn wanted<B>(request: &mut Request<B>) -> Option<Wanted> {
    // What somebody profiles already is not in production.
    if inflight::is_aside() || RUNNING.get().load(Ordering::Relaxed) >= MAX_RUNNING {
        return None;
    }
    with_parts(request, |parts| {
        let route = jobs::route(parts);
        orders::take(parts.method.as_str(), route.as_deref(), full_path(parts))
    })
}

/// Returns the path as the client has sent it. A router around may have taken a part of it.
fn full_path(parts: &Parts) -> &str {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::OriginalUri(uri)) = parts.extensions.get() {
        return uri.path();
    }
    parts.uri.path()
}

/// Begins the recording of a request. `call` calls the service with it.
pub(super) fn begin<B, F>(
    config: &Arc<Config>,
    mut request: Request<B>,
    body_bytes: u64,
    wanted: Wanted,
    call: impl FnOnce(Request<B>) -> F,
) -> Result<Tail<F>, F> {
    let redactor = Redactors { config: Arc::clone(config), reports: wanted.redactor };
    let shown = with_parts(&mut request, |head| redactor.request(head, body_bytes));
    let Some((recording, mut end)) = start(redactor, shown, wanted.reason, Some(Running::begin())) else {
        return Err(call(request));
    };
    let future = end.inside(|| call(request));
    Ok(Tail { future: Box::pin(recording.record_in_place(future)), end })
}

/// Runs a piece of work that is no request, and records it.
pub(super) async fn job<F: Future>(config: &Arc<Config>, name: &str, wanted: Wanted, future: F) -> F::Output {
    let redactor = Redactors { config: Arc::clone(config), reports: wanted.redactor };
    let shown = Shown { method: JOB.to_owned(), uri: redactor.text(name, MAX_NAME), ..Shown::default() };
    let Some((recording, mut end)) = start(redactor, shown, wanted.reason, None) else { return future.await };
    let mut future = pin!(recording.record_in_place(future));
    let output = poll_fn(|cx| end.inside(|| future.as_mut().poll(cx))).await;
    end.tell(Outcome::Finished, None);
    output
}

/// Begins a recording, and has the supervisor wait for its end.
fn start(redactor: Redactors, request: Shown, reason: String, running: Option<Running>) -> Option<(Recording, End)> {
    let (Ok(id), Ok(supervisor)) = (Id::random(), SUPERVISOR.get().handle()) else {
        log_safely(|| tracing::error!(target: "heeler", %reason, "a profile could not be begun"));
        return None;
    };
    let config = Arc::clone(&redactor.config);
    let recording = Recording::start(config.rate_hz);
    let (ended, end) = oneshot::channel();
    let course = Course { config, id, recording: recording.clone(), request, reason, ended: end, running };
    supervisor.spawn(course.supervise());
    Some((recording, End { ended: Some(ended), process: process_number(), redactor, is_inside: false }))
}

impl Redactors {
    fn text(&self, text: &str, max: usize) -> String {
        self.reports.text(&self.config.redactor.text(text, max), max)
    }

    /// Returns what a profile says about the request.
    fn request(&self, head: &Parts, body_bytes: u64) -> Shown {
        let mut shown = jobs::request(&self.config.redactor, head, &head.uri, body_bytes);
        shown.uri = self.reports.uri(&shown.uri);
        shown.route = shown.route.map(|route| self.reports.uri(&route));
        self.keep_allowed(&mut shown.headers);
        shown
    }

    /// Returns what a profile says about the head of a response.
    fn answer<R>(&self, response: &Response<R>) -> Answer {
        let (status, version) = (response.status(), response.version());
        let mut answer = jobs::response(&self.config.redactor, status, version, response.headers());
        self.keep_allowed(&mut answer.headers);
        answer
    }

    /// Somebody else's headers are shown only as far as a report shows them.
    fn keep_allowed(&self, headers: &mut Vec<(String, String)>) {
        headers.retain(|(name, _)| self.reports.allowed_headers().iter().any(|allowed| allowed.as_str() == name));
    }
}

impl<F, R, E> Tail<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: std::fmt::Display,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, end } = self;
        let poll = end.inside(|| future.as_mut().poll(cx));
        match &poll {
            Poll::Pending => {}
            Poll::Ready(Ok(response)) => {
                let answer = end.redactor.answer(response);
                end.tell(Outcome::Finished, Some(answer));
            }
            Poll::Ready(Err(error)) => {
                let words = end.redactor.text(&format!("{error:#}"), MAX_WORDS);
                end.tell(Outcome::Failed(words), None);
            }
        }
        poll
    }
}

impl End {
    /// Runs code of the work.
    fn inside<T>(&mut self, code: impl FnOnce() -> T) -> T {
        self.is_inside = true;
        let result = code();
        self.is_inside = false;
        result
    }

    fn tell(&mut self, outcome: Outcome, response: Option<Answer>) {
        let Some(ended) = self.ended.take() else { return };
        if self.process == process_number() {
            // Whoever flushes from now on waits for it.
            let unkept = self.redactor.config.pending.begin();
            // The profile's time may be up.
            let _ = ended.send((outcome, response, unkept));
        } else {
            // The supervisor is another process's. Dropping this would wake it, under locks that may be held for ever.
            std::mem::forget(ended);
        }
    }
}

// Its content is valid after every statement, also for code that runs after a panic.
impl std::panic::UnwindSafe for End {}
impl std::panic::RefUnwindSafe for End {}

impl Drop for End {
    fn drop(&mut self) {
        let outcome = if self.is_inside {
            Outcome::Panicked("the panic's message is in the application's log".to_owned())
        } else {
            Outcome::Cancelled
        };
        self.tell(outcome, None);
    }
}

impl Course {
    /// Waits for the request's end, and keeps its profile.
    async fn supervise(self) {
        let Self { config, id, recording, request, reason, ended, running: _running } = self;
        // A request that hangs is worth a profile before it is over.
        let (outcome, response, _unkept) = match timeout(config.timeout, ended).await {
            Ok(ended) => ended.unwrap_or_else(|_| (Outcome::Cancelled, None, config.pending.begin())),
            Err(_) => (Outcome::TooLong, None, config.pending.begin()),
        };
        recording.stop();
        let kept = async {
            let record = spawn_blocking(move || recording.finish()).await.map_err(|error| error.to_string())?;
            let subject = jobs::Subject { id, request: &request, reason: Some(&reason) };
            let mut profile = jobs::profile(subject, &config, record, outcome, 1, response, Vec::new());
            jobs::reduce(&config.redactor, &mut profile);
            let profile = Arc::new(profile);
            config.push_to.push(&profile);
            jobs::keep(&config, &profile, None).await
        };
        match kept.await {
            Ok(()) => log_safely(|| {
                let (method, uri) = (&request.method, &request.uri);
                tracing::info!(target: "heeler", id = id.short(), %method, %uri, %reason, "a profile is kept that nobody waits for");
            }),
            Err(error) => log_safely(|| {
                tracing::error!(target: "heeler", %error, %reason, "a profile could not be kept");
            }),
        }
    }
}
