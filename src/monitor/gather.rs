//! The evidence in a row and its record.

use std::time::SystemTime;

use super::{Evidence, Kind, Others, Verdict, link};
use crate::capture::RowId;
use crate::clock::Clock;
use crate::inflight::{
    Child, Details, Job, Origin, ReportTarget, Row, Silence, Subject, Trace, WaitKind, Work, flags, origin, root, table,
};
use crate::text::units::{count, were};

/// Returns where reports about the row go, or `None` if it is gone.
pub(super) fn reports(row: &'static Row, id: RowId) -> Option<ReportTarget> {
    let reports = reports_of(row, &*row.details(id)?);
    reports.or_else(|| around(row, id)?.2).or_else(link::default_target)
}

/// Returns the request or job that a box or a child belongs to, and where reports about it go.
fn around(row: &'static Row, id: RowId) -> Option<(RowId, Subject, Option<ReportTarget>)> {
    let work = match &row.details(id)?.work {
        Work::Timebox(timebox) => timebox.inside,
        Work::Child(child) => child.parent,
        Work::Nothing | Work::Request(_) | Work::Job(_) => return None,
    };
    let root = root(work);
    let row = table().row(root)?;
    let details = row.details(root)?;
    Some((root, details.subject(), reports_of(row, &details)))
}

/// Returns what the report is about, and the row of that. For a box or a child, it is the request or the job that it
/// belongs to. A layer's box also knows the request, because the box may be within a job, or outlive the row around it.
fn subject(row: &'static Row, id: RowId, own: Subject, notes: &mut Vec<String>) -> (RowId, Subject) {
    let label = match row.details(id).as_deref().map(|details| &details.work) {
        Some(Work::Timebox(timebox)) => timebox.label().cloned(),
        Some(Work::Child(child)) => {
            child.boxes.as_ref().and_then(|inheritance| inheritance.boxes.first()?.label.clone())
        }
        _ => None,
    };
    let mut noted = |subject| {
        notes.extend(label.as_ref().map(|label| format!("in the timebox \"{label}\"")));
        subject
    };
    let name = match (around(row, id), own) {
        (Some((work, subject @ Subject::Request(_), _)), _) => return (work, noted(subject)),
        (_, own @ Subject::Request(_)) => return (id, noted(own)),
        (Some((work, subject @ Subject::Job(_), _)), _) => return (work, noted(subject)),
        (_, own @ (Subject::Job(_) | Subject::Nothing)) => return (id, own),
        (_, Subject::Timebox(_)) => label.unwrap_or("timebox".into()),
        (_, Subject::Child(child)) => match label {
            Some(label) => format!("{} in {label}", child.how.as_str()).into(),
            None => format!("{} in a timebox", child.how.as_str()).into(),
        },
    };
    (id, Subject::Job(Job::new(name)))
}

/// Returns what the row is about, and the row of that, for a report on other work.
pub(super) fn subject_of(row: &'static Row, id: RowId) -> Option<(RowId, Subject)> {
    let own = row.details(id)?.subject();
    let (work, subject) = subject(row, id, own, &mut Vec::new());
    let reports = reports(row, id)?;
    Some((work, with_origin(subject, &reports)))
}

/// Adds to a job the request that it runs in, if reports about both go to the same place: what may be shown of a request
/// is a setting of that.
fn with_origin(subject: Subject, reports: &ReportTarget) -> Subject {
    let Subject::Job(job) = subject else { return subject };
    let known = job.origin.clone().or_else(|| origin(job.inside));
    let is_of_same = |origin: &Origin| origin.policy.get().is_some_and(|policy| policy.reports.is_same(reports));
    Subject::Job(Job { origin: known.filter(|origin| is_of_same(origin)), ..job })
}

fn reports_of(row: &Row, details: &Details) -> Option<ReportTarget> {
    let own = match &details.work {
        Work::Job(job) => job.reports.clone(),
        // The child may outlive the box, and the request.
        Work::Child(Child { boxes: Some(inheritance), .. }) => {
            inheritance.boxes.iter().find_map(|inherited| inherited.policy.get()).map(|policy| policy.reports.clone())
        }
        _ => None,
    };
    own.or_else(|| row.policy().get().map(|policy| policy.reports.clone()))
}

/// Returns the evidence in the row and its record, or `None` if the row is gone.
///
/// All of it is measured at one moment, which is read while nothing can be added to the record. So no part is longer
/// than the whole.
pub(crate) fn evidence(row: &'static Row, id: RowId) -> Option<Evidence> {
    let reports = reports(row, id)?;
    let details = row.details(id)?;
    let started = row.started()?;
    let trace = details.trace.as_deref().map(Trace::copy);
    let now = crate::clock::now().max(trace.as_ref().map_or(0, Trace::latest));
    let captured = SystemTime::now();
    let elapsed = now.saturating_sub(Clock::get().nanos(started));
    let kind = match &details.work {
        Work::Job(_) => Kind::SlowJob,
        Work::Timebox(_) => Kind::Interrupted,
        _ if row.flags() & flags::BODY != 0 => Kind::SlowBody,
        _ => Kind::SlowRequest,
    };
    let own = details.subject();
    #[cfg(feature = "otel")]
    let span = details.trace.as_ref().and_then(|trace| trace.span.as_ref());
    #[cfg(feature = "otel")]
    let span = span.map(|span| opentelemetry::trace::TraceContextExt::span(span).span_context().clone());
    drop(details);
    let mut trace = trace.unwrap_or_else(|| Trace::new(now, true));
    trace.close(now);
    let missed = trace.missed;
    let mut notes = Vec::new();
    let (work, subject) = subject(row, id, own, &mut notes);
    let subject = with_origin(subject, &reports);
    if let Subject::Job(Job { queued: Some(queued), .. }) = &subject {
        let queued = *queued as u64;
        notes.push(format!("{} {} queued behind it when it began", count(queued, "message"), were(queued)));
    }
    if missed > 0 {
        let (stacks, were) = (count(missed, "stack"), were(missed));
        notes.push(format!("{stacks} of earlier waits {were} not kept: too many places, or the budget was used up"));
    }
    Some(Evidence {
        id,
        work,
        update: 0,
        kind,
        verdict: Verdict::Unknown,
        reports,
        subject,
        started,
        captured,
        moment: now,
        elapsed,
        threshold: row.threshold(),
        polls: row.polls(),
        busy: trace.busy,
        busy_polls: trace.busy_polls,
        runnable: trace.runnable,
        longest_poll: trace.longest,
        current: trace.current(),
        silence: trace.silence,
        waits: trace.records,
        thread: None,
        culprits: Vec::new(),
        children: Vec::new(),
        child_needs_thread: false,
        contention: None,
        others: Others::default(),
        denied: None,
        notes,
        #[cfg(feature = "otel")]
        span,
    })
}

/// Returns the verdict of a poll that was asked for, with a note.
pub(super) fn verdict_of_wait(evidence: &Evidence) -> (Verdict, Option<&'static str>) {
    let Some(current) = evidence.current else { return (Verdict::Unknown, None) };
    match (evidence.waits[current].kind, evidence.silence) {
        (_, Some(Silence::Earlier)) => {
            (Verdict::Waiting, Some("its last poll left no waker, but an earlier one did: that is what it waits for"))
        }
        (WaitKind::NoWaker, Some(Silence::Unknown)) => (
            Verdict::NoWaker,
            Some("a poll from before it was traced may have left a waker: then that can still wake it"),
        ),
        (WaitKind::NoWaker, _) => {
            (Verdict::NoWaker, Some("no poll has left a waker since it was last woken: nobody will wake it"))
        }
        (WaitKind::Waiting, _) => (Verdict::Waiting, None),
        (WaitKind::Yielding, _) => (Verdict::Yielding, None),
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use super::*;
    use crate::inflight::{PolicyId, Registered};

    /// Guards: another CPU's clock may be ahead of this one's. What it has recorded still counts as a part of the
    /// whole.
    #[test]
    fn no_part_is_longer_than_the_whole() {
        let reports = crate::Reports::builder().without_log().build().unwrap();
        let job = Job { reports: Some(reports.target()), ..Job::new("ahead") };
        let fill = |details: &mut Details| details.work = Work::Job(Box::new(job.clone()));
        let registered = Registered::new(PolicyId::NONE, u64::MAX, 0, fill).unwrap();
        let (row, id) = (registered.row(), registered.id());
        let began = crate::clock::now();
        let mut trace = Trace::new(began, false);
        trace.begin_poll(began, false);
        trace.end_untraced(began + 1_000_000_000);
        row.details(id).unwrap().trace = Some(Box::new(trace));
        let evidence = evidence(row, id).unwrap();
        assert!(evidence.busy >= 1_000_000_000);
        let observed = evidence.busy + evidence.runnable + evidence.waits.iter().map(|wait| wait.nanos).sum::<u64>();
        assert!(observed <= evidence.elapsed, "{observed} of {}", evidence.elapsed);
        registered.complete(true);
    }
}
