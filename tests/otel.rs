//! Reports through OpenTelemetry: records, events on the right span, instruments.
#![cfg(feature = "watchdog")]
#![cfg(feature = "otel")]

mod common;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use common::{Collected, Driven, FOREVER, PATIENCE, PORTABLE, collect_with, ms, until};
use heeler::report::Verdict;
use heeler::{OpenTelemetry, Report, Reports, Sink, WatchdogLayer};
use opentelemetry::logs::{AnyValue, Severity};
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, Key};
use opentelemetry_sdk::logs::in_memory_exporter::LogDataWithResource;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLoggerProvider};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tower::{Layer as _, ServiceExt as _};
use tracing::Instrument as _;
use tracing_subscriber::prelude::*;

const EVENT: &str = "heeler.slow_request";
/// What the client sends.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const THRESHOLD: Duration = ms(200);

/// Spans as they are exported when they end.
fn spans() -> (SdkTracerProvider, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    (SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build(), exporter)
}

fn finished(exporter: &InMemorySpanExporter, name: &str) -> Option<SpanData> {
    exporter.get_finished_spans().unwrap().into_iter().find(|span| span.name == name)
}

/// A service around what it does, with the watchdog around it.
async fn serve(layer: WatchdogLayer, uri: &str, work: impl Future<Output = ()> + Send + 'static) {
    let work = Arc::new(Mutex::new(Some(work)));
    let service = tower::service_fn(move |_: http::Request<()>| {
        let work = work.lock().unwrap().take().unwrap();
        async move {
            work.await;
            Ok::<_, Infallible>(http::Response::new(String::new()))
        }
    });
    let request = http::Request::builder().uri(uri).header("host", "photos.example:8080");
    let request = request.header("traceparent", format!("00-{TRACE}-{SPAN}-01")).body(()).unwrap();
    layer.layer(service).oneshot(request).await.unwrap();
}

/// Holds on to every report for as long as it is told to.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<()>>);

impl Sink for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        drop(self.0.lock().unwrap());
        Ok(())
    }
}

/// Guards: the record says what the report says, in the conventions' words and with the request's trace. The event is on the
/// request's span, and a report that waits for a slow sink does not keep that span open.
#[test]
fn a_slow_request_is_a_record_and_an_event() {
    let (tracers, spans) = spans();
    let logs = InMemoryLogExporter::default();
    let loggers = SdkLoggerProvider::builder().with_simple_exporter(logs.clone()).build();
    let (slow, telemetry) = (Slow::default(), OpenTelemetry::new().logger_provider(&loggers).without_instruments());
    assert!(format!("{telemetry:?}").starts_with("OpenTelemetry { logs: true, instruments: false"));
    let reports = Reports::builder().without_log().open_telemetry(telemetry).sink(slow.clone()).build().unwrap();
    let held = slow.0.lock().unwrap();
    let driven = Driven::new(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();

    // The span has no owner but the request: it ends when the request does.
    let span = tracers.tracer("photos").start("GET /import");
    let context = Context::new().with_span(span);
    let ids = context.span().span_context().clone();
    let layer = WatchdogLayer::new(THRESHOLD).without_blocking_reports().reports(reports.clone());
    let request = driven.spawn(
        async move {
            let work = async { stopped.await.unwrap_or_default() };
            serve(layer, "/import?album=7&token=hunter2", work).await;
        }
        .with_context(context),
    );
    let emitted = || logs.get_emitted_logs().unwrap();
    until("there is a record", || !emitted().is_empty());
    let record = emitted().remove(0);
    let ended = SystemTime::now();
    stop.send(()).unwrap();
    driven.handle.block_on(request).unwrap();
    until("the span ends, although the report still waits", || finished(&spans, "GET /import").is_some());
    drop(held);
    assert!(reports.blocking_flush(PATIENCE));

    let attributes = attributes(&record);
    let text = |name: &str| match attributes.get(name) {
        Some(AnyValue::String(text)) => text.as_str(),
        other => panic!("{name} is {other:?} among {attributes:#?}"),
    };
    let number = |name: &str| match attributes.get(name) {
        Some(AnyValue::Int(number)) => *number as f64,
        Some(AnyValue::Double(number)) => *number,
        other => panic!("{name} is {other:?}"),
    };
    assert_eq!(record.record.event_name(), Some(EVENT));
    assert_eq!((record.record.severity_number(), record.record.severity_text()), (Some(Severity::Warn), Some("WARN")));
    let Some(AnyValue::String(body)) = record.record.body() else { panic!("no text: {record:?}") };
    assert!(
        body.as_str()
            .starts_with("GET /import?album=7&token=[redacted] is waiting for a message through a oneshot channel: "),
        "{body}"
    );
    let trace = record.record.trace_context().expect("the request's trace");
    assert_eq!((trace.trace_id, trace.span_id), (ids.trace_id(), ids.span_id()));
    assert_eq!((record.instrumentation.name(), record.instrumentation.version()), ("heeler", Some("0.1.0")));
    assert_eq!((text("http.request.method"), text("url.path")), ("GET", "/import"));
    assert_eq!(text("url.query"), "album=7&token=[redacted]");
    assert_eq!((text("server.address"), number("server.port")), ("photos.example", 8080.0));
    assert_eq!((text("heeler.verdict"), text("heeler.kind")), ("waiting", "slow_request"));
    assert!(number("heeler.elapsed_ms") >= 200.0 && number("heeler.threshold_ms") == 200.0);
    assert!(text("code.function.name").contains("a_slow_request_is_a_record_and_an_event"));
    assert!(text("code.file.path").ends_with("tests/otel.rs") && number("code.line.number") > 0.0);
    assert!(text("code.stacktrace").contains("a_slow_request_is_a_record_and_an_event"));
    assert!(!format!("{record:?}").contains("hunter2"));

    let span = finished(&spans, "GET /import").unwrap();
    let event = span.events.iter().find(|event| event.name == EVENT).expect("an event");
    let has = |name: &'static str, value: &str| {
        event.attributes.iter().any(|attribute| attribute.key == Key::from(name) && attribute.value.as_str() == value)
    };
    assert!(has("heeler.verdict", "waiting") && has("heeler.report.id", text("heeler.report.id")), "{event:?}");
    assert!(event.timestamp >= span.start_time && event.timestamp <= ended, "{event:?}");
}

fn attributes(record: &LogDataWithResource) -> HashMap<String, AnyValue> {
    record.record.attributes_iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
}

/// The one subscriber of this process: the reporter logs to no other.
fn traced() -> &'static InMemorySpanExporter {
    static SPANS: OnceLock<InMemorySpanExporter> = OnceLock::new();
    SPANS.get_or_init(|| {
        let (tracers, exporter) = spans();
        let layer = tracing_opentelemetry::layer().with_tracer(tracers.tracer("photos"));
        let subscriber = tracing_subscriber::registry();
        #[cfg(feature = "spans")]
        let subscriber = subscriber.with(heeler::SpanLayer::new());
        subscriber.with(layer).init();
        exporter
    })
}

fn traced_reports() -> (Collected, Reports) {
    let collected = Collected::default();
    let builder = Reports::builder().repeat_after(Duration::ZERO).sink(collected.clone());
    (collected, builder.open_telemetry(OpenTelemetry::new().without_instruments()).build().unwrap())
}

/// Guards: with `tracing-opentelemetry`, a span around the watchdog gets the event, and the innermost span gets what is
/// logged.
#[test]
fn spans_of_tracing_get_their_events() {
    let exporter = traced();
    let (seen, reports) = traced_reports();
    let driven = Driven::new(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let layer = WatchdogLayer::new(THRESHOLD).without_blocking_reports().reports(reports.clone());
    let work = async { stopped.await.unwrap_or_default() };
    let work = work.instrument(tracing::info_span!("load photos"));
    let request = async move { serve(layer, "/photos", work).await };
    let request = driven.spawn(request.instrument(tracing::info_span!("GET /photos")));
    let report = seen.first();
    assert!(reports.blocking_flush(PATIENCE));
    stop.send(()).unwrap();
    driven.handle.block_on(request).unwrap();
    until("both spans end", || {
        finished(exporter, "GET /photos").is_some() && finished(exporter, "load photos").is_some()
    });
    let named = |span: &str, event: &str| {
        finished(exporter, span).unwrap().events.iter().filter(|seen| seen.name == event).count()
    };
    // An update may have come, too.
    assert!(named("GET /photos", EVENT) >= 1);
    assert_eq!(named("load photos", EVENT), 0);
    #[cfg(feature = "spans")]
    assert_eq!((named("GET /photos", &report.sentence()), named("load photos", &report.sentence())), (0, 1));
    // The live span counts, and not what the client has sent.
    let span = finished(exporter, "GET /photos").unwrap().span_context;
    let ids = (span.trace_id().to_string(), span.span_id().to_string());
    assert_eq!((report.trace_id, report.span_id), (Some(ids.0), Some(ids.1)));
}

/// Guards: without a span, a record belongs to the caller's trace. How the request ended is a record, too, and worries
/// nobody.
#[test]
fn without_a_span_the_record_has_the_callers_trace() {
    let logs = InMemoryLogExporter::default();
    let loggers = SdkLoggerProvider::builder().with_simple_exporter(logs.clone()).build();
    let telemetry = || OpenTelemetry::new().logger_provider(&loggers).without_instruments();
    let (seen, reports) = common::collect_with_endings(|builder| builder.open_telemetry(telemetry()));
    let driven = Driven::new(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let layer = WatchdogLayer::new(THRESHOLD).without_blocking_reports().reports(reports.clone());
    let work = async { stopped.await.unwrap_or_default() };
    let request = driven.spawn(async move { serve(layer, "/import", work).await });
    seen.first();
    stop.send(()).unwrap();
    driven.handle.block_on(request).unwrap();
    assert!(reports.blocking_flush(PATIENCE));
    let records = logs.get_emitted_logs().unwrap();
    for record in &records {
        let trace = record.record.trace_context().expect("the caller's trace");
        assert_eq!((trace.trace_id.to_string(), trace.span_id.to_string()), (TRACE.to_owned(), SPAN.to_owned()));
    }
    let (first, last) = (&records[0], records.last().unwrap());
    assert_eq!(first.record.severity_number(), Some(Severity::Warn));
    assert_eq!((last.record.severity_number(), last.record.severity_text()), (Some(Severity::Info), Some("INFO")));
    let attributes = attributes(last);
    assert_eq!(attributes.get("heeler.ended"), Some(&AnyValue::String("finished".into())));
    assert_eq!(attributes.get("http.response.status_code"), Some(&AnyValue::Int(200)));
}

/// Guards: a request that blocks in its first poll has no known OpenTelemetry span, but what is logged goes to its `tracing`
/// span.
#[cfg(feature = "spans")]
#[test]
fn a_blocking_request_is_logged_in_its_span() {
    if PORTABLE {
        return;
    }
    let exporter = traced();
    let (seen, reports) = traced_reports();
    let driven = Driven::new(1);
    let layer = WatchdogLayer::new(THRESHOLD).without_blocking_reports().reports(reports.clone());
    // The thread's spans are known from its first watched poll on.
    driven.handle.block_on(driven.spawn(heeler::watch("warm up", FOREVER, async {}))).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let work = async move {
        let _span = tracing::info_span!("resize").entered();
        let _ = stopped.recv();
    };
    let request = driven.spawn(async move { serve(layer, "/resize", work).await });
    let report = seen.wait("the blocked thread", |report| report.verdict == Verdict::Blocking);
    assert!(reports.blocking_flush(PATIENCE));
    stop.send(()).unwrap();
    driven.handle.block_on(request).unwrap();
    until("the span ends", || finished(exporter, "resize").is_some());
    let events = finished(exporter, "resize").unwrap().events;
    assert!(events.iter().any(|event| event.name == report.sentence()), "{events:?}");
}

/// Guards: a span that is closed by the time of the report is left alone, such as that of a request whose client has left.
#[test]
fn closed_spans_are_left_alone() {
    let exporter = traced();
    let (seen, reports) = traced_reports();
    let driven = Driven::new(1);
    let layer =
        WatchdogLayer::new(ms(4_000)).abandoned_at_fraction(0.25).without_blocking_reports().reports(reports.clone());
    let handle = layer.handle();
    let request = async move { serve(layer, "/left", std::future::pending()).await };
    let request = driven.spawn(request.instrument(tracing::info_span!("GET /left")));
    until("it is in flight", || handle.in_flight() == 1);
    // Longer than a quarter of its threshold, at which it is armed already.
    std::thread::sleep(ms(1_500));
    request.abort();
    let report = seen.first();
    assert!(reports.blocking_flush(PATIENCE));
    assert_eq!(report.verdict, Verdict::Abandoned);
    assert_eq!(reports.stats().failed_deliveries, 0);
    // Whether the event found it open is a matter of microseconds; that nothing failed is not.
    until("the span ends", || finished(exporter, "GET /left").is_some());
}

/// Guards: instruments have the metrics of the process, with units.
#[test]
fn instruments_have_the_processs_metrics() {
    let exporter = InMemoryMetricExporter::default();
    let meters = SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
    let (seen, reports) = collect_with(|builder| {
        let builder = builder.open_telemetry(OpenTelemetry::new().meter_provider(&meters));
        #[cfg(feature = "fleet")]
        let builder = builder.fleet(heeler::Fleet::new(Arc::new(object_store::memory::InMemory::new()), "photos"));
        builder
    });
    let driven = Driven::new(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let job = heeler::watch("import", THRESHOLD, async { stopped.await.unwrap_or_default() });
    let job = driven.spawn(job.reports(reports.clone()));
    seen.first();
    let mut metrics = HashMap::new();
    until("they are collected", || {
        exporter.reset();
        meters.force_flush().unwrap();
        metrics = collected(&exporter);
        #[cfg(feature = "fleet")]
        if metrics.get("heeler.fleet.heeds_conditions") != Some(&("1".to_owned(), 1)) {
            return false;
        }
        metrics.get("heeler.reports{waiting}").is_some_and(|(_, reports)| *reports >= 1)
    });
    #[cfg(feature = "fleet")]
    assert!(metrics["heeler.fleet.requests{put}"].1 >= 1, "{metrics:?}");
    let value = |name: &str| metrics.get(name).unwrap_or_else(|| panic!("no {name} in {metrics:?}")).1;
    // Other tests of this process run at the same time, and add to them.
    assert!(value("heeler.in_flight{job}") >= 1 && value("heeler.armed") >= 1 && value("heeler.watched{job}") >= 1);
    assert!(value("heeler.captures{taken}") >= 1);
    assert_eq!((value("heeler.suppressed"), value("heeler.dropped"), value("heeler.undelivered")), (0, 0, 0));
    assert_eq!(metrics["heeler.queued"].0, "{report}");
    assert_eq!(metrics["heeler.monitor.up"], ("1".to_owned(), 1));
    assert_eq!((&*metrics["heeler.monitor.heartbeat_age"].0, &*metrics["heeler.monitor.max_lag"].0), ("s", "s"));
    let units: Vec<&str> = ["heeler.reports{waiting}", "heeler.dropped", "heeler.armed", "heeler.captures{missed}"]
        .map(|name| &*metrics[name].0)
        .into();
    assert_eq!(units, ["{report}", "{capture}", "{piece}", "{capture}"]);
    stop.send(()).unwrap();
    driven.handle.block_on(job).unwrap();
}

/// Unit and value by `name{attribute}`.
fn collected(exporter: &InMemoryMetricExporter) -> HashMap<String, (String, i64)> {
    let mut found = HashMap::new();
    for resource in exporter.get_finished_metrics().unwrap() {
        for metric in resource.scope_metrics().flat_map(|scope| scope.metrics()) {
            let mut add = |attributes: Vec<String>, value: i64| {
                let labels =
                    if attributes.is_empty() { String::new() } else { format!("{{{}}}", attributes.join(",")) };
                found.insert(metric.name().to_owned() + &labels, (metric.unit().to_owned(), value));
            };
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    assert!(sum.is_monotonic(), "{}", metric.name());
                    for point in sum.data_points() {
                        add(
                            point.attributes().map(|attribute| attribute.value.to_string()).collect(),
                            point.value() as i64,
                        );
                    }
                }
                AggregatedMetrics::I64(MetricData::Sum(sum)) => {
                    assert!(!sum.is_monotonic(), "{}", metric.name());
                    for point in sum.data_points() {
                        add(point.attributes().map(|attribute| attribute.value.to_string()).collect(), point.value());
                    }
                }
                AggregatedMetrics::F64(MetricData::Gauge(gauge)) => {
                    for point in gauge.data_points() {
                        // Whole seconds will do.
                        add(
                            point.attributes().map(|attribute| attribute.value.to_string()).collect(),
                            point.value() as i64,
                        );
                    }
                }
                other => panic!("{}: {other:?}", metric.name()),
            }
        }
    }
    found
}

const PAGE: &str = include_str!("../docs/opentelemetry.md");
const COLLECTOR: &str = include_str!("../docs/opentelemetry/collector.yaml");

/// Guards: the collector's configuration is YAML, and its pipelines use each component that it defines, and no other.
#[test]
fn the_collectors_pipelines_name_what_is_defined() {
    let documents = yaml_rust2::YamlLoader::load_from_str(COLLECTOR).unwrap();
    let [config] = &documents[..] else { panic!("one document") };
    let keys = |of: &yaml_rust2::Yaml| -> BTreeSet<String> {
        of.as_hash().expect("a map").keys().map(|key| key.as_str().unwrap().to_owned()).collect()
    };
    let pipelines = &config["service"]["pipelines"];
    assert_eq!(keys(pipelines), ["logs", "traces"].map(str::to_owned).into());
    for kind in ["receivers", "processors", "exporters"] {
        let pipelines = pipelines.as_hash().unwrap().values();
        let used: BTreeSet<String> = pipelines
            .flat_map(|pipeline| pipeline[kind].as_vec().expect("a list"))
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(used, keys(&config[kind]), "{kind}");
    }
    let policies = config["processors"]["tail_sampling"]["policies"].as_vec().unwrap();
    let condition = policies[0]["ottl_condition"]["spanevent"][0].as_str().unwrap();
    assert_eq!(condition, format!("name == \"{EVENT}\""));
}

/// Guards: whoever copies a query or a policy asks for attributes that reports have.
#[test]
fn the_pages_attributes_are_those_of_a_record() {
    let logs = InMemoryLogExporter::default();
    let loggers = SdkLoggerProvider::builder().with_simple_exporter(logs.clone()).build();
    let telemetry = OpenTelemetry::new().logger_provider(&loggers).without_instruments();
    let reports = Reports::builder().without_log().open_telemetry(telemetry).build().unwrap();
    let emitted = move || logs.get_emitted_logs().unwrap();
    let seen = emitted.clone();
    let work = async move {
        let waiting = move || until("there is a record", || !seen().is_empty());
        tokio::task::spawn_blocking(waiting).await.unwrap();
    };
    let layer = WatchdogLayer::new(THRESHOLD).reports(reports.clone());
    common::runtime(0).block_on(serve(layer, "/import", work));
    assert!(reports.blocking_flush(PATIENCE));
    let names: BTreeSet<String> = emitted().iter().flat_map(|record| attributes(record).into_keys()).collect();
    assert!(names.contains("heeler.incident") && names.contains("heeler.fingerprint"), "{names:?}");
    // Loki writes `_` for a dot.
    let flat: BTreeSet<String> = names.iter().map(|name| name.replace('.', "_")).collect();
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let mut asked = 0;
    for word in [PAGE, COLLECTOR].iter().flat_map(|text| text.split(|c| !is_of_word(c))) {
        let word = word.trim_matches('.').trim_start_matches("event.");
        let prefixes = ["heeler.", "heeler_", "code.", "code_"];
        if word != EVENT && prefixes.iter().any(|prefix| word.starts_with(prefix)) {
            assert!(names.contains(word) || flat.contains(word), "{word} is not among {names:#?}");
            asked += 1;
        }
    }
    assert!(asked > 15, "{asked}");
}
