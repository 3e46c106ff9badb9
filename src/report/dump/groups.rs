//! Groups work that does the same at the same place.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use super::model::{DumpGroup, DumpPath, DumpState, DumpWork};
use crate::report::Report;
use crate::report::assemble::route::route_of;
use crate::report::pipeline::fingerprint::current_places;

/// At most this many paths, those of the largest groups, keep their stacks. The others have their place alone.
const MAX_STACKS: usize = 256;
/// The paths of one group.
const MAX_PATHS: usize = 16;
/// The routes of a group that are named.
const MAX_ROUTES: usize = 8;

/// What makes a group.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    state: DumpState,
    awaiting: Option<String>,
    location: Option<(Option<String>, Option<String>, Option<u32>)>,
}

/// Where some work is.
pub(super) struct Place<'a> {
    report: &'a Report,
    /// A hash of the application's own calls that lead there.
    path: u64,
}

impl<'a> Place<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let mut hasher = DefaultHasher::new();
        current_places(report).hash(&mut hasher);
        Self { report, path: hasher.finish() }
    }
}

/// A group that grows.
struct Group<'a> {
    group: DumpGroup,
    routes: HashMap<String, u64>,
    /// How many came by each path, and a report of one of them.
    paths: Vec<(u64, &'a Report)>,
    by_path: HashMap<u64, usize>,
}

/// The groups of a dump, as they grow.
#[derive(Default)]
pub(super) struct Groups<'a> {
    all: Vec<Group<'a>>,
    by_key: HashMap<Key, usize>,
}

impl<'a> Groups<'a> {
    /// Adds work to its group, and returns the indices of that and of its path.
    pub(super) fn add(&mut self, work: &DumpWork, place: Option<&Place<'a>>) -> (usize, Option<usize>) {
        let report = place.map(|place| place.report);
        let location = report.and_then(|report| report.location.clone());
        let key = Key {
            state: work.state,
            awaiting: report.and_then(|report| report.awaiting.clone()),
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
                    paths: Vec::new(),
                };
                let (routes, by_path) = (HashMap::new(), HashMap::new());
                self.all.push(Group { group, routes, paths: Vec::new(), by_path });
                self.by_key.insert(key, at);
                at
            }
        };
        let Group { group, routes, paths, by_path } = &mut self.all[at];
        group.count += 1;
        group.oldest = group.oldest.max(work.elapsed);
        *routes.entry(route_of_work(work)).or_default() += 1;
        let path = place.filter(|place| !place.report.stacks.is_empty()).map(|place| {
            let path = *by_path.entry(place.path).or_insert_with(|| {
                paths.push((0, place.report));
                paths.len() - 1
            });
            paths[path].0 += 1;
            path
        });
        (at, path)
    }

    /// Returns the groups, the largest first, and lets the work refer to them.
    pub(super) fn sorted(self, work: &mut [DumpWork]) -> Vec<DumpGroup> {
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|at| {
            let group = &self.all[*at].group;
            (std::cmp::Reverse(group.count), std::cmp::Reverse(group.oldest))
        });
        let mut places = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            places[*old] = new;
        }
        let mut all: Vec<_> = self.all.into_iter().map(Some).collect();
        let mut left = MAX_STACKS;
        let mut sorted = Vec::with_capacity(order.len());
        let mut paths_of = vec![Vec::new(); order.len()];
        for (new, old) in order.into_iter().enumerate() {
            let Some(Group { mut group, routes, paths, .. }) = all[old].take() else { continue };
            (group.paths, paths_of[new]) = sorted_paths(&paths, left.min(MAX_PATHS));
            left -= group.paths.len();
            group.routes = routes.into_iter().collect();
            group.routes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
            group.routes.truncate(MAX_ROUTES);
            sorted.push(group);
        }
        for work in work {
            work.group = places[work.group];
            work.path = work.path.and_then(|path| paths_of[work.group][path]);
        }
        sorted
    }
}

/// Returns the paths, the most frequent first, and for each its new index, unless there are too many.
fn sorted_paths(paths: &[(u64, &Report)], most: usize) -> (Vec<DumpPath>, Vec<Option<usize>>) {
    let mut order: Vec<usize> = (0..paths.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(paths[*at].0));
    order.truncate(most);
    let mut indices = vec![None; paths.len()];
    let path = |(new, old): (usize, &usize)| {
        indices[*old] = Some(new);
        let (count, report) = paths[*old];
        DumpPath { count, stacks: report.stacks.clone() }
    };
    (order.iter().enumerate().map(path).collect(), indices)
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
