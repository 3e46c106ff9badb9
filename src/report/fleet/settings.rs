//! Setting up a fleet.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;

use crate::error::Error;

/// All instances of one service, which share a bucket or a directory: one message per incident instead of one per instance,
/// and a page about all of them. Give it to [`ReportsBuilder::fleet`](crate::ReportsBuilder::fleet). See the
/// [module](crate::report::fleet).
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use heeler::{Fleet, Reports};
/// use object_store::memory::InMemory;
///
/// // In production: object_store::aws::AmazonS3Builder::from_env().with_bucket_name("..").build()?
/// let bucket = Arc::new(InMemory::new());
/// let fleet = Fleet::new(bucket, "photos").keep_for(Duration::from_secs(14 * 86_400));
/// let reports = Reports::builder().fleet(fleet).build()?;
/// # Ok::<(), heeler::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "give it to `ReportsBuilder::fleet`"]
pub struct Fleet {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: String,
    pub(super) times: Times,
}

/// The longest time of the protocol. Multiples of it can still be counted and waited for.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The times of the protocol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) take_over_after: Duration,
    pub(super) ends_after: Duration,
    pub(super) flush_every: Duration,
    pub(super) keep_for: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            take_over_after: Duration::from_secs(60),
            ends_after: Duration::from_secs(15 * 60),
            flush_every: Duration::from_secs(30),
            keep_for: Duration::from_secs(30 * 86_400),
        }
    }
}

impl Fleet {
    /// Creates a fleet whose instances share everything under `prefix` in `store`. All instances of a service must have the
    /// same. Another service needs another prefix.
    ///
    /// Make the store for heeler alone, with a client of its own: its connections belong to heeler's runtime.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: impl Into<String>) -> Self {
        Self { store, prefix: prefix.into(), times: Times::default() }
    }

    /// Sets how long the instance that has claimed an incident may take to tell people. Then another one does it. Defaults
    /// to 60 seconds, by the store's clock.
    ///
    /// A shorter time makes up sooner for an instance that died, and makes a second message about the same incident more
    /// likely where mail is slow. Each further attempt waits twice as long as the one before it.
    ///
    /// News of an incident waits for multiples of this time, too: for five times as long as this after the first message, then for ten
    /// times, and so on.
    pub fn take_over_after(mut self, time: Duration) -> Self {
        self.times.take_over_after = time;
        self
    }

    /// Sets after which time without a report, from any instance, an incident has ended. The next report begins another
    /// one, with another message. Defaults to 15 minutes, by the store's clock.
    ///
    /// It must be at least twice as long as [`flush_every`](Self::flush_every), because others see an instance's reports only
    /// then: an incident that goes on would look as if it had ended.
    pub fn ends_after(mut self, time: Duration) -> Self {
        self.times.ends_after = time;
        self
    }

    /// Sets how often an instance that has something new writes its reports, its counts and its index. Defaults to 30
    /// seconds. An instance that has nothing to report writes nothing.
    ///
    /// It must be at most half of [`ends_after`](Self::ends_after).
    ///
    /// Reports are also written as soon as 200 of them wait, or 8 MiB.
    pub fn flush_every(mut self, time: Duration) -> Self {
        self.times.flush_every = time;
        self
    }

    /// Sets how long everything is kept. Defaults to 30 days. Once a day, one of the instances removes what is older. Reports of a day
    /// are removed together, up to two days later.
    ///
    /// It must be at least as long as [`ends_after`](Self::ends_after).
    ///
    /// A rule of the bucket's own that removes objects earlier is fine: nothing relies on old objects.
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.times.keep_for = time;
        self
    }

    pub(in crate::report) fn check(&self) -> Result<(), Error> {
        let Times { take_over_after, ends_after, flush_every, keep_for } = self.times;
        if [take_over_after, ends_after, flush_every, keep_for].iter().any(Duration::is_zero) {
            return Err(Error::config("a time of the fleet is zero"));
        }
        if [take_over_after, ends_after, flush_every].iter().any(|time| *time > LONGEST) {
            return Err(Error::config("a time of the fleet is longer than a year"));
        }
        if ends_after < flush_every.saturating_mul(2) {
            return Err(Error::config(
                "the fleet's `ends_after` must be at least twice its `flush_every`: others see that an incident goes on only then",
            ));
        }
        if keep_for < ends_after {
            return Err(Error::config("the fleet's `keep_for` must be at least its `ends_after`"));
        }
        if ends_after < take_over_after {
            return Err(Error::config("an incident of the fleet ends before another instance could tell people of it"));
        }
        if object_store::path::Path::parse(&self.prefix).is_err() || self.prefix.is_empty() {
            return Err(Error::config("the prefix of the fleet is empty, or no path"));
        }
        Ok(())
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a store prints of itself may have keys in it.
        f.debug_struct("Fleet").field("prefix", &self.prefix).field("times", &self.times).finish_non_exhaustive()
    }
}
