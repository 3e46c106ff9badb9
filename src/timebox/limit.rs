//! How long a box lasts.

use std::borrow::Cow;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::quota::Running;
use super::{Interrupted, Quota};
use crate::inflight::nanos;

type Hook = Box<dyn FnOnce(&Interrupted) + Send>;

/// How long work may take, and what its box does then. Made from a [`Duration`], an [`Instant`] (a deadline) or a
/// reference to a [`Quota`](super::Quota).
///
/// Limits are measured in milliseconds: a box fires up to some 2 ms late. [`Duration::MAX`] lasts for ever. A duration
/// of zero and a deadline that has passed are up at once. A future is then polled once, and interrupted unless that
/// makes it ready. A closure is not called.
///
/// ```
/// use std::time::Duration;
/// use heeler::timebox::{self, Limit};
///
/// let limit = Limit::from(Duration::from_secs(2)).label("thumbnails");
/// let sum = timebox::blocking(limit, || {
///     let mut sum = 0_u64;
///     for number in 0..1_000 {
///         heeler::checkpoint()?;
///         sum += number;
///     }
///     Ok::<_, heeler::Interrupted>(sum)
/// })?;
/// # assert_eq!(sum, 499_500);
/// # Ok::<(), heeler::Interrupted>(())
/// ```
#[must_use]
pub struct Limit {
    pub(super) time: Time,
    pub(super) extra: Option<Box<Extra>>,
}

/// When the time ends.
#[derive(Debug)]
pub(super) enum Time {
    /// Nanoseconds; `u64::MAX` for ever.
    For(u64),
    Until(Instant),
    /// What the quota has left when the box opens.
    Quota(Quota),
    /// The same, from the opening of the box until its end.
    Running(Running),
}

/// Settings that few boxes have.
#[derive(Default)]
pub(super) struct Extra {
    pub(super) label: Option<Cow<'static, str>>,
    /// Nanoseconds.
    pub(super) grace: u64,
    /// Never locked. The lock lets threads share a box although they cannot share its hook.
    pub(super) hook: Option<Mutex<Hook>>,
    /// The interruption of the box, for the hook.
    pub(super) interrupted: Option<Interrupted>,
}

impl Limit {
    /// Names the box. [`Interrupted`] and reports show the name.
    pub fn label(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.extra().label = Some(label.into());
        self
    }

    /// Stops the work in two stages. At the limit the work is told ([`interrupted`](super::interrupted),
    /// [`checkpoint`](super::checkpoint)) and has this long to end by itself, with a value of its own. Then it is
    /// dropped. Has no effect in [`blocking`](super::blocking), where nothing is dropped.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.extra().grace = nanos(grace);
        self
    }

    /// Calls `hook` once if the box expires: after its work was dropped, has ended in its grace, or has panicked. A
    /// panic in the hook is caught and logged.
    pub fn on_interrupt(mut self, hook: impl FnOnce(&Interrupted) + Send + 'static) -> Self {
        self.extra().hook = Some(Mutex::new(Box::new(hook)));
        self
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

impl From<Duration> for Limit {
    #[inline]
    fn from(duration: Duration) -> Self {
        Self { time: Time::For(nanos(duration)), extra: None }
    }
}

impl From<Instant> for Limit {
    fn from(deadline: Instant) -> Self {
        Self { time: Time::Until(deadline), extra: None }
    }
}

/// What the quota has left when the box opens. The box spends from it until it ends.
impl From<&Quota> for Limit {
    fn from(quota: &Quota) -> Self {
        Self { time: Time::Quota(quota.clone()), extra: None }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.extra.as_ref().and_then(|extra| extra.label.as_deref());
        f.debug_struct("Limit").field("time", &self.time).field("label", &label).finish_non_exhaustive()
    }
}
