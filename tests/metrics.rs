//! The figures reach a recorder of the `metrics` facade, by themselves.
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

    fn deliver(&self, _: &Report) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("out of paper".into())
    }
}

type Series = HashMap<String, (MetricKind, Option<Unit>, Option<SharedString>, Vec<f64>)>;

/// `name{label=value}` and its value; a histogram's values.
fn series(snapshotter: &Snapshotter) -> Series {
    let all = snapshotter.snapshot().into_vec().into_iter();
    all.map(|(key, unit, description, value)| {
        let labels: Vec<String> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let values = match value {
            DebugValue::Counter(value) => vec![value as f64],
            DebugValue::Gauge(value) => vec![value.into_inner()],
            DebugValue::Histogram(values) => values.into_iter().map(|value| value.into_inner()).collect(),
        };
        (key.key().name().to_owned() + &labels, (key.kind(), unit, description, values))
    })
    .collect()
}

/// Guards: a slow job's figures arrive with names, units and descriptions, from the reporter's thread alone; a recorder
/// that panics is survived, and gets what it missed.
#[test]
fn a_slow_job_reaches_the_recorder() {
    let inner = DebuggingRecorder::new();
    let snapshotter = inner.snapshotter();
    let recorder: Arc<Fragile> = Arc::new(Fragile {
        inner,
        calls: AtomicU32::new(0),
        panics: AtomicBool::new(true),
        threads: std::sync::Mutex::default(),
    });
    metrics::set_global_recorder(Arc::clone(&recorder)).unwrap();

    let driven = Driven::new(1);
    let reports = Reports::builder().log(false).sink(Broken).build().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let job = heeler::watch("import", ms(200), async {
        let _ = stopped.await;
    });
    let job = driven.spawn(job.reports(reports.clone()));
    let quick = driven.spawn(heeler::watch("quick", FOREVER, async {}));
    until("it is reported", || reports.stats().with_verdict(heeler::report::Verdict::Waiting) >= 1);
    let calls = || recorder.calls.load(Ordering::Relaxed);
    let before = calls();
    until("the reporter has tried again", || calls() >= before + 2);
    assert!(series(&snapshotter).is_empty());
    recorder.panics.store(false, Ordering::Relaxed);

    let mut elapsed = Vec::new();
    let value = |series: &Series, name: &str| series.get(name).map(|(_, _, _, values)| values[0]);
    until("the failed delivery is published", || {
        value(&series(&snapshotter), "heeler_delivery_failures_total{sink=pager}") >= Some(1.0)
    });
    until("all of it is", || {
        let all = series(&snapshotter);
        value(&all, "heeler_reports_total{verdict=waiting}") >= Some(1.0)
            && value(&all, "heeler_jobs_watched_total") == Some(2.0)
            && value(&all, "heeler_in_flight{work=job}") == Some(1.0)
    });
    let all = series(&snapshotter);
    assert!(value(&all, "heeler_captures_total{result=taken}") >= Some(1.0));
    assert_eq!(value(&all, "heeler_captures_total{result=missed}"), Some(0.0));
    assert_eq!(value(&all, "heeler_armed"), Some(1.0));
    assert_eq!(value(&all, "heeler_requests_watched_total"), Some(0.0));
    assert_eq!(value(&all, "heeler_reports_dropped_total"), Some(0.0));
    for (name, (kind, unit, description, _)) in &all {
        let counts = name.split('{').next().unwrap().ends_with("_total");
        assert_eq!(counts, *kind == MetricKind::Counter, "{name}");
        assert!(description.as_ref().is_some_and(|text| text.ends_with('.')), "{name} has no description");
        let wanted = if *kind == MetricKind::Histogram { Unit::Seconds } else { Unit::Count };
        assert_eq!(*unit, Some(wanted), "{name}");
    }

    // A recorder that works gets how slow the next one was; updates of the first are not told again.
    let (stop_again, stopped) = tokio::sync::oneshot::channel::<()>();
    let again = heeler::watch("again", ms(200), async {
        let _ = stopped.await;
    });
    let again = driven.spawn(again.reports(reports.clone()));
    until("it is recorded", || {
        // A snapshot takes a histogram's values away.
        let now = series(&snapshotter).remove("heeler_report_elapsed_seconds{verdict=waiting}");
        elapsed.extend(now.into_iter().flat_map(|(_, _, _, values)| values));
        !elapsed.is_empty()
    });
    assert!(elapsed.iter().all(|seconds| (0.2..PATIENCE.as_secs_f64()).contains(seconds)), "{elapsed:?}");

    stop.send(()).unwrap();
    stop_again.send(()).unwrap();
    driven.handle.block_on(async { (job.await.unwrap(), again.await.unwrap(), quick.await.unwrap()) });
    until("nothing is in flight", || value(&series(&snapshotter), "heeler_in_flight{work=job}") == Some(0.0));
    let threads = recorder.threads.lock().unwrap();
    assert_eq!(threads.len(), 1, "{threads:?}");
    assert_eq!(threads[0].1.as_deref(), Some("heeler-reporter"));
}
