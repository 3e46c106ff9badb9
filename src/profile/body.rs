//! The response's body: the service's own, the same sent from a profile thread, or a profiler's answer.

use std::any::Any;
use std::fmt;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::mpsc;

use super::jobs::Asker;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// The body of a response of a [`ProfileService`](super::ProfileService). Frames, trailers, size hint and end of stream
    /// are those of the body inside.
    pub struct ResponseBody<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<B> {
        Plain {
            #[pin]
            body: B,
        },
        Foreign { body: Box<Foreign> },
    }
}

// After a panic of the body inside, the rest reports it itself: it ends with an error.
impl<B: std::panic::UnwindSafe> std::panic::UnwindSafe for ResponseBody<B> {}

/// A body that isn't the service's.
pub(super) enum Foreign {
    Answer(Option<Bytes>),
    Streamed(Streamed),
}

/// A body whose frames come from a profile thread.
pub(super) struct Streamed {
    frames: mpsc::Receiver<Item>,
    hint: SizeHint,
    over: bool,
    /// The client that reads. `None` when it has all of it.
    asker: Option<Asker>,
}

/// What the profile thread sends.
pub(super) enum Item {
    /// The second field says whether the body has ended with this.
    Data(Bytes, bool),
    Trailers(HeaderMap),
    End,
    Failed(BoxError),
    Panicked(Box<dyn Any + Send>),
}

impl Streamed {
    pub(super) fn new(frames: mpsc::Receiver<Item>, hint: SizeHint, over: bool, asker: Option<Asker>) -> Self {
        let mut streamed = Self { frames, hint, over, asker };
        if over {
            streamed.complete();
        }
        streamed
    }

    /// The asker has everything they wanted.
    fn complete(&mut self) {
        self.over = true;
        if let Some(asker) = self.asker.take() {
            asker.satisfied();
        }
    }

    fn delivered(&mut self, bytes: u64, last: bool) {
        let (lower, upper) = (self.hint.lower(), self.hint.upper());
        let mut hint = SizeHint::new();
        hint.set_lower(lower.saturating_sub(bytes));
        if let Some(upper) = upper {
            hint.set_upper(upper.saturating_sub(bytes));
        }
        self.hint = hint;
        if last {
            self.complete();
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.frames.poll_recv(cx)) {
            Some(Item::Data(data, last)) => {
                self.delivered(data.len() as u64, last);
                Some(Ok(Frame::data(data)))
            }
            Some(Item::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Item::End) => {
                self.complete();
                None
            }
            Some(Item::Failed(error)) => {
                self.complete();
                Some(Err(error))
            }
            Some(Item::Panicked(payload)) => {
                self.complete();
                resume_unwind(payload)
            }
            None => {
                self.complete();
                Some(Err("the request was stopped while it was profiled".into()))
            }
        })
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // A server stops asking when it has the promised number of bytes.
        if !self.over && self.hint.exact() == Some(0) {
            self.complete();
        }
    }
}

impl Foreign {
    pub(super) fn answer(data: Bytes) -> Self {
        Self::Answer(Some(data).filter(|data| !data.is_empty()))
    }
}

impl<B> ResponseBody<B> {
    #[inline]
    pub(super) fn plain(body: B) -> Self {
        Self { state: State::Plain { body } }
    }

    pub(super) fn foreign(body: Foreign) -> Self {
        Self { state: State::Foreign { body: Box::new(body) } }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        match self.project().state.project() {
            StateProjection::Plain { body } => body.poll_frame(cx).map_err(Into::into),
            StateProjection::Foreign { body } => {
                let frame = match &mut **body {
                    Foreign::Answer(data) => data.take().map(|data| Ok(Frame::data(data))),
                    Foreign::Streamed(streamed) => ready!(streamed.poll_frame(cx)),
                };
                Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(B::Data::from))))
            }
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Plain { body } => body.is_end_stream(),
            State::Foreign { body } => match &**body {
                Foreign::Answer(data) => data.is_none(),
                Foreign::Streamed(streamed) => streamed.over,
            },
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Plain { body } => body.size_hint(),
            State::Foreign { body } => match &**body {
                Foreign::Answer(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.remaining() as u64)),
                // `SizeHint` is not `Copy` in every version of http-body 1.
                Foreign::Streamed(streamed) => Clone::clone(&streamed.hint),
            },
        }
    }
}

/// An empty body, for frameworks that want one.
impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::plain(B::default())
    }
}

impl<B: fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("ResponseBody");
        if let State::Plain { body } = &self.state {
            f.field("inner", body);
        }
        f.finish_non_exhaustive()
    }
}
