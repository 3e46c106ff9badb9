//! The capture thread. It keeps the deadlines of requests and jobs, and finds out where slow work is. Threads that do
//! not answer and slow loggers hold up this thread, never the one that keeps the limits of boxes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::active_polls::{ActivePolls, LongPolls};
use super::basis::Basis;
use super::child_probe::Children;
use super::desk::{self, Handed};
use super::diagnosis::{Diagnosis, Scene, Step, ask_for_poll};
use super::expirations::Overruns;
use super::gather::reports;
use super::host::Host;
use super::in_flight::InFlight;
use super::link;
use super::stacks::Stacks;
use super::{Evidence, Verdict};
use crate::capture::{self, Sampler};
use crate::capture::{RowId, slots};
use crate::clock::now;
use crate::counts::COUNTS;
use crate::inflight::{Row, budget, table};
use crate::log::log_safely;
use crate::sync::count;
use crate::text::units;

/// Work that is still slow is looked at again at these multiples of its threshold.
const FACTORS: [u64; 4] = [1, 2, 4, 8];
/// What does not fit into a second's budget is retried after this.
const RETRY: u64 = 1_000_000_000;
/// How long to wait for the next second's budget, in nanoseconds.
const OUT_OF_BUDGET: u64 = 50_000_000;
/// How many polls of newly armed work are requested in one turn.
const ASKS: usize = 64;

/// A time at which to look at work. Ordered by that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline {
    due: u64,
    /// The index of the look, counted from 0. At the same time, a first look goes before later ones.
    look: u32,
    id: RowId,
    /// What the time was computed from. A row whose clock or threshold has changed by then has another deadline.
    basis: Basis,
    /// Postponed for lack of budget, and counted as not captured until it is.
    put_off: bool,
}

struct Captures {
    stacks: Stacks,
    deadlines: BinaryHeap<Reverse<Deadline>>,
    diagnoses: Vec<(u64, Diagnosis)>,
    /// The rows of these diagnoses.
    diagnosed: HashSet<RowId>,
    children: Children,
    asks: VecDeque<RowId>,
    in_flight: InFlight,
    overruns: Overruns,
    long_polls: LongPolls,
    host: Host,
}

/// Runs for the life of the process.
pub(super) fn run(signal: Option<i32>) {
    capture::sys::block_signals();
    let sampler = Sampler::new(signal);
    link::self_check(sampler.signal());
    log_safely(|| {
        for loss in capture::abilities().losses() {
            tracing::warn!(target: "heeler", "{loss}");
        }
    });
    let mut captures = Captures {
        stacks: Stacks::new(sampler),
        deadlines: BinaryHeap::new(),
        diagnoses: Vec::new(),
        diagnosed: HashSet::new(),
        children: Children::default(),
        asks: VecDeque::new(),
        in_flight: InFlight::default(),
        overruns: Overruns::default(),
        long_polls: LongPolls::default(),
        host: Host::new(std::path::Path::new("/")),
    };
    loop {
        // Other people's loggers run here, too. A panic in one must not end captures.
        let wait = catch_unwind(AssertUnwindSafe(|| captures.turn())).unwrap_or_else(|_| {
            log_safely(|| {
                tracing::error!(target: "heeler", "the monitor panicked: captures that were under way are lost");
            });
            captures.diagnosed.clear();
            captures.diagnoses.drain(..).for_each(|(_, diagnosis)| diagnosis.reports().count_not_captured());
            Duration::from_nanos(RETRY)
        });
        let wanted = now().saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        std::thread::park_timeout(wait);
        captures.host.woken(wanted, now());
    }
}

impl Captures {
    /// Does what is due, and returns for how long nothing will be due.
    fn turn(&mut self) -> Duration {
        let now = now();
        #[cfg(heeler_copies)]
        capture::refresh_places();
        self.take(desk::take());
        self.begin(now);
        self.step();
        for evidence in self.overruns.look(crate::clock::now(), &mut self.stacks) {
            send(evidence, &mut self.host);
        }
        if now >= self.long_polls.due() {
            for evidence in self.long_polls.look(now, &mut self.stacks) {
                send(evidence, &mut self.host);
            }
        }
        let asks_at = self.ask(now);
        let mut next = self.deadlines.peek().map_or(u64::MAX, |Reverse(deadline)| deadline.due);
        next = self.diagnoses.iter().map(|(due, _)| *due).min().unwrap_or(u64::MAX).min(next);
        next = next.min(self.long_polls.due()).min(self.overruns.due());
        if !self.deadlines.is_empty() || !self.diagnoses.is_empty() {
            next = next.min(self.host.look(now));
        }
        next = next.min(asks_at);
        if !link::is_reporter_running() {
            // A thread with this much to do can see to that, too. What it finds in the meantime waits there.
            link::start_reporter();
            next = next.min(now + RETRY);
        }
        desk::sleep(next, crate::clock::now())
    }

    /// Asks newly armed work where it waits, the oldest first, as far as the budget goes. Returns when to go on.
    fn ask(&mut self, now: u64) -> u64 {
        for _ in 0..ASKS {
            let Some(&id) = self.asks.front() else { return u64::MAX };
            let waits_unseen = |row: &'static Row| {
                let details = row.details(id);
                details.is_some_and(|details| details.trace.as_ref().is_some_and(|trace| trace.current().is_none()))
            };
            if let Some(row) = table().row(id).filter(|row| waits_unseen(row)) {
                if !budget::ARMINGS.take(now) {
                    return now + OUT_OF_BUDGET;
                }
                ask_for_poll(row, id, now);
            }
            self.asks.pop_front();
        }
        0
    }

    fn take(&mut self, handed: Handed) {
        let Handed { watched, armed, overruns, words, endings } = handed;
        self.in_flight.add(watched.iter().filter_map(|(id, _)| Some((table().row(*id)?, *id))));
        let deadline = |(id, basis): (RowId, Basis)| {
            Reverse(Deadline { due: basis.deadline(FACTORS[0]), id, look: 0, basis, put_off: false })
        };
        self.deadlines.extend(watched.into_iter().map(deadline));
        self.asks.extend(armed);
        self.overruns.add(overruns);
        words.iter().for_each(super::desk::Word::say);
        endings.into_iter().for_each(link::end);
    }

    /// Starts the diagnoses that are due.
    fn begin(&mut self, now: u64) {
        let mut active = None;
        while let Some(Reverse(deadline)) = self.deadlines.peek().copied() {
            if deadline.due > now {
                break;
            }
            self.deadlines.pop();
            self.due(now, deadline, &mut active);
        }
    }

    /// Starts a diagnosis for a deadline that has come, unless it is out of date or the budget is used up.
    fn due(&mut self, now: u64, deadline: Deadline, active: &mut Option<Rc<ActivePolls>>) {
        let Deadline { id, look, basis, put_off, .. } = deadline;
        let Some(row) = table().row(id) else { return };
        if !row.is_live(id) || Basis::of(row) != Some(basis) {
            return;
        }
        if self.diagnosed.contains(&id) {
            // The last diagnosis still goes on, and what it finds is as good as another look.
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
        // Before the first of them is woken.
        let active = active.get_or_insert_with(|| {
            let slots = slots();
            self.stacks.forget_ended(&slots);
            Rc::new(ActivePolls::snapshot(&slots))
        });
        let scene = Scene { now, active: Rc::clone(active), children: &mut self.children };
        let diagnosis = Diagnosis::begin(row, id, basis, reports, look, scene);
        self.diagnosed.insert(id);
        self.diagnoses.push((now, diagnosis));
        self.push_next(now, deadline);
    }

    /// Queues the next look: the first that still lies ahead.
    fn push_next(&mut self, now: u64, deadline: Deadline) {
        let later = FACTORS.iter().enumerate().skip(deadline.look as usize + 1);
        let mut later = later.map(|(look, factor)| (look as u32, deadline.basis.deadline(*factor)));
        if let Some((look, due)) = later.find(|(_, due)| *due > now) {
            self.deadlines.push(Reverse(Deadline { due, look, put_off: false, ..deadline }));
        }
    }

    fn step(&mut self) {
        let mut index = 0;
        while index < self.diagnoses.len() {
            // Each step may take a while if a thread does not answer, so the time is read again.
            let now = now();
            let (due, diagnosis) = &mut self.diagnoses[index];
            if now < *due && !diagnosis.is_answered() {
                index += 1;
                continue;
            }
            match diagnosis.step(now, &mut self.stacks) {
                Step::Wait(until) => {
                    *due = until;
                    index += 1;
                }
                Step::Found(mut evidence) => {
                    // Other verdicts have their cause with them.
                    if matches!(evidence.verdict, Verdict::Waiting | Verdict::Blocking) {
                        let here = evidence.current.and_then(|current| evidence.waits[current].key());
                        evidence.others = self.in_flight.others(evidence.work, here, now, &mut self.stacks);
                    }
                    let diagnosis = self.end(index);
                    if let Some(poll) = diagnosis.blocked_poll() {
                        self.long_polls.is_reported(poll, now);
                    }
                    send(*evidence, &mut self.host);
                }
                Step::Gone => {
                    let diagnosis = self.end(index);
                    count(&COUNTS.missed);
                    // Work that ends between two looks is not missed, because there is a report already.
                    if diagnosis.update() == 0 {
                        diagnosis.reports().count_not_captured();
                    }
                }
            }
        }
    }

    fn end(&mut self, index: usize) -> Diagnosis {
        let (_, diagnosis) = self.diagnoses.swap_remove(index);
        self.diagnosed.remove(&diagnosis.id());
        diagnosis
    }
}

fn send(mut evidence: Evidence, host: &mut Host) {
    count(&COUNTS.captured);
    host.judge(&mut evidence);
    let missed = evidence.reports.take_not_captured();
    if missed > 0 {
        let (captures, were) = (units::count(missed, "capture"), units::were(missed));
        evidence.notes.push(format!(
            "{captures} before this one {were} due and not taken: the budget was used up, or the work ended first"
        ));
    }
    link::send(evidence);
}

#[cfg(all(test, heeler_copies, feature = "watchdog", feature = "timebox", not(heeler_loom)))]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use crate::capture::ThreadSlot;
    use crate::{Interrupted, checkpoint, timebox};

    /// Returns whether a box is told within `patience`.
    fn is_told(patience: Duration) -> bool {
        let began = Instant::now();
        let told: Result<(), Interrupted> = timebox::blocking(Duration::from_millis(5), || {
            while began.elapsed() < patience {
                checkpoint()?;
                std::thread::sleep(Duration::from_micros(100));
            }
            Ok(())
        });
        told.is_err()
    }

    /// Guards: a timebox expires while the capture of a thread hangs.
    #[test]
    fn a_hanging_capture_delays_no_expiration() {
        // From here on this thread has a slot, and needs no lock that others use.
        assert!(is_told(Duration::from_secs(40)));
        let (tell, slot) = channel();
        let (stop, stopped) = channel::<()>();
        let blocks = std::thread::spawn(move || {
            let work = async move {
                tell.send(ThreadSlot::existing().expect("it is polled")).expect("somebody listens");
                let _ = stopped.recv();
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(crate::watch("blocks", Duration::from_millis(50), work));
        });
        let slot: &'static ThreadSlot = slot.recv().expect("the slot");
        // A capture of its stack waits for this lock.
        let told = slot.with_life(|_| {
            std::thread::sleep(Duration::from_millis(500));
            is_told(Duration::from_secs(20))
        });
        assert_eq!(told, Some(true));
        stop.send(()).expect("it waits");
        blocks.join().expect("no panic");
    }
}
