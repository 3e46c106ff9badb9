//! The spans that reported work belongs to, for sinks that write to them.

use crate::monitor::Evidence;

/// The spans around reported work. It is plain data and keeps nothing open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Around {
    /// The OpenTelemetry span, and the row that holds the span itself while it is in flight.
    #[cfg(feature = "otel")]
    otel: Option<(opentelemetry::trace::SpanContext, crate::capture::RowId)>,
    /// The ids of the `tracing` spans around everything that was captured, outermost first.
    #[cfg(feature = "spans")]
    spans: Vec<u64>,
}

impl Around {
    pub(in crate::report) fn of(evidence: &Evidence) -> Self {
        #[cfg(not(any(feature = "otel", feature = "spans")))]
        let _ = evidence;
        Self {
            #[cfg(feature = "otel")]
            otel: evidence.span.clone().map(|span| (span, evidence.id)),
            #[cfg(feature = "spans")]
            spans: common(&evidence.span_ids()),
        }
    }

    /// Returns the ids of the OpenTelemetry span around the work.
    #[cfg(feature = "otel")]
    pub(crate) fn span_context(&self) -> Option<&opentelemetry::trace::SpanContext> {
        self.otel.as_ref().map(|(span, _)| span)
    }

    /// Returns the same span, to write to while the work is in flight. Drop it soon, because it may keep the span open.
    #[cfg(feature = "otel")]
    pub(crate) fn open_span(&self) -> Option<opentelemetry::Context> {
        crate::inflight::span_of(self.otel.as_ref()?.1)
    }

    /// Returns the innermost `tracing` span around everything that was captured, if this thread's subscriber has it
    /// open.
    pub(crate) fn open_parent(&self) -> Option<tracing::Id> {
        #[cfg(feature = "spans")]
        return self.spans.iter().rev().find_map(|id| crate::inflight::spans::open(*id));
        #[cfg(not(feature = "spans"))]
        None
    }
}

/// Returns what all lists begin with.
#[cfg(feature = "spans")]
fn common(lists: &[&[u64]]) -> Vec<u64> {
    let Some((first, others)) = lists.split_first() else { return Vec::new() };
    let shared = |at: &usize| others.iter().all(|other| other.get(*at) == first.get(*at));
    let len = (0..first.len()).take_while(shared).count();
    first[..len].to_vec()
}

#[cfg(all(test, feature = "spans"))]
mod tests {
    use super::*;

    /// Guards: if branches are in spans of their own, the span around all of them counts.
    #[test]
    fn the_span_around_all_branches_counts() {
        assert_eq!(common(&[]), [0; 0]);
        assert_eq!(common(&[&[1, 2]]), [1, 2]);
        assert_eq!(common(&[&[1, 2, 3], &[1, 2, 4], &[1, 2]]), [1, 2]);
        assert_eq!(common(&[&[1], &[]]), [0; 0]);
    }
}
