//! What the monitor hands to the reporter: raw stacks and numbers, nothing named yet.

use std::sync::Arc;
use std::time::SystemTime;

use super::inbox::Charge;
use super::ledger::Weight;
use super::{Kind, Reports, Verdict};
use crate::capture::{self, Snapshot};
use crate::figures::COUNTS;
use crate::inflight::{RowId, Silence, Stacks, Subject, ThreadSlot, WaitRecord};
use crate::sync::count;

/// One slow piece of work, as found. Durations are nanoseconds.
pub(crate) struct Evidence {
    pub(crate) id: RowId,
    /// What `subject` is of: the row, or what it is a part of.
    pub(crate) work: RowId,
    /// 0 for the first capture, then the number of the later one.
    pub(crate) update: u32,
    pub(crate) kind: Kind,
    pub(crate) verdict: Verdict,
    pub(crate) reports: Reports,
    pub(crate) subject: Subject,
    /// Clock ticks when it began, or when the body was asked for the frame that it does not deliver.
    pub(crate) started: u64,
    pub(crate) captured: SystemTime,
    /// The same, in nanoseconds of heeler's clock: all times are as of then.
    pub(crate) moment: u64,
    pub(crate) elapsed: u64,
    pub(crate) threshold: u64,
    pub(crate) polls: u32,
    pub(crate) busy: u64,
    pub(crate) busy_polls: u32,
    pub(crate) longest_poll: u64,
    pub(crate) runnable: u64,
    /// The waits by place.
    pub(crate) waits: Vec<WaitRecord>,
    /// Which of them is going on, or was the last.
    pub(crate) current: Option<usize>,
    /// If the last poll has left no waker.
    pub(crate) silence: Option<Silence>,
    /// The thread in whose poll it is.
    pub(crate) thread: Option<ThreadEvidence>,
    pub(crate) culprits: Vec<Culprit>,
    pub(crate) children: Vec<ChildEvidence>,
    pub(crate) notes: Vec<String>,
    /// The span around it.
    #[cfg(feature = "otel")]
    pub(crate) span: Option<opentelemetry::trace::SpanContext>,
}

impl Evidence {
    /// Whether a stack that is shown is not its thread's own, and so has no frames of what is outside of it.
    pub(crate) fn has_foreign_stack(&self) -> bool {
        let threads = self.thread.iter().chain(self.culprits.iter().map(|culprit| &culprit.thread));
        let threads = threads.chain(self.children.iter().filter_map(|child| child.thread.as_ref()));
        let waits = self.current.map(|index| &self.waits[index].stacks);
        let waits = waits.into_iter().chain(self.children.iter().filter_map(|child| child.stacks.as_ref()));
        let awaits = waits.flat_map(|stacks| &stacks.list);
        threads.filter_map(|thread| thread.snapshot.as_ref()).chain(awaits).any(|snapshot| snapshot.foreign)
    }
}

#[cfg(feature = "spans")]
impl Evidence {
    /// The ids of the spans that each of the current stacks is in, outermost first.
    pub(crate) fn span_ids(&self) -> Vec<&[u64]> {
        let thread = self.thread.iter().filter_map(|thread| thread.snapshot.as_ref());
        let waits = self.current.map(|index| &self.waits[index].stacks.list);
        thread.chain(waits.into_iter().flatten()).map(|snapshot| &*snapshot.spans).collect()
    }
}

impl Evidence {
    /// What it takes of the memory of its reports while it waits.
    pub(super) fn charge(&self) -> Charge {
        let mut weight = Weight { own: size_of::<Self>() + self.subject.size(), shared: Vec::new() };
        weight.own += self.notes.iter().map(|note| size_of::<String>() + note.capacity()).sum::<usize>();
        for wait in &self.waits {
            weight.own += size_of::<WaitRecord>();
            weight.add_stacks(&wait.stacks);
        }
        let threads = self.thread.iter().chain(self.culprits.iter().map(|culprit| &culprit.thread));
        threads.chain(self.children.iter().filter_map(|child| child.thread.as_ref())).for_each(|thread| {
            weight.own += size_of::<Culprit>();
            thread.snapshot.iter().for_each(|snapshot| weight.add_snapshot(snapshot));
        });
        for culprit in &self.culprits {
            weight.own += culprit.work.size();
        }
        for child in &self.children {
            weight.own += size_of::<ChildEvidence>();
            child.stacks.iter().for_each(|stacks| weight.add_stacks(stacks));
        }
        Charge { owner: self.reports.address(), weight, limit: self.reports.evidence_bytes() }
    }
}

impl Weight {
    fn add_stacks(&mut self, stacks: &Stacks) {
        stacks.list.iter().for_each(|snapshot| self.add_snapshot(snapshot));
    }

    /// Requests that wait for the same worker may have the same copy of its stack.
    fn add_snapshot(&mut self, snapshot: &Snapshot) {
        self.own += size_of::<Snapshot>() + size_of_val(&*snapshot.spans);
        self.shared.push((snapshot.address(), snapshot.size()));
    }
}

/// A thread inside a poll.
#[derive(Clone)]
pub(crate) struct ThreadEvidence {
    pub(crate) activity: capture::Activity,
    /// `None` if it did not answer.
    pub(crate) snapshot: Option<Snapshot>,
}

impl ThreadEvidence {
    /// What an outcome says of the slot's thread, and what a reader should know of it; `None` if the poll was over.
    pub(crate) fn of(outcome: capture::Outcome, slot: &ThreadSlot) -> Option<(Self, Option<String>)> {
        use capture::Outcome;
        count(match &outcome {
            Outcome::Captured(..) => &COUNTS.threads_captured,
            Outcome::Missed => &COUNTS.threads_missed,
            Outcome::NoAnswer(_) => &COUNTS.threads_unanswered,
            Outcome::Foreign(..) | Outcome::Unavailable(_) => &COUNTS.threads_unavailable,
        });
        if let Outcome::Captured(snapshot, _) = &outcome
            && snapshot.truncated
            && !snapshot.foreign
        {
            count(&COUNTS.threads_truncated);
        }
        Some(match outcome {
            Outcome::Captured(snapshot, activity) => (Self { activity, snapshot: Some(snapshot) }, None),
            Outcome::NoAnswer(activity) => {
                let note = "the thread did not answer within 50 ms: it is uninterruptible, or masks the signal";
                (Self { activity, snapshot: None }, Some(note.to_owned()))
            }
            Outcome::Foreign(activity, why) => {
                (Self { activity, snapshot: None }, Some(format!("could not capture the thread's stack: {why}")))
            }
            Outcome::Unavailable(why) => {
                let activity = capture::look(slot.with_life(|life| life.tid)?);
                (Self { activity, snapshot: None }, Some(format!("could not capture the thread's stack: {why}")))
            }
            Outcome::Missed => return None,
        })
    }
}

/// A thread that holds a worker.
pub(crate) struct Culprit {
    pub(crate) thread: ThreadEvidence,
    pub(crate) work: Subject,
}

/// Child work: its await stacks, or its thread.
pub(crate) struct ChildEvidence {
    /// `spawn`, `spawn_blocking`, `watch_child`.
    pub(crate) how: &'static str,
    pub(crate) stacks: Option<Arc<Stacks>>,
    pub(crate) thread: Option<ThreadEvidence>,
}
