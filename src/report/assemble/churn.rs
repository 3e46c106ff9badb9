//! Whether work spends its time in many short waits at one place: a query per photo, a retry without a pause.

use super::location::{location_of, own_frame};
use super::waits::Group;
use crate::report::model::words::Activity;
use crate::report::model::{Location, Report, Stack};

/// Fewer waits than this are not many.
const MIN_WAITS: u32 = 30;
/// The waits take at least one half of the observed time.
const SHARE: u64 = 2;
/// None of the waits takes more than this part of their time. One long wait among short ones is the cause by itself.
const LONGEST: u64 = 8;
/// Waits per place, on average. Work that goes through many places has few at each.
const PER_PLACE: u32 = 8;

/// The waits that took most of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) struct Churn {
    /// The group that most of their time belongs to.
    pub(in crate::report) group: usize,
    pub(in crate::report) waits: u32,
    pub(in crate::report) nanos: u64,
    /// Whether some branch of it gave way, so that all of it was polled again at once.
    pub(in crate::report) gave_way: bool,
}

/// Function, file and line.
type Place = (Option<String>, Option<String>, Option<u32>);

/// One group of waits: the application's own frames, outermost first, and how long they took.
struct Waits {
    group: usize,
    path: Vec<Place>,
    waits: u32,
    nanos: u64,
    longest: u64,
    gave_way: bool,
}

/// Returns the waits that the work churns through, if it does. `observed` is the time that was observed.
pub(in crate::report) fn churn(groups: &[Group], observed: u64) -> Option<Churn> {
    let waiting = groups.iter().enumerate().filter(|(_, group)| group.activity == Activity::Waiting);
    let all = waiting.filter_map(|(at, group)| {
        let path = path(group.stacks.first()?);
        Some(Waits {
            group: at,
            path,
            waits: group.waits,
            nanos: group.nanos,
            longest: group.longest,
            gave_way: group.gave_way,
        })
    });
    judge(all.collect(), observed)
}

/// Returns how often, and how long, the work has waited at the own place of that group.
pub(in crate::report) fn repeats(groups: &[Group], group: &Group) -> (u32, u64) {
    let place = |group: &Group| group.stacks.first().and_then(own_frame).map(place_of);
    let here = place(group);
    let there = groups.iter().filter(|other| other.activity == group.activity && place(other) == here);
    match here {
        Some(_) => there.fold((0, 0), |(waits, nanos), group| (waits + group.waits, nanos + group.nanos)),
        None => (group.waits, group.nanos),
    }
}

fn place_of(frame: &crate::capture::Frame) -> Place {
    (frame.function.clone(), frame.file.clone(), frame.line)
}

/// Returns the own frames, outermost first, or else the one place that is known.
fn path(stack: &Stack) -> Vec<Place> {
    let own: Vec<Place> = stack.frames.iter().rev().filter(|frame| frame.own).map(place_of).collect();
    if own.is_empty() {
        return location_of(stack).map(|at| (at.function, at.file, at.line)).into_iter().collect();
    }
    own
}

/// Returns where a report's work churns: in the function that most of the waits go through, at the line that took most of
/// the time.
pub(in crate::report) fn place(report: &Report) -> Option<Location> {
    let waiting = report.timeline.iter().enumerate().filter(|(_, share)| share.activity == Activity::Waiting);
    let all = waiting.filter_map(|(group, share)| {
        let path = path(report.stacks.get(share.stack?)?);
        let nanos = share.time.as_nanos() as u64;
        Some(Waits { group, path, waits: share.waits, nanos, longest: 0, gave_way: false })
    });
    let observed = report.elapsed.saturating_sub(report.unobserved).as_nanos() as u64;
    let (function, file, line) = narrow(&mut all.collect(), observed)?;
    Some(Location { function, file, line })
}

fn is_most(nanos: u64, observed: u64) -> bool {
    nanos > 0 && nanos.saturating_mul(SHARE) >= observed
}

/// Leaves the waits in the innermost function that most of the time went through. Returns where in it.
fn narrow(waits: &mut Vec<Waits>, observed: u64) -> Option<Place> {
    let is_most = |nanos| is_most(nanos, observed);
    let mut at = None;
    // From the outermost call inwards, as long as most of the time went through the same line ..
    for depth in 0.. {
        match heaviest(waits, |place| place, depth) {
            Some((line, nanos)) if is_most(nanos) => {
                waits.retain(|wait| wait.path.get(depth) == Some(&line));
                at = Some(line);
            }
            // .. and at last through the same function: a loop may wait at several of its lines.
            _ => {
                let function = |place: Place| (place.0, place.1, None);
                if let Some((of, nanos)) = heaviest(waits, function, depth)
                    && is_most(nanos)
                {
                    waits.retain(|wait| wait.path.get(depth).cloned().map(function).as_ref() == Some(&of));
                    at = heaviest(waits, |place| place, depth).map(|(line, _)| line);
                }
                break;
            }
        }
    }
    at
}

fn judge(mut waits: Vec<Waits>, observed: u64) -> Option<Churn> {
    narrow(&mut waits, observed)?;
    let count: u32 = waits.iter().fold(0, |sum, wait| sum.saturating_add(wait.waits));
    let nanos: u64 = waits.iter().map(|wait| wait.nanos).sum();
    let longest = waits.iter().map(|wait| wait.longest).max()?;
    let is_churn = count >= MIN_WAITS
        && is_most(nanos, observed)
        && longest <= nanos / LONGEST
        && count / waits.len() as u32 >= PER_PLACE;
    let Waits { group, gave_way, .. } = *waits.iter().max_by_key(|wait| wait.nanos)?;
    is_churn.then_some(Churn { group, waits: count, nanos, gave_way })
}

/// Returns the place at that depth that took the most time, and how long.
fn heaviest(waits: &[Waits], key: impl Fn(Place) -> Place, depth: usize) -> Option<(Place, u64)> {
    let mut times: Vec<(Place, u64)> = Vec::new();
    for wait in waits {
        let Some(place) = wait.path.get(depth).cloned().map(&key) else { continue };
        match times.iter_mut().find(|(known, _)| *known == place) {
            Some((_, nanos)) => *nanos += wait.nanos,
            None => times.push((place, wait.nanos)),
        }
    }
    times.into_iter().max_by_key(|(_, nanos)| *nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Waits at a line of `load`, called at a line of `handler`.
    fn at(handler: u32, load: u32, waits: u32, each: u64) -> Waits {
        let place = |function: &str, line| (Some(function.to_owned()), None, Some(line));
        let (path, nanos) = (vec![place("handler", handler), place("load", load)], u64::from(waits) * each);
        Waits { group: load as usize, path, waits, nanos, longest: 2 * each, gave_way: false }
    }

    fn judged(waits: impl IntoIterator<Item = Waits>, observed: u64) -> Option<(usize, u32, u64)> {
        let churn = judge(waits.into_iter().collect(), observed);
        churn.map(|churn| (churn.group, churn.waits, churn.nanos / MS))
    }

    /// Guards: a loop that waits at one or a few of its lines churns, from a number of waits on that is large.
    #[test]
    fn many_short_waits_churn() {
        assert_eq!(judged([at(1, 5, 1_000, MS)], 1_200 * MS), Some((5, 1_000, 1_000)));
        let two_lines = || [at(1, 5, 1_000, MS), at(1, 6, 1_000, 2 * MS)];
        assert_eq!(judged(two_lines(), 3_000 * MS), Some((6, 1_000, 2_000)), "the line that takes most of it");
        let even = [at(1, 5, 900, MS), at(1, 6, 1_000, MS), at(1, 7, 800, MS)];
        assert_eq!(judged(even, 2_800 * MS), Some((6, 2_700, 2_700)), "the function");
        assert_eq!(judged([at(1, 5, MIN_WAITS, MS)], 30 * MS), Some((5, 30, 30)));
        assert_eq!(judged([at(1, 5, MIN_WAITS - 1, MS)], 30 * MS), None, "these can be counted on one's fingers");
    }

    /// Guards: what takes less than half of the time is not why the work is slow.
    #[test]
    fn the_waits_take_most_of_the_time() {
        assert_eq!(judged([at(1, 5, 1_000, MS)], 2_001 * MS), None);
        let beside_one_long = [at(1, 5, 1_000, MS), Waits { longest: 1_500 * MS, ..at(2, 9, 1, 1_500 * MS) }];
        assert_eq!(judged(beside_one_long, 2_500 * MS), None);
        assert_eq!(judged([], 0), None);
        assert_eq!(judged([at(1, 5, 1_000, 0)], 0), None);
    }

    /// Guards: one long wait is the cause, however many short ones were at the same place.
    #[test]
    fn one_long_wait_is_no_churn() {
        let mut waits = at(1, 5, 1_000, MS);
        (waits.nanos, waits.longest) = (waits.nanos + 1_000 * MS, 1_000 * MS);
        assert_eq!(judged([waits], 2_000 * MS), None);
        assert_eq!(judged([at(1, 5, 1, 900 * MS)], 1_000 * MS), None);
    }

    /// Guards: work that waits once or twice at each of many places goes ahead.
    #[test]
    fn a_stream_of_different_places_is_no_churn() {
        let stream = (0..24).map(|line| at(1, line, 2, 40 * MS));
        assert_eq!(judged(stream, 2_000 * MS), None);
        let calls = (0..24).map(|line| at(line, line, 100, MS));
        assert!(judged(calls, 2_400 * MS).is_some(), "but not if it loops at each of them");
    }
}
