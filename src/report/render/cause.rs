//! What a report says about other work: who keeps the work waiting, and who else waits.

use super::sections::{Listing, Section};
use super::sentence::cut;
use super::stacks::Line;
use crate::inflight::Usage;
use crate::report::assemble::location::place;
use crate::report::model::Location;
use crate::report::model::others::{BlockingPool, BusyThreads, Contended, Finding, Holder, Others};
use crate::report::model::words::Activity;
use crate::report::{Report, Verdict};
use crate::text::units::{at, count, duration};

/// How many holders the page describes with their frames.
const MAX_HOLDERS: usize = 4;

impl Report {
    /// Returns what the sentence adds about other work, or nothing: `; likely held by GET /export (began 34.0 s ago; it
    /// waits in app::rates::fetch at src/rates.rs:77)`.
    pub(super) fn cause(&self) -> String {
        let waits = matches!(self.verdict, Verdict::Waiting | Verdict::Blocking | Verdict::Interrupted);
        let Some(others) = self.others.as_ref().filter(|_| waits) else { return String::new() };
        match (&others.resource, others.culprit()) {
            (Some(resource), _) => format!("; {}", contended(resource, &others.holders)),
            (None, Some(holder)) => {
                format!("; likely held by {}{}", about(holder), more(others.holders.len() as u32))
            }
            (None, None) => {
                let pool = busy_pool(others).map(|pool| format!("{}: {}", pool_state(pool), busiest(pool)));
                let said = pool.or_else(|| (others.at_same_place > 0).then(|| queue(others)));
                said.map(|said| format!("; {said}")).unwrap_or_default()
            }
        }
    }
}

/// Returns the blocking pool if the work waits for one of its threads.
fn busy_pool(others: &Others) -> Option<&BlockingPool> {
    others.blocking_pool.as_ref().filter(|pool| pool.is_awaited && !pool.busy.is_empty())
}

/// Returns `all 512 threads of the blocking pool are busy`.
fn pool_state(pool: &BlockingPool) -> String {
    match (pool.threads, pool.idle, pool.unknown) {
        (1, 0, 0) => "the only thread of the blocking pool is busy".to_owned(),
        (number, 0, 0) => format!("all {number} threads of the blocking pool are busy"),
        (number, idle, 0) => format!("the blocking pool has {}, {idle} of them idle", count(number, "thread")),
        (number, idle, unknown) => {
            format!(
                "the blocking pool has at least {}, {idle} of them idle and {unknown} unknown",
                count(number, "thread")
            )
        }
    }
}

/// Returns `510 in audit::flush at src/audit.rs:41, and 2 elsewhere`.
fn busiest(pool: &BlockingPool) -> String {
    let Some(first) = pool.busy.first() else { return String::new() };
    let rest = pool.threads.saturating_sub(pool.idle).saturating_sub(first.count);
    let rest = if rest > 0 { format!(", and {rest} elsewhere") } else { String::new() };
    format!("{}{rest}", threads_at(first))
}

/// Returns `510 in audit::flush at src/audit.rs:41`.
fn threads_at(threads: &BusyThreads) -> String {
    let at = threads.location.as_ref().map_or_else(|| "an unknown place".to_owned(), place);
    format!("{} in {at}", threads.count)
}

/// Returns `44 others wait there, the first for 3.1 s`.
fn queue(others: &Others) -> String {
    let longest = duration(others.longest_at_same_place);
    match others.at_same_place {
        1 => format!("1 other is there, too, for {longest}"),
        number => format!("{number} others are there, too, the first for {longest}"),
    }
}

/// Returns why the wait for a named thing does not end.
fn contended(resource: &Contended, holders: &[Holder]) -> String {
    let usage = resource.usage.map(|usage| format!(" ({})", in_use(usage)));
    let name = format!("\"{}\"{}", cut(&resource.name), usage.unwrap_or_default());
    let likely = if resource.certain { "" } else { "likely " };
    match (resource.finding, holders) {
        (Finding::Deadlock, [holder]) => {
            let theirs = format!("\"{}\"", cut(holder.resource.as_deref().unwrap_or(&resource.name)));
            format!(
                "deadlock: {} holds {theirs}{}, and waits for what this work holds",
                cut(&holder.work),
                taken(holder)
            )
        }
        (Finding::Deadlock, [first, rest @ ..]) => {
            let rest = rest.iter().map(|holder| cut(&holder.work)).collect::<Vec<_>>().join(", ");
            format!(
                "deadlock over {name}: {}{} and {rest} wait for each other and for this work",
                cut(&first.work),
                taken(first)
            )
        }
        (Finding::BehindDeadlock, [first, ..]) => {
            format!("{name} is in a deadlock: {}{} cannot move on", cut(&first.work), taken(first))
        }
        (Finding::Itself, [first, ..]) => format!("it holds {name} itself{}", taken(first)),
        (Finding::HandedOver, _) => format!(
            "{name} is free, but its turn went to another future of this work, which is not polled any more: {likely}a futurelock"
        ),
        (_, [first, ..]) => {
            format!("{name} is {likely}held by {}{}", about(first), more(resource.holding))
        }
        (_, []) => format!("it waits for {name}, and nobody is known to hold it"),
    }
}

/// Returns `10 of 10 in use`.
fn in_use(Usage { in_use, size }: Usage) -> String {
    format!("{in_use} of {size} in use")
}

/// Returns ` and 2 others`.
fn more(number: u32) -> String {
    if number > 1 { format!(" and {}", count(number - 1, "other")) } else { String::new() }
}

/// Returns ` (taken 34.0 s ago at src/export.rs:41)`.
fn taken(holder: &Holder) -> String {
    taken_at(holder).map(|taken| format!(" ({taken})")).unwrap_or_default()
}

fn taken_at(holder: &Holder) -> Option<String> {
    let held = duration(holder.held?);
    let at = holder.taken_at.as_ref().and_then(line).map(|line| format!(" at {line}")).unwrap_or_default();
    Some(format!("taken {held} ago{at}"))
}

fn line(location: &Location) -> Option<String> {
    at(location.file.as_deref(), location.line)
}

/// Returns `it waits in app::rates::fetch at src/rates.rs:77`.
fn now(holder: &Holder) -> Option<String> {
    let location = holder.location.as_ref()?;
    let does = if holder.activity == Some(Activity::Running) { "runs" } else { "waits" };
    Some(format!("it {does} in {}", place(location)))
}

/// Returns `GET /export (taken 34.0 s ago at src/export.rs:41; it waits in app::rates::fetch at src/rates.rs:77)`.
fn about(holder: &Holder) -> String {
    let began = holder.elapsed.map(|elapsed| format!("began {} ago", duration(elapsed)));
    let parts: Vec<String> = [taken_at(holder).or(began), now(holder)].into_iter().flatten().collect();
    let work = cut(&holder.work);
    if parts.is_empty() { work } else { format!("{work} ({})", parts.join("; ")) }
}

/// Returns the lines about other work, or `None` if there is none.
pub(super) fn section(report: &Report) -> Option<Section> {
    let others = report.others.as_ref()?;
    let mut listings = Vec::new();
    let remarks = |title: Option<String>, lines: Vec<String>| Listing {
        title,
        lines: lines.into_iter().map(Line::Remark).collect(),
    };
    if let Some(resource) = &others.resource {
        let asked = resource.asked_at.as_ref().and_then(line).map(|line| format!("asked for at {line}"));
        let queue = match resource.queue {
            0 => "nobody else waits for it".to_owned(),
            number => format!("{} for it, too", counted(number, "other waits", "others wait")),
        };
        let finding = format!("{}: {}", resource.finding, counted(resource.holding, "holder", "holders"));
        listings.push(remarks(
            Some(format!("It waits for \"{}\"", resource.name)),
            [Some(finding), resource.usage.map(in_use), Some(queue), asked].into_iter().flatten().collect(),
        ));
    }
    let same = |a: &Holder, b: &Holder| (&a.id, &a.work, &a.taken_at) == (&b.id, &b.work, &b.taken_at);
    let mut shown: Vec<(&Holder, usize)> = Vec::new();
    for holder in &others.holders {
        match shown.iter_mut().find(|(known, _)| same(known, holder)) {
            Some((_, number)) => *number += 1,
            None => shown.push((holder, 1)),
        }
    }
    for (holder, number) in shown.iter().take(MAX_HOLDERS) {
        let likely = if holder.likely { "Likely held by" } else { "Held by" };
        let reason = holder.reason.as_ref().map(|reason| format!("likely, because {reason}"));
        let held =
            taken_at(holder).map(|taken| format!("\"{}\" {taken}", holder.resource.as_deref().unwrap_or_default()));
        let running = holder.elapsed.map(|elapsed| format!("running for {}", duration(elapsed)));
        let id = holder.id.as_ref().map(|id| format!("reports about it have the id {id}"));
        let mut lines: Vec<Line> = [reason, held, running, id].into_iter().flatten().map(Line::Remark).collect();
        let shown = if holder.path.is_empty() { holder.location.as_slice() } else { &*holder.path };
        lines.extend(shown.iter().map(|location| Line::Frame {
            own: !holder.path.is_empty(),
            name: location.function.clone().unwrap_or_else(|| "?".to_owned()),
            place: line(location),
            source: None,
        }));
        let times = if *number > 1 { format!(", {number} times") } else { String::new() };
        listings.push(Listing { title: Some(format!("{likely} {}{times}", holder.work)), lines });
    }
    if let Some(more) = shown.len().checked_sub(MAX_HOLDERS).filter(|more| *more > 0) {
        listings.push(remarks(None, vec![format!("… {more} more, in the JSON form")]));
    }
    let mut lines = Vec::new();
    if others.at_same_place > 0 {
        lines.push(queue(others));
    }
    for other in &others.places {
        let does = if other.activity == Activity::Running { "running" } else { "waiting" };
        let at = other.location.as_ref().map(|location| format!(" in {}", place(location))).unwrap_or_default();
        let work = other.work.join(", ");
        let more = if other.count as usize > other.work.len() { ", .." } else { "" };
        lines.push(format!("{} {does}{at}, up to {} ({work}{more})", other.count, duration(other.longest)));
    }
    if !lines.is_empty() {
        listings.push(remarks(Some("Others".to_owned()), lines));
    }
    if let Some(pool) = &others.blocking_pool {
        let calls = |threads: &BusyThreads| threads.calls.as_ref().map(|calls| format!(", which calls {calls}"));
        let line = |threads: &BusyThreads| format!("{}{}", threads_at(threads), calls(threads).unwrap_or_default());
        let mut lines = vec![pool_state(pool)];
        lines.extend(pool.busy.iter().map(line));
        listings.push(remarks(Some("The blocking pool".to_owned()), lines));
    }
    if listings.is_empty() {
        return None;
    }
    let heading = match others.in_flight {
        0 => "What it waits for".to_owned(),
        number => format!(
            "What else is in flight: {} past an eighth of its threshold",
            counted(number, "request or job", "requests and jobs")
        ),
    };
    Some(Section { heading, listings })
}

fn counted(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
