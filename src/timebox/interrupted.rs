//! What came of work whose time was up.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::core::duration;
use crate::capture::RowId;
use crate::clock::Clock;
use crate::inflight::{Row, flags};
use crate::monitor;
use crate::monitor::Evidence;
use crate::report::{self, Described, Kind, Report, Stack, Verdict};

/// The symbolizer names a place within a millisecond, the first of a process within a hundred.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest label that is printed, in characters.
const MAX_LABEL: usize = 200;

/// A timebox has expired: which one, and where its work was.
///
/// Prints as one sentence. Where the work was is named on heeler's own thread, and only if somebody asks: the first
/// `Display`, [`stacks`](Self::stacks) or [`report`](Self::report) waits for that, about a millisecond, or a hundred for the
/// first of a process, and a second at most.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use heeler::TimeboxExt;
///
/// let never = std::future::pending::<()>();
/// let interrupted = never.timebox(Duration::from_millis(5)).label("nothing").await.unwrap_err();
/// assert!(interrupted.is_from("nothing"));
/// assert!(interrupted.to_string().starts_with("the timebox \"nothing\" of 5ms was up after"));
/// # }
/// ```
#[derive(Clone)]
pub struct Interrupted {
    inner: Arc<Inner>,
}

struct Inner {
    label: Option<Cow<'static, str>>,
    limit: Duration,
    elapsed: Duration,
    place: Place,
}

/// Where the work was.
enum Place {
    /// Dropped while it waited.
    Dropped(Arc<Described>),
    /// It asked, and was told.
    Told(&'static Location<'static>),
    Unknown,
}

impl Interrupted {
    pub(super) fn new(
        label: Option<Cow<'static, str>>,
        limit: u64,
        elapsed: u64,
        at: &'static Location<'static>,
    ) -> Self {
        Self::from_parts(label, limit, elapsed, Place::Told(at))
    }

    pub(super) fn unknown(label: Option<Cow<'static, str>>) -> Self {
        Self::from_parts(label, 0, 0, Place::Unknown)
    }

    /// Of work that is being dropped. Copies nothing more: its last traced poll has.
    pub(super) fn dropped(row: &'static Row, id: RowId, label: Option<Cow<'static, str>>) -> Self {
        let (elapsed, place) = match evidence(row, id) {
            Some(evidence) => (evidence.elapsed, Place::Dropped(Described::new(evidence))),
            None => {
                let now = crate::clock::now();
                let started = row.started().map_or(now, |ticks| Clock::get().nanos(ticks));
                (now.saturating_sub(started), Place::Unknown)
            }
        };
        Self::from_parts(label, row.threshold(), elapsed, place)
    }

    fn from_parts(label: Option<Cow<'static, str>>, limit: u64, elapsed: u64, place: Place) -> Self {
        let inner = Inner { label, limit: duration(limit), elapsed: Duration::from_nanos(elapsed), place };
        Self { inner: Arc::new(inner) }
    }

    /// The label of the box that has expired.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.inner.label.as_deref()
    }

    /// Whether it was the box with that label that has expired, and not one around it.
    #[must_use]
    pub fn is_from(&self, label: &str) -> bool {
        self.label() == Some(label)
    }

    /// The limit of the box.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.inner.limit
    }

    /// Time from the opening of the box until its work was dropped, or told.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.inner.elapsed
    }

    /// All that is known, as a report: stacks, and where the time went as far as that was recorded. `None` for work that
    /// was told at a [`checkpoint`](super::checkpoint) and ended by itself, and if the report cannot be had within a second.
    #[must_use]
    pub fn report(&self) -> Option<Arc<Report>> {
        match &self.inner.place {
            Place::Dropped(described) => described.get(PATIENCE),
            Place::Told(_) | Place::Unknown => None,
        }
    }

    /// The await stacks of the work when it was dropped, one a branch; none for work that was told at a checkpoint.
    #[must_use]
    pub fn stacks(&self) -> Vec<Stack> {
        let report = self.report();
        report.iter().flat_map(|report| &report.stacks).filter(|stack| stack.current).cloned().collect()
    }

    /// Finds an interruption among an error and its sources, also inside of an [`io::Error`].
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // What an I/O error holds is not its source: the source of that is.
            let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match held {
                Some(held) => Some(held as &(dyn Error + 'static)),
                None => error.source(),
            };
        }
        None
    }
}

/// Reports a row whose work is being dropped to where its layer says.
pub(super) fn report(row: &'static Row, id: RowId) {
    // Unless it has been said that the work goes on although its time is up.
    if row.flags() & flags::REPORTED == 0
        && let Some(evidence) = evidence(row, id)
    {
        report::send(evidence);
    }
}

/// What the row says at its end.
fn evidence(row: &'static Row, id: RowId) -> Option<Evidence> {
    let evidence = monitor::evidence(row, id)?;
    Some(Evidence { kind: Kind::Interrupted, verdict: Verdict::Interrupted, ..evidence })
}

impl fmt::Display for Interrupted {
    /// `the timebox "thumbnails" of 2s was up after 2.001s, in app::resize at src/photos.rs:41`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        f.write_str("the timebox ")?;
        if let Some(label) = &inner.label {
            write!(f, "{:?} ", report::told(label, MAX_LABEL))?;
        }
        write!(f, "of {:?} was up after {:?}", round(inner.limit), round(inner.elapsed))?;
        match &inner.place {
            Place::Dropped(_) => match self.report().as_deref() {
                Some(report) => f.write_str(&report.place()),
                None => Ok(()),
            },
            Place::Told(at) => write!(f, ", at the checkpoint in {}:{}", at.file(), at.line()),
            Place::Unknown => Ok(()),
        }
    }
}

/// To microseconds, below which nothing is known.
fn round(elapsed: Duration) -> Duration {
    Duration::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupted")
            .field("label", &self.inner.label.as_deref().map(|label| report::told(label, MAX_LABEL)))
            .field("limit", &self.inner.limit)
            .field("elapsed", &self.inner.elapsed)
            .finish_non_exhaustive()
    }
}

impl Error for Interrupted {}

/// Of the kind [`TimedOut`](io::ErrorKind::TimedOut).
impl From<Interrupted> for io::Error {
    fn from(interrupted: Interrupted) -> Self {
        Self::new(io::ErrorKind::TimedOut, interrupted)
    }
}
