//! Finding out where one piece of slow work is: the state machine from "it is slow" to the evidence.
//!
//! ```text
//!            ┌─ it was polled ───────────────▶ waiting, yielding or no waker (and its children's stacks)
//! woken ─────┼─ one poll does not return ────▶ blocking (its thread's stack)
//!            └─ nobody polls it ─────────────▶ starved (the stacks of the polls that hold the workers)
//! ```

use std::rc::Rc;

use super::active_polls::ActivePolls;
use super::basis::Basis;
use super::child_probe::{ChildProbe, Children};
use super::gather::{evidence, verdict_of_wait};
use super::long_poll::LongPoll;
use super::rivals::Rivals;
use super::stacks::{CURRENT, Look, SlotKey, Stacks, key};
use super::{Culprit, Evidence, Verdict};
use crate::capture::{Poller, RowId};
use crate::inflight::ReportTarget;
use crate::inflight::{Asked, Row, Trace, WaitKind, flags, waking};
use crate::text::units::count;

const MILLISECOND: u64 = 1_000_000;
/// Woken, and not polled for this long: look at the threads that hold the workers.
const SUSPICION: u64 = 2 * MILLISECOND;
/// A thread that wants the CPU handles its signal when it gets the CPU. On a busy machine that may take this long.
const LATE: u64 = 150 * MILLISECOND;
/// Children have this long to answer.
const CHILDREN: u64 = 40 * MILLISECOND;

/// The outcome of a step of a diagnosis.
pub(super) enum Step {
    /// Nothing yet. Look again at that time.
    Wait(u64),
    Found(Box<Evidence>),
    /// It ended before it could be captured.
    Gone,
}

/// What diagnoses that begin together share.
pub(super) struct Scene<'a> {
    pub(super) now: u64,
    /// The polls that were going on before the first of them was woken.
    pub(super) active: Rc<ActivePolls>,
    pub(super) children: &'a mut Children,
}

/// The diagnosis of one row.
pub(super) struct Diagnosis {
    row: &'static Row,
    id: RowId,
    /// Why it is slow. If its clock was restarted, it isn't any more.
    basis: Basis,
    reports: ReportTarget,
    update: u32,
    began: u64,
    /// Since when it has been asked to be polled. `None` while it has no waker, or is inside a poll that began before.
    asked: Option<u64>,
    /// If it is not polled by then, it is starved.
    due: u64,
    poll: LongPoll,
    active: Rc<ActivePolls>,
    culprits: Option<Vec<Culprit>>,
    children: Vec<ChildProbe>,
    rivals: Rivals,
    /// The slot and the number of the poll that does not return.
    blocked_poll: Option<(SlotKey, u64)>,
    /// Whether a second look has been taken, after the children were out of the way.
    looked_again: bool,
    notes: Vec<String>,
}

/// Asks for a traced poll of the row, at once. Returns since when one has been asked for, or `None` if the row is gone
/// or has no waker that would wake anybody.
pub(super) fn ask_for_poll(row: &'static Row, id: RowId, now: u64) -> Option<u64> {
    row.update(id, flags::WANTED, 0)?;
    let asked = row.take_waker(id)?;
    if matches!(asked, Asked::Nobody) {
        return None;
    }
    let since = row
        .details(id)
        .map(|mut details| details.trace.get_or_insert_with(|| Box::new(Trace::new(now, true))).ask(now));
    // Also if the row is gone by now: others may rely on this to wake what was taken from it.
    if let Asked::Waker(waker) = asked {
        waking::wake_row(id, waker);
    }
    since
}

impl Diagnosis {
    pub(super) fn begin(
        row: &'static Row,
        id: RowId,
        basis: Basis,
        reports: ReportTarget,
        update: u32,
        scene: Scene<'_>,
    ) -> Self {
        let Scene { now, active, children } = scene;
        let patience = (row.threshold() / 4).clamp(10 * MILLISECOND, 250 * MILLISECOND);
        let mut notes = Vec::new();
        let poll = LongPoll::watch(row, now);
        let asked = ask_for_poll(row, id, now);
        if asked.is_none() && !row.poller().is_polling() && row.polls() == 0 {
            notes.push("it has not been polled yet".to_owned());
        }
        let children = if row.flags() & flags::PARENT != 0 { children.of(id, now) } else { Vec::new() };
        for child in &children {
            ask_for_poll(child.row, child.id, now);
        }
        let rivals = Rivals::of(id, &children, now);
        let (began, due) = (now, now + patience);
        let (culprits, looked_again, blocked_poll) = (None, false, None);
        Self {
            row,
            id,
            basis,
            reports,
            update,
            began,
            asked,
            due,
            poll,
            active,
            culprits,
            children,
            rivals,
            looked_again,
            blocked_poll,
            notes,
        }
    }

    /// Returns the row under diagnosis.
    pub(super) fn id(&self) -> RowId {
        self.id
    }

    /// Returns the index of the look, 0 for the first.
    pub(super) fn update(&self) -> u32 {
        self.update
    }

    /// Returns the slot and the number of the poll that does not return, if that was the finding.
    pub(super) fn blocked_poll(&self) -> Option<(SlotKey, u64)> {
        self.blocked_poll
    }

    /// Returns where the evidence goes.
    pub(super) fn reports(&self) -> &ReportTarget {
        &self.reports
    }

    /// Returns whether there is something to see before the time it waits for: it was polled, or has ended.
    pub(super) fn is_answered(&self) -> bool {
        self.row.live().is_none_or(|(id, flags)| id != self.id || flags & flags::WANTED == 0)
    }

    /// Looks once more.
    pub(super) fn step(&mut self, now: u64, stacks: &mut Stacks) -> Step {
        let Some(flags) = self.row.live().and_then(|(id, flags)| (id == self.id).then_some(flags)) else {
            return Step::Gone;
        };
        if Basis::of(self.row) != Some(self.basis) {
            return Step::Gone;
        }
        if flags & flags::WANTED == 0 {
            // woken → polled
            return self.polled(now, stacks);
        }
        let poller = self.row.poller();
        if poller.is_polling() {
            if self.poll.is_too_long(poller, now) {
                // woken → inside a poll that does not return
                self.rivals.look(now, stacks);
                return self.blocked(now, poller, stacks);
            }
            return Step::Wait(now + MILLISECOND);
        }
        if self.poll.end() || self.asked.is_none() {
            // The poll that was going on has ended, and it was not one that was asked for. Only now is there something
            // to wake, so the clock for *starved* begins here.
            self.asked = ask_for_poll(self.row, self.id, now);
            if self.asked.is_some() {
                (self.due, self.began) = (now + (self.due - self.began), now);
            }
        }
        if now < self.began + SUSPICION {
            return Step::Wait(self.began + SUSPICION);
        }
        if self.culprits.is_none() {
            // Captured now, while they hold the workers. Whether it matters is decided later.
            let runtime = poller.slot().and_then(|slot| slot.with_life(|life| life.runtime)).flatten();
            self.culprits = Some(self.active.culprits(stacks, runtime, &mut self.notes));
        }
        if now < self.due {
            return Step::Wait((now + MILLISECOND).min(self.due));
        }
        if self.asked.is_none() && self.row.polls() > 0 {
            // never woken → nobody has kept the waker of its last poll, not even heeler, which must not be the last to
            // keep it
            return self.found(|evidence, _| evidence.verdict = Verdict::NoWaker);
        }
        // woken → nobody polls it
        self.found(|evidence, diagnosis| {
            evidence.verdict = Verdict::Starved;
            evidence.culprits = diagnosis.culprits.take().unwrap_or_default();
            if let Some(asked) = diagnosis.asked {
                // It is not known who else has woken it, or when.
                let waited = evidence.moment.saturating_sub(asked) / MILLISECOND;
                evidence
                    .notes
                    .push(format!("heeler woke it {waited} ms before this report, and it has not been polled since"));
            }
            if evidence.culprits.is_empty() {
                evidence.notes.push("no poll that heeler watches holds a worker of its runtime".to_owned());
            }
        })
    }

    fn polled(&mut self, now: u64, stacks: &mut Stacks) -> Step {
        let mut waiting = false;
        for child in &mut self.children {
            if child.done.is_none() {
                child.done = child.look(now, stacks);
                waiting |= child.done.is_none();
            }
        }
        waiting |= self.rivals.look(now, stacks);
        if waiting && now < self.began + CHILDREN {
            return Step::Wait((now + MILLISECOND).min(self.began + CHILDREN));
        }
        if !self.children.is_empty() && !self.looked_again && self.last_wait() == Some(WaitKind::Yielding) {
            // With all its members woken, a `FuturesUnordered` yields because of heeler. Does it without them?
            self.looked_again = true;
            ask_for_poll(self.row, self.id, now);
            return Step::Wait(now + MILLISECOND);
        }
        self.found(|evidence, diagnosis| {
            let (verdict, note) = verdict_of_wait(evidence);
            evidence.verdict = verdict;
            evidence.notes.extend(note.map(str::to_owned));
            let unanswered = || diagnosis.children.iter().filter(|child| child.done.is_none());
            let not_begun = unanswered().filter(|child| child.has_not_begun());
            let (on_threads, in_tasks): (Vec<_>, Vec<_>) = not_begun.partition(|child| child.needs_thread());
            let has = |number: usize| if number == 1 { "has" } else { "have" };
            for (waiting, what) in
                [(on_threads.len(), "begun: no thread was free to run it"), (in_tasks.len(), "been polled yet")]
            {
                if waiting > 0 {
                    let pieces = count(waiting as u64, "piece");
                    evidence.notes.push(format!("{pieces} of child work {} not {what}", has(waiting)));
                }
            }
            evidence.child_needs_thread = !on_threads.is_empty();
            let silent = unanswered().count() - on_threads.len() - in_tasks.len();
            if silent > 0 {
                let pieces = count(silent as u64, "piece");
                evidence.notes.push(format!("{pieces} of child work did not answer in time"));
            }
            evidence.children = diagnosis.children.iter_mut().filter_map(|child| child.done.take()).collect();
        })
    }

    fn last_wait(&self) -> Option<WaitKind> {
        let details = self.row.details(self.id)?;
        let trace = details.trace.as_ref()?;
        Some(trace.records[trace.current()?].kind)
    }

    fn blocked(&mut self, now: u64, poller: Poller, stacks: &mut Stacks) -> Step {
        let slot = poller.slot().and_then(|slot| Some((slot, slot.polling()?.1)));
        let Some((slot, poll)) = slot.filter(|_| self.row.poller() == poller) else {
            self.poll.end();
            return Step::Wait(now + MILLISECOND);
        };
        let (thread, note) = match stacks.of(slot, poll, CURRENT, now < self.began + LATE) {
            Look::Thread(thread, note) => (thread, note),
            Look::Late => return Step::Wait(now + 10 * MILLISECOND),
            Look::Missed => {
                self.poll.end();
                return Step::Wait(now + MILLISECOND);
            }
        };
        if self.row.poller() != poller {
            // Nested work may end while the poll around it goes on. Then that stack isn't its own.
            self.poll.end();
            return Step::Wait(now + MILLISECOND);
        }
        self.blocked_poll = Some((key(slot), poll));
        // The next poll need not be traced for this diagnosis.
        self.row.update(self.id, 0, flags::WANTED);
        self.found(|evidence, _| {
            evidence.verdict = Verdict::Blocking;
            evidence.thread = Some(thread);
            evidence.notes.extend(note);
        })
    }

    fn found(&mut self, conclude: impl FnOnce(&mut Evidence, &mut Self)) -> Step {
        let Some(mut evidence) = evidence(self.row, self.id) else { return Step::Gone };
        evidence.update = self.update;
        evidence.notes.append(&mut self.notes);
        conclude(&mut evidence, self);
        evidence.contention = self.rivals.evidence(self.id, &self.children);
        if self.row.update(self.id, flags::REPORTED | flags::FOLLOWED, flags::WANTED).is_none() {
            evidence.notes.push("it ended while this report was made".to_owned());
        }
        Step::Found(Box::new(evidence))
    }
}
