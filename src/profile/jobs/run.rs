//! The request itself, as it runs on its profile thread.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::{Buf, Bytes};
use http::request::Parts;
use http::{Request, Response, response};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};
use tower_service::Service;

use super::assemble;
use crate::profile::body::{BoxError, Item};
use crate::profile::layer::Config;
use crate::profile::{Outcome, Response as Shown};
use crate::sync::lock_std;

/// How many frames of a body the request may be ahead of its reader.
const AHEAD: usize = 2;

/// What a job runs.
pub(in crate::profile) type Run = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// How to run a request once more.
pub(in crate::profile) struct Again<B> {
    pub(in crate::profile) head: Parts,
    pub(in crate::profile) body: fn() -> B,
    /// All runs, the first one included.
    pub(in crate::profile) runs: u32,
}

/// What is known of the response so far, however the run ends.
#[derive(Debug, Clone)]
pub(in crate::profile) struct Seen {
    config: Arc<Config>,
    so_far: Arc<Mutex<SoFar>>,
}

#[derive(Debug, Default)]
struct SoFar {
    runs: u32,
    response: Option<Shown>,
}

impl Seen {
    pub(in crate::profile) fn new(config: &Arc<Config>) -> Self {
        Self { config: Arc::clone(config), so_far: Arc::default() }
    }

    /// Returns how often the request has begun, and the last response to it.
    pub(super) fn take(&self) -> (u32, Option<Shown>) {
        let mut so_far = lock_std(&self.so_far);
        (so_far.runs, so_far.response.take())
    }

    fn begin(&self) {
        let mut so_far = lock_std(&self.so_far);
        so_far.runs += 1;
        so_far.response = None;
    }

    fn head(&self, head: &response::Parts) {
        lock_std(&self.so_far).response =
            Some(assemble::response(&self.config.redactor, head.status, head.version, &head.headers));
    }

    fn data(&self, data: &[u8]) {
        let mut so_far = lock_std(&self.so_far);
        let Some(response) = &mut so_far.response else { return };
        response.body_bytes += data.len() as u64;
        let kept = data.len().min(self.config.max_body.saturating_sub(response.body.len()));
        response.body.extend_from_slice(&data[..kept]);
    }
}

/// A response's head, and where its frames come from.
pub(in crate::profile) struct Head {
    pub(in crate::profile) parts: response::Parts,
    pub(in crate::profile) hint: SizeHint,
    pub(in crate::profile) is_end_stream: bool,
    pub(in crate::profile) frames: mpsc::Receiver<Item>,
}

/// Why there is no response.
pub(in crate::profile) enum Thrown<E> {
    Error(E),
    Panic(Box<dyn Any + Send>),
}

/// Where the response of the first run goes as it comes, if somebody takes it.
struct To<E> {
    head: Option<oneshot::Sender<Result<Head, Thrown<E>>>>,
    frames: Option<mpsc::Sender<Item>>,
    /// Whether the run goes on when nobody takes the frames. A response to HEAD has a body that is not sent.
    alone: bool,
}

/// The asker has gone away.
struct Gone;

impl<E> To<E> {
    fn error(&mut self, error: E) {
        if let Some(head) = self.head.take() {
            let _ = head.send(Err(Thrown::Error(error)));
        }
    }

    async fn panic(&mut self, payload: Box<dyn Any + Send>) {
        if let Some(head) = self.head.take() {
            let _ = head.send(Err(Thrown::Panic(payload)));
        } else if let Some(frames) = self.frames.take() {
            let _ = frames.send(Item::Panicked(payload)).await;
        }
    }

    fn head<B: Body>(&mut self, parts: response::Parts, body: &B) {
        let Some(head) = self.head.take() else { return };
        let (give, frames) = mpsc::channel(AHEAD);
        self.frames = Some(give);
        let _ = head.send(Ok(Head { parts, hint: body.size_hint(), is_end_stream: body.is_end_stream(), frames }));
    }

    /// Waits until the reader of the response takes the next frame.
    async fn reader(&mut self) -> Result<Option<mpsc::Permit<'_, Item>>, Gone> {
        if self.alone && self.frames.as_ref().is_some_and(mpsc::Sender::is_closed) {
            self.frames = None;
        }
        match &self.frames {
            None => Ok(None),
            Some(frames) => match frames.reserve().await {
                Ok(permit) => Ok(Some(permit)),
                Err(_) if self.alone => Ok(None),
                Err(_) => Err(Gone),
            },
        }
    }
}

/// Runs the request as often as required. `asker` gets the response of the first run as it comes.
pub(in crate::profile) async fn run<S, B, R>(
    service: S,
    request: Request<B>,
    again: Option<Again<B>>,
    seen: Seen,
    asker: Option<oneshot::Sender<Result<Head, Thrown<S::Error>>>>,
) -> Outcome
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Display,
    R: Body,
    R::Error: Into<BoxError>,
{
    let alone = *request.method() == http::Method::HEAD;
    let mut to = To { head: asker, frames: None, alone };
    match caught(all(service, request, again, &seen, &mut to)).await {
        Ok(Ok(()) | Err(Outcome::Finished)) => Outcome::Finished,
        Ok(Err(outcome)) => outcome,
        Err(payload) => {
            let said = said(&*payload);
            to.panic(payload).await;
            Outcome::Panicked(said)
        }
    }
}

async fn all<S, B, R>(
    service: S,
    request: Request<B>,
    again: Option<Again<B>>,
    seen: &Seen,
    to: &mut To<S::Error>,
) -> Result<(), Outcome>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Display,
    R: Body,
    R::Error: Into<BoxError>,
{
    let Some(again) = again else { return once(service, request, seen, to).await };
    let spare = service.clone();
    once(service, request, seen, to).await?;
    to.frames = None;
    for _ in 1..again.runs {
        let mut service = spare.clone();
        if let Err(error) = std::future::poll_fn(|cx| service.poll_ready(cx)).await {
            return Err(Outcome::Failed(format!("{error:#}")));
        }
        let request = Request::from_parts(again.head.clone(), (again.body)());
        once(service, request, seen, to).await?;
    }
    Ok(())
}

/// Makes one run, to the end of the body. `service` is ready.
async fn once<S, B, R>(mut service: S, request: Request<B>, seen: &Seen, to: &mut To<S::Error>) -> Result<(), Outcome>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Display,
    R: Body,
    R::Error: Into<BoxError>,
{
    seen.begin();
    let (head, body) = match service.call(request).await {
        Ok(response) => response.into_parts(),
        Err(error) => {
            let words = format!("{error:#}");
            to.error(error);
            return Err(Outcome::Failed(words));
        }
    };
    seen.head(&head);
    to.head(head, &body);
    let mut body = pin!(body);
    // A server does not ask for it, either.
    let mut is_over = body.is_end_stream();
    while !is_over {
        let Ok(reader) = to.reader().await else {
            // A server stops asking when it has the promised number of bytes.
            let complete = body.size_hint().exact() == Some(0);
            return if complete { Ok(()) } else { Err(Outcome::Cancelled) };
        };
        let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx).map(|frame| frame.map(plain))).await;
        let (item, result) = match frame {
            Some(Ok(Piece::Data(data))) => {
                seen.data(&data);
                is_over = body.is_end_stream();
                (Item::Data(data, is_over), None)
            }
            Some(Ok(Piece::Trailers(trailers))) => (Item::Trailers(trailers), None),
            Some(Ok(Piece::Other)) => continue,
            Some(Err(error)) => {
                let outcome = Outcome::Failed(chain(&*error));
                (Item::Failed(error), Some(Err(outcome)))
            }
            None => (Item::End, Some(Ok(()))),
        };
        if let Some(reader) = reader {
            reader.send(item);
        }
        if let Some(result) = result {
            return result;
        }
    }
    Ok(())
}

/// A frame, without the service's types, which need not be [`Send`] by themselves.
enum Piece {
    Data(Bytes),
    Trailers(http::HeaderMap),
    /// A kind of frame that this version of `http-body` does not know.
    Other,
}

fn plain<D: Buf, E: Into<BoxError>>(frame: Result<Frame<D>, E>) -> Result<Piece, BoxError> {
    let frame = frame.map_err(Into::into)?;
    Ok(match frame.into_data().map_err(Frame::into_trailers) {
        Ok(mut data) => Piece::Data(data.copy_to_bytes(data.remaining())),
        Err(Ok(trailers)) => Piece::Trailers(trailers),
        Err(Err(_)) => Piece::Other,
    })
}

/// Returns an error and its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words
}

/// Returns the message of a panic.
fn said(payload: &(dyn Any + Send)) -> String {
    let said = payload.downcast_ref::<&str>().copied();
    said.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words").to_owned()
}

/// Returns the future's result, or its panic. The future is dropped before this is ready.
async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = Box::pin(future);
    let result = std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await;
    match catch_unwind(AssertUnwindSafe(|| drop(future))) {
        Ok(()) => result,
        Err(payload) => result.and(Err(payload)),
    }
}
