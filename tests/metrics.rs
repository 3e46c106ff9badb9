//! The metrics reach a recorder of the `metrics` facade, by themselves.
#![cfg(feature = "watchdog")]
#![cfg(feature = "metrics")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::ThreadId;

use common::{Driven, FOREVER, PATIENCE, ms, until};
use heeler::{Report, Reports, Sink};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// A recorder that panics now and then, and notes who calls it.
struct Fragile {
    inner: DebuggingRecorder,
    calls: AtomicU32,
    panics: AtomicBool,
    threads: std::sync::Mutex<Vec<(ThreadId, Option<String>)>>,
}

impl Fragile {
    fn called(&self) {
        let thread = std::thread::current();
        let caller = (thread.id(), thread.name().map(str::to_owned));
        let mut threads = self.threads.lock().unwrap();
        if !threads.contains(&caller) {
            threads.push(caller);
        }
        drop(threads);
        self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics.load(Ordering::Relaxed), "no room for one more series");
    }
}

impl Recorder for Fragile {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.called();
        self.inner.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.called();
        self.inner.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.called();
        self.inner.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.called();
        self.inner.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.called();
        self.inner.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.called();
        self.inner.register_histogram(key, metadata)
    }
}

struct Broken;

impl Sink for Broken {
    fn name(&self) -> &'static str {
        "pager"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        Err("out of paper".into())
    }
}

/// What one series is and has.
struct Series {
    kind: MetricKind,
    unit: Option<Unit>,
    description: Option<SharedString>,
    values: Vec<f64>,
}

/// Everything that was recorded, as `name{label=value}`.
struct Recorded {
    snapshotter: Snapshotter,
    series: HashMap<String, Series>,
}

impl Recorded {
    /// A snapshot takes counters and histograms away: what was seen before is kept here.
    fn look(&mut self) -> &HashMap<String, Series> {
        for (key, unit, description, value) in self.snapshotter.snapshot().into_vec() {
            let (kind, key) = (key.kind(), key.key());
            let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let empty = Series { kind, unit, description, values: Vec::new() };
            let values = &mut self.series.entry(key.name().to_owned() + &labels).or_insert(empty).values;
            match value {
                DebugValue::Counter(value) => *values = vec![values.first().map_or(0.0, |v| *v).max(value as f64)],
                DebugValue::Gauge(value) => *values = vec![value.into_inner()],
                DebugValue::Histogram(more) => values.extend(more.into_iter().map(|value| value.into_inner())),
            }
        }
        &self.series
    }

    fn value(&mut self, name: &str) -> Option<f64> {
        self.look().get(name)?.values.first().copied()
    }
}

/// Guards: a slow job's metrics arrive with names, units and descriptions, from the reporter's thread alone. A recorder that
/// panics is survived, and gets what it missed.
#[test]
fn a_slow_job_reaches_the_recorder() {
    let inner = DebuggingRecorder::new();
    let mut recorded = Recorded { snapshotter: inner.snapshotter(), series: HashMap::new() };
    let recorder: Arc<Fragile> = Arc::new(Fragile {
        inner,
        calls: AtomicU32::new(0),
        panics: AtomicBool::new(true),
        threads: std::sync::Mutex::default(),
    });
    metrics::set_global_recorder(Arc::clone(&recorder)).unwrap();

    let driven = Driven::new(1);
    let builder = Reports::builder().without_log().sink(Broken);
    #[cfg(feature = "fleet")]
    let builder = {
        let bucket = Arc::new(object_store::memory::InMemory::new());
        builder.fleet(heeler::Fleet::new(bucket, "photos").flush_every(ms(100)))
    };
    let reports = builder.build().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let job = heeler::watch("import", ms(200), async {
        let _ = stopped.await;
    });
    let job = driven.spawn(job.reports(reports.clone()));
    let quick = driven.spawn(heeler::watch("quick", FOREVER, async {}));
    until("it is reported", || reports.stats().with_verdict(heeler::report::Verdict::Waiting) >= 1);
    until("it reaches its sinks", || reports.stats().failed_deliveries >= 1);
    assert_eq!(reports.stats().dropped, 0);
    let calls = || recorder.calls.load(Ordering::Relaxed);
    let before = calls();
    until("the reporter has tried again", || calls() >= before + 2);
    assert!(recorded.look().is_empty());
    recorder.panics.store(false, Ordering::Relaxed);

    let expected = [
        ("heeler_delivery_failures_total{sink=pager}", 1.0),
        ("heeler_reports_total{verdict=waiting}", 1.0),
        // It waits for another try.
        ("heeler_queue_depth", 1.0),
        ("heeler_captures_total{result=taken}", 1.0),
        ("heeler_armed_total", 1.0),
        ("heeler_monitor_up", 1.0),
    ];
    for (name, least) in expected {
        until(name, || recorded.value(name) >= Some(least));
    }
    #[cfg(feature = "fleet")]
    for (name, least) in [("heeler_fleet_requests_total{kind=put}", 3.0), ("heeler_fleet_heeds_conditions", 1.0)] {
        until(name, || recorded.value(name) >= Some(least));
    }
    let expected = [
        ("heeler_jobs_watched_total", 2.0),
        ("heeler_in_flight{work=job}", 1.0),
        ("heeler_in_flight{work=request}", 0.0),
        ("heeler_armed", 1.0),
        ("heeler_requests_watched_total", 0.0),
        ("heeler_captures_total{result=missed}", 0.0),
        ("heeler_reports_suppressed_total", 0.0),
        ("heeler_reports_dropped_total", 0.0),
        ("heeler_reports_undelivered_total", 0.0),
    ];
    for (name, value) in expected {
        until(name, || recorded.value(name) == Some(value));
    }

    // A recorder that works gets how slow the next one was, once: not again with each update.
    let (stop_again, stopped) = tokio::sync::oneshot::channel::<()>();
    let again = heeler::watch("again", ms(200), async {
        let _ = stopped.await;
    });
    let again = driven.spawn(again.reports(reports.clone()));
    let elapsed = "heeler_report_elapsed_seconds{verdict=waiting}";
    until("it is recorded", || recorded.value(elapsed).is_some());
    let made = reports.stats().made;
    until("it is captured again", || reports.stats().made > made);
    for (name, series) in recorded.look() {
        let counts = name.split('{').next().unwrap().ends_with("_total");
        assert_eq!(counts, series.kind == MetricKind::Counter, "{name}");
        assert!(series.description.as_ref().is_some_and(|text| text.ends_with('.')), "{name} has no description");
        let wanted = if name.split('{').next().unwrap().ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        assert_eq!(series.unit, Some(wanted), "{name}");
    }

    stop.send(()).unwrap();
    stop_again.send(()).unwrap();
    driven.handle.block_on(async { (job.await.unwrap(), again.await.unwrap(), quick.await.unwrap()) });
    until("nothing is in flight", || recorded.value("heeler_in_flight{work=job}") == Some(0.0));
    let elapsed = &recorded.series[elapsed].values;
    assert_eq!(elapsed.len(), 1, "{elapsed:?}");
    assert!((0.2..PATIENCE.as_secs_f64()).contains(&elapsed[0]), "{elapsed:?}");
    let threads = recorder.threads.lock().unwrap();
    assert_eq!(threads.len(), 1, "{threads:?}");
    assert_eq!(threads[0].1.as_deref(), Some("heeler-reporter"));
}

/// Guards: the dashboard and the alerts in `docs/` ask for metrics that there are, and leave none of the losses out.
#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let documented = include_str!("../src/report/metrics/mod.rs");
    let used = [include_str!("../docs/prometheus/alerts.yml"), include_str!("../docs/prometheus/grafana.json")];
    for text in used {
        let names =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|name| name.starts_with("heeler_"));
        let mut many = 0;
        for name in names {
            let metric = name.strip_suffix("_count").unwrap_or(name);
            assert!(documented.contains(&format!("`{metric}`")), "{name}");
            many += 1;
        }
        assert!(many > 5);
    }
    for lost in ["undelivered", "dropped"] {
        assert!(used.iter().all(|text| text.contains(&format!("heeler_reports_{lost}_total"))), "{lost}");
    }
}
