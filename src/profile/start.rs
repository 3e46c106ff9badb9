//! From a request to a job, and what its asker gets.

use std::any::Any;
use std::fmt::Display;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::VARY;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{Empty, Full};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tower_service::Service;

use super::answer::{By, Client, Respond, Wanted};
use super::body::{BoxError, Foreign, Streamed};
use super::flag::Start;
use super::form::Form;
use super::id::Id;
use super::jobs::{self, Again, Asker, Course, Ended, Head, Job, Run, Seen, Thrown, Ticket};
use super::layer::{Config, EmptyBodies};
use super::supervisor::SUPERVISOR;
use crate::authorize::Access;
use crate::inflight;

/// Runs the request as a job inside `runtime`, and answers its asker. `service` is ready.
pub(super) async fn begin<S, B, R>(
    config: &Arc<Config>,
    access: &Access,
    client: &Client,
    wanted: Wanted,
    runtime: Handle,
    service: S,
    request: Request<B>,
) -> Result<Response<Foreign>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Display + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    let (mut head, body) = request.into_parts();
    let uri = head.uri.clone();
    let respond = Respond { config, uri: &uri, shows_pages: client.shows_pages };
    let answer = |response: Response<Bytes>| Ok(client.fit(response).map(Foreign::answer));
    let again = match again(config, wanted.start) {
        Ok(again) => again,
        Err(sentence) => return answer(respond.say(StatusCode::BAD_REQUEST, sentence)),
    };
    without_flag(config, &mut head);
    let ticket = match config.queue.enter() {
        Ok(ticket) => ticket,
        Err(full) => return answer(respond.full(full.retry_after)),
    };
    let bytes = body.size_hint().exact();
    let prepared = Id::random().map_err(|error| format!("There are no random numbers: {error}."));
    let prepared =
        prepared.and_then(|id| prepare(config, access, wanted.start, runtime, &head, bytes, id, ticket, |job| job));
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(sentence) => return answer(respond.say(StatusCode::SERVICE_UNAVAILABLE, &sentence)),
    };
    // Somebody who waits for a profile waits as long as it takes.
    inflight::lift_limits();
    let again = again.map(|(runs, body)| Again { head: head.clone(), body, runs });
    let request = Request::from_parts(head, body);
    let seen = Seen::new(config);
    let id = prepared.job.id;
    match wanted.by {
        By::Page => {
            let run = Box::pin(jobs::run(service, request, again, seen.clone(), None));
            drop(prepared.send_off(config, run, seen));
            answer(respond.see_other(id))
        }
        By::Form(form) => {
            let run = Box::pin(jobs::run(service, request, again, seen.clone(), None));
            let asker = Asker::of(&prepared.job);
            let ended = prepared.send_off(config, run, seen);
            answer(result(respond, ended, asker, form, id).await)
        }
        By::Response => {
            let (give, response) = oneshot::channel();
            let run = Box::pin(jobs::run(service, request, again, seen.clone(), Some(give)));
            let asker = Asker::of(&prepared.job);
            let ended = prepared.send_off(config, run, seen);
            match first_of(response, ended).await {
                // Its time is over, and its thread may never come back.
                First::Ended(ended) => answer(stopped(respond, std::future::ready(ended), asker, id).await),
                First::Response(Ok(Ok(response)), _) => Ok(passed_on(respond, client, response, asker, id)),
                First::Response(Ok(Err(Thrown::Error(error))), _) => {
                    asker.satisfied();
                    Err(error)
                }
                // It goes where it would have gone without the layer: to the code that polls.
                First::Response(Ok(Err(Thrown::Panic(payload))), _) => {
                    asker.satisfied();
                    resume_unwind(payload)
                }
                // Stopped before there was a response.
                First::Response(Err(_), ended) => answer(stopped(respond, ended, asker, id).await),
            }
        }
    }
}

/// Runs a request as a job that another machine has sent here. Returns why it does not begin.
#[cfg(heeler_remote)]
pub(super) fn begin_sent<S, B, R>(
    config: &Arc<Config>,
    access: &Access,
    delivery: &super::remote::Delivery,
    runtime: Handle,
    service: S,
    request: Request<B>,
) -> Result<(JoinHandle<Ended>, Arc<Job>), String>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Display + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    let (mut head, body) = request.into_parts();
    let again = again(config, delivery.start)?;
    without_flag(config, &mut head);
    let sent = |job: Job| job.sent(delivery.sent, delivery.asked_at);
    let bytes = body.size_hint().exact();
    // The worker decides how many there are.
    let ticket = config.queue.enter_admitted();
    let prepared = prepare(config, access, delivery.start, runtime, &head, bytes, delivery.id, ticket, sent)?;
    inflight::lift_limits();
    let again = again.map(|(runs, body)| Again { head: head.clone(), body, runs });
    let seen = Seen::new(config);
    let run = Box::pin(jobs::run(service, Request::from_parts(head, body), again, seen.clone(), None));
    let job = Arc::clone(&prepared.job);
    Ok((prepared.send_off(config, run, seen), job))
}

/// What came first: the response (or why there is none), while the job goes on, or the end of the job.
enum First<T> {
    Response(Result<T, oneshot::error::RecvError>, JoinHandle<Ended>),
    Ended(Result<Ended, JoinError>),
}

/// Waits for both. If both are there, the response wins.
async fn first_of<T>(mut response: oneshot::Receiver<T>, ended: JoinHandle<Ended>) -> First<T> {
    let mut ended = Some(ended);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(response) = Pin::new(&mut response).poll(cx)
            && let Some(ended) = ended.take()
        {
            return Poll::Ready(First::Response(response, ended));
        }
        match &mut ended {
            Some(ended) => Pin::new(ended).poll(cx).map(First::Ended),
            None => Poll::Pending,
        }
    })
    .await
}

/// How many runs, and how to make an empty body.
type Runs<B> = (u32, fn() -> B);

/// Returns how to run it more than once, if that is wanted.
fn again<B: 'static>(config: &Config, start: Start) -> Result<Option<Runs<B>>, &'static str> {
    let Some(runs) = start.runs.filter(|runs| *runs > 1) else { return Ok(None) };
    match empty(&config.empty_bodies) {
        Some(body) => Ok(Some((runs, body))),
        None => Err("This service cannot run a request more than once: it has not said how to make an empty body."),
    }
}

/// Returns how to make an empty body.
fn empty<B: 'static>(of_user: &EmptyBodies) -> Option<fn() -> B> {
    let known: [&dyn Any; 3] = [
        &(String::new as fn() -> String),
        &(Empty::new as fn() -> Empty<Bytes>),
        &(Full::default as fn() -> Full<Bytes>),
    ];
    let known = known.into_iter().find_map(|make| make.downcast_ref::<fn() -> B>().copied());
    #[cfg(feature = "axum")]
    let known = known.or_else(|| {
        let make: fn() -> axum::body::Body = axum::body::Body::empty;
        (&make as &dyn Any).downcast_ref::<fn() -> B>().copied()
    });
    of_user.of().or(known)
}

/// Makes the request what it would be without the flag.
pub(super) fn without_flag(config: &Config, head: &mut Parts) {
    remove_flag(config, head, |uri| config.flag.strip(uri));
}

/// Removes the flag in any spelling, for a service further on.
pub(super) fn without_any_flag(config: &Config, head: &mut Parts) {
    remove_flag(config, head, |uri| config.flag.purge_from(uri));
}

fn remove_flag(config: &Config, head: &mut Parts, remove: impl Fn(&Uri) -> Uri) {
    head.uri = remove(&head.uri);
    if let Some(header) = &config.header {
        head.headers.remove(header);
    }
    // The one of a router around, which keeps the URI that it saw.
    #[cfg(feature = "axum")]
    if let Some(axum::extract::OriginalUri(uri)) = head.extensions.get_mut() {
        *uri = remove(uri);
    }
}

/// A job that can begin.
struct Prepared {
    job: Arc<Job>,
    ticket: Ticket,
    process: bool,
    inline: bool,
    runtime: Handle,
    supervisor: Handle,
}

/// `complete` says what else is known of the job.
#[expect(clippy::too_many_arguments, reason = "all of it is needed, and there are two callers")]
fn prepare(
    config: &Config,
    access: &Access,
    start: Start,
    runtime: Handle,
    head: &Parts,
    body_bytes: Option<u64>,
    id: Id,
    ticket: Ticket,
    complete: impl FnOnce(Job) -> Job,
) -> Result<Prepared, String> {
    if jobs::UNRETURNED.get().is_full() {
        let sentence = "Too many profiled requests have been given up and are still in a poll or a destructor. No other \
                        request is profiled until one of them returns.";
        return Err(sentence.to_owned());
    }
    let supervisor = SUPERVISOR.get().handle();
    let supervisor = supervisor.map_err(|error| format!("The profile's supervisor could not be started: {error}."))?;
    let inline = config.inline || start.inline;
    let request = jobs::request(&config.redactor, head, &head.uri, body_bytes.unwrap_or(0));
    let principal = access.principal().map(str::to_owned);
    let job = complete(Job::new(id, principal, request, Arc::clone(&config.own_crates), ticket.place()));
    Ok(Prepared { job: Arc::new(job), ticket, process: start.process, inline, runtime, supervisor })
}

impl Prepared {
    /// Starts the job. It goes on whether or not somebody waits for the result.
    fn send_off(self, config: &Arc<Config>, run: Run, seen: Seen) -> JoinHandle<Ended> {
        let Self { job, ticket, process, inline, runtime, supervisor } = self;
        // Before anybody can ask for it.
        let entered = config.jobs.enter(&job);
        let unkept = config.pending.begin();
        let course = Course { config: Arc::clone(config), job, ticket, entered, run, seen, process, inline, runtime };
        supervisor.spawn(async move {
            let _unkept = unkept;
            jobs::supervise(course).await
        })
    }
}

/// Returns the profile when it is done.
async fn result(respond: Respond<'_>, ended: JoinHandle<Ended>, asker: Asker, form: Form, id: Id) -> Response<Bytes> {
    let ended = ended.await;
    asker.satisfied();
    match ended {
        Ok(Ok(profile)) => respond.profile(form, profile, id).await,
        Ok(Err(phase)) => respond.ended(&phase),
        Err(_) => respond.say(StatusCode::INTERNAL_SERVER_ERROR, "The profile could not be made."),
    }
}

/// Returns the answer that replaces a response.
async fn stopped(
    respond: Respond<'_>,
    ended: impl Future<Output = Result<Ended, JoinError>>,
    asker: Asker,
    id: Id,
) -> Response<Bytes> {
    let ended = ended.await;
    asker.satisfied();
    match ended {
        Ok(Err(phase)) => respond.ended(&phase),
        Ok(Ok(_)) | Err(_) => {
            let sentence = "The request was stopped while it was profiled, before it had a response.";
            let mut response = respond.say(StatusCode::SERVICE_UNAVAILABLE, sentence);
            respond.mark(&mut response, id);
            response
        }
    }
}

/// Returns the service's response, marked with its profile.
fn passed_on(respond: Respond<'_>, client: &Client, response: Head, asker: Asker, id: Id) -> Response<Foreign> {
    let Head { parts, hint, is_end_stream, frames } = response;
    // A body that isn't sent isn't read to its end. That must not cancel the request.
    let asker = if client.method == http::Method::HEAD {
        asker.satisfied();
        None
    } else {
        Some(asker)
    };
    let body = Streamed::new(frames, hint, is_end_stream, asker);
    let mut response = Response::from_parts(parts, Foreign::Streamed(body));
    respond.mark(&mut response, id);
    if let Some(name) = &respond.config.header
        && let Ok(name) = HeaderValue::from_str(name.as_str())
    {
        response.headers_mut().append(VARY, name);
    }
    response
}
