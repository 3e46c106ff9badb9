//! The service: decides how long a call may take, and says so in its request.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use tower_service::Service;

use super::ResponseFuture;
use super::request::{Outbound, ProfileFlags, sealed};
use crate::inflight::PolicyId;
use crate::macros::inner_service_accessors;
use crate::timebox::core::Core;
use crate::timebox::{Limit, deadline_header, is_enabled, remaining};

/// A client service whose calls have a limit: see [`DeadlineLayer`](super::DeadlineLayer).
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
    default: Duration,
    header: Option<HeaderName>,
    flags: Arc<ProfileFlags>,
}

impl<S> DeadlineService<S> {
    pub(super) fn new(inner: S, default: Duration, header: Option<HeaderName>, flags: Arc<ProfileFlags>) -> Self {
        Self { inner, default, header, flags }
    }

    inner_service_accessors!();
}

impl<S, R> Service<R> for DeadlineService<S>
where
    S: Service<R>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    R: Outbound,
{
    type Response = S::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        // Whether or not there are limits: if a caller may not have a profile here, it must not get one from a peer,
        // either.
        self.flags.remove_from(&mut request);
        if !is_enabled() {
            return ResponseFuture::unlimited(self.inner.call(request));
        }
        let call = Call::prepare(self.default, self.header.as_ref(), &mut request);
        let label = label(&request);
        if !call.is_made {
            return ResponseFuture::refused(call.open(label));
        }
        let deadline = call.deadline;
        let mut core = call.open(label);
        let inner = core.run(|| self.inner.call(request));
        ResponseFuture::limited(inner, core, deadline)
    }
}

/// What was decided for a call.
#[derive(Debug)]
struct Call {
    /// Zero for a call that is not made.
    left: Duration,
    deadline: Instant,
    is_made: bool,
}

impl Call {
    /// Decides how long a call may take, and writes that into its request.
    fn prepare(default: Duration, header: Option<&HeaderName>, request: &mut impl sealed::Outbound) -> Self {
        let name =
            if deadline_header::is_grpc(request.headers()) { Some(&deadline_header::GRPC_TIMEOUT) } else { header };
        let said = name.and_then(|name| deadline_header::read(request.headers(), name));
        let own = [request.limit(), said].into_iter().flatten().fold(default, Duration::min);
        let around = remaining();
        // After what is left was read, as for the box that will be opened: neither ends before the box around.
        let now = Instant::now();
        let left = around.map_or(own, |around| around.min(own));
        let is_made = !left.is_zero() && name.is_none_or(|name| tell(request.headers_mut(), name, said, left));
        Self { left: if is_made { left } else { Duration::ZERO }, deadline: now + left, is_made }
    }

    /// Opens the box now, because the peer's clock runs from now on. In a box with no more time it has no effect,
    /// unless it is polled elsewhere.
    fn open(&self, label: String) -> Core {
        let mut core = Core::closed(Limit::from(self.left).label(label));
        core.open(PolicyId::NONE, |_| {});
        core
    }
}

/// Writes what is left into the header, if that is less than what the caller `said`. Returns whether enough is left to
/// write.
fn tell(headers: &mut HeaderMap, name: &HeaderName, said: Option<Duration>, left: Duration) -> bool {
    let mut values = headers.get_all(name).iter();
    let is_one = values.next().is_some_and(|value| !value.as_bytes().contains(&b',')) && values.next().is_none();
    if is_one && said.is_some_and(|said| said <= left) {
        return true;
    }
    let Some(value) = deadline_header::write(name, left) else { return false };
    headers.insert(name, value);
    true
}

/// Says whom the call is to, for a person. Requests of gRPC get their host after this layer.
fn label(request: &impl sealed::Outbound) -> String {
    match request.host() {
        Some(host) => format!("call to {host}"),
        None if deadline_header::is_grpc(request.headers()) => format!("call to {}", request.path()),
        None => "call".to_owned(),
    }
}
