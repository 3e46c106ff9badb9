//! From a report that was just assembled to what the sinks get.

use std::time::Instant;

use super::fingerprint::fingerprint;
use super::reporter;
use super::reports::{Inner, Reports};
use super::throttle::Decision;
use crate::capture::{disown_wrappers, is_of};
use crate::monitor::Verdict;
use crate::report::assemble::awaiting::{awaiting, unseen_task};
use crate::report::assemble::cause;
use crate::report::assemble::location::{arrange, locate};
use crate::report::assemble::source;
use crate::report::metrics::stats::count;
use crate::report::model::process;
use crate::report::model::{Ending, Report};
use crate::report::rules::{Fired, orders};
use crate::sync::lock_std;

impl Reports {
    /// Completes a report, decides whether it goes out, and hands it to every sink. Call it on the reporter thread,
    /// because it may take as long as the sinks do. Never panics because of a sink.
    ///
    /// The caller leaves `fingerprint`, `location`, `suppressed`, `Frame::source` and `process` empty, and passes
    /// everything that came from the request or the application as it is. What may be shown of it is decided here.
    pub(crate) fn deliver(&self, report: Report) {
        self.deliver_at(report, Instant::now());
    }

    /// Hands over a report that was made on another thread than the reporter's. The reporter looks after what is then on its
    /// way: it drives the sinks that go over a network, and tries again.
    pub(in crate::report) fn deliver_from_elsewhere(&self, report: Report) {
        reporter::start();
        // A sink may block this thread, and keeps none of the others waiting.
        reporter::expect(self);
        self.deliver(report);
        reporter::know(self);
    }

    /// Returns the report as it would be delivered.
    pub(in crate::report) fn describe(&self, mut report: Report) -> Report {
        self.inner.complete(&mut report);
        source::quote(&mut report.stacks);
        report
    }

    pub(super) fn deliver_at(&self, mut report: Report, now: Instant) {
        let (inner, state) = (&*self.inner, self.inner.state.get());
        inner.complete(&mut report);
        {
            let mut progress = lock_std(&state.progress);
            progress.keep_place(&mut report);
            report.notes.extend(progress.note(&report));
        }
        let fired = state.rules.note(&report, now);
        if fired.is_empty() {
            report.notes.extend(state.rules.noted(&report));
        } else {
            let notes: Vec<String> = fired.iter().map(|fired| follow(fired, &report, self)).collect();
            report.notes.extend(notes.iter().cloned());
            state.rules.remember(&report, notes);
        }
        let decision = {
            let mut throttle = lock_std(&state.throttle);
            if fired.is_empty() {
                throttle.decide(&report.id, report.update, &report.fingerprint, now, || report.sentence())
            } else {
                // It says what no report like it has said.
                throttle.pass(&report.id)
            }
        };
        // Counted only now, because a report that is lost while it is put together is counted as dropped.
        state.counters.count_made(&report);
        #[cfg(feature = "fleet")]
        if let Some(member) = &state.member {
            member.note(&mut report, matches!(decision, Decision::Send { .. }));
        }
        #[cfg(feature = "console")]
        if let Some(history) = state.history.get() {
            lock_std(history).note(&report, matches!(decision, Decision::Send { .. }));
        }
        match decision {
            Decision::Hold => count(&state.counters.suppressed),
            Decision::Send { suppressed } => {
                report.suppressed = suppressed;
                source::quote(&mut report.stacks);
                // These two are the end of their work.
                let goes_on =
                    !matches!(report.verdict, Verdict::Abandoned | Verdict::Interrupted) && report.dump.is_none();
                if let Some(unended) = state.unended.as_ref().filter(|_| goes_on) {
                    lock_std(unended).sent(&mut report);
                }
                state.dispatch.accept(report, now);
            }
        }
        let reasons: Vec<String> = fired.into_iter().filter(|fired| fired.dump).map(|fired| fired.reason).collect();
        if !reasons.is_empty() {
            // Not here: this thread has other reports to make meanwhile.
            self.start_dump(format!("a rule: {}", reasons.join("; ")), || {});
        }
    }

    /// Adds to a report that was sent how its work has ended. The throttle has decided about the report, and this goes
    /// where that went.
    pub(in crate::report) fn end(&self, id: &str, ending: Ending) {
        let state = self.inner.state.get();
        let Some(unended) = &state.unended else { return };
        let ended = lock_std(unended).end(id, ending);
        if let Some(report) = ended {
            state.counters.count_made(&report);
            state.dispatch.accept(report, Instant::now());
        }
    }
}

/// Does what a rule says, but for dumps. Returns what the report says of it.
fn follow(fired: &Fired, report: &Report, reports: &Reports) -> String {
    let Fired { reason, dump, profile } = fired;
    let profiled = report.request.as_ref().filter(|_| *profile).map(|request| orders::place(request, reason, reports));
    let follows: Vec<&str> = dump.then_some("a dump follows").into_iter().chain(profiled).collect();
    format!("a rule has fired, because {reason}: {}", follows.join("; "))
}

impl Inner {
    pub(super) fn complete(&self, report: &mut Report) {
        if !self.own_crates.is_empty() {
            let all = report.stacks.iter_mut().chain(report.elsewhere.stacks_mut());
            for frame in all.flat_map(|stack| &mut stack.frames).filter(|frame| !frame.own) {
                frame.own = is_of(frame, &self.own_crates);
            }
        }
        let all = report.stacks.iter_mut().chain(report.elsewhere.stacks_mut());
        all.for_each(|stack| disown_wrappers(&mut stack.frames));
        // First, before its sentence and its fingerprint are made.
        self.redactor.report(report);
        if let Some((name, version)) = &self.service {
            report.process.service = Some(name.clone());
            report.process.version = Some(version.clone());
        }
        for (field, set) in [(&mut report.process.instance, &self.instance), (&mut report.process.zone, &self.zone)] {
            if set.is_some() {
                field.clone_from(set);
            }
        }
        if let (Some(template), Some(ids)) = (&self.trace_url, report.trace_ids()) {
            report.trace_url = Some(template.link(&ids));
        }
        process::complete(&mut report.process, &report.stacks);
        arrange(report);
        report.location = locate(report);
        report.awaiting = awaiting(report);
        report.notes.extend(unseen_task(report).map(str::to_owned));
        cause::find(report);
        // No dump is like another.
        report.fingerprint = if report.dump.is_some() { report.id.clone() } else { fingerprint(report) };
    }
}
