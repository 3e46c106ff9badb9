//! Connections that outlive their request.

use std::borrow::Cow;
use std::time::Duration;

use super::Watch;
use super::layer::SHORTEST;
use crate::inflight::{self, Job};
use crate::log::Clamp;

/// Watches what happens on a connection after its request has switched protocols: a WebSocket's handler.
///
/// Call it while the request runs. It returns the same handler, whose future is [watched](super::watch) as a job of that
/// request: its reports say which request, route and trace the connection belongs to, and go where those of the request
/// go. What is watched within the handler has reports of its own. They name the request, too, if they go to the same
/// [`Reports`](crate::Reports).
///
/// Most handlers run for as long as the client stays. Give those [`Duration::MAX`], so that only a poll that blocks its
/// thread is reported, and watch what is done with each message. A threshold below one millisecond counts as one
/// millisecond, and the log says so once.
///
/// ```
/// use std::time::Duration;
///
/// use axum::extract::Request;
/// use axum::http::StatusCode;
/// # struct Socket;
/// # impl Socket {
/// #     fn of(_: hyper::upgrade::Upgraded) -> Self { Self }
/// #     async fn next(&mut self) -> Option<u32> { None }
/// # }
/// # async fn answer(_: u32) {}
///
/// async fn chat(request: Request) -> StatusCode {
///     let handler = heeler::upgrade("chat", Duration::MAX, |mut socket: Socket| async move {
///         while let Some(message) = socket.next().await {
///             heeler::watch("message", Duration::from_secs(1), answer(message)).await;
///         }
///     });
///     tokio::spawn(async move {
///         if let Ok(upgraded) = hyper::upgrade::on(request).await {
///             handler(Socket::of(upgraded)).await;
///         }
///     });
///     StatusCode::SWITCHING_PROTOCOLS
/// }
/// # let _ = chat;
/// ```
///
/// With axum's `WebSocketUpgrade` it is `socket.on_upgrade(heeler::upgrade("chat", Duration::MAX, handle))`.
pub fn upgrade<S, F, Fut>(
    name: impl Into<Cow<'static, str>>,
    threshold: Duration,
    handler: F,
) -> impl FnOnce(S) -> Watch<Fut>
where
    F: FnOnce(S) -> Fut,
    Fut: Future,
{
    static CLAMP: Clamp = Clamp::new("upgrade");
    let (job, threshold) = (Job::new(name), CLAMP.at_least(threshold, SHORTEST));
    let job = Job { origin: inflight::origin(inflight::current_row()), ..job };
    move |stream| Watch::new(job, threshold, handler(stream))
}
