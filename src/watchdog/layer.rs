//! The settings of a watchdog, and the service they make.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::request::Parts;
use tower_layer::Layer;

use super::{WatchdogHandle, WatchdogService};
use crate::inflight::{Policy, Settings, Tool};
use crate::monitor;
use crate::report;
use crate::report::Reports;
use crate::sync::keep;

type ThresholdFor = Arc<dyn Fn(&Parts) -> Option<Duration> + Send + Sync>;
type Ignore = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;

/// What a service needs of its layer. One a layer, for the life of the process: a request refers to it for free.
pub(super) struct Config {
    pub(super) policy: &'static Policy,
    pub(super) threshold_for: Option<ThresholdFor>,
    pub(super) ignore: Option<Ignore>,
    pub(super) body: bool,
}

impl Config {
    #[inline]
    pub(super) fn has_rules(&self) -> bool {
        self.ignore.is_some() || self.threshold_for.is_some()
    }
}

/// Watches requests, and reports the slow ones. See the [module](crate::watchdog).
///
/// Settings are made before the layer is used. Some hundred bytes of each layer stay for the life of the process.
#[derive(Clone)]
pub struct WatchdogLayer {
    settings: Settings,
    threshold_for: Option<ThresholdFor>,
    ignore: Option<Ignore>,
    body: bool,
    config: Arc<OnceLock<&'static Config>>,
}

/// The monitor's resolution; a shorter threshold is raised to it.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

impl WatchdogLayer {
    /// A watchdog for requests that run longer than `threshold`.
    ///
    /// A threshold below one millisecond counts as one millisecond; [`Duration::MAX`] as never.
    #[must_use]
    pub fn new(threshold: Duration) -> Self {
        let reports = Reports::shared();
        Self {
            settings: Settings {
                tool: Tool::Watchdog,
                headers: reports.allowed_headers().to_vec(),
                reports: reports.target(),
                threshold: threshold.max(SHORTEST),
                varies: false,
                blocking_after: Some(Duration::from_secs(1)),
                abandoned_after: Some(0.5),
            },
            threshold_for: None,
            ignore: None,
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
        self.with(|layer| {
            layer.settings.headers = reports.allowed_headers().to_vec();
            layer.settings.reports = reports.target();
        })
    }

    /// A threshold of its own for some requests; `None` means the layer's.
    ///
    /// Called for each request, on its way in: it should be quick. A panic in it is the request's.
    #[must_use]
    pub fn threshold_for(self, f: impl Fn(&Parts) -> Option<Duration> + Send + Sync + 'static) -> Self {
        self.with(|layer| {
            layer.settings.varies = true;
            layer.threshold_for = Some(Arc::new(f));
        })
    }

    /// Requests that are not watched at all: long polls, server-sent events, upgrades.
    #[must_use]
    pub fn ignore(self, f: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|layer| layer.ignore = Some(Arc::new(f)))
    }

    /// Reports a single poll that holds its thread this long, also of a request that is not slow yet; 1 s by default,
    /// `None` for never. Found within a quarter more than the time given.
    #[must_use]
    pub fn blocking_after(self, limit: impl Into<Option<Duration>>) -> Self {
        let limit = limit.into().map(|limit| limit.max(SHORTEST));
        self.with(|layer| layer.settings.blocking_after = limit)
    }

    /// Reports a request that is dropped without an answer after this share of its threshold: its client has left. 0.5 by
    /// default, `None` for never. A share that is not a positive number counts as zero.
    #[must_use]
    pub fn abandoned_after(self, share: impl Into<Option<f64>>) -> Self {
        let share = share.into().map(|share| if share > 0.0 { share } else { 0.0 });
        self.with(|layer| layer.settings.abandoned_after = share)
    }

    /// Also watches response bodies: one that does not deliver its next frame within the threshold is reported. Time that
    /// passes while nobody asks for a frame (a slow client) does not count. Off by default.
    #[must_use]
    pub fn body(self, body: bool) -> Self {
        self.with(|layer| layer.body = body)
    }

    /// Looks at the layer, and changes it, while it is in use. Ask for it after all settings are made.
    #[must_use]
    pub fn handle(&self) -> WatchdogHandle {
        WatchdogHandle::new(self.config().policy)
    }

    fn config(&self) -> &'static Config {
        self.config.get_or_init(|| {
            report::start_watching();
            let config = keep(Config {
                policy: Policy::register(self.settings.clone()),
                threshold_for: self.threshold_for.clone(),
                ignore: self.ignore.clone(),
                body: self.body,
            });
            // It may have gone to sleep for long: before there was this limit on single polls.
            monitor::answered();
            config
        })
    }
}

/// 25 seconds, as dogslow's: just before the 30 seconds after which most proxies give up.
impl Default for WatchdogLayer {
    fn default() -> Self {
        Self::new(Duration::from_secs(25))
    }
}

// A rule of the application's that panics fails its request, and is called anew for the next one.
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
            .finish_non_exhaustive()
    }
}
