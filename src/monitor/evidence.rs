//! What a row and its record say by themselves.

use std::time::{Duration, SystemTime};

use crate::inflight::{self, Clock, Details, Job, Row, RowId, Subject, Trace, Work, flags, root, table};
use crate::report::{Evidence, Kind, Reports, Verdict};

/// Where reports about the row go; `None` if it is gone.
pub(super) fn reports(row: &'static Row, id: RowId) -> Option<Reports> {
    let reports = reports_of(row, &*row.details(id)?);
    Some(reports.or_else(|| around(row, id)?.1).unwrap_or_else(Reports::shared))
}

/// The request or job that a box or a child belongs to, and where reports about it go.
fn around(row: &'static Row, id: RowId) -> Option<(Subject, Option<Reports>)> {
    let work = match &row.details(id)?.work {
        Work::Timebox(timebox) => timebox.inside,
        Work::Child(child) => child.parent,
        Work::Nothing | Work::Request | Work::Job(_) => return None,
    };
    let root = root(work);
    let row = table().row(root)?;
    let details = row.details(root)?;
    Some((details.subject(), reports_of(row, &details)))
}

/// What the report is about: of a box, the request or the job that it belongs to, else the box itself.
fn subject(row: &'static Row, id: RowId, own: Subject, notes: &mut Vec<String>) -> Subject {
    let label = match &own {
        Subject::Timebox(timebox) => timebox.label().cloned(),
        Subject::Child(child) => child.boxes.as_ref().and_then(|boxes| boxes.first()?.label.clone()),
        Subject::Nothing | Subject::Request(_) | Subject::Job(_) => return own,
    };
    match around(row, id) {
        Some((subject @ (Subject::Request(_) | Subject::Job(_)), _)) => {
            notes.extend(label.map(|label| format!("in the timebox \"{label}\"")));
            subject
        }
        _ => Subject::Job(Job { name: label.unwrap_or("timebox".into()), reports: None }),
    }
}

fn reports_of(row: &Row, details: &Details) -> Option<Reports> {
    let of_job = match &details.work {
        Work::Job(job) => job.reports.clone(),
        _ => None,
    };
    of_job.or_else(|| row.policy().get().map(|policy| policy.reports.clone()))
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
    let subject = subject(row, id, own, &mut notes);
    if missed > 0 {
        notes.push(format!(
            "{missed} stacks of earlier waits were not kept: too many places, or the budget was used up"
        ));
    }
    Some(Evidence {
        id,
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
