//! Turns evidence into a report, on a thread of heeler's own: unwinds and symbolizes the stacks, and adds up the time.
//! What it says about the request is still unredacted. It is redacted when the report is
//! [completed](super::Reports::deliver).

pub(in crate::report) mod around;
pub(in crate::report) mod awaiting;
pub(in crate::report) mod blocking_pool;
pub(in crate::report) mod cause;
pub(in crate::report) mod churn;
pub(in crate::report) mod described;
pub(in crate::report) mod elsewhere;
pub(in crate::report) mod location;
pub(in crate::report) mod phrases;
pub(in crate::report) mod request;
pub(in crate::report) mod route;
pub(in crate::report) mod source;
pub(in crate::report) mod symbolize;
pub(in crate::report) mod symbolizer;
mod timeline;
pub(in crate::report) mod waits;
pub(in crate::report) mod yielding;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::model::{Denied, ProcessInfo, Report, SCHEMA, Span, Stack, Thread};
use crate::capture::{self, Address, Origin, PerProcess, RowId, Snapshot, Symbols, Unwinder};
use crate::counts::COUNTS;
use crate::inflight::{Stacks, Subject};
use crate::monitor::{Culprit, Evidence, Kind, ThreadEvidence};
use crate::report::assemble::around::Around;
use crate::report::assemble::blocking_pool::PoolLook;
use crate::report::assemble::elsewhere::Elsewhere;
use crate::report::assemble::request::{describe, trace_ids};
use crate::report::model::words::StackKind;
use crate::report::threads::{Looked, ThreadDump};
use crate::sync::count;

/// Makes ids that differ between processes. Every assembler gives the same piece of work the same id.
static IDS: PerProcess<RandomState> = PerProcess::new(RandomState::new);

/// Turns evidence into reports. Belongs to one thread: the reporter's or the symbolizer's.
pub(in crate::report) struct Assembler {
    unwinder: Unwinder,
    symbols: Symbols,
    /// Stacks of other work that reports have shown lately, with their frames.
    recent: VecDeque<(Arc<Stacks>, Vec<Stack>)>,
    pool: Option<PoolLook>,
}

/// Returns the id of reports about the work of that row, which began at that many ticks.
pub(in crate::report) fn report_id(id: RowId, started: u64) -> String {
    format!("{:016x}", IDS.get().hash_one((id.to_bits(), started)))
}

/// Rounds to whole microseconds, which is precise enough for a reader.
pub(in crate::report) fn rounded(nanos: u64) -> Duration {
    Duration::from_micros(nanos / 1_000)
}

impl std::fmt::Debug for Assembler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assembler").finish_non_exhaustive()
    }
}

impl Assembler {
    pub(in crate::report) fn new() -> Self {
        Self { unwinder: Unwinder::new(), symbols: Symbols::new(), recent: VecDeque::new(), pool: None }
    }

    pub(in crate::report) fn assemble(&mut self, evidence: Evidence) -> Report {
        // Before the stacks are symbolized, which may take longer than the spans stay open.
        let spans = spans(&evidence);
        self.refresh();
        self.learn_names(&evidence);
        let mut report = blank(&evidence);
        report.id = report_id(evidence.id, evidence.started);
        match &evidence.subject {
            Subject::Request(request) => report.request = Some(describe(request, evidence.work, &evidence)),
            Subject::Job(job) => {
                report.job = Some(job.name.to_string());
                report.request = job.origin.as_ref().map(|origin| describe(&origin.request, origin.id, &evidence));
            }
            Subject::Child(_) | Subject::Timebox(_) | Subject::Nothing => {}
        }
        if let Some(ids) = trace_ids(&evidence) {
            (report.trace_id, report.span_id) = (Some(ids.trace), Some(ids.span));
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
        report.elsewhere = Elsewhere { pool: self.blocking_pool(&report), ..self.elsewhere(&evidence, &report) };
        self.symbols.trim();
        report
    }

    /// Forgets what was known of modules if others have been loaded.
    pub(in crate::report) fn refresh(&mut self) {
        if self.unwinder.refresh() {
            self.symbols.forget();
            self.recent.clear();
        }
    }

    /// Names the stacks of threads, and groups the threads by them.
    pub(in crate::report) fn threads(&mut self, looked: Looked) -> ThreadDump {
        self.refresh();
        let threads = looked.grouped(&mut self.unwinder, &mut self.symbols);
        self.symbols.trim();
        threads
    }

    /// Symbolizes the stacks of several at once.
    pub(in crate::report) fn learn_all(&mut self, all: &[Evidence]) {
        let addresses: Vec<_> = all.iter().flat_map(|evidence| self.addresses(evidence)).collect();
        self.symbols.learn(&addresses);
    }

    /// Symbolizes all stacks at once, because the debug information is opened and read anew each time. Unwinding them
    /// twice takes only microseconds.
    fn learn_names(&mut self, evidence: &Evidence) {
        let addresses = self.addresses(evidence);
        self.symbols.learn(&addresses);
    }

    fn addresses(&mut self, evidence: &Evidence) -> Vec<Address> {
        let threads = evidence.thread.iter().chain(evidence.culprits.iter().map(|culprit| &culprit.thread));
        let threads = threads.chain(evidence.children.iter().filter_map(|child| child.thread.as_ref()));
        let of_threads = threads.filter_map(|thread| thread.snapshot.as_ref());
        let of_children = evidence.children.iter().flat_map(|child| &child.stacks).flat_map(|stacks| &stacks.list);
        let of_waits = evidence.waits.iter().flat_map(|wait| &wait.stacks.list);
        let mut addresses = Vec::new();
        for snapshot in of_threads.chain(of_children).chain(of_waits) {
            addresses.extend(self.unwinder.unwind_with_tail_calls(snapshot).addresses);
        }
        addresses
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

    fn stack(&mut self, snapshot: &Snapshot, kind: StackKind) -> Stack {
        let unwound = self.unwinder.unwind_with_tail_calls(snapshot);
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
        trace_id: None,
        span_id: None,
        trace_url: None,
        ending: None,
        process: ProcessInfo::default(),
        thread: None,
        polls: evidence.polls,
        busy: Duration::ZERO,
        waiting: Duration::ZERO,
        unobserved: Duration::ZERO,
        longest_poll: rounded(evidence.longest_poll),
        location: None,
        repeats: None,
        denied: evidence.denied.map(|denied| {
            let (time, of) = (rounded(denied.nanos), rounded(denied.of));
            Denied { time, of, by: denied.by }
        }),
        awaiting: None,
        stacks: Vec::new(),
        timeline: Vec::new(),
        spans: Vec::new(),
        notes: evidence.notes.clone(),
        fingerprint: String::new(),
        suppressed: 0,
        others: None,
        incident: String::new(),
        fleet: None,
        dump: None,
        around: Around::of(evidence),
        elsewhere: Elsewhere::default(),
        child_needs_thread: evidence.child_needs_thread,
    }
}

fn thread_of(thread: &ThreadEvidence) -> Thread {
    described_thread(&thread.activity)
}

pub(in crate::report) fn described_thread(activity: &capture::Activity) -> Thread {
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
