//! What a row and its record say by themselves.

use std::time::{Duration, SystemTime};

use crate::inflight::{self, Clock, Details, Row, RowId, Trace, Work, flags};
use crate::report::{Evidence, Kind, Reports, Verdict};

/// Where reports about the row go; `None` if it is gone.
pub(super) fn reports(row: &'static Row, id: RowId) -> Option<Reports> {
    row.details(id).map(|details| reports_of(row, &details))
}

fn reports_of(row: &Row, details: &Details) -> Reports {
    let of_job = match &details.work {
        Work::Job(job) => job.reports.clone(),
        _ => None,
    };
    of_job.or_else(|| row.policy().get().map(|policy| policy.reports.clone())).unwrap_or_else(Reports::shared)
}

/// What the row and its record say by themselves at `now`; `None` if it is gone.
pub(crate) fn evidence(row: &'static Row, id: RowId, now: u64) -> Option<Evidence> {
    let details = row.details(id)?;
    let started = row.started()?;
    let elapsed = now.saturating_sub(Clock::get().nanos(started));
    let kind = match &details.work {
        Work::Job(_) => Kind::SlowJob,
        _ if row.flags() & flags::BODY != 0 => Kind::SlowBody,
        _ => Kind::SlowRequest,
    };
    let reports = reports_of(row, &details);
    let mut trace = details.trace.as_deref().cloned().unwrap_or_else(|| Trace::new(now));
    trace.close(now);
    let missed = trace.missed;
    let mut notes = Vec::new();
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
        subject: details.subject(),
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
