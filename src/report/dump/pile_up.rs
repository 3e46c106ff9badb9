//! Pile-ups: many requests on one route, or at one place, before any of them is slow.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::take::cheap_dump;
use crate::capture::{PerProcess, sys};
use crate::inflight::{Policy, Row, flags, table};
use crate::log::log_safely;
use crate::report::assemble::request::uri_of;
use crate::report::assemble::route::route_of;
use crate::report::dump::{DumpGroup, DumpKind, DumpWork};
use crate::report::{Location, Reports};
use crate::sync::lock_std;

/// How often requests are counted.
const PERIOD: Duration = Duration::from_millis(250);
/// Counting takes a hundredth of a core at most, unless it would pause for longer than this.
const COST_FACTOR: u32 = 100;
const LONGEST: Duration = Duration::from_secs(5);
/// How often places are looked at, while there are enough requests for a pile-up, and how soon after one report the next may
/// come.
const LOOK: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_secs(60);

/// A layer that wants to know of pile-ups.
#[derive(Clone, Copy)]
struct Wanted {
    policy: &'static Policy,
    limit: usize,
}

/// What is known of one of them.
#[derive(Default)]
struct Pile {
    /// What has been reported and has not gone since.
    up: Option<On>,
    reported: Option<Instant>,
    looked: Option<Instant>,
}

/// On what requests pile up.
#[derive(PartialEq, Eq)]
enum On {
    Route(String),
    Place(Location),
}

#[derive(Default)]
struct Piles {
    all: Vec<Wanted>,
    has_thread: bool,
}

static PILES: PerProcess<Mutex<Piles>> = PerProcess::new(Mutex::default);

/// Reports when `limit` requests of that layer are in flight on one route, or at one place.
pub(crate) fn expect_pile_up(policy: &'static Policy, limit: usize) {
    let mut piles = lock_std(PILES.get());
    piles.all.push(Wanted { policy, limit });
    if piles.has_thread {
        return;
    }
    let started = std::thread::Builder::new().name("heeler-pile-up".into()).spawn(|| {
        sys::block_signals();
        let mut known: Vec<Pile> = Vec::new();
        loop {
            // What a dump takes is no part of it.
            let mut counting = Duration::ZERO;
            // Whoever adds a layer waits for this lock.
            let all = lock_std(PILES.get()).all.clone();
            known.resize_with(all.len(), Pile::default);
            for (wanted, pile) in all.iter().zip(&mut known) {
                let began = Instant::now();
                let found = pile.look(wanted, &rows_of(wanted));
                counting += began.elapsed();
                let Some((on, reason)) = found else { continue };
                (pile.up, pile.reported) = (Some(on), Some(Instant::now()));
                let reports = Reports::of(&wanted.policy.reports);
                // A sink is other people's code.
                if catch_unwind(AssertUnwindSafe(|| reports.blocking_dump(&reason))).is_err() {
                    log_safely(|| tracing::error!(target: "heeler", "a dump is lost: it has panicked"));
                }
            }
            std::thread::sleep(PERIOD.max(counting * COST_FACTOR).min(LONGEST));
        }
    });
    match started {
        Ok(_) => piles.has_thread = true,
        Err(error) => {
            log_safely(
                || tracing::error!(target: "heeler", %error, "pile-ups are not seen: no thread could be started"),
            );
        }
    }
}

/// Returns the requests of the layer. Their bodies, jobs and child work are not counted.
fn rows_of(wanted: &Wanted) -> Vec<&'static Row> {
    let is_of = |row: &&'static Row| {
        let kinds = flags::REQUEST | flags::UNLISTED | flags::BODY;
        row.live().is_some_and(|(_, flags)| flags & kinds == flags::REQUEST) && row.policy() == wanted.policy.id
    };
    table().rows().filter(is_of).collect()
}

impl Pile {
    /// Returns on what requests pile up, and the reason to report it, if that is news.
    fn look(&mut self, wanted: &Wanted, rows: &[&'static Row]) -> Option<(On, String)> {
        let limit = wanted.limit;
        if rows.len() < limit / 2 {
            self.up = None;
        }
        if rows.len() < limit || self.reported.is_some_and(|reported| reported.elapsed() <= AGAIN) {
            return None;
        }
        let found = on_a_route(rows, limit).or_else(|| self.at_a_place(limit));
        // What goes on is no news. Something else may have come meanwhile.
        found.filter(|(on, _)| self.up.as_ref() != Some(on))
    }

    /// Returns the place where enough of what is in flight is.
    fn at_a_place(&mut self, limit: usize) -> Option<(On, String)> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return None;
        }
        self.looked = Some(Instant::now());
        let dump = cheap_dump();
        let is_request = |work: &&DumpWork| work.kind == DumpKind::Request;
        let mut counts = vec![0_u64; dump.groups.len()];
        dump.work.iter().filter(is_request).for_each(|work| counts[work.group] += 1);
        let is_pile = |(_, count): &(&DumpGroup, u64)| *count >= limit as u64;
        let mut piles = dump.groups.iter().zip(counts).filter(is_pile);
        let (group, location, count) =
            piles.find_map(|(group, count)| Some((group, group.location.clone()?, count)))?;
        let reason = format!("a pile-up: {count} requests are {} (limit {limit})", group.says());
        Some((On::Place(location), reason))
    }
}

/// Returns the route that enough requests are on.
fn on_a_route(rows: &[&'static Row], limit: usize) -> Option<(On, String)> {
    let mut routes: HashMap<String, usize> = HashMap::new();
    for row in rows {
        let Some((id, _)) = row.live() else { continue };
        let Some(details) = row.details(id) else { continue };
        let request = details.request.copy();
        drop(details);
        let route = request.route().map_or_else(|| route_of(&uri_of(&request)), str::to_owned);
        *routes.entry(format!("{} {route}", request.method)).or_default() += 1;
    }
    let (route, many) = routes.into_iter().max_by_key(|(_, many)| *many).filter(|(_, many)| *many >= limit)?;
    let reason = format!("a pile-up: {many} requests are on {route} (limit {limit})");
    Some((On::Route(route), reason))
}
