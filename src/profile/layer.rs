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
use super::pending::Pending;
use super::push::PushTo;
#[cfg(heeler_remote)]
use super::remote::Remote;
use super::store::ProfileStore;
use super::tail;
use crate::authorize::{Authorize, Authorizer};
use crate::capture::unforked;
use crate::clock::Clock;
use crate::disabled::is_disabled;
use crate::error::{Error, Result};
use crate::flag::DEFAULT_HEADER;
use crate::log::Clamp;
use crate::report::Redactor;
use crate::report::rules::orders::{self, Wanted};

/// The allowed samples per second.
const RATES: std::ops::RangeInclusive<u32> = 10..=10_000;

/// What a service needs from its layer.
pub(super) struct Config {
    pub(super) flag: Flag,
    pub(super) header: Option<HeaderName>,
    pub(super) authorizer: Authorizer,
    pub(super) store: ProfileStore,
    pub(super) push_to: PushTo,
    pub(super) rate_hz: u32,
    pub(super) timeout: Duration,
    pub(super) max_body: usize,
    pub(super) redactor: Redactor,
    pub(super) own_crates: Arc<[String]>,
    pub(super) allow_process: bool,
    pub(super) inline: bool,
    pub(super) empty_bodies: EmptyBodies,
    pub(super) strip_refused: bool,
    pub(super) queue: Arc<Queue>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) pending: Pending,
    pub(super) questions: Questions,
    #[cfg(heeler_remote)]
    pub(super) remote: Option<Remote>,
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
    /// Returns one for `B`, if the user has said how to make it.
    pub(super) fn of<B: 'static>(&self) -> Option<fn() -> B> {
        self.0.iter().rev().find_map(|make| make.downcast_ref::<fn() -> B>()).copied()
    }
}

/// Profiles single requests for callers who may profile. See the [module](crate::profile).
///
/// Call the setters before the layer is used.
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
    pub(super) push_to: PushTo,
    pub(super) pending: Pending,
    rate_hz: u32,
    timeout: Duration,
    max_concurrent: usize,
    max_queued: usize,
    max_body_bytes: usize,
    redactor: Redactor,
    own_crates: Vec<String>,
    allow_process: bool,
    inline: bool,
    empty_bodies: EmptyBodies,
    strip_refused: bool,
    #[cfg(heeler_remote)]
    remote: Option<Remote>,
    config: Arc<OnceLock<Arc<Config>>>,
}

impl ProfileLayer {
    /// Creates a profiler for the requests that `authorize` allows. Pass one of [`authorize`](crate::authorize), or a
    /// closure.
    #[must_use]
    pub fn new<Kind>(authorize: impl Authorize<Kind>) -> Self {
        Self {
            authorizer: authorize.into_authorizer(),
            flag: Flag::default(),
            header: Some(DEFAULT_HEADER),
            store: ProfileStore::memory(),
            push_to: PushTo::default(),
            pending: Pending::default(),
            rate_hz: 1_000,
            timeout: Duration::from_secs(600),
            max_concurrent: 1,
            max_queued: 8,
            max_body_bytes: 1 << 20,
            redactor: Redactor::default(),
            own_crates: Vec::new(),
            allow_process: false,
            inline: false,
            empty_bodies: EmptyBodies::default(),
            strip_refused: false,
            #[cfg(heeler_remote)]
            remote: None,
            config: Arc::default(),
        }
    }

    /// Returns a changed copy. Services made from the layer before keep its settings.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.config = Arc::default();
        self
    }

    /// Sets the query parameter that asks for a profile. Defaults to `__geordi__`.
    ///
    /// # Errors
    ///
    /// Returns an error if the name is empty, longer than 64 bytes, or has characters other than letters, digits, `-`,
    /// `.`, `_` and `~`.
    pub fn parameter(self, name: impl AsRef<str>) -> Result<Self, Error> {
        let flag = Flag::new(name.as_ref())?;
        Ok(self.with(|layer| layer.flag = flag))
    }

    /// Sets the header that asks for a profile in addition to the normal response. Defaults to `x-geordi`.
    #[must_use]
    pub fn header(self, name: HeaderName) -> Self {
        self.with(|layer| layer.header = Some(name))
    }

    /// Ignores headers, so that only the query parameter asks for a profile.
    #[must_use]
    pub fn without_header(self) -> Self {
        self.with(|layer| layer.header = None)
    }

    /// Sets where profiles are kept. Defaults to the memory of this process.
    #[must_use]
    pub fn store(self, store: ProfileStore) -> Self {
        self.with(|layer| layer.store = store)
    }

    /// Sets how many times per second a thread is sampled while it is inside a poll of a profiled request. Defaults to 1,000.
    ///
    /// Less than 10 counts as 10, more than 10,000 as 10,000, and the log says so once.
    #[must_use]
    pub fn sample_rate_hz(self, hz: u32) -> Self {
        static CLAMP: Clamp = Clamp::new("ProfileLayer::sample_rate_hz");
        let hz = CLAMP.at_most(CLAMP.at_least(hz, *RATES.start()), *RATES.end());
        self.with(|layer| layer.rate_hz = hz)
    }

    /// Sets how long a profiled request may take, all its runs together. After that it is dropped. Defaults to ten
    /// minutes.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|layer| layer.timeout = timeout)
    }

    /// Sets how many requests may be profiled at a time. Defaults to one, because requests that are profiled side by side slow
    /// each other down, and the profiles show it.
    ///
    /// Zero counts as one, and the log says so once.
    #[must_use]
    pub fn max_concurrent(self, requests: usize) -> Self {
        static CLAMP: Clamp = Clamp::new("ProfileLayer::max_concurrent");
        let requests = CLAMP.at_least(requests, 1);
        self.with(|layer| layer.max_concurrent = requests)
    }

    /// Sets how many more requests may wait for their turn. Defaults to 8. Any further one gets the status 429, and is
    /// told when to try again.
    #[must_use]
    pub fn max_queued(self, requests: usize) -> Self {
        self.with(|layer| layer.max_queued = requests)
    }

    /// Sets how many bytes of a response's body a profile keeps. Defaults to 1 MiB. They are kept as they are, whatever
    /// they contain. With 0, none are kept.
    #[must_use]
    pub fn max_body_bytes(self, bytes: usize) -> Self {
        self.with(|layer| layer.max_body_bytes = bytes)
    }

    /// Hides the values of query parameters with these names, in addition to those whose names look like secrets. Works
    /// like [`ReportsBuilder::secret_params`](crate::ReportsBuilder::secret_params) for reports.
    #[must_use]
    pub fn secret_params(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        self.with(|layer| layer.redactor.secret_names(&names))
    }

    /// Hides secrets that are segments of a path, such as `/reset/{token}`. Works like
    /// [`ReportsBuilder::secret_paths`](crate::ReportsBuilder::secret_paths) for reports.
    ///
    /// # Errors
    ///
    /// Returns an error if a pattern has no placeholder, or cannot be read.
    pub fn secret_paths(self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, Error> {
        let patterns: Vec<String> = patterns.into_iter().map(Into::into).collect();
        let mut redactor = self.redactor.clone();
        redactor.secret_paths(&patterns)?;
        Ok(self.with(|layer| layer.redactor = redactor))
    }

    /// Treats code of these crates as the application's own. Works like
    /// [`ReportsBuilder::own_crates`](crate::ReportsBuilder::own_crates) for reports.
    #[must_use]
    pub fn own_crates(self, crates: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|layer| layer.own_crates.extend(crates.into_iter().map(Into::into)))
    }

    /// Allows `?__geordi__=process`, which profiles the rest of the process while the request runs. It is not allowed
    /// by default, because it profiles other people's requests, too.
    #[must_use]
    pub fn allow_process_profiles(self) -> Self {
        self.with(|layer| layer.allow_process = true)
    }

    /// Runs profiled requests as tasks of the application's runtime instead of on profile threads.
    ///
    /// This is for services that need to be tasks, or that need what is set up on the runtime's own threads. A request
    /// that blocks then holds a worker, as it would without a profile. Without this setter, `?__geordi__=inline` does
    /// the same for one request.
    #[must_use]
    pub fn inline(self) -> Self {
        self.with(|layer| layer.inline = true)
    }

    /// Sets how to make an empty request body, for `?__geordi__=20x` in services whose body type heeler does not know.
    ///
    /// heeler knows axum's body (feature `axum`), [`String`], and `http_body_util`'s `Empty` and `Full` of
    /// [`Bytes`](bytes::Bytes).
    ///
    /// # Bodies that cannot be made
    ///
    /// `hyper::body::Incoming` belongs to a connection, so nobody else can make one, not even an empty one. Without
    /// another body, `20x` is refused with a sentence that says so. A single run is still profiled, because it has the
    /// request's own body. To make an empty body possible, box the body in front of the layer:
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

    /// Removes the flag from requests whose sender may not profile, before the service sees them. This is for services that
    /// pass requests on: see [gateways](crate::authorize#gateways). The parameter is removed in every spelling
    /// (`?%5F%5Fgeordi%5F%5F`), because a gateway may rewrite a query.
    ///
    /// By default the layer does not change such requests: the flag may be meant for a layer further in, or for a service
    /// behind this one that authorizes callers itself.
    #[must_use]
    pub fn strip_refused(self) -> Self {
        self.with(|layer| layer.strip_refused = true)
    }

    /// Runs a piece of work that is no request, and profiles it: a nightly job, a message of a queue. Its output is the
    /// future's, as ever. The profile is in the layer's [store](Self::store) afterwards, under that name and for everybody
    /// who may profile.
    ///
    /// The work runs where it is awaited, and its limits apply. It waits for no turn. If it takes longer than the
    /// [timeout](Self::timeout), the profile ends and the work goes on. Every poll of it is traced, and its
    /// thread is sampled while it computes. See also [`job_when_asked`](Self::job_when_asked).
    ///
    /// ```
    /// # use heeler::{ProfileLayer, authorize};
    /// # async fn import() -> u64 { 7 }
    /// # async fn nightly(layer: ProfileLayer) {
    /// let imported = layer.job("nightly import", import()).await;
    /// # assert_eq!(imported, 7);
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(nightly(ProfileLayer::new(authorize::debug_builds())));
    /// ```
    pub async fn job<F: Future>(&self, name: &str, future: F) -> F::Output {
        if is_disabled() {
            return future.await;
        }
        let reason = "the application profiles this job".to_owned();
        let wanted = Wanted { reason, redactor: self.redactor.clone() };
        tail::job(self.config(), name, wanted, future).await
    }

    /// Does the same, but only if somebody has asked on the [console](https://docs.rs/heeler/latest/heeler/console/index.html)
    /// for a profile of the next job with that name, within the last ten minutes. Otherwise the work just runs.
    pub async fn job_when_asked<F: Future>(&self, name: &str, future: F) -> F::Output {
        let config = self.config();
        if is_disabled() || !orders::has_orders() {
            return future.await;
        }
        match orders::take(tail::JOB, None, name) {
            Some(wanted) => tail::job(config, name, wanted, future).await,
            None => future.await,
        }
    }

    /// Has requests profiled on other machines, by [workers](crate::profile::remote::Worker): see the
    /// [module](crate::profile::remote). Profiles are then in the store of `remote`, not in that of
    /// [`store`](Self::store). Tail profiles and jobs still run in this process.
    #[cfg(heeler_remote)]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "apalis-redis", feature = "apalis-postgres"))))]
    #[must_use]
    pub fn remote(self, remote: Remote) -> Self {
        self.with(|layer| layer.remote = Some(remote))
    }

    /// Returns where profiles are kept.
    fn its_store(&self) -> &ProfileStore {
        #[cfg(heeler_remote)]
        if let Some(remote) = &self.remote {
            return &remote.store;
        }
        &self.store
    }

    fn config(&self) -> &Arc<Config> {
        if self.config.get().is_none() {
            // The first use calibrates the clock. Do that here, and not in a request.
            unforked(Clock::get);
        }
        self.config.get_or_init(|| {
            orders::announce();
            let config = Arc::new(Config {
                flag: self.flag.clone(),
                header: self.header.clone(),
                authorizer: self.authorizer.clone(),
                store: self.its_store().clone(),
                push_to: self.push_to.clone(),
                rate_hz: self.rate_hz,
                timeout: self.timeout,
                max_body: self.max_body_bytes,
                redactor: self.redactor.clone(),
                own_crates: self.own_crates.as_slice().into(),
                allow_process: self.allow_process,
                inline: self.inline,
                empty_bodies: self.empty_bodies.clone(),
                strip_refused: self.strip_refused,
                queue: Queue::new(self.max_concurrent, self.max_queued),
                pending: self.pending.clone(),
                jobs: Arc::default(),
                questions: Questions::default(),
                #[cfg(heeler_remote)]
                remote: self.remote.clone(),
            });
            #[cfg(heeler_remote)]
            if let Some(remote) = &config.remote {
                remote.check_at_start();
            }
            #[cfg(feature = "console")]
            crate::report::profiles::make_known(Arc::<Config>::downgrade(&config));
            config
        })
    }
}

// As for the watchdog's layer.
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
            .field("push_to", &self.push_to)
            .field("rate_hz", &self.rate_hz)
            .field("timeout", &self.timeout)
            .field("max_concurrent", &self.max_concurrent)
            .field("max_queued", &self.max_queued)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("own_crates", &self.own_crates)
            .field("allow_process", &self.allow_process)
            .field("inline", &self.inline)
            .field("strip_refused", &self.strip_refused)
            .finish_non_exhaustive()
    }
}
