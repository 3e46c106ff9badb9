//! The metrics of the process through the `metrics` facade (feature `metrics`).
//!
//! The reporter's thread publishes them once a second, so no request ever waits for a recorder.

#[cfg(feature = "fleet")]
mod fleet;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::by_sink;
use crate::capture::PerProcess;
use crate::log::log_safely;
use crate::monitor::Verdict;
use crate::report::metrics::metrics;
use crate::report::model::Report;
use crate::sync::lock_std;

const REQUESTS: &str = "heeler_requests_watched_total";
const JOBS: &str = "heeler_jobs_watched_total";
const CHILDREN: &str = "heeler_children_watched_total";
const TIMEBOXES: &str = "heeler_timeboxes_watched_total";
const UNWATCHED: &str = "heeler_unwatched_total";
const IN_FLIGHT: &str = "heeler_in_flight";
const ARMED_TOTAL: &str = "heeler_armed_total";
const ARMED: &str = "heeler_armed";
const REPORTS: &str = "heeler_reports_total";
const SUPPRESSED: &str = "heeler_reports_suppressed_total";
const DROPPED: &str = "heeler_reports_dropped_total";
const UNDELIVERED: &str = "heeler_reports_undelivered_total";
const NOT_SPOOLED: &str = "heeler_reports_not_spooled_total";
const LEFT_IN_SPOOL: &str = "heeler_reports_left_to_later_version";
const QUEUE_DEPTH: &str = "heeler_queue_depth";
const CAPTURES: &str = "heeler_captures_total";
const THREAD_STACKS: &str = "heeler_thread_stacks_total";
const SLOW_WAKES: &str = "heeler_slow_wakes_total";
const BLOCKED_WAKES: &str = "heeler_blocked_wakes";
const DELIVERIES: &str = "heeler_deliveries_total";
const FAILURES: &str = "heeler_delivery_failures_total";
const MONITOR_UP: &str = "heeler_monitor_up";
const HEARTBEAT_AGE: &str = "heeler_monitor_heartbeat_age_seconds";
const MAX_LAG: &str = "heeler_monitor_max_lag_seconds";
const ELAPSED: &str = "heeler_report_elapsed_seconds";

/// Limits counting what is in flight to a hundredth of a core.
const COST_FACTOR: u32 = 100;

/// When to publish next. A table may be so large that walking it every second would be noticeable.
static NEXT: PerProcess<Mutex<Option<Instant>>> = PerProcess::new(Mutex::default);

/// Hands the metrics of the process to the recorder.
pub(in crate::report) fn publish() {
    let began = Instant::now();
    if lock_std(NEXT.get()).is_some_and(|next| began < next) {
        return;
    }
    // A recorder is other people's code, just like a subscriber.
    log_safely(record);
    let cost = began.elapsed().min(Duration::from_secs(1));
    *lock_std(NEXT.get()) = began.checked_add(cost * COST_FACTOR);
}

/// Records how slow the work of a report was. Called on the reporter's thread once the report is put together.
pub(in crate::report) fn reported(report: &Report) {
    // An update would count the same work twice, and a dump is about no work that was slow.
    if report.update == 0 && report.dump.is_none() {
        let (seconds, verdict) = (report.elapsed.as_secs_f64(), report.verdict.as_str());
        log_safely(|| {
            let what = "How long reported work had run when it was captured for the first time.";
            describe_histogram!(ELAPSED, Unit::Seconds, what);
            histogram!(ELAPSED, "verdict" => verdict).record(seconds);
        });
    }
}

fn record() {
    let metrics = metrics();
    let stats = metrics.reports;
    describe();
    let (watched, in_flight) = (metrics.watched, metrics.in_flight);
    counter!(REQUESTS).absolute(watched.requests);
    counter!(JOBS).absolute(watched.jobs);
    counter!(CHILDREN).absolute(watched.children);
    counter!(TIMEBOXES).absolute(watched.timeboxes);
    let works = [
        ("request", in_flight.requests),
        ("job", in_flight.jobs),
        ("child", in_flight.children),
        ("timebox", in_flight.timeboxes),
    ];
    for (work, number) in works {
        gauge!(IN_FLIGHT, "work" => work).set(number as f64);
    }
    counter!(UNWATCHED).absolute(metrics.unwatched);
    counter!(ARMED_TOTAL).absolute(metrics.armed);
    gauge!(ARMED).set(metrics.armed_now as f64);
    for verdict in Verdict::ALL {
        counter!(REPORTS, "verdict" => verdict.as_str()).absolute(stats.with_verdict(verdict));
    }
    counter!(SUPPRESSED).absolute(stats.suppressed);
    counter!(DROPPED).absolute(stats.dropped);
    counter!(UNDELIVERED).absolute(stats.undelivered);
    counter!(NOT_SPOOLED).absolute(stats.not_spooled);
    gauge!(LEFT_IN_SPOOL).set(stats.left_to_later_version as f64);
    gauge!(QUEUE_DEPTH).set(stats.queued as f64);
    let captures = metrics.captures;
    let captures = [
        ("taken", captures.taken),
        ("missed", captures.missed),
        ("refused", captures.refused),
        ("truncated", captures.truncated),
    ];
    for (result, number) in captures {
        counter!(CAPTURES, "result" => result).absolute(number);
    }
    let threads = metrics.thread_stacks;
    let threads = [
        ("taken", threads.taken),
        ("missed", threads.missed),
        ("unanswered", threads.unanswered),
        ("unavailable", threads.unavailable),
        ("truncated", threads.truncated),
    ];
    for (result, number) in threads {
        counter!(THREAD_STACKS, "result" => result).absolute(number);
    }
    counter!(SLOW_WAKES).absolute(metrics.wakes.slow);
    gauge!(BLOCKED_WAKES).set(metrics.wakes.blocked as f64);
    let monitor = metrics.monitor;
    gauge!(MONITOR_UP).set(if monitor.running { 1.0 } else { 0.0 });
    gauge!(HEARTBEAT_AGE).set(monitor.heartbeat_age.as_secs_f64());
    gauge!(MAX_LAG).set(monitor.max_lag.as_secs_f64());
    #[cfg(feature = "fleet")]
    if let Some(fleet) = metrics.fleet {
        fleet::record(fleet);
    }
    for (sink, taken) in by_sink::deliveries() {
        counter!(DELIVERIES, "sink" => sink).absolute(taken);
    }
    for (sink, failed) in by_sink::failures() {
        counter!(FAILURES, "sink" => sink).absolute(failed);
    }
}

/// Describes the metrics each time, because a recorder may be installed at any time, and before it gets the first figure,
/// because it may be read at any time.
fn describe() {
    let counters = [
        (REQUESTS, "Requests that were watched, those in flight included."),
        (JOBS, "Jobs that were watched."),
        (CHILDREN, "Pieces of work that requests and jobs handed on, and that were watched."),
        (TIMEBOXES, "Timeboxes, those of layers and those within requests and jobs."),
        (UNWATCHED, "Work that was not watched, for too much was in flight."),
        (
            ARMED_TOTAL,
            "Requests and jobs that used up an eighth of their threshold, from where on each poll is traced.",
        ),
        (REPORTS, "Reports that were put together, updates included."),
        (SUPPRESSED, "Reports that were held back, for one about the same had just gone out."),
        (DROPPED, "Captures that were thrown away, for too many waited for the reporter."),
        (UNDELIVERED, "Reports that at least one sink has not taken and never will."),
        (NOT_SPOOLED, "Reports that could not be written to the spool, and were kept in memory alone."),
        (CAPTURES, "Captures of slow work that were due; those truncated are among those taken."),
        (THREAD_STACKS, "Threads that were asked for their stacks; those truncated are among those taken."),
        (SLOW_WAKES, "Tasks whose waker took longer than 2 ms."),
        (DELIVERIES, "Reports that a sink has taken, updates included."),
        (FAILURES, "Deliveries to a sink that failed."),
    ];
    for (name, what) in counters {
        describe_counter!(name, Unit::Count, what);
    }
    describe_gauge!(IN_FLIGHT, Unit::Count, "Requests, jobs, child work and timeboxes that are watched now.");
    describe_gauge!(
        QUEUE_DEPTH,
        Unit::Count,
        "Reports that are on their way to at least one sink, or wait for another try."
    );
    describe_gauge!(LEFT_IN_SPOOL, Unit::Count, "Reports in the spool that only a later version can read.");
    describe_gauge!(ARMED, Unit::Count, "Requests and jobs whose polls are traced now.");
    describe_gauge!(BLOCKED_WAKES, Unit::Count, "Wakers of tasks that were called and have not returned.");
    describe_gauge!(MONITOR_UP, Unit::Count, "1 if the monitor's threads run, else 0.");
    describe_gauge!(HEARTBEAT_AGE, Unit::Seconds, "Time since the monitor last turned, which it does every second.");
    describe_gauge!(
        MAX_LAG,
        Unit::Seconds,
        "The longest that the monitor was late in the last thirty to sixty seconds."
    );
}
