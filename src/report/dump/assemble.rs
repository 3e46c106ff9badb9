//! Turns the evidence of a dump into a [`Dump`].

use std::collections::HashMap;
use std::time::Duration;

use super::groups::{Groups, Place};
use super::model::{DUMP_SCHEMA, Dump, DumpClaim, DumpKind, DumpResource, DumpState, DumpWork};
use crate::capture::{self, RowId};
use crate::inflight::{self, Usage, table};
use crate::monitor::{self, ClaimEvidence, DumpEvidence, Evidence, ResourceEvidence, State, What, WorkEvidence};
use crate::report::assemble::request::uri_of;
use crate::report::assemble::{Assembler, report_id, rounded};
use crate::report::privacy::MAX_THREAD;
use crate::report::runtimes::RuntimeHealth;
use crate::report::threads::ThreadDump;
use crate::report::usage::read_all;
use crate::report::{Location, ProcessInfo, Report, Reports};
use crate::text::units::{count, duration, were};

/// The most characters of a name: there may be very many.
const MAX_NAME: usize = 256;

impl Assembler {
    /// Makes a dump of its evidence.
    pub(super) fn dump(
        &mut self,
        evidence: DumpEvidence,
        mut threads: ThreadDump,
        mut runtimes: Vec<RuntimeHealth>,
    ) -> Dump {
        let shared = Reports::shared();
        let redactor = shared.redactor();
        threads.redact(redactor, MAX_THREAD);
        runtimes.iter_mut().for_each(|runtime| runtime.redact(redactor, MAX_THREAD));
        let places = self.places(evidence.places);
        let places: Vec<Place<'_>> = places.iter().map(Place::of).collect();
        let named: HashMap<RowId, Named> = evidence.work.iter().map(|work| (work.id, Named::of(work))).collect();
        let reads: Vec<_> = evidence.resources.iter().map(|resource| resource.usage.clone()).collect();
        let usages = read_all(&reads);
        let resources: Vec<DumpResource> =
            evidence.resources.iter().zip(usages).map(|(one, usage)| resource_of(one, usage, &named)).collect();
        let names = |all: &Vec<usize>| all.iter().map(|at| resources[*at].name.clone()).collect();
        let mut groups = Groups::default();
        let mut work: Vec<DumpWork> = Vec::with_capacity(evidence.work.len());
        for one in &evidence.work {
            let Some(name) = named.get(&one.id) else { continue };
            let [holds, awaits] = evidence
                .claims
                .get(&one.id)
                .map_or_else(Default::default, |[holds, awaits]| [names(holds), names(awaits)]);
            let described = described(one, name, &named);
            let (group, path) = groups.add(&described, one.place.and_then(|place| places.get(place)));
            work.push(DumpWork { group, path, holds, awaits, ..described });
        }
        let groups = groups.sorted(&mut work);
        let mut process = ProcessInfo::default();
        let stacks: Vec<_> =
            groups.iter().flat_map(|group| &group.paths).flat_map(|path| &path.stacks).take(1).cloned().collect();
        crate::report::complete(&mut process, &stacks);
        let deadlocks = evidence.deadlocks.iter().map(|ring| {
            ring.iter().filter_map(|work| named.get(work)).map(|named| named.id.clone()).collect::<Vec<_>>()
        });
        let notes = notes(!work.is_empty());
        Dump {
            schema: DUMP_SCHEMA,
            taken_at: evidence.taken,
            took: Duration::ZERO,
            process,
            in_flight: work.len() as u64 + evidence.omitted,
            groups,
            deadlocks: deadlocks.filter(|ring| !ring.is_empty()).collect(),
            work,
            resources,
            threads,
            runtimes,
            notes,
            omitted: evidence.omitted,
            unobserved: evidence.unobserved,
        }
    }

    /// Symbolizes the places: a report for each, as if it were about one piece of the work there.
    fn places(&mut self, places: Vec<Evidence>) -> Vec<Report> {
        self.refresh();
        self.learn_all(&places);
        let describe = |evidence: Evidence| {
            let reports = Reports::of(&evidence.reports);
            reports.describe(self.assemble(evidence))
        };
        places.into_iter().map(describe).collect()
    }
}

/// How long the monitor may rest. It turns every second.
const LATE: Duration = Duration::from_secs(5);

/// Returns what limits a dump, and what heeler does about slow work meanwhile.
fn notes(is_needed: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let unwatched = table().unwatched();
    if unwatched > 0 {
        notes.push(format!(
            "{} of work found no room in the table so far, and {} not watched",
            count(unwatched, "piece"),
            were(unwatched)
        ));
    }
    let monitor = monitor::metrics();
    if !monitor.running && is_needed {
        notes.push("the monitor does not run: nothing is reported, and no timebox expires".to_owned());
    } else if monitor.running && monitor.heartbeat_age > LATE {
        let age = duration(monitor.heartbeat_age);
        notes.push(format!("the monitor has not turned for {age}: nothing is reported, and no timebox expires"));
    }
    notes
}

/// What a piece of work is called, as far as that may be shown.
struct Named {
    id: String,
    /// `GET /photos/7`, `import`
    name: String,
    /// `GET /photos/7`, `the job "import"`
    in_sentence: String,
}

impl Named {
    fn of(work: &WorkEvidence) -> Self {
        let reports = Reports::of(&work.reports);
        let redactor = reports.redactor();
        let name = match &work.what {
            What::Request(request) => {
                let method = redactor.text(request.method.as_str(), MAX_NAME);
                format!("{method} {}", redactor.uri_of(&uri_of(request), MAX_NAME))
            }
            What::Job(name) => redactor.text(name, MAX_NAME),
            What::Child(how) => how.as_str().to_owned(),
            What::Timebox(Some(label)) => redactor.text(label, MAX_NAME),
            What::Timebox(None) => "a timebox".to_owned(),
        };
        let in_sentence = match &work.what {
            What::Request(_) | What::Timebox(None) => name.clone(),
            What::Job(_) => format!("the job \"{name}\""),
            What::Child(_) => format!("work of `{name}`"),
            What::Timebox(Some(_)) => format!("the timebox \"{name}\""),
        };
        Self { id: report_id(work.id, work.started.unwrap_or_default()), name, in_sentence }
    }
}

fn described(work: &WorkEvidence, of: &Named, named: &HashMap<RowId, Named>) -> DumpWork {
    let reports = Reports::of(&work.reports);
    let request: Option<&inflight::Request> = match &work.what {
        What::Request(request) => Some(request),
        _ => None,
    };
    DumpWork {
        id: of.id.clone(),
        kind: match &work.what {
            What::Request(_) if work.is_body => DumpKind::Body,
            What::Request(_) => DumpKind::Request,
            What::Job(_) => DumpKind::Job,
            What::Child(_) => DumpKind::Child,
            What::Timebox(_) => DumpKind::Timebox,
        },
        name: of.name.clone(),
        method: request.map(|request| reports.redactor().text(request.method.as_str(), MAX_NAME)),
        route: request.and_then(|request| request.route()).map(|route| reports.redactor().uri_of(route, MAX_NAME)),
        parent: work.parent.and_then(|parent| named.get(&parent)).map(|named| named.id.clone()),
        elapsed: rounded(work.elapsed),
        threshold: (work.threshold != u64::MAX).then(|| rounded(work.threshold)),
        left: work.left.map(rounded),
        state: state_of(work.state),
        there: work.there.map(rounded),
        polls: work.polls,
        group: 0,
        path: None,
        holds: Vec::new(),
        awaits: Vec::new(),
    }
}

const fn state_of(state: State) -> DumpState {
    match state {
        State::Waiting => DumpState::Waiting,
        State::Yielding => DumpState::Yielding,
        State::NoWaker => DumpState::NoWaker,
        State::Running => DumpState::Running,
        State::Blocked => DumpState::Blocked,
        State::Polled => DumpState::Polled,
        State::Woken => DumpState::Woken,
        State::New => DumpState::New,
        State::Unknown => DumpState::Unknown,
    }
}

fn resource_of(resource: &ResourceEvidence, usage: Option<Usage>, named: &HashMap<RowId, Named>) -> DumpResource {
    let claim = |claim: &ClaimEvidence| claim_of(claim, named);
    DumpResource {
        name: Reports::shared().redactor().text(&resource.name, MAX_NAME),
        certain: resource.is_certain,
        usage,
        holders: resource.holders.iter().map(claim).collect(),
        waiters: resource.waiters.iter().map(claim).collect(),
        more_holders: resource.more_holders,
        more_waiters: resource.more_waiters,
        deadlock: resource.in_deadlock,
    }
}

fn claim_of(claim: &ClaimEvidence, named: &HashMap<RowId, Named>) -> DumpClaim {
    let known = named.get(&claim.work);
    let thread = || match claim.thread.map(capture::look) {
        Some(activity) if !activity.name.is_empty() => {
            format!("the thread {} ({})", activity.tid, crate::text::escape(&activity.name, 64))
        }
        _ => "work that has ended".to_owned(),
    };
    DumpClaim {
        id: known.map(|named| named.id.clone()),
        work: known.map_or_else(thread, |named| named.in_sentence.clone()),
        at: Location::new(None, Some(claim.at.file().to_owned()), Some(claim.at.line())),
        time: rounded(claim.time),
    }
}
