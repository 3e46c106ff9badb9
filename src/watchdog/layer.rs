//! The settings of a watchdog, and the service they make.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::request::Parts;
use tower_layer::Layer;

use super::{WatchdogHandle, WatchdogService};
use crate::disabled::is_disabled;
use crate::inflight::{Abandoned, Policy, Settings, Tool, nanos};
use crate::log::Clamp;
use crate::monitor;
use crate::report;
use crate::report::Reports;
use crate::sync::keep;

type ThresholdFor = Arc<dyn Fn(&Parts) -> Option<Duration> + Send + Sync>;
type Ignore = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;

/// What a service needs from its layer. There is one per layer, for the life of the process, so a request can refer to
/// it for free.
pub(super) struct Config {
    pub(super) policy: &'static Policy,
    pub(super) threshold_for: Option<ThresholdFor>,
    pub(super) ignore: Option<Ignore>,
    pub(super) body: bool,
}

impl Config {
    #[inline]
    pub(super) fn has_exceptions(&self) -> bool {
        self.ignore.is_some() || self.threshold_for.is_some()
    }
}

/// Watches requests, and reports the slow ones. See the [module](crate::watchdog).
///
/// Call the setters before the layer is used. Some hundred bytes of each layer stay for the life of the process.
#[derive(Clone)]
pub struct WatchdogLayer {
    settings: Settings,
    threshold_for: Option<ThresholdFor>,
    ignore: Option<Ignore>,
    body: bool,
    pile_up: Option<usize>,
    config: Arc<OnceLock<&'static Config>>,
}

/// The monitor's resolution. A shorter threshold is raised to it.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

impl WatchdogLayer {
    /// Creates a watchdog for requests that run longer than `threshold`.
    ///
    /// A threshold below one millisecond counts as one millisecond, and the log says so once. [`Duration::MAX`] counts
    /// as never.
    #[must_use]
    pub fn new(threshold: Duration) -> Self {
        static CLAMP: Clamp = Clamp::new("WatchdogLayer::new");
        let reports = Reports::shared();
        Self {
            settings: Settings {
                tool: Tool::Watchdog,
                name: None,
                headers: reports.kept_headers(),
                reports: reports.target(),
                threshold: CLAMP.at_least(threshold, SHORTEST),
                varies: false,
                blocking_after: Some(Duration::from_secs(1)),
                abandoned: Abandoned::AtFraction(0.5),
            },
            threshold_for: None,
            ignore: None,
            body: false,
            pile_up: None,
            config: Arc::default(),
        }
    }

    /// Returns a changed copy. Services made from the layer before keep its settings.
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.config = Arc::default();
        self
    }

    /// Gives the layer a name, which the console shows beside its switches. Without one, it shows a number.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with(|layer| layer.settings.name = Some(name.into()))
    }

    /// Sets where reports are delivered. Defaults to the log.
    #[must_use]
    pub fn reports(self, reports: Reports) -> Self {
        self.with(|layer| {
            layer.settings.headers = reports.kept_headers();
            layer.settings.reports = reports.target();
        })
    }

    /// Sets a different threshold for some requests. `None` means the layer's threshold.
    ///
    /// A threshold below one millisecond counts as one millisecond, and the log says so once. The closure is called for
    /// each request, before the service, so it should be quick. If it panics, the request panics.
    #[must_use]
    pub fn threshold_for(self, f: impl Fn(&Parts) -> Option<Duration> + Send + Sync + 'static) -> Self {
        self.with(|layer| {
            layer.settings.varies = true;
            layer.threshold_for = Some(Arc::new(f));
        })
    }

    /// Ignores some requests: long polls, server-sent events, upgrades. They are not watched at all.
    #[must_use]
    pub fn ignore(self, f: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|layer| layer.ignore = Some(Arc::new(f)))
    }

    /// Reports a single poll that holds its thread for this long, even if the request is not slow yet. Defaults to one
    /// second.
    ///
    /// The poll is found at most a quarter of that time later. Less than one millisecond counts as one millisecond, and
    /// the log says so once. [`Duration::MAX`] counts as never. See also
    /// [`without_blocking_reports`](Self::without_blocking_reports).
    #[must_use]
    pub fn blocking_after(self, limit: Duration) -> Self {
        static CLAMP: Clamp = Clamp::new("WatchdogLayer::blocking_after");
        let limit = CLAMP.at_least(limit, SHORTEST);
        self.with(|layer| layer.settings.blocking_after = Some(limit))
    }

    /// Turns off the reports that [`blocking_after`](Self::blocking_after) describes. A request that blocks until its
    /// threshold is still reported.
    #[must_use]
    pub fn without_blocking_reports(self) -> Self {
        self.with(|layer| layer.settings.blocking_after = None)
    }

    /// Reports a request that is dropped without a response after this long, because its client has left.
    ///
    /// The time is the same for all requests, whatever their threshold is. It replaces
    /// [`abandoned_at_fraction`](Self::abandoned_at_fraction). Before an eighth of the threshold there are no stacks to show.
    /// [`Duration::MAX`] counts as never.
    ///
    /// ```
    /// use std::time::Duration;
    /// use heeler::WatchdogLayer;
    ///
    /// let layer = WatchdogLayer::new(Duration::from_secs(5)).abandoned_after(Duration::from_secs(1));
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn abandoned_after(self, time: Duration) -> Self {
        self.with(|layer| layer.settings.abandoned = Abandoned::After(nanos(time)))
    }

    /// Reports a request that is dropped without a response after this fraction of its threshold, because its client has
    /// left. Defaults to 0.5.
    ///
    /// It replaces [`abandoned_after`](Self::abandoned_after). A fraction that is negative or not a number counts as zero, and
    /// the log says so once.
    #[must_use]
    pub fn abandoned_at_fraction(self, fraction: f64) -> Self {
        static CLAMP: Clamp = Clamp::new("WatchdogLayer::abandoned_at_fraction");
        let fraction = CLAMP.at_least(fraction, 0.0);
        self.with(|layer| layer.settings.abandoned = Abandoned::AtFraction(fraction))
    }

    /// Turns off reports of requests that are dropped without a response.
    #[must_use]
    pub fn without_abandoned_reports(self) -> Self {
        self.with(|layer| layer.settings.abandoned = Abandoned::Never)
    }

    /// Watches response bodies as well. Reports a body that does not deliver its next frame within the threshold.
    ///
    /// Time that passes while nobody asks for a frame (a slow client) does not count. Bodies are not watched by default.
    #[must_use]
    pub fn watch_bodies(self) -> Self {
        self.with(|layer| layer.body = true)
    }

    /// Reports a pile-up: as soon as this many requests are in flight on one route, or at one place. It is one report of the
    /// kind *dump*, with the requests grouped by place, before any of them crosses its threshold. The next comes when half of
    /// them have gone in between, and a minute later at the earliest. Pile-ups are not reported by default.
    ///
    /// Requests are counted four times a second, by a thread of heeler's own. Less than two counts as two, and the log says
    /// so once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use heeler::WatchdogLayer;
    ///
    /// // 30 are normal at noon.
    /// let layer = WatchdogLayer::new(Duration::from_secs(10)).pile_up(200);
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn pile_up(self, requests: usize) -> Self {
        static CLAMP: Clamp = Clamp::new("WatchdogLayer::pile_up");
        let requests = CLAMP.at_least(requests, 2);
        self.with(|layer| layer.pile_up = Some(requests))
    }

    /// Returns a handle to look at the layer and change it while it is in use. Call this after all setters.
    #[must_use]
    pub fn handle(&self) -> WatchdogHandle {
        WatchdogHandle::new(self.config().policy)
    }

    fn config(&self) -> &'static Config {
        // Not under the lock that the others wait for: it calibrates the clock and starts threads.
        if self.config.get().is_none() {
            report::start_watching();
        }
        self.config.get_or_init(|| {
            let config = keep(Config {
                policy: Policy::register(self.settings.clone()),
                threshold_for: self.threshold_for.clone(),
                ignore: self.ignore.clone(),
                body: self.body,
            });
            if let Some(requests) = self.pile_up.filter(|_| !is_disabled()) {
                report::expect_pile_up(config.policy, requests);
            }
            // The monitor may be in a long sleep that began before this limit on single polls existed.
            monitor::answered();
            config
        })
    }
}

/// Creates a watchdog with 25 seconds, like dogslow: just before the 30 seconds after which most proxies give up.
impl Default for WatchdogLayer {
    fn default() -> Self {
        Self::new(Duration::from_secs(25))
    }
}

// If one of the application's closures panics, that request fails, and the closure is called again for the next one.
impl std::panic::UnwindSafe for WatchdogLayer {}
impl std::panic::RefUnwindSafe for WatchdogLayer {}
impl std::panic::UnwindSafe for Config {}
impl std::panic::RefUnwindSafe for Config {}

impl<S> Layer<S> for WatchdogLayer {
    type Service = WatchdogService<S>;

    fn layer(&self, inner: S) -> WatchdogService<S> {
        WatchdogService::new(inner, self.config())
    }
}

impl fmt::Debug for WatchdogLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchdogLayer")
            .field("settings", &self.settings)
            .field("body", &self.body)
            .field("pile_up", &self.pile_up)
            .finish_non_exhaustive()
    }
}
