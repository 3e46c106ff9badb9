//! Reports through OpenTelemetry (feature `otel`): one log record per report, an event on the request's span, and
//! instruments.

mod attributes;
mod instruments;
mod logger;
mod open_telemetry;
mod stacktrace;

pub use open_telemetry::OpenTelemetry;

/// The attributes of log records and events, as text.
#[cfg(test)]
pub(super) fn printed(report: &crate::report::Report) -> String {
    format!("{:?} {:?}", attributes::of_request(report), attributes::of_findings(report))
}

/// The version of the semantic conventions that attributes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.40.0";

/// The name of log records and events, whatever kind of work they are about.
const EVENT: &str = "heeler.slow_request";

/// Returns the instrumentation scope of heeler.
fn scope() -> opentelemetry::InstrumentationScope {
    opentelemetry::InstrumentationScope::builder("heeler")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build()
}
