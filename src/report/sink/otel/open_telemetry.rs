//! The sink, and its settings.

use std::fmt;

use opentelemetry::logs::{Logger, LoggerProvider};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TraceContextExt as _;

use super::instruments::{self, Meters};
use super::logger::Emit;
use super::{EVENT, attributes, scope};
use crate::report::{Report, Sink};

/// Reports through OpenTelemetry: given to [`ReportsBuilder::open_telemetry`](crate::ReportsBuilder::open_telemetry).
///
/// - An **event** `heeler.slow_request` on the span that the request is in, while it is in flight.
/// - A **log record** of that name a report, at severity WARN, with the trace and span of the request; its body is the
///   report's [sentence](Report::sentence). There is no global provider of loggers: one has to be
///   [given](Self::logger_provider).
/// - **Instruments**, unless [turned off](Self::without_instruments).
///
/// ```
/// use heeler::{OpenTelemetry, Reports};
/// use opentelemetry_sdk::logs::SdkLoggerProvider;
///
/// // With an exporter, in earnest.
/// let loggers = SdkLoggerProvider::builder().build();
/// let reports = Reports::builder().open_telemetry(OpenTelemetry::new().logger_provider(&loggers)).build()?;
/// # Ok::<(), heeler::Error>(())
/// ```
///
/// # Which span
///
/// The one that is current where heeler polls the request (`opentelemetry::Context::current()`): that of a layer *around*
/// the watchdog's, by the OpenTelemetry API itself or by `tracing-opentelemetry`. In axum that layer is added after the
/// [`WatchdogLayer`](crate::WatchdogLayer).
///
/// heeler looks for it when it begins to trace a request's polls, at an eighth of its threshold, and costs other requests
/// nothing. One that blocks its thread in its very first poll is not polled once more, and its span is not known then. Nothing
/// that waits to be delivered keeps a span open, and a report that was read back from the spool has none.
///
/// With the feature `spans` and a [`SpanLayer`](https://docs.rs/heeler/latest/heeler/struct.SpanLayer.html), the event that goes
/// to the log is also made within the innermost `tracing` span that the request is in, wherever that was opened:
/// `tracing-opentelemetry` adds it to that span.
///
/// Where `opentelemetry-appender-tracing` turns everything that is logged into records, a report would be two of them: turn
/// the log [off](crate::ReportsBuilder::without_log), or do without the provider of loggers here.
///
/// # Attributes
///
/// After the semantic conventions 1.40.0: `http.request.method` (and `http.request.method_original`), `http.route`, `url.path`,
/// `url.query` (secret-looking values replaced), `server.address`, `server.port`, `network.protocol.name`,
/// `network.protocol.version`, `code.function.name`, `code.file.path`, `code.line.number`, `code.stacktrace`, `thread.id` and
/// `thread.name`.
///
/// Of heeler's own: `heeler.report.id`, `heeler.report.update`, `heeler.kind`, `heeler.verdict`, `heeler.job`,
/// `heeler.elapsed_ms`, `heeler.threshold_ms`, `heeler.busy_ms`, `heeler.waiting_ms`, `heeler.polls`, `heeler.fingerprint`,
/// `heeler.suppressed` and `heeler.notes`. The event on the span leaves out what the span itself says of the request.
///
/// # Instruments
///
/// | name | unit | attribute | what it counts |
/// |---|---|---|---|
/// | `heeler.reports` | `{report}` | `heeler.verdict` | reports that were made, updates included |
/// | `heeler.suppressed` | `{report}` | | those held back, for one about the same had just gone out |
/// | `heeler.dropped` | `{capture}` | | captures thrown away, for too many waited for the reporter |
/// | `heeler.undelivered` | `{report}` | | reports that at least one sink has not taken and never will |
/// | `heeler.queued` | `{report}` | | reports that are on their way to at least one sink, or wait for another try |
/// | `heeler.watched` | `{piece}` | `heeler.work` | requests, jobs, child work and timeboxes that were watched |
/// | `heeler.in_flight` | `{piece}` | `heeler.work` | those that are in flight now |
/// | `heeler.armed` | `{piece}` | | requests and jobs whose polls are traced now |
/// | `heeler.captures` | `{capture}` | `heeler.result` | captures of slow work: taken, missed, refused, truncated |
/// | `heeler.deliveries` | `{report}` | `heeler.sink` | reports that a sink has taken, updates included |
/// | `heeler.delivery.failures` | `{delivery}` | `heeler.sink` | deliveries to a sink that failed |
///
/// They are observed when metrics are collected, by the thread that collects them, and hold the
/// [metrics](crate::metrics()) of the whole process.
///
/// # When it goes out
///
/// Records and events are handed to the SDK on the reporter's thread. Processors that batch on a thread of their own, the
/// SDK's default, send them also while all workers of the application's runtime are blocked.
#[must_use = "nothing happens until it is given to `Reports`"]
pub struct OpenTelemetry {
    logger: Option<Box<dyn Emit>>,
    meters: Meters,
}

impl OpenTelemetry {
    /// Creates a sink that adds events to spans, and makes instruments from the global meter provider, which has to be set
    /// before. Of several such sinks, the first makes the instruments.
    pub fn new() -> Self {
        Self { logger: None, meters: Meters::Global }
    }

    /// Also emits one log record per report, through a logger of this provider.
    pub fn logger_provider<P>(mut self, provider: &P) -> Self
    where
        P: LoggerProvider,
        P::Logger: Logger + Send + Sync + 'static,
    {
        self.logger = Some(Box::new(provider.logger_with_scope(scope())));
        self
    }

    /// Makes the instruments from this provider instead of the global one.
    pub fn meter_provider(mut self, provider: &impl MeterProvider) -> Self {
        self.meters = Meters::Of(provider.meter_with_scope(scope()));
        self
    }

    /// Makes no instruments. By default they are made.
    pub fn without_instruments(mut self) -> Self {
        self.meters = Meters::None;
        self
    }

    /// Makes the instruments, and the sink.
    pub(crate) fn start(self) -> impl Sink {
        instruments::start(&self.meters);
        Started { logger: self.logger }
    }
}

impl Default for OpenTelemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// What is left to do once the instruments are made.
struct Started {
    logger: Option<Box<dyn Emit>>,
}

impl Sink for Started {
    fn name(&self) -> &'static str {
        "opentelemetry"
    }

    fn deliver(&self, report: &Report) -> Result<(), crate::SinkError> {
        if let Some(logger) = &self.logger {
            logger.emit(report);
        }
        if let Some(context) = report.around.open_span() {
            let span = context.span();
            if span.is_recording() {
                span.add_event_with_timestamp(EVENT, report.captured_at, attributes::of_findings(report));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for OpenTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTelemetry")
            .field("logs", &self.logger.is_some())
            .field("instruments", &!matches!(self.meters, Meters::None))
            .finish_non_exhaustive()
    }
}
