//! The sink, and its settings.

use std::fmt;

use opentelemetry::logs::{Logger, LoggerProvider};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TraceContextExt as _;

use super::instruments::{self, Meters};
use super::logger::Emit;
use super::{EVENT, attributes, scope};
use crate::report::{Report, Sink};

/// Sends reports through OpenTelemetry. Pass it to
/// [`ReportsBuilder::open_telemetry`](crate::ReportsBuilder::open_telemetry).
///
/// - An **event** `heeler.slow_request` on the span that the request is in, while it is in flight.
/// - One **log record** of that name per report, at severity WARN, with the trace and span of the request. Its body is
///   the report's [sentence](Report::sentence). There is no global logger provider, so you have to [pass
///   one](Self::logger_provider).
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
/// heeler uses the span that is current where it polls the request (`opentelemetry::Context::current()`): the span of a
/// layer *around* the watchdog's, made by the OpenTelemetry API itself or by `tracing-opentelemetry`. In axum, add that
/// layer after the [`WatchdogLayer`](crate::WatchdogLayer).
///
/// heeler looks for it when it begins to trace a request's polls, at an eighth of its threshold, so it costs other
/// requests nothing. A request that blocks its thread in its very first poll is not polled again in time, so its span
/// isn't known. Reports that wait to be delivered don't keep a span open, and a report that was read back from the
/// spool has none.
///
/// With the feature `spans` and a [`SpanLayer`](https://docs.rs/heeler/latest/heeler/struct.SpanLayer.html), the event
/// that goes to the log is also made within the innermost `tracing` span that the request is in, wherever that was
/// opened: `tracing-opentelemetry` adds it to that span.
///
/// If `opentelemetry-appender-tracing` turns every logged event into a record, a report would become two records. Then
/// turn [off](crate::ReportsBuilder::without_log) the log, or don't pass a logger provider here.
///
/// # Attributes
///
/// Named after the semantic conventions 1.40.0: `http.request.method` (and `http.request.method_original`),
/// `http.route`, `url.path`, `url.query` (secret-looking values replaced), `server.address`, `server.port`,
/// `network.protocol.name`, `network.protocol.version`, `code.function.name`, `code.file.path`, `code.line.number`,
/// `code.stacktrace`, `thread.id` and `thread.name`.
///
/// heeler's own: `heeler.report.id`, `heeler.report.update`, `heeler.kind`, `heeler.verdict`, `heeler.job`,
/// `heeler.elapsed_ms`, `heeler.threshold_ms`, `heeler.busy_ms`, `heeler.waiting_ms`, `heeler.polls`,
/// `heeler.fingerprint`, `heeler.incident`, `heeler.suppressed` and `heeler.notes`. The record of an
/// [ending](Report::ending), at severity INFO, also has `heeler.ended`, `heeler.ended_after_ms` and
/// `http.response.status_code`. The event on the span leaves out what the span itself says about the request.
///
/// `docs/opentelemetry.md` in the repository has a configuration of the OpenTelemetry Collector, and queries for Loki,
/// ClickHouse and Tempo.
///
/// # Profiles
///
/// heeler sends no OTLP profiles, because the SDK (`opentelemetry_sdk` 0.33) doesn't have that signal. `Pyroscope` (feature
/// `pyroscope`) has the ids of the trace and the span on each sample.
///
/// # Instruments
///
/// | name | unit | attribute | what it counts |
/// |---|---|---|---|
/// | `heeler.reports` | `{report}` | `heeler.verdict` | reports that were made, updates included |
/// | `heeler.suppressed` | `{report}` | | reports held back, because one about the same had just been sent |
/// | `heeler.dropped` | `{capture}` | | captures dropped, because too many waited for the reporter |
/// | `heeler.undelivered` | `{report}` | | reports that at least one sink has not taken and never will |
/// | `heeler.queued` | `{report}` | | reports that are on their way to at least one sink, or wait to be tried again |
/// | `heeler.watched` | `{piece}` | `heeler.work` | requests, jobs, child work and timeboxes that were watched |
/// | `heeler.in_flight` | `{piece}` | `heeler.work` | those that are in flight now |
/// | `heeler.armed` | `{piece}` | | requests and jobs whose polls are traced now |
/// | `heeler.captures` | `{capture}` | `heeler.result` | captures of slow work: taken, missed, refused, truncated |
/// | `heeler.deliveries` | `{report}` | `heeler.sink` | reports that a sink has taken, updates included |
/// | `heeler.delivery.failures` | `{delivery}` | `heeler.sink` | deliveries to a sink that failed |
/// | `heeler.fleet.messages` | `{message}` | `heeler.alone` | with a fleet: incidents that people were told of, for all instances or for this one alone |
/// | `heeler.fleet.requests` | `{request}` | `heeler.kind` | requests to its store |
/// | `heeler.fleet.failed_requests` | `{request}` | | those that failed |
/// | `heeler.fleet.uncounted` | `{report}` | | reports that its counts lack for good |
/// | `heeler.fleet.unwritten` | `{report}` | | up and down: reports that are not counted in the store yet |
/// | `heeler.fleet.heeds_conditions` | `1` | | 0 if each instance tells people for itself, because the store does not heed conditions |
///
/// The thread that collects metrics observes them. They hold the [metrics](crate::metrics()) of the whole process.
///
/// # When reports are sent
///
/// Records and events are handed to the SDK on the reporter's thread. Processors that batch on a thread of their own,
/// the SDK's default, send them even while all workers of the application's runtime are blocked.
#[must_use = "nothing happens until it is given to `Reports`"]
pub struct OpenTelemetry {
    logger: Option<Box<dyn Emit>>,
    meters: Meters,
}

impl OpenTelemetry {
    /// Creates a sink that adds events to spans, and makes instruments from the global meter provider, which has to be
    /// set before. Of several such sinks, only the first makes the instruments.
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

    /// Turns off the instruments. By default they are made.
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

/// The sink after its instruments are made.
struct Started {
    logger: Option<Box<dyn Emit>>,
}

impl Sink for Started {
    fn name(&self) -> &'static str {
        "opentelemetry"
    }

    fn deliver(&self, report: &Report) -> Result<(), crate::SinkError> {
        // First, because the span may end at any time.
        if let Some(context) = report.around.open_span() {
            let span = context.span();
            if span.is_recording() {
                span.add_event_with_timestamp(EVENT, report.captured_at, attributes::of_findings(report));
            }
        }
        if let Some(logger) = &self.logger {
            logger.emit(report);
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
