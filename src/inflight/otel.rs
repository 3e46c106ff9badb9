//! The OpenTelemetry span that watched work is in (feature `otel`).
//!
//! It stays with the row, and goes when the row is freed: what waits to be reported must not keep a span open that ends when
//! nobody has it any more.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;

use super::{Row, flags, table};
use crate::capture::RowId;

/// Notes in which span the calling thread polls the row, unless one is known. Only before traced polls: so it costs the
/// others nothing.
pub(super) fn note_span(row: &Row, span: &mut Option<Context>) {
    if span.is_none() && row.flags() & flags::CHILD == 0 {
        // There is none on a thread that is ending, which asking would panic at.
        let current = std::panic::catch_unwind(|| Context::map_current(|cx| cx.has_active_span().then(|| cx.clone())));
        *span = current.ok().flatten();
    }
}

/// The span around the work, if it is known and the work is still in flight.
pub(crate) fn span_of(id: RowId) -> Option<Context> {
    table().row(id)?.details(id)?.trace.as_ref()?.span.clone()
}
