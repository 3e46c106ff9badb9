//! What a row and its record say by themselves.

use std::time::{Duration, SystemTime};

use crate::inflight::{self, Child, Clock, Details, Job, Row, RowId, Subject, Trace, Work, flags, root, table};
use crate::report::{Evidence, Kind, Reports, Verdict};

/// Where reports about the row go; `None` if it is gone.
pub(super) fn reports(row: &'static Row, id: RowId) -> Option<Reports> {
    let reports = reports_of(row, &*row.details(id)?);
    Some(reports.or_else(|| around(row, id)?.2).unwrap_or_else(Reports::shared))
}

/// The request or job that a box or a child belongs to, and where reports about it go.
fn around(row: &'static Row, id: RowId) -> Option<(RowId, Subject, Option<Reports>)> {
    let work = match &row.details(id)?.work {
        Work::Timebox(timebox) => timebox.inside,
        Work::Child(child) => child.parent,
        Work::Nothing | Work::Request | Work::Job(_) => return None,
    };
    let root = root(work);
    let row = table().row(root)?;
    let details = row.details(root)?;
    Some((root, details.subject(), reports_of(row, &details)))
}

/// What the report is about, and whose row that has: of a box or a child, the request or the job that it belongs to. A layer's
/// box knows the request, too: it may be within a job, or outlive the row around it.
fn subject(row: &'static Row, id: RowId, own: Subject, notes: &mut Vec<String>) -> (RowId, Subject) {
    let label = match row.details(id).as_deref().map(|details| &details.work) {
        Some(Work::Timebox(timebox)) => timebox.label().cloned(),
        Some(Work::Child(child)) => child.boxes.as_ref().and_then(|boxes| boxes.first()?.label.clone()),
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
    (id, Subject::Job(Job { name, reports: None }))
}

fn reports_of(row: &Row, details: &Details) -> Option<Reports> {
    let own = match &details.work {
        Work::Job(job) => job.reports.clone(),
        // It may outlive the box, and the request.
        Work::Child(Child { boxes: Some(boxes), .. }) => {
            boxes.iter().find_map(|inherited| inherited.policy.get()).map(|policy| policy.reports.clone())
        }
        _ => None,
    };
    own.or_else(|| row.policy().get().map(|policy| policy.reports.clone()))
}

/// What the row and its record say by themselves at `now`; `None` if it is gone.
pub(crate) fn evidence(row: &'static Row, id: RowId, now: u64) -> Option<Evidence> {
    let reports = reports(row, id)?;
    let details = row.details(id)?;
    let started = row.started()?;
    let elapsed = now.saturating_sub(Clock::get().nanos(started));
    let kind = match &details.work {
        Work::Job(_) => Kind::SlowJob,
        Work::Timebox(_) => Kind::Interrupted,
        _ if row.flags() & flags::BODY != 0 => Kind::SlowBody,
        _ => Kind::SlowRequest,
    };
    let own = details.subject();
    let mut trace = details.trace.as_deref().cloned().unwrap_or_else(|| Trace::new(now));
    trace.close(now);
    drop(details);
    let missed = trace.missed;
    let mut notes = Vec::new();
    let (work, subject) = subject(row, id, own, &mut notes);
    if missed > 0 {
        notes.push(format!(
            "{missed} stacks of earlier waits were not kept: too many places, or the budget was used up"
        ));
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
        // The moment that `elapsed` speaks of: since then, a thread may have been waited for.
        captured: SystemTime::now() - Duration::from_nanos(inflight::now().saturating_sub(now)),
        elapsed,
        threshold: row.threshold(),
        polls: row.polls(),
        busy: trace.busy,
        busy_polls: trace.busy_polls,
        runnable: trace.runnable,
        longest_poll: trace.longest,
        current: trace.last,
        waits: trace.records,
        thread: None,
        culprits: Vec::new(),
        children: Vec::new(),
        notes,
        #[cfg(feature = "otel")]
        span: trace.span.map(|span| opentelemetry::trace::TraceContextExt::span(&span).span_context().clone()),
    })
}
