//! Where the time went: one share per place.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use super::sentence::busy_with;
use crate::report::assemble::location::location_of;
use crate::report::assemble::location::place;
use crate::report::{Activity, Interval, Report};
use crate::text::units::{count, duration};

/// How many shares are shown. The JSON form has all.
const MAX_SHARES: usize = 20;

/// A part of the work's time.
#[derive(Debug)]
pub(super) struct Share {
    /// `None` for the many small shares together.
    pub(super) activity: Option<Activity>,
    /// The fraction of the whole, from 0 to 1.
    pub(super) fraction: f64,
    /// `9.80 s of 10.0 s waiting in PhotoStore::get at photos.rs:41, 3 waits`.
    pub(super) text: String,
}

/// Returns the shares, the largest first.
pub(super) fn shares(report: &Report) -> Vec<Share> {
    let timeline = by_place(report);
    let fraction = |time| fraction(time, report).min(1.0);
    let share = |interval: &Interval| Share {
        activity: Some(interval.activity),
        fraction: fraction(interval.time),
        text: describe(interval, report),
    };
    let mut shares: Vec<Share> = timeline.iter().take(MAX_SHARES).map(share).collect();
    let rest = &timeline[timeline.len().min(MAX_SHARES)..];
    if !rest.is_empty() {
        let time = rest.iter().map(|interval| interval.time).fold(Duration::ZERO, Duration::saturating_add);
        let text = format!("{} in {} more, in the JSON form", duration(time), count(rest.len() as u64, "place"));
        shares.push(Share { activity: None, fraction: fraction(time), text });
    }
    shares
}

/// Returns which fraction of the whole a time is, or 0 if the whole is zero.
fn fraction(time: Duration, report: &Report) -> f64 {
    if report.elapsed.is_zero() { 0.0 } else { time.div_duration_f64(report.elapsed) }
}

/// Returns where the time went, in lines: by place, longest first.
#[cfg(feature = "sentry")]
pub(crate) fn timeline(report: &Report) -> Vec<String> {
    shares(report).into_iter().filter(|share| share.activity.is_some()).map(|share| share.text).collect()
}

/// Returns the timeline with one interval per place of the application's own, longest first. The JSON form has the
/// differences within library code.
fn by_place(report: &Report) -> Vec<Interval> {
    let mut merged: Vec<Interval> = Vec::new();
    let mut known: HashMap<_, usize> = HashMap::new();
    for interval in &report.timeline {
        let location = interval.stack.and_then(|at| report.stacks.get(at)).and_then(location_of);
        let place = location.map(|location| (location.function, location.file, location.line));
        match known.entry((interval.activity, place)) {
            Entry::Occupied(at) => {
                let known = &mut merged[*at.get()];
                known.time = known.time.saturating_add(interval.time);
                known.waits = known.waits.saturating_add(interval.waits);
            }
            Entry::Vacant(new) => {
                // Intervals without a stack are never merged, because there is one of each kind.
                if interval.stack.is_some() {
                    new.insert(merged.len());
                }
                merged.push(interval.clone());
            }
        }
    }
    merged.sort_by_key(|interval| std::cmp::Reverse(interval.time));
    merged
}

/// Describes what the thread does inside the last of these polls. It may well be asleep.
fn now(interval: &Interval, report: &Report) -> String {
    let thread = interval.stack.and_then(|at| report.stacks.get(at)).filter(|stack| stack.current);
    let what = thread.and_then(|stack| stack.thread.as_ref()).and_then(busy_with);
    what.map(|what| format!(", now {what}")).unwrap_or_default()
}

/// Returns `9.80 s of 10.0 s waiting in PhotoStore::get at photos.rs:41, 3 waits`.
fn describe(interval: &Interval, report: &Report) -> String {
    let share = format!("{} of {}", duration(interval.time), duration(report.elapsed));
    let location = interval.stack.and_then(|at| report.stacks.get(at)).and_then(location_of);
    let place = location.map(|location| format!(" in {}", place(&location))).unwrap_or_default();
    match interval.activity {
        Activity::Waiting => format!("{share} waiting{place}, {}", count(interval.waits, "wait")),
        Activity::Running => {
            format!("{share} inside {}{place}{}", count(interval.waits, "poll"), now(interval, report))
        }
        Activity::Runnable => format!("{share} woken by heeler and not polled"),
        Activity::Yielding => format!("{share} yielding{place}, {}", count(interval.waits, "time")),
        Activity::Unobserved => {
            let percent = fraction(interval.time, report) * 100.0;
            format!("{share} not observed ({percent:.0} %)")
        }
    }
}
