//! The settings of a profiler, and the service they make.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderName;
use tower_layer::Layer;

use super::ProfileService;
use super::answer::Questions;
use super::flag::Flag;
use super::jobs::{Jobs, Queue};
use super::store::ProfileStore;
use crate::authorize::{Authorize, Authorizer};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::flag::DEFAULT_HEADER;
use crate::report::Redactor;

/// Samples a second that can be asked for.
const RATES: std::ops::RangeInclusive<u32> = 10..=10_000;

/// What a service needs of its layer.
pub(super) struct Config {
    pub(super) flag: Flag,
    pub(super) header: Option<HeaderName>,
    pub(super) authorizer: Authorizer,
    pub(super) store: ProfileStore,
    pub(super) rate_hz: u32,
    pub(super) cap: Duration,
    pub(super) max_body: usize,
    pub(super) redactor: Redactor,
    pub(super) own_crates: Arc<[String]>,
    pub(super) allow_process: bool,
    pub(super) inline: bool,
    pub(super) empty_bodies: EmptyBodies,
    pub(super) strip_refused: bool,
    pub(super) queue: Arc<Queue>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) questions: Questions,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("flag", &self.flag).finish_non_exhaustive()
    }
}

/// How to make empty bodies of types that heeler does not know: functions `fn() -> B`.
#[derive(Clone, Default)]
pub(super) struct EmptyBodies(Vec<Arc<dyn Any + Send + Sync>>);

impl EmptyBodies {
    /// One for `B`, if somebody has said how to make it.
    pub(super) fn of<B: 'static>(&self) -> Option<fn() -> B> {
        self.0.iter().rev().find_map(|make| make.downcast_ref::<fn() -> B>()).copied()
    }
}

/// Profiles single requests for those who may: see the [module](crate::profile).
///
/// Settings are made before the layer is used.
///
/// # Example
///
/// ```
/// use heeler::ProfileLayer;
/// use heeler::authorize;
///
/// # async fn home() {}
/// # fn app(token: String) -> Result<axum::Router, heeler::Error> {
/// let app = axum::Router::new()
///     .route("/", axum::routing::get(home))
///     .layer(ProfileLayer::new(authorize::bearer(token)?));
/// # Ok(app)
/// # }
/// # app("correct-horse-battery-staple".to_owned()).unwrap();
/// ```
#[derive(Clone)]
pub struct ProfileLayer {
    authorizer: Authorizer,
    flag: Flag,
    header: Option<HeaderName>,
    store: ProfileStore,
    rate_hz: u32,
    cap: Duration,
    concurrent: usize,
    queue: usize,
    max_body: usize,
    redactor: Redactor,
    own_crates: Vec<String>,
    allow_process: bool,
    inline: bool,
    empty_bodies: EmptyBodies,
    strip_refused: bool,
    config: Arc<OnceLock<Arc<Config>>>,
}

impl ProfileLayer {
    /// A profiler for those whom `authorize` allows: one of [`authorize`](crate::authorize), or a closure.
    #[must_use]
    pub fn new<Kind>(authorize: impl Authorize<Kind>) -> Self {
        Self {
            authorizer: authorize.into_authorizer(),
            flag: Flag::default(),
            header: Some(DEFAULT_HEADER),
            store: ProfileStore::memory(),
            rate_hz: 1_000,
            cap: Duration::from_secs(600),
            concurrent: 1,
            queue: 8,
            max_body: 1 << 20,
            redactor: Redactor::default(),
            own_crates: Vec::new(),
            allow_process: false,
            inline: false,
            empty_bodies: EmptyBodies::default(),
            strip_refused: false,
            config: Arc::default(),
        }
    }

    /// A changed copy: what was made from the layer before keeps its settings.
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.config = Arc::default();
        self
    }

    /// The query's parameter that asks for a profile; `__geordi__` by default.
    ///
    /// # Errors
    ///
    /// If the name is empty, longer than 64 bytes, or not of letters, digits, `-`, `.`, `_` and `~`.
    pub fn parameter(self, name: impl AsRef<str>) -> Result<Self, Error> {
        let flag = Flag::new(name.as_ref())?;
        Ok(self.with(|layer| layer.flag = flag))
    }

    /// The header that asks for a profile beside the normal response; `x-geordi` by default, `None` for no header at all.
    #[must_use]
    pub fn header(self, name: impl Into<Option<HeaderName>>) -> Self {
        let name = name.into();
        self.with(|layer| layer.header = name)
    }

    /// Where profiles are kept; in memory by default.
    #[must_use]
    pub fn store(self, store: ProfileStore) -> Self {
        self.with(|layer| layer.store = store)
    }

    /// Samples a second of a thread that is inside a poll of a profiled request; 1,000 by default, 10 to 10,000.
    #[must_use]
    pub fn rate(self, hz: u32) -> Self {
        self.with(|layer| layer.rate_hz = hz.clamp(*RATES.start(), *RATES.end()))
    }

    /// How long a profiled request may take, all its runs together; then it is dropped. Ten minutes by default.
    #[must_use]
    pub fn cap(self, cap: Duration) -> Self {
        self.with(|layer| layer.cap = cap)
    }

    /// How many requests are profiled at a time, at least and by default one: those beside each other slow each other down,
    /// and the profiles show it.
    #[must_use]
    pub fn concurrent(self, requests: usize) -> Self {
        self.with(|layer| layer.concurrent = requests.max(1))
    }

    /// How many more requests wait for their turn, 8 by default. Who comes then is sent away with the status 429 and told
    /// when to come back.
    #[must_use]
    pub fn queue(self, requests: usize) -> Self {
        self.with(|layer| layer.queue = requests)
    }

    /// How many bytes of a response's body a profile keeps; 1 MiB by default. They are kept as they are, whatever they say:
    /// with 0, none are.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        self.with(|layer| layer.max_body = bytes)
    }

    /// Hides the values of query parameters with these names, besides those whose names look like secrets by themselves:
    /// as [`ReportsBuilder::secret_params`](crate::ReportsBuilder::secret_params) does for reports.
    #[must_use]
    pub fn secret_params(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        self.with(|layer| layer.redactor.secret_names(&names))
    }

    /// Hides secrets that are segments of a path, such as `/reset/{token}`: as
    /// [`ReportsBuilder::secret_paths`](crate::ReportsBuilder::secret_paths) does for reports.
    ///
    /// # Errors
    ///
    /// If a pattern has no placeholder, or cannot be read.
    pub fn secret_paths(self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, Error> {
        let patterns: Vec<String> = patterns.into_iter().map(Into::into).collect();
        let mut redactor = self.redactor.clone();
        redactor.secret_paths(&patterns)?;
        Ok(self.with(|layer| layer.redactor = redactor))
    }

    /// Takes code of these crates for the application's own: as
    /// [`ReportsBuilder::own_crates`](crate::ReportsBuilder::own_crates) does for reports.
    #[must_use]
    pub fn own_crates(self, crates: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|layer| layer.own_crates.extend(crates.into_iter().map(Into::into)))
    }

    /// Whether `?__geordi__=process` may be asked for: what the rest of the process does while the request runs. Off by
    /// default, for it profiles other people's requests, too.
    #[must_use]
    pub fn allow_process(self, allow: bool) -> Self {
        self.with(|layer| layer.allow_process = allow)
    }

    /// Runs profiled requests as tasks of the application's runtime instead of on profile threads: for services that need
    /// to be tasks, or what is set up on the runtime's own threads. One that blocks holds a worker then, as it would without
    /// a profile. Off by default; `?__geordi__=inline` asks for it once.
    #[must_use]
    pub fn inline(self, inline: bool) -> Self {
        self.with(|layer| layer.inline = inline)
    }

    /// How to make an empty request body, for `?__geordi__=20x` in services whose body type heeler does not know. It knows
    /// axum's (feature `axum`), [`String`], and `http_body_util`'s `Empty` and `Full` of [`Bytes`](bytes::Bytes).
    ///
    /// # Bodies that cannot be made
    ///
    /// `hyper::body::Incoming` belongs to a connection; nobody else can make one, not even an empty one. Without another body
    /// `20x` is refused with a sentence that says so; one run is profiled all the same, because it has the request's own body.
    /// Box the body in front of the layer, and it can be empty:
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use bytes::Bytes;
    /// use heeler::{ProfileLayer, authorize};
    /// use http::{Request, Response};
    /// use http_body_util::combinators::BoxBody;
    /// use http_body_util::{BodyExt, Empty, Full};
    /// use hyper::body::Incoming;
    /// use tower::{ServiceBuilder, service_fn};
    ///
    /// type Body = BoxBody<Bytes, hyper::Error>;
    ///
    /// async fn hello(_request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    ///     Ok(Response::new(Full::from("hello")))
    /// }
    ///
    /// let service = ServiceBuilder::new()
    ///     .map_request(|request: Request<Incoming>| request.map(BodyExt::boxed))
    ///     .layer(
    ///         ProfileLayer::new(authorize::debug_builds())
    ///             .empty_body::<Body>(|| Empty::new().map_err(|never| match never {}).boxed()),
    ///     )
    ///     .service(service_fn(hello));
    /// # fn is_service<S: tower::Service<Request<Incoming>>>(_: S) {}
    /// # is_service(service);
    /// ```
    ///
    /// The type must be that of the requests that reach the layer. `examples/hyper_shared.rs` is a whole program.
    #[must_use]
    pub fn empty_body<B: 'static>(self, make: fn() -> B) -> Self {
        self.with(|layer| layer.empty_bodies.0.push(Arc::new(make)))
    }

    /// Takes the flag out of requests whose sender may not profile, before the service sees them: for a service that passes
    /// requests on, see [gateways](crate::authorize#gateways). The parameter goes in every spelling (`?%5F%5Fgeordi%5F%5F`), for
    /// whoever passes a query on may write it anew.
    ///
    /// Without, the layer changes nothing about such requests: the flag may be another layer's further in, or of a service
    /// behind that recognises people by itself.
    #[must_use]
    pub fn strip_refused(self) -> Self {
        self.with(|layer| layer.strip_refused = true)
    }

    fn config(&self) -> &Arc<Config> {
        self.config.get_or_init(|| {
            // The first use calibrates it: here, and not in a request.
            Clock::get();
            Arc::new(Config {
                flag: self.flag.clone(),
                header: self.header.clone(),
                authorizer: self.authorizer.clone(),
                store: self.store.clone(),
                rate_hz: self.rate_hz,
                cap: self.cap,
                max_body: self.max_body,
                redactor: self.redactor.clone(),
                own_crates: self.own_crates.as_slice().into(),
                allow_process: self.allow_process,
                inline: self.inline,
                empty_bodies: self.empty_bodies.clone(),
                strip_refused: self.strip_refused,
                queue: Queue::new(self.concurrent, self.queue),
                jobs: Arc::default(),
                questions: Questions::default(),
            })
        })
    }
}

// As of the watchdog's layer.
impl std::panic::UnwindSafe for ProfileLayer {}
impl std::panic::RefUnwindSafe for ProfileLayer {}
impl std::panic::UnwindSafe for Config {}
impl std::panic::RefUnwindSafe for Config {}

impl<S> Layer<S> for ProfileLayer {
    type Service = ProfileService<S>;

    fn layer(&self, inner: S) -> ProfileService<S> {
        ProfileService::new(inner, Arc::clone(self.config()))
    }
}

impl fmt::Debug for ProfileLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileLayer")
            .field("authorizer", &self.authorizer)
            .field("flag", &self.flag)
            .field("header", &self.header)
            .field("store", &self.store)
            .field("rate_hz", &self.rate_hz)
            .field("cap", &self.cap)
            .field("concurrent", &self.concurrent)
            .field("queue", &self.queue)
            .field("max_body", &self.max_body)
            .field("own_crates", &self.own_crates)
            .field("allow_process", &self.allow_process)
            .field("inline", &self.inline)
            .field("strip_refused", &self.strip_refused)
            .finish_non_exhaustive()
    }
}
