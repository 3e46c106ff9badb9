//! Dumps as reports.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::{Dump, blocking_dump};
use crate::capture::sys;
use crate::disabled::is_disabled;
use crate::log::log_safely;
use crate::monitor::{Kind, Verdict};
use crate::report::model::{ProcessInfo, Report, SCHEMA};
use crate::report::{DumpState, Reports};
use crate::text::units::{count, were};

/// At most this much work is listed in a report.
const MAX_WORK: usize = 5_000;
/// The most characters of a reason.
const MAX_REASON: usize = 200;

impl Reports {
    /// Takes a [dump](crate::dump()), and sends it to all sinks as a report of the kind *dump*. `reason` is said in its
    /// sentence: "asked for by an operator". No dump is held back because one like it has just been sent.
    ///
    /// Works on any executor. If the future is dropped before it is ready, the dump is sent all the same. With
    /// `HEELER_DISABLE=1` in the environment, nothing is sent.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let reports = heeler::Reports::default();
    /// reports.dump("p99 is above 5 s").await;
    /// # }
    /// ```
    pub async fn dump(&self, reason: &str) {
        if is_disabled() {
            return;
        }
        let (done, sent) = tokio::sync::oneshot::channel();
        self.start_dump(reason.to_owned(), move || {
            // The caller may have given up.
            let _ = done.send(());
        });
        // An error means that the thread has panicked, or was not started, which has been said.
        let _ = sent.await;
    }

    /// Sends a dump on a thread of its own, which then calls `done`.
    pub(in crate::report) fn start_dump(&self, reason: String, done: impl FnOnce() + Send + 'static) {
        let reports = self.clone();
        let started = std::thread::Builder::new().name("heeler-dump".into()).spawn(move || {
            sys::block_signals();
            reports.blocking_dump(&reason);
            done();
        });
        if let Err(error) = started {
            log_safely(|| tracing::error!(target: "heeler", %error, "a dump is not sent: no thread could be started"));
        }
    }

    /// Like [`dump`](Self::dump), but blocks the thread for as long as it takes.
    pub fn blocking_dump(&self, reason: &str) {
        if !is_disabled() {
            self.send_dump(blocking_dump(), reason);
        }
    }

    /// Sends a dump. Of very much work, it lists the oldest, and whatever is in a deadlock.
    pub(super) fn send_dump(&self, mut dump: Dump, reason: &str) {
        let many = dump.work.len();
        if many > MAX_WORK {
            let in_deadlock: HashSet<&String> = dump.deadlocks.iter().flatten().collect();
            let mut at = 0;
            dump.work.retain(|work| {
                at += 1;
                at <= MAX_WORK || in_deadlock.contains(&work.id)
            });
            let left_out = (many - dump.work.len()) as u64;
            dump.notes.push(format!("{} of work {} not listed", count(left_out, "younger piece"), were(left_out)));
        }
        self.deliver_from_elsewhere(Report::of_dump(dump, self.redactor().text(reason, MAX_REASON)));
    }
}

impl Report {
    fn of_dump(dump: Dump, reason: String) -> Self {
        // Sinks that show one stack show that of most of the work.
        let largest = dump.groups.iter().find_map(|group| Some((group.state, group.paths.first()?)));
        let verdict = match largest.map(|(state, _)| state) {
            Some(DumpState::Waiting) => Verdict::Waiting,
            Some(DumpState::Blocked | DumpState::Running | DumpState::Polled) => Verdict::Blocking,
            Some(DumpState::Yielding) => Verdict::Yielding,
            Some(DumpState::NoWaker) => Verdict::NoWaker,
            _ => Verdict::Unknown,
        };
        Self {
            schema: SCHEMA,
            id: format!("{:016x}", RandomState::new().hash_one(dump.taken_at)),
            update: 0,
            kind: Kind::Dump,
            verdict,
            captured_at: dump.taken_at,
            started_at: dump.taken_at,
            elapsed: Duration::ZERO,
            threshold: None,
            request: None,
            job: None,
            trace_id: None,
            span_id: None,
            trace_url: None,
            ending: None,
            process: ProcessInfo::default(),
            thread: None,
            polls: 0,
            busy: Duration::ZERO,
            waiting: Duration::ZERO,
            unobserved: Duration::ZERO,
            longest_poll: Duration::ZERO,
            location: None,
            repeats: None,
            denied: None,
            awaiting: None,
            stacks: largest.map(|(_, path)| path.stacks.clone()).unwrap_or_default(),
            timeline: Vec::new(),
            spans: Vec::new(),
            notes: vec![reason],
            fingerprint: String::new(),
            suppressed: 0,
            others: None,
            incident: String::new(),
            fleet: None,
            dump: Some(Box::new(dump)),
            around: crate::report::assemble::around::Around::default(),
            elsewhere: crate::report::assemble::elsewhere::Elsewhere::default(),
            child_needs_thread: false,
        }
    }
}
