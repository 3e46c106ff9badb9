//! On a front end: sends a request to a worker, and answers its asker.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{Buf as _, Bytes};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Remote;
use super::queue::log_trouble;
use super::request::{SENT, SentRequest};
use super::settings::{SKEW, STORE_PATIENCE, TRY_AGAIN};
use super::wait::{AbortOnDrop, Waited, WaitingAsker, wait};
use crate::authorize::Access;
use crate::inflight;
use crate::profile::answer::{By, Client, Respond, Wanted, sentence};
use crate::profile::form::Form;
use crate::profile::id::Id;
use crate::profile::jobs;
use crate::profile::layer::Config;
use crate::profile::start::without_flag;
use crate::profile::store::{Claim, Phase, Status, StoreError, someone};
use crate::profile::supervisor::{SUPERVISOR, within};

/// How long the body of a request may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// How long the store and the queue may take together before the sender is told that they are too slow.
const SEND_PATIENCE: Duration = Duration::from_secs(30);

/// Sends the request to a worker. Answers at once, or with the profile if the caller waits for it.
pub(in crate::profile) async fn send<B>(
    config: &Arc<Config>,
    remote: &Remote,
    access: &Access,
    client: &Client,
    wanted: Wanted,
    head: Parts,
    body: B,
) -> Response<Bytes>
where
    B: Body + Send + 'static,
{
    let uri = head.uri.clone();
    let respond = Respond { config, uri: &uri, shows_pages: client.shows_pages };
    let unavailable = |sentence: &str| respond.try_again(sentence);
    // Somebody who waits for a profile waits as long as it takes.
    inflight::lift_limits();
    let Ok(supervisor) = SUPERVISOR.get().handle() else {
        return unavailable("The profile's supervisor could not be started.");
    };
    if head.headers.contains_key(SENT) {
        let sentence = "This request is on its way to a worker's profiler, but a layer in between has removed the extensions that say so.";
        return respond.say(StatusCode::LOOP_DETECTED, sentence);
    }
    let body = match read_in_time(body, remote.max_request_bytes).await {
        Ok(body) => body,
        Err(unread) => return respond.say(unread.status(), &unread.sentence(remote.max_request_bytes)),
    };
    let Ok(id) = Id::random() else { return unavailable("The system has no random numbers available.") };
    let request = SentRequest::new(&head, &body, access.principal(), wanted.start);
    let status = status(config, remote, access, id, head, body.len(), &request);
    let asker = WaitingAsker::new(remote, access, id);
    let sending = {
        let (config, remote, gone) = (Arc::clone(config), remote.clone(), Arc::clone(&asker.gone));
        // It goes on if the asker goes away in the middle, so that nothing is left half done.
        supervisor.spawn(async move { hand_over(&config, &remote, status, &request, &gone).await })
    };
    let asker = if let By::Form(_) = wanted.by {
        Some(asker)
    } else {
        asker.satisfied();
        None
    };
    match sending.await {
        Ok(Ok(())) => {}
        Ok(Err(Unsent::Full)) => return respond.full(30),
        Ok(Err(Unsent::Unavailable(sentence))) => return unavailable(&sentence),
        Err(_) => return unavailable("The request could not be sent to a worker."),
    }
    match wanted.by {
        By::Page => respond.see_other(id),
        By::Response => {
            let sentence = format!(
                "The request runs on another machine. Its response will be in its profile: {}",
                respond.link(&id.to_string())
            );
            let mut response = respond.say(StatusCode::ACCEPTED, &sentence);
            respond.mark(&mut response, id);
            response
        }
        By::Form(form) => {
            let principal = access.principal().map(str::to_owned);
            let waiting = AbortOnDrop(supervisor.spawn(wait(remote.clone(), config.timeout, principal, id)));
            let ended = waiting.ended().await;
            asker.into_iter().for_each(WaitingAsker::satisfied);
            answer(respond, ended.unwrap_or(Waited::Unknown), form, id).await
        }
    }
}

async fn answer(respond: Respond<'_>, waited: Waited, form: Form, id: Id) -> Response<Bytes> {
    match waited {
        Waited::Done(profile) => respond.profile(form, profile, id).await,
        Waited::Ended(phase) => respond.ended(&phase),
        Waited::Store(error) => respond.store_failed(&error),
        Waited::Unknown => {
            let mut response = respond.try_again("The profile's state is not known.");
            respond.mark(&mut response, id);
            response
        }
    }
}

/// Why a body could not be read.
enum Unread {
    TooLong,
    Broken,
    Late,
}

impl Unread {
    const fn status(&self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
        }
    }

    fn sentence(&self, most: usize) -> String {
        match self {
            Self::TooLong => {
                format!("The request's body is too long to be sent to a worker: at most {most} bytes are allowed.")
            }
            Self::Broken => "The request's body did not arrive.".to_owned(),
            Self::Late => "The request's body took too long to arrive.".to_owned(),
        }
    }
}

/// Reads a body of at most so many bytes, within [`BODY_PATIENCE`].
async fn read_in_time<B: Body + Send>(body: B, most: usize) -> Result<Vec<u8>, Unread> {
    within(BODY_PATIENCE, read(body, most)).await.unwrap_or(Err(Unread::Late))
}

/// Reads a body of at most so many bytes.
async fn read<B: Body + Send>(body: B, most: usize) -> Result<Vec<u8>, Unread> {
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    // A frame need not be `Send`, so it must be gone before the next wait.
    poll_fn(|cx| {
        loop {
            match ready!(body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(_)) => return Poll::Ready(Err(Unread::Broken)),
                Some(Ok(frame)) => {
                    let Ok(mut data) = frame.into_data() else { continue };
                    if data.remaining() > most - bytes.len() {
                        return Poll::Ready(Err(Unread::TooLong));
                    }
                    while data.has_remaining() {
                        let chunk = data.chunk();
                        bytes.extend_from_slice(chunk);
                        let length = chunk.len();
                        data.advance(length);
                    }
                }
            }
        }
    })
    .await?;
    Ok(bytes)
}

/// Returns the status of a request that is about to be sent.
fn status(
    config: &Config,
    remote: &Remote,
    access: &Access,
    id: Id,
    mut head: Parts,
    body_bytes: usize,
    request: &SentRequest,
) -> Status {
    without_flag(config, &mut head);
    let shown = jobs::request(&config.redactor, &head, &head.uri, body_bytes as u64);
    Status {
        id,
        principal: access.principal().map(str::to_owned),
        phase: Phase::Sent { again: false },
        method: shown.method,
        uri: shown.uri,
        started_at: request.asked_at,
        updated_at: SystemTime::now(),
        elapsed_ms: 0,
        polls: 0,
        samples: 0,
        place: None,
        sent: Some(remote.job(request.may_run_again())),
    }
}

/// Why a request was not sent.
enum Unsent {
    Full,
    Unavailable(String),
}

/// Puts the request into the store, and its id into the queue. `gone`: nobody waits for it any more.
async fn hand_over(
    config: &Config,
    remote: &Remote,
    status: Status,
    request: &SentRequest,
    gone: &AtomicBool,
) -> Result<(), Unsent> {
    let (id, end) = (status.id, Instant::now() + SEND_PATIENCE);
    let has_room = timeout(STORE_PATIENCE, has_room(config, remote)).await;
    has_room.unwrap_or_else(|_| Err(too_slow()))?;
    let kept = timeout(STORE_PATIENCE, keep(remote, &status, request)).await;
    if let Err(unsent) = kept.unwrap_or_else(|_| Err(too_slow())) {
        // It may be there all the same. The asker need not wait for that.
        let phase = Phase::Failed("the store of profiles could not be reached".to_owned());
        tokio::spawn(abandon(remote.clone(), status, phase));
        return Err(unsent);
    }
    // Whoever has its claim is asked afterwards.
    let pushed = timeout_at(end - STORE_PATIENCE, remote.queue.push(id)).await;
    if let Err(trouble) = pushed.unwrap_or_else(|_| Err("it takes too long, and so did the store".into())) {
        log_trouble("a request to be profiled was not sent", &trouble);
        // It may be in the queue all the same. Whoever has its claim decides.
        let phase = Phase::Failed("the queue of profiles cannot be reached".to_owned());
        let abandoned = tokio::spawn(abandon(remote.clone(), status, phase));
        match timeout_at(end, abandoned).await {
            Ok(Ok(Some(Claim::Taken))) => {}
            _ => return Err(Unsent::Unavailable("The queue of profiles cannot be reached.".to_owned())),
        }
    }
    if gone.load(Ordering::Relaxed) {
        let _ = timeout(STORE_PATIENCE, remote.store.request_cancel(&id, request.principal.as_deref())).await;
    }
    Ok(())
}

/// Returns an error if the store cannot be used, or if there are too many requests in it.
async fn has_room(config: &Config, remote: &Remote) -> Result<(), Unsent> {
    remote.check_store().await.map_err(|unusable| Unsent::Unavailable(sentence(&unusable.to_string())))?;
    let oldest = (remote.waits() + SKEW).saturating_add(config.timeout);
    let requests = remote.store.count_requests(oldest).await.map_err(|error| failed(&error))?;
    if requests >= remote.max_queued { Err(Unsent::Full) } else { Ok(()) }
}

/// Puts the request into the store.
async fn keep(remote: &Remote, status: &Status, request: &SentRequest) -> Result<(), Unsent> {
    let store = &remote.store;
    let json = serde_json::to_vec(request);
    let json = json.map_err(|_| Unsent::Unavailable("The request cannot be written down.".to_owned()))?;
    // Before the request: it tells the worker that somebody waits for it.
    store.put_status(status).await.map_err(|error| failed(&error))?;
    store.put_request(status.id, json).await.map_err(|error| failed(&error))
}

/// Ends a job whose asker has been told that it was not sent. Tries until the store says whose it is, for as long as it could
/// run. Returns that.
async fn abandon(remote: Remote, status: Status, phase: Phase) -> Option<Claim> {
    let (id, began) = (status.id, Instant::now());
    let who = someone().ok()?;
    let claim = loop {
        match timeout(STORE_PATIENCE, remote.store.take_back(status.clone(), phase.clone(), &who)).await {
            Ok(Ok(claim)) => break claim,
            Ok(Err(_)) | Err(_) if began.elapsed() < remote.waits() + SKEW => sleep(TRY_AGAIN).await,
            Ok(Err(_)) | Err(_) => return None,
        }
    };
    if claim == Claim::Mine {
        // A write that was given up may arrive late. Nobody runs it, but it would count.
        tokio::spawn(async move {
            sleep(3 * STORE_PATIENCE).await;
            timeout(STORE_PATIENCE, remote.store.remove_request(id)).await
        });
    }
    Some(claim)
}

fn too_slow() -> Unsent {
    Unsent::Unavailable("The store of profiles takes too long.".to_owned())
}

fn failed(error: &StoreError) -> Unsent {
    Unsent::Unavailable(sentence(&error.to_string()))
}
