//! Who keeps the work waiting. Who holds a named resource is known: see [`acquire`](crate::acquire()). Of other waits it
//! is only likely, and then the report says why.
//!
//! A false accusation is worse than silence. So work is a candidate only if
//!
//! - what is awaited is something that other work can hold: a lock, a permit, a connection of a pool, room in a channel;
//! - it began before the wait did, is somewhere else, and has been there for at least half as long as the work waits;
//!
//! and it is named for the strongest of these reasons, the last two only if all such work is at one place:
//!
//! 1. it waited at that place before, and has moved on;
//! 2. it is within the call in which the others wait, as one is that initializes a value;
//! 3. it has passed the line, in the same function, at which the others wait;
//! 4. it holds a thread;
//! 5. it is the only work that was stuck before, and waits for something that must come from outside.

use std::collections::BTreeSet;
use std::time::Duration;

use super::awaiting::awaited_by;
use super::elsewhere::{Elsewhere, Place, Work};
use super::location::{is_idle, location_of, own_frame};
use super::route::{job_name, route_of};
use crate::capture::Frame;
use crate::monitor::Verdict;
use crate::report::model::others::{BlockingPool, Finding, Holder, OtherPlace, Others};
use crate::report::model::words::{Activity, StackKind};
use crate::report::model::{Location, Report, Stack};
use crate::text::fnv::Fnv;

/// How many places and holders a report has.
const MAX_PLACES: usize = 8;
const MAX_HOLDERS: usize = 8;
/// How many frames of a holder are shown.
const MAX_PATH: usize = 6;

/// Phrases of the [table](super::phrases) for what other work of the process can hold.
const HELD: [&str; 9] = [
    "a connection of the pool",
    "the connection to be free for another request",
    "a free slot of a concurrency limit",
    "room in the buffer of a service",
    "a cache entry that somebody else computes",
    "room in a channel (its queue is full)",
    "a lock",
    "a permit",
    "a value that somebody else computes",
];

/// Phrases for what idle work waits for: nobody expects it to come soon.
const IDLE: [&str; 10] = [
    "the client's next WebSocket message",
    "the next message of a gRPC stream",
    "the message broker's next message",
    "the next message (the queue is empty)",
    "a message through a oneshot channel",
    "a notification",
    "a change of a watched value",
    "a timer",
    "a signal",
    "a cancellation",
];

/// Parts of functions that block a thread until others let go of something.
const BLOCKED: [&str; 6] = [
    "std::sys::sync::mutex",
    "std::sys::sync::rwlock",
    "std::sync::poison::mutex",
    "std::sync::poison::rwlock",
    "parking_lot",
    "dashmap::",
];

/// Decides what else matters, and moves it to where the report says so.
pub(in crate::report) fn find(report: &mut Report) {
    let mut elsewhere = std::mem::take(&mut report.elsewhere);
    report.incident = own_incident(report);
    let pool = std::mem::take(&mut elsewhere.pool);
    let is_awaited = pool.is_awaited_by(report);
    let pool = pool.describe().map(|pool| BlockingPool { is_awaited, ..pool });
    if elsewhere.in_flight == 0 && elsewhere.resource.is_none() && elsewhere.holders.is_empty() && pool.is_none() {
        return;
    }
    let others = Others { blocking_pool: pool, ..others(report, elsewhere) };
    if let Some(holder) = others.culprit() {
        report.incident = incident(&holder.work, holder.location.as_ref());
    }
    report.others = Some(others);
    if let Some(members) = members(report) {
        let mut hash = Fnv::default();
        members.iter().for_each(|member| hash.text(member));
        report.incident = hash.finish();
    }
}

impl Others {
    /// Returns the one holder that the sentence may name: the first who certainly holds what is awaited, or the likely
    /// one if all of these are at one place.
    pub(in crate::report) fn culprit(&self) -> Option<&Holder> {
        let first = self.holders.first()?;
        let clear = !first.likely || self.holders.iter().all(|holder| holder.location == first.location);
        clear.then_some(first)
    }
}

fn others(report: &Report, elsewhere: Elsewhere) -> Others {
    let Elsewhere { in_flight, here: same, longest_here, places, resource, holders, .. } = elsewhere;
    let places = merge(places);
    let current: Vec<&Stack> = own_stacks(report).collect();
    let is_here = |stack: &Stack| current.iter().any(|own| own.is_at_same_place_as(stack));
    let (here, there): (Vec<Place>, Vec<Place>) =
        places.into_iter().partition(|place| place.stacks.iter().any(is_here));
    let longest = here.iter().map(|place| place.longest).fold(longest_here, Duration::max);
    let mut holders: Vec<Holder> = holders.into_iter().map(|(holder, stacks)| located(holder, &stacks)).collect();
    let waits = matches!(report.verdict, Verdict::Waiting | Verdict::Blocking);
    if holders.is_empty() && resource.is_none() && waits {
        let scene = Scene { stacks: &current, waited: report.waiting_there().max(longest), elapsed: report.elapsed };
        holders = scene.likely(&there);
    }
    let described = |place: &Place| OtherPlace {
        count: place.count,
        longest: place.longest,
        activity: place.activity,
        work: place.work.iter().map(|work| work.name.clone()).collect(),
        location: place_of(&place.stacks),
    };
    Others {
        in_flight,
        at_same_place: same + here.iter().map(|place| place.count).sum::<u32>(),
        longest_at_same_place: longest,
        resource,
        holders,
        places: there.iter().take(MAX_PLACES).map(described).collect(),
        blocking_pool: None,
    }
}

/// Returns where the report's own work is now.
pub(super) fn own_stacks(report: &Report) -> impl Iterator<Item = &Stack> {
    let own = |stack: &&Stack| stack.current && stack.child.is_none() && stack.kind != StackKind::Culprit;
    report.stacks.iter().filter(own).filter(|stack| !is_idle(stack))
}

/// Returns whether the report's work waits for something that other work can hold.
pub(super) fn can_be_held(report: &Report) -> bool {
    own_stacks(report).any(waits_for_what_is_held)
}

impl Report {
    /// Returns how long it has been waiting or running where it is now, as far as observed.
    fn waiting_there(&self) -> Duration {
        let current = |index: usize| self.stacks.get(index).is_some_and(|stack| stack.current);
        let shares = self.timeline.iter().filter(|interval| interval.stack.is_some_and(current));
        shares.map(|interval| interval.time).sum()
    }
}

/// Makes one of the places that only differ in what a library does there.
fn merge(places: Vec<Place>) -> Vec<Place> {
    let mut merged: Vec<Place> = Vec::new();
    for place in places {
        let same = |known: &&mut Place| {
            known.activity == place.activity
                && !place.stacks.is_empty()
                && known.stacks.len() == place.stacks.len()
                && known.stacks.iter().all(|stack| place.stacks.iter().any(|other| other.is_at_same_place_as(stack)))
        };
        match merged.iter_mut().find(same) {
            Some(known) => {
                known.count += place.count;
                known.longest = known.longest.max(place.longest);
                known.work.extend(place.work);
                known.work.truncate(3);
            }
            None => merged.push(place),
        }
    }
    merged
}

/// What the victim sees.
struct Scene<'a> {
    /// Its own current stacks.
    stacks: &'a [&'a Stack],
    /// How long it, or another at its place, has been waiting there.
    waited: Duration,
    elapsed: Duration,
}

/// Why work is named, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    WaitedThere,
    IsWithin,
    PassedIt,
    HoldsThread,
    AloneStuck,
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::WaitedThere => "it waited at the same place before, and has moved on from there",
            Self::IsWithin => "it is within the call in which the others wait, and runs what they wait for",
            Self::PassedIt => "it has passed the line at which the others wait",
            Self::HoldsThread => "it began before, and holds its thread",
            Self::AloneStuck => "it is the only other work that was stuck before",
        }
    }
}

impl Scene<'_> {
    /// Returns who likely holds what is awaited, longest first.
    fn likely(&self, places: &[Place]) -> Vec<Holder> {
        if !self.stacks.iter().any(|stack| waits_for_what_is_held(stack)) {
            return Vec::new();
        }
        let mut found: Vec<(Reason, &Place, &Work)> = Vec::new();
        for place in places {
            for work in &place.work {
                if let Some(reason) = self.reason(place, work) {
                    found.push((reason, place, work));
                }
            }
        }
        let Some(strongest) = found.iter().map(|(reason, ..)| *reason).min() else { return Vec::new() };
        found.retain(|(reason, ..)| *reason == strongest);
        let first = found[0].1;
        if strongest >= Reason::HoldsThread && !found.iter().all(|(_, place, _)| std::ptr::eq(*place, first)) {
            return Vec::new();
        }
        found.sort_by_key(|(_, _, work)| std::cmp::Reverse(work.elapsed));
        let holder = |(reason, place, work): (Reason, &Place, &Work)| {
            let holder = Holder {
                work: work.name.clone(),
                id: Some(work.id.clone()),
                elapsed: Some(work.elapsed),
                activity: Some(place.activity),
                likely: true,
                reason: Some(reason.as_str().to_owned()),
                ..Holder::default()
            };
            located(holder, &place.stacks)
        };
        found.into_iter().take(MAX_HOLDERS).map(holder).collect()
    }

    fn reason(&self, place: &Place, work: &Work) -> Option<Reason> {
        let is_older = work.elapsed > self.elapsed.max(self.waited);
        if !is_older || work.there < self.waited / 2 || place.stacks.is_empty() {
            return None;
        }
        let was_here = |stacks: &Vec<Stack>| {
            stacks.iter().any(|stack| self.stacks.iter().any(|own| own.is_at_same_place_as(stack)))
        };
        if work.earlier.iter().any(was_here) {
            return Some(Reason::WaitedThere);
        }
        if place.stacks.iter().any(|stack| self.stacks.iter().any(|own| is_within(stack, own))) {
            return Some(Reason::IsWithin);
        }
        if place.stacks.iter().any(|stack| self.stacks.iter().any(|own| has_passed(stack, own))) {
            return Some(Reason::PassedIt);
        }
        if place.activity == Activity::Running {
            return Some(Reason::HoldsThread);
        }
        // What queues for something itself, or is idle, keeps nobody waiting.
        let waits_in_turn = place.stacks.iter().all(waits_for_what_is_held);
        (!waits_in_turn && !place.stacks.iter().all(is_idle_wait)).then_some(Reason::AloneStuck)
    }
}

/// Returns whether the stack goes through the line in which `victim` waits, and further into own code from there.
fn is_within(stack: &Stack, victim: &Stack) -> bool {
    let Some(waits) = own_frame(victim) else { return false };
    let mut own = stack.frames.iter().filter(|frame| frame.own).skip(1);
    waits.function.is_some()
        && own.any(|frame| (&frame.function, &frame.file, frame.line) == (&waits.function, &waits.file, waits.line))
}

/// Returns whether the stack is in the function that `victim` waits in, and behind the line where that waits.
fn has_passed(stack: &Stack, victim: &Stack) -> bool {
    let Some(waits) = own_frame(victim) else { return false };
    let Some(line) = waits.line else { return false };
    let mut own = stack.frames.iter().filter(|frame| frame.own);
    own.any(|frame| is_same_function(frame, waits) && frame.line.is_some_and(|at| at > line))
}

/// Returns whether two frames are of one function. The async blocks of a function have its name, and are others.
fn is_same_function(one: &Frame, other: &Frame) -> bool {
    let has_name = one.function.as_ref().is_some_and(|name| !name.contains('{'));
    has_name && (&one.function, &one.file, one.identity) == (&other.function, &other.file, other.identity)
}

/// Returns the library's part of a stack.
fn leaf(stack: &Stack) -> impl Iterator<Item = &str> {
    stack.frames.iter().take_while(|frame| !frame.own).filter_map(|frame| frame.function.as_deref())
}

fn waits_for_what_is_held(stack: &Stack) -> bool {
    match stack.kind {
        StackKind::Await => awaited_by(stack).is_some_and(|awaited| HELD.contains(&awaited.phrase)),
        _ => leaf(stack).any(|function| BLOCKED.iter().any(|blocked| function.contains(blocked))),
    }
}

fn is_idle_wait(stack: &Stack) -> bool {
    is_idle(stack) || awaited_by(stack).is_some_and(|awaited| IDLE.contains(&awaited.phrase))
}

fn place_of(stacks: &[Stack]) -> Option<Location> {
    let busy = || stacks.iter().filter(|stack| !is_idle(stack));
    busy().find(|stack| own_frame(stack).is_some()).or_else(|| busy().next()).or(stacks.first()).and_then(location_of)
}

fn located(holder: Holder, stacks: &[Stack]) -> Holder {
    let location = place_of(stacks);
    let stack = stacks.iter().find(|stack| location_of(stack) == location);
    let own = stack.into_iter().flat_map(|stack| &stack.frames).filter(|frame| frame.own);
    let path = own.take(MAX_PATH).map(super::location::place_of).collect();
    Holder { location, path, ..holder }
}

/// Returns who is in a deadlock together, whichever of them the report is about.
pub(in crate::report) fn members(report: &Report) -> Option<BTreeSet<String>> {
    let others = report.others.as_ref()?;
    others.resource.as_ref().filter(|resource| resource.finding == Finding::Deadlock && resource.certain)?;
    let holders = others.holders.iter().map(|holder| route_of_work(&holder.work));
    Some(std::iter::once(route_of_work(&own_work(report))).chain(holders).collect())
}

fn own_incident(report: &Report) -> String {
    incident(&own_work(report), report.location.as_ref())
}

/// Returns the report's own work as other reports name it.
pub(in crate::report) fn own_work(report: &Report) -> String {
    let request = report.request.as_ref();
    let request = request.map(|it| format!("{} {}", it.method, it.uri.split('?').next().unwrap_or_default()));
    match &report.job {
        Some(job) => job_name(job, request),
        None => request.unwrap_or_default(),
    }
}

/// Returns the same without what differs between requests of one route.
pub(in crate::report) fn route_of_work(work: &str) -> String {
    if let Some((job, _)) = work.strip_prefix("the job \"").and_then(|job| job.split_once("\" of ")) {
        return job_name(job, None);
    }
    match work.split_once(" /") {
        Some((method, path)) if !method.contains(' ') => format!("{method} {}", route_of(&format!("/{path}"))),
        _ => work.to_owned(),
    }
}

/// Returns what reports with the same cause have in common: what its work is, and where that is stuck.
fn incident(work: &str, location: Option<&Location>) -> String {
    let place = location.and_then(|place| place.function.clone().or_else(|| place.file.clone())).unwrap_or_default();
    let mut hash = Fnv::default();
    [&*route_of_work(work), &*place].into_iter().for_each(|text| hash.text(text));
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, library, own};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn lock(line: u32) -> Stack {
        await_stack(&[library("tokio::sync::mutex::Mutex<T>::lock"), own("app::import", line)])
    }

    fn fetch(line: u32) -> Stack {
        await_stack(&[library("reqwest::async_impl::client::Pending::poll"), own("app::fetch", line)])
    }

    fn place(stack: Stack, name: &str, elapsed: u64, there: u64) -> Place {
        let work = Work {
            id: name.to_owned(),
            name: name.to_owned(),
            elapsed: S(elapsed),
            there: S(there),
            earlier: Vec::new(),
        };
        Place { stacks: vec![stack], activity: Activity::Waiting, count: 1, longest: S(there), work: vec![work] }
    }

    fn likely(victim: &Stack, places: &[Place]) -> Vec<(String, String)> {
        let scene = Scene { stacks: &[victim], waited: S(2), elapsed: S(2) };
        let said = |holder: Holder| (holder.work, holder.reason.unwrap_or_default());
        scene.likely(places).into_iter().map(said).collect()
    }

    /// Guards: work that is stuck and older is named, if it is clear which.
    #[test]
    fn names_the_only_work_that_was_stuck_before() {
        let export = || place(fetch(7), "GET /export", 34, 30);
        let found = likely(&lock(3), &[export()]);
        assert_eq!(found, [("GET /export".to_owned(), Reason::AloneStuck.as_str().to_owned())]);
        let upload = || place(await_stack(&[library("hyper::body"), own("app::upload", 9)]), "POST /upload", 40, 40);
        assert!(likely(&lock(3), &[export(), upload()]).is_empty(), "either may be the one");
        // The one that has passed the line is more likely than any other.
        let mut holds = fetch(7);
        holds.frames.push(own("app::import", 5));
        let found = likely(&lock(3), &[upload(), place(holds, "GET /import", 34, 30)]);
        assert_eq!(found, [("GET /import".to_owned(), Reason::PassedIt.as_str().to_owned())]);
        let init =
            await_stack(&[library("hyper::send"), own("app::fetch", 7), library("once_cell"), own("app::import", 3)]);
        let found = likely(&lock(3), &[upload(), place(init, "GET /first", 34, 30)]);
        assert_eq!(found, [("GET /first".to_owned(), Reason::IsWithin.as_str().to_owned())]);
        let mut waited = export();
        waited.work[0].earlier.push(vec![lock(3)]);
        let found = likely(&lock(3), &[upload(), waited]);
        assert_eq!(found, [("GET /export".to_owned(), Reason::WaitedThere.as_str().to_owned())]);
    }

    /// Guards: a phrase that the table no longer has makes a line here useless.
    #[test]
    fn the_phrases_are_those_of_the_table() {
        let table = include_str!("phrases.txt");
        for phrase in HELD.iter().chain(&IDLE) {
            assert!(table.lines().any(|line| line == *phrase), "{phrase}");
        }
    }

    /// Guards: two async blocks of one function have its name, and neither has passed a line of the other.
    #[test]
    fn another_block_of_the_function_has_not_passed_the_line() {
        let at = |line, identity| {
            let mut block = fetch(7);
            block.frames.push(Frame { identity, ..own("app::main", line) });
            block
        };
        let mut victim = lock(3);
        victim.frames[1] = Frame { identity: 1, ..own("app::main", 3) };
        assert!(has_passed(&at(5, 1), &victim) && !has_passed(&at(2, 1), &victim));
        assert!(!has_passed(&at(5, 2), &victim));
        let (mut block, mut unnamed) = (at(5, 0), lock(3));
        unnamed.frames[1] = own("{async_fn#0}", 3);
        block.frames[2].function = Some("{async_fn#0}".to_owned());
        assert!(!has_passed(&block, &unnamed), "with line tables only, all of them are called that");
    }

    /// Guards: nobody is named for a wait that nobody of this process can end, or who cannot have caused it.
    #[test]
    fn accuses_nobody_without_a_reason() {
        let export = || place(fetch(7), "GET /export", 34, 30);
        assert!(likely(&fetch(3), &[export()]).is_empty(), "a slow answer has no holder here");
        assert!(likely(&lock(3), &[place(fetch(7), "GET /export", 1, 1)]).is_empty(), "it came later");
        assert!(likely(&lock(3), &[place(fetch(7), "GET /export", 34, 0)]).is_empty(), "it moves");
        let queues = await_stack(&[library("tokio::sync::mutex::Mutex<T>::lock"), own("app::rename", 9)]);
        assert!(likely(&lock(3), &[place(queues, "GET /other", 34, 30)]).is_empty(), "it queues as well");
        let timer = await_stack(&[library("tokio::time::sleep::Sleep::poll"), own("app::ticker", 1)]);
        assert!(likely(&lock(3), &[place(timer, "the job \"ticker\"", 900, 900)]).is_empty(), "it is idle");
        let events = await_stack(&[library("tokio::sync::watch::Receiver<T>::changed"), own("app::events", 1)]);
        assert!(likely(&lock(3), &[place(events, "GET /events", 900, 900)]).is_empty(), "it is idle");
    }
}
