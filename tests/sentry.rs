//! Reports in Sentry: through its own client, to a transport that keeps events, and over HTTP to a server on this host.
#![cfg(feature = "watchdog")]
#![cfg(feature = "sentry")]

mod common;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use common::{Collected, Driven, PATIENCE, collect_with_endings, in_own_process, ms, until};
use heeler::report::{Frame, Stack};
use heeler::{Report, Reports, Sentry, WatchdogLayer};
use http::{Request, Response};
use sentry::protocol::{Context, Level, Stacktrace, Value};
use sentry::test::TestTransport;
use sentry::{ClientOptions, Hub};
use tower::{Layer, ServiceExt, service_fn};

const DSN: &str = "https://public@sentry.invalid/1";

/// A client with these options, whose events come to the transport.
fn client(options: ClientOptions) -> (Arc<TestTransport>, Arc<Hub>) {
    let transport = TestTransport::new();
    let client = sentry::Client::from(options.dsn(DSN).transport(transport.clone()));
    (transport, Arc::new(Hub::new(Some(Arc::new(client)), Arc::default())))
}

async fn first_branch(seen: &Collected) {
    let seen = seen.clone();
    tokio::task::spawn_blocking(move || until("it is reported", || !seen.all().is_empty())).await.unwrap();
}

async fn second_branch(never: &tokio::sync::Notify) {
    never.notified().await;
}

/// Has a request that waits at two places until it was reported, and returns that report.
fn slow_request(sentry: Sentry, uri: &str) -> (Report, Reports) {
    let (seen, reports) = collect_with_endings(|builder| {
        builder.service("photos", "1.2.0").sentry(sentry).allow_headers(ALLOWED).retry_for(Duration::ZERO)
    });
    let layer = WatchdogLayer::new(ms(300)).reports(reports.clone());
    let for_service = seen.clone();
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let seen = for_service.clone();
        async move {
            let never = tokio::sync::Notify::new();
            tokio::select! {
                () = first_branch(&seen) => {}
                () = second_branch(&never) => {}
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    }));
    let request = Request::get(uri).header("host", "photos.example").header("traceparent", TRACEPARENT);
    let request = request.header("authorization", "Bearer hunter2").body(()).unwrap();
    common::runtime(0).block_on(service.oneshot(request)).unwrap();
    assert!(reports.blocking_flush(PATIENCE));
    (seen.first(), reports)
}

const ALLOWED: [&str; 2] = ["host", "traceparent"];
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Function, line and whether it is the application's: from the outermost frame to the innermost.
type Line<'a> = (Option<&'a str>, Option<u64>, bool);

fn lines(trace: &Stacktrace) -> Vec<Line<'_>> {
    let line = |frame: &sentry::protocol::Frame| (frame.lineno, frame.in_app.unwrap());
    trace.frames.iter().map(|frame| (frame.function.as_deref(), line(frame).0, line(frame).1)).collect()
}

fn expected(stack: &Stack) -> Vec<Line<'_>> {
    let line = |frame: &'_ Frame| (frame.line.map(u64::from), frame.own);
    stack.frames.iter().rev().map(|frame| (frame.function.as_deref(), line(frame).0, line(frame).1)).collect()
}

/// Guards: an event has the report's stacks, outermost frame first, and everything needed to find, group and understand it.
#[test]
fn each_report_is_one_event() {
    let (transport, hub) = client(ClientOptions::new().environment("test"));
    hub.configure_scope(|scope| scope.set_tag("team", "photos"));
    hub.add_breadcrumb(sentry::Breadcrumb { message: Some("started".to_owned()), ..Default::default() });
    let (report, reports) = slow_request(Sentry::with_hub(hub), "/albums/4711?tour=4&token=hunter2");
    assert_eq!((reports.stats().delivered, reports.stats().failed_deliveries), (reports.stats().made, 0));
    // On a slow machine there are updates, too. How the request ended is no event.
    let events = transport.fetch_and_clear_events();
    assert_eq!(events.len() as u64 + 1, reports.stats().made);
    let event = events.iter().find(|event| event.timestamp == report.captured_at).unwrap();

    assert_eq!(event.level, Level::Warning);
    assert_eq!(event.fingerprint.concat(), report.fingerprint);
    assert_eq!(event.message.as_deref(), Some(&*report.sentence()));
    assert_eq!(event.transaction.as_deref(), Some("GET /albums/{id}"));
    assert_eq!(event.server_name.as_deref(), Some(&*report.process.hostname));
    assert_eq!((event.release.as_deref(), event.environment.as_deref()), (Some("photos@1.2.0"), Some("test")));
    let tags: Vec<String> = event.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let incident = format!("incident={}", report.incident);
    assert_eq!(tags, [&*incident, "kind=slow_request", "route=GET /albums/{id}", "team=photos", "verdict=waiting"]);
    assert!(event.breadcrumbs.values.is_empty());

    let request = event.request.as_ref().unwrap();
    assert_eq!(request.url.as_ref().unwrap().as_str(), "http://photos.example/albums/4711");
    assert_eq!(request.method.as_deref(), Some("GET"));
    assert!(request.query_string.as_ref().unwrap().starts_with("tour=4&token="));
    assert_eq!(request.headers.keys().collect::<Vec<_>>(), ["host", "traceparent"]);
    let Some(Context::Trace(trace)) = event.contexts.get("trace") else { panic!("no trace") };
    assert_eq!(trace.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    let Some(Context::Other(details)) = event.contexts.get("heeler") else { panic!("no details") };
    assert_eq!(details["elapsed_ms"], Value::from(report.elapsed.as_nanos() as f64 / 1e6));
    assert!(details["where_the_time_went"][0].as_str().unwrap().contains(" of "));

    let stacks: Vec<&Stack> = report.stacks.iter().filter(|stack| stack.current).collect();
    assert!(stacks.len() > 1, "{}", report.to_text());
    let [exception] = &event.exception.values[..] else { panic!("one exception") };
    assert_eq!(exception.ty, "Slow request, waiting");
    let trace = exception.stacktrace.as_ref().unwrap();
    assert_eq!(lines(trace), expected(stacks[0]));
    let place = trace.frames.iter().rfind(|frame| frame.in_app == Some(true)).unwrap();
    assert_eq!(common::short(place.function.as_deref()), common::place(&report));
    assert!(place.context_line.as_ref().is_some_and(|line| line.contains("await")), "{:?}", place.context_line);
    assert_eq!(event.threads.values.len(), stacks.len());
    for (thread, stack) in event.threads.values.iter().zip(&stacks).skip(1) {
        assert_eq!(lines(thread.stacktrace.as_ref().unwrap()), expected(stack));
    }
    assert!(!serde_json::to_string(event).unwrap().contains("hunter2"));
}

/// Guards: what the application's client drops on purpose is not a failure, nor is a client that was switched off. A closed
/// one is.
#[test]
fn an_event_the_client_drops_is_not_a_failure() {
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let for_client = Arc::clone(&dropped);
    let (transport, hub) = client(ClientOptions::new().before_send(move |event| {
        for_client.lock().unwrap().push(event.event_id);
        None
    }));
    let (_, reports) = slow_request(Sentry::with_hub(Arc::clone(&hub)), "/");
    assert!(!dropped.lock().unwrap().is_empty() && transport.fetch_and_clear_events().is_empty());
    assert_eq!(reports.stats().undelivered, 0);
    hub.client().unwrap().close(None);
    let (_, reports) = slow_request(Sentry::with_hub(hub), "/");
    assert_eq!(
        (reports.stats().undelivered, reports.stats().delivered),
        (reports.stats().made - 1, 1),
        "the end is no event"
    );
    let off = Hub::new(Some(Arc::new(sentry::Client::from(ClientOptions::new()))), Arc::default());
    let (_, reports) = slow_request(Sentry::with_hub(Arc::new(off)), "/");
    assert_eq!(reports.stats().undelivered, 0);
}

/// Guards: a hub without a client is a failure that is counted, and no report disappears unnoticed.
#[test]
fn a_hub_without_a_client_is_a_counted_failure() {
    in_own_process("a_hub_without_a_client_is_a_counted_failure", || {
        let (_, reports) = slow_request(Sentry::new(), "/");
        assert_eq!(
            (reports.stats().undelivered, reports.stats().delivered),
            (reports.stats().made - 1, 1),
            "the end is no event"
        );
    });
}

type Kept = Arc<Mutex<Vec<(Uri, Bytes)>>>;

async fn keep(State(kept): State<Kept>, uri: Uri, body: Bytes) -> &'static str {
    kept.lock().unwrap().push((uri, body));
    "{}"
}

/// Guards: the client that `sentry::init` set up sends an envelope that a server can read, with what groups and finds the
/// event: its fingerprint, its incident and its trace.
#[test]
fn sends_a_valid_envelope_over_http() {
    in_own_process("sends_a_valid_envelope_over_http", || {
        let driven = Driven::new(1);
        let kept = Kept::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(keep).with_state(Arc::clone(&kept));
        driven.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
        // Before: whoever sets heeler up first has the same client.
        let sentry = Sentry::new();
        let guard = sentry::init(ClientOptions::new().dsn(&format!("http://public@127.0.0.1:{port}/42")));
        let (report, reports) = slow_request(sentry, "/%3Cscript%3E?q=%0d%0a{}';--&x=[1]");
        assert_eq!(reports.stats().failed_deliveries, 0);
        // Sends what is queued.
        drop(guard);
        let kept = kept.lock().unwrap();
        let first = |body: &[u8]| contains(body, b"\"type\":\"event\"") && contains(body, b"\"update\":0");
        let (uri, body) = kept.iter().find(|(_, body)| first(body)).expect("an event");
        assert_eq!(uri.path(), "/api/42/envelope/");
        // Sentry's own parser, on the bytes that were sent.
        let envelope = sentry::Envelope::from_slice(body).unwrap();
        let event = envelope.event().expect("an event");
        assert_eq!(envelope.items().count(), 1);
        assert_eq!(envelope.uuid(), Some(&event.event_id));
        assert_eq!(event.tags["incident"], report.incident);
        assert!(!report.incident.is_empty());
        let Some(Context::Trace(of_request)) = event.contexts.get("trace") else { panic!("no trace") };
        assert_eq!(of_request.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(of_request.parent_span_id.map(|id| id.to_string()).as_deref(), Some("00f067aa0ba902b7"));
        assert_eq!(event.fingerprint.concat(), report.fingerprint);
        let trace = event.exception.values[0].stacktrace.as_ref().unwrap();
        let first = report.stacks.iter().find(|stack| stack.current).unwrap();
        assert_eq!(self::lines(trace), expected(first));
        assert_eq!(event.exception.values[0].value.as_deref(), Some(&*report.sentence()));
    });
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
