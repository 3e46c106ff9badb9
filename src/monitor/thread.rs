//! The monitor's loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::hunt::{Hunt, Step, deadline};
use super::workers::LongPolls;
use super::{SHORTEST, budget, scan};
use crate::capture::{self, Sampler};
use crate::inflight::{Policy, RowId, flags, now, table};
use crate::report::{self, Evidence};

/// Later looks at work that is still slow: at these multiples of its threshold.
const FACTORS: [u64; 4] = [1, 2, 4, 8];
/// What does not fit into a second's budget is tried again after this.
const RETRY: u64 = 1_000_000_000;
/// A layer that has seen no request by then is said out loud.
const SILENCE: u64 = 600_000_000_000;

/// A deadline: when, of which row, the how-manieth look at it, and whether it was put off for want of budget.
type Deadline = Reverse<(u64, RowId, u32, bool)>;

struct Monitor {
    sampler: Sampler,
    deadlines: BinaryHeap<Deadline>,
    hunts: Vec<(u64, Hunt)>,
    long_polls: LongPolls,
    next_scan: u64,
    next_threads: u64,
    shortest: u64,
    /// Slow work that ended before it was captured, and that no report has spoken of yet.
    missed: u64,
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
        next_threads: 0,
        shortest: u64::MAX,
        missed: 0,
        unwatched: 0,
        silent: Vec::new(),
    };
    loop {
        // Other people's wakers run here. One that panics must not be the end of watching.
        let wait = catch_unwind(AssertUnwindSafe(|| monitor.turn())).unwrap_or_else(|_| {
            tracing::error!(target: "heeler", "the monitor panicked: captures that were under way are lost");
            monitor.missed += monitor.hunts.drain(..).count() as u64;
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
        while let Some(Reverse((due, id, look, put_off))) = self.deadlines.peek().copied() {
            if due > now {
                break;
            }
            self.deadlines.pop();
            self.due(now, id, look, put_off);
        }
        self.hunt();
        if now >= self.next_threads {
            for evidence in self.long_polls.look(now, &mut self.sampler) {
                self.send(evidence);
            }
            self.next_threads = now.saturating_add(LongPolls::period());
        }
        let deadline = self.deadlines.peek().map_or(u64::MAX, |Reverse((due, ..))| *due);
        let hunt = self.hunts.iter().map(|(due, _)| *due).min().unwrap_or(u64::MAX);
        let next = deadline.min(hunt).min(self.next_scan).min(self.next_threads);
        next.saturating_sub(crate::inflight::now()).max(1)
    }

    fn scan(&mut self, now: u64) {
        let scanned = scan::scan();
        self.deadlines.extend(scanned.armed.into_iter().map(|(due, id)| Reverse((due, id, 0, false))));
        self.next_scan = scanned.next;
        self.shortest = scanned.shortest;
        SHORTEST.store(scanned.shortest, Ordering::Relaxed);
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
                    "a watchdog layer has seen no request in its first ten minutes: is it on the service that serves?"
                );
            }
        }
    }

    /// A deadline has come: begins a hunt, unless the work is gone, its clock was restarted, or the budget is used up.
    fn due(&mut self, now: u64, id: RowId, look: u32, put_off: bool) {
        let Some(row) = table().row(id).filter(|row| row.is_live(id)) else {
            // Only what was past its threshold was missed; most rows end long before.
            self.missed += u64::from(put_off && look == 0);
            return;
        };
        // A body that stalls anew is reported anew.
        let look = if row.flags() & flags::REPORTED == 0 { 0 } else { look };
        let Some(factor) = FACTORS.get(look as usize).copied() else { return };
        let Some(deadline) = deadline(row, factor) else {
            // Its clock stands still: the next look through the table takes it up again.
            row.update(id, 0, flags::QUEUED);
            return;
        };
        if deadline > now {
            self.deadlines.push(Reverse((deadline, id, look, false)));
        } else if budget::CAPTURES.take(now) {
            let hunt = Hunt::begin(row, id, look, now);
            self.hunts.push((now, hunt));
            if look as usize + 1 < FACTORS.len() {
                let next = deadline.saturating_add(row.threshold().saturating_mul(FACTORS[look as usize + 1] - factor));
                self.deadlines.push(Reverse((next, id, look + 1, false)));
            }
        } else {
            self.deadlines.push(Reverse((now + RETRY, id, look, true)));
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
                    self.hunts.swap_remove(index);
                    self.send(*evidence);
                }
                Step::Gone => {
                    self.hunts.swap_remove(index);
                    self.missed += 1;
                }
            }
        }
    }

    fn send(&mut self, mut evidence: Evidence) {
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            evidence.reports.count_not_captured(missed);
            evidence.notes.push(format!("{missed} more pieces of slow work ended before they could be captured"));
        }
        report::send(evidence);
    }
}
