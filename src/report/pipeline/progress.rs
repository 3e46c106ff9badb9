//! Whether a request that is looked at again is still where it was.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use super::fingerprint::current_places;
use crate::monitor::Verdict;
use crate::report::assemble::location::place;
use crate::report::model::{Location, Report};
use crate::text::units::duration;

/// How many requests are remembered; the oldest are forgotten first.
const MAX_REQUESTS: usize = 4096;

/// Where each reported request was last seen.
#[derive(Debug, Default)]
pub(in crate::report) struct Progress {
    seen: HashMap<String, Seen>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Seen {
    verdict: Verdict,
    elapsed: Duration,
    /// Where it was. `None` for *starved*, too, because then the location is that of other work.
    place: Option<Location>,
    /// A hash of the application's own frames in all current stacks. Only a hash, because thousands of requests are
    /// remembered.
    frames: u64,
}

impl Progress {
    /// Fills in the place of an update that could not find out where the request is, if an earlier report knew. So an
    /// update never says less than the report before it.
    pub(in crate::report) fn keep_place(&self, report: &mut Report) {
        if report.update > 0 && report.verdict == Verdict::Unknown && report.location.is_none() {
            report.location = self.seen.get(&report.id).and_then(|seen| seen.place.clone());
        }
    }

    /// Remembers where the request is. If it was seen before, returns a note that compares. The report must be complete
    /// except for this note.
    pub(in crate::report) fn note(&mut self, report: &Report) -> Option<String> {
        let now = Seen {
            verdict: report.verdict,
            elapsed: report.elapsed,
            place: report.location.clone().filter(|_| !matches!(report.verdict, Verdict::Starved | Verdict::Unknown)),
            frames: hash_of_frames(report),
        };
        let before = self.seen.get(&report.id).filter(|_| report.update > 0);
        let note = before.and_then(|before| before.compared_with(&now));
        if now.verdict == Verdict::Unknown && before.is_some_and(|before| before.place.is_some()) {
            // The next one wants to know that, too.
            return note;
        }
        if self.seen.insert(report.id.clone(), now).is_none() {
            self.order.push_back(report.id.clone());
            if self.order.len() > MAX_REQUESTS
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
        note
    }
}

fn hash_of_frames(report: &Report) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &report.location {
        // Which line of the loop takes most of the time differs from moment to moment.
        Some(place) if report.verdict == Verdict::Churning => place.function.hash(&mut hasher),
        _ => current_places(report).hash(&mut hasher),
    }
    hasher.finish()
}

impl Seen {
    /// Returns the note that compares `self`, the earlier state, with `now`.
    fn compared_with(&self, now: &Self) -> Option<String> {
        let then = format!("{} after its start", duration(self.elapsed));
        let state = state(self.verdict);
        match (&self.place, &now.place) {
            (Some(_), Some(_)) if self.verdict == now.verdict && self.frames == now.frames => {
                Some(format!("at the same place as {then}"))
            }
            // A running poll and a wait have stacks of different kinds, of which only the place can be compared.
            (Some(before), Some(here)) if self.verdict != now.verdict && before == here => {
                Some(format!("at the same place as {then}, then {state}"))
            }
            (Some(before), Some(here)) if self.verdict == now.verdict && before == here => {
                Some(format!("it moves: at the same place as {then}, but reached another way, or with other branches"))
            }
            (Some(before), Some(_)) => Some(format!("it moves: {then} it was in {}", place(before))),
            (Some(before), None) => Some(format!("{then} it was {state}, in {}", place(before))),
            (None, _) if self.verdict == now.verdict => None,
            (None, _) => Some(format!("{then} it was {state}")),
        }
    }
}

/// Describes a request with this verdict.
const fn state(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Waiting => "waiting",
        Verdict::Churning => "churning",
        Verdict::Blocking => "blocking its thread",
        Verdict::Starved => "starved",
        Verdict::Throttled => "denied the CPU",
        Verdict::Yielding => "yielding",
        Verdict::NoWaker => "pending without a waker",
        Verdict::Abandoned => "abandoned",
        Verdict::Interrupted => "interrupted",
        Verdict::Unknown => "at a place that could not be captured",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, own, report, thread_stack};

    /// Returns the note of the second report, made after the first.
    fn compared(first: Report, second: Report) -> Option<String> {
        let mut progress = Progress::default();
        assert_eq!(progress.note(&first), None, "nothing to compare with");
        progress.note(&Report { update: 1, elapsed: Duration::from_secs(5), ..second })
    }

    /// A report of a request in `own` frames, the first of which is its location.
    fn at(verdict: Verdict, lines: &[u32]) -> Report {
        let frames: Vec<_> = lines.iter().map(|line| own("app::page", *line)).collect();
        let stack = if verdict == Verdict::Blocking { thread_stack(&frames) } else { await_stack(&frames) };
        let mut report = Report { verdict, stacks: vec![stack], ..report() };
        report.location = crate::report::assemble::location::locate(&report);
        report
    }

    /// Guards: an update says whether the request is stuck or moving.
    #[test]
    fn updates_say_whether_work_moves() {
        let waiting = || at(Verdict::Waiting, &[7, 9]);
        let same = "at the same place as 2.51 s after its start";
        assert_eq!(compared(waiting(), waiting()).unwrap(), same);
        let moved = "it moves: 2.51 s after its start it was in app::page at src/app.rs:7";
        assert_eq!(compared(waiting(), at(Verdict::Waiting, &[8, 9])).unwrap(), moved);
        let again = format!("it moves: {same}, but reached another way, or with other branches");
        assert_eq!(compared(waiting(), at(Verdict::Waiting, &[7, 10])).unwrap(), again, "called from elsewhere");
        assert_eq!(compared(waiting(), at(Verdict::Blocking, &[8, 9])).unwrap(), moved);
        let loops = (at(Verdict::Blocking, &[7]), at(Verdict::Blocking, &[8]));
        assert_eq!(compared(loops.0, loops.1).unwrap(), same, "a loop that is caught at another line");
    }

    /// Guards: a different verdict, or a different reason to look, doesn't count as a different place.
    #[test]
    fn another_verdict_is_not_a_move() {
        let (waiting, blocking) = (at(Verdict::Waiting, &[7, 9]), at(Verdict::Blocking, &[7, 9]));
        let same = "at the same place as 2.51 s after its start";
        assert_eq!(compared(waiting.clone(), blocking).unwrap(), format!("{same}, then waiting"));
        let mut sooner = waiting.clone();
        sooner.kind = crate::report::Kind::BlockingPoll;
        assert_eq!(compared(sooner, waiting).unwrap(), same);
    }

    /// Guards: an update that could not see where the request is says where it was, and so does the one after that.
    #[test]
    fn an_update_never_says_less() {
        let mut progress = Progress::default();
        let first = at(Verdict::Waiting, &[7, 9]);
        progress.note(&first);
        for update in 1..3 {
            let mut lost = Report { update, elapsed: Duration::from_secs(5), ..at(Verdict::Unknown, &[]) };
            progress.keep_place(&mut lost);
            assert_eq!(lost.location, first.location);
            let was = "2.51 s after its start it was waiting, in app::page at src/app.rs:7";
            assert_eq!(progress.note(&lost).unwrap(), was);
            lost.stacks.clear();
            assert!(lost.sentence().contains(", last seen in app::page at src/app.rs:7, and where it is"), "{lost}");
        }
        let mut found = Report { update: 3, ..at(Verdict::Waiting, &[8]) };
        progress.keep_place(&mut found);
        assert_eq!(
            progress.note(&found).unwrap(),
            "it moves: 2.51 s after its start it was in app::page at src/app.rs:7"
        );
        let mut another = Report { id: "another".to_owned(), update: 1, ..at(Verdict::Unknown, &[]) };
        progress.keep_place(&mut another);
        assert_eq!(another.location, None);
    }

    /// Guards: work without a known place isn't taken to be at the same one, and a starved request isn't taken to be
    /// where other work holds its worker.
    #[test]
    fn work_without_a_place_is_not_compared() {
        let nowhere = |verdict| at(verdict, &[]);
        assert_eq!(compared(nowhere(Verdict::Waiting), nowhere(Verdict::Waiting)), None);
        assert_eq!(compared(nowhere(Verdict::Unknown), nowhere(Verdict::Unknown)), None);
        let starved = || Report { location: at(Verdict::Waiting, &[7]).location, ..nowhere(Verdict::Starved) };
        assert_eq!(compared(starved(), starved()), None);
        let waiting = || at(Verdict::Waiting, &[7]);
        assert_eq!(compared(starved(), waiting()).unwrap(), "2.51 s after its start it was starved");
        let was = "2.51 s after its start it was waiting, in app::page at src/app.rs:7";
        assert_eq!(compared(waiting(), starved()).unwrap(), was);
    }

    #[test]
    fn remembers_only_so_many_requests() {
        let mut progress = Progress::default();
        let mut seen = report();
        for id in 0..2 * MAX_REQUESTS {
            seen.id = id.to_string();
            progress.note(&seen);
        }
        assert_eq!((progress.seen.len(), progress.order.len()), (MAX_REQUESTS, MAX_REQUESTS));
    }
}
