//! The settings of a profiler, and the service they make.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderName;
use tower_layer::Layer;

use super::ProfileService;
use super::flag::Flag;
use super::jobs::{Jobs, Queue};
use super::store::ProfileStore;
use crate::authorize::{Authorize, Authorizer};
use crate::error::{Error, Result};
use crate::inflight::Clock;
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
    pub(super) queue: Arc<Queue>,
    pub(super) jobs: Arc<Jobs>,
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
    config: Arc<OnceLock<Arc<Config>>>,
}

impl ProfileLayer {
    /// A profiler for those whom `authorize` allows: one of [`authorize`](crate::authorize), or a closure.
    #[must_use]
    pub fn new<Kind>(authorize: impl Authorize<Kind>) -> Self {
        Self {
            authorizer: authorize.into_authorizer(),
            flag: Flag::default(),
            header: Some(HeaderName::from_static("x-geordi")),
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

    /// Runs profiled requests on the application's own runtime instead of the lane, for services that cannot move: whose
    /// connections, for example, are driven by the runtime that has made them. Off by default; `?__geordi__=inline` asks for
    /// it once.
    #[must_use]
    pub fn inline(self, inline: bool) -> Self {
        self.with(|layer| layer.inline = inline)
    }

    /// How to make an empty request body, for `?__geordi__=20x` in services whose body type heeler does not know. It knows
    /// axum's (feature `axum`), [`String`], and `http_body_util`'s `Empty` and `Full` of [`Bytes`](bytes::Bytes).
    #[must_use]
    pub fn empty_body<B: 'static>(self, make: fn() -> B) -> Self {
        self.with(|layer| layer.empty_bodies.0.push(Arc::new(make)))
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
                queue: Queue::new(self.concurrent, self.queue),
                jobs: Arc::default(),
            })
        })
    }
}

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
            .finish_non_exhaustive()
    }
}
