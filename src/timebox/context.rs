//! What code can know of the box that it runs in.

use std::borrow::Cow;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Interrupted;
use crate::capture;
use crate::capture::RowId;
use crate::clock::Clock;
use crate::inflight::{self, Around, flags, waiters};

/// Says whether the time of the box around is up: [`Interrupted`] if so. Outside of any box it never is.
///
/// A look at a flag, without a clock or a lock: some two nanoseconds, also in inner loops. The monitor's thread sets it,
/// so it works in synchronous stretches of async code too, even while every worker is blocked.
///
/// # Errors
///
/// [`Interrupted`], naming the outermost of the boxes that have expired.
#[inline]
#[track_caller]
pub fn checkpoint() -> Result<(), Interrupted> {
    match inflight::innermost() {
        Some(row) if row.flags() & flags::UP != 0 => Err(told(Location::caller())),
        _ => Ok(()),
    }
}

/// When the time of the box around is up, the earliest if there are several; `None` outside of any.
#[must_use]
pub fn deadline() -> Option<Instant> {
    // What is never up has no deadline.
    let left = remaining().filter(|left| *left != Duration::MAX)?;
    Instant::now().checked_add(left)
}

/// How much time the box around has left, the least if there are several; zero once it is up, `None` outside of any.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use heeler::timebox::{self, timebox};
///
/// assert_eq!(timebox::remaining(), None);
/// let left = timebox(Duration::from_secs(2), async { timebox::remaining() }).await;
/// assert!(left.is_ok_and(|left| left <= Some(Duration::from_secs(2))));
/// # }
/// ```
#[must_use]
pub fn remaining() -> Option<Duration> {
    let row = inflight::innermost()?;
    if row.flags() & flags::UP != 0 {
        return Some(Duration::ZERO);
    }
    let deadline = inflight::nearest_deadline()?;
    // Boxes that this work was handed on in, and that have ended since, limit nothing any more.
    (deadline != u64::MAX).then(|| Duration::from_nanos(deadline.saturating_sub(crate::clock::now())))
}

/// The future of [`interrupted`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Interruption {
    who: usize,
    waits_for: Option<RowId>,
    at: &'static Location<'static>,
}

/// Waits until the time of the box around is up; for ever outside of any.
///
/// For work with a [grace](super::Limit::grace), and for tasks that a box has handed on with [`spawn`](crate::spawn): put
/// it into a `select!`, after the work.
#[track_caller]
pub fn interrupted() -> Interruption {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    Interruption { who: NEXT.fetch_add(1, Ordering::Relaxed), waits_for: None, at: Location::caller() }
}

impl Future for Interruption {
    type Output = Interrupted;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Interrupted> {
        let Some((row, (id, _))) = inflight::innermost().and_then(|row| Some((row, row.live()?))) else {
            return Poll::Pending;
        };
        if self.waits_for.is_some_and(|other| other != id) {
            self.leave();
        }
        self.waits_for = Some(id);
        // Not the tracing waker: that the work waits for its time to be up is not where it waits.
        if waiters::wait(row, id, self.who, capture::original(cx.waker())) {
            return Poll::Pending;
        }
        self.leave();
        Poll::Ready(told(self.at))
    }
}

impl Interruption {
    fn leave(&mut self) {
        if let Some(id) = self.waits_for.take() {
            waiters::leave(id, self.who);
        }
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What the code at `at` is told: the outermost of the boxes around that have expired.
#[cold]
#[inline(never)]
fn told(at: &'static Location<'static>) -> Interrupted {
    let now = crate::clock::now();
    let mut found: Option<(Option<Cow<'static, str>>, u64, u64)> = None;
    inflight::walk_boxes(|step| match step {
        Around::Box(row, id) => {
            let flags = row.flags();
            if flags & flags::UP != 0 {
                // It has heard: nobody need be told that it runs on.
                row.update(id, flags::TOLD, 0);
            }
            if flags & flags::EXPIRED != 0
                && let Some(timebox) = row.timebox(id)
            {
                let started = row.started().map_or(now, |ticks| Clock::get().nanos(ticks));
                found = Some((timebox.label().cloned(), row.threshold(), now.saturating_sub(started)));
            }
        }
        Around::Inherited(row, id, inherited) => {
            if inherited.has_expired() {
                row.update(id, flags::TOLD, 0);
                let started = inherited.deadline.saturating_sub(inherited.limit);
                found = Some((inherited.label.clone(), inherited.limit, now.saturating_sub(started)));
            }
        }
    });
    let (label, limit, elapsed) = found.unwrap_or_default();
    Interrupted::new(label, limit, elapsed, at)
}
