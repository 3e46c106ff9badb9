//! Turns the evidence of a dump into a [`Dump`].

use std::collections::HashMap;
use std::time::Duration;

use super::model::{DUMP_SCHEMA, Dump, DumpClaim, DumpGroup, DumpKind, DumpResource, DumpState, DumpWork};
use crate::capture::{self, RowId};
use crate::inflight::{self, Usage, table};
use crate::monitor::{self, ClaimEvidence, DumpEvidence, Evidence, ResourceEvidence, State, What, WorkEvidence};
use crate::report::assemble::request::uri_of;
use crate::report::assemble::route::route_of;
use crate::report::assemble::{Assembler, report_id, rounded};
use crate::report::privacy::MAX_THREAD;
use crate::report::runtimes::RuntimeHealth;
use crate::report::threads::ThreadDump;
use crate::report::usage::read_all;
use crate::report::{Location, ProcessInfo, Report, Reports};
use crate::text::units::{count, duration, were};

/// At most this many groups, the largest, keep their stacks. The others have their place alone.
const MAX_STACKS: usize = 256;
/// The routes of a group that are named.
const MAX_ROUTES: usize = 8;
/// The most characters of a name: there may be very many.
const MAX_NAME: usize = 256;

/// What makes a group.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    state: DumpState,
    awaiting: Option<String>,
    location: Option<(Option<String>, Option<String>, Option<u32>)>,
}

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
        let named: HashMap<RowId, (String, String)> =
            evidence.work.iter().map(|work| (work.id, (id_of(work), name_of(work)))).collect();
        let reads: Vec<_> = evidence.resources.iter().map(|resource| resource.usage.clone()).collect();
        let usages = read_all(&reads);
        let resources: Vec<DumpResource> =
            evidence.resources.iter().zip(usages).map(|(one, usage)| resource_of(one, usage, &named)).collect();
        let names = |all: &Vec<usize>| all.iter().map(|at| resources[*at].name.clone()).collect();
        let mut groups = Groups::default();
        let mut work: Vec<DumpWork> = Vec::with_capacity(evidence.work.len());
        for one in &evidence.work {
            let Some((id, name)) = named.get(&one.id).cloned() else { continue };
            let [holds, awaits] = evidence
                .claims
                .get(&one.id)
                .map_or_else(Default::default, |[holds, awaits]| [names(holds), names(awaits)]);
            let described = described(one, (id, name), &named);
            let group = groups.add(&described, one.place.and_then(|place| places.get(place)));
            work.push(DumpWork { group, holds, awaits, ..described });
        }
        let groups = groups.sorted(&mut work);
        let mut process = ProcessInfo::default();
        let stacks: Vec<_> = groups.iter().flat_map(|group| &group.stacks).take(1).cloned().collect();
        crate::report::complete(&mut process, &stacks);
        let deadlocks = evidence
            .deadlocks
            .iter()
            .map(|ring| ring.iter().filter_map(|work| named.get(work)).map(|(id, _)| id.clone()).collect::<Vec<_>>());
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

/// A group that grows.
struct Group<'a> {
    group: DumpGroup,
    routes: HashMap<String, u64>,
    place: Option<&'a Report>,
}

#[derive(Default)]
struct Groups<'a> {
    all: Vec<Group<'a>>,
    by_key: HashMap<Key, usize>,
}

impl<'a> Groups<'a> {
    /// Adds work to its group, and returns the index of that.
    fn add(&mut self, work: &DumpWork, place: Option<&'a Report>) -> usize {
        let location = place.and_then(|place| place.location.clone());
        let key = Key {
            state: work.state,
            awaiting: place.and_then(|place| place.awaiting.clone()),
            location: location.clone().map(|at| (at.function, at.file, at.line)),
        };
        let at = match self.by_key.get(&key) {
            Some(at) => *at,
            None => {
                let at = self.all.len();
                let group = DumpGroup {
                    count: 0,
                    state: work.state,
                    awaiting: key.awaiting.clone(),
                    location,
                    oldest: Duration::ZERO,
                    routes: Vec::new(),
                    stacks: Vec::new(),
                };
                self.all.push(Group { group, routes: HashMap::new(), place });
                self.by_key.insert(key, at);
                at
            }
        };
        let Group { group, routes, .. } = &mut self.all[at];
        group.count += 1;
        group.oldest = group.oldest.max(work.elapsed);
        *routes.entry(route_of_work(work)).or_default() += 1;
        at
    }

    /// Returns the groups, the largest first, and lets the work refer to them.
    fn sorted(self, work: &mut [DumpWork]) -> Vec<DumpGroup> {
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|at| {
            let group = &self.all[*at].group;
            (std::cmp::Reverse(group.count), std::cmp::Reverse(group.oldest))
        });
        let mut places = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            places[*old] = new;
        }
        for work in work {
            work.group = places[work.group];
        }
        let mut all: Vec<_> = self.all.into_iter().map(Some).collect();
        let finish = |(at, Group { mut group, routes, place }): (usize, Group<'_>)| {
            if at < MAX_STACKS {
                group.stacks = place.map(|place| place.stacks.clone()).unwrap_or_default();
            }
            group.routes = routes.into_iter().collect();
            group.routes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
            group.routes.truncate(MAX_ROUTES);
            group
        };
        order.into_iter().filter_map(|at| all[at].take()).enumerate().map(finish).collect()
    }
}

/// Returns `GET /users/{id}`, or the name of a job.
fn route_of_work(work: &DumpWork) -> String {
    match (&work.method, &work.route) {
        (Some(method), Some(route)) => format!("{method} {route}"),
        (Some(method), None) => {
            let path = work.name.split_once(' ').map_or("/", |(_, path)| path);
            format!("{method} {}", route_of(path.split('?').next().unwrap_or_default()))
        }
        (None, _) => work.name.clone(),
    }
}

fn id_of(work: &WorkEvidence) -> String {
    report_id(work.id, work.started.unwrap_or_default())
}

/// Returns what the work is called, as far as that may be shown.
fn name_of(work: &WorkEvidence) -> String {
    let reports = Reports::of(&work.reports);
    let redactor = reports.redactor();
    match &work.what {
        What::Request(request) => {
            format!(
                "{} {}",
                redactor.text(request.method.as_str(), MAX_NAME),
                redactor.uri_of(&uri_of(request), MAX_NAME)
            )
        }
        What::Job(name) => redactor.text(name, MAX_NAME),
        What::Child(how) => how.as_str().to_owned(),
        What::Timebox(Some(label)) => redactor.text(label, MAX_NAME),
        What::Timebox(None) => "a timebox".to_owned(),
    }
}

fn described(work: &WorkEvidence, (id, name): (String, String), named: &HashMap<RowId, (String, String)>) -> DumpWork {
    let reports = Reports::of(&work.reports);
    let request: Option<&inflight::Request> = match &work.what {
        What::Request(request) => Some(request),
        _ => None,
    };
    DumpWork {
        id,
        kind: match &work.what {
            What::Request(_) if work.is_body => DumpKind::Body,
            What::Request(_) => DumpKind::Request,
            What::Job(_) => DumpKind::Job,
            What::Child(_) => DumpKind::Child,
            What::Timebox(_) => DumpKind::Timebox,
        },
        name,
        method: request.map(|request| reports.redactor().text(request.method.as_str(), MAX_NAME)),
        route: request.and_then(|request| request.route()).map(|route| reports.redactor().uri_of(route, MAX_NAME)),
        parent: work.parent.and_then(|parent| named.get(&parent)).map(|(id, _)| id.clone()),
        elapsed: rounded(work.elapsed),
        threshold: (work.threshold != u64::MAX).then(|| rounded(work.threshold)),
        left: work.left.map(rounded),
        state: state_of(work.state),
        there: work.there.map(rounded),
        polls: work.polls,
        group: 0,
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

fn resource_of(
    resource: &ResourceEvidence,
    usage: Option<Usage>,
    named: &HashMap<RowId, (String, String)>,
) -> DumpResource {
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

fn claim_of(claim: &ClaimEvidence, named: &HashMap<RowId, (String, String)>) -> DumpClaim {
    let known = named.get(&claim.work);
    let thread = || match claim.thread.map(capture::look) {
        Some(activity) if !activity.name.is_empty() => {
            format!("the thread {} ({})", activity.tid, crate::text::escape(&activity.name, 64))
        }
        _ => "work that has ended".to_owned(),
    };
    DumpClaim {
        id: known.map(|(id, _)| id.clone()),
        work: known.map_or_else(thread, |(_, name)| name.clone()),
        at: Location::new(None, Some(claim.at.file().to_owned()), Some(claim.at.line())),
        time: rounded(claim.time),
    }
}
