//! The settings of a layer of boxes, and the service they make.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response, StatusCode};
use tower_layer::Layer;

use super::TimeboxService;
use crate::inflight::{Abandoned, Policy, Settings, Tool};
use crate::report;
use crate::report::Reports;
use crate::sync::keep;
use crate::timebox::Interrupted;

type LimitFor = Arc<dyn Fn(&Parts) -> Option<Duration> + Send + Sync>;
pub(super) type Respond = Arc<dyn Fn(&Interrupted, &Parts) -> Response<Bytes> + Send + Sync>;

/// What a service needs from its layer. There is one per layer, for the life of the process, so a request can refer to
/// it for free.
pub(super) struct Config {
    pub(super) policy: &'static Policy,
    pub(super) limit: Duration,
    pub(super) limit_for: Option<LimitFor>,
    pub(super) deadline_header: Option<HeaderName>,
    pub(super) label: Option<Cow<'static, str>>,
    pub(super) status: StatusCode,
    pub(super) respond: Option<Respond>,
    pub(super) body: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Stops requests that have no answer in time, and reports where they were. See the [module](crate::timebox::layer).
///
/// Call the setters before the layer is used. Some hundred bytes of each layer stay for the life of the process.
#[derive(Clone)]
pub struct TimeboxLayer {
    limit: Duration,
    reports: Reports,
    limit_for: Option<LimitFor>,
    deadline_header: Option<HeaderName>,
    label: Option<Cow<'static, str>>,
    status: StatusCode,
    respond: Option<Respond>,
    body: bool,
    config: Arc<OnceLock<&'static Config>>,
}

impl TimeboxLayer {
    /// Creates a layer that gives requests this long, from when the service is called until it has answered.
    ///
    /// With a limit of zero, a request gets one poll. [`Duration::MAX`] means no limit.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            reports: Reports::shared(),
            limit_for: None,
            deadline_header: None,
            label: None,
            status: StatusCode::SERVICE_UNAVAILABLE,
            respond: None,
            body: false,
            config: Arc::default(),
        }
    }

    /// Returns a changed copy. Services made from the layer before keep its settings.
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.config = Arc::default();
        self
    }

    /// Sets where reports are delivered. Defaults to the log.
    #[must_use]
    pub fn reports(self, reports: Reports) -> Self {
        self.with(|layer| layer.reports = reports)
    }

    /// Sets a different limit for some requests. `None` means the layer's limit. [`Duration::MAX`] means no limit, for
    /// long polls and server-sent events.
    ///
    /// The closure is called for each request, before the service, so it should be quick. If it panics, the request
    /// panics.
    #[must_use]
    pub fn limit_for(self, f: impl Fn(&Parts) -> Option<Duration> + Send + Sync + 'static) -> Self {
        self.with(|layer| layer.limit_for = Some(Arc::new(f)))
    }

    /// Reads from this request header how many whole milliseconds the caller waits. The shorter of that and the limit
    /// counts.
    ///
    /// A value that isn't such a number is ignored. By default no header is read, except `grpc-timeout` of gRPC
    /// requests, which always is.
    #[must_use]
    pub fn deadline_header(self, name: HeaderName) -> Self {
        self.with(|layer| layer.deadline_header = Some(name))
    }

    /// Names the boxes. [`Interrupted`] and reports show the name. Costs each request an allocation.
    #[must_use]
    pub fn label(self, label: impl Into<Cow<'static, str>>) -> Self {
        let label = label.into();
        self.with(|layer| layer.label = Some(label))
    }

    /// Sets the status of the response to a request that was stopped. Defaults to 503. Has no effect on gRPC requests, nor
    /// together with [`respond`](Self::respond).
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        self.with(|layer| layer.status = status)
    }

    /// Sets a closure that makes the response to a request that was stopped, in place of the problem document. Has no
    /// effect on gRPC requests.
    ///
    /// The closure gets the request's head without its extensions. With this setter each request keeps a copy of its
    /// head while it runs. The thread that polls the request calls the closure, so it should be quick. It must not
    /// print the [`Interrupted`] or ask it for its stacks, because that waits until they are symbolized. If it panics,
    /// the request panics.
    ///
    /// ```
    /// use std::time::Duration;
    /// use heeler::TimeboxLayer;
    /// use http::Response;
    ///
    /// let layer = TimeboxLayer::new(Duration::from_secs(5)).respond(|interrupted, request| {
    ///     let page = format!("{} took longer than {:?}\n", request.method, interrupted.limit());
    ///     let mut response = Response::new(page.into());
    ///     *response.status_mut() = http::StatusCode::GATEWAY_TIMEOUT;
    ///     response
    /// });
    /// ```
    #[must_use]
    pub fn respond(self, f: impl Fn(&Interrupted, &Parts) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        self.with(|layer| layer.respond = Some(Arc::new(f)))
    }

    /// Limits response bodies as well. The limit then covers the time from the service's call until the last frame of the
    /// body has been taken, slow clients included. Bodies are not limited by default.
    ///
    /// A body whose time is up ends with an error that holds [`Interrupted`]. In gRPC it ends with the status
    /// `DEADLINE_EXCEEDED`.
    #[must_use]
    pub fn limit_bodies(self) -> Self {
        self.with(|layer| layer.body = true)
    }

    fn config(&self) -> &'static Config {
        // Not under the lock that the others wait for: it calibrates the clock and starts threads.
        if self.config.get().is_none() {
            report::start_watching();
        }
        self.config.get_or_init(|| {
            keep(Config {
                policy: Policy::register(Settings {
                    tool: Tool::Timebox,
                    name: None,
                    headers: self.reports.kept_headers(),
                    reports: self.reports.target(),
                    threshold: self.limit,
                    varies: self.limit_for.is_some(),
                    blocking_after: None,
                    abandoned: Abandoned::Never,
                }),
                limit: self.limit,
                limit_for: self.limit_for.clone(),
                deadline_header: self.deadline_header.clone(),
                label: self.label.clone(),
                status: self.status,
                respond: self.respond.clone(),
                body: self.body,
            })
        })
    }
}

// As for the watchdog's layer.
impl std::panic::UnwindSafe for TimeboxLayer {}
impl std::panic::RefUnwindSafe for TimeboxLayer {}
impl std::panic::UnwindSafe for Config {}
impl std::panic::RefUnwindSafe for Config {}

impl<S> Layer<S> for TimeboxLayer {
    type Service = TimeboxService<S>;

    fn layer(&self, inner: S) -> TimeboxService<S> {
        TimeboxService::new(inner, self.config())
    }
}

impl fmt::Debug for TimeboxLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeboxLayer")
            .field("limit", &self.limit)
            .field("reports", &self.reports)
            .field("deadline_header", &self.deadline_header)
            .field("label", &self.label)
            .field("status", &self.status)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
