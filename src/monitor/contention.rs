//! What work waits for by name, who holds it, and whether anything can end the wait: read from the entries that
//! [`acquire`](crate::acquire()) leaves.
//!
//! ```text
//! a wait ── on what is held ──▶ its holders
//!    └───── as a reader ──────▶ its exclusive holders, and those who queued for exclusive use before
//! ```
//!
//! Work is *stuck* if all that it waits for is held only by stuck work. That is a deadlock, if the resources' identities
//! are known: a bare name may stand for many locks.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::capture::RowId;
use crate::inflight::ResourceId;
use crate::inflight::resources::{Entry, Mode, Snapshot};

/// At most this many holders and members of a cycle are reported.
const MAX_HOLDERS: usize = 8;
/// At most this much stuck work is searched for deadlocks at a time.
const MAX_STUCK: usize = 256;

/// What the entries say about one wait.
#[derive(Debug, Clone)]
pub(crate) struct Contention {
    pub(crate) wait: Entry,
    pub(crate) finding: Finding,
    /// Those who keep it waiting, longest first. If it is a deadlock, these are its other members.
    pub(crate) holders: Vec<Entry>,
    /// How many there are, and how many of them are listed.
    pub(crate) holding: u32,
    /// How many others wait for the same.
    pub(crate) queue: u32,
    /// If it cannot end by itself: the work that cannot move on.
    pub(super) members: Vec<Member>,
}

/// Why the wait does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It is held.
    Held,
    /// It is held by work that in turn waits for what this work holds.
    Deadlock,
    /// It is held by members of a deadlock that this work is not in.
    BehindDeadlock,
    /// This work holds it itself.
    Itself,
    /// It is free, and the next in line is a future of the same work that is not polled any more.
    HandedOver,
    /// Nobody is known to hold it.
    Unknown,
}

impl Contention {
    /// Finds what keeps the work waiting: one of `family`, the work and its children. `polls` returns how often a row
    /// was polled.
    pub(super) fn of(snapshot: &Snapshot, family: &[RowId], polls: impl Fn(RowId) -> u32) -> Option<Self> {
        let graph = Graph::of(snapshot);
        let waits = graph.waits.iter().filter(|wait| family.contains(&wait.work) && !graph.computes(wait));
        // The last is the innermost where one wait is within another.
        let wait = **waits.max_by_key(|wait| turn(wait))?;
        let same = |other: &&&Entry| other.resource == wait.resource && turn(other) != turn(&wait);
        let queue = graph.waits.iter().filter(same).count() as u32;
        let mut blockers = graph.blockers(&wait);
        let mut members = Vec::new();
        let finding = if graph.stuck().contains(&wait.work) {
            let all = graph.members(wait.work);
            members.extend(all.iter().map(|work| graph.member(*work)));
            match all {
                all if all.len() == 1 => Finding::Itself,
                all if graph.keeps_waiting(wait.work, &all) => Finding::Deadlock,
                _ => Finding::BehindDeadlock,
            }
        } else if blockers.iter().any(|blocker| blocker.wait.is_none()) {
            Finding::Held
        } else if graph.is_forgotten(&wait, polls) {
            Finding::HandedOver
        } else {
            Finding::Unknown
        };
        if matches!(finding, Finding::Deadlock | Finding::BehindDeadlock) {
            blockers = graph.held_within(&wait);
        }
        blockers.sort_by_key(|blocker| blocker.since);
        let holding = blockers.len() as u32;
        let holders = blockers.into_iter().take(MAX_HOLDERS).copied().collect();
        Some(Self { wait, finding, holders, holding, queue, members })
    }

    /// Takes back that nobody can move on, unless each member waits for named things alone: `waits_alone` returns whether
    /// its waits are all that it has. Another branch of its `join!` or `select!` may release what it holds.
    pub(super) fn doubt(&mut self, waits_alone: impl Fn(&Member) -> bool) {
        if !self.members.iter().all(waits_alone) {
            self.finding = Finding::Held;
        }
    }

    /// Returns whether it is known which instance is meant.
    pub(crate) fn is_certain(&self) -> bool {
        self.wait.resource.permits().is_some()
    }
}

/// Returns the work in each deadlock. `waits_alone` is asked as in [`Contention::doubt`].
pub(super) fn deadlocks(snapshot: &Snapshot, waits_alone: impl Fn(&Member) -> bool) -> Vec<Vec<RowId>> {
    let graph = Graph::of(snapshot);
    let mut known: HashSet<RowId> = HashSet::new();
    let mut found = Vec::new();
    let mut left: Vec<RowId> = graph.awaited_by_stuck().into_iter().collect();
    left.sort_unstable();
    for work in left.into_iter().take(MAX_STUCK) {
        if known.contains(&work) {
            continue;
        }
        let all = graph.members(work);
        // Who only waits behind a deadlock is no part of it.
        let mut ring: Vec<RowId> =
            all.iter().copied().filter(|other| *other == work || graph.members(*other).contains(&work)).collect();
        if !graph.keeps_waiting(work, &all) && !graph.holds_what_it_awaits(work) {
            continue;
        }
        if all.iter().all(|work| waits_alone(&graph.member(*work))) {
            known.extend(&ring);
            ring.sort_unstable();
            found.push(ring);
        }
    }
    found
}

/// One that is in a deadlock.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) work: RowId,
    /// How many named things it waits for.
    pub(super) waits: usize,
    /// Whether its thread blocks for one of them.
    pub(super) blocks: bool,
}

fn turn(wait: &Entry) -> u64 {
    wait.wait.map_or(0, |wait| wait.turn)
}

/// Who waits for what, and who holds what.
struct Graph<'a> {
    waits: Vec<&'a Entry>,
    holds: HashMap<ResourceId, Vec<&'a Entry>>,
    /// Who queued first for exclusive use. All others of these are behind it.
    first: HashMap<ResourceId, &'a Entry>,
}

impl<'a> Graph<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut graph = Self { waits: Vec::new(), holds: HashMap::new(), first: HashMap::new() };
        for entry in &snapshot.entries {
            match entry.wait {
                Some(_) => {
                    graph.waits.push(entry);
                    if entry.mode == Mode::Exclusive {
                        let first = graph.first.entry(entry.resource).or_insert(entry);
                        *first = std::cmp::min_by_key(*first, entry, |wait| turn(wait));
                    }
                }
                None => graph.holds.entry(entry.resource).or_default().push(entry),
            }
        }
        graph
    }

    /// Returns whether the work itself computes what the wait is for, within that wait.
    fn computes(&self, wait: &Entry) -> bool {
        let holds = self.holds.get(&wait.resource).into_iter().flatten();
        wait.work != RowId::NONE
            && holds.into_iter().any(|hold| hold.mode == Mode::Initialize && hold.work == wait.work)
    }

    /// Returns those who must move on before the wait can end.
    fn blockers(&self, wait: &Entry) -> Vec<&'a Entry> {
        let holds = self.holds.get(&wait.resource).into_iter().flatten();
        if wait.mode == Mode::Shared {
            let before = self.first.get(&wait.resource).filter(|other| turn(other) < turn(wait));
            return holds.filter(|hold| hold.mode != Mode::Shared).chain(before).copied().collect();
        }
        holds.copied().collect()
    }

    /// Returns whether all of the resource that the wait needs is taken.
    fn is_exhausted(&self, wait: &Entry, blockers: &[&Entry]) -> bool {
        let Some(permits) = wait.resource.permits() else { return false };
        let shared = wait.mode == Mode::Shared || blockers.iter().any(|blocker| blocker.mode == Mode::Shared);
        !blockers.is_empty() && (shared || blockers.len() >= permits as usize)
    }

    /// Returns the work that waits only for stuck work: the largest set that keeps itself waiting.
    fn stuck(&self) -> HashSet<RowId> {
        // Work that waits for nothing can move on, and with it whoever waits for it.
        let waiting: HashSet<RowId> = self.waits.iter().map(|wait| wait.work).collect();
        // Those who wait for the same wait for the same work, but for readers, who may have come before a writer.
        let mut of_resource: HashMap<ResourceId, Option<Rc<[RowId]>>> = HashMap::new();
        let mut of_work: HashMap<RowId, Vec<Rc<[RowId]>>> = HashMap::new();
        let mut free = HashSet::from([RowId::NONE]);
        for wait in self.waits.iter().filter(|wait| !self.computes(wait)) {
            let find = || {
                let blockers = self.blockers(wait);
                let stuck = blockers.iter().all(|blocker| waiting.contains(&blocker.work));
                (stuck && self.is_exhausted(wait, &blockers)).then(|| blockers.iter().map(|one| one.work).collect())
            };
            let by = match wait.mode {
                Mode::Shared => find(),
                Mode::Exclusive | Mode::Initialize => of_resource.entry(wait.resource).or_insert_with(find).clone(),
            };
            match by {
                Some(by) => of_work.entry(wait.work).or_default().push(by),
                None => {
                    free.insert(wait.work);
                }
            }
        }
        let mut stuck: HashSet<RowId> = of_work.keys().copied().filter(|work| !free.contains(work)).collect();
        loop {
            let before = stuck.len();
            let keeps = |work: &RowId| of_work[work].iter().all(|by| by.iter().all(|by| stuck.contains(by)));
            let kept: HashSet<RowId> = stuck.iter().copied().filter(keeps).collect();
            stuck = kept;
            if stuck.len() == before {
                return stuck;
            }
        }
    }

    /// Returns the stuck work that other stuck work waits for. The rest only queues behind it.
    fn awaited_by_stuck(&self) -> HashSet<RowId> {
        let mut left = self.stuck();
        loop {
            let mut seen: HashSet<ResourceId> = HashSet::new();
            let waits = self.waits.iter().filter(|wait| left.contains(&wait.work));
            // Of those who want it alone, one is enough.
            let first = waits.filter(|wait| wait.mode == Mode::Shared || seen.insert(wait.resource));
            let awaited: HashSet<RowId> =
                first.flat_map(|wait| self.blockers(wait)).map(|blocker| blocker.work).collect();
            let before = left.len();
            left.retain(|work| awaited.contains(work));
            if left.len() == before {
                return left;
            }
        }
    }

    /// Returns what the work waits for.
    fn waits_of(&self, work: RowId) -> impl Iterator<Item = &&'a Entry> {
        self.waits.iter().filter(move |wait| wait.work == work && !self.computes(wait))
    }

    /// Returns the work and everything that it waits for, directly or not.
    fn member(&self, work: RowId) -> Member {
        let blocks = self.waits_of(work).any(|wait| wait.wait.is_some_and(|wait| wait.blocks));
        Member { work, waits: self.waits_of(work).count(), blocks }
    }

    fn members(&self, work: RowId) -> HashSet<RowId> {
        let (mut members, mut next) = (HashSet::from([work]), vec![work]);
        while let Some(work) = next.pop() {
            for blocker in self.waits_of(work).flat_map(|wait| self.blockers(wait)) {
                if members.insert(blocker.work) {
                    next.push(blocker.work);
                }
            }
        }
        members
    }

    /// Returns whether one of the others waits for the work.
    fn keeps_waiting(&self, work: RowId, members: &HashSet<RowId>) -> bool {
        let waits = self.waits.iter().filter(|wait| wait.work != work && members.contains(&wait.work));
        waits.flat_map(|wait| self.blockers(wait)).any(|blocker| blocker.work == work)
    }

    /// Returns whether the work waits for what it holds itself.
    fn holds_what_it_awaits(&self, work: RowId) -> bool {
        self.waits_of(work).flat_map(|wait| self.blockers(wait)).any(|blocker| blocker.work == work)
    }

    /// Returns what members of the deadlock hold that other members wait for, except the work's own.
    fn held_within(&self, wait: &Entry) -> Vec<&'a Entry> {
        let members = self.members(wait.work);
        let waits = self.waits.iter().filter(|other| members.contains(&other.work));
        let mut found: Vec<&Entry> = Vec::new();
        for blocker in waits.flat_map(|wait| self.blockers(wait)) {
            if blocker.work != wait.work && !found.iter().any(|known| std::ptr::eq(*known, blocker)) {
                found.push(blocker);
            }
        }
        found
    }

    /// Returns whether the first in line is a future of the same work that is not polled any more.
    fn is_forgotten(&self, wait: &Entry, polls: impl Fn(RowId) -> u32) -> bool {
        let queued = self.waits.iter().filter(|other| other.resource == wait.resource);
        let Some(first) = queued.min_by_key(|other| turn(other)) else { return false };
        let polled_in = first.wait.map_or(u32::MAX, |wait| wait.polled_in);
        let since = polls(wait.work).wrapping_sub(polled_in);
        wait.work != RowId::NONE && turn(first) < turn(wait) && first.work == wait.work && since > 1 && since < 1 << 31
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::inflight::Resource;
    use crate::inflight::resources::Wait;

    fn row(number: u32) -> RowId {
        RowId::new(number, 0)
    }

    fn entry(resource: ResourceId, work: u32, mode: Mode, turn: Option<u64>) -> Entry {
        let wait = turn.map(|turn| Wait { turn, polled_in: 0, blocks: false });
        Entry { resource, mode, work: row(work), thread: None, at: Location::caller(), since: 0, wait }
    }

    fn find(entries: &[Entry], work: u32) -> Contention {
        find_after(entries, work, 1)
    }

    fn find_after(entries: &[Entry], work: u32, polls: u32) -> Contention {
        let snapshot = Snapshot { entries: entries.to_vec() };
        Contention::of(&snapshot, &[row(work)], |_| polls).expect("it waits")
    }

    const WRITE: Mode = Mode::Exclusive;
    const READ: Mode = Mode::Shared;

    /// Guards: two locks in the wrong order are a deadlock, and a third who waits for a member is stuck, too.
    #[test]
    fn a_cycle_is_a_deadlock() {
        let (a, b) = (("a", 1).into(), ("b", 1).into());
        let mut entries = vec![
            entry(a, 1, WRITE, None),
            entry(b, 1, WRITE, Some(1)),
            entry(b, 2, WRITE, None),
            entry(a, 2, WRITE, Some(2)),
        ];
        let found = find(&entries, 1);
        assert_eq!((found.finding, found.holders.len(), found.queue), (Finding::Deadlock, 1, 0));
        assert_eq!(found.holders[0].work, row(2));
        assert_eq!(find(&entries, 2).finding, Finding::Deadlock);
        entries.push(entry(a, 3, WRITE, Some(3)));
        assert_eq!(find(&entries, 3).finding, Finding::BehindDeadlock, "it will never get it either");
        // A member that has something else to wait for may still move on.
        entries.push(entry(("c", 1).into(), 2, WRITE, Some(4)));
        assert_eq!(find(&entries, 1).finding, Finding::Held);
    }

    /// Guards: a member with another branch may still move on, and then nobody says that it cannot.
    #[test]
    fn a_member_that_waits_for_something_else_makes_no_deadlock() {
        let (a, b) = (("a", 1).into(), ("b", 1).into());
        let entries = [
            entry(a, 1, WRITE, None),
            entry(b, 1, WRITE, Some(1)),
            entry(b, 2, WRITE, None),
            entry(a, 2, WRITE, Some(2)),
        ];
        let mut found = find(&entries, 1);
        found.doubt(|member| member.waits == 1);
        assert_eq!(found.finding, Finding::Deadlock);
        found.doubt(|member| member.work != row(2));
        assert_eq!(found.finding, Finding::Held);
    }

    /// Guards: per-tenant locks with one name are no cycle, and a pool with a free permit is in none.
    #[test]
    fn a_name_or_a_free_permit_makes_no_deadlock() {
        let named = |name: &'static str| ResourceId::from(name);
        let entries = [
            entry(named("token"), 1, WRITE, None),
            entry(named("other"), 1, WRITE, Some(1)),
            entry(named("other"), 2, WRITE, None),
            entry(named("token"), 2, WRITE, Some(2)),
        ];
        let found = find(&entries, 1);
        assert_eq!((found.finding, found.is_certain()), (Finding::Held, false));
        let pool = Resource::new("pool").permits(2);
        let (pool, lock) = (ResourceId::from(&pool), ("lock", 1).into());
        let mut entries = vec![
            entry(pool, 1, WRITE, None),
            entry(lock, 1, WRITE, Some(1)),
            entry(lock, 2, WRITE, None),
            entry(pool, 2, WRITE, Some(2)),
        ];
        assert_eq!(find(&entries, 1).finding, Finding::Held);
        // The other permit is held by somebody who can move on, and then by one who cannot.
        entries.push(entry(pool, 3, WRITE, None));
        assert_eq!(find(&entries, 1).finding, Finding::Held);
        entries.push(entry(lock, 3, WRITE, Some(3)));
        assert_eq!(find(&entries, 1).finding, Finding::Deadlock);
    }

    /// Guards: read, a writer queues, read again.
    #[test]
    fn a_reader_behind_a_writer_is_a_deadlock() {
        let rates = ("rates", 1).into();
        let mut entries = vec![entry(rates, 1, READ, None), entry(rates, 2, WRITE, Some(1))];
        assert_eq!(find(&entries, 2).finding, Finding::Held);
        entries.push(entry(rates, 1, READ, Some(2)));
        let found = find(&entries, 1);
        assert_eq!((found.finding, found.holders[0].work), (Finding::Deadlock, row(2)));
        entries[2].wait = Some(Wait { turn: 0, polled_in: 0, blocks: false });
        assert_eq!(find(&entries, 1).finding, Finding::Unknown, "it came before the writer");
    }

    /// Guards: a lock that the work holds itself, or that was handed to a branch that it does not poll any more.
    #[test]
    fn work_that_waits_for_itself_is_told_so() {
        let lock = ("lock", 1).into();
        let entries = [entry(lock, 1, WRITE, None), entry(lock, 1, WRITE, Some(1))];
        assert_eq!(find(&entries, 1).finding, Finding::Itself);
        let entries = [entry(lock, 1, WRITE, Some(1)), entry(lock, 1, WRITE, Some(2))];
        assert_eq!(find_after(&entries, 1, 5).finding, Finding::HandedOver);
        assert_eq!(find_after(&entries, 1, 1).finding, Finding::Unknown, "it is polled");
        let entries = [entry(lock, 2, WRITE, Some(1)), entry(lock, 1, WRITE, Some(2))];
        assert_eq!(find_after(&entries, 1, 5).finding, Finding::Unknown);
    }

    /// Guards: who computes a value waits for it, too, and is no deadlock.
    #[test]
    fn who_computes_a_value_does_not_wait_for_it() {
        let rate = ("rate", 1).into();
        let entries =
            [entry(rate, 1, READ, Some(1)), entry(rate, 1, Mode::Initialize, None), entry(rate, 2, READ, Some(2))];
        let snapshot = Snapshot { entries: entries.to_vec() };
        assert!(Contention::of(&snapshot, &[row(1)], |_| 1).is_none());
        let found = find(&entries, 2);
        assert_eq!((found.finding, found.holders[0].work), (Finding::Held, row(1)));
    }

    /// Guards: work that heeler does not watch is no member of a cycle.
    #[test]
    fn unwatched_work_can_move_on() {
        let (a, b) = (("a", 1).into(), ("b", 1).into());
        let none = |entry: Entry| Entry { work: RowId::NONE, ..entry };
        let entries = [
            entry(a, 1, WRITE, None),
            entry(b, 1, WRITE, Some(1)),
            none(entry(b, 0, WRITE, None)),
            none(entry(a, 0, WRITE, Some(2))),
        ];
        assert_eq!(find(&entries, 1).finding, Finding::Held);
    }
}
