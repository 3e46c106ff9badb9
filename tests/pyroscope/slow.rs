//! Where the time of slow work went, as a profile.

use std::collections::BTreeMap;
use std::time::Duration;

use heeler::{Report, Reports, ReportsBuilder};

use crate::common::{Collected, FOREVER, PATIENCE, collect_with_endings, ms, runtime, until};
use crate::log::logged;
use crate::server::{Pushed, Sample, Server};

const THRESHOLD: Duration = Duration::from_millis(200);

async fn fetch_rates(seen: &Collected, enough: impl Fn(&[Report]) -> bool + Send + 'static) {
    let seen = seen.clone();
    let waiting = move || until("it is reported", || enough(&seen.all()));
    tokio::task::spawn_blocking(waiting).await.unwrap();
}

fn reports(change: impl FnOnce(ReportsBuilder) -> ReportsBuilder) -> (Collected, Reports) {
    collect_with_endings(|builder| change(builder.service("photos", "1.2.0")))
}

/// The time of all reported work, by its last report.
fn elapsed(seen: &Collected) -> Duration {
    let last: BTreeMap<String, Duration> = seen.all().into_iter().map(|report| (report.id, report.elapsed)).collect();
    last.values().sum()
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap()
}

/// Guards: all reports of an interval are one push, which has all their time, by stack, and says which job it was. A flush
/// does not wait for the interval's end. How the work ended is no push.
#[test]
fn all_reports_of_an_interval_are_one_profile() {
    let server = Server::start();
    let (seen, reports) = reports(|builder| builder.pyroscope(server.pyroscope("").interval(FOREVER)));
    for name in ["import", "export", "resize"] {
        let enough = move |all: &[Report]| all.iter().any(|report| report.job.as_deref() == Some(name));
        let job = heeler::watch(name, THRESHOLD, fetch_rates(&seen, enough));
        runtime(0).block_on(job.reports(reports.clone()));
    }
    assert!(server.posts().is_empty(), "before the interval is over");
    assert!(reports.blocking_flush(PATIENCE));
    let posts = server.posts();
    assert_eq!(posts.len(), 1);
    let pushed = posts[0].pushed();
    let labels: Vec<String> = pushed.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["__name__=wall", "pyroscope_spy=heeler", "service_name=photos", "source=slow_requests"]);
    assert_eq!(pushed.types()[1], "wall:wall:nanoseconds:wall:nanoseconds");
    assert_eq!(pushed.wall(), nanos(elapsed(&seen)));
    let samples = pushed.samples();
    let waits = samples.iter().filter(|sample| sample.labels["state"] == "waiting");
    let mut jobs: Vec<(&str, bool)> = waits
        .map(|sample| {
            let is_named = sample.functions.iter().any(|function| function.contains("fetch_rates"));
            (sample.labels["job"].as_str(), is_named)
        })
        .collect();
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs, [("export", true), ("import", true), ("resize", true)]);
    let stats = reports.stats();
    assert_eq!((stats.undelivered, stats.queued, stats.failed_deliveries), (0, 0, 0));
}

/// Guards: an update adds only what is new in it, so that each request's time counts once.
#[test]
fn an_update_adds_only_its_own_time() {
    let server = Server::start();
    let (seen, reports) = reports(|builder| builder.pyroscope(server.pyroscope("").interval(FOREVER)));
    // The first report reads the program's debug information, which takes longer than the first update.
    let job = heeler::watch("export", THRESHOLD, fetch_rates(&seen, |all| !all.is_empty()));
    runtime(0).block_on(job.reports(reports.clone()));
    let job = heeler::watch("import", 3 * THRESHOLD, async {
        for update in 0..3 {
            let enough = move |all: &[Report]| all.iter().any(|report| is_import(report) && report.update >= update);
            fetch_rates(&seen, enough).await;
            let reports = reports.clone();
            assert!(tokio::task::spawn_blocking(move || reports.blocking_flush(PATIENCE)).await.unwrap());
        }
    });
    runtime(0).block_on(job.reports(reports.clone()));
    let of_import = |sample: &Sample| sample.labels["job"] == "import";
    let wall = |pushed: &Pushed| {
        pushed.samples().iter().filter(|sample| of_import(sample)).map(|sample| sample.values["wall"]).sum()
    };
    let pushes: Vec<i64> = server.posts().iter().map(|post| wall(&post.pushed())).filter(|wall| *wall > 0).collect();
    assert!(pushes.len() >= 2, "{pushes:?}");
    let whole = seen.all().iter().filter(|report| is_import(report)).map(|report| nanos(report.elapsed)).max().unwrap();
    // Shares are rounded to the microsecond, each by itself.
    assert!((pushes.iter().sum::<i64>() - whole).abs() < 1_000_000, "{pushes:?} are not {whole}");
}

fn is_import(report: &Report) -> bool {
    report.job.as_deref() == Some("import")
}

/// Guards: when its time has come, a profile is pushed by itself. If the server refuses it, its reports are counted as not
/// delivered, and the log says so without a secret.
#[test]
fn reports_that_a_server_refuses_are_counted() {
    let server = Server::start();
    let pyroscope = server.pyroscope("/refused/T0KEN-1").bearer_token("T0KEN-2").interval(ms(10));
    let logged = logged(|| {
        let (seen, reports) = reports(|builder| builder.pyroscope(pyroscope));
        let job = heeler::watch("import", THRESHOLD, fetch_rates(&seen, |all| !all.is_empty()));
        runtime(0).block_on(job.reports(reports.clone()));
        until("it is refused", || reports.stats().undelivered > 0);
        assert_eq!(server.post().header("authorization"), "Bearer T0KEN-2");
        let sinks = reports.sinks();
        let sink = sinks.iter().find(|sink| sink.name == "pyroscope 127.0.0.1").unwrap();
        assert!(sink.undelivered >= 1 && sink.failed_deliveries >= 1, "{sink:?}");
    });
    assert!(logged.contains("a report did not arrive: pyroscope 127.0.0.1: the server answered 401"), "{logged}");
    assert!(!logged.contains("T0KEN"), "{logged}");
}

/// Guards: while a server is down, reports wait for it, and all their time arrives in the end.
#[test]
fn timelines_wait_for_a_server_that_is_down() {
    let server = Server::start();
    let (seen, reports) = reports(|builder| builder.pyroscope(server.pyroscope("/recovering").interval(ms(10))));
    let job = heeler::watch("import", THRESHOLD, fetch_rates(&seen, |all| !all.is_empty()));
    runtime(0).block_on(job.reports(reports.clone()));
    until("it has arrived", || server.posts().len() >= 2 && reports.blocking_flush(PATIENCE));
    let pushes: i64 = server.posts().iter().skip(1).map(|post| post.pushed().wall()).sum();
    assert!((pushes - nanos(elapsed(&seen))).abs() < 1_000_000);
    assert_eq!((reports.stats().undelivered, reports.stats().failed_deliveries), (0, 1));
}
