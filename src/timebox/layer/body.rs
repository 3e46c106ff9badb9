//! The response's body: the service's own, inside its box or outside, or an answer that replaces it.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::answer::{Protocol, trailers};
use super::settings::Config;
use crate::timebox::core::Step;
use crate::timebox::open::Open;

pin_project! {
    /// The body of a response of a [`TimeboxService`](super::TimeboxService). Frames, trailers, size hint and end of stream
    /// are those of the body inside, as long as it is there.
    pub struct ResponseBody<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<B> {
        // The service's body, outside any box.
        Plain {
            #[pin]
            body: B,
        },
        // The service's body, in the request's box. `None` once its time is up. Dropped in this order.
        Boxed {
            #[pin]
            body: Option<B>,
            open: Open,
            config: &'static Config,
            protocol: Protocol,
        },
        // Replaces the service's body.
        Answer { data: Option<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    #[inline]
    pub(super) fn plain(body: B) -> Self {
        Self { state: State::Plain { body } }
    }

    pub(super) fn boxed(body: B, open: Open, config: &'static Config, protocol: Protocol) -> Self {
        Self { state: State::Boxed { body: Some(body), open, config, protocol } }
    }

    pub(super) fn answer(data: Bytes) -> Self {
        Self { state: State::Answer { data: Some(data).filter(|data| !data.is_empty()) } }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        match self.project().state.project() {
            StateProjection::Plain { body } => body.poll_frame(cx).map_err(Into::into),
            StateProjection::Answer { data } => {
                Poll::Ready(data.take().map(|data| Ok(Frame::data(B::Data::from(data)))))
            }
            StateProjection::Boxed { mut body, open, config, protocol } => {
                let step = open.poll(
                    cx,
                    || config.label.clone(),
                    |cx| match body.as_mut().as_pin_mut() {
                        Some(body) => body.poll_frame(cx),
                        None => Poll::Ready(None),
                    },
                );
                match step {
                    Step::Pending => Poll::Pending,
                    Step::Ready(frame) => {
                        if !matches!(frame, Some(Ok(_))) {
                            open.end();
                        }
                        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
                    }
                    Step::Interrupted(interrupted) => {
                        // In the box, so that a watchdog inside learns the outcome of its request.
                        open.run(|| body.set(None));
                        open.end();
                        Poll::Ready(Some(match protocol {
                            Protocol::Grpc => Ok(Frame::trailers(trailers(interrupted.limit()))),
                            Protocol::Http | Protocol::GrpcWeb => Err(interrupted.into()),
                        }))
                    }
                }
            }
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Plain { body } | State::Boxed { body: Some(body), .. } => body.is_end_stream(),
            State::Boxed { body: None, .. } => true,
            State::Answer { data } => data.is_none(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Plain { body } | State::Boxed { body: Some(body), .. } => body.size_hint(),
            State::Boxed { body: None, .. } => SizeHint::with_exact(0),
            State::Answer { data } => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
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
        if let State::Plain { body } | State::Boxed { body: Some(body), .. } = &self.state {
            f.field("inner", body);
        }
        f.finish_non_exhaustive()
    }
}
