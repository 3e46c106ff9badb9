//! The OpenTelemetry span that watched work is in (feature `otel`).
//!
//! The span stays with the row, and is released when the row is freed. Work that waits to be reported must not keep a
//! span open, because a span ends when its last owner is gone.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};

use super::{Row, flags, table};
use crate::capture::RowId;
use crate::text::traceparent::TraceIds;

/// Notes in which span the calling thread polls the row, unless one is known. Runs only before traced polls, so it
/// costs other polls nothing.
pub(super) fn note_span(row: &Row, span: &mut Option<Context>) {
    if span.is_none() && row.flags() & flags::CHILD == 0 {
        // A thread that is ending has none, and asking for it would panic.
        let current = std::panic::catch_unwind(|| Context::map_current(|cx| cx.has_active_span().then(|| cx.clone())));
        *span = current.ok().flatten();
    }
}

/// Returns the trace and the span that the calling code runs in.
#[cfg(feature = "profile")]
pub(crate) fn current_ids() -> Option<TraceIds> {
    // A thread that is ending has none, and asking for it would panic.
    let current = std::panic::catch_unwind(|| Context::map_current(|cx| ids(cx.span().span_context())));
    current.ok().flatten()
}

/// Returns the ids of a span, if it has any.
pub(crate) fn ids(span: &SpanContext) -> Option<TraceIds> {
    span.is_valid().then(|| TraceIds { trace: span.trace_id().to_string(), span: span.span_id().to_string() })
}

/// Returns the span around the work, if it is known and the work is still in flight.
pub(crate) fn span_of(id: RowId) -> Option<Context> {
    table().row(id)?.details(id)?.trace.as_ref()?.span.clone()
}
