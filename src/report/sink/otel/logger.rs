//! One log record per report.

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger, Severity};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry::{Array, Value};

use super::{EVENT, attributes};
use crate::report::Report;

/// The target that processors filter by.
const TARGET: &str = "heeler";

/// A logger of any provider.
pub(super) trait Emit: Send + Sync {
    fn emit(&self, report: &Report);
}

impl<L: Logger + Send + Sync> Emit for L {
    fn emit(&self, report: &Report) {
        let severity = if report.ending.is_some() { Severity::Info } else { Severity::Warn };
        if !self.event_enabled(severity, TARGET, Some(EVENT)) {
            return;
        }
        let mut record = self.create_log_record();
        record.set_event_name(EVENT);
        record.set_target(TARGET);
        record.set_timestamp(report.told_at());
        record.set_severity_number(severity);
        record.set_severity_text(severity.name());
        record.set_body(report.sentence().into());
        for attribute in attributes::of_request(report).into_iter().chain(attributes::of_findings(report)) {
            if let Some(value) = any(attribute.value) {
                record.add_attribute(attribute.key, value);
            }
        }
        if let Some(span) = report.around.span_context() {
            record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
        } else if let Some((trace, span)) = report
            .trace_ids()
            .and_then(|ids| Some((TraceId::from_hex(&ids.trace).ok()?, SpanId::from_hex(&ids.span).ok()?)))
        {
            record.set_trace_context(trace, span, None);
        }
        Logger::emit(self, record);
    }
}

/// Converts a value. Attributes of logs allow more types than those of spans. `None` for a type that neither allows.
fn any(value: Value) -> Option<AnyValue> {
    Some(match value {
        Value::Bool(value) => value.into(),
        Value::I64(value) => value.into(),
        Value::F64(value) => value.into(),
        Value::String(value) => value.into(),
        Value::Array(Array::String(values)) => values.into_iter().collect(),
        _ => return None,
    })
}
