//! The body of an answer.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// The body of the console's responses: a page, a document, or a stream of events.
pub struct ResponseBody(State);

enum State {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl ResponseBody {
    pub(super) fn whole(data: Bytes) -> Self {
        Self(State::Whole(Some(data).filter(|data| !data.is_empty())))
    }

    pub(super) fn events(events: mpsc::Receiver<Bytes>) -> Self {
        Self(State::Events(events))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            State::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            State::Events(events) => events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            State::Events(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for ResponseBody {
    /// Leaves out what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
