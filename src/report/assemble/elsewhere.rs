//! The stacks of other work, symbolized, until it is decided which of it may be the cause: see
//! [`cause`](super::cause).

use std::sync::Arc;
use std::time::Duration;

use super::blocking_pool::Pool;
use super::cause::can_be_held;
use super::route::job_name;
use super::{Assembler, report_id, rounded};
use crate::clock::Clock;
use crate::inflight::{Request, Stacks, Subject};
use crate::monitor::{self, ContentionEvidence, Evidence, HolderEvidence, OtherEvidence, OtherWork};
use crate::report::model::others::{Contended, Finding, Holder};
use crate::report::model::words::{Activity, StackKind};
use crate::report::model::{Location, Report, Stack};
use crate::report::usage::read_all;

/// How many stacks of other work are kept symbolized. Those who wait together have the same others.
pub(super) const MAX_RECENT: usize = 48;

/// What is known about other work.
#[derive(Debug, Clone, Default)]
pub(in crate::report) struct Elsewhere {
    pub(in crate::report) in_flight: u32,
    /// How many of them are at the same place, as far as that is known without names, and how long the first has been.
    pub(in crate::report) here: u32,
    pub(in crate::report) longest_here: Duration,
    pub(in crate::report) places: Vec<Place>,
    pub(in crate::report) resource: Option<Contended>,
    /// Those who hold it, with their stacks.
    pub(in crate::report) holders: Vec<(Holder, Vec<Stack>)>,
    /// What the blocking pool is busy with.
    pub(in crate::report) pool: Pool,
}

/// The other work at one place.
#[derive(Debug, Clone)]
pub(in crate::report) struct Place {
    pub(in crate::report) stacks: Vec<Stack>,
    pub(in crate::report) activity: Activity,
    pub(in crate::report) count: u32,
    /// How long the first of them has been there.
    pub(in crate::report) longest: Duration,
    pub(in crate::report) work: Vec<Work>,
}

/// One piece of other work.
#[derive(Debug, Clone)]
pub(in crate::report) struct Work {
    pub(in crate::report) id: String,
    pub(in crate::report) name: String,
    pub(in crate::report) elapsed: Duration,
    /// How long it has been where it is.
    pub(in crate::report) there: Duration,
    /// Where it was before.
    pub(in crate::report) earlier: Vec<Vec<Stack>>,
}

impl Elsewhere {
    /// Returns all stacks, to mark the application's own frames in.
    pub(in crate::report) fn stacks_mut(&mut self) -> impl Iterator<Item = &mut Stack> {
        let places = self.places.iter_mut().flat_map(|place| {
            let earlier = place.work.iter_mut().flat_map(|work| &mut work.earlier).flatten();
            place.stacks.iter_mut().chain(earlier)
        });
        places.chain(self.holders.iter_mut().flat_map(|(_, stacks)| stacks)).chain(self.pool.stacks_mut())
    }

    /// Returns everything in it that came from a request or from the application.
    pub(in crate::report) fn names_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let places = self.places.iter_mut().flat_map(|place| &mut place.work).map(|work| &mut work.name);
        let holders = self
            .holders
            .iter_mut()
            .flat_map(|(holder, _)| std::iter::once(&mut holder.work).chain(&mut holder.resource));
        places.chain(holders).chain(self.resource.as_mut().map(|resource| &mut resource.name))
    }
}

impl Assembler {
    /// Symbolizes other work, as far as it may keep the report's waiting.
    pub(super) fn elsewhere(&mut self, evidence: &Evidence, report: &Report) -> Elsewhere {
        let others = &evidence.others;
        // Debug information is large. What cannot be the cause is only counted.
        let relevant = if evidence.contention.is_none() && can_be_held(report) { &*others.places } else { &[] };
        self.learn_others(relevant, evidence.contention.as_ref());
        let places = relevant.iter().map(|other| self.place(other, evidence.moment)).collect();
        let contention = evidence.contention.as_ref();
        let holders = contention.into_iter().flat_map(|contention| &contention.holders);
        let holders = holders.map(|holder| self.holder(holder, evidence)).collect();
        Elsewhere {
            in_flight: others.count,
            here: others.here,
            longest_here: rounded(evidence.moment.saturating_sub(others.here_since)),
            places,
            resource: contention.map(contended),
            holders,
            pool: Pool::default(),
        }
    }

    fn learn_others(&mut self, places: &[OtherEvidence], contention: Option<&ContentionEvidence>) {
        let waits =
            places.iter().flat_map(|other| other.stacks.iter().chain(other.work.iter().flat_map(|work| &work.earlier)));
        let holders = contention.into_iter().flat_map(|contention| &contention.holders);
        let waits = waits.chain(holders.clone().filter_map(|holder| holder.stacks.as_ref()));
        let new = waits.filter(|stacks| !self.is_recent(stacks)).flat_map(|stacks| &stacks.list);
        let threads = places.iter().filter_map(|other| other.thread.as_ref());
        let threads = threads.chain(holders.filter_map(|holder| holder.thread.as_ref()));
        let snapshots: Vec<_> = new.chain(threads.filter_map(|thread| thread.snapshot.as_ref())).collect();
        let mut addresses = Vec::new();
        for snapshot in snapshots {
            addresses.extend(self.unwinder.unwind_with_tail_calls(snapshot).addresses);
        }
        self.symbols.learn(&addresses);
    }

    fn place(&mut self, other: &OtherEvidence, now: u64) -> Place {
        let (stacks, activity) = match (&other.thread, &other.stacks) {
            (Some(thread), _) => {
                (thread.snapshot.iter().map(|stack| self.stack(stack, StackKind::Thread)).collect(), Activity::Running)
            }
            (None, Some(stacks)) => (self.await_stacks(stacks), Activity::Waiting),
            (None, None) => (Vec::new(), Activity::Waiting),
        };
        let work = other.work.iter().map(|work| self.work(work, now)).collect();
        Place { stacks, activity, count: other.count, longest: rounded(now.saturating_sub(other.since)), work }
    }

    fn work(&mut self, work: &OtherWork, now: u64) -> Work {
        Work {
            id: report_id(work.id, work.started),
            name: name_of(&work.subject),
            elapsed: rounded(work.elapsed),
            there: rounded(now.saturating_sub(work.since)),
            earlier: work.earlier.iter().map(|stacks| self.await_stacks(stacks)).collect(),
        }
    }

    pub(super) fn is_recent(&self, stacks: &Arc<Stacks>) -> bool {
        self.recent.iter().any(|(known, _)| Arc::ptr_eq(known, stacks))
    }

    /// Symbolizes stacks, once for all reports that show them while they are kept.
    fn await_stacks(&mut self, stacks: &Arc<Stacks>) -> Vec<Stack> {
        if let Some(at) = self.recent.iter().position(|(known, _)| Arc::ptr_eq(known, stacks)) {
            return self.recent[at].1.clone();
        }
        let symbolized: Vec<Stack> =
            stacks.list.iter().rev().map(|snapshot| self.stack(snapshot, StackKind::Await)).collect();
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((Arc::clone(stacks), symbolized.clone()));
        symbolized
    }

    fn holder(&mut self, holder: &HolderEvidence, evidence: &Evidence) -> (Holder, Vec<Stack>) {
        let since = Clock::get().nanos(holder.entry.since);
        let mut described = Holder {
            resource: Some(holder.name.to_string()),
            held: Some(rounded(evidence.moment.saturating_sub(since))),
            taken_at: Some(asked_at(holder.entry.at)),
            ..Holder::default()
        };
        match (&holder.work, &holder.activity) {
            (Some(work), _) => {
                (described.id, described.elapsed) =
                    (Some(report_id(work.id, work.started)), Some(rounded(work.elapsed)));
                described.work = name_of(&work.subject);
            }
            (None, Some(thread)) if !thread.name.is_empty() => {
                described.work =
                    format!("work on the thread {} ({}), which heeler does not watch", thread.name, thread.tid);
            }
            (None, Some(_)) => described.work = "work on a thread that has ended".to_owned(),
            (None, None) => described.work = "work that has ended".to_owned(),
        }
        let stacks = match (&holder.thread, &holder.stacks) {
            (Some(thread), _) => {
                described.activity = Some(Activity::Running);
                thread.snapshot.iter().map(|stack| self.stack(stack, StackKind::Thread)).collect()
            }
            (None, Some(stacks)) => {
                described.activity = Some(Activity::Waiting);
                self.await_stacks(stacks)
            }
            (None, None) => Vec::new(),
        };
        (described, stacks)
    }
}

fn contended(evidence: &ContentionEvidence) -> Contended {
    let contention = &evidence.contention;
    Contended {
        name: evidence.name.to_string(),
        finding: match contention.finding {
            monitor::Finding::Held => Finding::Held,
            monitor::Finding::Deadlock => Finding::Deadlock,
            monitor::Finding::BehindDeadlock => Finding::BehindDeadlock,
            monitor::Finding::Itself => Finding::Itself,
            monitor::Finding::HandedOver => Finding::HandedOver,
            monitor::Finding::Unknown => Finding::Unknown,
        },
        certain: contention.is_certain(),
        usage: read_all(std::slice::from_ref(&evidence.usage)).pop().flatten(),
        holding: contention.holding,
        queue: contention.queue,
        asked_at: Some(asked_at(contention.wait.at)),
    }
}

fn asked_at(at: &std::panic::Location<'_>) -> Location {
    Location { function: None, file: Some(at.file().to_owned()), line: Some(at.line()) }
}

/// Returns `GET /users/4711`, or `the job "import"`. A query says nothing about a cause.
fn name_of(subject: &Subject) -> String {
    let request = |request: &Request| {
        let path = request.path.as_ref().map_or("/", |path| path.path());
        format!("{} {path}", request.method)
    };
    match subject {
        Subject::Request(own) => request(own),
        Subject::Job(job) => job_name(&job.name, job.origin.as_ref().map(|origin| request(&origin.request))),
        Subject::Child(child) => child.how.as_str().to_owned(),
        Subject::Timebox(timebox) => timebox.label().map_or_else(|| "a timebox".to_owned(), ToString::to_string),
        Subject::Nothing => "work that has ended".to_owned(),
    }
}
