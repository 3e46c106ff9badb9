//! The outcome of work whose time was up.

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

/// Symbolizing a place takes about a millisecond, the first one of a process up to a hundred.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many places of child work are named.
const MAX_CHILDREN: usize = 8;

/// The longest label that is printed, in characters.
const MAX_LABEL: usize = 200;

/// A timebox has expired. Says which one, where its work was, and which child work goes on: what was started within the
/// box by [`heeler::spawn`](crate::spawn) or [`heeler::spawn_blocking`](crate::spawn_blocking), and had not ended.
///
/// Prints as one sentence. heeler symbolizes the place on its own thread, and only if somebody asks. The first call of
/// `Display`, [`stacks`](Self::stacks) or [`report`](Self::report) waits for that: about a millisecond, a hundred for
/// the first of a process, and at most a second.
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
    /// The child work that goes on: how it was handed on, and where.
    children: Vec<String>,
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

    /// For work that is being dropped. Copies no more stacks, because its last traced poll has done that.
    pub(super) fn dropped(row: &'static Row, id: RowId, label: Option<Cow<'static, str>>) -> Self {
        let children = children(row, id);
        let (elapsed, place) = match evidence(row, id) {
            Some(evidence) => (evidence.elapsed, Place::Dropped(Described::new(evidence))),
            None => {
                let now = crate::clock::now();
                let started = row.started().map_or(now, |ticks| Clock::get().nanos(ticks));
                (now.saturating_sub(started), Place::Unknown)
            }
        };
        let limit = duration(row.threshold());
        let elapsed = Duration::from_nanos(elapsed);
        Self { inner: Arc::new(Inner { label, limit, elapsed, place, children }) }
    }

    fn from_parts(label: Option<Cow<'static, str>>, limit: u64, elapsed: u64, place: Place) -> Self {
        let (limit, elapsed, children) = (duration(limit), Duration::from_nanos(elapsed), Vec::new());
        let inner = Inner { label, limit, elapsed, place, children };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the label of the box that has expired.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.inner.label.as_deref()
    }

    /// Returns whether the box with that label has expired, and not one around it.
    #[must_use]
    pub fn is_from(&self, label: &str) -> bool {
        self.label() == Some(label)
    }

    /// Returns the limit of the box.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.inner.limit
    }

    /// Returns the time from the opening of the box until its work was dropped or told.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.inner.elapsed
    }

    /// Returns all that is known, as a report: stacks, and where the time went as far as that was recorded. Returns
    /// `None` for work that was told at a [`checkpoint`](super::checkpoint) and ended by itself, or if the report isn't
    /// ready within a second.
    #[must_use]
    pub fn report(&self) -> Option<Arc<Report>> {
        match &self.inner.place {
            Place::Dropped(described) => described.get(PATIENCE),
            Place::Told(_) | Place::Unknown => None,
        }
    }

    /// Returns the await stacks of the work when it was dropped, one per branch. Returns none for work that was told at
    /// a checkpoint.
    #[must_use]
    pub fn stacks(&self) -> Vec<Stack> {
        let report = self.report();
        report.iter().flat_map(|report| &report.stacks).filter(|stack| stack.current).cloned().collect()
    }

    /// Finds an interruption in an error and its sources, also inside an [`io::Error`].
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // The source of an I/O error is not the error that it holds, but the source of that.
            let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match held {
                Some(held) => Some(held as &(dyn Error + 'static)),
                None => error.source(),
            };
        }
        None
    }
}

/// Reports a row whose work is being dropped, to where its layer says.
pub(super) fn report(row: &'static Row, id: RowId) {
    // Unless a report has already said that the work goes on although its time is up.
    if row.flags() & flags::REPORTED == 0
        && let Some(evidence) = evidence(row, id)
    {
        report::send(evidence);
    }
}

/// Returns what the row says at its end.
fn evidence(row: &'static Row, id: RowId) -> Option<Evidence> {
    let mut evidence = monitor::evidence(row, id)?;
    evidence.notes.extend(goes_on(&children(row, id)));
    Some(Evidence { kind: Kind::Interrupted, verdict: Verdict::Interrupted, ..evidence })
}

/// Returns what was handed on within the box, doesn't end with it, and has not ended: `spawn_blocking at src/a.rs:7`.
fn children(row: &'static Row, id: RowId) -> Vec<String> {
    let running = row.handed_on(id);
    let mut places: Vec<(String, usize)> = Vec::new();
    for (how, at) in running {
        let place = format!("{} at {}:{}", how.as_str(), at.file(), at.line());
        match places.iter().position(|(known, _)| *known == place) {
            Some(known) => places[known].1 += 1,
            None if places.len() < MAX_CHILDREN => places.push((place, 1)),
            None => {}
        }
    }
    let text = |(place, times)| if times == 1 { place } else { format!("{times} × {place}") };
    places.into_iter().map(text).collect()
}

/// Returns the children in one sentence, if there are any.
fn goes_on(children: &[String]) -> Option<String> {
    (!children.is_empty()).then(|| format!("its child work goes on: {}", children.join(", ")))
}

impl fmt::Display for Interrupted {
    /// `the timebox "thumbnails" of 2s was up after 2.001s, while waiting for a permit, in app::resize at src/photos.rs:41`,
    /// and then the child work that goes on, if there is any: `; its child work goes on: spawn_blocking at
    /// src/photos.rs:38`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        f.write_str("the timebox ")?;
        if let Some(label) = &inner.label {
            write!(f, "{:?} ", report::told(label, MAX_LABEL))?;
        }
        write!(f, "of {:?} was up after {:?}", round(inner.limit), round(inner.elapsed))?;
        match &inner.place {
            Place::Dropped(_) => {
                if let Some(report) = self.report().as_deref() {
                    if let Some(awaiting) = &report.awaiting {
                        write!(f, ", while waiting for {awaiting}")?;
                    }
                    f.write_str(&report.place())?;
                }
            }
            Place::Told(at) => write!(f, ", at the checkpoint in {}:{}", at.file(), at.line())?,
            Place::Unknown => {}
        }
        match goes_on(&inner.children) {
            Some(goes_on) => write!(f, "; {goes_on}"),
            None => Ok(()),
        }
    }
}

/// Rounds to microseconds. Nothing is known below that.
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
