//! Tail profiles: of a request in production, because a [rule](crate::Rule) says so.
//!
//! It runs where it would have run, under the limits that it has, and its client gets the response as ever. Only its polls
//! are recorded, up to the head of the response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Response};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::id::Id;
use super::jobs;
use super::layer::Config;
use super::record::{InPlace, Recording};
use super::supervisor::SUPERVISOR;
use super::{Outcome, Request as Shown, Response as Answer};
use crate::log::log_safely;
use crate::parts::with_parts;
use crate::report::rules::orders;

/// A service's future whose polls are recorded.
pub(super) struct Tail<F> {
    // Dropped in this order, so that what the future's destructors do is recorded, too.
    future: Pin<Box<InPlace<F>>>,
    end: End,
}

/// Tells the supervisor how the request has ended.
struct End {
    config: Arc<Config>,
    ended: Option<oneshot::Sender<Ended>>,
}

type Ended = (Outcome, Option<Answer>);

/// What the supervisor needs to make the profile.
struct Course {
    config: Arc<Config>,
    id: Id,
    recording: Recording,
    request: Shown,
    reason: String,
    ended: oneshot::Receiver<Ended>,
}

/// Returns why a rule wants a profile of this request, if one does.
#[cold]
#[inline(never)]
pub(super) fn wanted<B>(request: &mut Request<B>) -> Option<String> {
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
    reason: String,
    call: impl FnOnce(Request<B>) -> F,
) -> Result<Tail<F>, F> {
    let (Ok(id), Ok(supervisor)) = (Id::random(), SUPERVISOR.get().handle()) else {
        log_safely(|| tracing::error!(target: "heeler", %reason, "a profile that a rule wants could not be begun"));
        return Err(call(request));
    };
    let shown = with_parts(&mut request, |head| jobs::request(&config.redactor, head, &head.uri, body_bytes));
    let recording = Recording::start(config.rate_hz);
    let (ended, end) = oneshot::channel();
    let course =
        Course { config: Arc::clone(config), id, recording: recording.clone(), request: shown, reason, ended: end };
    supervisor.spawn(course.supervise());
    let future = recording.record_in_place(call(request));
    Ok(Tail { future: Box::pin(future), end: End { config: Arc::clone(config), ended: Some(ended) } })
}

impl<F, R, E> Tail<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: std::fmt::Display,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let poll = self.future.as_mut().poll(cx);
        match &poll {
            Poll::Pending => {}
            Poll::Ready(Ok(response)) => {
                let answer = jobs::response(
                    &self.end.config.redactor,
                    response.status(),
                    response.version(),
                    response.headers(),
                );
                self.end.tell(Outcome::Finished, Some(answer));
            }
            Poll::Ready(Err(error)) => self.end.tell(Outcome::Failed(format!("{error:#}")), None),
        }
        poll
    }
}

impl End {
    fn tell(&mut self, outcome: Outcome, response: Option<Answer>) {
        if let Some(ended) = self.ended.take() {
            // The profile's time may be up.
            let _ = ended.send((outcome, response));
        }
    }
}

// Its content is valid after every statement, also for code that runs after a panic.
impl std::panic::UnwindSafe for End {}
impl std::panic::RefUnwindSafe for End {}

impl Drop for End {
    fn drop(&mut self) {
        let outcome = if std::thread::panicking() {
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
        let Self { config, id, recording, request, reason, ended } = self;
        // A request that hangs is worth a profile before it is over.
        let (outcome, response) = match timeout(config.timeout, ended).await {
            Ok(ended) => ended.unwrap_or((Outcome::Cancelled, None)),
            Err(_) => (Outcome::TooLong, None),
        };
        recording.stop();
        let kept = async {
            let record = spawn_blocking(move || recording.finish()).await.map_err(|error| error.to_string())?;
            let subject = jobs::Subject { id, request: &request, reason: Some(&reason) };
            let mut profile = jobs::profile(subject, &config, record, outcome, 1, response, Vec::new());
            jobs::reduce(&config.redactor, &mut profile);
            config.store.put(Arc::new(profile), None).await.map_err(|error| error.to_string())
        };
        match kept.await {
            Ok(()) => log_safely(|| {
                let (method, uri) = (&request.method, &request.uri);
                tracing::info!(target: "heeler", id = id.short(), %method, %uri, %reason, "a request was profiled, because a rule has fired");
            }),
            Err(error) => log_safely(|| {
                tracing::error!(target: "heeler", %error, %reason, "the profile that a rule wanted could not be kept");
            }),
        }
    }
}
