//! What code can find out about the box that it runs in.

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

/// Returns [`Interrupted`] if the time of the box around is up. Outside any box it always returns `Ok`.
///
/// It looks at a flag, without a clock or a lock. That takes some two nanoseconds, also in inner loops. The monitor's
/// thread sets the flag, so it works in synchronous stretches of async code too, even while every worker is blocked.
///
/// # Errors
///
/// Returns [`Interrupted`], which names the outermost of the boxes that have expired.
#[inline]
#[track_caller]
pub fn checkpoint() -> Result<(), Interrupted> {
    match inflight::innermost() {
        Some(row) if row.flags() & flags::UP != 0 => Err(told(Location::caller())),
        _ => Ok(()),
    }
}

/// Returns when the time of the box around is up, the earliest if there are several. Returns `None` outside any box.
#[must_use]
pub fn deadline() -> Option<Instant> {
    // A box without an end has no deadline.
    let left = remaining().filter(|left| *left != Duration::MAX)?;
    Instant::now().checked_add(left)
}

/// Returns how much time the box around has left, the least if there are several. Returns zero once it is up, and
/// `None` outside any box.
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
    // Boxes that were handed on with this work, and that have ended since, no longer limit anything.
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

/// Waits until the time of the box around is up. Outside any box it waits for ever.
///
/// Use it for work with a [grace](super::Limit::grace), and for tasks that a box has handed on with
/// [`spawn`](crate::spawn). Put it into a `select!`, after the work.
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
        // Not the tracing waker, because the place that waits for the end of its time is not where the work waits.
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

/// Returns what the code at `at` is told: the outermost of the boxes around that have expired.
#[cold]
#[inline(never)]
fn told(at: &'static Location<'static>) -> Interrupted {
    let now = crate::clock::now();
    let mut found: Option<(Option<Cow<'static, str>>, u64, u64)> = None;
    inflight::walk_boxes(|step| match step {
        Around::Box(row, id) => {
            let flags = row.flags();
            if flags & flags::UP != 0 {
                // The code has been told, so nobody needs to report that it runs on.
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
