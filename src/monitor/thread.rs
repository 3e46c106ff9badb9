//! The monitor's loop. It scans the table for work with a near deadline, and keeps the limits of boxes. Everything else
//! is left to the capture thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::basis::Basis;
use super::desk::{self, Handed, Word};
use super::heartbeat::{LONGEST_SLEEP, heartbeat};
use super::scan::Scan;
use super::{SHORTEST, expirations, is_running};
use crate::capture;
use crate::capture::RowId;
use crate::clock::now;
use crate::inflight::{Policy, flags, table};

/// For this long after short work has begun, the scans expect more work as short as that, in nanoseconds.
const EXPECT_FOR: u64 = 2_000_000_000;
/// A layer that has seen no request by then is logged.
const SILENCE: u64 = 600_000_000_000;
/// Rows that are scanned before boxes that have become due are told. This takes some hundred microseconds.
const SLICE: usize = 1024;
/// The pause after a panic.
const RETRY: u64 = 10_000_000;

/// When the limit of a box passes, or its grace. Ordered by that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Limit {
    due: u64,
    /// Whether its grace is over, too.
    last: bool,
    id: RowId,
    /// What the time was computed from. A row whose clock or threshold has changed by then has another deadline.
    basis: Basis,
}

struct Monitor {
    limits: BinaryHeap<Reverse<Limit>>,
    next_scan: u64,
    shortest: u64,
    /// A threshold that was asked for, and until when such work is expected to begin again. Short boxes come and go
    /// between two scans, and each should not have to wake the monitor.
    expected: (u64, u64),
    /// What the capture thread has to do.
    handed: Handed,
    /// Work that found no row, as far as it was logged.
    unwatched: u64,
    /// Policies whose silence was logged.
    silent: Vec<u32>,
}

/// Runs for the life of the process.
pub(super) fn run() {
    capture::sys::block_signals();
    let mut monitor = Monitor {
        limits: BinaryHeap::new(),
        next_scan: 0,
        shortest: u64::MAX,
        expected: (u64::MAX, 0),
        handed: Handed::new(),
        unwatched: 0,
        silent: Vec::new(),
    };
    loop {
        // A panic must not end watching, whatever its cause.
        let next = catch_unwind(AssertUnwindSafe(|| monitor.turn())).unwrap_or_else(|_| {
            monitor.handed.words.push(Word::Panicked);
            now() + RETRY
        });
        heartbeat().rest(next);
        std::thread::park_timeout(Duration::from_nanos(next.saturating_sub(now()).max(1)));
    }
}

impl Monitor {
    /// Does what is due, and returns when the next thing is.
    fn turn(&mut self) -> u64 {
        let began = now();
        heartbeat().beat(began);
        self.tell();
        if began >= self.next_scan || SHORTEST.load(Ordering::Relaxed) < self.shortest {
            self.scan(began);
        }
        desk::leave(&mut self.handed);
        if !is_running() {
            // The thread that tried first has logged why it does not start.
            let _ = super::try_to_start();
        }
        let limit = self.limits.peek().map_or(u64::MAX, |Reverse(limit)| limit.due);
        limit.min(self.next_scan).min(began + LONGEST_SLEEP)
    }

    /// Tells the boxes whose time is up.
    fn tell(&mut self) {
        while let Some(Reverse(limit)) = self.limits.peek().copied() {
            let now = now();
            if limit.due > now {
                break;
            }
            self.limits.pop();
            self.due(now, limit);
        }
    }

    fn due(&mut self, now: u64, limit: Limit) {
        let Limit { id, last, basis, .. } = limit;
        let Some(row) = table().row(id) else { return };
        let shared = row.limit().filter(|limit| Basis::of_limit(*limit) == basis && row.is_live(id));
        if let Some(shared) = shared {
            heartbeat().note(now.saturating_sub(limit.due));
            expirations::expire_shared(row, id, shared, now, &mut self.handed.overruns);
            return;
        }
        let is_box = row.flags() & flags::BOX != 0;
        if !is_box || !row.is_live(id) || Basis::of(row) != Some(basis) {
            return;
        }
        heartbeat().note(now.saturating_sub(limit.due));
        let grace = if last { 0 } else { row.grace(id) };
        expirations::expire(row, id, !last, grace == 0, now, &mut self.handed.overruns);
        if grace > 0 {
            self.limits.push(Reverse(Limit { due: limit.due.saturating_add(grace), last: true, ..limit }));
        }
    }

    fn scan(&mut self, now: u64) {
        // Work with a shorter threshold that begins during the scan is not missed, because it lowers this again.
        let asked = SHORTEST.swap(u64::MAX, Ordering::Relaxed);
        if now >= self.expected.1 {
            self.expected = (u64::MAX, 0);
        }
        if asked < self.shortest && asked <= self.expected.0 {
            self.expected = (asked, now.saturating_add(EXPECT_FOR));
        }
        let mut scan = Scan::begin(self.expected.0);
        let (mut rows, mut boxes) = (table().rows(), Vec::new());
        while scan.slice(&mut rows, SLICE, &mut boxes, &mut self.handed) {
            self.queue(&mut boxes);
            self.tell();
        }
        self.queue(&mut boxes);
        self.tell();
        let scanned = scan.end();
        self.next_scan = scanned.next;
        self.shortest = scanned.shortest;
        SHORTEST.fetch_min(scanned.shortest, Ordering::Relaxed);
        self.note_words(now);
    }

    fn queue(&mut self, boxes: &mut Vec<(RowId, Basis)>) {
        let limit = |(id, basis): (RowId, Basis)| Reverse(Limit { due: basis.deadline(1), last: false, id, basis });
        self.limits.extend(boxes.drain(..).map(limit));
    }

    /// Notes what should be logged.
    fn note_words(&mut self, now: u64) {
        let unwatched = table().unwatched();
        if unwatched > self.unwatched {
            self.unwatched = unwatched;
            self.handed.words.push(Word::Unwatched(unwatched));
        }
        for policy in Policy::all() {
            let quiet = !policy.has_seen_requests() && now.saturating_sub(policy.since) > SILENCE;
            if quiet && policy.is_enabled() && !self.silent.contains(&policy.id.to_bits()) {
                self.silent.push(policy.id.to_bits());
                self.handed.words.push(Word::Silent(policy));
            }
        }
    }
}
