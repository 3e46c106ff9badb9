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
use crate::inflight::{Policy, Settings, Tool};
use crate::report;
use crate::report::Reports;
use crate::sync::keep;
use crate::timebox::Interrupted;

type LimitFor = Arc<dyn Fn(&Parts) -> Option<Duration> + Send + Sync>;
pub(super) type Respond = Arc<dyn Fn(&Interrupted, &Parts) -> Response<Bytes> + Send + Sync>;

/// What a service needs of its layer. One a layer, for the life of the process: a request refers to it for free.
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
/// Settings are made before the layer is used. Some hundred bytes of each layer stay for the life of the process.
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
    /// Boxes of `limit` for requests, from when the service is called until it has answered.
    ///
    /// A limit of zero leaves a request one poll; [`Duration::MAX`] is for ever.
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

    /// A changed copy: what was made from the layer before keeps its settings.
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.config = Arc::default();
        self
    }

    /// Where reports go; the log by default.
    #[must_use]
    pub fn reports(self, reports: Reports) -> Self {
        self.with(|layer| layer.reports = reports)
    }

    /// A limit of its own for some requests; `None` means the layer's, [`Duration::MAX`] none: long polls, server-sent
    /// events.
    ///
    /// Called for each request, on its way in: it should be quick. A panic in it is the request's.
    #[must_use]
    pub fn limit_for(self, f: impl Fn(&Parts) -> Option<Duration> + Send + Sync + 'static) -> Self {
        self.with(|layer| layer.limit_for = Some(Arc::new(f)))
    }

    /// A header of requests that says how many whole milliseconds their caller waits; the smallest of that and the limit
    /// counts. A value that is no such number is ignored. None by default; `grpc-timeout` of gRPC requests is always read.
    #[must_use]
    pub fn deadline_header(self, name: HeaderName) -> Self {
        self.with(|layer| layer.deadline_header = Some(name))
    }

    /// A name for the boxes, which [`Interrupted`] and reports show. Costs each request an allocation.
    #[must_use]
    pub fn label(self, label: impl Into<Cow<'static, str>>) -> Self {
        let label = label.into();
        self.with(|layer| layer.label = Some(label))
    }

    /// The status of the answer to a request that was stopped; 503 by default. Not for gRPC, and without effect beside
    /// [`respond`](Self::respond).
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        self.with(|layer| layer.status = status)
    }

    /// The answer to a request that was stopped, in place of the problem document. Not for gRPC.
    ///
    /// Gets the request's head without its extensions, which is copied for this as long as the request runs. Called by the
    /// thread that polls the request: it should be quick, and must not print the [`Interrupted`], nor ask it for its
    /// stacks, which waits until they are named. A panic in it is the request's.
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

    /// Has the same box cover the response's body: the limit is then for all of it, from the service's call until the last
    /// frame has been taken, slow clients included. Off by default.
    ///
    /// A body whose time is up ends with an error that holds [`Interrupted`], in gRPC with the status `DEADLINE_EXCEEDED`.
    #[must_use]
    pub fn body(self, body: bool) -> Self {
        self.with(|layer| layer.body = body)
    }

    fn config(&self) -> &'static Config {
        self.config.get_or_init(|| {
            report::start_watching();
            keep(Config {
                policy: Policy::register(Settings {
                    tool: Tool::Timebox,
                    headers: self.reports.allowed_headers().to_vec(),
                    reports: self.reports.target(),
                    threshold: self.limit,
                    varies: self.limit_for.is_some(),
                    blocking_after: None,
                    abandoned_after: None,
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

// As of the watchdog's layer.
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
