//! Profiles, and timelines of reports, on a server that speaks Pyroscope's protocol.
#![cfg(all(feature = "axum", feature = "pyroscope", feature = "watchdog"))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../webhook/log.rs"]
mod log;
mod server;
mod slow;
mod tls;

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use common::{PATIENCE, ms, until};
use heeler::report::SinkStats;
use heeler::{ProfileLayer, Pyroscope};
use http::Request;
use http::request::Parts;
use http_body_util::BodyExt as _;
use log::logged;
use serde_json::Value;
use server::Server;
use tower::ServiceExt as _;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn layer(pyroscope: Pyroscope) -> ProfileLayer {
    ProfileLayer::new(|_: &Parts| true).pyroscope(pyroscope).unwrap()
}

async fn album() -> &'static str {
    tokio::time::sleep(ms(30)).await;
    let began = Instant::now();
    while began.elapsed() < ms(10) {
        std::hint::black_box(began);
    }
    "an album"
}

/// Has a request profiled, and returns the profile as the layer has it.
fn profiled(layer: &ProfileLayer, uri: &str) -> Value {
    let app = Router::new().route("/albums/{id}", get(album)).layer(layer.clone());
    common::runtime(1).block_on(async {
        let request = Request::get(uri).header("x-geordi", "1").header("authorization", "Bearer hunter2");
        let request = request.header("traceparent", format!("00-{TRACE}-{SPAN}-01")).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let id = response.headers()["x-geordi-id"].to_str().unwrap().to_owned();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "an album");
        // It is done a moment after the response.
        loop {
            let request = Request::get(format!("/?__geordi__={id}.json")).header("authorization", "Bearer hunter2");
            let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            match serde_json::from_slice::<Value>(&body) {
                Ok(profile) if profile.get("wall_nanos").is_some() => return profile,
                _ => tokio::time::sleep(ms(10)).await,
            }
        }
    })
}

/// Has a job profiled, which takes no time to speak of.
fn job(layer: &ProfileLayer, name: &str) {
    common::runtime(0).block_on(layer.job(name, tokio::task::yield_now()));
}

fn flushed(layer: &ProfileLayer, patience: Duration) -> bool {
    // On an executor that knows nothing of tokio.
    futures::executor::block_on(layer.flush(patience))
}

fn stats(layer: &ProfileLayer) -> SinkStats {
    layer.pyroscope_stats().unwrap()
}

fn uuid(id: &str) -> bool {
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && id.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

/// Guards: a server gets the profile's whole time, by stack, with the labels to find it by, and nothing else of the request.
#[test]
fn a_profile_is_pushed_with_its_time_and_its_labels() {
    let server = Server::start();
    let pyroscope =
        server.pyroscope("/prefix/").basic_auth("4711", "a token").tenant("team-7").label("region", "eu{,}");
    let layer = layer(pyroscope);
    let profile = profiled(&layer, "/albums/31415?token=hunter2");
    let post = server.post();
    assert_eq!(post.uri.path(), "/prefix/push.v1.PusherService/Push");
    assert_eq!(post.header("authorization"), "Basic NDcxMTphIHRva2Vu");
    assert_eq!((post.header("x-scope-orgid"), post.header("connect-protocol-version")), ("team-7", "1"));
    let pushed = post.pushed();
    assert!(uuid(pushed.id.as_ref().unwrap()), "{pushed:?}");
    let labels: Vec<String> = pushed.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let expected = ["__name__=wall", "pyroscope_spy=heeler", "region=eu{,}", "service_name=photos", "source=profile"];
    assert_eq!(labels, expected);
    assert_eq!(pushed.types()[1], "wall:wall:nanoseconds:wall:nanoseconds");

    let wall = profile["wall_nanos"].as_i64().unwrap();
    assert_eq!((pushed.wall(), pushed.profile.duration_nanos), (wall, wall));
    let samples = pushed.samples();
    for sample in &samples {
        let mut labels = sample.labels.clone();
        let state = labels.remove("state").expect("a state");
        assert!(["on_cpu", "blocked", "no_cpu", "waiting", "runnable"].contains(&&*state), "{state}");
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(labels, [("route", "/albums/{id}"), ("span_id", SPAN), ("trace_id", TRACE)]);
    }
    let waiting = samples.iter().filter(|sample| sample.labels["state"] == "waiting");
    let longest = waiting.max_by_key(|sample| sample.values["wall"]).expect("a wait");
    assert!(longest.values["wall"] >= 29_000_000, "{longest:?}");
    assert!(longest.functions.iter().any(|function| function.contains("album")), "{longest:?}");
    let texts = pushed.profile.string_table.join("\n");
    assert!(!texts.contains("hunter2") && !texts.contains("31415") && !texts.contains(" ms"), "{texts}");
    assert!(flushed(&layer, PATIENCE));
    assert_eq!((stats(&layer).delivered, stats(&layer).queued, server.posts().len()), (1, 0, 1));
}

/// Guards: by `/ingest`, the server gets the same, with labels that its parameter can have.
#[test]
fn ingest_has_the_same_with_labels_in_the_query() {
    let server = Server::start();
    let layer = layer(server.pyroscope("").service("photos, {1}").label("region", "eu=west").ingest());
    let profile = profiled(&layer, "/albums/31415");
    let post = server.post();
    assert_eq!(post.uri.path(), "/ingest");
    let pushed = post.ingested();
    let labels: Vec<String> = pushed.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["region=eu=west", "service_name=photos___1_", "source=profile"]);
    let parameters = post.parameters();
    assert_eq!((&*parameters["spyName"], parameters.len()), ("heeler", 5));
    let (from, until): (i64, i64) = (parameters["from"].parse().unwrap(), parameters["until"].parse().unwrap());
    assert!(from < until && from == pushed.profile.time_nanos / 1_000_000_000, "{parameters:?}");
    assert_eq!(pushed.wall(), profile["wall_nanos"].as_i64().unwrap());
    assert!(pushed.samples().iter().all(|sample| sample.labels["route"] == "/albums/{id}"));
}

/// Guards: a job is found by its name, in which nothing that looks like a secret is left. Ids of traces can be left out.
#[test]
fn a_job_has_its_name_as_a_label() {
    let server = Server::start();
    let jobs = layer(server.pyroscope(""));
    job(&jobs, "import password=hunter2");
    let samples = server.post().pushed().samples();
    assert!(!samples.is_empty());
    for sample in samples {
        assert_eq!((sample.labels["job"].as_str(), sample.labels.get("route")), ("import password=[redacted]", None));
    }
    let server = Server::start();
    profiled(&layer(server.pyroscope("").without_trace_ids()), "/albums/1");
    let sample = server.post().pushed().samples().remove(0);
    assert_eq!((sample.labels.get("trace_id"), sample.labels["span_id"].as_str()), (None, SPAN));
}

/// Guards: what a server refuses is given up, counted and logged with what the server said, but without any secret, even if
/// the server repeats it. A redirect is not followed.
#[test]
fn refusals_are_counted_and_logged_without_secrets() {
    let server = Server::start();
    for (path, said) in [
        ("/refused/T0KEN-1", "the server answered 401 Unauthorized: no such user \"[redacted]\" at [redacted]"),
        ("/moved/T0KEN-1", "the server answered 308 Permanent Redirect"),
    ] {
        let pyroscope = server.pyroscope(path).basic_auth("T0KEN-2", "T0KEN-3").tenant("T0KEN-4").label("a", "T0KEN-5");
        let layer = layer(pyroscope);
        assert!(!format!("{layer:?}").contains("T0KEN"));
        let logged = logged(|| {
            job(&layer, "nightly import");
            until("it is refused", || stats(&layer).undelivered == 1);
            assert!(flushed(&layer, PATIENCE));
        });
        let stats = stats(&layer);
        assert_eq!((stats.delivered, stats.queued, stats.failed_deliveries), (0, 0, 1));
        assert!(
            logged.contains(&format!("a profile did not arrive: pyroscope 127.0.0.1 profiles: {said}")),
            "{logged}"
        );
        assert!(!logged.contains("T0KEN"), "{logged}");
    }
    let paths: Vec<String> = server.posts().iter().map(|post| post.uri.path().to_owned()).collect();
    assert!(!paths.iter().any(|path| path == "/elsewhere"), "{paths:?}");
}

/// Guards: a server that is down, busy or silent neither delays the work nor a flush for longer than it may take. The profile
/// waits meanwhile.
#[test]
fn an_unreachable_server_delays_nothing() {
    let server = Server::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let targets = [
        (Pyroscope::new(format!("http://{closed}/T0KEN-1")), "error sending request"),
        (server.pyroscope("/down/T0KEN-1"), "503 Service Unavailable: come back later"),
        (server.pyroscope("/never/T0KEN-1"), "no answer within 3s"),
    ];
    for (pyroscope, said) in targets {
        // So long that a busy machine does not delay it as much.
        let timeout = ms(3_000);
        let layer = layer(pyroscope.timeout(timeout));
        let logged = logged(|| {
            let began = Instant::now();
            job(&layer, "nightly import");
            assert!(began.elapsed() < timeout, "{:?}", began.elapsed());
            until("it has failed", || stats(&layer).failed_deliveries > 0);
            let began = Instant::now();
            assert!(!flushed(&layer, ms(100)));
            assert!(began.elapsed() < timeout, "{:?}", began.elapsed());
        });
        let stats = stats(&layer);
        assert_eq!((stats.delivered, stats.undelivered, stats.queued), (0, 0, 1), "{said}");
        assert!(logged.contains(said) && !logged.contains("T0KEN"), "{logged}");
    }
}

/// Guards: what failed for now is sent again, the very same.
#[test]
fn retries_after_a_failed_push() {
    let server = Server::start();
    let layer = layer(server.pyroscope("/recovering"));
    job(&layer, "nightly import");
    until("it has arrived", || stats(&layer).delivered == 1);
    let posts = server.posts();
    assert_eq!((posts.len(), stats(&layer).failed_deliveries), (2, 1));
    assert_eq!(posts[0].body, posts[1].body);
}

/// Guards: profiles for a server that hangs take bounded memory. The oldest go first, are counted, and the log says so.
#[test]
fn drops_the_oldest_profile_when_the_queue_is_full() {
    let server = Server::start();
    let layer = layer(server.pyroscope("/never").timeout(common::FOREVER).max_queued(2));
    let logged = logged(|| {
        job(&layer, "job 0");
        until("the first is on its way", || !server.posts().is_empty());
        for number in 1..6 {
            job(&layer, &format!("job {number}"));
        }
        until("the others are dropped", || stats(&layer).undelivered == 3);
        assert!(!flushed(&layer, ms(100)));
    });
    assert_eq!((stats(&layer).queued, stats(&layer).delivered), (3, 0), "one on its way, two that wait");
    assert!(logged.contains("too many profiles wait for it: the oldest is dropped"), "{logged}");
}

/// Guards: settings that cannot be used are errors, of the layer and of the builder, and contain no secret.
#[test]
fn unusable_settings_are_errors() {
    for pyroscope in [Pyroscope::new("http://profiles.example.com/T0KEN"), Pyroscope::new("T0KEN")] {
        let profiles = ProfileLayer::new(|_: &Parts| true).pyroscope(pyroscope.clone()).unwrap_err();
        let reports = heeler::Reports::builder().pyroscope(pyroscope).build().unwrap_err();
        assert!(profiles.is_config() && reports.is_config());
        assert!(!format!("{profiles} {reports} {profiles:?}").contains("T0KEN"));
    }
    assert!(ProfileLayer::new(|_: &Parts| true).pyroscope_stats().is_none());
}
