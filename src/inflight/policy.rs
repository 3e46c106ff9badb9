//! The settings that rows refer to. Each layer has one, which is kept for the life of the process. So a request refers
//! to it by a number instead of a reference count that all workers would share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderName;

use super::ReportTarget;
use crate::disabled::is_disabled;
use crate::log::{TARGET, log_safely};

/// The number of a policy. Zero is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PolicyId(u32);

impl PolicyId {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(crate) fn get(self) -> Option<&'static Policy> {
        place(self.0.checked_sub(1)?)?.get().copied()
    }
}

/// All policies, in buckets of 1, 2, 4, .. that are made as needed. They are read without a lock, because the parent's
/// threads could have held one at a fork. So a layer that was made before the fork also works in the child.
static POLICIES: [OnceLock<Box<[Place]>>; u32::BITS as usize] = [const { OnceLock::new() }; u32::BITS as usize];
/// The number of policies that exist or are about to.
static REGISTERED: AtomicU32 = AtomicU32::new(0);

type Place = OnceLock<&'static Policy>;

/// Returns the bucket of a policy, counted from zero, and its index in that bucket.
const fn bucket(index: u32) -> (u32, u32) {
    let bucket = (index + 1).ilog2();
    (bucket, index + 1 - (1 << bucket))
}

fn place(index: u32) -> Option<&'static Place> {
    let (bucket, at) = bucket(index);
    POLICIES[bucket as usize].get()?.get(at as usize)
}

/// The kind of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Watchdog,
    Timebox,
}

impl Tool {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Watchdog => "watchdog",
            Self::Timebox => "timebox",
        }
    }
}

/// When a request that is dropped without an answer is reported as abandoned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Abandoned {
    Never,
    /// After this many nanoseconds, whatever the threshold is, or `u64::MAX` for never.
    After(u64),
    /// After this fraction of the request's threshold, which is not negative.
    AtFraction(f64),
}

impl Abandoned {
    /// Returns whether a request with this threshold is reported if it is dropped after `elapsed`. Both are
    /// nanoseconds.
    pub(crate) fn includes(self, elapsed: u64, threshold: u64) -> bool {
        match self {
            Self::Never => false,
            Self::After(nanos) => elapsed >= nanos,
            Self::AtFraction(fraction) => elapsed as f64 >= threshold as f64 * fraction,
        }
    }
}

/// The settings of one layer.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) id: PolicyId,
    pub(crate) tool: Tool,
    /// What the application calls the layer, if anything.
    #[cfg_attr(not(feature = "console"), allow(dead_code, reason = "the console alone shows it"))]
    pub(crate) name: Option<String>,
    pub(crate) reports: ReportTarget,
    /// Headers that rows keep: those that reports may show, and `traceparent`.
    pub(crate) headers: Vec<HeaderName>,
    /// Nanoseconds, or `u64::MAX` for never. The limit, if the layer is a timebox.
    threshold: AtomicU64,
    /// Whether some requests have their own threshold.
    pub(crate) varies: bool,
    /// How long one poll may hold its thread, in nanoseconds, or `u64::MAX` for ever.
    pub(crate) blocking_after: u64,
    pub(crate) abandoned: Abandoned,
    enabled: AtomicBool,
    seen: AtomicBool,
    /// When the layer was made, in nanoseconds of [`now`](crate::clock::now).
    pub(crate) since: u64,
}

/// What [`Policy::new`] is made from.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) tool: Tool,
    /// What the application calls the layer, if anything.
    pub(crate) name: Option<String>,
    pub(crate) reports: ReportTarget,
    /// Headers that rows keep: those that reports may show, and `traceparent`.
    pub(crate) headers: Vec<HeaderName>,
    pub(crate) threshold: Duration,
    pub(crate) varies: bool,
    pub(crate) blocking_after: Option<Duration>,
    pub(crate) abandoned: Abandoned,
}

/// Converts to nanoseconds, as rows and the monitor count.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// More layers than a program has that makes each of them once.
const MANY: u32 = 1_000;

impl Policy {
    /// Registers the settings. They stay for the life of the process, and take some 200 bytes per layer and none per
    /// request. A program that makes a layer for each request is told so once.
    pub(crate) fn register(settings: Settings) -> &'static Self {
        let index = REGISTERED.fetch_add(1, Ordering::Relaxed);
        if index == MANY {
            log_safely(|| {
                tracing::error!(
                    target: TARGET,
                    layers = index,
                    "this process keeps making layers, and each takes memory until it ends: make a layer once, and clone it"
                );
            });
        }
        let policy: &'static Self = Box::leak(Box::new(Self {
            id: PolicyId(index + 1),
            tool: settings.tool,
            name: settings.name,
            headers: settings.headers,
            reports: settings.reports,
            threshold: AtomicU64::new(nanos(settings.threshold)),
            varies: settings.varies,
            blocking_after: settings.blocking_after.map_or(u64::MAX, nanos),
            abandoned: settings.abandoned,
            enabled: AtomicBool::new(!is_disabled()),
            seen: AtomicBool::new(false),
            since: crate::clock::now(),
        }));
        let (bucket, at) = bucket(index);
        let places =
            POLICIES[bucket as usize].get_or_init(|| (0..1_usize << bucket).map(|_| OnceLock::new()).collect());
        places[at as usize].get_or_init(|| policy)
    }

    /// Returns all policies of the process.
    pub(crate) fn all() -> Vec<&'static Self> {
        (0..REGISTERED.load(Ordering::Relaxed)).filter_map(|index| place(index)?.get().copied()).collect()
    }

    #[inline]
    pub(crate) fn threshold(&self) -> Duration {
        Duration::from_nanos(self.threshold.load(Ordering::Relaxed))
    }

    /// Returns the threshold as rows count it: nanoseconds, or `u64::MAX` for never.
    #[inline]
    pub(crate) fn threshold_nanos(&self) -> u64 {
        self.threshold.load(Ordering::Relaxed)
    }

    pub(crate) fn set_threshold(&self, threshold: Duration) {
        self.threshold.store(nanos(threshold), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled && !is_disabled(), Ordering::Relaxed);
    }

    /// Notes that a request came through. Returns true for the first one, which is the only one that costs more than a
    /// load.
    #[inline]
    pub(crate) fn saw_request(&self) -> bool {
        !self.seen.load(Ordering::Relaxed) && !self.seen.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn has_seen_requests(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Guards: a duration is measured from the start of the request, whatever its threshold is.
    #[test]
    fn abandoned_after_a_duration_ignores_the_threshold() {
        let after = Abandoned::After(20 * MS);
        for threshold in [1, MS, 100 * MS, u64::MAX] {
            assert!(!after.includes(20 * MS - 1, threshold));
            assert!(after.includes(20 * MS, threshold));
        }
        assert!(Abandoned::After(0).includes(0, MS));
        let never = Abandoned::After(nanos(Duration::MAX));
        assert!(!never.includes(u64::MAX - 1, MS));
    }

    /// Guards: a fraction is measured by the threshold of the request, even if the fraction is above one or the
    /// threshold is never.
    #[test]
    fn abandoned_at_a_fraction_follows_the_threshold() {
        let half = Abandoned::AtFraction(0.5);
        for threshold in [2, 10 * MS, 50_000 * MS] {
            assert!(!half.includes(threshold / 2 - 1, threshold));
            assert!(half.includes(threshold / 2, threshold));
        }
        assert!(!half.includes(1_000_000 * MS, u64::MAX));
        assert!(Abandoned::AtFraction(0.0).includes(0, MS));
        assert!(Abandoned::AtFraction(0.0).includes(0, u64::MAX));
        let twice = Abandoned::AtFraction(2.0);
        assert!(!twice.includes(19 * MS, 10 * MS) && twice.includes(20 * MS, 10 * MS));
        assert!(!Abandoned::AtFraction(f64::INFINITY).includes(u64::MAX, MS));
    }

    #[test]
    fn abandoned_never_includes_nothing() {
        assert!(!Abandoned::Never.includes(u64::MAX, 0));
    }
}
