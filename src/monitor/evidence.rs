//! What the monitor has found out about one slow piece of work: raw stacks and numbers, not symbolized yet. Plain data
//! for the floor above.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Contention, Denied, Kind, Verdict};
use crate::capture::RowId;
use crate::capture::{self, Snapshot, ThreadSlot};
use crate::counts::COUNTS;
use crate::inflight::resources::{Entry, ReadUsage};
use crate::inflight::{ReportTarget, Silence, Stacks, Subject, WaitRecord};
use crate::sync::count;

/// One slow piece of work, as found. Durations are in nanoseconds.
pub(crate) struct Evidence {
    pub(crate) id: RowId,
    /// What `subject` describes: the row, or the work that it is a part of.
    pub(crate) work: RowId,
    /// 0 for the first capture, then the number of the later one.
    pub(crate) update: u32,
    pub(crate) kind: Kind,
    pub(crate) verdict: Verdict,
    /// Where reports about it go.
    pub(crate) reports: ReportTarget,
    pub(crate) subject: Subject,
    /// Clock ticks when it began, or when the body was asked for the frame that it does not deliver.
    pub(crate) started: u64,
    pub(crate) captured: SystemTime,
    /// The same moment in nanoseconds of heeler's clock. All durations are measured up to this moment.
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
    /// The index of the wait that is going on, or was the last.
    pub(crate) current: Option<usize>,
    /// What is known about wakers, if the last poll has left none.
    pub(crate) silence: Option<Silence>,
    /// The thread that is in its poll.
    pub(crate) thread: Option<ThreadEvidence>,
    pub(crate) culprits: Vec<Culprit>,
    pub(crate) children: Vec<ChildEvidence>,
    /// Whether some of its child work waits for a thread of the blocking pool.
    pub(crate) child_needs_thread: bool,
    /// What it waits for by name, and who holds that.
    pub(crate) contention: Option<ContentionEvidence>,
    pub(crate) others: Others,
    /// CPU time that the process did not get meanwhile.
    pub(crate) denied: Option<Denied>,
    pub(crate) notes: Vec<String>,
    /// The span around it.
    #[cfg(feature = "otel")]
    pub(crate) span: Option<opentelemetry::trace::SpanContext>,
}

impl Evidence {
    /// Returns whether a stack that is shown isn't its thread's own, and so has no frames from outside of it.
    pub(crate) fn has_foreign_stack(&self) -> bool {
        // The stack of a thread outside of any poll ends as a fiber's does.
        let culprits = self.culprits.iter().filter(|culprit| !culprit.outside).map(|culprit| &culprit.thread);
        let threads = self.thread.iter().chain(culprits);
        let threads = threads.chain(self.children.iter().filter_map(|child| child.thread.as_ref()));
        let waits = self.current.map(|index| &self.waits[index].stacks);
        let waits = waits.into_iter().chain(self.children.iter().filter_map(|child| child.stacks.as_ref()));
        let awaits = waits.flat_map(|stacks| &stacks.list);
        threads.filter_map(|thread| thread.snapshot.as_ref()).chain(awaits).any(|snapshot| snapshot.foreign)
    }
}

#[cfg(feature = "spans")]
impl Evidence {
    /// Returns the ids of the spans that each of the current stacks is in, outermost first.
    pub(crate) fn span_ids(&self) -> Vec<&[u64]> {
        let thread = self.thread.iter().filter_map(|thread| thread.snapshot.as_ref());
        let waits = self.current.map(|index| &self.waits[index].stacks.list);
        thread.chain(waits.into_iter().flatten()).map(|snapshot| &*snapshot.spans).collect()
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
    /// Converts an outcome into evidence about the slot's thread, with a note for the reader. `None` if the poll was
    /// over.
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
    /// Whether it is in no poll that heeler watches.
    pub(crate) outside: bool,
}

/// Child work: its await stacks, or its thread.
pub(crate) struct ChildEvidence {
    /// `spawn`, `spawn_blocking` or `watch_child`.
    pub(crate) how: &'static str,
    pub(crate) stacks: Option<Arc<Stacks>>,
    pub(crate) thread: Option<ThreadEvidence>,
}

/// Other work that is in flight.
#[derive(Default)]
pub(crate) struct Others {
    /// How many requests and jobs are past an eighth of their threshold, besides the one of this report.
    pub(crate) count: u32,
    /// How many of them are at the place of this report's work, and since when the first of them.
    pub(crate) here: u32,
    pub(crate) here_since: u64,
    /// Where the rest of them are. The place of the oldest comes first.
    pub(crate) places: Vec<OtherEvidence>,
}

/// The other work at one place. Times are nanoseconds of [`now`](crate::clock::now).
pub(crate) struct OtherEvidence {
    pub(crate) count: u32,
    /// Since when the first of them has been there.
    pub(crate) since: u64,
    /// Where they wait.
    pub(crate) stacks: Option<Arc<Stacks>>,
    /// The thread that one of them holds.
    pub(crate) thread: Option<ThreadEvidence>,
    /// The oldest.
    pub(crate) work: Vec<OtherWork>,
}

/// One piece of other work.
pub(crate) struct OtherWork {
    pub(crate) id: RowId,
    /// Clock ticks.
    pub(crate) started: u64,
    /// Nanoseconds.
    pub(crate) elapsed: u64,
    /// Since when it has been where it is.
    pub(crate) since: u64,
    pub(crate) subject: Subject,
    /// Where it waited before.
    pub(crate) earlier: Vec<Arc<Stacks>>,
}

/// What work waits for by name.
pub(crate) struct ContentionEvidence {
    pub(crate) name: Cow<'static, str>,
    /// Asks how much of it is in use. That is the application's code, so not here.
    pub(crate) usage: Option<ReadUsage>,
    pub(crate) contention: Contention,
    /// In the order of the contention's.
    pub(crate) holders: Vec<HolderEvidence>,
}

/// One that holds what others wait for.
pub(crate) struct HolderEvidence {
    pub(crate) entry: Entry,
    /// What it is held in. `None` if heeler does not watch it, or it has ended.
    pub(crate) work: Option<OtherWork>,
    /// The name of what it holds, in a deadlock of several.
    pub(crate) name: Cow<'static, str>,
    /// The thread that took it, if no work is known.
    pub(crate) activity: Option<capture::Activity>,
    /// Where it is now.
    pub(crate) stacks: Option<Arc<Stacks>>,
    pub(crate) thread: Option<ThreadEvidence>,
}
