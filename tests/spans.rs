//! The spans of slow work are in its report, with fields, in the right order, and without secrets.
#![cfg(feature = "watchdog")]
#![cfg(feature = "spans")]

mod common;

use std::time::Duration;

use common::{PORTABLE, collect};
use futures::TryFutureExt as _;
use heeler::{Report, SpanLayer, WatchdogLayer};
use tracing::{Instrument, info_span};
use tracing_subscriber::prelude::*;

/// What a report says of its spans: `name field=value ..`.
fn spans(report: &Report) -> Vec<String> {
    let field = |(name, value): &(String, String)| format!(" {name}={value}");
    report.spans.iter().map(|span| span.name.clone() + &span.fields.iter().map(field).collect::<String>()).collect()
}

fn install() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| tracing_subscriber::registry().with(SpanLayer::new()).init());
}

/// Guards: the spans of an `await` that does not end are shown, including those entered outside the watched work, and fields
/// that are recorded later. Values of fields with secret names are not shown.
#[tokio::test]
async fn a_waiting_job_shows_its_spans() {
    install();
    let (seen, reports) = collect();
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    // A first watched poll makes this thread known: spans entered before that are not seen.
    heeler::watch("warm up", Duration::from_secs(60), async {}).await;
    let inner = async {
        let span = info_span!("import", user = 7, album = tracing::field::Empty, api_token = "hunter2");
        async {
            tracing::Span::current().record("album", "norway");
            wait.await
        }
        .instrument(span)
        .await
    };
    let job = heeler::watch("job", Duration::from_millis(200), inner).reports(reports);
    let job = tokio::spawn(job.instrument(info_span!("outer", line = "one\ntwo")));
    let report = tokio::task::spawn_blocking(move || seen.first()).await.unwrap();
    done.send(()).unwrap();
    job.await.unwrap().unwrap();
    let expected = ["outer line=one\\ntwo", "import user=7 api_token=[redacted] album=norway"];
    assert_eq!(spans(&report), expected);
    assert!(report.to_text().contains("import user=7"));
}

/// Guards: the spans of a thread that blocks, copied in the signal handler.
#[test]
fn a_blocking_job_shows_its_spans() {
    if PORTABLE {
        return;
    }
    install();
    let (seen, reports) = collect();
    let job = async {
        let _entered = info_span!("resize", photo = 41).entered();
        // A thread that did not get the CPU in time is shown at another look.
        seen.wait("a thread with spans", |report| report.update == 3 || !report.spans.is_empty())
    };
    let job = heeler::watch("job", Duration::from_millis(20), job).reports(reports);
    let report = futures::executor::block_on(job);
    assert_eq!(spans(&report), ["resize photo=41"]);
}

type Wait = tokio::sync::oneshot::Receiver<()>;

#[tracing::instrument(skip_all)]
async fn page(wait: Wait) {
    let _photo = load(7, wait).await;
}

#[tracing::instrument(err, skip(wait))]
async fn load(photo: u32, wait: Wait) -> Result<u32, tokio::sync::oneshot::error::RecvError> {
    wait
        // It takes a while.
        .await?;
    Ok(photo)
}

/// Guards: a function with `#[instrument]` is two in the binary and one to a reader. The quoted source is what it waits for:
/// neither the attribute nor the last line of a statement alone.
#[tokio::test]
async fn instrumented_functions_are_shown_once() {
    install();
    let (seen, reports) = collect();
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    let job = tokio::spawn(heeler::watch("job", Duration::from_millis(200), page(wait)).reports(reports));
    let report = tokio::task::spawn_blocking(move || seen.first()).await.unwrap();
    done.send(()).unwrap();
    job.await.unwrap();
    let stack = report.stacks.iter().find(|stack| stack.current).unwrap();
    let own = stack.frames.iter().filter(|frame| frame.own);
    let shown: Vec<_> = own.map(|frame| (common::short(frame.function.as_deref()), frame.source.as_deref())).collect();
    let expected = [("load", Some("wait.await?;")), ("page", Some("let _photo = load(7, wait).await;"))];
    assert_eq!(shown, expected, "{}", report.to_text());
}

/// Guards: the span that tower-http opens for a request has its whole URI. Reports do not show the secrets in it, whichever
/// of the two layers is outside.
#[tokio::test]
async fn secrets_in_a_requests_span_are_not_shown() {
    use tower::{Layer, ServiceExt};
    use tower_http::trace::TraceLayer;

    install();
    heeler::watch("warm up", Duration::from_secs(60), async {}).await;
    for outside in [false, true] {
        let (seen, reports) = collect();
        let (done, wait) = tokio::sync::oneshot::channel::<()>();
        let wait = std::sync::Arc::new(tokio::sync::Mutex::new(Some(wait)));
        let service = tower::service_fn(move |_: http::Request<String>| {
            let wait = std::sync::Arc::clone(&wait);
            async move {
                let wait = wait.lock().await.take();
                let _ = wait.unwrap().await;
                Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
            }
        });
        let watchdog = WatchdogLayer::new(Duration::from_millis(100)).reports(reports);
        // As a service writes it that gives its requests spans with all that is in them.
        let trace = || {
            TraceLayer::new_for_http().make_span_with(|request: &http::Request<String>| {
                info_span!("request", method = %request.method(), uri = %request.uri(), headers = ?request.headers())
            })
        };
        let request = http::Request::get("/login?user=me&password=hunter2&token=s3cr3t")
            .header("authorization", "Bearer hunter2")
            .header("x-original-uri", "/a?api_key=s3cr3t")
            .body(String::new())
            .unwrap();
        let answer = if outside {
            tokio::spawn(trace().layer(watchdog.layer(service)).oneshot(request).map_ok(drop))
        } else {
            tokio::spawn(watchdog.layer(trace().layer(service)).oneshot(request).map_ok(drop))
        };
        let report = tokio::task::spawn_blocking(move || seen.first()).await.unwrap();
        done.send(()).unwrap();
        answer.await.unwrap().unwrap();
        let spans = spans(&report);
        assert_eq!(spans.len(), 1, "{spans:?}");
        assert!(spans[0].contains("uri=/login?user=me&password=[redacted]&token=[redacted]"), "{spans:?}");
        for form in [report.to_text(), report.to_json(), report.to_html(), report.to_svg(), report.sentence()] {
            assert!(!form.contains("hunter2") && !form.contains("s3cr3t"), "{form}");
        }
    }
}
