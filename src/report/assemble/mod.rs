//! Turns evidence into a report, on a thread of heeler's own: unwinds and symbolizes the stacks, and adds up the time.
//! What it says about the request is still unredacted. It is redacted when the report is
//! [completed](super::Reports::deliver).

pub(in crate::report) mod around;
pub(in crate::report) mod described;
pub(in crate::report) mod location;
pub(in crate::report) mod request;
pub(in crate::report) mod route;
pub(in crate::report) mod source;
pub(in crate::report) mod symbolize;
pub(in crate::report) mod symbolizer;
pub(in crate::report) mod waits;
pub(in crate::report) mod yielding;

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use super::model::{Interval, ProcessInfo, Report, SCHEMA, Span, Stack, Thread};
use crate::capture::{self, Origin, Snapshot, Symbols, Unwinder};
use crate::counts::COUNTS;
use crate::inflight::{Subject, WaitKind};
use crate::monitor::{Culprit, Evidence, ThreadEvidence};
use crate::monitor::{Kind, Verdict};
use crate::report::assemble::around::Around;
use crate::report::assemble::location::is_idle;
use crate::report::assemble::request::describe;
use crate::report::assemble::waits::Group;
use crate::report::assemble::yielding::yields;
use crate::report::model::words::{Activity, StackKind};
use crate::sync::count;

/// Makes ids that differ between processes. Every assembler gives the same piece of work the same id.
static IDS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Turns evidence into reports. Belongs to one thread: the reporter's or the symbolizer's.
#[derive(Debug)]
pub(in crate::report) struct Assembler {
    unwinder: Unwinder,
    symbols: Symbols,
}

/// Rounds to whole microseconds, which is precise enough for a reader.
fn rounded(nanos: u64) -> Duration {
    Duration::from_micros(nanos / 1_000)
}

/// Divides a time into shares. No time is taken twice, and the rounded shares add up to the whole.
struct Shares {
    whole: u64,
    taken: u64,
}

impl Shares {
    /// Takes a share. Anything beyond the whole is left out.
    fn take(&mut self, nanos: u64) -> Duration {
        let before = rounded(self.taken);
        self.taken = self.taken.saturating_add(nanos).min(self.whole);
        rounded(self.taken) - before
    }

    fn rest(&mut self) -> Duration {
        self.take(u64::MAX)
    }
}

impl Assembler {
    pub(in crate::report) fn new() -> Self {
        Self { unwinder: Unwinder::new(), symbols: Symbols::new() }
    }

    pub(in crate::report) fn assemble(&mut self, evidence: Evidence) -> Report {
        // Before the stacks are symbolized, which may take longer than the spans stay open.
        let spans = spans(&evidence);
        if self.unwinder.refresh() {
            self.symbols.forget();
        }
        self.learn_names(&evidence);
        let mut report = blank(&evidence);
        report.id = format!("{:016x}", IDS.hash_one((evidence.id.to_bits(), evidence.started)));
        match &evidence.subject {
            Subject::Request(request) => report.request = Some(describe(request, &evidence)),
            Subject::Job(job) => report.job = Some(job.name.to_string()),
            Subject::Child(_) | Subject::Timebox(_) | Subject::Nothing => {}
        }
        self.own_thread(&evidence, &mut report);
        self.culprits(&evidence.culprits, &mut report);
        self.children(&evidence, &mut report);
        self.waits(&evidence, &mut report);
        if report.stacks.iter().any(|stack| stack.truncated) {
            count(&COUNTS.truncated);
            report.notes.push("a stack was cut: its outer frames are missing".to_owned());
        }
        if evidence.has_foreign_stack() {
            let note = "it runs on a stack of its own (a fiber's): the frames outside of that are not shown";
            report.notes.push(note.to_owned());
        }
        report.spans = spans;
        self.symbols.trim();
        report
    }

    /// Symbolizes all stacks at once, because the debug information is opened and read anew each time. Unwinding them
    /// twice takes only microseconds.
    fn learn_names(&mut self, evidence: &Evidence) {
        let threads = evidence.thread.iter().chain(evidence.culprits.iter().map(|culprit| &culprit.thread));
        let threads = threads.chain(evidence.children.iter().filter_map(|child| child.thread.as_ref()));
        let of_threads = threads.filter_map(|thread| thread.snapshot.as_ref());
        let of_children = evidence.children.iter().flat_map(|child| &child.stacks).flat_map(|stacks| &stacks.list);
        let of_waits = evidence.waits.iter().flat_map(|wait| &wait.stacks.list);
        let mut addresses = Vec::new();
        for snapshot in of_threads.chain(of_children).chain(of_waits) {
            addresses.extend(self.unwinder.unwind(snapshot).addresses);
        }
        self.symbols.learn(&addresses);
    }

    fn own_thread(&mut self, evidence: &Evidence, report: &mut Report) {
        let Some(thread) = &evidence.thread else { return };
        report.thread = Some(thread_of(thread));
        if let Some(snapshot) = &thread.snapshot {
            let stack = self.stack(snapshot, StackKind::Thread);
            report.stacks.push(Stack { thread: report.thread.clone(), ..stack });
        }
    }

    fn culprits(&mut self, culprits: &[Culprit], report: &mut Report) {
        for culprit in culprits {
            let work = match &culprit.work {
                Subject::Request(request) => {
                    let path = request.path.as_ref().map_or("/", |path| path.as_str());
                    Some(format!("{} {path}", request.method))
                }
                Subject::Job(job) => Some(job.name.to_string()),
                Subject::Child(child) => Some(child.how.as_str().to_owned()),
                Subject::Timebox(timebox) => Some(match timebox.label() {
                    Some(label) => label.to_string(),
                    None => "a timebox".to_owned(),
                }),
                Subject::Nothing => None,
            };
            let mut stack = match &culprit.thread.snapshot {
                Some(snapshot) => self.stack(snapshot, StackKind::Culprit),
                None => Stack::empty(StackKind::Culprit),
            };
            stack.thread = Some(thread_of(&culprit.thread));
            stack.work = work;
            report.stacks.push(stack);
        }
    }

    fn children(&mut self, evidence: &Evidence, report: &mut Report) {
        for child in &evidence.children {
            if let Some(thread) = &child.thread {
                let mut stack = match &thread.snapshot {
                    Some(snapshot) => self.stack(snapshot, StackKind::Thread),
                    None => Stack::empty(StackKind::Thread),
                };
                stack.child = Some(child.how.to_owned());
                stack.thread = Some(thread_of(thread));
                report.stacks.push(stack);
            }
            let stacks = child.stacks.iter().flat_map(|stacks| &stacks.list);
            for (branch, snapshot) in stacks.enumerate() {
                let stack = self.stack(snapshot, StackKind::Await);
                report.stacks.push(Stack { child: Some(child.how.to_owned()), branch: branch as u32, ..stack });
            }
        }
    }

    /// Adds the await stacks, and where the time went.
    fn waits(&mut self, evidence: &Evidence, report: &mut Report) {
        let running = report.stacks.iter().position(|stack| stack.kind == StackKind::Thread && stack.child.is_none());
        // Inside a poll, no await stack is current.
        let waiting = evidence.thread.is_none();
        let mut groups: Vec<Group> = Vec::new();
        for (index, wait) in evidence.waits.iter().enumerate() {
            let current = waiting && evidence.current == Some(index);
            if wait.nanos == 0 && !current {
                continue;
            }
            let branches = wait.stacks.list.iter().enumerate().map(|(branch, snapshot)| {
                let stack = self.stack(snapshot, StackKind::Await);
                Stack { current, branch: branch as u32, ..stack }
            });
            // The last comes first. Something left for it in the same poll, like a timer that has just run out, isn't a
            // branch.
            let mut stacks: Vec<Stack> = branches.rev().collect();
            if current && wait.lost > 0 {
                report.notes.push(match wait.lost {
                    1 => "1 more branch waits, whose stack could not be copied".to_owned(),
                    lost => format!("{lost} more branches wait, whose stacks could not be copied"),
                });
            }
            let activity = match wait.kind {
                WaitKind::Yielding => Activity::Yielding,
                WaitKind::Waiting if yields(&stacks, wait.gave_way) => Activity::Yielding,
                WaitKind::Waiting | WaitKind::NoWaker => Activity::Waiting,
            };
            if activity == Activity::Yielding {
                // The branch that gave way says more than a timer beside it.
                stacks.sort_by_key(is_idle);
            }
            if current && activity == Activity::Yielding && report.verdict == Verdict::Waiting {
                report.verdict = Verdict::Yielding;
            }
            Group::new(activity, current, stacks, wait.waits, wait.nanos).join(&mut groups);
        }
        let mut shares = Shares { whole: evidence.elapsed, taken: 0 };
        for group in groups {
            let first = report.stacks.len();
            let stack = (!group.stacks.is_empty()).then_some(first);
            report.stacks.extend(group.stacks);
            let (activity, waits, time) = (group.activity, group.waits, shares.take(group.nanos));
            report.timeline.push(Interval { activity, stack, waits, time });
        }
        if evidence.runnable > 0 {
            let (stack, time) = (None, shares.take(evidence.runnable));
            report.timeline.push(Interval { activity: Activity::Runnable, stack, waits: 1, time });
        }
        // Includes time after the work was woken, so that the three shares sum to the whole.
        report.waiting = rounded(shares.taken);
        if evidence.busy > 0 {
            report.busy = shares.take(evidence.busy);
            let (waits, time) = (evidence.busy_polls, report.busy);
            report.timeline.push(Interval { activity: Activity::Running, stack: running, waits, time });
        }
        report.unobserved = shares.rest();
        if !report.unobserved.is_zero() {
            let (stack, time) = (None, report.unobserved);
            report.timeline.push(Interval { activity: Activity::Unobserved, stack, waits: 0, time });
        }
        for interval in &mut report.timeline {
            // A wait that only heeler's look found still counts as a wait.
            if matches!(interval.activity, Activity::Waiting | Activity::Yielding) {
                interval.waits = interval.waits.max(1);
            }
        }
        report.timeline.sort_by_key(|interval| std::cmp::Reverse(interval.time));
    }

    fn stack(&mut self, snapshot: &Snapshot, kind: StackKind) -> Stack {
        let unwound = self.unwinder.unwind(snapshot);
        let mut frames = self.symbols.frames(&unwound.addresses);
        if kind == StackKind::Await {
            capture::drop_copying(&mut frames);
        }
        // Thousands of reports may wait for a long time.
        frames.shrink_to_fit();
        let reconstructed = snapshot.origin == Origin::DeadFrames;
        Stack { frames, truncated: !unwound.complete, reconstructed, ..Stack::empty(kind) }
    }
}

fn blank(evidence: &Evidence) -> Report {
    let elapsed = Duration::from_nanos(evidence.elapsed);
    Report {
        schema: SCHEMA,
        id: String::new(),
        update: evidence.update,
        kind: evidence.kind,
        verdict: evidence.verdict,
        captured_at: evidence.captured,
        started_at: evidence.captured.checked_sub(elapsed).unwrap_or(evidence.captured),
        elapsed: rounded(evidence.elapsed),
        threshold: (evidence.threshold != u64::MAX && evidence.kind != Kind::BlockingPoll)
            .then(|| rounded(evidence.threshold)),
        request: None,
        job: None,
        process: ProcessInfo::default(),
        thread: None,
        polls: evidence.polls,
        busy: Duration::ZERO,
        waiting: Duration::ZERO,
        unobserved: Duration::ZERO,
        longest_poll: rounded(evidence.longest_poll),
        location: None,
        stacks: Vec::new(),
        timeline: Vec::new(),
        spans: Vec::new(),
        notes: evidence.notes.clone(),
        fingerprint: String::new(),
        suppressed: 0,
        around: Around::of(evidence),
    }
}

fn thread_of(thread: &ThreadEvidence) -> Thread {
    let activity: &capture::Activity = &thread.activity;
    Thread {
        id: activity.tid,
        name: activity.name.clone(),
        state: activity.state_name().map(str::to_owned),
        syscall: activity.call_name(),
        wchan: activity.wchan.clone(),
        on_cpu: activity.on_cpu(),
    }
}

fn spans(evidence: &Evidence) -> Vec<Span> {
    #[cfg(feature = "spans")]
    {
        let mut ids: Vec<u64> = Vec::new();
        for id in evidence.span_ids().into_iter().flatten() {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        crate::inflight::spans::resolve(&ids).into_iter().map(|(name, fields)| Span { name, fields }).collect()
    }
    #[cfg(not(feature = "spans"))]
    {
        let _ = evidence;
        Vec::new()
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::super::testing::evidence;
    use super::*;
    use crate::inflight::WaitRecord;
    use crate::report::Reports;

    fn reports() -> Reports {
        Reports::builder().without_log().build().unwrap()
    }

    /// Guards: a note about one branch is singular.
    #[test]
    fn a_note_counts_the_lost_branches() {
        for (lost, expected) in [(1, "1 more branch waits, whose stack "), (2, "2 more branches wait, whose stacks ")] {
            let mut evidence = evidence(reports());
            let mut wait = WaitRecord::without_stacks(WaitKind::Waiting, 1, 5);
            wait.lost = lost;
            evidence.waits = vec![wait];
            (evidence.current, evidence.thread) = (Some(0), None);
            let report = Assembler::new().assemble(evidence);
            assert!(report.notes.iter().any(|note| note.starts_with(expected)), "{:?}", report.notes);
        }
    }

    /// Guards: the parts of a report sum to the whole, to the microsecond, whatever the evidence says.
    #[test]
    fn the_parts_sum_to_the_whole() {
        let (assembler, reports) = (RefCell::new(Assembler::new()), reports());
        let times = (0..10_000_000_u64, 0..10_000_000_u64, 0..3_000_000_u64);
        let waits = prop::collection::vec((0..3_usize, 0..4_000_000_u64), 0..6);
        proptest!(|((elapsed, busy, runnable) in times, waits in waits)| {
            let mut evidence = evidence(reports.clone());
            (evidence.elapsed, evidence.busy, evidence.runnable) = (elapsed, busy, runnable);
            let kinds = [WaitKind::Waiting, WaitKind::Yielding, WaitKind::NoWaker];
            let wait = |(kind, nanos): (usize, u64)| WaitRecord::without_stacks(kinds[kind], 1, nanos);
            evidence.waits = waits.into_iter().map(wait).collect();
            evidence.current = evidence.waits.len().checked_sub(1);
            let report = assembler.borrow_mut().assemble(evidence);
            prop_assert_eq!(report.busy + report.waiting + report.unobserved, report.elapsed);
            prop_assert_eq!(report.timeline.iter().map(|interval| interval.time).sum::<Duration>(), report.elapsed);
            prop_assert!(report.timeline.iter().all(|interval| interval.time <= report.elapsed));
        });
    }
}
