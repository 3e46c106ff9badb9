//! The monitor's loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::basis::Basis;
use super::boxes::Overruns;
use super::children::Children;
use super::evidence::reports;
use super::hunt::{Hunt, Step};
use super::workers::LongPolls;
use super::{SHORTEST, budget, scan};
use crate::capture::{self, Sampler};
use crate::figures::COUNTS;
use crate::inflight::{Policy, RowId, flags, now, table};
use crate::report::{self, Evidence, log_safely};
use crate::sync::count;

/// Later looks at work that is still slow: at these multiples of its threshold.
const FACTORS: [u64; 4] = [1, 2, 4, 8];
/// What does not fit into a second's budget is tried again after this.
const RETRY: u64 = 1_000_000_000;
/// Work as short as the shortest that has begun is looked for during this time.
const EXPECT_FOR: u64 = 2_000_000_000;
/// A layer that has seen no request by then is said out loud.
const SILENCE: u64 = 600_000_000_000;

/// A time at which work is to be looked at. Ordered by that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline {
    due: u64,
    /// The how-manieth look it is, counted from 0. A first look goes before later ones at the same time.
    look: u32,
    id: RowId,
    /// What the time was computed from. A row whose clock or threshold is another by then has a deadline of its own.
    basis: Basis,
    /// Put off for want of budget, and counted as not captured until it is.
    put_off: bool,
}

struct Monitor {
    sampler: Sampler,
    deadlines: BinaryHeap<Reverse<Deadline>>,
    hunts: Vec<(u64, Hunt)>,
    long_polls: LongPolls,
    next_scan: u64,
    shortest: u64,
    /// A threshold that was asked for, and until when such work is expected to begin again: short boxes come and go
    /// between two looks, and each should not have to wake the monitor.
    expected: (u64, u64),
    overruns: Overruns,
    /// Work that found no row, as far as it was said.
    unwatched: u64,
    /// Policies whose silence was said.
    silent: Vec<u32>,
}

/// Runs for the life of the process.
pub(super) fn run(signal: Option<i32>) {
    capture::sys::block_signals();
    let sampler = Sampler::new(signal);
    report::self_check(sampler.signal());
    let mut monitor = Monitor {
        sampler,
        deadlines: BinaryHeap::new(),
        hunts: Vec::new(),
        long_polls: LongPolls::default(),
        next_scan: 0,
        shortest: u64::MAX,
        expected: (u64::MAX, 0),
        overruns: Overruns::default(),
        unwatched: 0,
        silent: Vec::new(),
    };
    loop {
        // Other people's wakers run here. One that panics must not be the end of watching.
        let wait = catch_unwind(AssertUnwindSafe(|| monitor.turn())).unwrap_or_else(|_| {
            log_safely(|| {
                tracing::error!(target: "heeler", "the monitor panicked: captures that were under way are lost");
            });
            monitor.hunts.drain(..).for_each(|(_, hunt)| hunt.reports().count_not_captured());
            RETRY
        });
        std::thread::park_timeout(Duration::from_nanos(wait));
    }
}

impl Monitor {
    /// Does what is due, and says for how many nanoseconds nothing will be.
    fn turn(&mut self) -> u64 {
        let now = now();
        if now >= self.next_scan || SHORTEST.load(Ordering::Relaxed) < self.shortest {
            self.scan(now);
        }
        let mut children = Children::default();
        while let Some(Reverse(deadline)) = self.deadlines.peek().copied() {
            if deadline.due > now {
                break;
            }
            self.deadlines.pop();
            self.due(now, deadline, &mut children);
        }
        self.hunt();
        for evidence in self.overruns.look(crate::inflight::now(), &mut self.sampler) {
            self.send(evidence);
        }
        if now >= self.long_polls.due() {
            for evidence in self.long_polls.look(now, &mut self.sampler) {
                self.send(evidence);
            }
        }
        let deadline = self.deadlines.peek().map_or(u64::MAX, |Reverse(deadline)| deadline.due);
        let hunt = self.hunts.iter().map(|(due, _)| *due).min().unwrap_or(u64::MAX);
        let next = deadline.min(hunt).min(self.next_scan).min(self.long_polls.due()).min(self.overruns.due());
        next.saturating_sub(crate::inflight::now()).max(1)
    }

    fn scan(&mut self, now: u64) {
        // Work with a shorter threshold that begins during the look is not lost sight of: it lowers this again.
        let asked = SHORTEST.swap(u64::MAX, Ordering::Relaxed);
        if now >= self.expected.1 {
            self.expected = (u64::MAX, 0);
        }
        if asked < self.shortest && asked <= self.expected.0 {
            self.expected = (asked, now.saturating_add(EXPECT_FOR));
        }
        let scanned = scan::scan(self.expected.0);
        let deadline = |(id, basis): (RowId, Basis)| {
            Reverse(Deadline { due: basis.deadline(FACTORS[0]), id, look: 0, basis, put_off: false })
        };
        self.deadlines.extend(scanned.queued.into_iter().map(deadline));
        self.next_scan = scanned.next;
        self.shortest = scanned.shortest;
        SHORTEST.fetch_min(scanned.shortest, Ordering::Relaxed);
        let unwatched = table().unwatched();
        if unwatched > self.unwatched {
            self.unwatched = unwatched;
            tracing::warn!(target: "heeler", unwatched, "more work is in flight than can be watched");
        }
        for policy in Policy::all() {
            let quiet = !policy.has_seen_requests() && now.saturating_sub(policy.since) > SILENCE;
            if quiet && policy.is_enabled() && !self.silent.contains(&policy.id.to_bits()) {
                self.silent.push(policy.id.to_bits());
                tracing::warn!(
                    target: "heeler",
                    threshold_ms = policy.threshold().as_millis() as u64,
                    "a {} layer has seen no request in its first ten minutes: is it on the service that serves?",
                    policy.tool.as_str()
                );
            }
        }
    }

    /// A deadline has come: begins a hunt, unless it holds no longer, or the budget is used up.
    fn due(&mut self, now: u64, deadline: Deadline, children: &mut Children) {
        let Deadline { id, look, basis, put_off, .. } = deadline;
        let Some((row, flags)) = table().row(id).and_then(|row| Some((row, row.live()?.1))) else { return };
        if !row.is_live(id) || Basis::of(row) != Some(basis) {
            return;
        }
        if flags & flags::BOX != 0 {
            let grace = row.timebox(id).map_or(0, |timebox| timebox.grace());
            let over = look > 0 || grace == 0;
            self.overruns.expire(row, id, look == 0, over, now);
            if !over {
                let due = deadline.due.saturating_add(grace);
                self.deadlines.push(Reverse(Deadline { due, look: 1, ..deadline }));
            }
            return;
        }
        if self.hunts.iter().any(|(_, hunt)| hunt.id() == id) {
            // Still looking: what it finds is as good as another look.
            self.push_next(now, deadline);
            return;
        }
        let Some(reports) = reports(row, id) else { return };
        if !budget::CAPTURES.take(now) {
            count(&COUNTS.refused);
            if !put_off {
                reports.count_not_captured();
            }
            if look == 0 {
                self.deadlines.push(Reverse(Deadline { due: now + RETRY, put_off: true, ..deadline }));
            } else {
                // First looks at others go before later looks at this one.
                self.push_next(now, deadline);
            }
            return;
        }
        if put_off {
            reports.count_captured_after_all();
        }
        self.hunts.push((now, Hunt::begin(row, id, basis, reports, look, now, children)));
        self.push_next(now, deadline);
    }

    /// The next look: the first of those that still lie ahead.
    fn push_next(&mut self, now: u64, deadline: Deadline) {
        let later = FACTORS.iter().enumerate().skip(deadline.look as usize + 1);
        let mut later = later.map(|(look, factor)| (look as u32, deadline.basis.deadline(*factor)));
        if let Some((look, due)) = later.find(|(_, due)| *due > now) {
            self.deadlines.push(Reverse(Deadline { due, look, put_off: false, ..deadline }));
        }
    }

    fn hunt(&mut self) {
        let mut index = 0;
        while index < self.hunts.len() {
            // Each step may take a while (a thread that does not answer): the time is read anew.
            match self.hunts[index].1.step(now(), &mut self.sampler) {
                Step::Wait(until) => {
                    self.hunts[index].0 = until;
                    index += 1;
                }
                Step::Found(evidence) => {
                    let (_, hunt) = self.hunts.swap_remove(index);
                    if let Some(poll) = hunt.blocked_poll() {
                        self.long_polls.is_reported(poll, now());
                    }
                    self.send(*evidence);
                }
                Step::Gone => {
                    let (_, hunt) = self.hunts.swap_remove(index);
                    count(&COUNTS.missed);
                    // Work that ends between two looks at it is not missed: there is a report.
                    if hunt.update() == 0 {
                        hunt.reports().count_not_captured();
                    }
                }
            }
        }
    }

    fn send(&mut self, mut evidence: Evidence) {
        count(&COUNTS.captured);
        let missed = evidence.reports.take_not_captured();
        if missed > 0 {
            evidence.notes.push(format!(
                "{missed} captures before this one were due and not taken: the budget was used up, or the work ended first"
            ));
        }
        report::send(evidence);
    }
}
