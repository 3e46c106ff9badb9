//! From evidence to a report: unwinds and names the stacks, and adds the time up. On a thread of heeler's own.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use super::around::Around;
use super::evidence::{Culprit, Evidence, ThreadEvidence};
use super::model::{Interval, Process, Report, Request, SCHEMA, Span, Stack, Thread};
use super::redact::Redactor;
use super::waits::Group;
use super::words::{Activity, Kind, StackKind, Verdict};
use crate::capture::{self, Origin, Snapshot, Symbols, Unwinder};
use crate::figures::COUNTS;
use crate::inflight::{Subject, WaitKind};
use crate::sync::count;

/// Makes ids that differ between processes; of one piece of work, whoever assembles, the same.
static IDS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Turns evidence into reports. Belongs to one thread: the reporter's, or the namer's.
#[derive(Debug)]
pub(super) struct Assembler {
    unwinder: Unwinder,
    symbols: Symbols,
}

fn millis(nanos: u64) -> f64 {
    // Microseconds are as fine as a reader wants them.
    (nanos / 1_000) as f64 / 1_000.0
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self { unwinder: Unwinder::new(), symbols: Symbols::new() }
    }

    pub(super) fn symbols(&mut self) -> &mut Symbols {
        &mut self.symbols
    }

    pub(super) fn assemble(&mut self, evidence: Evidence) -> Report {
        if self.unwinder.refresh() {
            self.symbols.forget();
        }
        let redactor = evidence.reports.redactor();
        let mut report = blank(&evidence);
        report.id = format!("{:016x}", IDS.hash_one((evidence.id.to_bits(), evidence.started)));
        match &evidence.subject {
            Subject::Request(request) => report.request = Some(describe(request, &evidence, redactor)),
            Subject::Job(job) => report.job = Some(redactor.field("job", &job.name)),
            Subject::Child(_) | Subject::Timebox(_) | Subject::Nothing => {}
        }
        self.own_thread(&evidence, &mut report);
        self.culprits(&evidence.culprits, redactor, &mut report);
        self.children(&evidence, &mut report);
        self.waits(&evidence, &mut report);
        if report.verdict == Verdict::Waiting && yields(&report.stacks) {
            report.verdict = Verdict::Yielding;
        }
        if report.stacks.iter().any(|stack| stack.truncated) {
            count(&COUNTS.truncated);
            report.notes.push("a stack was cut: its outer frames are missing".to_owned());
        }
        report.spans = spans(&evidence, redactor);
        report
    }

    fn own_thread(&mut self, evidence: &Evidence, report: &mut Report) {
        let Some(thread) = &evidence.thread else { return };
        report.thread = Some(thread_of(thread));
        if let Some(snapshot) = &thread.snapshot {
            let stack = self.stack(snapshot, StackKind::Thread);
            report.stacks.push(Stack { thread: report.thread.clone(), ..stack });
        }
    }

    fn culprits(&mut self, culprits: &[Culprit], redactor: &Redactor, report: &mut Report) {
        for culprit in culprits {
            let work = match &culprit.work {
                Subject::Request(request) => {
                    let path = request.path.as_ref().map_or("/", |path| path.as_str());
                    Some(format!("{} {}", redactor.field("method", request.method.as_str()), redactor.uri(path)))
                }
                Subject::Job(job) => Some(redactor.field("job", &job.name)),
                Subject::Child(child) => Some(child.how.as_str().to_owned()),
                Subject::Timebox(timebox) => Some(match timebox.label() {
                    Some(label) => redactor.field("timebox", label),
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

    /// The await stacks, and where the time went.
    fn waits(&mut self, evidence: &Evidence, report: &mut Report) {
        let running = report.stacks.iter().position(|stack| stack.kind == StackKind::Thread && stack.child.is_none());
        // Inside a poll, no await stack is current.
        let waiting = evidence.thread.is_none();
        let mut observed = evidence.busy;
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
            // The last first: what was left for it in the same poll, as a timer that has just run out, is no branch.
            let stacks: Vec<Stack> = branches.rev().collect();
            if current && wait.lost > 0 {
                report.notes.push(format!("{} more branches wait, whose stacks could not be copied", wait.lost));
            }
            observed += wait.nanos;
            let activity = match wait.kind {
                WaitKind::Yielding => Activity::Yielding,
                WaitKind::Waiting | WaitKind::NoWaker => Activity::Waiting,
            };
            Group::new(activity, current, stacks, wait.waits, wait.nanos).join(&mut groups);
        }
        for group in groups {
            let first = report.stacks.len();
            let stack = (!group.stacks.is_empty()).then_some(first);
            report.stacks.extend(group.stacks);
            let (activity, waits, ms) = (group.activity, group.waits, millis(group.nanos));
            report.timeline.push(Interval { activity, stack, waits, ms });
        }
        if evidence.busy > 0 {
            let (waits, ms) = (evidence.busy_polls, millis(evidence.busy));
            report.timeline.push(Interval { activity: Activity::Running, stack: running, waits, ms });
        }
        report.busy_ms = millis(evidence.busy);
        if evidence.runnable > 0 {
            let (stack, ms) = (None, millis(evidence.runnable));
            report.timeline.push(Interval { activity: Activity::Runnable, stack, waits: 1, ms });
            observed += evidence.runnable;
        }
        // Time between polls, whether it was still waiting or had been woken: so the three shares sum to the whole, too.
        report.waiting_ms = millis(observed - evidence.busy);
        // By subtraction: so the shares sum to the whole whatever happens.
        report.unobserved_ms = millis(evidence.elapsed.saturating_sub(observed));
        if report.unobserved_ms > 0.0 {
            let (stack, ms) = (None, report.unobserved_ms);
            report.timeline.push(Interval { activity: Activity::Unobserved, stack, waits: 0, ms });
        }
        for interval in &mut report.timeline {
            // One that only a look of heeler's has found is a wait nevertheless.
            if matches!(interval.activity, Activity::Waiting | Activity::Yielding) {
                interval.waits = interval.waits.max(1);
            }
        }
        report.timeline.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    }

    fn stack(&mut self, snapshot: &Snapshot, kind: StackKind) -> Stack {
        let unwound = self.unwinder.unwind(snapshot);
        let mut frames: Vec<_> =
            unwound.addresses.iter().flat_map(|address| self.symbols.name(address).to_vec()).collect();
        if !capture::sys::SUPPORTED {
            without_tracer(&mut frames);
        }
        // Reports may wait for long, thousands of them.
        frames.shrink_to_fit();
        let reconstructed = snapshot.origin == Origin::Residue;
        Stack { frames, truncated: !unwound.complete, reconstructed, ..Stack::empty(kind) }
    }
}

/// A stack that was walked begins with the frames of whatever has walked it, and of the waker that it was walked in.
fn without_tracer(frames: &mut Vec<capture::Frame>) {
    const CALLBACKS: [&str; 3] =
        ["heeler::capture::task::clone", "heeler::capture::task::wake", "heeler::capture::task::wake_by_ref"];
    let is_callback = |frame: &capture::Frame| frame.function.as_deref().is_some_and(|name| CALLBACKS.contains(&name));
    if let Some(last) = frames.iter().rposition(is_callback) {
        frames.drain(..=last);
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
        elapsed_ms: millis(evidence.elapsed),
        threshold_ms: (evidence.threshold != u64::MAX && evidence.kind != Kind::BlockingPoll)
            .then(|| millis(evidence.threshold)),
        request: None,
        job: None,
        process: Process::default(),
        thread: None,
        polls: evidence.polls,
        busy_ms: 0.0,
        waiting_ms: 0.0,
        unobserved_ms: 0.0,
        longest_poll_ms: millis(evidence.longest_poll),
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

fn describe(request: &crate::inflight::Request, evidence: &Evidence, redactor: &Redactor) -> Request {
    let path = request.path.as_ref().map_or("/", |path| path.as_str());
    // HTTP/2 names the host in the URI, HTTP/1 in a header.
    let uri = match &request.authority {
        Some(authority) => {
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            redactor.uri(&format!("//{host}{path}"))
        }
        None => redactor.uri(path),
    };
    let names = request.headers_of.get().map(|policy| policy.headers.as_slice()).unwrap_or_default();
    let headers = request.headers.iter().filter_map(|(index, value)| Some((names.get(usize::from(*index))?, value)));
    // They were kept as the outer layer allows; these reports may be an inner layer's.
    let allowed = evidence.reports.allowed_headers();
    let headers = headers.filter(|(name, _)| allowed.contains(name));
    Request {
        id: evidence.work.to_bits(),
        method: redactor.field("method", request.method.as_str()),
        uri,
        route: request.route().map(|route| redactor.field("route", route)),
        version: format!("{:?}", request.version),
        headers: headers.map(|(name, value)| (name.as_str().to_owned(), redactor.header(name, value))).collect(),
    }
}

fn thread_of(thread: &ThreadEvidence) -> Thread {
    let activity: &capture::Activity = &thread.activity;
    Thread {
        id: activity.tid,
        name: super::escape::escape(&activity.name, 64).into_owned(),
        state: activity.state_name().map(str::to_owned),
        syscall: activity.call_name(),
        wchan: activity.wchan.clone(),
        on_cpu: activity.on_cpu(),
    }
}

/// Whether all branches wait only because tokio's budget was used up: they gave way, and will go on at once.
fn yields(stacks: &[Stack]) -> bool {
    let mut own =
        stacks.iter().filter(|stack| stack.current && stack.kind == StackKind::Await && stack.child.is_none());
    let gave_way = |stack: &Stack| {
        let mut leaf = stack.frames.iter().take(6).filter_map(|frame| frame.function.as_deref());
        leaf.any(|name| name.contains("tokio::runtime::context::defer") || name.contains("tokio::task::coop::register"))
    };
    let first = own.next();
    first.is_some_and(gave_way) && own.all(gave_way)
}

fn spans(evidence: &Evidence, redactor: &Redactor) -> Vec<Span> {
    #[cfg(feature = "spans")]
    {
        let mut ids: Vec<u64> = Vec::new();
        for id in evidence.span_ids().into_iter().flatten() {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        let resolved = crate::spans::resolve(&ids);
        let redact = |(name, value): (String, String)| {
            let value = redactor.field(&name, &value);
            (name, value)
        };
        resolved
            .into_iter()
            .map(|(name, fields)| Span { name, fields: fields.into_iter().map(redact).collect() })
            .collect()
    }
    #[cfg(not(feature = "spans"))]
    {
        let _ = (evidence, redactor);
        Vec::new()
    }
}
