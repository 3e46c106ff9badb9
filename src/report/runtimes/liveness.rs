//! Whether the process is alive, for those who restart it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use tower_service::Service;

use super::beat::of_each;
use crate::text::units::duration;

/// A runtime that runs nothing for this long is not alive.
const DEAD: Duration = Duration::from_secs(5);

/// Returns whether all [watched](crate::watch_runtime) runtimes run what is ready: a service for `/healthz`, and plain
/// functions. A runtime counts as dead after five seconds in which
/// it has run nothing.
///
/// A service on a runtime that is blocked does not answer at all, which a supervisor takes for the same. It tells of the
/// *other* runtimes of the process. Serve it on a runtime of its own to have it tell of all.
///
/// ```
/// let app: axum::Router = axum::Router::new().route_service("/healthz", heeler::liveness());
/// ```
#[must_use]
pub fn liveness() -> Liveness {
    Liveness { after: DEAD }
}

/// Tells whether the runtimes are alive. Made by [`liveness`].
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    after: Duration,
}

impl Liveness {
    /// Sets after which time without a beat a runtime counts as dead. Defaults to five seconds.
    #[must_use]
    pub const fn dead_after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }

    /// Returns whether all watched runtimes are alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.dead().is_empty()
    }

    /// Returns the names of the runtimes that are dead, and for how long each has run nothing.
    #[must_use]
    pub fn dead(&self) -> Vec<(String, Duration)> {
        let silences = of_each(|pulse| (pulse.name.clone(), pulse.silence()));
        silences.into_iter().filter(|(_, silence)| *silence >= self.after).collect()
    }
}

impl<B> Service<Request<B>> for Liveness {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let dead = self.dead();
        let says = |(name, time): &(String, Duration)| {
            format!("the runtime \"{name}\" has run nothing for {}\n", duration(*time))
        };
        let body = if dead.is_empty() { "alive\n".to_owned() } else { dead.iter().map(says).collect() };
        let mut response = Response::new(body);
        if !dead.is_empty() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        ready(Ok(response))
    }
}
