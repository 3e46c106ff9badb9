//! Metrics of the whole process: what is watched, what was captured, and what happened to the reports.
//!
//! [`metrics`](metrics()) returns them:
//!
//! ```
//! let metrics = heeler::metrics();
//! println!("{} in flight, {} armed", metrics.in_flight.total(), metrics.armed_now);
//! ```
//!
//! # As metrics
//!
//! With the feature `metrics` they go to the recorder of the [`metrics`](https://docs.rs/metrics) facade once a second,
//! as soon as there is a layer or a watched job. The reporter's thread calls the recorder, never a thread of the
//! application's. If a great deal is in flight they go less often, so that counting it takes a hundredth of a core at
//! most.
//!
//! | metric | kind | labels | |
//! |---|---|---|---|
//! | `heeler_requests_watched_total` | counter | | requests that were watched, those in flight included |
//! | `heeler_jobs_watched_total` | counter | | jobs |
//! | `heeler_children_watched_total` | counter | | what requests and jobs handed on |
//! | `heeler_timeboxes_watched_total` | counter | | timeboxes, those of layers and those within requests and jobs |
//! | `heeler_unwatched_total` | counter | | work that had no room in the table |
//! | `heeler_in_flight` | gauge | `work`: `request`, `job`, `child`, `timebox` | what is watched now |
//! | `heeler_armed` | gauge | | requests and jobs whose polls are traced now |
//! | `heeler_armed_total` | counter | | requests and jobs that were ever armed |
//! | `heeler_captures_total` | counter | `result`: `taken`, `missed`, `refused`, `truncated` | see [`Captures`] |
//! | `heeler_thread_stacks_total` | counter | `result`: `taken`, `missed`, `unanswered`, `unavailable`, `truncated` | see [`ThreadStacks`] |
//! | `heeler_slow_wakes_total` | counter | | tasks whose waker took longer than 2 ms, see [`Wakes`] |
//! | `heeler_blocked_wakes` | gauge | | wakers that have not returned since |
//! | `heeler_reports_total` | counter | `verdict` | reports that were made, updates included |
//! | `heeler_reports_suppressed_total` | counter | | reports held back, because one about the same had just been sent |
//! | `heeler_reports_dropped_total` | counter | | captures dropped, because too many waited for the reporter |
//! | `heeler_reports_undelivered_total` | counter | | reports that at least one sink has not taken and never will |
//! | `heeler_reports_not_spooled_total` | counter | | reports that could not be written to the spool, and were kept in memory alone |
//! | `heeler_reports_left_to_later_version` | gauge | | reports in the spool that only a later version of heeler can read |
//! | `heeler_queue_depth` | gauge | | reports that are on their way to at least one sink, or wait to be tried again |
//! | `heeler_deliveries_total` | counter | `sink` | reports that a sink has taken, updates included; profiles that a Pyroscope server has |
//! | `heeler_delivery_failures_total` | counter | `sink` | attempts to deliver that failed; beyond 32 names of sinks, `other` |
//! | `heeler_fleet_messages_total` | counter | `alone`: `true`, `false` | incidents that people were told of, on behalf of all instances or of this one alone, see [`FleetStats`](https://docs.rs/heeler/latest/heeler/report/fleet/struct.FleetStats.html) |
//! | `heeler_fleet_requests_total` | counter | `kind`: `put`, `get`, `list`, `remove` | requests to the fleet's store |
//! | `heeler_fleet_failed_requests_total` | counter | | those that failed or were not answered in time |
//! | `heeler_fleet_uncounted_total` | counter | | reports that the store's counts lack for good |
//! | `heeler_fleet_unwritten` | gauge | | reports that are counted in memory, and not in the store yet |
//! | `heeler_fleet_heeds_conditions` | gauge | | 0 if the store does not heed conditions, so that each instance tells people, else 1 |
//! | `heeler_monitor_up` | gauge | | 1 if the monitor's threads run, else 0 |
//! | `heeler_monitor_heartbeat_age_seconds` | gauge | | time since the monitor last turned: more than some seconds means that it hangs |
//! | `heeler_monitor_max_lag_seconds` | gauge | | the longest delay of the monitor in the last thirty to sixty seconds |
//! | `heeler_report_elapsed_seconds` | histogram | `verdict` | how long reported work had run when it was first captured |
//!
//! Those of the fleet are there if there is a [`Fleet`](https://docs.rs/heeler/latest/heeler/struct.Fleet.html).
//!
//! No label comes from a request, so the number of series is bounded.
//!
//! With the feature `otel` they are also OpenTelemetry instruments:
//! [`OpenTelemetry`](https://docs.rs/heeler/latest/heeler/struct.OpenTelemetry.html).

pub(in crate::report) mod by_sink;
#[cfg(feature = "metrics")]
pub(in crate::report) mod meters;
pub(in crate::report) mod publish;
pub(in crate::report) mod stats;

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use super::Stats;
#[cfg(feature = "fleet")]
use super::fleet::FleetStats;
use crate::capture::PerProcess;
use crate::capture::slots;
use crate::counts::COUNTS;
pub use crate::counts::Pieces;
use crate::inflight::{self, table};
use crate::monitor;
pub use crate::monitor::Monitor;
use crate::sync::lock_std;

/// How much heeler has watched, captured and reported since the process began: see [`metrics`](metrics()).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Work that was ever watched, including what is in flight.
    pub watched: Pieces,
    /// Work that is in flight now.
    pub in_flight: Pieces,
    /// Pieces of work that were not watched because the table was full, at four million in flight.
    pub unwatched: u64,
    /// Requests and jobs that were ever armed, because they had used up an eighth of their threshold. A response body
    /// counts once for each frame that took so long.
    pub armed: u64,
    /// Requests and jobs that are armed now: each of their polls is traced.
    pub armed_now: u64,
    /// Captures of slow work.
    pub captures: Captures,
    /// Captures of threads' stacks, for these captures.
    pub thread_stacks: ThreadStacks,
    /// Wakers of other people's tasks that heeler has called.
    pub wakes: Wakes,
    /// Reports of all [`Reports`](crate::Reports) of the process, including those that are gone.
    pub reports: Stats,
    /// What all members of a [`Fleet`](crate::Fleet) in the process have done, if there is one.
    #[cfg(feature = "fleet")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
    pub fleet: Option<FleetStats>,
    /// The monitor, the thread that keeps deadlines.
    pub monitor: Monitor,
}

/// The outcome of the captures of slow work that were due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Captures {
    /// Captures that made a report.
    pub taken: u64,
    /// Captures whose work ended first.
    pub missed: u64,
    /// Captures put off or given up because the budget of captures per second was used up. A capture that is taken
    /// later also counts there.
    pub refused: u64,
    /// Captures, taken or assembled from what was known of abandoned work, with a stack whose outer frames are missing.
    pub truncated: u64,
}

/// Wakes of tasks, to see where they are or to tell them that their time is up. Heeler calls their wakers on threads of
/// its own, at most eight, because a waker is the executor's code, and may block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wakes {
    /// Wakes that took longer than 2 ms. Another thread wakes the others meanwhile.
    pub slow: u64,
    /// Slow wakes that have not returned yet. With eight of them, no task is woken until one returns.
    pub blocked: u64,
    /// Tasks that wait to be woken.
    pub waiting: u64,
}

/// The outcome of asking threads for their stacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadStacks {
    /// Stacks that were copied.
    pub taken: u64,
    /// The poll was over before its stack could be copied.
    pub missed: u64,
    /// The thread did not answer within 50 ms: it was uninterruptible, or masked the signal.
    pub unanswered: u64,
    /// Stacks that could not be copied: the platform, or what it allows, doesn't support it, or a poll ran on a stack
    /// of its own (a fiber's), which could not be read, or not again.
    pub unavailable: u64,
    /// Stacks taken that were longer than the 512 KiB which are copied.
    pub truncated: u64,
}

/// Returns what heeler has done in this process so far. For the reports of one [`Reports`](crate::Reports) alone, see
/// its [`stats`](crate::Reports::stats).
///
/// Counters only ever grow. Work in flight is counted by walking the table of rows, which takes some microseconds for
/// each 1,000 rows that were ever in flight at once. Call this for a page or a metric, not for every request.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// let before = heeler::metrics();
/// heeler::watch("job", Duration::from_secs(1), async {}).await;
/// assert_eq!(heeler::metrics().watched.jobs, before.watched.jobs + 1);
/// # }
/// ```
#[must_use]
pub fn metrics() -> Metrics {
    let (watched, found) = walk();
    let wakes = inflight::waking::tally();
    Metrics {
        watched,
        in_flight: found.live,
        unwatched: table().unwatched(),
        armed: COUNTS.armed.load(Relaxed),
        armed_now: found.armed,
        captures: Captures {
            taken: COUNTS.captured.load(Relaxed),
            missed: COUNTS.missed.load(Relaxed),
            refused: COUNTS.refused.load(Relaxed),
            truncated: COUNTS.truncated.load(Relaxed),
        },
        thread_stacks: ThreadStacks {
            taken: COUNTS.threads_captured.load(Relaxed),
            missed: COUNTS.threads_missed.load(Relaxed),
            unanswered: COUNTS.threads_unanswered.load(Relaxed),
            unavailable: COUNTS.threads_unavailable.load(Relaxed),
            truncated: COUNTS.threads_truncated.load(Relaxed),
        },
        wakes: Wakes { slow: wakes.slow, blocked: wakes.blocked, waiting: wakes.waiting },
        reports: super::total(),
        #[cfg(feature = "fleet")]
        fleet: super::fleet::total(),
        monitor: monitor::metrics(),
    }
}

/// The sums of all walks over the table.
#[derive(Debug, Default)]
struct Walked {
    /// The sum of all generations at the last walk.
    generations: u32,
    /// The same without the bound of 32 bits: how many pieces of work have ended.
    ended: u64,
    requests: u64,
}

static WALKED: PerProcess<Mutex<Walked>> = PerProcess::new(Mutex::default);

impl Walked {
    /// Adds the sum of all generations of this walk.
    fn add(&mut self, generations: u32) {
        self.ended += u64::from(generations.wrapping_sub(self.generations));
        self.generations = generations;
    }
}

/// Counts everything that was ever watched without a counter that each request would have to touch.
///
/// A row's generation is the number of pieces of work that it has seen end, modulo 2^32. So is the sum of all
/// generations. The difference to the last sum is what ended since then, as long as that is less than 2^32, so the
/// reporter walks every now and then. The lock is held during the walk, so that two walks see each row in the same
/// order.
fn walk() -> (Pieces, inflight::Tally) {
    let mut walked = lock_std(WALKED.get());
    let mut found = table().tally();
    walked.add(found.generations);
    let (jobs, children) = (COUNTS.jobs.load(Relaxed), COUNTS.children.load(Relaxed));
    // Read after the table, so that everything found there is already counted.
    let slots = slots();
    let on_threads: u64 = slots.iter().map(|slot| slot.boxes()).sum();
    let with_row = on_threads + COUNTS.timeboxes.load(Relaxed);
    let shared = slots.iter().fold(0, |sum: u64, slot| sum.wrapping_add(slot.shared_boxes()));
    // Work that isn't a request is counted a moment before or after it has a row, so the difference may be off by a few
    // for a moment. It never goes down.
    let requests = (walked.ended + found.live.total()).saturating_sub(jobs + children + with_row);
    walked.requests = walked.requests.max(requests);
    found.live.timeboxes += found.shared_boxes;
    (Pieces { requests: walked.requests, jobs, children, timeboxes: with_row.wrapping_add(shared) }, found)
}

/// Reads the generations before they can wrap around. Called by the reporter.
pub(crate) fn keep_up() {
    let _ = walk();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: ended work still counts when the sum of generations wraps around.
    #[test]
    fn metrics_survive_a_wrap_of_the_generations() {
        let mut walked = Walked { generations: u32::MAX - 5, ended: 10, requests: 0 };
        walked.add(u32::MAX);
        walked.add(4);
        walked.add(4);
        assert_eq!(walked.ended, 20);
    }
}
